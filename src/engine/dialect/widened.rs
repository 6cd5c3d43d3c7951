//! Replaces bfloat16, in which tract does not compute, by float32, which holds every bfloat16
//! number: in stored tensors, in declared types, and in the types that nodes name.
//!
//! Results are not rounded to bfloat16 then. Where two models are compared, both run so: they
//! differ by what they hold, not by how it is rounded on the way. A constant or a size, however,
//! must be what the file rounds it to: in bfloat16, 256 + 1 is 256. So this is for runs only.
//!
//! Means of float16 are taken in float32, too: tract accumulates their terms in float16, in
//! which a sum of 4,096 terms has lost a tenth. Other engines do not.
//!
//! Knows nodes and tensors; no graph.

use crate::onnx::float::Float;
use crate::onnx::model::{Invalid, is_default_domain};
use crate::onnx::proto::type_proto::Value;
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};
use crate::onnx::storage::Storage;
use crate::onnx::tensor;
use crate::onnx::write;

/// Attributes of standard operators that name an element type.
const TYPES: [&str; 5] = ["dtype", "output_datatype", "output_dtype", "stash_type", "to"];

/// Returns the element type (`TensorProto.DataType`) in which tract computes for this one.
pub fn known_type(data_type: i32) -> i32 {
    if data_type == Float::Bf16.to_onnx() { Float::F32.to_onnx() } else { data_type }
}

/// Converts a bfloat16 tensor to float32, with its data inside; returns any other as it is.
///
/// # Errors
/// Returns an error if the data of the tensor does not match its declaration.
pub fn tensor(stored: TensorProto, storage: &Storage) -> Result<TensorProto, Invalid> {
    if stored.data_type() != Float::Bf16.to_onnx() {
        return Ok(stored);
    }
    let values = tensor::floats(&stored, storage)?;
    Ok(tensor::from_floats(stored.name(), &values, Float::F32))
}

/// Replaces bfloat16 by float32 in a node, including its bodies.
///
/// # Errors
/// Returns an error if the data of a stored tensor does not match its declaration.
pub fn node(node: &mut NodeProto, storage: &Storage) -> Result<(), Invalid> {
    let narrow = i64::from(Float::Bf16.to_onnx());
    for attribute in &mut node.attribute {
        if TYPES.contains(&attribute.name()) && attribute.i() == narrow {
            attribute.i = Some(Float::F32.to_onnx().into());
        }
        let mut tensors = attribute.t.as_deref_mut().into_iter().chain(&mut attribute.tensors);
        tensors.try_for_each(|stored| widen(stored, storage))?;
        let mut bodies = attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs);
        bodies.try_for_each(|body| graph(body, storage))?;
    }
    Ok(())
}

/// Operators that tract accumulates in the type of their operands, and Gemm, whose factors it
/// supports in float32.
const SUMS: [&str; 4] = ["AveragePool", "Gemm", "GlobalAveragePool", "ReduceMean"];

/// Rewrites a node of a float16 model: a sum or mean is computed in float32, and its result cast
/// back.
pub fn sum(mut node: NodeProto) -> Vec<NodeProto> {
    let is_sum = SUMS.contains(&node.op_type()) && is_default_domain(node.domain());
    let ends = node.input.first().cloned().zip(node.output.first().cloned());
    let Some((read, made)) = ends.filter(|_| is_sum) else { return vec![node] };
    // The further inputs of a mean are not float tensors.
    let operands = if node.op_type() == "Gemm" { node.input.len() } else { 1 };
    let mut nodes = Vec::with_capacity(operands.saturating_add(2));
    let operands = node.input.iter_mut().take(operands).enumerate();
    for (number, operand) in operands.filter(|(_, operand)| !operand.is_empty()) {
        let wide = format!("{made}: operand {number} in float32");
        let to = write::int("to", Float::F32.to_onnx().into());
        nodes.push(write::node("Cast", "", &[operand], &wide, vec![to]));
        *operand = wide;
    }
    let wide = format!("{made}: in float32");
    let narrow = write::node("CastLike", "", &[&wide, &read], &made, vec![]);
    node.output = vec![wide];
    nodes.extend([node, narrow]);
    nodes
}

fn graph(graph: &mut GraphProto, storage: &Storage) -> Result<(), Invalid> {
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        let declared = info.r#type.as_mut().and_then(|declared| declared.value.as_mut());
        if let Some(Value::TensorType(tensor)) = declared {
            tensor.elem_type = tensor.elem_type.map(known_type);
        }
    }
    graph.initializer.iter_mut().try_for_each(|stored| widen(stored, storage))?;
    graph.node.iter_mut().try_for_each(|inner| node(inner, storage))
}

fn widen(stored: &mut TensorProto, storage: &Storage) -> Result<(), Invalid> {
    *stored = tensor(std::mem::take(stored), storage)?;
    Ok(())
}
