//! Fuzz targets: each takes arbitrary bytes and panics if the tool does something that it must
//! never do. The `cargo fuzz` targets and `tests/fuzz_replay.rs` call the same functions:
//! nothing is written twice.

#![allow(dead_code, reason = "each fuzz target uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a finding is told"
)]

pub mod choices;
pub mod external_data;
pub mod mutate;
pub mod splice;
pub mod stress;
pub mod well_formed;

use std::fs;
use std::path::{Path, PathBuf};

use acb_fuse::engine::dialect;
use acb_fuse::facts::constants::Constants;
use acb_fuse::onnx::data;
use acb_fuse::onnx::external;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::inline::{self, inline};
use acb_fuse::onnx::model::{Invalid, Model};
use acb_fuse::onnx::proto::{ModelProto, SparseTensorProto, TensorProto, ValueInfoProto};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use acb_fuse::onnx::tensor::Initializer;
use acb_fuse::report::Report;
use acb_fuse::{Endpoint, Error, Options, convert};
use prost::Message;

/// Creates a folder, in memory if the system offers that: every output is flushed to disk, and
/// the disk would account for most of what is measured.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(folder).unwrap()
}

/// Runs everything that reads a model: the index, graphs, constants, every tensor, functions.
pub fn reader(data: &[u8]) {
    if let Ok(model) = Model::index(data.to_vec().into(), Storage::default()) {
        let _ = read_model(&model);
    }
}

fn read_model(model: &Model) -> Result<(), Invalid> {
    let graphs = Graph::read_all(model)?;
    for keep_overridable in [false, true] {
        for (graph, constants) in graphs.iter().zip(Constants::find_all(&graphs, keep_overridable)?)
        {
            for (id, _) in graph.values() {
                let dims = constants.dims(id);
                if let (Ok(Some((floats, _))), Ok(Some(dims))) = (constants.floats(id), &dims) {
                    assert_eq!(floats.shape(), dims, "the shape of a constant");
                }
                if let (Ok(Some(integers)), Ok(Some(dims))) = (constants.integers(id), dims) {
                    assert_eq!(
                        integers.len(),
                        dims.iter().product::<usize>(),
                        "integers of a constant"
                    );
                }
            }
        }
    }
    for graph in &graphs {
        graph.values().for_each(|(id, _)| match graph.initializer(id) {
            Ok(Some(Initializer::Dense(tensor))) => read_tensor(&tensor),
            Ok(Some(Initializer::Sparse(sparse))) => read_sparse(&sparse),
            Ok(None) | Err(_) => {}
        });
        for attribute in graph.nodes().flat_map(|(_, node)| &node.proto.attribute) {
            attribute.t.as_deref().into_iter().chain(&attribute.tensors).for_each(read_tensor);
            attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors).for_each(read_sparse);
        }
        let _ = graph.check_tensors();
    }
    let _ = external::find(model);
    let _ = inline::refused(model, &graphs);
    let _ = dialect::model(model);
    if let Some(inlined) = inline(model, &|_| true)? {
        let inlined = Model::index(inlined, Storage::default())?;
        Graph::read_all(&inlined)?;
    }
    Ok(())
}

fn read_tensor(tensor: &TensorProto) {
    let storage = Storage::default();
    let dims = data::dims(tensor);
    if let Ok(floats) = tensor::floats(tensor, &storage) {
        assert_eq!(floats.shape(), dims.as_ref().unwrap(), "the shape of a tensor");
    }
    if let Ok(integers) = tensor::integers(tensor, &storage) {
        assert_eq!(integers.len(), dims.unwrap().iter().product::<usize>(), "integers of a tensor");
    }
}

fn read_sparse(sparse: &SparseTensorProto) {
    let _ = tensor::dense(sparse, &Storage::default());
}

/// Runs the whole tool without verification. What it writes must be readable again, be well
/// formed if the input was, have the same outputs, and be the same in every run.
pub fn pipeline(data: &[u8]) {
    let folder = scratch();
    let path = |name: &str| folder.path().join(name);
    let (input, output, again) =
        (path("in.onnx"), path("written by a test.onnx"), path("written again.onnx"));
    fs::write(&input, data).unwrap();
    let look = converted(&input, None);
    let first = converted(&input, Some(&output));
    let second = converted(&input, Some(&again));
    assert!(look.is_ok() || first.is_err(), "what cannot be looked at is not converted");
    match (first, second) {
        (Ok(report), Ok(_)) => {
            let (new, twin) = (fs::read(&output).unwrap(), fs::read(&again).unwrap());
            assert!(new == twin, "two runs give two files");
            check_written(data, &new, &report);
            // That a second run still finds something is a pity, not a mistake.
            let more = converted(&output, Some(&path("twice.onnx")));
            let more = more.expect("what was written can be converted again");
            assert!(more.sizes.after.nodes <= report.sizes.after.nodes, "a second run adds nodes");
        }
        (Err(first), Err(second)) => {
            assert_eq!(reason(&first), reason(&second), "two runs, two reasons");
            let left: Vec<PathBuf> = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| *path != input)
                .collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
        (first, second) => panic!("two runs, two results: {first:?}, {second:?}"),
    }
}

/// Returns the text of an error without the file name that it begins with.
fn reason(error: &Error) -> String {
    let text = error.to_string();
    text.split_once(": ").map_or(String::new(), |(_, reason)| reason.to_owned())
}

/// Converts the model `input` without verification, or only looks at it if there is no `output`.
pub fn converted(input: &Path, output: Option<&Path>) -> Result<Report, Error> {
    let mut options = Options::default();
    options.verify = false;
    let output = output.map(|output| Endpoint::File(output.to_owned()));
    convert(&Endpoint::File(input.to_owned()), output.as_ref(), &options)
        .map_err(|failure| *failure.error)
}

fn check_written(old: &[u8], new: &[u8], report: &Report) {
    if report.blocks.is_empty() && report.notes.inferred_nodes == 0 {
        assert!(old == new, "nothing was fused, and yet the file is another one");
        // A file that is copied as it is may have its nodes in any order.
        return;
    }
    let written = Model::index(new.to_vec().into(), Storage::default());
    let written = written.expect("what was written can be indexed");
    let graphs = Graph::read_all(&written).expect("what was written is well formed");
    let nodes: usize = graphs.iter().map(Graph::node_count).sum();
    assert_eq!(report.sizes.after.nodes, Some(nodes), "the nodes that the report counts");
    // The tool may read what other readers refuse, but must not produce it.
    let Ok(before) = ModelProto::decode(old) else { return };
    let after = ModelProto::decode(new).expect("what could be decoded still can");
    if well_formed::problem(&before).is_none() {
        assert_eq!(well_formed::problem(&after), None, "a well-formed model");
    }
    let (Some(before), Some(after)) = (before.graph, after.graph) else { return };
    assert_eq!(before.output, after.output, "the outputs");
    let gone: Vec<&ValueInfoProto> =
        before.input.iter().filter(|input| !after.input.contains(input)).collect();
    let is_stored = |input: &&ValueInfoProto| {
        let sparse = before.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_deref());
        before.initializer.iter().chain(sparse).any(|tensor| tensor.name() == input.name())
    };
    assert!(gone.iter().all(is_stored), "inputs that a caller gives are gone: {gone:?}");
}

/// Runs the whole tool with its own verification, which must never find a difference.
pub fn verified(data: &[u8]) {
    let folder = scratch();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    fs::write(&input, data).unwrap();
    let converted =
        convert(&Endpoint::File(input), Some(&Endpoint::File(output)), &Options::default());
    let converted = converted.map_err(|failure| *failure.error);
    if let Err(
        wrong @ (Error::BlockDiffers { .. } | Error::OutputDiffers { .. } | Error::Broken { .. }),
    ) = converted
    {
        panic!("{wrong}");
    }
}
