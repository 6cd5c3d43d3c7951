//! What is known of an operator by its name: what it reads of its inputs, and what it is to the
//! tensors around it. No sizes and no values are asked.
//!
//! Knows names of operators; does not know what they mean as linear algebra.

use crate::facts::operators::operator;
use crate::facts::row::{FoldingKind, FoldingRule, InputsRead, Operator, TypeRule};
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

/// Returns the inputs whose elements or dimensions the node reads, without those that are left
/// out.
pub fn values_read(node: &Node) -> impl Iterator<Item = ValueId> {
    let inputs = node.inputs.iter().enumerate();
    let read = inputs.filter(|&(index, _)| !reads_type_only(node, index));
    read.filter_map(|(_, input)| *input)
}

/// Returns how the node is evaluated on constants; `None` if it is not.
pub fn folding(node: &Node) -> Option<FoldingRule> {
    row(node)?.folding
}

/// Whether the node passes on the elements of its constant input, or of its own attribute, as
/// they are or in another type.
pub fn hands_on(node: &Node) -> bool {
    let kind = folding(node).map(|rule| rule.kind);
    matches!(kind, None | Some(FoldingKind::Keeps | FoldingKind::Casts))
}

/// Whether the node only puts elements of its inputs, as they are, in some place.
pub fn moves_elements(node: &Node) -> bool {
    let kind = folding(node).map(|rule| rule.kind);
    let adds_none = node.attribute("reduction").is_none_or(|how| how.s() == b"none");
    adds_none && matches!(kind, Some(FoldingKind::Keeps | FoldingKind::Moves))
}

/// Whether the node fills a tensor with its attribute `value`.
pub fn fills(node: &Node) -> bool {
    row(node).is_some_and(|row| matches!(row.element_type, TypeRule::OfValue))
}

/// Whether the node makes a tensor larger or smaller by resampling it.
pub fn resizes(node: &Node) -> bool {
    matches!(node.standard_op(), Some("Resize" | "Upsample"))
}

/// Whether the node slides a kernel, over its input or its output.
pub fn slides(node: &Node) -> bool {
    row(node).is_some_and(|row| row.kernel.is_some())
}

/// Whether the node is a transposed convolution.
pub fn scatters(node: &Node) -> bool {
    node.standard_op() == Some("ConvTranspose")
}

/// Whether the node slides windows, or scatters them.
pub fn convolves(node: &Node) -> bool {
    scatters(node) || node.standard_op() == Some("Conv")
}

/// Whether the node is a batch norm.
pub fn is_batch_norm(node: &Node) -> bool {
    node.standard_op() == Some("BatchNormalization")
}

/// Whether activations and layer norms that end in a scale or shift are written with this node,
/// besides sums and products: nonlinear functions and the mean.
pub fn bends(node: &Node) -> bool {
    let op = node.standard_op().unwrap_or_default();
    let bent = ["Erf", "Tanh", "Clip", "Pow", "Sqrt", "Reciprocal"];
    bent.contains(&op) || op == "ReduceMean"
}

/// Whether the node makes one number of many: a mean, a sum or a maximum.
pub fn reduces(node: &Node) -> bool {
    let op = node.standard_op().unwrap_or_default();
    op.starts_with("Reduce") || op.starts_with("Global")
}

/// Whether the node multiplies or divides its inputs, element by element.
pub fn multiplies(node: &Node) -> bool {
    matches!(node.standard_op(), Some("Mul" | "Div"))
}

/// Whether the node adds up its inputs, with any signs.
pub fn sums(node: &Node) -> bool {
    matches!(node.standard_op(), Some("Add" | "Sub" | "Sum" | "Mean"))
}

/// Whether the node compares two values: which is larger, or whether they are equal.
pub fn compares(node: &Node) -> bool {
    let op = node.standard_op();
    matches!(op, Some("Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual"))
}

/// Whether a condition decides which of the node's bodies runs.
pub fn chooses(node: &Node) -> bool {
    node.standard_op() == Some("If")
}

/// How the inputs and outputs of a node correspond to those of its body, which begin with the
/// same inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyUse {
    /// The attribute that holds the body.
    pub attribute: &'static str,
    /// How many outputs of the body come before those of the node.
    pub skipped: usize,
    /// The input as which the first output begins, if the node passes states from step to step.
    pub first_state: Option<usize>,
    /// The first output that is stacked: from it on, the node stacks what the body makes, along
    /// a new first axis.
    pub first_stacked: usize,
    /// The first input that is scanned: from it on, the node takes inputs apart along their
    /// first axis.
    pub first_scanned: usize,
}

/// Returns how the node uses its body; `None` if it has none, or takes tensors apart or stacks
/// them along other axes than the first.
pub fn body(node: &Node) -> Option<BodyUse> {
    let inputs = node.inputs.len();
    let no_stacks = BodyUse {
        attribute: "then_branch",
        skipped: 0,
        first_state: None,
        first_stacked: usize::MAX,
        first_scanned: usize::MAX,
    };
    match node.standard_op()? {
        "If" => Some(no_stacks),
        "Loop" => Some(BodyUse {
            attribute: "body",
            skipped: 1,
            first_state: Some(2),
            first_stacked: inputs.saturating_sub(2),
            ..no_stacks
        }),
        "Scan" => {
            let is_first =
                |axes: &str| node.ints(axes).is_none_or(|axes| axes.iter().all(|&axis| axis == 0));
            let scanned = usize::try_from(node.int("num_scan_inputs", 0)).ok()?;
            let first = inputs.checked_sub(scanned)?;
            let is_known = is_first("scan_input_axes") && is_first("scan_output_axes");
            is_known.then_some(BodyUse {
                attribute: "body",
                first_state: Some(0),
                first_stacked: first,
                first_scanned: first,
                ..no_stacks
            })
        }
        _ => None,
    }
}

/// Whether the node holds a constant itself, in an attribute.
pub fn holds_constant(node: &Node) -> bool {
    node.standard_op() == Some("Constant")
}

/// Whether the node may give other numbers for the same inputs.
pub fn is_random(node: &Node) -> bool {
    node.standard_op()
        .is_some_and(|op| op.starts_with("Random") || matches!(op, "Bernoulli" | "Multinomial"))
}

/// Whether the node does nothing but change the element type of its input.
pub fn casts(node: &Node) -> bool {
    matches!(node.standard_op(), Some("Cast" | "CastLike"))
}

/// Whether the node makes floats of quantized numbers.
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
