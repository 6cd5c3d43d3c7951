//! Which of several equivalent forms new nodes are written in: one that the file has, since its
//! engine supports that. A circular pad is a Pad of the mode `wrap`, or Slices and a Concat;
//! many engines refuse the Pad, and some take it for zeros. Some refuse a ConvTranspose whose
//! pads are uneven, too; and ONNX Runtime has products in float64, but no Conv.
//!
//! Knows a graph's nodes; neither what is written nor why.

use crate::affine::PadMode;
use crate::facts::roles;
use crate::onnx::float::Float;
use crate::onnx::graph::{Graph, Value};
use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;
use crate::ops::pad_mode;

/// The forms of the nodes of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeForms {
    /// The operator set.
    pub opset: i64,
    /// Whether there is a Pad of the mode `wrap`. If so, all circular pads are written so,
    /// otherwise as Slices and a Concat.
    pub wraps: bool,
    /// Whether there is a ConvTranspose with uneven pads: only then may a crop make pads uneven.
    pub pads_unevenly: bool,
    /// Whether there is a Conv, or no input in float64: only then may a product become a Conv.
    pub convolves: bool,
}

impl NodeForms {
    /// Returns the forms of the nodes of `graph`.
    pub fn of(graph: &Graph) -> Self {
        let wraps = graph.nodes().any(|(_, node)| wraps(node));
        let pads_unevenly = graph.nodes().any(|(_, node)| pads_unevenly(node));
        let is_wide = |kind: i32| Float::from_onnx(kind) == Some(Float::F64);
        let is_double = |(id, _): (ValueId, &Value)| graph.input_type(id).is_some_and(is_wide);
        let convolves =
            graph.nodes().any(|(_, node)| roles::convolves(node)) || !graph.values().any(is_double);
        NodeForms { opset: graph.model.opset, wraps, pads_unevenly, convolves }
    }
}

fn wraps(node: &Node) -> bool {
    let mode = node.attribute("mode").filter(|_| roles::pads(node));
    mode.is_some_and(|mode| pad_mode::named(mode.s()) == Some(PadMode::Wrap))
}

fn pads_unevenly(node: &Node) -> bool {
    let pads = node.ints("pads").filter(|_| roles::scatters(node)).unwrap_or_default();
    let (before, behind) = pads.split_at(pads.len() / 2);
    before != behind
}
