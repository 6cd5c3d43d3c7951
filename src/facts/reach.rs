//! How far a node looks along the axes of what it reads, from its attributes alone.
//!
//! Which axis is which does not matter here.
//!
//! Knows attributes and the kernel's dimensions; knows no size of what is read.

use crate::facts::operators::operator;
use crate::facts::row::KernelUse;
use crate::onnx::node::standard_op;
use crate::onnx::proto::NodeProto;
use crate::onnx::windows::{WindowAttributes, WindowAxis};

/// The windows of a node: for each property, the extreme over all axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Elements from a window's first tap to its last, both included.
    pub extent: i64,
    /// Elements that are added at both ends together, on the axis with the most.
    pub pads: i64,
    /// Distance between two windows: the smallest and the largest of all axes.
    pub strides: (i64, i64),
    /// Whether the windows fall on the output.
    pub scatters: bool,
}

impl Reach {
    /// Returns the reach of the windows of `node`, whose kernel has the dimensions `kernel`, if
    /// it has one; `None` if it has no windows, or they are not known.
    pub fn of(node: &NodeProto, kernel: Option<&[i64]>) -> Option<Self> {
        let used = standard_op(node).map(|op| operator(op).and_then(|known| known.kernel))?;
        let taps = match kernel {
            Some([_, _, taps @ ..]) if used.is_some() => {
                Some(taps.iter().copied().map(Some).collect::<Vec<_>>())
            }
            _ => None,
        };
        let windows = WindowAttributes::of(node, taps.as_deref()).ok()?;
        // If one axis is not known, the largest extent is not known.
        let extents: Option<Vec<i64>> = windows.axes.iter().map(WindowAxis::extent).collect();
        let extent = extents?.into_iter().max()?;
        let pads = |axis: &WindowAxis| axis.pads.0.saturating_add(axis.pads.1);
        let pads = if windows.auto_pad.is_same() {
            extent.saturating_sub(1)
        } else {
            windows.axes.iter().map(pads).max()?
        };
        let strides = || windows.axes.iter().map(|axis| axis.stride);
        let strides = (strides().min()?, strides().max()?);
        Some(Reach { extent, pads, strides, scatters: used == Some(KernelUse::Scatters) })
    }

    /// Returns an upper bound on the outputs along an axis that depend on what lies beyond a
    /// border, if `before` inputs do. For a transposed convolution, it is large enough that an
    /// output is left which no border tap reaches.
    pub fn borders(&self, before: i64) -> i64 {
        let (stride, largest) = self.strides;
        if self.scatters {
            let reach = self.extent.saturating_sub(1).div_euclid(stride);
            return before.saturating_add(reach).saturating_add(2).saturating_mul(largest);
        }
        let rounded_up = |count: i64| count.saturating_sub(1).div_euclid(stride).saturating_add(1);
        // ⌈begin/stride⌉ + ⌈end/stride⌉ is one more than ⌈(begin + end)/stride⌉ at most.
        let both = match self.pads {
            0 => 0,
            pads if stride == 1 => pads,
            pads => rounded_up(pads).saturating_add(1),
        };
        rounded_up(before).saturating_add(both)
    }
}
