//! Nodes out of order, as converters to float16 write them: they are read, sorted in a file that
//! changes, and left as they are in one that does not.
use std::fs;
use std::path::Path;

use acb_fuse::Options;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::node::bodies;
use acb_fuse::onnx::proto::{GraphProto, ModelProto, NodeProto};
use acb_fuse::onnx::sort::sorted;
use acb_fuse::onnx::storage::Storage;
use prost::Message;
use prost::bytes::Bytes;

use crate::support::cases;
use crate::support::counts::decoded;
use crate::support::fixtures::data;
use crate::support::tool::{converted, fused, looked, options};

/// Returns the model with its nodes in an order that no engine runs.
fn reversed(mut model: ModelProto) -> ModelProto {
    fn reverse(nodes: &mut [NodeProto]) {
        nodes.reverse();
        let attributes = nodes.iter_mut().flat_map(|node| &mut node.attribute);
        let bodies =
            attributes.flat_map(|held| held.g.as_deref_mut().into_iter().chain(&mut held.graphs));
        bodies.for_each(|body| reverse(&mut body.node));
    }
    reverse(&mut model.graph.as_mut().unwrap().node);
    model.functions.iter_mut().for_each(|function| reverse(&mut function.node));
    model
}

/// Returns every node in a model, bodies included, each encoded and without its bodies.
fn all_nodes(model: &ModelProto) -> Vec<Vec<u8>> {
    fn add(graph: &GraphProto, found: &mut Vec<Vec<u8>>) {
        for node in &graph.node {
            let mut alone = node.clone();
            alone.attribute.retain(|attribute| attribute.g.is_none());
            found.push(alone.encode_to_vec());
            bodies(node).for_each(|body| add(body, found));
        }
    }
    let mut found = Vec::new();
    add(model.graph.as_ref().unwrap(), &mut found);
    found.sort();
    found
}

#[test]
fn nodes_in_any_order_are_read_and_written_in_one() {
    let models = [
        "fixtures/networks/cifar_quick/torchscript_kept_static.onnx".to_owned(),
        "fixtures/networks/resnet18/torchscript_kept_dynamic.onnx".to_owned(),
        "fixtures/blocks/k3/torchscript_kept.onnx".to_owned(),
        cases::model("if_branches"),
        cases::model("loop_body"),
        cases::model("training_function"),
    ];
    for model in models {
        let path = Path::new(&model);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mixed = reversed(decoded(path));
        fs::write(at("mixed.onnx"), mixed.encode_to_vec()).unwrap();
        let [of_sorted, of_mixed] =
            [(path, "a"), (&at("mixed.onnx"), "b")].map(|(from, to)| fused(from, &at(to)));
        assert_eq!(of_mixed.blocks.len(), of_sorted.blocks.len(), "{model}");
        assert!(!of_sorted.is_unchanged(), "{model}");
        let look = looked(&at("mixed.onnx"), &Options::default());
        assert_eq!(look.blocks.len(), of_sorted.blocks.len(), "{model}");
        let [one, other] = ["a", "b"].map(|name| decoded(&at(name)));
        assert_eq!(all_nodes(&one), all_nodes(&other), "{model}");
        // The nodes are sorted: what reads the file accepts it.
        let bytes = Bytes::from(fs::read(at("b")).unwrap());
        let new = Model::index(bytes, Storage::default()).unwrap();
        Graph::read_all(&new).unwrap();
        assert!(sorted(&new).unwrap().is_none(), "{model}");
        if path.with_file_name("input_0.pb").exists() && model.contains("networks") {
            let inputs = data(path, "input");
            let [was, is] = ["a", "b"].map(|name| {
                crate::support::engine::run(&at(name), folder.path(), &inputs).unwrap()
            });
            assert_eq!(was, is, "{model}");
        }
    }
}

/// Sorting moves entries byte for byte, and nothing if the nodes are in order already.
#[test]
fn sorting_moves_entries_and_changes_none() {
    let model = decoded(Path::new("fixtures/networks/cifar_quick/plain.onnx"));
    let index = |model: &ModelProto| {
        Model::index(model.encode_to_vec().into(), Storage::default()).unwrap()
    };
    assert!(sorted(&index(&model)).unwrap().is_none());
    // Only a node that is read too early moves, right before its first reader.
    let mut late = model.clone();
    let nodes = &mut late.graph.as_mut().unwrap().node;
    let first = nodes.remove(0);
    nodes.push(first);
    let bytes = sorted(&index(&late)).unwrap().unwrap();
    assert!(bytes == model.encode_to_vec());
}

#[test]
fn what_does_not_change_stays_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let [path, out] = ["in.onnx", "out.onnx"].map(|name| folder.path().join(name));
    let mixed = reversed(decoded(Path::new("fixtures/networks/cifar_quick/plain.onnx")));
    fs::write(&path, mixed.encode_to_vec()).unwrap();
    // A report with details needs no order either.
    for details in [false, true] {
        let report = converted(&path, &out, &options(|options| options.details = details));
        assert!(report.is_unchanged());
        assert_eq!(report.sizes.before, report.sizes.after);
        assert!(fs::read(&out).unwrap() == mixed.encode_to_vec());
    }
}

/// A body reads a name from the graph around it until one of the body's own nodes makes a tensor
/// of that name: to move that node would change what is read.
#[test]
fn what_hides_a_name_does_not_move() {
    let model = decoded(Path::new(&cases::model("body_hides_weight")));
    let index = Model::index(model.encode_to_vec().into(), Storage::default()).unwrap();
    assert!(sorted(&index).unwrap().is_none());
}
