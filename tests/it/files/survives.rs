//! Fields that the schema does not know survive, read back by another protobuf implementation;
//! what else survives is tested in `invariants`.
use std::collections::HashSet;
use std::fs;

use onnx_protobuf::{Message, ModelProto, StringStringEntryProto};

use crate::support::tool::fused;

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
    assert_eq!(fused(&from, &to).blocks.len(), 3);
    let new = ModelProto::parse_from_bytes(&fs::read(to).unwrap()).unwrap();

    let (old_graph, new_graph) = (old.graph.unwrap(), new.graph.unwrap());
    let mark = |fields: &protobuf::SpecialFields| fields.unknown_fields().get(NUMBER).is_some();
    assert!(mark(&new.special_fields) && mark(&new_graph.special_fields));
    assert_eq!((new.doc_string, new.metadata_props), (old.doc_string, old.metadata_props));
    assert_eq!((&new_graph.input, &new_graph.output), (&old_graph.input, &old_graph.output));

    // Nodes and tensors that are kept are the same, field for field, in the old order.
    let kept = |fused: &str| !fused.contains(".fused");
    let left: Vec<_> = new_graph.node.iter().filter(|node| kept(&node.name)).collect();
    let names: HashSet<&str> = left.iter().map(|node| node.output[0].as_str()).collect();
    let expected: Vec<_> =
        old_graph.node.iter().filter(|node| names.contains(node.output[0].as_str())).collect();
    assert_eq!(left, expected);
    assert_eq!(left.len(), 10);
    assert!(left.iter().all(|node| mark(&node.special_fields)));
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
