//! Which terms of a sum become one, `L₁(r) + L₂(r) = (L₁ ⊕ L₂)(r)`.
//!
//! Decided on shapes alone, so that a kernel which would grow by thousands is never made.
//! Knows terms and the sizes of tensors; neither nodes nor regions.

use crate::affine::{ConvKind, Geometry, Linear, Refusal};
use crate::emit::term::{Term, TermKind};
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::ids::ValueId;
use crate::ops::meaning::{LinearOp, Sign};
use crate::ops::reader::Reader;
use crate::refusal::Reason;

/// Two terms as one.
pub struct Merged<L> {
    /// Their sum.
    pub term: Term<L>,
    /// The sizes for which they are one.
    pub valid: Validity,
}

/// `one ⊕ other`, two terms of one root, if that is legal.
///
/// # Errors
/// Why it is not, which shapes alone decide.
pub fn merge<L: Linear>(
    one: Term<L>,
    other: &Term<L>,
    reader: &Reader,
) -> Result<Merged<L>, Refusal> {
    debug_assert_eq!(one.root, other.root);
    if !one.has_views_of(other) {
        return match (one.seen_as(other), other.seen_as(&one)) {
            (Some(one), _) => merge(one, other, reader),
            (None, Some(other)) => merge(one, &other, reader),
            (None, None) => Err(Refusal::View),
        };
    }
    if let Some(one) = one.counting_as(other) {
        return merge(one, other, reader);
    }
    if let Some(other) = other.counting_as(&one) {
        return merge(one, &other, reader);
    }
    let without_sizes = one.map.geometry().clone().plus(other.map.geometry(), &[]);
    // Sizes are inferred only where a decision needs them.
    let sizes = match without_sizes {
        Err(Refusal::Counts { .. }) if one.before.is_empty() && one.inner.is_none() => {
            reader.sizes.shape(one.root)
        }
        _ => &[],
    };
    let is_weighted = one.kind == TermKind::Conv || other.kind == TermKind::Conv;
    let kind = if is_weighted { TermKind::Conv } else { TermKind::Pointwise };
    let valid = match sizes {
        [] => Validity::default(),
        sizes => equal_counts(one.root, [one.map.geometry(), other.map.geometry()], sizes)?,
    };
    Ok(Merged { term: Term { map: one.map.plus(&other.map, sizes)?, kind, ..one }, valid })
}

/// `one ⊕ other`, if that is legal and has no more weights than the two have.
///
/// # Errors
/// Why not.
pub fn merge_if_smaller(
    one: &Term<Geometry>,
    other: &Term<Geometry>,
    reader: &Reader,
) -> Result<Term<Geometry>, Reason> {
    let sum = merge(one.clone(), other, reader)?.term;
    let (before, after) = (one.weights() + other.weights(), sum.weights());
    if sum.kind != TermKind::Conv || after > before {
        return Err(Reason::Dearer { before, after });
    }
    Ok(sum)
}

/// Adds `term` to a sum, merging it with all terms that it can be merged with; where that is
/// right for some sizes only, `valid` is narrowed.
///
/// # Errors
/// If terms whose shapes can be merged cannot: none are known.
pub fn insert<L: Linear>(
    sum: &mut Vec<Term<L>>,
    mut term: Term<L>,
    reader: &Reader,
    valid: &mut Validity,
) -> Result<(), Refusal> {
    // Decided on shapes, so that a kernel which grows by thousands is never copied; and first on
    // kinds, so that of a tensor added a hundred times not each two are composed.
    let is_merged = |other: &Term<L>, term: &Term<L>| {
        other.root == term.root
            && (other.kind == TermKind::Conv || term.kind == TermKind::Conv)
            && merge_if_smaller(&other.shape(), &term.shape(), reader).is_ok()
    };
    while let Some(index) = sum.iter().position(|other| is_merged(other, &term)) {
        let merged = merge(sum.remove(index), &term, reader)?;
        valid.intersect(&merged.valid);
        term = merged.term;
    }
    sum.push(term);
    Ok(())
}

/// Windows of other slack give as many outputs, ⌊(n + slack)/stride⌋ + 1, for sizes n of some
/// remainders only: that which `root`, of these `sizes`, has.
fn equal_counts(
    root: ValueId,
    [one, other]: [&Geometry; 2],
    sizes: &[Option<i64>],
) -> Result<Validity, Refusal> {
    let mut valid = Validity::default();
    let (one, other) = one.clone().aligned(other)?;
    for axis in 0..one.windows.len().max(other.windows.len()) {
        let (window, slack) = (one.window(axis), other.window(axis).slack);
        let along = one.input.axis(axis.saturating_add(2));
        let known = || sizes.get(along).copied().flatten();
        if let Some(size) = (window.slack != slack).then(known).flatten() {
            let (remainder, modulus) = (size.rem_euclid(window.stride.max(1)), window.stride);
            let sizes = SizeSet::Congruent { remainder, modulus };
            valid.require(root, Property::Size(along, sizes));
        }
    }
    Ok(valid)
}

/// What a map makes of a term's kind. What picks channels becomes part of a kernel, and is none: it
/// has neither a rank nor a type, and alone, a kernel would multiply where nothing is multiplied.
pub fn kind_of(map: &LinearOp) -> TermKind {
    match map {
        LinearOp::Conv { .. } => TermKind::Conv,
        LinearOp::Bordered { map, .. } => kind_of(map),
        LinearOp::View(_) => TermKind::Identity(Sign::Plus),
        LinearOp::Filter { windows, weight, shift, .. }
            if windows.is_empty() && weight.abs() == 1.0 =>
        {
            let sign = Sign::of_difference(*weight < 0.0);
            if *shift == 0.0 { TermKind::Identity(sign) } else { TermKind::Shifted(sign) }
        }
        LinearOp::Diagonal { scale, .. } if scale.iter().all(|&scale| scale == 1.0) => {
            TermKind::Shifted(Sign::Plus)
        }
        LinearOp::Diagonal { scale, .. } if scale.iter().all(|&scale| scale == -1.0) => {
            TermKind::Shifted(Sign::Minus)
        }
        _ => TermKind::Pointwise,
    }
}

/// Whether the terms of a sum all have so many axes: kernels and views tell, and what is as wide
/// as the identity does not. Else one is broadcast onto the other, from the last axis on, and
/// the channels of one are not those of the other: of `[1, 4, 6, 6] + [4, 6]`, axis 1 is the
/// height of what the second one adds.
pub fn are_of_one_rank<'t, L: Linear + 't>(mut terms: impl Iterator<Item = &'t Term<L>>) -> bool {
    let Some(first) = terms.next().and_then(rank) else { return false };
    terms.all(|term| rank(term) == Some(first))
}

/// How many axes a term has, if that is known; a resampling leaves as many as there were.
pub fn rank<L: Linear>(term: &Term<L>) -> Option<usize> {
    let map = term.map.geometry();
    let is_known = !map.windows.is_empty() || map.kind == ConvKind::MatMul;
    let of_map = is_known.then(|| map.rank());
    term.after.iter().fold(of_map, |rank, view| view.view.rank().or(rank))
}
