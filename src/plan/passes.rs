//! Passes over the tensors, in each of which every tensor that may have a better form gets it.
//!
//! Knows the planner's graph and the search by its results.

use crate::onnx::ids::{IdSet, NodeId, ValueId};
use crate::plan::cuts::{MAX_REPEATED, MetLimits, Search};
use crate::plan::eliminate::eliminate;
use crate::plan::net::Net;
use crate::plan::refused::Refused;
use crate::plan::stale::Stale;

/// What a form may compute that others need, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeating {
    /// Nothing.
    Nothing,
    /// Some nodes.
    Some,
}

/// What passes have found out.
#[derive(Debug)]
pub struct Passes {
    /// What is to be searched for forms that repeat nothing.
    stale: Stale,
    /// What is to be searched for others, if there are any.
    stale_repeating: Stale,
    /// Tensors with a form that was left out because it repeats something.
    repeating: IdSet<NodeId>,
    limits: MetLimits,
}

impl Passes {
    /// Before the first one.
    pub fn over(net: &Net) -> Self {
        Passes {
            stale: Stale::all(net),
            stale_repeating: Stale::all(net),
            repeating: IdSet::default(),
            limits: MetLimits::default(),
        }
    }

    /// Gives each tensor the best form that is found; whether any has another one then.
    pub fn improve_each(&mut self, net: &mut Net, refused: &Refused, repeating: Repeating) -> bool {
        let mut is_changed = false;
        let tensors: Vec<(NodeId, ValueId)> = net.tensors().collect();
        for (id, output) in tensors {
            if !net.is_live(id) || !refused.allows(output) || !self.is_searched(id, repeating) {
                continue;
            }
            let most_repeated = if repeating == Repeating::Some { MAX_REPEATED } else { 0 };
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
                is_changed |= self.note(net, changed);
            }
        }
        is_changed
    }

    /// Whether another search may find what none has found.
    fn is_searched(&mut self, id: NodeId, repeating: Repeating) -> bool {
        match repeating {
            Repeating::Nothing => self.stale.take(id),
            Repeating::Some => self.stale_repeating.take(id) && self.repeating.contains(&id),
        }
    }

    /// Does without tensors where all their readers are better without them; whether there are any.
    pub fn eliminate(&mut self, net: &mut Net, refused: &Refused) -> bool {
        let changed = eliminate(net, refused);
        self.note(net, changed)
    }

    /// Notes what is computed otherwise or read more or less often; whether there is any.
    fn note(&mut self, net: &Net, changed: Vec<ValueId>) -> bool {
        let is_changed = !changed.is_empty();
        self.stale.note(net, &changed);
        self.stale_repeating.note(net, &changed);
        is_changed
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
