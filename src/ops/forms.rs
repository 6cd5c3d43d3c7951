//! In which of several forms that say the same new nodes are written: in one that the file has,
//! since its engine reads that. A circular pad is a Pad of the mode `wrap` or Slices and a Concat;
//! many engines refuse the Pad, and some take it for zeros. Some refuse a ConvTranspose whose pads
//! are uneven, too.
//!
//! Knows a graph's nodes; neither what is written nor why.

use crate::affine::PadMode;
use crate::facts::roles;
use crate::onnx::graph::Graph;
use crate::onnx::node::Node;
use crate::ops::pad_mode;

/// The forms of a graph's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeForms {
    /// The operator set.
    pub opset: i64,
    /// Whether there is a Pad of the mode `wrap`: all circular pads are written as such ones then,
    /// else as Slices and a Concat.
    pub wraps: bool,
    /// Whether there is a ConvTranspose with uneven pads: a crop makes them uneven only then.
    pub pads_unevenly: bool,
}

impl NodeForms {
    /// Those of `graph`.
    pub fn of(graph: &Graph) -> Self {
        let wraps = graph.nodes().any(|(_, node)| wraps(node));
        let pads_unevenly = graph.nodes().any(|(_, node)| pads_unevenly(node));
        NodeForms { opset: graph.model.opset, wraps, pads_unevenly }
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
