//! What a run of two models showed: comparisons, and nodes that were passed over.
//!
//! Knows tensors by their names; runs nothing.

use std::collections::BTreeMap;

use crate::verify::compare::ComparedTensor;

/// What one run, or several, showed.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Comparisons of outputs, in the order of the course.
    pub outputs: Vec<ComparedTensor>,
    /// All other comparisons: operands of steps, pieces, fronts.
    pub on_the_way: Vec<ComparedTensor>,
    /// Number of elements behind steps that differ.
    pub flipped: u64,
    /// Number of elements behind steps.
    pub stepped: u64,
    /// Nodes of the old model that the engine did not run, with what they are called, by the
    /// first tensor that they make ([`first_output`](crate::verify::entries::first_output)):
    /// their ids are others at sizes at which other branches stand in the place of an If.
    pub bridged: BTreeMap<String, String>,
}

impl Seen {
    /// Merges `other` into this, as if both had been seen in one run.
    pub fn add(&mut self, other: Seen) {
        self.flipped = self.flipped.saturating_add(other.flipped);
        self.stepped = self.stepped.saturating_add(other.stepped);
        self.bridged.extend(other.bridged);
        merge(&mut self.outputs, other.outputs);
        merge(&mut self.on_the_way, other.on_the_way);
    }

    /// Returns all comparisons.
    pub fn all(&self) -> impl Iterator<Item = &ComparedTensor> {
        self.outputs.iter().chain(&self.on_the_way)
    }
}

/// Merges comparisons of one tensor; runs of one course have them in the same order.
fn merge(own: &mut Vec<ComparedTensor>, others: Vec<ComparedTensor>) {
    for (place, other) in others.into_iter().enumerate() {
        let is_it = |own: &ComparedTensor| own.name == other.name;
        let found = own.get(place).is_some_and(is_it).then_some(place);
        match found.or_else(|| own.iter().position(is_it)).and_then(|place| own.get_mut(place)) {
            Some(own) => own.add(other),
            None => own.push(other),
        }
    }
}
