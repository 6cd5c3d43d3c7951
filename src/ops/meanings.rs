//! The meanings of the nodes of one graph, as far as they were read.
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
    /// The inputs for which the meaning is right.
    pub validity: Validity,
    /// Nodes between the node and its operands that were read together with it.
    pub consumed: Vec<NodeId>,
}

/// The meanings of all nodes of a graph that were read.
#[derive(Debug, Default)]
pub struct Meanings {
    meanings: Table<NodeId, Meaning>,
    /// The validity of nodes whose meaning is not right for every input.
    validity: IdMap<NodeId, Validity>,
    /// The nodes that were read together with others.
    consumed: IdMap<NodeId, Vec<NodeId>>,
    sources: Table<ValueId, ValueId>,
}

impl Meanings {
    /// Returns an empty collection for a graph with `nodes` nodes.
    pub fn none_of(nodes: usize) -> Self {
        Meanings { meanings: Table::of(nodes), ..Meanings::default() }
    }

    /// Returns what node `id` computes, or `None` if it was not read because nothing needs it.
    pub fn get(&self, id: NodeId) -> Option<&Meaning> {
        self.meanings.get(id)
    }

    /// Returns the inputs for which the meaning of node `id` is right, or `None` if it is right
    /// for all.
    pub fn validity(&self, id: NodeId) -> Option<&Validity> {
        self.validity.get(&id)
    }

    /// Returns the nodes between `id` and the operands of its meaning that were read together
    /// with it: the Slices of a circular padding, the nodes that fill a border.
    pub fn consumed(&self, id: NodeId) -> &[NodeId] {
        self.consumed.get(&id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the kernel of node `id`, under its first name, or `None` if it has none.
    pub fn kernel(&self, id: NodeId) -> Option<ValueId> {
        match self.get(id)? {
            Meaning::Linear(_, LinearOp::Conv { kernel, .. }) => Some(self.source(*kernel)),
            _ => None,
        }
    }

    /// Returns the tensor of which `id` is just another name, or `id` itself.
    pub fn source(&self, id: ValueId) -> ValueId {
        self.sources.get(id).copied().unwrap_or(id)
    }

    /// Stores what was read of node `id`, which is `node`. The nodes before it must be stored
    /// already.
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
