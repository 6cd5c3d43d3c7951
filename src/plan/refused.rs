//! What the plan does without: forms that were planned and refused, and blocks that the caller
//! wants as they are.
//!
//! Knows tensors, the roots of their forms, and reasons; not how these are found.

use std::collections::BTreeSet;

use crate::affine::Geometry;
use crate::emit::term::Term;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, IdSet, NodeId, ValueId};
use crate::plan::region::Region;
use crate::refusal::{NearMiss, Reason, Subject};

/// How often a graph is planned anew because a form of it was refused, before more than that
/// form is left alone; in real models these nest a few deep.
const MAX_RETRIES: usize = 8;

const TOO_MANY_RETRIES: Reason = Reason::Limit(
    "inside blocks that are left alone, smaller ones are searched for 8 times, and after that fewer \
     each time",
);

/// Nodes inside of what a check refused, and its reason; `None` if that is told of the whole.
pub type CheckedNodes = IdMap<NodeId, Option<Reason>>;

/// A block that was planned and is not proved.
#[derive(Debug, Clone)]
pub struct UnprovedBlock {
    /// Where.
    pub region: Region,
    /// What it was called.
    pub name: String,
    /// Why.
    pub reason: Reason,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Refused {
    /// Tensors that stay as they are.
    tensors: IdSet<ValueId>,
    /// By what they make, the roots of forms.
    forms: IdMap<ValueId, Vec<BTreeSet<ValueId>>>,
    near_misses: Vec<(ValueId, NearMiss)>,
    /// All nodes of regions that were refused, with what the first of these makes, and the
    /// reason.
    inside: IdMap<NodeId, (ValueId, Reason)>,
    /// How often that led to another search.
    retries: usize,
    /// Whether something was refused since.
    is_new: bool,
    /// Whether not all smaller regions were looked for.
    is_limited: bool,
}

impl Refused {
    /// The blocks that are not proved are not planned again.
    pub fn of(unproved: &[UnprovedBlock]) -> Self {
        let mut refused = Refused::default();
        for UnprovedBlock { region, name, reason } in unproved {
            refused.note(region, name, reason);
        }
        refused
    }

    /// Whether `tensor` may be computed otherwise.
    pub fn allows(&self, tensor: ValueId) -> bool {
        !self.tensors.contains(&tensor)
    }

    /// Whether `tensor` may be computed as the sum of these `terms`.
    pub fn allows_form(&self, tensor: ValueId, terms: &[Term<Geometry>]) -> bool {
        let Some(refused) = self.forms.get(&tensor) else { return true };
        let roots: BTreeSet<ValueId> = terms.iter().map(|term| term.root).collect();
        !refused.contains(&roots)
    }

    /// The caller wants the block called `name` as it is, and no part of it touched either.
    pub fn skip(&mut self, graph: &Graph, region: &Region, name: String) {
        self.is_new = true;
        self.tensors.extend(made_in(graph, region));
        let (subject, reason) = (Subject::Block, Reason::Skipped);
        let near_miss = NearMiss { subject, node: name, reason };
        self.near_misses.push((region.output, near_miss));
    }

    /// The region does not become a block; others of its output may, and smaller ones inside
    /// it: fewer of them, if that was tried too often.
    pub fn refuse(&mut self, graph: &Graph, region: &Region, reason: Reason) {
        self.is_new = true;
        // Of a long row, one after the other would be refused: twice as many each time.
        if let Some(more) = self.retries.checked_sub(MAX_RETRIES) {
            let last = 1 << more.min(usize::BITS as usize / 2);
            self.tensors.extend(made_in(graph, region).rev().take(last));
            self.is_limited = true;
        }
        let last = region.nodes.last().map_or("", |&last| graph.node(last).label());
        self.note(region, last, &reason);
    }

    /// The region, which is called so, does not become a block.
    fn note(&mut self, region: &Region, name: &str, reason: &Reason) {
        self.forms.entry(region.output).or_default().push(region.cuts.clone());
        // Of a region and the smaller ones inside it, the whole is the news.
        if region.nodes.last().is_some_and(|node| !self.inside.contains_key(node)) {
            let (subject, node, reason) = (Subject::Block, name.to_owned(), reason.clone());
            self.near_misses.push((region.output, NearMiss { subject, node, reason }));
        }
        for &node in &region.nodes {
            self.inside.entry(node).or_insert_with(|| (region.output, reason.clone()));
        }
    }

    /// Begins another search, if something was refused in the last one; whether that is so.
    pub fn retry(&mut self) -> bool {
        self.retries = self.retries.saturating_add(1);
        std::mem::take(&mut self.is_new)
    }

    /// What is inside of what was refused. Of a whole that became part of a block after all,
    /// nothing is told: what that block leaves alone has the reason.
    pub fn checked(&self, is_made: impl Fn(ValueId) -> bool) -> CheckedNodes {
        let inside = self.inside.iter();
        let told =
            inside.map(|(&node, (whole, reason))| (node, is_made(*whole).then(|| reason.clone())));
        told.collect()
    }

    /// Why what was refused is left alone, but for what became part of a block after all.
    pub fn near_misses(self, is_made: impl Fn(ValueId) -> bool) -> Vec<NearMiss> {
        let refused = self.near_misses.into_iter().filter(|&(output, _)| !is_made(output));
        let mut near_misses: Vec<NearMiss> = refused.map(|(_, near_miss)| near_miss).collect();
        let last = near_misses.last().filter(|_| self.is_limited);
        let limit = last.map(|last| NearMiss { reason: TOO_MANY_RETRIES, ..last.clone() });
        near_misses.extend(limit);
        near_misses
    }

    /// Whether it is told already why `tensor` is as it is.
    pub fn concerns(&self, tensor: ValueId) -> bool {
        self.tensors.contains(&tensor) || self.forms.contains_key(&tensor)
    }
}

fn made_in(graph: &Graph, region: &Region) -> impl DoubleEndedIterator<Item = ValueId> {
    region.nodes.iter().filter_map(|&id| graph.node(id).output())
}
