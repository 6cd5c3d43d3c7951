//! What nodes cost, as they stand and as they would be written: nodes, weights, multiply-adds.
//!
//! Decided on shapes alone. Says what a thing costs; not whether it pays.
//!
//! Knows geometries; neither sizes nor weights.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use crate::affine::{Geometry, Macs};
use crate::emit::layout::layout;
use crate::emit::term::{Term, TermKind};
use crate::ops::meaning::LinearOp;

/// Size of a piece of graph.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Count {
    /// Nodes.
    pub nodes: usize,
    /// Elements of weights, biases and statistics.
    pub parameters: f64,
    /// Multiply-adds per position of the block's output.
    pub macs: Macs,
}

/// What something costs at run time. Negative: it saves that.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Nodes.
    pub nodes: f64,
    /// Elements of weights and biases, and of the statistics of norms.
    pub weights: f64,
    /// Multiply-adds, per output position.
    pub macs: Macs,
}

impl Cost {
    /// The cost of two things.
    pub fn plus(self, other: Cost) -> Cost {
        Cost {
            nodes: self.nodes + other.nodes,
            weights: self.weights + other.weights,
            macs: self.macs.plus(other.macs),
        }
    }

    /// The cost of this, and what leaving the other one out saves.
    pub fn minus(self, other: Cost) -> Cost {
        let Cost { nodes, weights, macs } = other;
        self.plus(Cost { nodes: -nodes, weights: -weights, macs: macs.times(-1.0) })
    }

    /// The cost of something that is computed on the input of `map`, counted on its output.
    pub fn before(self, map: &Geometry) -> Cost {
        Cost { macs: self.macs.before(map), ..self }
    }

    /// Whether it has no more weights and multiply-adds, whatever its nodes are.
    pub fn no_dearer_than(&self, other: &Cost) -> bool {
        self.weights <= other.weights && self.macs.no_more_than(&other.macs)
    }
}

/// Cost of a term that is written out as new nodes.
pub fn of_term(term: &Term<Geometry>, opset: i64) -> Cost {
    let views = term.before.len() + term.after.len();
    if let TermKind::Identity(_) = term.kind {
        return Cost { nodes: views as f64, ..Cost::default() };
    }
    let outputs = term.map.channels.map_or(0, |channels| channels.outputs) as f64;
    let bias = if term.map.shifted { outputs } else { 0.0 };
    Cost {
        nodes: (views + layout(&term.map, opset).len()) as f64,
        weights: term.map.weights() + bias,
        macs: term.map.macs(),
    }
}

/// Size of the sum of `terms` as new nodes.
pub fn of_sum(terms: &[Term<Geometry>], opset: i64) -> Count {
    let mut count = Count { nodes: terms.len().saturating_sub(1), ..Count::default() };
    for term in terms.iter().filter(|term| term.kind != TermKind::Pointwise) {
        let cost = of_term(term, opset);
        count.nodes += cost.nodes as usize;
        count.parameters += cost.weights;
        count.macs = count.macs.plus(cost.macs);
    }
    count
}

/// Cost of a node as it stands, which makes so many `channels`; 0 if that is not known. One
/// number that shifts them all is a parameter of each: of a bias, it is the same again.
pub fn of_node(map: &LinearOp, channels: usize) -> Cost {
    let weights = match map {
        LinearOp::Conv { bias, geometry, .. } => geometry.weights() + bias.len() as f64,
        // γ, β, μ, σ² of a norm; a scale or shift has less, but nothing to trade for it.
        LinearOp::Diagonal { scale, .. } => 4.0 * scale.len() as f64,
        LinearOp::Bordered { map, .. } => return of_node(map, channels),
        LinearOp::Filter { shift, .. } if *shift != 0.0 => channels as f64,
        LinearOp::Filter { .. } | LinearOp::Transpose { .. } | LinearOp::View(_) => 0.0,
    };
    Cost { nodes: 1.0, weights, macs: map.macs() }
}
