//! What the nodes of one graph compute, as far as they were read.
//!
//! Knows nodes and tensors by their ids; not how they were read.

use crate::facts::validity::Validity;
use crate::onnx::ids::{IdMap, NodeId, Table, ValueId};
use crate::onnx::node::Node;
use crate::ops::meaning::{FirstOfViews, LinearOp, Meaning, ViewKernel};

/// What was read of one node.
#[derive(Debug)]
pub struct Reading {
    /// What it computes.
    pub meaning: Meaning,
    /// For which inputs.
    pub validity: Validity,
    /// Nodes between it and its operands that were read together with it.
    pub consumed: Vec<NodeId>,
}

/// All nodes of a graph that were read.
#[derive(Debug, Default)]
pub struct Meanings {
    meanings: Table<NodeId, Meaning>,
    /// Of those that are not right for every input.
    validity: IdMap<NodeId, Validity>,
    /// Of those that were read together with others.
    consumed: IdMap<NodeId, Vec<NodeId>>,
    sources: Table<ValueId, ValueId>,
}

impl Meanings {
    /// None yet of a graph of so many nodes.
    pub fn none_of(nodes: usize) -> Self {
        Meanings { meanings: Table::of(nodes), ..Meanings::default() }
    }

    /// What node `id` computes; `None` if nothing needs it.
    pub fn get(&self, id: NodeId) -> Option<&Meaning> {
        self.meanings.get(id)
    }

    /// For which inputs node `id` was read rightly; `None` if for all.
    pub fn validity(&self, id: NodeId) -> Option<&Validity> {
        self.validity.get(&id)
    }

    /// Nodes between `id` and the tensors that it was read as a map or sum of, which were
    /// read together with it: the Slices of a circular padding, what fills a border.
    pub fn consumed(&self, id: NodeId) -> &[NodeId] {
        self.consumed.get(&id).map(Vec::as_slice).unwrap_or_default()
    }

    /// The kernel of node `id`, under its first name; `None` if it has none.
    pub fn kernel(&self, id: NodeId) -> Option<ValueId> {
        match self.get(id)? {
            Meaning::Linear(_, LinearOp::Conv { kernel, .. }) => Some(self.source(*kernel)),
            _ => None,
        }
    }

    /// The tensor that `id` is just another name of.
    pub fn source(&self, id: ValueId) -> ValueId {
        self.sources.get(id).copied().unwrap_or(id)
    }

    /// Notes what was read of `node`, which is number `id`; of those before it that is noted.
    pub fn note(&mut self, id: NodeId, node: &Node, reading: Reading) {
        let Reading { mut meaning, validity, consumed } = reading;
        if !validity.is_everywhere() {
            let validity = validity.of_sources(|tensor| self.source(tensor));
            self.validity.insert(id, validity);
        }
        if !consumed.is_empty() {
            self.consumed.insert(id, consumed);
        }
        if let Meaning::Linear(_, LinearOp::View(view)) = &mut meaning
            && let Some(ViewKernel::Squares(_, Some(first))) = &mut view.kernel
        {
            *first = FirstOfViews { root: self.source(first.root), last: self.source(first.last) };
        }
        if let (Meaning::Alias(of), Some(output)) = (&meaning, node.output()) {
            self.sources.insert(output, self.source(*of));
        }
        self.meanings.insert(id, meaning);
    }
}
