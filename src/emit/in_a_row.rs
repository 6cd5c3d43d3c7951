//! Kernels in a row as one term: what stands between two of them is done by the first or the
//! second.
//!
//! Knows terms, and which nodes a map has around its kernel.

use crate::affine::{Linear, Refusal};
use crate::emit::around::{adds_bias, front};
use crate::emit::term::{Inner, Term, TermKind};
use crate::onnx::ids::ValueId;
use crate::ops::meaning::Sign;

/// Upper bound on the kernels of one term. Real models need two: what the second kernel crops is
/// cropped by the first, which has no crop in front of it.
const MAX_KERNELS: usize = 8;

impl<L: Linear> Term<L> {
    /// This term with the output of `inner` in place of its root, as one more kernel. The kernel
    /// of `inner` does what this term does in front of its own kernel, which saves a Slice or a
    /// Transpose; and a bias that `inner` would add by a separate node becomes part of this term's
    /// bias.
    ///
    /// # Errors
    /// Returns an error if there is nothing in front and nothing added, or if one of the kernels
    /// cannot take over what the other has.
    pub fn behind(&self, inner: &Self) -> Result<Self, Refusal> {
        if self.kernels().chain(inner.kernels()).nth(MAX_KERNELS).is_some() {
            return Err(Refusal::View);
        }
        if let Some(own) = &self.inner {
            return Ok(self.on(own.of, own.term.behind(inner)?));
        }
        if inner.kind != TermKind::Conv {
            return self.behind_shift(inner);
        }
        if self.kind != TermKind::Conv || inner.part.is_some() {
            return Err(Refusal::View);
        }
        if adds_bias(inner.map.geometry()) {
            let bias = inner.map.shift_alone();
            let bias = inner.after.iter().try_fold(bias, |bias, view| bias.beyond(&view.view));
            let added = bias.map(|bias| Term::new(self.root, bias, TermKind::Pointwise));
            if let Ok(outer) = added.and_then(|added| self.of(&added)) {
                return outer
                    .behind_kernel(Term { map: inner.map.clone().unshifted(), ..inner.clone() });
            }
        }
        if front(self.map.geometry()).is_none() && self.before.is_empty() {
            return Err(Refusal::View);
        }
        self.behind_kernel(inner.clone())
    }

    /// As [`Self::behind`], where the bias of `inner` already contains a shift that stood between
    /// the two kernels: that alone saves a node.
    ///
    /// # Errors
    /// Returns an error if the terms are not two kernels, or too many in a row.
    pub(super) fn behind_shifted(&self, inner: &Self) -> Result<Self, Refusal> {
        let are_kernels = [self, inner].iter().all(|term| term.kind == TermKind::Conv);
        let are_few = self.kernels().chain(inner.kernels()).nth(MAX_KERNELS).is_none();
        self.behind(inner).or_else(|refusal| {
            let is_whole = are_kernels && are_few && inner.part.is_none() && self.inner.is_none();
            if is_whole { self.behind_kernel(inner.clone()) } else { Err(refusal) }
        })
    }

    /// Rewrites a kernel behind a scale and a shift that does not pass the kernel's border,
    /// `K(s·x + t)`, as a kernel behind a shift alone, `(K·s)(x + t/s)`: beyond the border, both
    /// read zeros. Likewise behind picked and shifted channels: `K(P·x + t)` is `(K·P)(x + u)`
    /// with `P·u = t`.
    fn behind_shift(&self, inner: &Self) -> Result<Self, Refusal> {
        let is_bare = !self.has_views() && !inner.has_views() && inner.inner.is_none();
        if self.kind != TermKind::Conv || !is_bare || inner.part.is_some() {
            return Err(Refusal::View);
        }
        let shift = inner.map.shift_in_front(self.map.geometry().windows.len())?;
        let map = self.map.after(&inner.map.clone().unshifted())?;
        let shift = Term { map: shift, kind: TermKind::Shifted(Sign::Plus), ..inner.clone() };
        Ok(Term { map, ..self.on(self.root, shift) })
    }

    /// The last kernel alone, reading its input, the tensor `of`.
    pub(super) fn outermost(&self, of: ValueId) -> Self {
        Term { root: of, inner: None, ..self.clone() }
    }

    /// As [`Self::behind`], whether or not there is something in front.
    fn behind_kernel(&self, inner: Self) -> Result<Self, Refusal> {
        let front = front(self.map.geometry());
        let inner = self.before.iter().fold(inner, Term::viewed);
        let Some(front) = front else {
            return Ok(Term { before: Vec::new(), ..self.on(self.root, inner) });
        };
        let inner = inner.mapped(&L::framing(front.clone()), TermKind::Pointwise)?;
        Ok(Term { before: Vec::new(), map: self.map.behind(&front), ..self.on(self.root, inner) })
    }

    /// This term, reading the output of `term` in place of the tensor `of`.
    pub(super) fn on(&self, of: ValueId, term: Self) -> Self {
        Term { root: term.root, inner: Some(Box::new(Inner { of, term })), ..self.clone() }
    }
}
