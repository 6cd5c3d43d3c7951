//! Everything that no plan names survives, read back by another protobuf implementation.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::HashSet;
use std::fs;

use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::{Model, graph_field};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::{Options, Place, convert};
use common::{fused, models};
use onnx_protobuf::{Message, ModelProto, NodeProto, StringStringEntryProto, TensorProto};

const NETWORK: &str = "fixtures/networks/cifar_quick/torchscript_kept_static.onnx";
const NUMBER: u32 = 4711;

/// A model with fields that the schema does not know, at every level.
fn model_from_the_future() -> ModelProto {
    let mut model = ModelProto::parse_from_bytes(&fs::read(NETWORK).unwrap()).unwrap();
    let mark = |fields: &mut protobuf::SpecialFields, text: &str| {
        fields.mut_unknown_fields().add_length_delimited(NUMBER, text.as_bytes().to_vec());
    };
    model.doc_string = "a doc string".into();
    model.metadata_props.push(StringStringEntryProto {
        key: "license".into(),
        value: "free".into(),
        ..Default::default()
    });
    mark(&mut model.special_fields, "model");
    mark(&mut model.graph.as_mut().unwrap().special_fields, "graph");
    for node in &mut model.graph.as_mut().unwrap().node {
        node.doc_string = format!("doc of {}", node.name);
        let text = node.name.clone();
        mark(&mut node.special_fields, &text);
    }
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        let text = tensor.name.clone();
        mark(&mut tensor.special_fields, &text);
    }
    for input in &mut model.graph.as_mut().unwrap().input {
        mark(&mut input.special_fields, "input");
    }
    model
}

#[test]
fn unknown_fields_docs_metadata_and_order_survive() {
    let old = model_from_the_future();
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("old.onnx"), folder.path().join("new.onnx"));
    fs::write(&from, old.write_to_bytes().unwrap()).unwrap();
    let report = convert(&Place::File(from), Some(&Place::File(to.clone())), &Options::default());
    assert_eq!(report.unwrap().blocks.len(), 3);
    let new = ModelProto::parse_from_bytes(&fs::read(to).unwrap()).unwrap();

    let (old_graph, new_graph) = (old.graph.unwrap(), new.graph.unwrap());
    let mark = |fields: &protobuf::SpecialFields| fields.unknown_fields().get(NUMBER).is_some();
    assert!(mark(&new.special_fields) && mark(&new_graph.special_fields));
    assert_eq!((new.doc_string, new.metadata_props), (old.doc_string, old.metadata_props));
    assert_eq!((&new_graph.input, &new_graph.output), (&old_graph.input, &old_graph.output));

    // What is left of the old is the old, field for field, in the old order.
    let kept = |fused: &str| !fused.contains(".fused");
    let left: Vec<_> = new_graph.node.iter().filter(|node| kept(&node.name)).collect();
    let names: HashSet<&str> = left.iter().map(|node| node.output[0].as_str()).collect();
    let expected: Vec<_> =
        old_graph.node.iter().filter(|node| names.contains(node.output[0].as_str())).collect();
    assert_eq!(left, expected);
    assert!(left.len() > 5 && left.iter().all(|node| mark(&node.special_fields)));
    let left: Vec<_> = new_graph.initializer.iter().filter(|tensor| kept(&tensor.name)).collect();
    let names: HashSet<&str> = left.iter().map(|tensor| tensor.name.as_str()).collect();
    let expected: Vec<_> = old_graph
        .initializer
        .iter()
        .filter(|tensor| names.contains(tensor.name.as_str()))
        .collect();
    assert_eq!(left, expected);
    assert_eq!(
        new_graph.node.len() - new_graph.node.iter().filter(|node| kept(&node.name)).count(),
        3
    );
}

/// The bytes of all entries of one kind, in the main graph and in bodies.
fn entries(model: &Model, number: u32) -> Vec<&[u8]> {
    let graphs = Graph::read_all(model).unwrap();
    let fields = graphs.iter().flat_map(|graph| graph.scope.fields(number));
    fields.map(|field| &model.bytes()[field.entry.clone()]).collect()
}

/// Where the message in an entry begins: behind the tag and the length.
fn payload_at(entry: &[u8]) -> usize {
    2 + entry[1..].iter().take_while(|&&byte| byte >= 0x80).count()
}

/// An entry, but for where in a side file its data lies: the new model has one of its own.
fn bare(entry: &[u8]) -> Vec<u8> {
    let at = payload_at(entry);
    match TensorProto::parse_from_bytes(&entry[at..]) {
        Ok(mut tensor) if !tensor.external_data.is_empty() => {
            tensor.external_data.clear();
            [&entry[..1], &tensor.write_to_bytes().unwrap()].concat()
        }
        _ => entry.to_vec(),
    }
}

/// Every entry of every output stood in the input, byte for byte and in that order,
/// unless it is new, an inlined call's, around a rewritten body, or was in training mode.
#[test]
fn what_is_not_rewritten_keeps_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.onnx");
    let mut compared = 0;
    let groups = ["blocks", "near_misses", "exporters", "networks", "relatives", "conformance"];
    for model in groups.into_iter().flat_map(models) {
        let trains = fused(&model, &output).inferred > 0;
        let index = |path| Model::index(fs::read(path).unwrap().into(), Storage::default());
        let (old, new) = (index(&model).unwrap(), index(&output).unwrap());
        let may_be_new = |entry: &[u8]| {
            let node = NodeProto::parse_from_bytes(&entry[payload_at(entry)..]).unwrap_or_default();
            let trained = ["BatchNormalization", "Dropout"].contains(&node.op_type.as_str());
            let around = ["If", "Loop", "Scan"].contains(&node.op_type.as_str());
            // Names stand in the first bytes of an entry, or behind the weights of a tensor.
            let text = String::from_utf8_lossy(entry);
            around || (trained && trains) || text.contains(".fused") || text.contains(".inlined")
        };
        for number in [
            graph_field::NODE,
            graph_field::INITIALIZER,
            graph_field::SPARSE_INITIALIZER,
            graph_field::INPUT,
            graph_field::OUTPUT,
            graph_field::VALUE_INFO,
        ] {
            let mut before = entries(&old, number).into_iter().map(bare);
            for entry in entries(&new, number).into_iter().map(bare) {
                let entry = &entry[..];
                compared += 1;
                let found = before.clone().any(|old| old == *entry);
                assert!(
                    found || may_be_new(entry),
                    "{model:?}: {:?}",
                    String::from_utf8_lossy(entry)
                );
                if found {
                    before.by_ref().find(|old| old == entry);
                }
            }
        }
        let around = |path| {
            let mut model = ModelProto::parse_from_bytes(&fs::read(path).unwrap()).unwrap();
            model.graph.clear();
            model.functions.clear();
            model
        };
        assert_eq!(around(&model), around(&output), "{model:?}");
    }
    assert!(compared > 3000, "{compared}");
}
