//! Writes `docs/operators.md` from the table of operators: `UPDATE_EXPECT=1` updates it.

use std::fmt::Write;

use acb_fuse::ops::table::TABLE;
use expect_test::expect_file;

const HEAD: &str = "\
# Operators

What blocks may consist of: every other operator is left as it is, and no block goes through
it. Versions are the operator sets that brought the definitions which are read. This page is
written from the table in `src/ops/table.rs`, and held to it by a test.

| operator | read as | versions |
| --- | --- | --- |
";

#[test]
fn the_document_has_a_line_per_row() {
    let mut page = HEAD.to_owned();
    for row in TABLE {
        let (first, last) = (row.versions.start(), row.versions.end());
        let written = writeln!(page, "| {} | {} | {first}–{last} |", row.name, row.read_as);
        assert!(written.is_ok());
    }
    expect_file!["../../../docs/operators.md"].assert_eq(&page);
}

#[test]
fn each_operator_has_one_row() {
    assert!(TABLE.is_sorted_by(|left, right| left.name < right.name));
}
