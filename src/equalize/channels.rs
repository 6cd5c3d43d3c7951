//! The channels of a tensor, and stored tensors that take their factors.
//!
//! Plain values: knows no node, and not where factors come from.

#![allow(clippy::indexing_slicing, reason = "there is a factor for each class")]

use std::collections::BTreeMap;

use crate::facts::kernels::KernelLayout;
use crate::onnx::float::Float;
use crate::onnx::ids::{NodeId, ValueId};

/// The channels of a tensor: where they lie, and the class of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorChannels {
    /// Along which axis.
    pub axis: usize,
    /// Of how many.
    pub rank: usize,
    /// The class of each; 0 has the factor 1.
    pub classes: Vec<usize>,
}

/// Which factors a stored tensor takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaledTensor {
    /// The tensor.
    pub value: ValueId,
    /// The node that reads it.
    pub node: NodeId,
    /// Its sizes.
    pub dims: Vec<usize>,
    /// Its type.
    pub float: Float,
    /// How its factors lie.
    pub form: ScaledForm,
    /// The tensor whose factors divide it.
    pub input: Option<ValueId>,
    /// The tensor whose factors multiply it.
    pub output: ValueId,
}

/// How factors lie in a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaledForm {
    /// As the channels of a kernel.
    Kernel {
        /// Its axes.
        layout: KernelLayout,
        /// Groups of channels.
        groups: usize,
    },
    /// One per output, along the only axis that is longer than 1.
    Shift,
}

/// The channels of a graph, in classes.
#[derive(Debug, Default)]
pub struct ChannelClasses {
    /// Those of tensors that have any.
    pub tensors: BTreeMap<ValueId, TensorChannels>,
    /// Stored tensors that take factors.
    pub scaled: Vec<ScaledTensor>,
    /// All stored tensors that would, if channels were free.
    pub stored: Vec<ScaledTensor>,
    /// Nodes that pass factors which are not 1, in order.
    pub passing: Vec<NodeId>,
    /// How many classes there are, the pinned one among them.
    pub count: usize,
    /// Why tensors are pinned, and how many are for that reason.
    pub pinned: BTreeMap<&'static str, usize>,
    /// Kernels, and how many of them have a free factor on one side.
    pub kernels: usize,
    /// See `kernels`.
    pub free_kernels: usize,
}

impl ChannelClasses {
    /// The factor of each channel of `tensor`, where class `i` has `factors[i]`.
    pub fn factors(&self, tensor: ValueId, factors: &[f64]) -> Option<Vec<f64>> {
        let channels = self.tensors.get(&tensor)?;
        Some(channels.classes.iter().map(|&class| factors[class]).collect())
    }

    /// Whether a channel of `tensor` has a factor.
    pub fn is_free(&self, tensor: ValueId) -> bool {
        self.tensors.get(&tensor).is_some_and(|channels| channels.classes.iter().any(|&c| c != 0))
    }
}
