//! A region: the part of a graph that computes one tensor from others.
//!
//! Knows what nodes read; knows neither where regions should end nor what they become.

use std::collections::BTreeSet;

use crate::facts::validity::Validity;
use crate::onnx::ids::{NodeId, ValueId};
use crate::ops::meaning::Meaning;
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;

/// A connected part of the graph that computes one tensor linearly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The tensor it computes.
    pub output: ValueId,
    /// Tensors at which it stops; its roots are among them.
    pub cuts: BTreeSet<ValueId>,
    /// Its nodes, in topological order.
    pub nodes: Vec<NodeId>,
    /// Nodes of the region that were read only together with another node.
    pub consumed: BTreeSet<NodeId>,
}

impl Region {
    /// Returns the region of `output` that stops at `cuts`.
    pub fn new(
        reader: &Reader,
        meanings: &Meanings,
        output: ValueId,
        cuts: BTreeSet<ValueId>,
    ) -> Self {
        let graph = reader.graph;
        let (mut nodes, mut between) = (BTreeSet::new(), BTreeSet::new());
        let mut wanted = vec![output];
        while let Some(value) = wanted.pop() {
            let at_cut = value != output && cuts.contains(&value);
            let Some(producer) = graph.value(value).producer.filter(|_| !at_cut) else { continue };
            let Some(meaning) = meanings.get(producer) else { continue };
            if matches!(meaning, Meaning::Opaque(_)) {
                continue;
            }
            if nodes.insert(producer) {
                between.extend(meanings.consumed(producer));
                wanted.extend(meaning.operands());
            }
        }
        let consumed: BTreeSet<NodeId> = between.difference(&nodes).copied().collect();
        nodes.extend(&consumed);
        Region { output, cuts, nodes: nodes.into_iter().collect(), consumed }
    }

    /// Returns the nodes that were each read on their own.
    pub fn read_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied().filter(|id| !self.consumed.contains(id))
    }

    /// Returns the inputs for which its nodes were read correctly.
    pub fn validity(&self, meanings: &Meanings) -> Validity {
        let mut valid = Validity::default();
        for &id in &self.nodes {
            if let Some(own) = meanings.validity(id) {
                valid.intersect(own);
            }
        }
        valid
    }
}
