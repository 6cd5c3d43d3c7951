//! Where something has changed since a tensor was searched. A search looks at what the tensor is
//! computed from, back to what is no form, and finds what it found before unless something there is
//! computed otherwise since, or is read more or less often.
//!
//! Tensors that linear nodes connect change together. *Counter-example* to each for itself: all
//! tensors of a long sum follow from the first one, and each change would be noted at all of them.
//!
//! Knows the planner's graph; not what a search looks for.

use std::iter;

use crate::onnx::ids::{NodeId, Table, ValueId};
use crate::plan::net::Net;

/// When tensors changed last, counted in changes.
#[derive(Debug)]
pub struct ChangeTimes {
    /// By tensor, one that changes together with it: itself, if that is none further.
    beside: Table<ValueId, ValueId>,
    last: Table<ValueId, usize>,
    count: usize,
}

/// When tensors were searched last.
#[derive(Debug, Default)]
pub struct Searched(Table<NodeId, usize>);

impl ChangeTimes {
    /// Before any.
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

    /// The tensor that stands for all that change together with this one.
    fn first(&mut self, mut value: ValueId) -> ValueId {
        while let Some(next) = self.beside.get(value).copied() {
            // The way is half as long for the next one.
            if let Some(further) = self.beside.get(next).copied() {
                self.beside.insert(value, further);
            }
            value = next;
        }
        value
    }

    /// Notes that these have changed.
    pub fn note(&mut self, values: &[ValueId]) {
        self.count = self.count.saturating_add(1);
        for &value in values {
            let first = self.first(value);
            self.last.insert(first, self.count);
        }
    }

    /// Whether what node `id` makes of `value` was `searched` since anything there changed.
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
