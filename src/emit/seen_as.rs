//! Other readings of a term, in which it can merge with another term: kernels in a row as one,
//! means as a part of a kernel, a convolution as a product of all elements.
//!
//! Knows terms and views; does not decide which terms should be one.

use crate::affine::{Linear, Refusal, Squares};
use crate::emit::term::{Term, TermKind};
use crate::ops::meaning::{ViewKernel, ViewNode};

impl<L: Linear> Term<L> {
    /// The term in a reading in which it may merge with `other`: as one kernel instead of several
    /// in a row, with means as a part of its kernel, or as a product of all elements. Returns
    /// `None` if there is no such reading.
    pub fn seen_as(&self, other: &Self) -> Option<Self> {
        let as_one = self.at_once().or_else(|| self.dense_beside(other));
        as_one.or_else(|| match (self.after.last(), self.before.last()) {
            (Some(last), _) => self.with_means().filter(|_| other.after.last() != Some(last)),
            (None, Some(last)) => self.of_means().filter(|_| other.before.last() != Some(last)),
            (None, None) => None,
        })
    }

    /// All kernels of the term as one, if it has several.
    fn at_once(&self) -> Option<Self> {
        let inner = self.inner.as_ref()?;
        self.outermost(inner.of).of(&inner.term).ok()
    }

    /// The term with the means at its end as a kernel of equal weights.
    pub(super) fn with_means(&self) -> Option<Self> {
        let (last, before) = self.after.split_last()?;
        let means = means(last)?;
        let inner = Term { after: before.to_vec(), ..self.clone() };
        inner.mapped(&means, TermKind::Pointwise).ok()
    }

    /// The term with the means that it reads as a part of its kernel.
    fn of_means(&self) -> Option<Self> {
        let (last, before) = self.before.split_last()?;
        let means = means::<L>(last)?;
        Some(Term { before: before.to_vec(), map: self.map.after(&means).ok()?, ..self.clone() })
    }

    /// The term, whose kernel reads squares, as a kernel of the tensor that these are cut from, if
    /// that has no more weights: it has as many, each reads one element, and the nodes that cut go
    /// away.
    pub(super) fn of_squares(&self) -> Option<Self> {
        let [view] = self.before.as_slice() else { return None };
        let Some(ViewKernel::Squares(squares, first)) = &view.kernel else { return None };
        let root = match first {
            None => self.root,
            Some(first) if first.last == self.root => first.root,
            Some(_) => return None,
        };
        let is_kernel = self.kind == TermKind::Conv && self.inner.is_none();
        let map = is_kernel.then(|| kernel_of(squares, &self.map)).flatten()?;
        Some(Term { root, before: Vec::new(), map, ..self.clone() })
    }

    /// `map` applied to this term, which ends with means or squares, as a kernel that contains
    /// these: a kernel behind squares that are cut from another kernel's output is a kernel on
    /// that output. Returns `None` if there is no such kernel.
    pub(super) fn mapped_as_kernel(
        &self,
        map: &L,
        kind: TermKind,
    ) -> Option<Result<Self, Refusal>> {
        if let Some(term) = self.with_means() {
            return Some(term.mapped(map, kind));
        }
        let (last, before) = self.after.split_last()?;
        let Some(ViewKernel::Squares(squares, None)) = &last.kernel else { return None };
        let map = (kind == TermKind::Conv).then(|| kernel_of(squares, map)).flatten()?;
        let inner = Term { after: before.to_vec(), ..self.clone() };
        Some(inner.mapped(&map, kind))
    }

    /// A convolution behind a view that fixes its size, as a product of all elements between the
    /// views of `other`, if `other` is such a product, and the elements are equally many and in
    /// the same order.
    fn dense_beside(&self, other: &Self) -> Option<Self> {
        let are_in_order = |term: &Self| {
            term.before.iter().chain(&term.after).all(|view| view.view.made().is_some())
        };
        if self.kind != TermKind::Conv
            || self.part != other.part
            || !are_in_order(self)
            || !are_in_order(other)
        {
            return None;
        }
        let made = |views: &[ViewNode]| views.last()?.view.made();
        let (seen, flat) = (made(&self.before)?, made(&other.before)?);
        let sizes: Vec<usize> = seen.get(2..)?.iter().copied().collect::<Option<_>>()?;
        let channels = self.map.geometry().channels?.inputs;
        let [_, Some(all), beside @ ..] = flat.as_slice() else { return None };
        let elements = sizes.iter().try_fold(channels, |all, &size| all.checked_mul(size));
        let is_flat =
            beside.iter().all(|size| *size == Some(1)) && other.map.geometry().is_pointwise();
        if !is_flat || elements != Some(*all) || sizes.is_empty() {
            return None;
        }
        // The sum must not broadcast: where the number of elements is the same, a single unknown
        // size is too.
        let (mine, theirs) = (made(&self.after)?, made(&other.after)?);
        if mine != theirs || mine.iter().filter(|size| size.is_none()).count() > 1 {
            return None;
        }
        let (before, after) = (other.before.clone(), other.after.clone());
        Some(Term { before, map: self.map.dense(&sizes).ok()?, after, ..self.clone() })
    }
}

/// The kernel that takes the means of a view; `None` if the view takes none.
fn means<L: Linear>(view: &ViewNode) -> Option<L> {
    match &view.kernel {
        Some(ViewKernel::Means(windows)) => Some(L::mean(windows.to_vec())),
        Some(ViewKernel::Squares(..)) | None => None,
    }
}

/// The kernel `map`, which reads `squares`, as a kernel of the tensor that these are cut from, if
/// that has no more weights.
fn kernel_of<L: Linear>(squares: &Squares, map: &L) -> Option<L> {
    let shape = map.geometry().of_squares(squares).ok()?;
    let is_as_small = shape.weights() <= map.geometry().weights();
    is_as_small.then(|| map.of_squares(squares).ok()).flatten()
}
