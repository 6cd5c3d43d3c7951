//! What an operator does to a small difference of its operands: passes it on, flattens it, or
//! makes a jump of it.
//!
//! Knows operators by their names; no sizes, no values.

use std::collections::HashSet;

use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;
use crate::onnx::proto::tensor_proto::DataType;

/// What they make jumps where an operand passes a value: a tie, a threshold, another operand.
const STEPS: &[&str] = &[
    "ArgMax",
    "ArgMin",
    "Ceil",
    "Compress",
    "DynamicQuantizeLinear",
    "Equal",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "Hardmax",
    "Less",
    "LessOrEqual",
    "Mod",
    "NonMaxSuppression",
    "NonZero",
    "QuantizeLinear",
    "Round",
    "Shrink",
    "Sign",
    "ThresholdedRelu",
    "TopK",
    "Unique",
];

/// What they make may be the same, or 0 within rounding, for all that is usual to stand before
/// them.
const FLATTENS: &[&str] = &[
    "Clip",
    "Elu",
    "Exp",
    "HardSigmoid",
    "HardSwish",
    "LogSoftmax",
    "Max",
    "Min",
    "Mul",
    "Relu",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "Where",
];

/// They have weights, or a state: what is before them is another layer.
const LAYERS: &[&str] = &[
    "Conv",
    "ConvTranspose",
    "DeformConv",
    "Einsum",
    "GRU",
    "Gemm",
    "If",
    "LSTM",
    "Loop",
    "MatMul",
    "RNN",
    "Scan",
];

/// Whether what the node makes jumps where an operand passes a value.
pub fn is_step(node: &Node) -> bool {
    let Some(op) = node.standard_op() else { return false };
    let to_float = || {
        let to = i32::try_from(node.int("to", 0)).ok().map(DataType::try_from);
        matches!(
            to,
            Some(Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16))
        )
    };
    STEPS.contains(&op) || (op == "Cast" && !to_float())
}

/// The operands of what flattens values between the last layers and `ends`: where these are
/// all the same, there is still something to be seen.
pub fn fronts(graph: &Graph, ends: &[ValueId]) -> Vec<ValueId> {
    let (mut open, mut seen) = (ends.to_vec(), HashSet::new());
    let mut fronts = HashSet::new();
    while let Some(tensor) = open.pop() {
        let Some(producer) = graph.value(tensor).producer.filter(|node| seen.insert(*node)) else {
            continue;
        };
        let node = graph.node(producer);
        match node.standard_op() {
            Some(op) if LAYERS.contains(&op) => continue,
            Some(op) if FLATTENS.contains(&op) => fronts.extend(node.inputs.iter().flatten()),
            _ => {}
        }
        open.extend(node.inputs.iter().flatten());
    }
    let mut fronts: Vec<ValueId> = fronts.into_iter().filter(|id| !ends.contains(id)).collect();
    fronts.sort_unstable();
    fronts
}
