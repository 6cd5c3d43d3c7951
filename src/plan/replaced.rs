//! What goes away with a region, once the planner's graph is what will be written.
//!
//! Knows that graph; not what takes a region's place.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use crate::affine::Macs;
use crate::onnx::ids::{IdMap, IdSet, NodeId, ValueId};
use crate::plan::computed::{computed_kernel, computes, unread};
use crate::plan::cost::Count;
use crate::plan::net::Net;
use crate::plan::region::Region;

impl Net<'_, '_, '_> {
    /// The nodes of `region` that go away, what computes their kernels among them, and what
    /// those of them cost that are not `claimed` by another one.
    pub fn replaced(&self, region: &Region, claimed: &IdSet<NodeId>) -> (Count, IdSet<NodeId>) {
        let graph = self.reader.graph;
        let once = Macs::each(1.0);
        let mut positions: IdMap<ValueId, Macs> = IdMap::default();
        let (mut count, mut replaced) = (Count::default(), IdSet::default());
        for &id in region.nodes.iter().rev() {
            let Some(output) = graph.node(id).output() else { continue };
            let here = positions.get(&output).copied().unwrap_or(once);
            let there = self.term_in_file(id).map_or(here, |term| term.macs_at_output(here));
            for input in graph.uses(id) {
                positions.insert(input, there);
            }
            if output == region.output || self.gone.contains(id) {
                replaced.insert(id);
                if !claimed.contains(&id) {
                    count.add(&self.count_in_file(id), here);
                }
                if computed_kernel(self.reader, self.meanings, id).is_some() {
                    let gone = unread(self.reader, graph.node(id), &self.uses);
                    let is_new = |&&id: &&NodeId| !claimed.contains(&id) && !replaced.contains(&id);
                    let new = gone.iter().filter(is_new).map(|&id| graph.node(id));
                    count.nodes += new.filter(|node| computes(self.reader, node)).count();
                    replaced.extend(gone);
                }
            }
        }
        (count, replaced)
    }
}
