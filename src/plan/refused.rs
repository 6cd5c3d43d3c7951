//! Forms that were planned and refused, and blocks that the caller wants left as they are: the
//! plan does without them.
//!
//! Knows tensors, the roots of their forms, and reasons; does not know how these are found.

use std::collections::BTreeSet;

use crate::affine::Geometry;
use crate::emit::term::Term;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, IdSet, NodeId, ValueId};
use crate::plan::region::Region;
use crate::refusal::{NearMiss, Reason, Subject};

/// Upper bound on how often a graph is planned anew because one of its forms was refused,
/// before more than that form is left alone; in real models, refused forms nest a few deep.
const MAX_RETRIES: usize = 8;

const TOO_MANY_RETRIES: Reason = Reason::Limit(
    "inside blocks that are left alone, smaller ones are searched for 8 times, and after that fewer \
     each time",
);

/// The nodes inside refused regions, each with the reason; `None` if the reason is reported for
/// the whole region.
pub type CheckedNodes = IdMap<NodeId, Option<Reason>>;

/// A planned block that could not be proved.
#[derive(Debug, Clone)]
pub struct UnprovedBlock {
    /// The region of the block.
    pub region: Region,
    /// The name of the block.
    pub name: String,
    /// Why the block could not be proved.
    pub reason: Reason,
}

/// The refused forms and skipped blocks; see the module's documentation.
#[derive(Debug, Default)]
pub struct Refused {
    /// Tensors that stay as they are.
    tensors: IdSet<ValueId>,
    /// For each tensor, the roots of its refused forms.
    forms: IdMap<ValueId, Vec<BTreeSet<ValueId>>>,
    near_misses: Vec<(ValueId, NearMiss)>,
    /// All nodes of regions that were refused, each with the output of the first such region,
    /// and the reason.
    inside: IdMap<NodeId, (ValueId, Reason)>,
    /// How often a refusal led to another search.
    retries: usize,
    /// Whether something was refused since the last search began.
    is_new: bool,
    /// Whether some smaller regions were not looked for.
    is_limited: bool,
}

impl Refused {
    /// Refuses the `unproved` blocks, so that they are not planned again.
    pub fn of(unproved: &[UnprovedBlock]) -> Self {
        let mut refused = Refused::default();
        for UnprovedBlock { region, name, reason } in unproved {
            refused.note(region, name, reason);
        }
        refused
    }

    /// Whether `tensor` may be computed in another way than in the file.
    pub fn allows(&self, tensor: ValueId) -> bool {
        !self.tensors.contains(&tensor)
    }

    /// Whether `tensor` may be computed as the sum of these `terms`.
    pub fn allows_form(&self, tensor: ValueId, terms: &[Term<Geometry>]) -> bool {
        let Some(refused) = self.forms.get(&tensor) else { return true };
        let roots: BTreeSet<ValueId> = terms.iter().map(|term| term.root).collect();
        !refused.contains(&roots)
    }

    /// Leaves the block called `name` as it is, as the caller wants it, and touches no part of
    /// it either.
    pub fn skip(&mut self, graph: &Graph, region: &Region, name: String) {
        self.is_new = true;
        self.tensors.extend(made_in(graph, region));
        let (subject, reason) = (Subject::Block, Reason::Skipped);
        let near_miss = NearMiss { subject, node: name, reason };
        self.near_misses.push((region.output, near_miss));
    }

    /// Refuses the region as a block. Other regions with its output may still become blocks, and
    /// so may smaller ones inside it; after `MAX_RETRIES` searches, ever fewer of these.
    pub fn refuse(&mut self, graph: &Graph, region: &Region, reason: Reason) {
        self.is_new = true;
        // In a long chain of nodes, one region after the other would be refused, so twice as
        // many tensors are left alone each time.
        if let Some(more) = self.retries.checked_sub(MAX_RETRIES) {
            let last = 1 << more.min(usize::BITS as usize / 2);
            self.tensors.extend(made_in(graph, region).rev().take(last));
            self.is_limited = true;
        }
        let last = region.nodes.last().map_or("", |&last| graph.node(last).label());
        self.note(region, last, &reason);
    }

    /// Registers that the region, reported under `name`, does not become a block.
    fn note(&mut self, region: &Region, name: &str, reason: &Reason) {
        self.forms.entry(region.output).or_default().push(region.cuts.clone());
        // Of a region and the smaller ones inside it, only the whole is reported.
        if region.nodes.last().is_some_and(|node| !self.inside.contains_key(node)) {
            let (subject, node, reason) = (Subject::Block, name.to_owned(), reason.clone());
            self.near_misses.push((region.output, NearMiss { subject, node, reason }));
        }
        for &node in &region.nodes {
            self.inside.entry(node).or_insert_with(|| (region.output, reason.clone()));
        }
    }

    /// Begins another search if something was refused in the last one; returns whether that is
    /// so.
    pub fn retry(&mut self) -> bool {
        self.retries = self.retries.saturating_add(1);
        std::mem::take(&mut self.is_new)
    }

    /// Returns the nodes inside refused regions. A region that became part of a block after all
    /// is not reported as a whole; its nodes have the reason then, for what that block leaves
    /// alone.
    pub fn checked(&self, is_made: impl Fn(ValueId) -> bool) -> CheckedNodes {
        let inside = self.inside.iter();
        let told =
            inside.map(|(&node, (whole, reason))| (node, is_made(*whole).then(|| reason.clone())));
        told.collect()
    }

    /// Returns why refused regions are left alone, except for those that became part of a block
    /// after all.
    pub fn near_misses(self, is_made: impl Fn(ValueId) -> bool) -> Vec<NearMiss> {
        let refused = self.near_misses.into_iter().filter(|&(output, _)| !is_made(output));
        let mut near_misses: Vec<NearMiss> = refused.map(|(_, near_miss)| near_miss).collect();
        let last = near_misses.last().filter(|_| self.is_limited);
        let limit = last.map(|last| NearMiss { reason: TOO_MANY_RETRIES, ..last.clone() });
        near_misses.extend(limit);
        near_misses
    }

    /// Whether the reason why `tensor` is left as it is has been reported already.
    pub fn concerns(&self, tensor: ValueId) -> bool {
        self.tensors.contains(&tensor) || self.forms.contains_key(&tensor)
    }
}

fn made_in(graph: &Graph, region: &Region) -> impl DoubleEndedIterator<Item = ValueId> {
    region.nodes.iter().filter_map(|&id| graph.node(id).output())
}
