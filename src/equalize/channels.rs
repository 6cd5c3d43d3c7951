//! The channels of a tensor, and the stored tensors that take their factors.
//!
//! Plain values: knows no node, and not where factors come from.

#![allow(clippy::indexing_slicing, reason = "there is a factor for each class")]

use std::collections::BTreeMap;

use crate::facts::kernels::KernelLayout;
use crate::onnx::float::Float;
use crate::onnx::ids::{NodeId, ValueId};

/// The channels of a tensor: their axis, and the class of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorChannels {
    /// The channel axis.
    pub axis: usize,
    /// The rank of the tensor.
    pub rank: usize,
    /// The class of each channel; class 0 has the factor 1.
    pub classes: Vec<usize>,
}

/// A stored tensor that takes factors, and which ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaledTensor {
    /// The tensor.
    pub value: ValueId,
    /// The node that reads the tensor.
    pub node: NodeId,
    /// The sizes of the tensor.
    pub dims: Vec<usize>,
    /// The element type of the tensor.
    pub float: Float,
    /// How the factors are arranged in the tensor.
    pub form: ScaledForm,
    /// The tensor whose factors divide it.
    pub input: Option<ValueId>,
    /// The tensor whose factors multiply it.
    pub output: ValueId,
}

/// How factors are arranged in a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaledForm {
    /// A kernel: its outputs are multiplied, its inputs divided.
    Kernel {
        /// The order of its axes.
        layout: KernelLayout,
        /// The number of groups of channels.
        groups: usize,
    },
    /// A shift: one factor per output, along the only axis that is longer than 1.
    Shift,
}

/// The channels of a graph, grouped into classes that share a factor.
#[derive(Debug, Default)]
pub struct ChannelClasses {
    /// The channels of all tensors that have any.
    pub tensors: BTreeMap<ValueId, TensorChannels>,
    /// Stored tensors that take factors.
    pub scaled: Vec<ScaledTensor>,
    /// All stored tensors that would take factors if their channels were free.
    pub stored: Vec<ScaledTensor>,
    /// Nodes through which factors other than 1 pass, in graph order.
    pub passing: Vec<NodeId>,
    /// The number of classes, including the pinned one.
    pub count: usize,
    /// The reasons why tensors are pinned, and the number of tensors for each.
    pub pinned: BTreeMap<&'static str, usize>,
    /// The number of kernels.
    pub kernels: usize,
    /// The number of kernels with a free factor on at least one side.
    pub free_kernels: usize,
}

impl ChannelClasses {
    /// Returns the factor of each channel of `tensor`, where class `i` has `factors[i]`, or
    /// `None` if the tensor has no channels.
    pub fn factors(&self, tensor: ValueId, factors: &[f64]) -> Option<Vec<f64>> {
        let channels = self.tensors.get(&tensor)?;
        Some(channels.classes.iter().map(|&class| factors[class]).collect())
    }

    /// Whether at least one channel of `tensor` is not pinned.
    pub fn is_free(&self, tensor: ValueId) -> bool {
        self.tensors.get(&tensor).is_some_and(|channels| channels.classes.iter().any(|&c| c != 0))
    }
}
