//! The form of a tensor, `y = Σ P(L(Q(r))) + b`, and the steps by which it is found. The search
//! takes these steps on shapes; the same steps are taken again on weights.
//!
//! A form begins as what a node computes from its operands. A step goes through one tensor:
//! each term that reads the tensor becomes terms of the sum that the tensor is, and these merge
//! with other terms of their root where that is legal and no dearer.
//!
//! Knows the mathematics and what nodes mean; does not decide which steps pay.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::affine::{Geometry, Linear, Part, Refusal};
use crate::emit::term::{KernelOfRow, Term, TermKind};
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::ids::{NodeId, ValueId};
use crate::ops::meaning::{LinearOp, Meaning, Sign, SumOperand};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::merge::{are_of_one_rank, insert, kind_of};
use crate::plan::shifted;
use crate::plan::stacked::{grouped, stacked};
use crate::refusal::Reason;

/// A tensor as a sum of terms.
#[derive(Debug, Clone)]
pub struct Form<L> {
    /// The terms, none of which merges with another.
    pub terms: Vec<Term<L>>,
    /// The sizes for which the merges are right.
    pub valid: Validity,
    /// Whether a scale or shift of a sum was distributed over the summands.
    is_distributed: bool,
    /// How many terms, the first ones, are put aside: steps leave these as they are.
    aside: usize,
}

/// One step on the way to a form.
#[derive(Debug, Clone)]
pub enum FormStep<N> {
    /// All other terms are put aside.
    Select(Vec<usize>),
    /// The form is read through the tensor that a node makes.
    Through(N),
    /// The form is read through the tensor that a node makes, as the one term that the sum of the
    /// node becomes if it is read through the listed nodes.
    AsOne(N, Vec<N>),
    /// The form is read through the means that a node of the file makes, as a view.
    Mean(NodeId),
    /// The terms that were put aside are part of the sum again.
    Join,
    /// Kernels of neighbouring parts become one.
    Stack,
}

impl<N> FormStep<N> {
    /// Returns the nodes that the form is read through.
    pub fn entered(&self) -> impl Iterator<Item = &N> {
        let (node, others) = match self {
            FormStep::Through(node) => (Some(node), &[][..]),
            FormStep::AsOne(node, others) => (Some(node), others.as_slice()),
            FormStep::Select(_) | FormStep::Mean(_) | FormStep::Join | FormStep::Stack => {
                (None, &[][..])
            }
        };
        node.into_iter().chain(others)
    }
}

impl<L: Linear> Form<L> {
    /// Returns what the node computes from its operands; `None` if it is not linear. `lift`
    /// turns what the node was read as into a map.
    ///
    /// # Errors
    /// Returns the error of `lift`.
    pub fn of_node<E>(
        meanings: &Meanings,
        id: NodeId,
        identity: &L,
        lift: impl Fn(&LinearOp) -> Result<L, E>,
    ) -> Result<Option<Self>, E> {
        let terms = match meanings.get(id) {
            Some(Meaning::Linear(input, LinearOp::View(view))) => {
                vec![Term::view(meanings.source(*input), view.clone(), identity.clone())]
            }
            Some(Meaning::Linear(input, map)) => {
                vec![Term::new(meanings.source(*input), lift(map)?, kind_of(map))]
            }
            Some(Meaning::Sum(operands)) => {
                let summand = |SumOperand { sign, operand, map }: &SumOperand| {
                    let (map, kind) = match map {
                        Some(map) => (lift(map)?, kind_of(map)),
                        None => (identity.clone(), TermKind::Identity(Sign::Plus)),
                    };
                    Ok(Term::new(meanings.source(*operand), map, kind).signed(*sign))
                };
                operands.iter().map(summand).collect::<Result<_, E>>()?
            }
            Some(Meaning::Joined(operands)) => {
                let joined = |&(part, operand): &_| {
                    let kind = TermKind::Identity(Sign::Plus);
                    let term = Term::new(meanings.source(operand), identity.clone(), kind);
                    Term { part: Some(Box::new(part)), ..term }
                };
                operands.iter().map(joined).collect()
            }
            _ => return Ok(None),
        };
        Ok(Some(Form::of_terms(terms)))
    }

    /// Returns the means that the node makes of its operand, as a view; `None` if it makes
    /// none.
    pub fn of_means(meanings: &Meanings, id: NodeId, identity: L) -> Option<Self> {
        match meanings.get(id)? {
            Meaning::Linear(input, LinearOp::Filter { mean: Some(view), .. }) => {
                let term = Term::view(meanings.source(*input), view.clone(), identity);
                Some(Form::of_terms(vec![term]))
            }
            _ => None,
        }
    }

    /// Returns the sum of these terms, none of which merges with another.
    pub fn of_terms(terms: Vec<Term<L>>) -> Self {
        Form { terms, valid: Validity::default(), is_distributed: false, aside: 0 }
    }

    /// Puts all terms aside but the selected ones.
    pub fn select(&mut self, selected: &[usize]) {
        let terms = std::mem::take(&mut self.terms).into_iter().enumerate();
        let (chosen, mut aside): (Vec<_>, Vec<_>) =
            terms.partition(|(index, _)| selected.contains(index));
        self.aside = aside.len();
        aside.extend(chosen);
        self.terms = aside.into_iter().map(|(_, term)| term).collect();
    }

    /// Makes the terms that were put aside part of the sum again.
    ///
    /// # Errors
    /// Returns an error if terms cannot be merged although their shapes can; no such terms are
    /// known.
    pub fn join(&mut self, reader: &Reader) -> Result<(), Refusal> {
        let terms = self.terms.split_off(self.aside);
        self.aside = 0;
        self.add(terms, reader)
    }

    /// Makes one kernel of the kernels of neighbouring parts; returns whether there are any.
    pub fn stack(&mut self, reader: &Reader, meanings: &Meanings) -> bool {
        let grouped = |valid: &mut Validity| grouped(&self.terms, reader, meanings, valid);
        let mut valid = Validity::default();
        let stacked = stacked(&self.terms).or_else(|| Some(vec![grouped(&mut valid)?]));
        let Some(terms) = stacked else { return false };
        self.terms = terms;
        self.valid.intersect(&valid);
        true
    }

    /// Whether any terms are put aside.
    pub fn is_apart(&self) -> bool {
        self.aside > 0
    }

    /// Returns the terms that are not put aside.
    pub fn selected(&self) -> &[Term<L>] {
        self.terms.get(self.aside..).unwrap_or_default()
    }

    /// Reads the form through the tensor `at`, whose form is `inner`.
    ///
    /// # Errors
    /// Returns an error if a term that reads `at` does not compose with `inner`; the form is
    /// then as it was before.
    pub fn go_through(
        &mut self,
        at: ValueId,
        inner: Form<L>,
        reader: &Reader,
    ) -> Result<(), Refusal> {
        if !self.is_apart() {
            return self.read_through(at, inner, reader);
        }
        let selected = self.terms.split_off(self.aside);
        let aside = std::mem::replace(&mut self.terms, selected);
        let read = self.read_through(at, inner, reader);
        let selected = std::mem::replace(&mut self.terms, aside);
        self.terms.extend(selected);
        read
    }

    fn read_through(
        &mut self,
        at: ValueId,
        inner: Form<L>,
        reader: &Reader,
    ) -> Result<(), Refusal> {
        let mut reading = self.terms.iter().filter(|term| term.root == at);
        let alone = reading.next().filter(|_| reading.next().is_none());
        if let Some(sign) = alone.and_then(Term::plain_sign) {
            // Neither of the two sums has terms that merge; only a term of one may merge with
            // one of the other.
            self.valid.intersect(&inner.valid);
            self.terms.retain(|term| term.root != at);
            let mut others = inner.terms;
            if sign == Sign::Minus {
                others = others.into_iter().map(|term| term.signed(sign)).collect();
            }
            if others.len() >= self.terms.len() {
                std::mem::swap(&mut self.terms, &mut others);
            }
            return self.add(others, reader);
        }
        let (mut composed, mut is_distributed) = (Vec::new(), false);
        let mut crops = Validity::default();
        // Other terms may merge with the one kernel, however many weights it has.
        let is_alone = self.terms.len() == 1;
        for outer in self.terms.iter().filter(|term| term.root == at) {
            if let Some(terms) = shifted::sum(outer, &inner.terms, reader) {
                composed.extend(terms?);
                continue;
            }
            if let Some(terms) = of_parts(outer, &inner.terms) {
                composed.extend(terms?);
                continue;
            }
            let is_several = inner.terms.len() > 1;
            let is_sum = is_several && !outer.is_plain();
            if is_sum && !is_pointwise(outer) {
                return Err(Refusal::Ranks);
            }
            is_distributed |= is_sum;
            if is_sum && !Part::make_a_whole(inner.terms.iter().map(|term| term.part())) {
                return Err(Refusal::Ranks);
            }
            // The shift is added once per part, however many terms that part of the sum has.
            let bare =
                is_several.then(|| Term { map: outer.map.clone().unshifted(), ..outer.clone() });
            let mut shifted: BTreeSet<Option<Part>> = BTreeSet::new();
            for term in &inner.terms {
                let bare = bare.as_ref().filter(|_| !shifted.insert(term.part()));
                composed.push(match bare.unwrap_or(outer).of(term) {
                    Err(refusal) if !is_several => {
                        match kernel_behind(outer, term, reader, &mut crops) {
                            Err(why @ (Refusal::Vanishes | Refusal::Repeated)) => return Err(why),
                            behind => behind.map_err(|_| refusal)?,
                        }
                    }
                    // A matrix behind a grouped kernel, for example, has fewer weights apart
                    // from it than as one with it.
                    Ok(one) if is_alone && one.weights() > outer.weights() + term.weights() => {
                        kernel_behind(outer, term, reader, &mut crops).unwrap_or(one)
                    }
                    one => one?,
                });
            }
        }
        self.valid.intersect(&inner.valid);
        self.valid.intersect(&crops);
        self.is_distributed |= is_distributed;
        self.terms.retain(|term| term.root != at);
        self.add(composed, reader)
    }

    fn add(&mut self, terms: Vec<Term<L>>, reader: &Reader) -> Result<(), Refusal> {
        let mut terms = terms.into_iter();
        terms.try_for_each(|term| insert(&mut self.terms, term, reader, &mut self.valid))?;
        shifted::settle(&mut self.terms, reader, &mut self.valid);
        Ok(())
    }
}

impl Form<Geometry> {
    /// Whether the form can be written, as convolutions and what is added to them.
    pub fn is_written(&self) -> bool {
        if self.terms.iter().all(|term| term.kind != TermKind::Conv) {
            return false;
        }
        // A term that is subtracted needs another one to be subtracted from.
        let is_alone = |term: &Term<Geometry>| {
            let mut beside = self.terms.iter().filter(|other| other.part == term.part);
            term.part.is_some() && beside.all(|other| other.kind != TermKind::Conv)
        };
        let is_minus = |term: &&Term<Geometry>| term.kind == TermKind::Identity(Sign::Minus);
        // A kernel in front of another one may have become a scale, which has no bias.
        let are_kernels = |term: &Term<Geometry>| {
            let is_node = |kind| matches!(kind, TermKind::Conv | TermKind::Shifted(Sign::Plus));
            term.kernels().skip(1).all(|kernel| is_node(kernel.kind))
        };
        let have_ranks = |term: &Term<Geometry>| {
            term.kernels().all(|kernel| kernel.kind != TermKind::Conv || kernel.is_kernel())
        };
        self.terms
            .iter()
            .all(|term| term.kind.is_written() && are_kernels(term) && have_ranks(term))
            && Part::make_a_whole(self.terms.iter().map(|term| term.part()))
            && !self.terms.iter().filter(is_minus).any(is_alone)
            && (!self.is_distributed || are_of_one_rank(self.terms.iter()))
    }

    /// Returns how many numbers a shift of this form is as the bias of a kernel, if its
    /// operands have `of_operands` channels: behind a view, it becomes the bias of the kernel
    /// before the view.
    pub fn channels(&self, of_operands: Option<usize>) -> Option<usize> {
        let first = self.terms.first()?;
        let joined = first.part().filter(|part| part.axis == 1).map(|part| part.whole);
        let own = first.map.channels.map(|channels| channels.outputs);
        let is_kernel = first.kind == TermKind::Conv;
        joined.or(if is_kernel { own.or(of_operands) } else { of_operands.or(own) })
    }

    /// Returns the sizes for which the form is right.
    ///
    /// # Errors
    /// Returns an error if the form is wrong for sizes that are known, or needs one that is not
    /// known.
    pub fn validity(&self, reader: &Reader) -> Result<Validity, Reason> {
        let mut crops = Validity::default();
        self.terms.iter().try_for_each(|term| require_enough_to_crop(term, &mut crops))?;
        crops_hold(reader, &crops)?;
        must_hold(reader, &self.valid, |size, sizes| size.is_none_or(|size| sizes.contains(size)))?;
        crops.intersect(&self.valid);
        Ok(crops)
    }
}

/// Whether the term scales, shifts or turns its root, element by element. Other maps do not
/// distribute over a sum, since a summand may be broadcast.
fn is_pointwise<L: Linear>(term: &Term<L>) -> bool {
    term.kind != TermKind::Conv && !term.has_views() && term.map.geometry().is_pointwise()
}

/// Splits a kernel that reads tensors concatenated along its channels,
/// `K(a, b) = K₁(a) + K₂(b)`; returns `None` if it reads something else, or a part with several
/// summands, one of which may be broadcast. Concatenated tensors have the same sizes along all
/// other axes: if they are the even and the odd rows of one tensor, that tensor has an even
/// number of rows.
fn of_parts<L: Linear>(
    outer: &Term<L>,
    inner: &[Term<L>],
) -> Option<Result<Vec<Term<L>>, Refusal>> {
    let is_kernel =
        outer.kind == TermKind::Conv && outer.inner.is_none() && outer.before.is_empty();
    let parts: BTreeSet<Option<Part>> = inner.iter().map(Term::part).collect();
    let are_parts =
        inner.len() > 1 && parts.len() == inner.len() && Part::make_a_whole(parts.into_iter());
    (is_kernel && are_parts).then_some(())?;
    let windows = outer.map.geometry().windows.clone();
    let row = Arc::new(KernelOfRow { of: outer.root, windows });
    let parts = inner.iter().filter_map(|term| Some((term.part()?, term)));
    let shift = outer.map.shift_alone();
    // Views behind it are of each part's, and the shift counts once, in front of them.
    let terms = parts.enumerate().map(|(number, (part, term))| {
        let map = outer.map.of_part(&part)?;
        let map = if number == 0 { shift.after(&map)? } else { map };
        let in_row = outer.in_row.clone().or_else(|| Some(Arc::clone(&row)));
        Term { map, in_row, ..outer.clone() }.of(&Term { part: None, ..term.clone() })
    });
    Some(terms.collect())
}

/// Returns `outer` of `inner` as two kernels, if the sizes of the tensor between them are known
/// as far as crops need it; `crops` is narrowed to the sizes needed.
///
/// # Errors
/// Returns an error if the two do not make two kernels, or such a size is not known.
fn kernel_behind<L: Linear>(
    outer: &Term<L>,
    inner: &Term<L>,
    reader: &Reader,
    crops: &mut Validity,
) -> Result<Term<L>, Refusal> {
    let both = outer.behind(inner)?;
    let mut own = Validity::default();
    require_enough_to_crop(outer, &mut own)?;
    crops_hold(reader, &own).map_err(|_| Refusal::View)?;
    crops.intersect(&own);
    Ok(both)
}

/// Requires a tensor that a kernel crops and pads on the same axis to be large enough for the
/// crop.
///
/// # Errors
/// Returns an error if the sizes of such a tensor cannot be known.
fn require_enough_to_crop<L: Linear>(term: &Term<L>, valid: &mut Validity) -> Result<(), Refusal> {
    for kernel in term.kernels() {
        for (axis, least) in kernel.least_sizes()? {
            valid.require(kernel.root, Property::Size(axis, SizeSet::AtLeast(least)));
        }
    }
    Ok(())
}

/// Checks as [`must_hold`] does, but does not allow a size that is open: nothing in the report
/// would keep a caller from a size that is too small.
///
/// # Errors
/// As [`must_hold`].
fn crops_hold(reader: &Reader, crops: &Validity) -> Result<(), Reason> {
    must_hold(reader, crops, |size, sizes| size.is_some_and(|size| sizes.contains(size)))
}

/// Checks that all sizes that `valid` is about are right, by `is_right`, which also judges
/// those that are not known.
fn must_hold(
    reader: &Reader,
    valid: &Validity,
    is_right: fn(Option<i64>, &SizeSet) -> bool,
) -> Result<(), Reason> {
    for condition in valid.conditions() {
        let Some((size, sizes)) = reader.sizes.ruled_size(condition) else { continue };
        if !is_right(size, sizes) {
            return Err(Reason::OutOfRange(condition.describe(reader.graph)));
        }
    }
    Ok(())
}
