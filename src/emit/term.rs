//! The terms of a normal form `y = Σ L(r) + b`, as which a block is planned and written.
//!
//! Knows maps, views and their signs; neither how a graph is read as terms, nor which terms should
//! be merged.

#![allow(clippy::arithmetic_side_effects, reason = "counts of nodes, the product of two signs")]

use std::iter::successors;
use std::sync::Arc;

use crate::affine::{ConvKind, Geometry, Linear, Macs, Part, Refusal, Window};
use crate::emit::layout::layout;
use crate::onnx::ids::ValueId;
use crate::ops::forms::NodeForms;
use crate::ops::meaning::{Sign, ViewKernel, ViewNode};
use crate::ops::views;

/// What a term contributes to the sum, besides its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TermKind {
    /// The root itself, added or subtracted.
    Identity(Sign),
    /// The root with a shift, which is no summand by itself: it goes into a kernel.
    Shifted(Sign),
    /// A root without a convolution, but not plain: scaled or cropped, or channels picked from it.
    Pointwise,
    /// A root with at least one convolution.
    Conv,
}

impl TermKind {
    /// Whether a term of this kind is written as a summand of its own beside a kernel.
    pub fn is_written(self) -> bool {
        !matches!(self, TermKind::Shifted(_) | TermKind::Pointwise)
    }
}

/// One term `P(L(Q(r)))`, with the bias in `L`, and views `P` and `Q`. It may be only a part of
/// the sum, and zero elsewhere.
#[derive(Debug, Clone)]
pub struct Term<L> {
    /// The root `r`: the tensor that the term reads.
    pub root: ValueId,
    /// The kernel that is applied to `r` first, if the term has several; then `Q` and `L` apply to
    /// its output.
    pub inner: Option<Box<Inner<L>>>,
    /// `Q`, the first view first.
    pub before: Vec<ViewNode>,
    /// `L`.
    pub map: L,
    /// `P`, the first view first.
    pub after: Vec<ViewNode>,
    /// The part of the sum that the term is; `None` for the whole sum.
    pub part: Option<Box<Part>>,
    /// What `L` is made of.
    pub kind: TermKind,
    /// The kernel of a row of tensors of which the term is one part; `None` if it is no such part.
    pub in_row: Option<Arc<KernelOfRow>>,
}

/// A kernel of tensors in a row, `K(Concat(a, b))`. All of them have the same size, so the kernel
/// makes the same number of outputs of each.
#[derive(Debug, PartialEq)]
pub struct KernelOfRow {
    /// The tensor that joins the row.
    pub of: ValueId,
    /// The kernel's windows: another kernel of the same row may make fewer outputs.
    pub windows: Vec<Window>,
}

/// A kernel before the last one of a term.
#[derive(Debug, Clone)]
pub struct Inner<L> {
    /// The tensor that the kernel makes, up to what the kernel crops, pads and turns in addition,
    /// and to the bias that it leaves out.
    pub(super) of: ValueId,
    /// The term that makes it.
    pub term: Term<L>,
}

impl<L: Linear> Inner<L> {
    /// Whether both make the same tensor.
    fn is(&self, other: &Self) -> bool {
        self.of == other.of && self.term.is(&other.term)
    }
}

impl<L: Linear> Term<L> {
    /// The term `map(root)`.
    pub fn new(root: ValueId, map: L, kind: TermKind) -> Self {
        let (before, after) = (Vec::new(), Vec::new());
        Term { root, inner: None, before, map, after, part: None, kind, in_row: None }
    }

    /// The term `view(root)`.
    pub fn view(root: ValueId, view: ViewNode, identity: L) -> Self {
        Term { before: vec![view], ..Term::new(root, identity, TermKind::Identity(Sign::Plus)) }
    }

    /// The term with this view applied to it. A scale or shift without a convolution moves behind
    /// the view, where the next kernel may be: `Gemm(Flatten(norm(x)))` is a Gemm of `Flatten(x)`.
    #[must_use]
    pub fn viewed(mut self, view: &ViewNode) -> Self {
        let beyond = || self.map.beyond(&view.view).ok();
        let moves = self.after.is_empty() && self.kind != TermKind::Conv;
        match moves.then(beyond).flatten() {
            Some(map) => {
                look(&mut self.before, view);
                self.map = map;
            }
            None => look(&mut self.after, view),
        }
        self
    }

    /// This term with the output of `inner` in place of its root.
    ///
    /// # Errors
    /// Returns an error if the maps do not compose.
    pub fn of(&self, inner: &Self) -> Result<Self, Refusal> {
        let term = self.composed(inner)?;
        Ok(Term { in_row: self.in_row.clone().or(term.in_row), ..term })
    }

    fn composed(&self, inner: &Self) -> Result<Self, Refusal> {
        if let Some(sign) = self.plain_sign() {
            return Ok(inner.clone().signed(sign));
        }
        if let Some(own) = &self.inner {
            let inner = own.term.of(inner)?;
            return if own.term.kind == TermKind::Conv {
                Ok(self.on(own.of, inner))
            } else {
                // The inner shift may have become something else.
                let outermost = self.outermost(own.of);
                outermost.of(&inner).or_else(|_| outermost.behind_shifted(&inner))
            };
        }
        if !self.has_views() && self.part.is_none() {
            return inner.mapped(&self.map, self.kind);
        }
        if self.has_views() && inner.part.is_some() {
            return Err(Refusal::View);
        }
        let read = self.before.iter().fold(inner.clone(), Term::viewed);
        let mapped = read.mapped(&self.map, self.kind)?;
        let mapped = self.after.iter().fold(mapped, Term::viewed);
        let part = match (self.part(), mapped.part()) {
            (Some(own), Some(inner)) => Some(inner.of(own).ok_or(Refusal::View)?),
            (own, inner) => own.or(inner),
        };
        Ok(Term { part: part.map(Box::new), ..mapped })
    }

    /// `map` applied to this term, in front of the term's views if it has any behind its map:
    /// `D(P(L(r)))` is `P(D'(L(r)))` for a scale or shift `D`. Where `map` also changes the axis
    /// order, this becomes an additional view.
    ///
    /// # Errors
    /// Returns an error if the maps do not compose.
    pub fn mapped(&self, map: &L, kind: TermKind) -> Result<Self, Refusal> {
        if let Some(part) = &self.part {
            let inner = Term { part: None, ..self.clone() };
            let mapped = inner.mapped(&map.on_part(part)?, kind)?;
            return Ok(Term { part: self.part.clone(), ..mapped });
        }
        if let Some((last, before)) = self.after.split_last() {
            if let Some(order) = map.geometry().turns() {
                let rank = last.view.rank().ok_or(Refusal::View)?;
                let mut turned = self.mapped(&map.unturned(), kind)?;
                look(&mut turned.after, &views::turned(&order, rank));
                return Ok(turned);
            }
            // In front of a view, a kernel gets its rank from another kernel.
            let has_rank = self.kind == TermKind::Conv || map.geometry().is_scale();
            let moved = || map.beyond(&last.view.inverse());
            let map = match has_rank.then(moved).unwrap_or(Err(Refusal::View)) {
                Ok(map) => map,
                Err(refusal) => return self.mapped_as_kernel(map, kind).ok_or(refusal)?,
            };
            let last = match map.geometry().channels {
                Some(channels) if channels.inputs != channels.outputs => {
                    let axis = map.geometry().input.axis(1);
                    views::with_size(last, axis, channels.outputs).ok_or(Refusal::View)?
                }
                _ => last.clone(),
            };
            let inner = Term { after: before.to_vec(), ..self.clone() };
            // In front of a view, a depthwise kernel of one tap is a scale, which has no rank.
            let is_scale = kind == TermKind::Conv && map.geometry().is_scale();
            let kind = if is_scale { TermKind::Pointwise } else { kind };
            let mut mapped = inner.mapped(&map, kind)?;
            // In front of means there may be more elements, so a kernel must not grow there.
            let [old, new] = [&inner, &mapped].map(|term| term.map.geometry().weights());
            if kind == TermKind::Conv && last.view.resamples() && new > old {
                return Err(Refusal::View);
            }
            mapped.after.push(last);
            return Ok(mapped);
        }
        let kind = match (kind, self.kind) {
            (TermKind::Conv, _) | (_, TermKind::Conv) => TermKind::Conv,
            (TermKind::Identity(a), TermKind::Identity(b)) => TermKind::Identity(a * b),
            (
                TermKind::Identity(a) | TermKind::Shifted(a),
                TermKind::Identity(b) | TermKind::Shifted(b),
            ) => TermKind::Shifted(a * b),
            _ => TermKind::Pointwise,
        };
        let (root, before, map) = (self.root, self.before.clone(), map.after(&self.map)?);
        let inner = self.inner.clone();
        let (after, in_row) = (Vec::new(), self.in_row.clone());
        let mapped = Term { root, inner, before, map, after, part: None, kind, in_row };
        let Some(inner) = &self.inner else {
            return Ok(mapped.of_squares().unwrap_or(mapped));
        };
        let outermost = mapped.outermost(inner.of);
        // Where the border is cropped, a shift in front of it passes.
        let is_shift = inner.term.kind != TermKind::Conv;
        if let Some(one) = is_shift.then(|| outermost.of(&inner.term).ok()).flatten() {
            return Ok(one);
        }
        let is_taken = outermost.least_sizes().is_ok_and(|mut sizes| sizes.next().is_none());
        Ok(is_taken.then(|| outermost.behind(&inner.term).ok()).flatten().unwrap_or(mapped))
    }

    /// The axes on which the term crops the root on one side and pads it on the other, each with
    /// the least number of elements for which the term is right. `x[2:]`, padded by 3 behind, is
    /// written as a Slice and a padded convolution. Of 1 element, that Slice leaves 0, not −1, and
    /// the convolution makes one output too many.
    ///
    /// # Errors
    /// Returns an error if the crop applies to a view of the root, or to the output of another
    /// kernel, whose sizes nobody knows.
    pub fn least_sizes(&self) -> Result<impl Iterator<Item = (usize, i64)>, Refusal> {
        let least = |(axis, window): (usize, &Window)| {
            let (before, behind) = window.pads();
            let is_both = before.min(behind) < 0 && before.max(behind) > 0;
            let along = self.map.geometry().input.axis(axis.saturating_add(2));
            is_both.then(|| (along, 1_i64.saturating_sub(before.min(behind))))
        };
        let windows = self.map.geometry().windows.iter().enumerate();
        let gathers = self.map.geometry().kind != ConvKind::ConvTranspose;
        let mut least = windows.filter(move |_| gathers).filter_map(least).peekable();
        if least.peek().is_some() && (!self.before.is_empty() || self.inner.is_some()) {
            return Err(Refusal::View);
        }
        Ok(least)
    }

    /// The kernels of the term as terms, the last kernel first: this term, and those that are
    /// computed before it.
    pub fn kernels(&self) -> impl Iterator<Item = &Self> {
        successors(Some(self), |term| term.inner.as_ref().map(|inner| &inner.term))
    }

    /// The term as an operand of a sum with this sign.
    #[must_use]
    pub fn signed(self, sign: Sign) -> Self {
        if sign == Sign::Plus {
            return self;
        }
        let kind = match self.kind {
            TermKind::Identity(sign) => TermKind::Identity(-sign),
            TermKind::Shifted(sign) => TermKind::Shifted(-sign),
            kind => kind,
        };
        Term { map: self.map.negated(), kind, ..self }
    }

    /// The part of the sum that the term is; `None` for the whole sum.
    pub fn part(&self) -> Option<Part> {
        self.part.as_deref().copied()
    }

    /// The sign of the term if it is the unchanged root and the whole sum.
    pub fn plain_sign(&self) -> Option<Sign> {
        match self.kind {
            TermKind::Identity(sign) if self.is_plain() && self.part.is_none() => Some(sign),
            _ => None,
        }
    }

    /// Whether the term is its root, unchanged and without views: as a part of the sum, or all of
    /// it.
    pub fn is_plain(&self) -> bool {
        matches!(self.kind, TermKind::Identity(_)) && !self.has_views()
    }

    /// Whether views stand before or behind its map.
    pub fn has_views(&self) -> bool {
        !self.before.is_empty() || !self.after.is_empty()
    }

    /// The number of weights to store if the term is written on its own.
    pub fn weights(&self) -> f64 {
        match self.kind {
            TermKind::Identity(_) => 0.0,
            _ => self.kernels().map(|kernel| kernel.map.geometry().weights()).sum(),
        }
    }

    /// The number of nodes that the term is written as on its own.
    pub fn nodes(&self, forms: NodeForms) -> usize {
        let nodes = |kernel: &Self| {
            let own = match kernel.kind {
                TermKind::Identity(_) => 0,
                TermKind::Pointwise | TermKind::Shifted(_) => 1,
                TermKind::Conv => layout(kernel.map.geometry(), forms).len(),
            };
            kernel.before.len() + own + kernel.after.len()
        };
        self.kernels().map(nodes).sum()
    }

    /// Whether all nodes of the term have forms that engines read, or that the file already has.
    pub fn is_read(&self, forms: NodeForms) -> bool {
        let is_uneven = |window: &Window| {
            let ((before, behind), _) = window.scattered_pads();
            before != behind
        };
        let pads_unevenly = |kernel: &Self| {
            let geometry = kernel.map.geometry();
            let scatters = geometry.kind == ConvKind::ConvTranspose;
            scatters && geometry.windows.iter().any(is_uneven)
        };
        // Before this opset, operands are broadcast only where attributes say so.
        let broadcasts =
            |kernel: &Self| matches!(kernel.kind, TermKind::Shifted(_) | TermKind::Pointwise);
        let convolves = |kernel: &Self| {
            kernel.kind == TermKind::Conv
                && layout(kernel.map.geometry(), forms).iter().any(|node| node.operator.convolves())
        };
        (forms.convolves || !self.kernels().any(convolves))
            && (forms.pads_unevenly || !self.kernels().any(pads_unevenly))
            && (forms.opset >= 7 || !self.kernels().any(broadcasts))
    }

    /// Whether the last kernel of the term can be written. A map of tensors of any rank becomes a
    /// kernel only where another kernel determines the rank.
    pub fn is_kernel(&self) -> bool {
        let map = self.map.geometry();
        let has_rank = !map.windows.is_empty() || map.kind == ConvKind::MatMul;
        self.kind == TermKind::Conv && has_rank
    }

    /// Converts multiply-adds given in positions of the root to positions of the term's output.
    pub fn macs_at_output(&self, macs: Macs) -> Macs {
        self.kernels().fold(macs, |macs, kernel| {
            let macs = before_means(macs, &kernel.after).before(kernel.map.geometry());
            before_means(macs, &kernel.before)
        })
    }

    /// The term without weights.
    pub fn shape(&self) -> Term<Geometry> {
        let Term { root, kind, .. } = *self;
        let (before, after) = (self.before.clone(), self.after.clone());
        let shape = |inner: &Inner<L>| Inner { of: inner.of, term: inner.term.shape() };
        let inner = self.inner.as_ref().map(|inner| Box::new(shape(inner)));
        let part = self.part.clone();
        let map = self.map.geometry().clone();
        Term { root, inner, before, map, after, part, kind, in_row: self.in_row.clone() }
    }

    /// Whether both terms compute the same of the same tensor.
    pub fn is(&self, other: &Self) -> bool {
        (self.root, self.kind) == (other.root, other.kind)
            && self.map.geometry() == other.map.geometry()
            && self.has_views_of(other)
    }

    /// The term with windows that count outputs as those of `other` do, if both are known to make
    /// equally many. Returns `None` otherwise, or if nothing changes.
    pub fn counting_as(&self, other: &Self) -> Option<Self> {
        let is_bare = |term: &Self| term.inner.is_none() && !term.has_views();
        let make_as_many = self.in_row.is_some() && self.in_row == other.in_row;
        let map = (make_as_many && is_bare(self) && is_bare(other)).then(|| {
            let (own, other) = self.map.clone().aligned(&other.map).ok()?;
            Some(own.counting_as(other.geometry()))
        });
        let map = map.flatten().filter(|map| map.geometry() != self.map.geometry())?;
        Some(Term { map, ..self.clone() })
    }

    /// Whether both terms have the same views, the same kernels before them, and the same part of
    /// the sum.
    pub fn has_views_of(&self, other: &Self) -> bool {
        self.has_front_of(other) && self.after == other.after && self.part == other.part
    }

    /// Whether both terms read the same of their roots: by the same views, and behind the same
    /// kernels.
    pub fn has_front_of(&self, other: &Self) -> bool {
        let is_behind_same = match (&self.inner, &other.inner) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        is_behind_same && self.before == other.before
    }
}

/// Converts multiply-adds given in positions in front of these views to positions behind them.
pub fn before_means(macs: Macs, views: &[ViewNode]) -> Macs {
    views.iter().fold(macs, |macs, view| match &view.kernel {
        Some(ViewKernel::Means(windows)) => macs.before(&Geometry::mean(windows.to_vec())),
        Some(ViewKernel::Squares(squares, _)) => macs.before(&squares.geometry()),
        None => macs,
    })
}

/// Appends a view: removes both if it undoes the last one, and replaces both by a single view if
/// there is one that does the same.
fn look(views: &mut Vec<ViewNode>, next: &ViewNode) {
    let Some(last) = views.pop() else { return views.push(next.clone()) };
    if next.view.undoes(&last.view) {
        return;
    }
    match views::instead_of_both(next, &last) {
        Some(view) if view.view.changes_nothing() => {}
        Some(view) => views.push(view),
        None => views.extend([last, next.clone()]),
    }
}
