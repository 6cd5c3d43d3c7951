//! Where a tensor should be computed from: the search, by cuts and their gain.
//!
//! A *cut* of a tensor is a set of tensors from which it can be computed. Starting from the
//! operands, a cut is expanded, always at the tensor that comes last, so that a tensor that is
//! read twice is entered once. Each cut gives the tensor a *form*, the sum of terms over the
//! cut, in which terms of one root merge where that is legal and no dearer. The *gain* of a cut
//! is the cost of the cone that goes away, less the cost of the form. Expanded are the ways
//! from one term backwards, the ways from several terms to a tensor from which all of them are
//! computed (elsewhere nothing can merge), and those that pay only
//! [`together`](crate::plan::together).
//!
//! Knows the planner's graph, forms and costs; knows no weights, and changes nothing.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::affine::{Geometry, Part};
use crate::emit::term::Term;
use crate::onnx::ids::{IdMap, NodeId, ValueId};
use crate::plan::candidate::Candidate;
use crate::plan::cost::Gain;
use crate::plan::form::{Form, FormStep};
use crate::plan::net::Net;
use crate::plan::refused::Refused;
use crate::refusal::Reason;

/// Upper bound on the tensors that one way is followed over, besides one per term; real
/// branches have fewer than ten nodes.
pub(super) const MAX_WAY: usize = 24;

/// Upper bound on the summands of one form; real blocks have some dozens. Each sum of a long
/// chain holds the summands of all sums before it.
const MAX_TERMS: usize = 64;

/// Upper bound on the nodes that a form computes again although others need their results. Each
/// sum of a chain may be needed, and may reach back over all sums before it.
pub const MAX_REPEATED: usize = 64;

/// Upper bound on the terms of one root that are tried pair by pair if all together do not pay.
const MAX_PAIRED: usize = 8;

/// Upper bound on the terms that are looked at, over all cuts of one tensor; for real blocks
/// they are some hundred.
const MAX_LOOKED_AT: usize = 4096;

const TOO_MANY_CUTS: Reason = Reason::Limit("no more than 4096 terms are looked at for one tensor");

const TOO_DEEP: Reason = Reason::Limit("at most 24 operations in a row are followed");

const TOO_MANY_TERMS: Reason = Reason::Limit("sums of more than 64 terms are not entered");

const TOO_OFTEN: Reason =
    Reason::Limit("no more than 64 nodes are computed again whose results others need too");

/// The limits that were met at each tensor.
pub type MetLimits = IdMap<ValueId, Vec<Reason>>;

/// Why a form is left out, whatever it would gain.
#[derive(Debug, Clone, Copy)]
enum LeftOut {
    /// The form cannot be written, or a check has refused it.
    Unwritten,
    /// The form computes this many nodes although others need their results.
    Repeats(usize),
}

/// The search at one tensor.
pub struct Search<'s, 'r, 'g, 'm> {
    pub(super) net: &'s Net<'r, 'g, 'm>,
    id: NodeId,
    output: ValueId,
    pub(super) refused: &'s Refused,
    most_repeated: usize,
    looked_at: usize,
    /// The ancestors of each tensor, as they were found.
    ancestors: IdMap<ValueId, Rc<[ValueId]>>,
    /// Whether a form was left out because it computes too many nodes that others need, too.
    is_bounded: bool,
    /// The limits that were met.
    pub met: Vec<Reason>,
}

impl<'s, 'r, 'g, 'm> Search<'s, 'r, 'g, 'm> {
    /// Returns a search for a better form of `output`, which node `id` makes: no form that is
    /// `refused`, and none that computes more than `most_repeated` nodes of the file although
    /// others need their results.
    pub fn at(
        net: &'s Net<'r, 'g, 'm>,
        (id, output): (NodeId, ValueId),
        refused: &'s Refused,
        most_repeated: usize,
    ) -> Self {
        Search {
            net,
            id,
            output,
            refused,
            most_repeated,
            looked_at: 0,
            ancestors: IdMap::default(),
            is_bounded: false,
            met: Vec::new(),
        }
    }

    /// Returns the best form that is found, if it is better than the present one.
    pub fn better_form(&mut self) -> Option<Candidate> {
        let mut roots = self.net.terms(self.id).iter().map(|term| term.root);
        if !self.computes_kernel() && roots.all(|root| self.net.former(root).is_none()) {
            return None;
        }
        let mut best = self.flattened()?;
        let better = |search: &mut Self, best: &Candidate| {
            let better = search.further(best).or_else(|| search.merged(best));
            let better = better.or_else(|| search.averaged(best)).or_else(|| search.shifted(best));
            let better = better.or_else(|| search.turned(best)).or_else(|| search.stacked(best));
            better.or_else(|| search.summed(best))
        };
        while let Some(better) = better(self, &best) {
            best = better;
        }
        if self.looked_at > MAX_LOOKED_AT {
            self.meet(TOO_MANY_CUTS);
        }
        best.gain.pays_beyond(&Gain::default()).then_some(best)
    }

    /// Whether there may be better forms that compute more nodes although others need their
    /// results.
    pub fn is_bounded(&self) -> bool {
        self.is_bounded
    }

    /// Whether nodes compute the kernel of this node: it may be stored instead.
    fn computes_kernel(&self) -> bool {
        self.net.computed_kernel(self.id).is_some()
    }

    /// Returns the present form, with stored weights, and with the sums inside it that nobody
    /// else needs entered.
    fn flattened(&mut self) -> Option<Candidate> {
        let mut flat = Candidate::at(self.net, self.id)?;
        if flat.form.terms.len() < 2 && !self.computes_kernel() {
            return Some(flat);
        }
        let nested_sum = |terms: &[Term<Geometry>]| {
            terms.iter().find_map(|term| {
                let id = self.net.former(term.root).filter(|_| term.is_plain())?;
                let inner = self.net.terms(id);
                let is_sum = inner.len() > 1 && inner.iter().all(|term| term.part.is_none());
                let is_free = self.net.reads(term.root) == 1 && self.refused.allows(term.root);
                (is_sum && is_free && is_added(term, terms)).then_some(id)
            })
        };
        while let Some(id) = nested_sum(&flat.form.terms) {
            if flat.form.terms.len() + self.net.terms(id).len() > MAX_TERMS {
                self.meet(TOO_MANY_TERMS);
                break;
            }
            if !flat.expand(self.net, id) {
                break;
            }
        }
        let gain = self.worth(&flat).filter(|gain| gain.pays_beyond(&flat.gain));
        Some(Candidate { gain: gain.unwrap_or(flat.gain), ..flat })
    }

    /// Returns a better form than `best` in which one of its roots is read further back.
    pub(super) fn further(&mut self, best: &Candidate) -> Option<Candidate> {
        let terms = &best.form.terms;
        let mut reading: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
        for (index, term) in terms.iter().enumerate() {
            reading.entry(term.root).or_default().push(index);
        }
        // Read twice, as in x + x, a tensor may merge with itself.
        let is_tried = |selected: &Vec<usize>| {
            let maps = || selected.iter().filter_map(|&index| terms.get(index));
            terms.len() == 1 || selected.len() > 1 || maps().any(|term| !term.is_plain())
        };
        let mut selections = reading.into_values().filter(is_tried);
        selections.find_map(|selected| self.expanded(best, &selected, None))
    }

    /// Returns a better form than `best` in which terms merge that are computed from one
    /// tensor; the nearest such tensors are tried first.
    pub(super) fn merged(&mut self, best: &Candidate) -> Option<Candidate> {
        if best.form.terms.len() < 2 {
            return None;
        }
        let graph = self.net.reader.graph;
        let mut common: BTreeMap<(ValueId, Option<Part>), Vec<usize>> = BTreeMap::new();
        for (index, term) in best.form.terms.iter().enumerate() {
            for &ancestor in self.ancestors(term.root).iter() {
                common.entry((ancestor, term.part())).or_default().push(index);
            }
        }
        common.retain(|_, terms| terms.len() > 1);
        let mut common: Vec<_> = common.into_iter().collect();
        common.sort_by_key(|((ancestor, _), _)| {
            Reverse((graph.value(*ancestor).producer, *ancestor))
        });
        for ((ancestor, _), terms) in &common {
            if let Some(better) = self.expanded(best, terms, Some(*ancestor)) {
                return Some(better);
            }
            let some = terms.get(..MAX_PAIRED).unwrap_or(terms);
            for (at, &one) in some.iter().enumerate().filter(|_| terms.len() > 2) {
                for &other in some.iter().take(at) {
                    let pair = self.expanded(best, &[other, one], Some(*ancestor));
                    if pair.is_some() {
                        return pair;
                    }
                }
            }
        }
        None
    }

    /// Returns the best form on the way from `start` back from the roots of the `selected`
    /// terms, all of the way or as far as `ancestor`; `None` if no form is better than `start`.
    fn expanded(
        &mut self,
        start: &Candidate,
        selected: &[usize],
        ancestor: Option<ValueId>,
    ) -> Option<Candidate> {
        if !self.may_look_at(start) {
            self.meet(TOO_MANY_CUTS);
            return None;
        }
        let terms = selected.iter().filter_map(|&index| start.form.terms.get(index));
        let mut open: BTreeSet<NodeId> =
            terms.filter_map(|term| self.entered_at(term.root, ancestor)).collect();
        if open.is_empty() {
            return None;
        }
        let (mut way, mut best) = (start.clone(), None::<Candidate>);
        if selected.len() < start.form.terms.len() {
            way.select(selected);
        }
        // The saving of one term is not spent on another.
        let reference = if start.form.terms.len() > 1 { start.gain } else { Gain::default() };
        let mut left = MAX_WAY + start.form.terms.len();
        let mut repeated: Vec<NodeId> = Vec::new();
        loop {
            let next = self.next(&way.form, &open);
            let again = || self.repeated(&way.form, &repeated);
            let Some(id) = next.or_else(again) else { break };
            repeated.extend(next.is_none().then_some(id));
            open.remove(&id);
            if way.form.terms.len() > MAX_TERMS.max(start.form.terms.len()) {
                self.meet(TOO_MANY_TERMS);
                break;
            }
            if left == 0 {
                // What others need, too, would be computed again all along such a row: the
                // residual sums of a network are one, and nobody expects a block there.
                let mffc = self.net.mffc(self.id, &way.form.terms);
                if self.again(&way, &mffc.nodes) == 0 {
                    self.meet(TOO_DEEP);
                }
                break;
            }
            if !self.may_look_at(&way) {
                self.meet(TOO_MANY_CUTS);
                break;
            }
            if !way.expand(self.net, id) {
                continue;
            }
            left = left.saturating_sub(1);
            let further = self.net.terms(id).iter();
            open.extend(further.filter_map(|term| self.entered_at(term.root, ancestor)));
            let joined = if way.form.is_apart() { way.joined(self.net) } else { None };
            let candidate = joined.as_ref().unwrap_or(&way);
            let Some(gain) = self.worth(candidate) else { continue };
            let most = best.as_ref().map_or(&start.gain, |best| &best.gain);
            if gain.pays_beyond(&reference) && gain.is_more_than(most) {
                best = Some(Candidate { gain, ..candidate.clone() });
            }
        }
        best
    }

    /// Returns the node of `value`, if readers of `value` may be read through it, on the way to
    /// `ancestor`.
    fn entered_at(&mut self, value: ValueId, ancestor: Option<ValueId>) -> Option<NodeId> {
        let id = self.net.former(value).filter(|_| self.refused.allows(value))?;
        let leads = |search: &mut Self| match ancestor {
            None => true,
            Some(ancestor) => ancestor != value && search.leads_to(id, ancestor),
        };
        (self.is_passed(id) && leads(self)).then_some(id)
    }

    /// Whether what reads the tensor of node `id` could be read through it: through a Concat
    /// only if nobody else needs what it joins, since that would be computed twice to save one
    /// node. Nobody else needs what is written for one part alone.
    fn is_passed(&self, id: NodeId) -> bool {
        let terms = self.net.terms(id);
        let is_free = |term: &Term<Geometry>| {
            !term.is_plain()
                || (self.net.former(term.root).is_some() && self.net.reads(term.root) == 1)
                || is_added(term, terms)
        };
        terms.iter().filter(|term| term.part.is_some()).all(is_free)
    }

    /// Counts the terms of the candidate as looked at; returns whether they are still within
    /// the limit.
    pub(super) fn may_look_at(&mut self, candidate: &Candidate) -> bool {
        self.looked_at = self.looked_at.saturating_add(candidate.form.terms.len());
        self.looked_at <= MAX_LOOKED_AT
    }

    /// Returns the node among `open` through which the form is to be read next: the last one
    /// whose tensor is read by a term that cannot be written, else the last one.
    fn next(&self, form: &Form<Geometry>, open: &BTreeSet<NodeId>) -> Option<NodeId> {
        let unwritten = form.selected().iter().filter(|term| !term.kind.is_written());
        let ids = unwritten.filter_map(|term| self.net.former(term.root));
        ids.filter(|id| open.contains(id)).max().or_else(|| open.last().copied())
    }

    /// Returns the node of a root that several terms of the form read, or that a term reads
    /// which cannot be written: what the root is made of may merge with itself. In
    /// `2(x + k) + k`, `k` is read through, too. Nodes that were `tried` are left out.
    fn repeated(&self, form: &Form<Geometry>, tried: &[NodeId]) -> Option<NodeId> {
        let terms = form.selected();
        let is_repeated = |(at, term): &(usize, &Term<Geometry>)| {
            let mut before = terms.iter().take(*at);
            !term.kind.is_written() || before.any(|other| other.root == term.root)
        };
        let repeated = terms.iter().enumerate().filter(is_repeated).map(|(_, term)| term.root);
        let allowed = repeated.filter(|&root| self.refused.allows(root));
        let mut formers = allowed.filter_map(|root| self.net.former(root));
        formers.find(|id| !tried.contains(id) && self.is_passed(*id))
    }

    /// Returns the candidate with its gain, if that pays beyond `least`.
    pub(super) fn if_it_pays(&mut self, candidate: Candidate, least: &Gain) -> Option<Candidate> {
        let gain = self.worth(&candidate).filter(|gain| gain.pays_beyond(least))?;
        Some(Candidate { gain, ..candidate })
    }

    /// Returns the gain of the candidate; `None` if it is left out. If a limit is the reason,
    /// that is noted.
    fn worth(&mut self, candidate: &Candidate) -> Option<Gain> {
        let left_out = match self.counted_gain(candidate) {
            Ok(gain) => return Some(gain),
            Err(left_out) => left_out,
        };
        if let LeftOut::Repeats(nodes) = left_out {
            self.is_bounded = true;
            if nodes > MAX_REPEATED {
                self.meet(TOO_OFTEN);
            }
        }
        None
    }

    fn counted_gain(&self, candidate: &Candidate) -> Result<Gain, LeftOut> {
        let terms = &candidate.form.terms;
        if !candidate.is_legal(self.net) || !self.refused.allows_form(self.output, terms) {
            return Err(LeftOut::Unwritten);
        }
        let mffc = self.net.mffc(self.id, terms);
        let repeated = self.again(candidate, &mffc.nodes);
        if repeated > self.most_repeated {
            return Err(LeftOut::Repeats(repeated));
        }
        Ok(Gain { before: mffc.count, after: self.net.cost(terms) })
    }

    /// Notes that a limit was met.
    fn meet(&mut self, limit: Reason) {
        if !self.met.contains(&limit) {
            self.met.push(limit);
        }
    }

    /// Returns how many nodes the candidate computes although they are not among the nodes that
    /// `go` away.
    fn again(&self, candidate: &Candidate, go: &[NodeId]) -> usize {
        let mean = |step: &FormStep<NodeId>| match step {
            FormStep::Mean(id) => Some(*id),
            _ => None,
        };
        let steps = candidate.steps.iter();
        let entered = steps.flat_map(|step| step.entered().copied().chain(mean(step)));
        entered.filter(|id| !go.contains(id)).map(|id| self.net.size(id)).sum()
    }

    /// Returns `value` and the nearest tensors that it is computed from.
    fn ancestors(&mut self, value: ValueId) -> Rc<[ValueId]> {
        let known = self.ancestors.get(&value).cloned();
        known.unwrap_or_else(|| {
            let found: Rc<[ValueId]> = self.found_ancestors(value).into();
            self.ancestors.insert(value, Rc::clone(&found));
            found
        })
    }

    fn found_ancestors(&self, value: ValueId) -> Vec<ValueId> {
        let mut found = vec![value];
        let mut open: BTreeSet<NodeId> = self.net.former(value).into_iter().collect();
        while let Some(id) = open.pop_last().filter(|_| found.len() <= MAX_WAY) {
            for term in self.net.terms(id) {
                if !found.contains(&term.root) {
                    found.push(term.root);
                    open.extend(self.net.former(term.root));
                }
            }
        }
        found
    }

    /// Whether what node `id` makes is computed from `ancestor`.
    fn leads_to(&mut self, id: NodeId, ancestor: ValueId) -> bool {
        let mut terms = self.net.terms(id).iter();
        terms.any(|term| self.ancestors(term.root).contains(&ancestor))
    }
}

/// Whether others of these `terms` are added to `term`, so that their sum belongs to nobody else.
fn is_added(term: &Term<Geometry>, terms: &[Term<Geometry>]) -> bool {
    let mut of_part = terms.iter().filter(|other| other.part == term.part);
    terms.len() <= MAX_TERMS && of_part.nth(1).is_some()
}
