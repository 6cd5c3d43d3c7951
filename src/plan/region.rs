//! Linear regions: which part of the graph is one sum of convolutions.
//!
//! [`constant`] (which `effort` keeps within bounds, and `evaluation` to what ONNX says),
//! [`dependence`] and [`sizes`] (with `known`) say what is known of tensors, [`read`] what a
//! node computes (with `border` for what takes many nodes to write), [`inference`] what it
//! would in a deploy graph, [`form`] decides where regions begin and end, `fit` whether what
//! comes out fits the model's type, and [`Region::evaluate`] computes a region's normal form
//! `y = Σ L_t(r_t) + b`, on shapes or on weights. Knows the mathematics and the
//! read-only graph; edits nothing and names no new tensor.

use crate::ops::meaning::Sign;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::refusal::Reason;
use std::collections::BTreeSet;

use crate::affine::{ConvKind, Geometry, Linear, Refusal};
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::graph::{NodeId, ValueId};
use crate::onnx::ids::IdMap;

/// A connected part of the graph that computes one tensor linearly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The tensor it computes.
    pub output: ValueId,
    /// Tensors at which it stops: its roots are among them.
    pub cuts: BTreeSet<ValueId>,
    /// Its nodes, in topological order.
    pub nodes: Vec<NodeId>,
    /// Those of them that are read only together with another one.
    pub steps: BTreeSet<NodeId>,
}

/// What a part contributes, besides its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TermKind {
    /// The root itself, added or subtracted.
    Identity(Sign),
    /// No convolution on the way, yet not plain: a scaled or cropped root.
    Pointwise,
    /// At least one convolution on the way.
    Conv,
}

/// One term `L(r)` of a normal form.
#[derive(Debug, Clone)]
pub struct Term<L> {
    /// The tensor that it reads, `r`.
    pub root: ValueId,
    /// `L`.
    pub map: L,
    /// See [`Kind`].
    pub kind: TermKind,
}

impl<L: Linear> Term<L> {
    /// `map` applied to this part.
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

    /// Weights to store, if it is emitted on its own.
    pub fn weights(&self) -> f64 {
        match self.kind {
            TermKind::Identity(_) => 0.0,
            _ => self.map.geometry().weights(),
        }
    }

    /// The part without weights.
    fn shape(&self) -> Term<Geometry> {
        Term { root: self.root, map: self.map.geometry().clone(), kind: self.kind }
    }

    /// `self ⊕ other`, if that is legal.
    ///
    /// # Errors
    /// Why it is not, which shapes alone decide.
    pub fn sum(self, other: &Self, reader: &Reader) -> Result<Self, Refusal> {
        debug_assert_eq!(self.root, other.root);
        let without_sizes = self.map.geometry().clone().plus(other.map.geometry(), &[]);
        // Sizes are inferred only where a decision needs them.
        let sizes = match without_sizes {
            Err(Refusal::Counts { .. }) => reader.sizes.shape(self.root),
            _ => &[],
        };
        let weighted = self.kind == TermKind::Conv || other.kind == TermKind::Conv;
        let kind = if weighted { TermKind::Conv } else { TermKind::Pointwise };
        Ok(Term { root: self.root, map: self.map.plus(&other.map, sizes)?, kind })
    }
}

impl Term<Geometry> {
    /// `self ⊕ other`, if that is legal and not dearer than both.
    ///
    /// # Errors
    /// Why not.
    pub fn merged(&self, other: &Self, reader: &Reader) -> Result<Self, Reason> {
        let sum = self.clone().sum(other, reader)?;
        let (before, after) = (self.weights() + other.weights(), sum.weights());
        if sum.kind != TermKind::Conv || after > before {
            return Err(Reason::Dearer { before, after });
        }
        Ok(sum)
    }
}

/// What a map adds to a part's kind.
pub fn kind_of(map: &LinearOp) -> TermKind {
    match map {
        LinearOp::Conv { .. } => TermKind::Conv,
        LinearOp::Bordered { map, .. } => kind_of(map),
        LinearOp::Filter { windows, weight, shift, .. }
            if windows.is_empty() && *shift == 0.0 && weight.abs() == 1.0 =>
        {
            TermKind::Identity(Sign::of_difference(*weight < 0.0))
        }
        _ => TermKind::Pointwise,
    }
}

/// Whether the terms of a sum all have so many axes: kernels tell, and what is as wide as
/// the identity does not. Else one is broadcast onto the other, from the last axis on, and
/// the channels of one are not those of the other: of `[1, 4, 6, 6] + [4, 4]`, axis 1 is the
/// height of what the second one adds.
pub fn are_of_one_rank<'g>(mut terms: impl Iterator<Item = &'g Geometry>) -> bool {
    let is_known = |term: &&Geometry| !term.windows.is_empty() || term.kind == ConvKind::MatMul;
    let Some(first) = terms.next().filter(is_known) else { return false };
    terms.all(|term| is_known(&term) && term.rank() == first.rank())
}

/// Adds `part` to a sum, merging it with all parts that it can be merged with; where that is
/// right for some sizes only, `valid` is narrowed.
fn insert<L: Linear>(
    parts: &mut Vec<Term<L>>,
    mut part: Term<L>,
    reader: &Reader,
    valid: &mut Validity,
) {
    let merges = |other: &Term<L>, part: &Term<L>| {
        other.root == part.root && other.shape().merged(&part.shape(), reader).is_ok()
    };
    // Decided on shapes, so that a kernel which grows by thousands is never copied.
    while let Some(index) = parts.iter().position(|other| merges(other, &part)) {
        let other = parts.remove(index);
        require_equal_counts(other.root, other.map.geometry(), part.map.geometry(), reader, valid);
        part = match other.sum(&part, reader) {
            Ok(sum) => sum,
            Err(_) => unreachable!("shapes alone decide"),
        };
    }
    parts.push(part);
}

/// Windows of other slack give as many outputs, ⌊(n + slack)/stride⌋ + 1, for sizes n of some
/// remainders only: that which `root` is known to have.
fn require_equal_counts(
    root: ValueId,
    one: &Geometry,
    other: &Geometry,
    reader: &Reader,
    valid: &mut Validity,
) {
    for axis in 0..one.windows.len().max(other.windows.len()) {
        let (window, slack) = (one.window(axis), other.window(axis).slack);
        let along = one.input.axis(axis.saturating_add(2));
        let known = || reader.sizes.shape(root).get(along).copied().flatten();
        if let Some(size) = (window.slack != slack).then(known).flatten() {
            let (remainder, modulus) = (size.rem_euclid(window.stride.max(1)), window.stride);
            let sizes = SizeSet::Congruent { remainder, modulus };
            valid.require(root, Property::Size(along, sizes));
        }
    }
}

impl Region {
    /// The region of `output` that stops at `cuts`.
    pub fn new(
        reader: &Reader,
        meanings: &Meanings,
        output: ValueId,
        cuts: BTreeSet<ValueId>,
    ) -> Self {
        let graph = reader.graph;
        let (mut nodes, mut between) = (BTreeSet::new(), BTreeSet::new());
        let mut wanted = vec![output];
        while let Some(value) = wanted.pop() {
            let at_cut = value != output && cuts.contains(&value);
            let Some(producer) = graph.value(value).producer.filter(|_| !at_cut) else { continue };
            let Some(reading) = meanings.get(producer) else { continue };
            if matches!(reading, Meaning::Opaque(_)) {
                continue;
            }
            if nodes.insert(producer) {
                between.extend(meanings.consumed(producer));
                wanted.extend(reading.operands());
            }
        }
        let steps: BTreeSet<NodeId> = between.difference(&nodes).copied().collect();
        nodes.extend(&steps);
        Region { output, cuts, nodes: nodes.into_iter().collect(), steps }
    }

    /// The region's normal form: one part per root and window; and for which inputs it is
    /// right. `lift` makes a map of what a node was read as.
    ///
    /// # Errors
    /// What `lift` returns, or that maps do not compose.
    pub fn evaluate<L: Linear, E: From<Refusal>>(
        &self,
        meanings: &Meanings,
        reader: &Reader,
        identity: &L,
        lift: impl Fn(&LinearOp) -> Result<L, E>,
    ) -> Result<(Vec<Term<L>>, Validity), E> {
        let mut valid = Validity::default();
        for &id in &self.nodes {
            meanings.validity(id).into_iter().for_each(|own| valid.intersect(own));
        }
        let mut forms: IdMap<ValueId, Vec<Term<L>>> = IdMap::default();
        let mut uses: IdMap<ValueId, usize> = IdMap::default();
        let graph = reader.graph;
        let nodes = || self.nodes.iter().filter(|id| !self.steps.contains(id));
        for reading in nodes().filter_map(|&id| meanings.get(id)) {
            if matches!(reading, Meaning::Alias(_)) {
                continue;
            }
            for operand in reading.operands() {
                let count = uses.entry(meanings.source(operand)).or_default();
                *count = count.saturating_add(1);
            }
        }
        for &id in nodes() {
            let Some(output) = graph.node(id).output() else { continue };
            // A form moves to its last reader inside the region; sums of thousands
            // of operands are not copied at every step.
            let mut take = |forms: &mut IdMap<_, _>, value: ValueId| {
                let root = meanings.source(value);
                let plain = || {
                    vec![Term { root, map: identity.clone(), kind: TermKind::Identity(Sign::Plus) }]
                };
                if self.cuts.contains(&root) {
                    return plain();
                }
                let left = uses.entry(root).or_default();
                *left = left.saturating_sub(1);
                match left {
                    0 => forms.remove(&root).unwrap_or_else(plain),
                    _ => forms.get(&root).cloned().unwrap_or_else(plain),
                }
            };
            let form = match meanings.get(id) {
                Some(Meaning::Linear(input, map)) => {
                    let (lifted, kind) = (lift(map)?, kind_of(map));
                    let operand = take(&mut forms, *input);
                    let geometries = operand.iter().map(|part| part.map.geometry());
                    if operand.len() > 1 && !are_of_one_rank(geometries) {
                        return Err(Refusal::Ranks.into());
                    }
                    let bare = lifted.clone().unshifted();
                    // The shift counts once, however many parts there are.
                    let mut lifted = Some(lifted);
                    let apply = |part: &Term<L>| {
                        part.mapped(&lifted.take().unwrap_or_else(|| bare.clone()), kind)
                    };
                    operand.iter().map(apply).collect::<Result<_, _>>()?
                }
                Some(Meaning::Sum(operands)) => {
                    let mut parts = Vec::new();
                    for &(sign, operand) in operands {
                        let operand_parts = take(&mut forms, operand);
                        if parts.is_empty() && sign == Sign::Plus {
                            parts = operand_parts;
                            continue;
                        }
                        for part in operand_parts {
                            let part = part.signed(sign);
                            insert(&mut parts, part, reader, &mut valid);
                        }
                    }
                    parts
                }
                _ => continue,
            };
            forms.insert(output, form);
        }
        Ok((forms.remove(&self.output).unwrap_or_default(), valid))
    }
}
