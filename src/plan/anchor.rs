//! One term at the depths at which it can be read: `bn(conv(x))` is a scale of `conv(x)`, or a
//! convolution of `x`.
//!
//! Knows terms and costs; not how the depths were found.

use std::rc::Rc;

use crate::affine::Geometry;
use crate::emit::term::{Term, TermKind};
use crate::ops::meaning::Sign;
use crate::plan::cost::Cost;

/// A term as seen from one tensor.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// The term.
    pub part: Term<Geometry>,
    /// Uses of the root that this term accounts for.
    pub uses: usize,
    /// Nodes between the root and the term, about: those of shared terms count twice.
    pub nodes: usize,
    /// Those of them whose results others need too.
    pub repeated: usize,
    /// What it costs to compute the term from the root.
    pub emit: Cost,
    /// What is no longer needed then, compared with the nearest anchor.
    pub saved: Cost,
}

impl Anchor {
    /// What the term costs from here.
    pub fn net(&self) -> Cost {
        self.emit.minus(self.saved)
    }
}

/// One summand, by anchors from near to far; never empty. Shared by all sums that it is in.
pub type AnchoredTerm = Rc<[Anchor]>;

/// The term as an operand of a sum in which it has this sign.
pub fn signed(sign: Sign, term: AnchoredTerm) -> AnchoredTerm {
    if sign == Sign::Plus {
        return term;
    }
    let anchors = term.iter().cloned();
    anchors.map(|anchor| Anchor { part: anchor.part.clone().signed(sign), ..anchor }).collect()
}

/// The depth at which a term is cheapest: of those that are no dearer than the
/// nearest, one with the fewest nodes.
pub fn best(term: &[Anchor]) -> usize {
    let Some(nearest) = term.first().map(Anchor::net) else { return 0 };
    let mut best = (0, nearest);
    for (depth, anchor) in term.iter().enumerate().skip(1) {
        let net = anchor.net();
        let emittable = anchor.part.kind == TermKind::Conv;
        if emittable && net.no_dearer_than(&nearest) && net.nodes < best.1.nodes {
            best = (depth, net);
        }
    }
    best.0
}
