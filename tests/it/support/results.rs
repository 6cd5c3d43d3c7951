//! The tables of `docs/results` and of other documents: one test makes each, compares it with the
//! document and, with `UPDATE_EXPECT=1`, writes it.

use std::fs;

/// Fails if `docs/results/{page}.md` does not have these tables, which empty lines separate.
pub fn hold(page: &str, tables: &str) {
    hold_in(&format!("docs/results/{page}.md"), tables);
}

/// The same for any document.
pub fn hold_in(path: &str, tables: &str) {
    let text = fs::read_to_string(path).unwrap();
    let right = tables.split("\n\n").fold(text.clone(), |text, table| with_table(&text, table));
    if text == right {
        return;
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, right).unwrap();
    }
    panic!("{path} has other tables than it should:\n{tables}");
}

/// Returns `text` with `table` in the place of the table with the same first line.
fn with_table(text: &str, table: &str) -> String {
    let head = table.lines().next().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let begin = lines.iter().position(|line| *line == head);
    let begin = begin.unwrap_or_else(|| panic!("there is no table under {head}"));
    let old = lines[begin..].iter().take_while(|line| line.starts_with('|')).count();
    let new = table.trim_end();
    let lines = lines[..begin].iter().copied().chain([new]).chain(lines[begin + old..].to_vec());
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn a_table_takes_the_place_of_its_elder() {
    let text = "# Page\n\n| a |\n| --- |\n| 1 |\n| 2 |\n\nEnd.\n";
    assert_eq!(
        with_table(text, "| a |\n| --- |\n| 3 |\n"),
        "# Page\n\n| a |\n| --- |\n| 3 |\n\nEnd.\n"
    );
}
