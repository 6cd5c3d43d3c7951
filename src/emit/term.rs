//! The terms of a normal form `y = Σ L(r) + b`: what a block is planned and written as.
//!
//! Knows maps, views and their signs; neither how a graph came to be read as them, nor which terms
//! should be one.

#![allow(clippy::arithmetic_side_effects, reason = "the product of two signs")]

use crate::affine::{Geometry, Linear, Refusal};
use crate::onnx::ids::ValueId;
use crate::ops::meaning::{Sign, ViewNode};

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

/// One term `P(L(Q(r)))`, with the bias in `L`, and views `P` and `Q`.
#[derive(Debug, Clone)]
pub struct Term<L> {
    /// The tensor that it reads, `r`.
    pub root: ValueId,
    /// `Q`, the first view first.
    pub before: Vec<ViewNode>,
    /// `L`.
    pub map: L,
    /// `P`, the first view first.
    pub after: Vec<ViewNode>,
    /// What `L` is made of.
    pub kind: TermKind,
}

impl<L: Linear> Term<L> {
    /// `map(root)`.
    pub fn new(root: ValueId, map: L, kind: TermKind) -> Self {
        Term { root, before: Vec::new(), map, after: Vec::new(), kind }
    }

    /// `view(root)`.
    pub fn view(root: ValueId, view: ViewNode, identity: L) -> Self {
        Term { before: vec![view], ..Term::new(root, identity, TermKind::Identity(Sign::Plus)) }
    }

    /// This view of the term. A scale or shift without a convolution goes behind it, where the
    /// next kernel may be: `Gemm(Flatten(norm(x)))` is a Gemm of `Flatten(x)`.
    #[must_use]
    pub fn viewed(mut self, view: &ViewNode) -> Self {
        let beyond = || self.map.beyond(&view.view).ok();
        let moves = self.after.is_empty() && self.kind != TermKind::Conv;
        match moves.then(beyond).flatten() {
            Some(map) => {
                self.before.push(view.clone());
                self.map = map;
            }
            None => self.after.push(view.clone()),
        }
        self
    }

    /// This term, of what `inner` makes instead of its root.
    ///
    /// # Errors
    /// If the maps do not compose.
    pub fn of(&self, inner: &Self) -> Result<Self, Refusal> {
        if self.before.is_empty() && self.after.is_empty() {
            return inner.mapped(&self.map, self.kind);
        }
        let read = self.before.iter().fold(inner.clone(), Term::viewed);
        let mapped = read.mapped(&self.map, self.kind)?;
        Ok(self.after.iter().fold(mapped, Term::viewed))
    }

    /// `map` applied to this term: in front of its views, if it is behind some. `D(P(L(r)))` is
    /// `P(D'(L(r)))` for a scale or shift `D`.
    ///
    /// # Errors
    /// If the maps do not compose.
    pub fn mapped(&self, map: &L, kind: TermKind) -> Result<Self, Refusal> {
        if let Some((last, before)) = self.after.split_last() {
            let inner = Term { after: before.to_vec(), ..self.clone() };
            let map = map.beyond(&last.view.inverse())?;
            let mut mapped = inner.mapped(&map, kind)?;
            mapped.after.push(last.clone());
            return Ok(mapped);
        }
        let kind = match (kind, self.kind) {
            (TermKind::Conv, _) | (_, TermKind::Conv) => TermKind::Conv,
            (TermKind::Identity(a), TermKind::Identity(b)) => TermKind::Identity(a * b),
            _ => TermKind::Pointwise,
        };
        let (before, map) = (self.before.clone(), map.after(&self.map)?);
        Ok(Term { root: self.root, before, map, after: Vec::new(), kind })
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
        Term { map: self.map.negated(), kind, ..self }
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
        let (before, after) = (self.before.clone(), self.after.clone());
        Term { root: self.root, before, map: self.map.geometry().clone(), after, kind: self.kind }
    }

    /// Whether both are between the same views.
    pub fn has_views_of(&self, other: &Self) -> bool {
        self.before == other.before && self.after == other.after
    }
}
