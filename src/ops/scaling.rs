//! What operators do to a positive factor per channel: whether `f(s·x) = s·f(x)`.
//!
//! There is one rule per operator, beside its meaning as linear algebra. An operator without a
//! rule, or a node that does not meet its condition, lets no factor through: its tensors keep
//! the factor 1. Whoever uses a rule proves, node by node, that it is right.
//!
//! Knows names and attributes; neither sizes nor what factors are for.

use crate::facts::kernels::KernelLayout;
use crate::onnx::node::Node;

/// What a node does to the factors of the channels of its first input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleRule {
    /// A product with the stored tensor that is its second input, whose rows and columns take
    /// the factors of both sides.
    Kernel(KernelChannels),
    /// It passes them: every channel is computed from the same one, `f(s·x) = s·f(x)`.
    Passes(PassKind),
    /// A sum: all operands and the result have the same factors, `s·a + s·b = s·(a + b)`.
    Sums,
    /// A product of tensors: the factors of one pass if the other has none.
    Gates,
    /// It joins tensors along the axis that its attribute names.
    Joins,
    /// It splits a tensor along the axis that its attribute names.
    Splits,
    /// It permutes axes by `perm`.
    Permutes,
    /// It keeps the elements in their order, with other axes.
    Reshapes,
}

/// What a node that passes factors does to elements, which tells how noise passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// It moves, keeps or drops elements.
    Moves,
    /// It sets some elements to zero.
    Rectifies,
    /// It takes means.
    Averages,
}

/// Where a node with a kernel has its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelChannels {
    /// The layout of the kernel.
    pub layout: KernelLayout,
    /// Whether the kernel is a matrix, in which case the channels of the node's tensors are
    /// their last axis; otherwise they are axis 1.
    pub is_matrix: bool,
}

impl KernelChannels {
    /// Returns the channel axis of a tensor of `rank` axes that the node reads or makes.
    pub fn axis(self, rank: usize) -> usize {
        if self.is_matrix { rank.saturating_sub(1) } else { 1 }
    }

    /// Returns the output axis of a kernel of `rank` axes.
    pub fn outputs_axis(self, rank: usize) -> usize {
        match self.layout {
            KernelLayout::OutputsFirst => 0,
            KernelLayout::InputsFirst => self.axis(rank),
        }
    }
}

/// Returns the rule for `node`, or `None` if it lets no factor through.
pub fn scale_rule(node: &Node) -> Option<ScaleRule> {
    use KernelLayout::{InputsFirst, OutputsFirst};
    use PassKind::{Averages, Moves, Rectifies};
    let passes = |kind| Some(ScaleRule::Passes(kind));
    let kernel = |layout, is_matrix| Some(ScaleRule::Kernel(KernelChannels { layout, is_matrix }));
    let text = |name: &str| node.attribute(name).map(|text| text.s().to_vec());
    match node.standard_op()? {
        "Conv" => kernel(OutputsFirst, false),
        "ConvTranspose" => kernel(InputsFirst, false),
        "Gemm" if node.int("transA", 0) == 0 => {
            kernel(if node.int("transB", 0) == 0 { InputsFirst } else { OutputsFirst }, true)
        }
        "MatMul" => kernel(InputsFirst, true),
        "Relu" => passes(Rectifies),
        "LeakyRelu" | "PRelu" | "Identity" | "MaxPool" | "GlobalMaxPool" => passes(Moves),
        // That it casts to the same type is checked by the proof: any other cast rounds.
        "Cast" => passes(Moves),
        // In training mode it multiplies at random, but only by zero or by one fixed number.
        "Dropout" => passes(Moves),
        "AveragePool" | "GlobalAveragePool" | "ReduceMean" => passes(Averages),
        "ReduceMax" | "ReduceMin" => passes(Moves),
        // A border of another number than zero in an input is found by the proof.
        "Pad" if node.attribute("value").is_none_or(|value| value.f() == 0.0) => passes(Moves),
        "Slice" | "Upsample" => passes(Moves),
        "Resize"
            if text("coordinate_transformation_mode")
                .is_none_or(|mode| mode != b"tf_crop_and_resize") =>
        {
            passes(Moves)
        }
        "Add" | "Sum" | "Sub" | "Max" | "Min" => Some(ScaleRule::Sums),
        "Mul" => Some(ScaleRule::Gates),
        "Concat" => Some(ScaleRule::Joins),
        "Split" => Some(ScaleRule::Splits),
        "Transpose" => Some(ScaleRule::Permutes),
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => Some(ScaleRule::Reshapes),
        _ => None,
    }
}

/// Whether the output of the node lies on the grid of its input, so that rounding it again does
/// nothing.
pub fn keeps_grid(node: &Node) -> bool {
    matches!(
        node.standard_op(),
        Some(
            "Identity"
                | "Cast"
                | "Dropout"
                | "MaxPool"
                | "GlobalMaxPool"
                | "Slice"
                | "Transpose"
                | "Reshape"
                | "Flatten"
                | "Squeeze"
                | "Unsqueeze"
                | "Split"
                | "Relu"
        )
    )
}

/// Whether an engine fuses the node into the one before it, and rounds only after it.
pub fn ends_a_kernel(node: &Node) -> bool {
    matches!(node.standard_op(), Some("Relu" | "Clip"))
}

/// Whether the operator occurs only in quantized models.
pub fn is_quantized(node: &Node) -> bool {
    node.standard_op().is_some_and(|op| {
        ["QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"]
            .contains(&op)
    })
}
