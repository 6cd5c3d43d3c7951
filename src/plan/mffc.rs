//! What goes away with a tensor: its maximum fanout-free cone, the nodes that nothing else
//! needs.
//!
//! Knows the planner's graph; not what takes the place of a cone.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use std::collections::BTreeMap;

use crate::affine::{Geometry, Macs};
use crate::emit::term::Term;
use crate::onnx::ids::{IdMap, NodeId, ValueId};
use crate::plan::cost::Count;
use crate::plan::net::Net;

/// The maximum fanout-free cone of a tensor: the nodes that only this tensor needs, which go
/// away if it is computed from other roots.
#[derive(Debug, Default)]
pub struct Mffc {
    /// Its nodes.
    pub nodes: Vec<NodeId>,
    /// Their cost; multiply-adds per position of the tensor.
    pub count: Count,
}

impl Net<'_, '_, '_> {
    /// Returns the cone that goes away if the tensor of node `id` becomes the sum of `terms`.
    pub fn mffc(&self, id: NodeId, terms: &[Term<Geometry>]) -> Mffc {
        let graph = self.reader.graph;
        let mut cone = Mffc::default();
        let mut lost: IdMap<ValueId, usize> = IdMap::default();
        let mut consumed: Vec<NodeId> = Vec::new();
        let mut kernels: IdMap<ValueId, usize> = IdMap::default();
        // The nodes that go away, with the positions of each per position of the tensor.
        // Whatever a node reads is made by nodes before it, so the last node is always next.
        let mut dying = BTreeMap::from([(id, Macs::each(1.0))]);
        let mut read: Vec<(ValueId, Macs)> = Vec::new();
        while let Some((id, here)) = dying.pop_last() {
            cone.nodes.push(id);
            cone.count.add(&self.count(id), here);
            for kernel in self.kept_kernels(id) {
                let lost = kernels.entry(kernel).or_default();
                *lost += 1;
                if self.kept.get(&kernel) == Some(lost) {
                    cone.count.parameters += self.reader.constants.elements(kernel);
                }
            }
            consumed.extend(self.meanings.consumed(id));
            self.each_read(id, |value, term| {
                *lost.entry(value).or_default() += 1;
                read.push((value, term.map_or(here, |term| term.macs_at_output(here))));
            });
            let values = read.iter().map(|(value, _)| *value);
            let computed: Vec<_> = values.filter(|&value| self.is_computed(value)).collect();
            if !computed.is_empty() {
                let dead = self.dead_constants(computed, &mut lost);
                if let Some(kernel) = self.computed_kernel(id) {
                    cone.count.nodes += dead.count(self.reader, kernel);
                }
                read.extend(dead.used.into_iter().map(|value| (value, here)));
            }
            for (value, there) in read.drain(..) {
                let Some(producer) = graph.value(value).producer else { continue };
                let is_of_cone = self.is_live(producer)
                    && (self.forms.contains(producer)
                        || consumed.contains(&producer)
                        || self.passes_on(producer));
                let is_dead = |made: &ValueId| lost.get(made) == self.uses.get(*made);
                let is_root = |made: &ValueId| terms.iter().any(|term| term.root == *made);
                let mut made = graph.node(producer).outputs.iter().flatten();
                if is_of_cone && made.all(|made| is_dead(made) && !is_root(made)) {
                    dying.insert(producer, there);
                }
            }
        }
        cone
    }
}
