//! Which tensors a search may find something new of: it looks at what a tensor is computed from,
//! back to what is no form, and finds what it found before unless something there is computed
//! otherwise since, or is read more or less often.
//!
//! Knows the planner's graph; not what a search looks for.

use crate::onnx::ids::{IdSet, NodeId, Table, ValueId};
use crate::plan::net::Net;

/// Tensors that were not searched since something changed that they are computed from.
#[derive(Debug)]
pub struct Stale(Table<NodeId, ()>);

impl Stale {
    /// Before anything was searched.
    pub fn all(net: &Net) -> Self {
        Stale(net.tensors().map(|(id, _)| id).collect())
    }

    /// Whether the tensor that node `id` makes is one of them; it is none from now on.
    pub fn take(&mut self, id: NodeId) -> bool {
        let is_stale = self.0.contains(id);
        self.0.remove(id);
        is_stale
    }

    /// What is computed from `changed` tensors is stale.
    pub fn note(&mut self, net: &Net, changed: &[ValueId]) {
        let graph = net.reader.graph;
        let mut passed: IdSet<NodeId> = IdSet::default();
        let mut open = changed.to_vec();
        while let Some(value) = open.pop() {
            for &id in &graph.value(value).readers {
                // What is stale already was noted with all behind it.
                if self.0.contains(id) || !passed.insert(id) {
                    continue;
                }
                if net.is_former(id) {
                    self.0.insert(id, ());
                }
                if net.hands_on(id) {
                    open.extend(graph.node(id).outputs.iter().flatten());
                }
            }
        }
    }
}
