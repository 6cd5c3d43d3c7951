//! Which summand takes the shift of a sum, `(a + b) + c = (a + c) + b`: a kernel, whose bias it
//! becomes.
//!
//! The channels of a summand are those of the sum only if both have the same number of axes: in
//! `[1, 4, 6, 6] + [1, 6]`, axis 1 of the second summand is the last axis of the sum.
//!
//! Knows terms, and how many axes tensors have; does not decide whether it pays.

use crate::affine::{Geometry, Linear, Refusal};
use crate::emit::term::{Term, TermKind};
use crate::facts::validity::{Property, Validity};
use crate::ops::meaning::Sign;
use crate::ops::reader::Reader;
use crate::plan::merge::rank;

/// Returns the terms of `outer`, a shift of its root, if the root is the sum of these `terms`;
/// `None` if `outer` is anything else, or no term is known to take the shift.
pub fn sum<L: Linear>(
    outer: &Term<L>,
    terms: &[Term<L>],
    reader: &Reader,
) -> Option<Result<Vec<Term<L>>, Refusal>> {
    let TermKind::Shifted(sign) = outer.kind else { return None };
    let are_whole = terms.iter().chain([outer]).all(|term| term.part.is_none());
    if terms.len() < 2 || outer.has_views() || !are_whole {
        return None;
    }
    let axes = reader.sizes.known_rank(outer.root);
    let is_uniform = outer.map.geometry().channels.is_none();
    let takes = |term: &&Term<L>| is_uniform || axes.is_some() && axes_of(term, reader) == axes;
    let shift = outer.shape();
    let is_taken = |term: &&Term<L>| term.kind == TermKind::Conv && shift.of(&term.shape()).is_ok();
    let mut takers = terms.iter().filter(takes);
    let first = takers.clone().next();
    let taker = takers.find(is_taken).or(first)?;
    let summand = |term: &Term<L>| {
        if std::ptr::eq(term, taker) { outer.of(term) } else { Ok(term.clone().signed(sign)) }
    };
    Some(terms.iter().map(summand).collect())
}

/// Moves the shifts of tensors that are added as they are into a kernel beside them, of the same part.
pub fn settle<L: Linear>(terms: &mut [Term<L>], reader: &Reader, valid: &mut Validity) {
    for at in 0..terms.len() {
        let Some(term) = terms.get(at).filter(|term| !term.has_views()) else { continue };
        let TermKind::Shifted(sign) = term.kind else { continue };
        let is_uniform = term.map.geometry().channels.is_none();
        let axes = axes_of(term, reader);
        let shift = term.map.shift_alone();
        let takes = |kernel: &Term<L>| {
            let is_kernel = kernel.kind == TermKind::Conv && kernel.part == term.part;
            let has_axes = || is_uniform || axes.is_some() && rank(kernel) == axes;
            let is_taken = || shifted_kernel(&kernel.shape(), shift.geometry()).is_ok();
            is_kernel && has_axes() && is_taken()
        };
        let Some(place) = terms.iter().position(takes) else { continue };
        let shifted = terms.get(place).map(|kernel| shifted_kernel(kernel, &shift));
        let Some(Ok(shifted)) = shifted else { continue };
        if let (false, Some(axes)) = (is_uniform, axes) {
            valid.require(term.root, Property::Rank(axes));
        }
        let identity = L::framing(Geometry::identity());
        let plain = Term::new(term.root, identity, TermKind::Identity(Sign::Plus)).signed(sign);
        let plain = Term { part: term.part.clone(), ..plain };
        if let Some(term) = terms.get_mut(at) {
            *term = plain;
        }
        if let Some(kernel) = terms.get_mut(place) {
            *kernel = shifted;
        }
    }
}

/// Returns `kernel` with `shift` added to its part.
fn shifted_kernel<L: Linear>(kernel: &Term<L>, shift: &L) -> Result<Term<L>, Refusal> {
    let whole = Term { part: None, ..kernel.clone() };
    let shifted = whole.mapped(shift, TermKind::Pointwise)?;
    Ok(Term { part: kernel.part.clone(), ..shifted })
}

/// Returns the number of axes of a term, if it is known.
fn axes_of<L: Linear>(term: &Term<L>, reader: &Reader) -> Option<usize> {
    let is_root = !term.has_views() && term.inner.is_none();
    let of_root = || reader.sizes.known_rank(term.root);
    rank(term).or_else(|| is_root.then(of_root).flatten())
}
