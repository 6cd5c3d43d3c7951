//! Whether anything has changed since a tensor was searched. A search looks at what the tensor
//! is computed from, back to tensors without a form, and finds what it found before unless
//! something there is computed otherwise since, or is read more or less often.
//!
//! Tensors that linear nodes connect change together. *Counter-example* to tracking each tensor
//! alone: all tensors of a long sum follow from the first one, and each change would be noted
//! at all of them.
//!
//! Knows the planner's graph; does not know what a search looks for.

use std::iter;

use crate::onnx::ids::{NodeId, Table, ValueId};
use crate::plan::net::Net;

/// The times at which tensors changed last, counted in changes.
#[derive(Debug)]
pub struct ChangeTimes {
    /// A union-find forest: by tensor, another one that changes together with it; none for the
    /// tensor that stands for them all.
    beside: Table<ValueId, ValueId>,
    last: Table<ValueId, usize>,
    count: usize,
}

/// The times at which tensors were searched last.
#[derive(Debug, Default)]
pub struct Searched(Table<NodeId, usize>);

impl ChangeTimes {
    /// Returns the times before any change.
    pub fn of(net: &Net) -> Self {
        let mut changes =
            ChangeTimes { beside: Table::default(), last: Table::default(), count: 0 };
        let graph = net.reader.graph;
        for (id, node) in graph.nodes().filter(|&(id, _)| net.connects(id)) {
            let Some(output) = node.output() else { continue };
            changes.connect_all(output, net.read_in_file(id));
            // What computes the shape of a view goes with it.
            for &inside in iter::once(&id).chain(net.meanings.consumed(id)) {
                let made = graph.node(inside).outputs.iter().flatten().copied();
                changes.connect_all(output, graph.uses(inside).chain(made));
            }
        }
        changes
    }

    fn connect_all(&mut self, one: ValueId, others: impl Iterator<Item = ValueId>) {
        others.for_each(|other| self.connect(one, other));
    }

    fn connect(&mut self, one: ValueId, other: ValueId) {
        let (one, other) = (self.first(one), self.first(other));
        if one != other {
            self.beside.insert(one, other);
        }
    }

    /// Returns the tensor that stands for all that change together with this one.
    fn first(&mut self, mut value: ValueId) -> ValueId {
        while let Some(next) = self.beside.get(value).copied() {
            // The path is half as long for the next one.
            if let Some(further) = self.beside.get(next).copied() {
                self.beside.insert(value, further);
            }
            value = next;
        }
        value
    }

    /// Notes that these tensors have changed.
    pub fn note(&mut self, values: &[ValueId]) {
        self.count = self.count.saturating_add(1);
        for &value in values {
            let first = self.first(value);
            self.last.insert(first, self.count);
        }
    }

    /// Whether the tensor `value` of node `id` was `searched` since anything there changed.
    pub fn are_searched(&mut self, (id, value): (NodeId, ValueId), searched: &Searched) -> bool {
        let first = self.first(value);
        let changed = self.last.get(first).copied().unwrap_or(0);
        searched.0.get(id).is_some_and(|&searched| searched >= changed)
    }

    /// Notes that node `id` is searched now.
    pub fn search(&self, id: NodeId, searched: &mut Searched) {
        searched.0.insert(id, self.count);
    }
}
