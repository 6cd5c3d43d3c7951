//! Runs files in tract, so that the outputs of a new file can be compared with the old one's.
use std::collections::HashSet;
use std::path::Path;

use acb_fuse::engine::{Array, Engine, Limits, Source, dialect};
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::node::bodies;
use acb_fuse::onnx::proto::{GraphProto, ModelProto, TensorProto, type_proto};
use acb_fuse::onnx::storage::{Links, Storage};
use acb_fuse::onnx::tensor;
use acb_fuse::onnx::write;
use prost::Message;
use prost::bytes::Bytes;

use super::counts::{decoded, output_type};

/// Returns what tract computes from the fixture's inputs, with the model translated to what tract
/// knows (float32 in the place of bfloat16, float16 sums widened); `folder` holds the side files.
pub fn run(model: &Path, folder: &Path, inputs: &[Array]) -> Result<Vec<Array>, String> {
    let mut decoded = at_inference(decoded(model));
    if output_type(model) == Float::F16.to_onnx() {
        let graph = decoded.graph.get_or_insert_default();
        graph.node =
            std::mem::take(&mut graph.node).into_iter().flat_map(dialect::widened::sum).collect();
    }
    let bytes = if output_type(model) == Float::Bf16.to_onnx() {
        widened(decoded).encode_to_vec()
    } else {
        decoded.encode_to_vec()
    };
    let model = Model::index(bytes.into(), Storage::in_folder(folder, Links::Confined)).unwrap();
    let bytes = dialect::model(&model).unwrap();
    let shapes: Vec<_> = inputs.iter().map(|input| input.shape().to_vec()).collect();
    Engine::load(source(bytes, Some(folder)), &shapes)
        .and_then(|engine| engine.run(inputs))
        .map_err(|error| error.to_string())
}

/// Returns the model with the batch norms and dropouts of its main graph and functions at
/// inference, except those whose further outputs are outputs of the model, and those whose
/// input is the same for every input of the model: fixtures hold what frameworks compute then.
pub fn at_inference(mut model: ModelProto) -> ModelProto {
    let is_old = model.opset_import.iter().all(|opset| opset.version() < 7);
    let functions = model.functions.iter_mut().map(|function| &mut function.node);
    let Some(graph) = model.graph.as_mut() else { return model };
    let unvarying = unvarying(graph);
    let outputs: Vec<&str> = graph.output.iter().map(|output| output.name()).collect();
    // Removed outputs: no output of the model needs them, though some are read.
    let mut lost: Vec<String> = Vec::new();
    for node in functions.chain([&mut graph.node]).flatten() {
        let is_norm_or_dropout = ["BatchNormalization", "Dropout"].contains(&node.op_type());
        if !is_norm_or_dropout
            || node.output.iter().skip(1).any(|output| outputs.contains(&output.as_str()))
            || node.input.first().is_some_and(|input| unvarying.contains(input))
        {
            continue;
        }
        lost.extend(node.output.iter().skip(1).filter(|name| !name.is_empty()).cloned());
        node.output.truncate(1);
        if is_old {
            node.attribute.retain(|attribute| attribute.name() != "is_test");
            node.attribute.push(write::int("is_test", 1));
        }
        match node.op_type() {
            "Dropout" => node.input.truncate(2),
            "BatchNormalization" => {
                node.attribute.retain(|attribute| attribute.name() != "training_mode");
            }
            _ => {}
        }
    }
    graph.node.retain(|node| {
        let stays = !node.input.iter().any(|input| lost.contains(input));
        lost.extend(node.output.iter().filter(|_| !stays).cloned());
        stays
    });
    model
}

/// Returns the tensors that no input reaches, made by nodes without bodies.
fn unvarying(graph: &GraphProto) -> HashSet<String> {
    let stored = graph.initializer.iter().map(|tensor| tensor.name().to_owned());
    let mut unvarying: HashSet<String> = stored.collect();
    loop {
        let before = unvarying.len();
        for node in graph.node.iter().filter(|node| bodies(node).next().is_none()) {
            let mut inputs = node.input.iter().filter(|input| !input.is_empty());
            if inputs.all(|input| unvarying.contains(input)) {
                unvarying.extend(node.output.iter().filter(|output| !output.is_empty()).cloned());
            }
        }
        if unvarying.len() == before {
            return unvarying;
        }
    }
}

pub fn source(bytes: Bytes, folder: Option<&Path>) -> Source {
    let storage = folder.map(|folder| Storage::in_folder(folder, Links::Confined));
    let (storage, limits) = (storage.unwrap_or_default(), Limits::of_reading());
    Source { bytes, constants: Vec::new(), storage, limits }
}

/// Returns the model with float32 in the place of bfloat16, everywhere in the main graph.
fn widened(mut model: ModelProto) -> ModelProto {
    let narrow = Float::Bf16.to_onnx();
    let widen = |tensor: &mut TensorProto| {
        if tensor.data_type() == narrow {
            let values = tensor::floats(tensor, &Storage::default()).unwrap();
            *tensor = tensor::from_floats(tensor.name(), &values, Float::F32);
        }
    };
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.iter_mut().for_each(widen);
    let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    for declared in infos.filter_map(|info| info.r#type.as_mut()?.value.as_mut()) {
        if let type_proto::Value::TensorType(tensor) = declared
            && tensor.elem_type() == narrow
        {
            tensor.elem_type = Some(Float::F32.to_onnx());
        }
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.as_deref_mut().into_iter().for_each(widen);
        if attribute.name() == "to" && attribute.i() == i64::from(narrow) {
            attribute.i = Some(Float::F32.to_onnx().into());
        }
    }
    model
}
