//! Cases that are written as text: the report of each is stored beside it, and the new file
//! computes what the old graph does, according to an interpreter in float64.
//!
//! `UPDATE_EXPECT=1 cargo test --test it cases` writes the expected reports anew.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use acb_fuse::onnx::proto::tensor_proto::DataType;
use acb_fuse::onnx::storage::Storage;
use acb_fuse::verify::compare::relative_error;
use expect_test::expect_file;
use serde_json::Value;

use crate::support::cases::{self, Case};
use crate::support::counts::{decoded, output_type};
use crate::support::engine::at_inference;
use crate::support::fixtures::{data, sorted};
use crate::support::naive;
use crate::support::parallel;
use crate::support::tool::tool;

#[test]
fn every_case_is_reported_as_expected_and_computes_the_same() {
    parallel::each(cases::all(), |case| {
        let mut said = String::new();
        for flags in &case.runs {
            if !flags.is_empty() {
                writeln!(said, "\n{}\n", flags.join(" ")).unwrap();
            }
            said.push_str(&tried(case, flags));
        }
        if let Some(what) = &case.unknown {
            writeln!(said, "\nnot judged: the interpreter does not know {what}").unwrap();
        }
        let path = std::env::current_dir().unwrap().join(case.text.with_extension("txt"));
        expect_file![path].assert_eq(&said);
    });
}

/// The expected report of a case that no longer exists would be compared with nothing.
#[test]
fn every_expected_report_has_its_case() {
    for report in sorted(Path::new("fixtures/cases")) {
        assert!(report.with_extension("onnxtxt").exists(), "{}", report.display());
    }
}

/// Returns what a look says. A conversion must say the same, and its file compute the same.
fn tried(case: &Case, flags: &[String]) -> String {
    let name = case.text.display();
    let folder = tempfile::tempdir().unwrap();
    let [new, looked, written] =
        ["new.onnx", "look.json", "write.json"].map(|file| folder.path().join(file));
    let run = |arguments: &[&Path], report: &Path| {
        let mut tool = tool();
        tool.current_dir(case.model.parent().unwrap()).args(arguments).args(flags);
        tool.arg("--report").arg(report).output().unwrap()
    };
    let model = Path::new("model.onnx");
    let look = run(&[model], &looked);
    let write = run(&[model, &new], &written);
    assert_eq!(look.status.code(), write.status.code(), "{name} {flags:?}: {write:?}");
    let said = String::from_utf8([look.stdout, look.stderr].concat()).unwrap();
    if !look.status.success() {
        return said;
    }
    let found = |report: &Path| {
        let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
        let part = |key: &str| report[key].as_array().unwrap().clone();
        let blocks = part("blocks").into_iter().map(|block| block["branches"].clone());
        let converted = report["notes"]["converted_nodes"].clone();
        (blocks.collect::<Vec<_>>(), part("near_misses"), converted)
    };
    assert_eq!(found(&looked), found(&written), "{name} {flags:?}: look and file disagree");
    if case.unknown.is_none() {
        compare(case, &new);
    }
    said
}

fn compare(case: &Case, new: &Path) {
    let name = case.text.display();
    let allowed = match DataType::try_from(output_type(&case.model)) {
        Ok(DataType::Double) => 1e-12,
        Ok(DataType::Float16) => 2e-3,
        // Weights are rounded to eight bits: half a unit in the last place is 2e-3.
        Ok(DataType::Bfloat16) => 1e-2,
        _ => 1e-6,
    };
    let model = at_inference(decoded(new));
    let found = naive::outputs(&model, &Storage::default(), &data(&case.model, "input"));
    let found = found.unwrap_or_else(|stop| panic!("{name}: {stop:?}"));
    let expected = data(&case.model, "output");
    assert_eq!(expected.len(), found.len(), "{name}");
    for (expected, found) in expected.iter().zip(&found) {
        let error = relative_error(expected, found);
        assert!(error <= allowed, "{name}: {error:e}");
    }
}
