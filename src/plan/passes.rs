//! Passes over the tensors, in each of which every tensor for which a better form is found gets
//! it.
//!
//! Knows the planner's graph, and the search by its results.

use crate::onnx::ids::{IdSet, NodeId, ValueId};
use crate::plan::changes::{ChangeTimes, Searched};
use crate::plan::cuts::{MAX_REPEATED, MetLimits, Search};
use crate::plan::eliminate::eliminate;
use crate::plan::net::Net;
use crate::plan::refused::Refused;

/// What a form may compute again although others need it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    /// Nothing.
    Nothing,
    /// Some nodes.
    SomeNodes,
}

/// What the passes have found out so far.
#[derive(Debug)]
pub struct Passes {
    changes: ChangeTimes,
    /// Searches for forms that repeat nothing.
    searched: Searched,
    /// Searches for forms that repeat some nodes.
    searched_repeating: Searched,
    /// Nodes for whose tensors a form was left out because it repeats something.
    repeating: IdSet<NodeId>,
    limits: MetLimits,
}

impl Passes {
    /// Returns the state before the first pass.
    pub fn over(net: &Net) -> Self {
        Passes {
            changes: ChangeTimes::of(net),
            searched: Searched::default(),
            searched_repeating: Searched::default(),
            repeating: IdSet::default(),
            limits: MetLimits::default(),
        }
    }

    /// Gives tensors better forms; returns whether there are any.
    ///
    /// Forms that repeat nothing come first: a norm between a convolution with other readers
    /// and a kernel is to go into that kernel, not to become another convolution.
    pub fn find_more(&mut self, net: &mut Net, refused: &Refused) -> bool {
        self.improve_each(net, refused, Repeats::Nothing)
            || self.improve_each(net, refused, Repeats::SomeNodes)
    }

    /// Gives each tensor the best form that is found; returns whether any form has changed.
    fn improve_each(&mut self, net: &mut Net, refused: &Refused, repeating: Repeats) -> bool {
        let mut is_changed = false;
        let tensors: Vec<(NodeId, ValueId)> = net.tensors().collect();
        for (id, output) in tensors {
            if !net.is_live(id)
                || !refused.allows(output)
                || !self.begins_search((id, output), repeating)
            {
                continue;
            }
            let most_repeated = if repeating == Repeats::SomeNodes { MAX_REPEATED } else { 0 };
            let mut search = Search::at(net, (id, output), refused, most_repeated);
            let better = search.better_form();
            if search.is_bounded() {
                self.repeating.insert(id);
            }
            if search.met.is_empty() {
                self.limits.remove(&output);
            } else {
                self.limits.insert(output, search.met);
            }
            if let Some(candidate) = better {
                let changed = net.plan(id, candidate.form, candidate.steps);
                is_changed |= self.note(&changed);
            }
        }
        is_changed
    }

    /// Returns whether another search may find what no search has found, and notes that it
    /// begins. Whether a form was left out because it repeats something is known only once the
    /// tensor was searched for forms that repeat nothing.
    fn begins_search(&mut self, tensor: (NodeId, ValueId), repeating: Repeats) -> bool {
        let is_known = self.changes.are_searched(tensor, &self.searched);
        let (is_new, searched) = match repeating {
            Repeats::Nothing => (!is_known, &mut self.searched),
            Repeats::SomeNodes => {
                let is_new = !self.changes.are_searched(tensor, &self.searched_repeating);
                (is_known && is_new, &mut self.searched_repeating)
            }
        };
        if is_new {
            self.changes.search(tensor.0, searched);
        }
        is_new && (repeating == Repeats::Nothing || self.repeating.contains(&tensor.0))
    }

    /// Eliminates tensors where all their readers are better off without them; returns whether
    /// there are any.
    pub fn eliminate(&mut self, net: &mut Net, refused: &Refused) -> bool {
        let changed = eliminate(net, refused);
        self.note(&changed)
    }

    /// Notes the tensors that are computed otherwise or read more or less often; returns
    /// whether there are any.
    fn note(&mut self, changed: &[ValueId]) -> bool {
        self.changes.note(changed);
        !changed.is_empty()
    }

    /// Returns the limits that were met by searches at tensors that are still there.
    pub fn limits(mut self, net: &Net) -> MetLimits {
        let graph = net.reader.graph;
        let is_live =
            |value: &ValueId| graph.value(*value).producer.is_some_and(|id| net.is_live(id));
        self.limits.retain(|value, _| is_live(value));
        self.limits
    }
}
