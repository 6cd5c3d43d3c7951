//! Fixtures as tables: a case is a folder whose `*.onnx` files all compute
//! `output_*.pb` from `input_*.pb`, or `outputs.pb` from `inputs.pb`.
use std::fs;
use std::path::{Path, PathBuf};

use acb_fuse::engine::Array;
use acb_fuse::onnx::data;
use acb_fuse::onnx::proto::TensorProto;
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use ndarray::ArrayD;
use prost::Message;

use super::cases;

/// A group of fixtures, and what its files are tested for besides what all are.
pub struct Group {
    pub name: &'static str,
    /// What the tool says of each file is stored beside it.
    pub reported: bool,
    /// The outputs of its files are compared with the framework's.
    pub compared: bool,
    /// Its files are small enough to be run node by node.
    pub small: bool,
}

/// Groups whose files are tested for the same properties. `bad_input`, `constants`, `shapes` and
/// `trained` have tests of their own.
pub const GROUPS: [Group; 8] = [
    // Their reports are checked by a test of their own.
    Group { name: CASES, reported: false, compared: true, small: true },
    Group { name: "blocks", reported: true, compared: true, small: true },
    Group { name: "networks", reported: true, compared: true, small: false },
    Group { name: "relatives", reported: true, compared: true, small: false },
    Group { name: "exporters", reported: true, compared: true, small: true },
    Group { name: "conformance", reported: false, compared: false, small: false },
    Group { name: "training_mode", reported: false, compared: false, small: false },
    Group { name: "wrong_files", reported: false, compared: false, small: false },
];

/// The group of cases that are written as text.
const CASES: &str = "cases";

/// Returns the models of the wanted groups.
pub fn of(wanted: impl Fn(&Group) -> bool) -> Vec<PathBuf> {
    GROUPS.iter().filter(|group| wanted(group)).flat_map(|group| models(group.name)).collect()
}

/// Returns all training-time models below `fixtures/<group>`, sorted, relative to the crate.
pub fn models(group: &str) -> Vec<PathBuf> {
    if group == CASES {
        return cases::all().iter().map(|case| case.model.clone()).collect();
    }
    let mut found = Vec::new();
    for case in sorted(&Path::new("fixtures").join(group)) {
        found.extend(sorted(&case).into_iter().filter(|path| has_extension(path, "onnx")));
    }
    let twins: Vec<PathBuf> = found.iter().filter_map(|model| deployed_twin(model)).collect();
    found.retain(|model| !twins.contains(model));
    assert!(!found.is_empty(), "no fixtures in group {group}");
    found
}

/// Returns what a framework makes of the same network for deployment, if the fixture has it.
pub fn deployed_twin(model: &Path) -> Option<PathBuf> {
    let name = model.file_name()?.to_str()?;
    let twins = ["plain.onnx".to_owned(), format!("deployed_{name}")];
    let mut twins = twins.iter().map(|twin| model.with_file_name(twin));
    twins.find(|twin| twin != model && twin.exists())
}

pub fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// Returns the fixture's inputs or framework outputs (`kind` is `input` or `output`), in order:
/// from one file each or, one after the other, from one file for all.
pub fn data(model: &Path, kind: &str) -> Vec<Array> {
    let folder = model.parent().unwrap();
    if let Ok(together) = fs::read(folder.join(format!("{kind}s.pb"))) {
        let mut left = &together[..];
        let next =
            || (!left.is_empty()).then(|| TensorProto::decode_length_delimited(&mut left).unwrap());
        return std::iter::from_fn(next).map(|proto| array(&proto)).collect();
    }
    let read = |index| fs::read(folder.join(format!("{kind}_{index}.pb"))).ok();
    (0..).map_while(read).map(|bytes| array(&TensorProto::decode(&bytes[..]).unwrap())).collect()
}

fn array(proto: &TensorProto) -> Array {
    let storage = Storage::default();
    tensor::floats(proto, &storage).map(Array::Float).unwrap_or_else(|_| {
        let values = tensor::integers(proto, &storage).unwrap();
        Array::Int(ArrayD::from_shape_vec(data::dims(proto).unwrap(), values).unwrap())
    })
}
