//! Which terms of a sum become one, `L₁(r) + L₂(r) = (L₁ ⊕ L₂)(r)`.
//!
//! This is decided on shapes alone, so that a kernel which would grow by thousands is never
//! made. Knows terms and the sizes of tensors; knows neither nodes nor regions.

use crate::affine::{ConvKind, Geometry, Linear, Refusal};
use crate::emit::term::{Term, TermKind};
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::ids::ValueId;
use crate::ops::meaning::{LinearOp, Sign};
use crate::ops::reader::Reader;
use crate::refusal::Reason;

/// Two terms merged into one.
pub struct Merged<L> {
    /// Their sum.
    pub term: Term<L>,
    /// The sizes for which the merged term equals the sum.
    pub valid: Validity,
}

/// Returns `one ⊕ other`, for two terms of one root, if that is legal.
///
/// # Errors
/// Returns the reason if it is not legal, which shapes alone decide.
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

/// Returns `one ⊕ other`, if that is legal and has no more weights than the two have.
///
/// # Errors
/// Returns the reason if it is not legal, or has more weights.
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

/// Adds `term` to a sum, merging it with all terms that it can be merged with. Where a merge is
/// right for some sizes only, `valid` is narrowed to these.
///
/// # Errors
/// Returns an error if terms cannot be merged although their shapes can; no such terms are
/// known.
pub fn insert<L: Linear>(
    sum: &mut Vec<Term<L>>,
    mut term: Term<L>,
    reader: &Reader,
    valid: &mut Validity,
) -> Result<(), Refusal> {
    // Decided on shapes, so that a kernel which grows by thousands is never copied; and on
    // kinds first, so that for a tensor added a hundred times not every pair is composed.
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

/// Returns the sizes of `root` for which two windows make equally many outputs. Windows of
/// different slack do so, ⌊(n + slack)/stride⌋ + 1, only for sizes n of some remainders modulo
/// the stride; the remainder required is the one of these `sizes`, which `root` has.
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

/// Returns the kind of a term with this map. A map that picks channels can become part of a
/// kernel, but is none: it has neither a rank nor a type, and alone, as a kernel, it would
/// multiply where nothing is multiplied.
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

/// Whether all terms of a sum are known to have the same number of axes: kernels and views tell
/// it, a map without windows, such as the identity, does not. If the numbers differ, one term
/// is broadcast onto the other, from the last axis on, and their channels lie on different
/// axes: in `[1, 4, 6, 6] + [6, 6]`, axis 1 of the second summand is the last one of the sum.
pub fn are_of_one_rank<'t, L: Linear + 't>(mut terms: impl Iterator<Item = &'t Term<L>>) -> bool {
    let Some(first) = terms.next().and_then(rank) else { return false };
    terms.all(|term| rank(term) == Some(first))
}

/// Returns the number of axes of a term, if it is known; a resampling leaves it unchanged.
pub fn rank<L: Linear>(term: &Term<L>) -> Option<usize> {
    let map = term.map.geometry();
    let is_known = !map.windows.is_empty() || map.kind == ConvKind::MatMul;
    let of_map = is_known.then(|| map.rank());
    term.after.iter().fold(of_map, |rank, view| view.view.rank().or(rank))
}
