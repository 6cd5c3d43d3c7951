//! What is known of an operator by its name: what of its inputs it reads, and what it is to the
//! tensors around it. No sizes and no values are asked.
//!
//! Knows names of operators, and not what they mean as linear algebra.

use crate::facts::operators::operator;
use crate::facts::row::{FoldingRule, InputsRead, Operator};
use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;

fn row(node: &Node) -> Option<Operator> {
    operator(node.standard_op()?)
}

/// Whether the node reads nothing but the dimensions of its input.
pub fn measures(node: &Node) -> bool {
    row(node).is_some_and(|row| row.reads == InputsRead::Sizes)
}

/// Whether all that the node reads of input `index` is its element type.
pub fn reads_type_only(node: &Node, index: usize) -> bool {
    index == 1 && row(node).is_some_and(|row| row.reads == InputsRead::ElementsThenType)
}

/// The inputs whose elements or dimensions the node reads, those that are left out excluded.
pub fn values_read(node: &Node) -> impl Iterator<Item = ValueId> {
    let inputs = node.inputs.iter().enumerate();
    let read = inputs.filter(|&(index, _)| !reads_type_only(node, index));
    read.filter_map(|(_, input)| *input)
}

/// How the node is evaluated on constants; `None` if it is not.
pub fn folding(node: &Node) -> Option<FoldingRule> {
    row(node)?.folding
}

/// Whether the node makes channels of its own number: as many as its kernel has filters.
pub fn convolves(node: &Node) -> bool {
    node.standard_op() == Some("Conv")
}

/// Whether the node measures the channels of its input and nothing else: `Shape` (opset 15 on)
/// from axis 1 to axis 2.
pub fn measures_channels(node: &Node) -> bool {
    node.standard_op() == Some("Shape") && (node.int("start", 0), node.int("end", 0)) == (1, 2)
}

/// Whether the node is a batch norm.
pub fn is_batch_norm(node: &Node) -> bool {
    node.standard_op() == Some("BatchNormalization")
}

/// Whether the node is one of those that activations and layer norms are written with, besides
/// sums and products: what bends, and the mean.
pub fn bends(node: &Node) -> bool {
    let op = node.standard_op().unwrap_or_default();
    let bent = ["Erf", "Tanh", "Sigmoid", "HardSigmoid", "Clip", "Relu", "Pow", "Sqrt"];
    bent.contains(&op) || matches!(op, "Reciprocal" | "ReduceMean")
}

/// Whether the node multiplies or divides its inputs, element by element.
pub fn multiplies(node: &Node) -> bool {
    matches!(node.standard_op(), Some("Mul" | "Div"))
}

/// Whether the node adds up its inputs, with whatever signs.
pub fn sums(node: &Node) -> bool {
    matches!(node.standard_op(), Some("Add" | "Sub" | "Sum" | "Mean"))
}

/// Whether the node asks which of two values is larger, or whether they are equal.
pub fn compares(node: &Node) -> bool {
    let op = node.standard_op();
    matches!(op, Some("Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual"))
}

/// Whether the node runs one of its bodies, by a condition.
pub fn chooses(node: &Node) -> bool {
    node.standard_op() == Some("If")
}

/// Whether the node holds a constant itself, in an attribute.
pub fn holds_constant(node: &Node) -> bool {
    node.standard_op() == Some("Constant")
}

/// Whether the node gives other numbers for the same inputs.
pub fn is_random(node: &Node) -> bool {
    node.standard_op()
        .is_some_and(|op| op.starts_with("Random") || matches!(op, "Bernoulli" | "Multinomial"))
}

/// Whether the node does nothing but change the element type of its input.
pub fn casts(node: &Node) -> bool {
    matches!(node.standard_op(), Some("Cast" | "CastLike"))
}

/// Whether the node makes floats of what was quantized.
pub fn dequantizes(node: &Node) -> bool {
    node.standard_op() == Some("DequantizeLinear")
}

/// Whether the node pads its input.
pub fn pads(node: &Node) -> bool {
    node.standard_op() == Some("Pad")
}

/// Whether the node puts elements beside those of its first input, without computing any.
pub fn adds_elements(node: &Node) -> bool {
    matches!(node.standard_op(), Some("Concat" | "Pad"))
}

/// Whether the node puts the first axis of its input elsewhere.
pub fn moves_first_axis(node: &Node) -> bool {
    let perm = node.ints("perm").unwrap_or_default();
    node.standard_op() == Some("Transpose") && perm.first() != Some(&0)
}
