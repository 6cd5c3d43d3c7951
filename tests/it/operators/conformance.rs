//! ONNX's own tests of the operators that are read: as they are, and embedded in graphs
//! in which they fold (`fixtures/export/conformance.py`).
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use acb_fuse::engine::Array;
use acb_fuse::verify::compare::relative_error;
use expect_test::expect_file;

use crate::support::counts::decoded;
use crate::support::engine::run;
use crate::support::fixtures::{data, models};
use crate::support::results;
use crate::support::tool::fused;

/// Relative to the largest output: what float32 makes of a sum of a few hundred products.
const LIMIT: f64 = 1e-6;

/// ONNX's tests of ScatterND fill no border.
const NEVER_FOLDED: [&str; 1] = ["ScatterND"];

/// A model of the group, and the file that it is converted to.
struct Converted<'a> {
    model: &'a Path,
    output: &'a Path,
}

impl Converted<'_> {
    fn case(&self) -> String {
        let folder = name(self.model.parent().and_then(Path::file_name));
        match folder.as_str() {
            "passed_through" => name(self.model.file_stem()),
            _ => folder.split("_embedded").next().unwrap().to_owned(),
        }
    }

    fn is_embedded(&self) -> bool {
        !places(self.model).is_empty()
    }

    /// Returns the operator that the model tests.
    fn operator(&self) -> String {
        let nodes = decoded(self.model).graph.unwrap().node;
        let is_embedded = self.is_embedded();
        let of_case = |name: &str| !is_embedded || place(name).is_some();
        nodes.iter().rfind(|node| of_case(node.name())).unwrap().op_type().to_owned()
    }

    fn is_unchanged(&self) -> bool {
        fs::read(self.model).unwrap() == fs::read(self.output).unwrap()
    }

    /// Checks the outputs against those that ONNX's test expects; returns whether tract could run
    /// the model.
    fn is_right(&self) -> bool {
        let (inputs, expected) = (data(self.model, "input"), data(self.model, "output"));
        let beside = self.model.parent().unwrap();
        let error = |found: Vec<Array>| {
            assert_eq!(found.len(), expected.len(), "{:?}", self.model);
            let errors = expected.iter().zip(&found);
            errors.map(|(expected, found)| relative_error(expected, found)).fold(0.0, f64::max)
        };
        let before = run(self.model, beside, &inputs).map(error);
        let after = run(self.output, beside, &inputs).map(error);
        match (before, after) {
            (Err(_), Err(_)) => false,
            (before, Ok(after)) => {
                // A sum that cancels is rounded more; then that error is in the original too.
                let rounding = before.unwrap_or(0.0);
                assert!(rounding <= 4.0 * LIMIT, "{:?}: tract is off by {rounding:e}", self.model);
                assert!(after <= LIMIT.max(rounding), "{:?}: {rounding:e}, {after:e}", self.model);
                true
            }
            (Ok(_), Err(error)) => panic!("{:?}: the result does not run: {error}", self.model),
        }
    }
}

/// Counts over the tests of one operator.
#[derive(Default)]
struct OperatorCounts {
    cases: BTreeSet<String>,
    without_data: usize,
    embedded: usize,
    copies: usize,
    folded: usize,
    compared: usize,
    not_run: BTreeSet<String>,
}

impl OperatorCounts {
    fn add(&mut self, found: &Converted) {
        self.cases.insert(found.case());
        if found.is_embedded() {
            let (before, left) = (places(found.model), places(found.output));
            self.embedded += 1;
            self.copies += before.len();
            self.folded += before.difference(&left).count();
        } else {
            assert!(found.is_unchanged(), "{:?}: nothing in it is constant", found.model);
        }
        if !found.model.with_file_name("outputs.pb").exists() {
            self.without_data += 1;
        } else if found.is_right() {
            self.compared += 1;
        } else {
            assert!(found.is_unchanged(), "{:?}: nobody has compared it", found.model);
            self.not_run.insert(name(found.model.parent().and_then(Path::file_name)));
        }
    }

    fn include(&mut self, other: &OperatorCounts) {
        self.cases.extend(other.cases.iter().cloned());
        self.without_data += other.without_data;
        self.embedded += other.embedded;
        self.copies += other.copies;
        self.folded += other.folded;
        self.compared += other.compared;
    }

    fn row(&self, operator: &str) -> String {
        let not_run: Vec<&str> = self.not_run.iter().map(String::as_str).collect();
        format!(
            "| {operator} | {} | {} | {} | {} | {} | {} | {} |\n",
            self.cases.len(),
            self.embedded,
            self.copies,
            self.folded,
            self.compared,
            self.without_data,
            not_run.join(", ")
        )
    }
}

fn name(part: Option<&OsStr>) -> String {
    part.unwrap().to_str().unwrap().to_owned()
}

/// Returns the place in which a node of the case stands, or `None` if the node belongs to the
/// graph around the case.
fn place(node: &str) -> Option<&str> {
    node.split_once("/case/").map(|(place, _)| place)
}

fn places(model: &Path) -> BTreeSet<String> {
    let nodes = decoded(model).graph.unwrap().node;
    nodes.iter().filter_map(|node| place(node.name()).map(str::to_owned)).collect()
}

/// Returns a line with the places in which the case's nodes were folded, and those in which not.
fn fate(found: &Converted) -> String {
    let (before, left) = (places(found.model), places(found.output));
    let list = |places: Vec<&str>| if places.is_empty() { "-".into() } else { places.join(" ") };
    let folded = list(before.difference(&left).map(String::as_str).collect());
    let stayed = list(left.iter().map(String::as_str).collect());
    let file = found.model.strip_prefix("fixtures/conformance").unwrap().with_extension("");
    format!("{}: {folded} | {stayed}\n", file.display())
}

/// As they are, the tests come out byte for byte; embedded, they have the outputs that ONNX
/// expects, however much is folded. `UPDATE_EXPECT=1 cargo test` updates the list of the places
/// in which each node was folded.
#[test]
fn onnx_tests_keep_their_meaning() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.onnx");
    let mut counts: BTreeMap<String, OperatorCounts> = BTreeMap::new();
    let mut fates = String::from("# model: places in which the tested nodes were folded | left\n");
    for model in models("conformance") {
        fused(&model, &output);
        let found = Converted { model: &model, output: &output };
        counts.entry(found.operator()).or_default().add(&found);
        if found.is_embedded() {
            fates.push_str(&fate(&found));
        }
    }
    let path = std::env::current_dir().unwrap().join("fixtures/conformance.txt");
    expect_file![path].assert_eq(&fates);

    let never = counts.iter().filter(|(_, found)| found.folded == 0);
    assert_eq!(never.map(|(operator, _)| operator).collect::<Vec<_>>(), NEVER_FOLDED);
    let mut table = String::from(
        "| operator | tests | embedded graphs | copies of the node | folded | compared in tract | without data | not run by tract |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut sum = OperatorCounts::default();
    for (operator, found) in &counts {
        table.push_str(&found.row(operator));
        sum.include(found);
    }
    table.push_str(&sum.row("all"));
    results::hold("conformance", &table);
}
