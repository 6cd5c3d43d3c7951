//! The cost of nodes, as they stand and as they would be written: nodes, weights,
//! multiply-adds.
//!
//! Costs follow from shapes alone. Says what something costs; does not decide whether it pays.
//!
//! Knows geometries; knows neither sizes of tensors nor weights.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use crate::affine::{Geometry, Macs, Part};
use crate::emit::term::{Term, TermKind, before_means};
use crate::emit::turned::before_shared_turn;
use crate::ops::forms::NodeForms;

/// Size of a part of a graph.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Count {
    /// Number of nodes.
    pub nodes: usize,
    /// Elements of weights, biases and statistics.
    pub parameters: f64,
    /// Multiply-adds per position of the block's output.
    pub macs: Macs,
}

impl Count {
    /// Adds the cost of what is computed at `positions` positions per position of the whole.
    pub fn add(&mut self, other: &Count, positions: Macs) {
        self.nodes += other.nodes;
        self.parameters += other.parameters;
        self.macs = self.macs.plus(other.macs.at(positions));
    }
}

/// The gain of computing a tensor otherwise: its cost before and after.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gain {
    /// Cost of what goes away.
    pub before: Count,
    /// Cost of what takes its place.
    pub after: Count,
}

impl Gain {
    /// Whether this saves more nodes than `other`, and costs no more weights and multiply-adds.
    pub fn pays_beyond(&self, other: &Gain) -> bool {
        let (new, old) = (self.sum_with_after(other), other.sum_with_after(self));
        new.nodes > old.nodes
            && new.parameters >= old.parameters
            && old.macs.no_more_than(&new.macs)
    }

    /// Whether this saves more nodes than `other`.
    pub fn is_more_than(&self, other: &Gain) -> bool {
        self.sum_with_after(other).nodes > other.sum_with_after(self).nodes
    }

    fn sum_with_after(&self, other: &Gain) -> Count {
        let mut sum = self.before;
        sum.add(&other.after, Macs::each(1.0));
        sum
    }
}

/// Returns the cost of a term that is written as new nodes.
fn of_term(term: &Term<Geometry>, forms: NodeForms) -> Count {
    let mut count = Count { nodes: term.nodes(forms), ..Count::default() };
    let mut positions = Macs::each(1.0);
    let mut read = 0;
    for kernel in term.kernels() {
        let (map, bias) = (&kernel.map, kernel.map.channels.filter(|_| kernel.map.shifted));
        let bias = bias.map_or(0, |channels| channels.outputs) as f64;
        let (parameters, macs) = match kernel.kind {
            TermKind::Identity(_) => (0.0, Macs::default()),
            // A single number becomes one for each channel of the kernel that reads it.
            TermKind::Shifted(_) if map.channels.is_none() => (read as f64, Macs::default()),
            TermKind::Shifted(_) => (bias, Macs::default()),
            TermKind::Pointwise => (map.channels.map_or(0, |c| c.outputs) as f64, map.macs()),
            TermKind::Conv => (map.weights() + bias, map.macs()),
        };
        positions = before_means(positions, &kernel.after);
        count.add(&Count { nodes: 0, parameters, macs }, positions);
        positions = before_means(positions.before(map), &kernel.before);
        read = map.channels.map_or(0, |channels| channels.inputs);
    }
    count
}

/// Returns the cost of the sum of `terms` as new nodes.
pub fn of_sum(terms: &[Term<Geometry>], forms: NodeForms) -> Count {
    if let Some((terms, _)) = before_shared_turn(terms, forms) {
        let count = of_sum(&terms, forms);
        return Count { nodes: count.nodes + 1, ..count };
    }
    let mut parts: Vec<Part> = terms.iter().filter_map(Term::part).collect();
    parts.sort_unstable();
    parts.dedup();
    // The terms of each part are added up; the parts are concatenated.
    let joining = usize::from(!parts.is_empty());
    let nodes = terms.len().saturating_sub(parts.len().max(1)) + joining;
    let mut count = Count { nodes, ..Count::default() };
    for term in terms {
        count.add(&of_term(term, forms), Macs::each(1.0));
    }
    count
}

/// Channels per group that fill the vector registers of every processor, so that engines need
/// no padding.
const FULL: usize = 16;

/// Whether engines run a grouped convolution as fast as its groups one by one.
/// *Counter-example*: ONNX Runtime takes 1.1 to 1.5 times as long for 3×3 and 5×5 kernels whose
/// groups have 8 to 12 channels. It keeps whole registers of channels together: the channels of
/// a single convolution it pads to full registers, those of a group it cannot.
pub fn runs_as_fast(geometry: &Geometry) -> bool {
    let Some(channels) = geometry.channels else { return false };
    let taps: f64 = geometry.windows.iter().map(|window| window.taps as f64).product();
    let is_narrow = |width: usize| width <= 4;
    let (inputs, outputs) = channels.of_a_group();
    let is_full = inputs.is_multiple_of(FULL) && outputs.is_multiple_of(FULL);
    channels.groups == 1
        || taps <= 1.0
        || is_full
        || (taps <= 9.0 && is_narrow(inputs) && is_narrow(outputs))
}
