//! What goes away with a region, once the planner's graph is what will be written.
//!
//! Knows that graph; does not know what takes a region's place.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use crate::affine::Macs;
use crate::onnx::ids::{IdMap, IdSet, NodeId, ValueId};
use crate::plan::computed::{computed_kernel, computes, unread};
use crate::plan::cost::Count;
use crate::plan::net::Net;
use crate::plan::region::Region;

/// What goes away with a region.
pub struct Removed {
    /// The nodes of the region that go away, and those that compute their kernels.
    pub nodes: IdSet<NodeId>,
    /// The cost of those nodes that go away with no other region.
    pub count: Count,
}

impl Net<'_, '_, '_> {
    /// Returns what goes away with `region`; nodes that are `claimed` by another one are not
    /// counted.
    pub fn removed(&self, region: &Region, claimed: &IdSet<NodeId>) -> Removed {
        let graph = self.reader.graph;
        let once = Macs::each(1.0);
        let mut positions: IdMap<ValueId, Macs> = IdMap::default();
        let (mut count, mut nodes) = (Count::default(), IdSet::default());
        for &id in region.nodes.iter().rev() {
            let Some(output) = graph.node(id).output() else { continue };
            let here = positions.get(&output).copied().unwrap_or(once);
            let there = self.term_in_file(id).map_or(here, |term| term.macs_at_output(here));
            for input in graph.uses(id) {
                positions.insert(input, there);
            }
            if output == region.output || self.gone.contains(id) {
                nodes.insert(id);
                if !claimed.contains(&id) {
                    count.add(&self.count_in_file(id), here);
                }
                if computed_kernel(self.reader, self.meanings, id).is_some() {
                    let gone = unread(self.reader, graph.node(id), &self.uses);
                    let is_new = |&&id: &&NodeId| !claimed.contains(&id) && !nodes.contains(&id);
                    let new = gone.iter().filter(is_new).map(|&id| graph.node(id));
                    count.nodes += new.filter(|node| computes(self.reader, node)).count();
                    nodes.extend(gone);
                }
            }
        }
        Removed { nodes, count }
    }
}
