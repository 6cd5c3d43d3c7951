//! What is known of an operator by its name: what of its inputs it reads, and what it is to the
//! tensors around it. No sizes and no values are asked.

use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;

/// Whether the node reads nothing but the dimensions of its input.
pub fn measures(node: &Node) -> bool {
    matches!(node.standard_op(), Some("Shape" | "Size"))
}

/// Whether all that the node reads of input `index` is its element type.
pub fn reads_type_only(node: &Node, index: usize) -> bool {
    node.standard_op() == Some("CastLike") && index == 1
}

/// The inputs whose elements or dimensions the node reads, those that are left out excluded.
pub fn values_read(node: &Node) -> impl Iterator<Item = ValueId> {
    let inputs = node.inputs.iter().enumerate();
    let read = inputs.filter(|&(index, _)| !reads_type_only(node, index));
    read.filter_map(|(_, input)| *input)
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
