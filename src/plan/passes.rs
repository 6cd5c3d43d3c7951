//! Passes over the tensors, in each of which every tensor that may have a better form gets it.
//!
//! Knows the planner's graph and the search by its results.

use crate::onnx::ids::{IdSet, NodeId, ValueId};
use crate::plan::changes::{ChangeTimes, Searched};
use crate::plan::cuts::{MAX_REPEATED, MetLimits, Search};
use crate::plan::eliminate::eliminate;
use crate::plan::net::Net;
use crate::plan::refused::Refused;

/// What a form may compute that others need, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    /// Nothing.
    Nothing,
    /// Some nodes.
    SomeNodes,
}

/// What passes have found out.
#[derive(Debug)]
pub struct Passes {
    changes: ChangeTimes,
    /// For forms that repeat nothing.
    searched: Searched,
    /// For others.
    searched_repeating: Searched,
    /// Tensors with a form that was left out because it repeats something.
    repeating: IdSet<NodeId>,
    limits: MetLimits,
}

impl Passes {
    /// Before the first one.
    pub fn over(net: &Net) -> Self {
        Passes {
            changes: ChangeTimes::of(net),
            searched: Searched::default(),
            searched_repeating: Searched::default(),
            repeating: IdSet::default(),
            limits: MetLimits::default(),
        }
    }

    /// Gives tensors better forms; whether there are any.
    ///
    /// First without what others need: a norm before a kernel that reads a convolution with other
    /// readers is to go into the kernel, not to become another convolution.
    pub fn find_more(&mut self, net: &mut Net, refused: &Refused) -> bool {
        self.improve_each(net, refused, Repeats::Nothing)
            || self.improve_each(net, refused, Repeats::SomeNodes)
    }

    /// Gives each tensor the best form that is found; whether any has another one then.
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

    /// Whether another search may find what none has found; it is noted. Whether a form that
    /// repeats something is left out is known once the tensor was searched for others.
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

    /// Does without tensors where all their readers are better without them; whether there are any.
    pub fn eliminate(&mut self, net: &mut Net, refused: &Refused) -> bool {
        let changed = eliminate(net, refused);
        self.note(&changed)
    }

    /// Notes what is computed otherwise or read more or less often; whether there is any.
    fn note(&mut self, changed: &[ValueId]) -> bool {
        self.changes.note(changed);
        !changed.is_empty()
    }

    /// Limits that searches of tensors that are still there have met.
    pub fn limits(mut self, net: &Net) -> MetLimits {
        let graph = net.reader.graph;
        let is_live =
            |value: &ValueId| graph.value(*value).producer.is_some_and(|id| net.is_live(id));
        self.limits.retain(|value, _| is_live(value));
        self.limits
    }
}
