//! Forms that pay only if several steps are taken together: all terms are read before they are
//! turned, a shift moves into a kernel, means become views, joined kernels become one, or a sum
//! becomes one kernel. One such step, or one term alone, gains nothing.
//!
//! Knows the planner's graph, forms and costs, as the search does.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use std::collections::BTreeSet;

use crate::affine::Geometry;
use crate::emit::term::{Term, TermKind};
use crate::onnx::ids::{NodeId, ValueId};
use crate::plan::candidate::Candidate;
use crate::plan::cost;
use crate::plan::cuts::{MAX_WAY, Search};

impl Search<'_, '_, '_, '_> {
    /// Returns a better form than `best` in which each term is read before its axes are
    /// permuted, so that only the sum is turned: for one summand alone, nothing is gained.
    pub fn turned(&mut self, best: &Candidate) -> Option<Candidate> {
        let ends_turned = |term: &Term<Geometry>| {
            let terms = self.inside(term).map(|id| self.net.terms(id));
            let mut terms = terms.unwrap_or(std::slice::from_ref(term)).iter();
            terms.all(|term| term.map.turns().is_some())
        };
        if best.form.terms.len() < 2 || !best.form.terms.iter().all(ends_turned) {
            return None;
        }
        let way = self.entered(best, Self::inside)?;
        self.if_it_pays(way, &best.gain)
    }

    /// Returns a better form than `best` in which the shift of one summand is in the kernel of
    /// another, `(x + b) + K(z) = x + (K(z) + b)`.
    pub fn shifted(&mut self, best: &Candidate) -> Option<Candidate> {
        let shift = |search: &Self, term: &Term<Geometry>| {
            let id = search.inside(term).filter(|_| term.is_plain())?;
            let [own] = search.net.terms(id) else { return None };
            (matches!(own.kind, TermKind::Shifted(_)) && !own.has_views()).then_some(id)
        };
        let has_shift = best.form.terms.iter().any(|term| shift(self, term).is_some());
        if best.form.terms.len() < 2 || !has_shift {
            return None;
        }
        let way = self.entered(best, shift)?;
        if let Some(better) = self.if_it_pays(way.clone(), &best.gain) {
            return Some(better);
        }
        for term in &way.form.terms {
            let Some(id) = self.kernel_inside(term) else { continue };
            let mut taken = way.clone();
            if taken.expand(self.net, id)
                && let Some(better) = self.if_it_pays(taken, &best.gain)
            {
                return Some(better);
            }
        }
        None
    }

    /// Returns a better form than `best` in which means are views: a scale or shift behind a
    /// mean goes into the kernel in front of it, or the other way round, and branches are added
    /// before it. As parts of kernels, the means would make these larger.
    pub fn averaged(&mut self, best: &Candidate) -> Option<Candidate> {
        let mean = |term: &Term<Geometry>| {
            let id = self.net.former(term.root).filter(|_| self.refused.allows(term.root))?;
            self.net.makes_means(id).then_some(id)
        };
        let means: BTreeSet<NodeId> = best.form.terms.iter().filter_map(mean).collect();
        let mut way = Some(best).filter(|_| !means.is_empty())?.clone();
        means.into_iter().all(|id| way.average(self.net, id)).then_some(())?;
        self.further(&way).or_else(|| self.merged(&way))
    }

    /// Returns a better form than `best` in which kernels that a Concat joins are one kernel:
    /// merging one of them alone gains nothing.
    pub fn stacked(&mut self, best: &Candidate) -> Option<Candidate> {
        let are_parts = best.form.terms.iter().all(|term| term.part.is_some());
        // Which branch of a kernel should stay apart cannot be seen once the kernel is one of
        // several.
        if best.form.terms.len() < 2 || !are_parts || self.net.keeps_branches {
            return None;
        }
        let joined = self.entered(best, Self::kernel_inside)?;
        // Kernels that read parts of a tensor with its channels last turn each part.
        let turned = self.entered(&joined, Self::turned_root);
        let mut ways = [Some(joined), turned].into_iter().flatten();
        let stacked = ways.find_map(|way| way.stacked(self.net))?;
        if let [one] = stacked.form.terms.as_slice()
            && !cost::runs_as_fast(&one.map)
        {
            return None;
        }
        self.if_it_pays(stacked, &best.gain)
    }

    /// Returns a better form than `best` in which a kernel does not read a sum, but is composed
    /// with the one kernel that the sum becomes on what its summands are computed from. By itself,
    /// that kernel may take as many nodes as the sum. *Example*: a product along an axis between
    /// others, which is written between two Transposes.
    pub fn summed(&mut self, best: &Candidate) -> Option<Candidate> {
        let kernels = best.form.terms.iter().filter(|term| term.kind == TermKind::Conv);
        let mut roots: Vec<ValueId> = kernels.map(|term| term.root).collect();
        roots.sort_unstable();
        roots.dedup();
        for root in roots {
            let former = self.net.former(root).filter(|_| self.refused.allows(root));
            let Some((id, through)) = former.and_then(|id| Some((id, self.way_to_one_term(id)?)))
            else {
                continue;
            };
            let mut way = best.clone();
            if !way.expand_as_one(self.net, id, through) {
                continue;
            }
            let better = self.if_it_pays(way.clone(), &best.gain);
            if let Some(better) = better.or_else(|| self.further(&way)) {
                return Some(better);
            }
        }
        None
    }

    /// Returns the nodes through which the sum of node `id` is read until it is one term, the
    /// last node of the graph first; `None` if it does not become one, or a limit is met.
    fn way_to_one_term(&mut self, id: NodeId) -> Option<Vec<NodeId>> {
        let terms = self.net.terms(id);
        if terms.len() < 2 || terms.iter().any(|term| term.part.is_some()) {
            return None;
        }
        let mut sum = Candidate::at(self.net, id)?;
        let mut through = Vec::new();
        while sum.form.terms.len() > 1 {
            let terms = sum.form.terms.iter().filter(|term| self.refused.allows(term.root));
            let last = terms.filter_map(|term| self.net.former(term.root)).max()?;
            if through.len() == MAX_WAY || !self.may_look_at(&sum) || !sum.expand(self.net, last) {
                return None;
            }
            through.push(last);
        }
        Some(through)
    }

    /// Returns the node that makes the root of `term`; `None` if `term` is a kernel, something
    /// else reads that root, or it has to stay as it is.
    fn inside(&self, term: &Term<Geometry>) -> Option<NodeId> {
        let former = self.net.former(term.root).filter(|_| term.kind != TermKind::Conv);
        former.filter(|_| self.net.reads(term.root) == 1 && self.refused.allows(term.root))
    }

    /// As [`Self::inside`], but `None` unless that node [is a kernel](Self::is_kernel).
    fn kernel_inside(&self, term: &Term<Geometry>) -> Option<NodeId> {
        self.inside(term).filter(|&id| self.is_kernel(id))
    }

    /// Returns the node that makes the root of `term`, if it is a Transpose that nothing else
    /// reads.
    fn turned_root(&self, term: &Term<Geometry>) -> Option<NodeId> {
        let former = self.net.former(term.root).filter(|_| self.net.reads(term.root) == 1)?;
        let [own] = self.net.terms(former) else { return None };
        let only_turns = own.kind == TermKind::Pointwise && own.map.turns().is_some();
        let is_bare = own.map.windows.is_empty() && own.map.channels.is_none();
        (only_turns && is_bare && self.refused.allows(term.root)).then_some(former)
    }

    /// Whether all terms of node `id` are kernels, or those of a node before it, which it reads
    /// through single terms and which nothing else reads.
    fn is_kernel(&self, id: NodeId) -> bool {
        let mut terms = self.net.terms(id);
        for _ in 0..MAX_WAY {
            let [term] = terms else { break };
            let Some(id) = self.inside(term) else { break };
            terms = self.net.terms(id);
        }
        terms.iter().all(|term| term.kind == TermKind::Conv)
    }

    /// Returns the form in which each term for which `enters` returns a node is read through
    /// that node; `None` if one cannot be, or a limit is met.
    fn entered(
        &mut self,
        best: &Candidate,
        enters: impl Fn(&Self, &Term<Geometry>) -> Option<NodeId>,
    ) -> Option<Candidate> {
        let mut way = best.clone();
        for _ in 0..MAX_WAY + best.form.terms.len() {
            let Some(id) = way.form.terms.iter().find_map(|term| enters(self, term)) else {
                break;
            };
            if !self.may_look_at(&way) || !way.expand(self.net, id) {
                return None;
            }
        }
        Some(way)
    }
}
