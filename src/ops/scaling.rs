//! What operators do to a positive factor per channel: `f(s·x) = s·f(x)`, or not.
//!
//! One row per operator, beside what it means as linear algebra. What is not in the table, or
//! is under a condition that its node does not meet, lets no factor through: its tensors keep
//! the factor 1. That a row is right is proved node by node, by whoever uses it.
//!
//! Knows names and attributes; neither sizes nor what factors are for.

use crate::facts::kernels::KernelLayout;
use crate::onnx::node::Node;

/// What a node does to factors of the channels of its first input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleRule {
    /// A product with the stored tensor that is its second input, whose rows and columns take
    /// the factors of both sides.
    Kernel(KernelChannels),
    /// It passes them: every channel is made of the same one, `f(s·x) = s·f(x)`.
    Passes(PassKind),
    /// Of a sum, all operands and the result have the same: `s·a + s·b = s·(a + b)`.
    Sums,
    /// Of a product of tensors, one passes its factors if the other has none.
    Gates,
    /// Tensors in a row along the axis of this attribute.
    Joins,
    /// Parts of a tensor along the axis of this attribute.
    Splits,
    /// Its axes are in the order of `perm`.
    Permutes,
    /// The same elements in their order, with other axes.
    Reshapes,
}

/// What else a node does that passes factors; it tells how noise passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// It moves, keeps or leaves out elements.
    Moves,
    /// It sets some to zero.
    Rectifies,
    /// It takes means.
    Averages,
}

/// Where a node with a kernel has its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelChannels {
    /// Those of the kernel.
    pub layout: KernelLayout,
    /// Whether it is a matrix, whose node has its own channels last; others have them at axis 1.
    pub is_matrix: bool,
}

impl KernelChannels {
    /// Along which axis a tensor of `rank` axes that the node reads or makes has its channels.
    pub fn axis(self, rank: usize) -> usize {
        if self.is_matrix { rank.saturating_sub(1) } else { 1 }
    }

    /// Along which axis a kernel of `rank` axes has its outputs.
    pub fn outputs_axis(self, rank: usize) -> usize {
        match self.layout {
            KernelLayout::OutputsFirst => 0,
            KernelLayout::InputsFirst => self.axis(rank),
        }
    }
}

/// The rule for `node`; `None` if it lets nothing through.
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
        // Whether it casts to the same type is looked for by the proof: any other rounds.
        "Cast" => passes(Moves),
        // One with a mode in training multiplies at random, but by zero or by one number.
        "Dropout" => passes(Moves),
        "AveragePool" | "GlobalAveragePool" | "ReduceMean" => passes(Averages),
        "ReduceMax" | "ReduceMin" => passes(Moves),
        // A border of another number than zero is looked for by the proof.
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

/// Whether what the node makes lies on the grid of what it reads, so that rounding it again
/// does nothing.
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

/// Whether an engine takes the node into the one before it, and rounds behind it only.
pub fn ends_a_kernel(node: &Node) -> bool {
    matches!(node.standard_op(), Some("Relu" | "Clip"))
}

/// Whether the operator is one that only quantized models have.
pub fn is_quantized(node: &Node) -> bool {
    node.standard_op().is_some_and(|op| {
        ["QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"]
            .contains(&op)
    })
}
