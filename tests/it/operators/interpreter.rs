//! Checks the interpreter that judges mutants and cases: against ONNX's own tests, and against
//! what ONNX's reference and frameworks computed for small fixtures.

use std::collections::BTreeMap;

use acb_fuse::onnx::proto::tensor_proto::DataType;
use acb_fuse::onnx::storage::{Links, Storage};
use acb_fuse::verify::compare::relative_error;

use crate::support::counts::{decoded, output_type};
use crate::support::engine::at_inference;
use crate::support::fixtures::{data, models};
use crate::support::naive::{self, Stop};

/// The number of files in each group with which the interpreter agrees.
const COMPARED: [(&str, usize); 2] = [("blocks", 173), ("conformance", 704)];

/// What the interpreter does not know in these groups, each with the number of files it is in.
const UNKNOWN: [(&str, usize); 4] = [
    ("QuantizeLinear", 1),
    ("a ConvTranspose of a given size", 9),
    ("a pool with pads and ceil_mode", 3),
    ("a product with no matrix", 34),
];

#[test]
fn it_agrees_with_onnx() {
    let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    for (group, _) in COMPARED {
        for path in models(group) {
            let expected = data(&path, "output");
            if expected.is_empty() {
                continue;
            }
            // Exporters fold norms before they round; the interpreter rounds nothing.
            let allowed = match DataType::try_from(output_type(&path)) {
                Ok(DataType::Float16) => 1e-3,
                Ok(DataType::Bfloat16) => 5e-3,
                _ => 1e-6,
            };
            let storage = Storage::in_folder(path.parent().unwrap(), Links::Confined);
            let model = at_inference(decoded(&path));
            match naive::outputs(&model, &storage, &data(&path, "input")) {
                Ok(found) => {
                    assert_eq!(expected.len(), found.len(), "{path:?}");
                    for (expected, found) in expected.iter().zip(&found) {
                        let error = relative_error(expected, found);
                        assert!(error <= allowed, "{path:?}: {error:e}");
                    }
                    *compared.entry(group).or_default() += 1;
                }
                Err(Stop::Unknown(what)) => *unknown.entry(what).or_default() += 1,
                Err(Stop::Wrong(why)) => panic!("{path:?}: {why}"),
            }
        }
    }
    assert_eq!(compared.into_iter().collect::<Vec<_>>(), COMPARED);
    let unknown: Vec<(&str, usize)> = unknown.iter().map(|(what, &n)| (what.as_str(), n)).collect();
    assert_eq!(unknown, UNKNOWN);
}
