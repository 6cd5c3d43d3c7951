//! Counts of what is in a file: operators, parameters, multiply-adds; and its output type.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use acb_fuse::engine::infer;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::proto::{ModelProto, NodeProto, TensorProto, type_proto};
use prost::Message;

use super::engine::source;

pub fn decoded(path: &Path) -> ModelProto {
    ModelProto::decode(&fs::read(path).unwrap()[..]).unwrap()
}

/// Returns the number of nodes of the main graph per operator, constants left out.
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

/// Returns whether a node of the main graph or of a function is an `operator`.
pub fn mentions(path: &Path, operator: &str) -> bool {
    let model = decoded(path);
    let inside = model.functions.iter().flat_map(|function| &function.node);
    let graph = model.graph.as_ref().unwrap();
    graph.node.iter().chain(inside).any(|node| node.op_type() == operator)
}

/// Returns the number of elements of the float initializers.
pub fn parameters(path: &Path) -> i64 {
    let graph = decoded(path).graph.unwrap();
    let floats =
        graph.initializer.iter().filter(|tensor| Float::from_onnx(tensor.data_type()).is_some());
    floats.map(|tensor| tensor.dims.iter().product::<i64>()).sum()
}

/// Returns the number of parameters, besides those that are stored, for which numbers that shift
/// several channels count: one per channel. A constant of one element shifts several channels, and
/// so does a norm behind a view, seen from the tensor before the view. Returns 0 if tract infers no
/// shapes.
pub fn spread_shifts(path: &Path, inputs: &[Vec<usize>]) -> i64 {
    let graph = decoded(path).graph.unwrap();
    let initializers = graph.initializer.iter().map(|tensor| (tensor.name(), tensor));
    let nodes = graph.node.iter().filter(|node| node.op_type() == "Constant");
    let held = nodes.flat_map(|node| {
        Some((node.output.first()?.as_str(), node.attribute.first()?.t.as_deref()?))
    });
    let is_single = |tensor: &TensorProto| tensor.dims.iter().product::<i64>() == 1;
    let single: BTreeSet<&str> = initializers
        .chain(held)
        .filter(|(_, tensor)| is_single(tensor))
        .map(|(name, _)| name)
        .collect();
    let stored: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
    let given = graph.input.iter().map(|input| input.name());
    let given = given.filter(|name| !stored.contains(name)).map(str::to_owned);
    let given = given.zip(inputs.iter().cloned()).collect();
    let bytes = fs::read(path).unwrap();
    let Ok(inferred) = infer(source(bytes.into(), path.parent()), &given) else { return 0 };
    let shifts = graph.node.iter().filter(|node| {
        matches!(node.op_type(), "Add" | "Sub")
            && node.input.iter().any(|input| single.contains(input.as_str()))
    });
    let channels = |name: &String| {
        let shape = inferred.shapes.get(name)?;
        let along = |axis: Option<usize>| shape.get(axis?).copied().flatten();
        along(Some(1)).max(along(shape.len().checked_sub(1)).filter(|_| shape.len() == 3))
    };
    // A shift behind a view and scales may be moved before them.
    let passed = ["Reshape", "Flatten", "DepthToSpace", "Mul", "Div"];
    let before: BTreeMap<&String, &String> = graph
        .node
        .iter()
        .filter(|node| passed.contains(&node.op_type()))
        .filter_map(|node| Some((node.output.first()?, node.input.first()?)))
        .collect();
    let widest = |name: &String| {
        let row = std::iter::successors(before.get(name), |name| before.get(**name));
        row.filter_map(|name| channels(name)).max().unwrap_or(0)
    };
    let of_one = shifts.filter_map(|node| {
        let shifted = channels(node.output.first()?)?;
        Some(shifted.max(node.input.iter().map(widest).max()?) - 1)
    });
    let norms = graph.node.iter().filter(|node| node.op_type() == "BatchNormalization");
    let of_norms = norms.filter_map(|node| {
        let shifted = node.input.first()?;
        Some((widest(shifted) - channels(shifted)?).max(0))
    });
    of_one.chain(of_norms).sum()
}

/// Returns the multiply-adds of a model on inputs of these shapes, counted from its nodes and the
/// shapes that tract infers, or `None` if it does not infer all of them.
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
            "ConvTranspose" => {
                let read = shape(&node.input[0])?.iter().product::<f64>();
                read * shape(&node.input[1])?[1..].iter().product::<f64>()
            }
            "Gemm" => {
                let weights = shape(&node.input[1])?;
                let turned = ints("transB").is_some_and(|attribute| attribute.i() != 0);
                outputs()? * weights[usize::from(turned)]
            }
            "MatMul" => outputs()? * shape(&node.input[0])?.last()?,
            // For two tensors, one multiplication for each combination of their letters' indices.
            "Einsum" if node.input.len() == 2 => {
                let equation = str::from_utf8(ints("equation")?.s()).unwrap();
                let operands = equation.split_once("->")?.0.split(',');
                let mut sizes: BTreeMap<char, f64> = BTreeMap::new();
                for (letters, name) in operands.zip(&node.input) {
                    let letters = letters.chars().filter(|letter| !letter.is_whitespace());
                    sizes.extend(letters.zip(shape(name)?));
                }
                sizes.values().product()
            }
            "AveragePool" => outputs()? * ints("kernel_shape")?.ints.iter().product::<i64>() as f64,
            "BatchNormalization" | "Mul" | "Div" => outputs().unwrap_or_default(),
            _ => 0.0,
        })
    };
    graph.node.iter().map(work).sum()
}

/// Returns the element type (`TensorProto.DataType`) of the first output, or 0 if it has none.
pub fn output_type(path: &Path) -> i32 {
    let graph = decoded(path).graph.unwrap();
    match graph.output[0].r#type.as_ref().and_then(|declared| declared.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor.elem_type(),
        _ => 0,
    }
}
