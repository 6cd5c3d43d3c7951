//! Fixtures as tables: a case is a folder whose `*.onnx` files all compute
//! `output_*.pb` from `input_*.pb`, or `outputs.pb` from `inputs.pb`.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

pub mod invariants;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use acb_fuse::engine::{Array, Engine, Limits, Source, dialect, infer};
use acb_fuse::onnx::data;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::{ModelProto, NodeProto, TensorProto, type_proto};
use acb_fuse::onnx::storage::{Links, Storage};
use acb_fuse::onnx::tensor;
use acb_fuse::onnx::write;
use acb_fuse::report::Report;
use acb_fuse::{Endpoint, Options, convert};
use ndarray::ArrayD;
use prost::Message;
use prost::bytes::Bytes;

/// All training-time models below `fixtures/<group>`, sorted, relative to the crate.
pub fn models(group: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for case in sorted(&Path::new("fixtures").join(group)) {
        found.extend(sorted(&case).into_iter().filter(|path| has_extension(path, "onnx")));
    }
    let twins: Vec<PathBuf> = found.iter().filter_map(|model| deployed_twin(model)).collect();
    found.retain(|model| !twins.contains(model));
    assert!(!found.is_empty(), "no fixtures in group {group}");
    found
}

/// What a framework makes of the same network for deployment, if the fixture has it.
pub fn deployed_twin(model: &Path) -> Option<PathBuf> {
    let name = model.file_name()?.to_str()?;
    let twins = ["plain.onnx".to_owned(), format!("deployed_{name}")];
    let mut twins = twins.iter().map(|twin| model.with_file_name(twin));
    twins.find(|twin| twin != model && twin.exists())
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The fixture's inputs or framework outputs (`kind` is `input` or `output`), in order:
/// from one file each or, one behind the other, from one for all.
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

/// What tract makes of the fixture's inputs, of the model in the words that tract
/// knows (so with float32 in the place of bfloat16, weights widened); `folder` holds the
/// side files.
pub fn run(model: &Path, folder: &Path, inputs: &[Array]) -> Result<Vec<Array>, String> {
    let decoded = at_inference(decoded(model));
    let bytes = match output_type(model) == Float::Bf16.to_onnx() {
        true => widened(decoded).encode_to_vec(),
        false => decoded.encode_to_vec(),
    };
    let model = Model::index(bytes.into(), Storage::in_folder(folder, Links::Confined)).unwrap();
    let bytes = dialect::model(&model).unwrap();
    let shapes: Vec<_> = inputs.iter().map(|input| input.shape().to_vec()).collect();
    Engine::load(source(bytes, Some(folder)), &shapes)
        .and_then(|engine| engine.run(inputs))
        .map_err(|error| error.to_string())
}

/// The model with the batch norms and dropouts of its main graph and functions at
/// inference, but for those whose further outputs are outputs of the model: fixtures hold
/// what frameworks compute then.
fn at_inference(mut model: ModelProto) -> ModelProto {
    let is_old = model.opset_import.iter().all(|opset| opset.version() < 7);
    let functions = model.functions.iter_mut().map(|function| &mut function.node);
    let Some(graph) = model.graph.as_mut() else { return model };
    let outputs: Vec<&str> = graph.output.iter().map(|output| output.name()).collect();
    // Nobody needs them; some are read all the same.
    let mut lost: Vec<String> = Vec::new();
    for node in functions.chain([&mut graph.node]).flatten() {
        let is_norm_or_dropout = ["BatchNormalization", "Dropout"].contains(&node.op_type());
        if !is_norm_or_dropout
            || node.output.iter().skip(1).any(|output| outputs.contains(&output.as_str()))
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

fn source(bytes: Bytes, folder: Option<&Path>) -> Source {
    let storage = folder.map(|folder| Storage::in_folder(folder, Links::Confined));
    let (storage, limits) = (storage.unwrap_or_default(), Limits::of_reading());
    Source { bytes, constants: Vec::new(), storage, limits }
}

pub fn fused(input: &Path, output: &Path) -> Report {
    let output = Endpoint::File(output.to_owned());
    convert(&Endpoint::File(input.to_owned()), Some(&output), &Options::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

pub fn decoded(path: &Path) -> ModelProto {
    ModelProto::decode(&fs::read(path).unwrap()[..]).unwrap()
}

/// Nodes of the main graph per operator, constants left out.
pub fn operators(path: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in decoded(path).graph.unwrap().node.iter().filter(|node| is_work(node)) {
        *counts.entry(node.op_type().to_owned()).or_default() += 1;
    }
    counts
}

fn is_work(node: &NodeProto) -> bool {
    node.op_type() != "Constant"
}

/// Elements of the float initializers.
pub fn parameters(path: &Path) -> i64 {
    let graph = decoded(path).graph.unwrap();
    let floats =
        graph.initializer.iter().filter(|tensor| Float::from_onnx(tensor.data_type()).is_some());
    floats.map(|tensor| tensor.dims.iter().product::<i64>()).sum()
}

/// Multiply-adds of a model on inputs of these shapes, counted from its nodes and the
/// shapes that tract infers; `None` if it infers not all of them.
pub fn multiply_adds(path: &Path, inputs: &[Vec<usize>]) -> Option<f64> {
    let graph = decoded(path).graph.unwrap();
    let weights: BTreeMap<&str, &[i64]> =
        graph.initializer.iter().map(|weight| (weight.name(), &weight.dims[..])).collect();
    let given = graph.input.iter().map(|input| input.name());
    let given = given.filter(|name| !weights.contains_key(name)).map(str::to_owned);
    let given = given.zip(inputs.iter().cloned()).collect();
    let bytes = fs::read(path).unwrap();
    let inferred = infer(source(bytes.into(), path.parent()), &given).ok()?;
    let shape = |name: &str| -> Option<Vec<f64>> {
        let stored = weights.get(name).map(|dims| dims.iter().map(|&dim| dim as f64).collect());
        let known = || inferred.shapes.get(name)?.iter().map(|&dim| Some(dim? as f64)).collect();
        stored.or_else(known)
    };
    let work = |node: &NodeProto| {
        let outputs = || Some(shape(&node.output[0])?.iter().product::<f64>());
        let ints = |name: &str| node.attribute.iter().find(|attribute| attribute.name() == name);
        Some(match node.op_type() {
            "Conv" => outputs()? * shape(&node.input[1])?[1..].iter().product::<f64>(),
            "Gemm" => {
                let weights = shape(&node.input[1])?;
                let turned = ints("transB").is_some_and(|attribute| attribute.i() != 0);
                outputs()? * weights[usize::from(turned)]
            }
            "MatMul" => outputs()? * shape(&node.input[0])?.last()?,
            "AveragePool" => outputs()? * ints("kernel_shape")?.ints.iter().product::<i64>() as f64,
            "BatchNormalization" | "Mul" | "Div" => outputs().unwrap_or_default(),
            _ => 0.0,
        })
    };
    graph.node.iter().map(work).sum()
}

/// Element type (`TensorProto.DataType`) of the first output.
pub fn output_type(path: &Path) -> i32 {
    let graph = decoded(path).graph.unwrap();
    match graph.output[0].r#type.as_ref().and_then(|declared| declared.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor.elem_type(),
        _ => 0,
    }
}

/// Whether a node of the model or of one of its functions is an `operator`.
pub fn mentions(path: &Path, operator: &str) -> bool {
    let model = decoded(path);
    let inside = model.functions.iter().flat_map(|function| &function.node);
    let graph = model.graph.as_ref().unwrap();
    graph.node.iter().chain(inside).any(|node| node.op_type() == operator)
}

/// bfloat16 as float32, everywhere in the main graph.
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
        attribute.t.iter_mut().for_each(widen);
        if attribute.name() == "to" && attribute.i() == i64::from(narrow) {
            attribute.i = Some(Float::F32.to_onnx().into());
        }
    }
    model
}
