//! The terms of a normal form `y = Σ L(r) + b`: what a block is planned and written as.
//!
//! Knows maps and their signs; neither how a graph came to be read as them, nor which terms
//! should be one.

#![allow(clippy::arithmetic_side_effects, reason = "the product of two signs")]

use crate::affine::{Geometry, Linear, Refusal};
use crate::onnx::ids::ValueId;
use crate::ops::meaning::Sign;

/// What a term contributes, besides its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TermKind {
    /// The root itself, added or subtracted.
    Identity(Sign),
    /// No convolution on the way, yet not plain: a scaled or cropped root.
    Pointwise,
    /// At least one convolution on the way.
    Conv,
}

/// One term `L(r)`, with the bias in `L`.
#[derive(Debug, Clone)]
pub struct Term<L> {
    /// The tensor that it reads, `r`.
    pub root: ValueId,
    /// `L`.
    pub map: L,
    /// What that is made of.
    pub kind: TermKind,
}

impl<L: Linear> Term<L> {
    /// `map` applied to this term.
    ///
    /// # Errors
    /// If the maps do not compose.
    pub fn mapped(&self, map: &L, kind: TermKind) -> Result<Self, Refusal> {
        let kind = match (kind, self.kind) {
            (TermKind::Conv, _) | (_, TermKind::Conv) => TermKind::Conv,
            (TermKind::Identity(a), TermKind::Identity(b)) => TermKind::Identity(a * b),
            _ => TermKind::Pointwise,
        };
        Ok(Term { root: self.root, map: map.after(&self.map)?, kind })
    }

    /// The term as an operand of a sum in which it has this sign.
    #[must_use]
    pub fn signed(self, sign: Sign) -> Self {
        if sign == Sign::Plus {
            return self;
        }
        let kind = match self.kind {
            TermKind::Identity(sign) => TermKind::Identity(-sign),
            kind => kind,
        };
        Term { root: self.root, map: self.map.negated(), kind }
    }

    /// Weights to store, if it is written on its own.
    pub fn weights(&self) -> f64 {
        match self.kind {
            TermKind::Identity(_) => 0.0,
            _ => self.map.geometry().weights(),
        }
    }

    /// The term without weights.
    pub fn shape(&self) -> Term<Geometry> {
        Term { root: self.root, map: self.map.geometry().clone(), kind: self.kind }
    }
}
