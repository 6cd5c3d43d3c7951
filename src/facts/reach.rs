//! How far a node looks along the axes of what it reads, from its attributes alone.
//!
//! Whatever has windows says so in attributes of the same names: kernel_shape, dilations,
//! strides, pads, auto_pad. Which axis is which does not matter here.
//!
//! Knows attributes and the kernel's dimensions, and no size of what is read.

use crate::facts::operators::operator;
use crate::facts::row::KernelUse;
use crate::onnx::node::{attribute, standard_op};
use crate::onnx::proto::NodeProto;

/// The windows of a node, the largest of all its axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Elements from a window's first tap to its last, both included.
    pub extent: i64,
    /// Elements that are added at both ends together.
    pub pads: i64,
    /// Distance of two windows: the smallest, and the largest of all axes.
    pub strides: (i64, i64),
    /// Whether the windows fall on the output.
    pub scatters: bool,
}

impl Reach {
    /// The windows of `node`, whose kernel has the dimensions `kernel` if it has one; `None`
    /// if it has none.
    pub fn of(node: &NodeProto, kernel: Option<&[i64]>) -> Option<Self> {
        let ints = |name: &str| Some(attribute(node, name)?.ints.as_slice());
        let used = standard_op(node).map(|op| operator(op).and_then(|known| known.kernel))?;
        let taps = match (ints("kernel_shape"), kernel) {
            (Some(taps), _) => taps,
            (None, Some([_, _, taps @ ..])) if used.is_some() => taps,
            _ => return None,
        };
        let dilations = ints("dilations").unwrap_or_default();
        let extents = taps.iter().enumerate().map(|(axis, &taps)| {
            let dilation = dilations.get(axis).copied().unwrap_or(1);
            taps.saturating_sub(1).saturating_mul(dilation).saturating_add(1)
        });
        let extent = extents.max().unwrap_or(1).max(1);
        let strides = || ints("strides").unwrap_or_default().iter().copied();
        let auto_pad = attribute(node, "auto_pad").map_or(&b""[..], |attribute| attribute.s());
        let pads = match (auto_pad, ints("pads")) {
            (b"SAME_UPPER" | b"SAME_LOWER", _) => extent.saturating_sub(1),
            (b"VALID", _) | (_, None) => 0,
            (_, Some(pads)) => {
                let (begins, ends) = pads.split_at(pads.len() / 2);
                let sums = begins.iter().zip(ends).map(|(begin, end)| begin.saturating_add(*end));
                sums.max().unwrap_or(0).max(0)
            }
        };
        let strides = (strides().min().unwrap_or(1).max(1), strides().max().unwrap_or(1).max(1));
        Some(Reach { extent, pads, strides, scatters: used == Some(KernelUse::Scatters) })
    }

    /// How many outputs along an axis depend on what lies beyond a border, at most, where
    /// `before` inputs do. Of a transposed convolution, so many that an output is left which
    /// no border tap reaches.
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
