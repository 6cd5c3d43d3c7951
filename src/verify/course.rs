//! The course of two runs: which nodes run once for both, where both runs meet, and what is
//! compared there.
//!
//! Behind a meeting both go on from what the *old* model made, so that a difference which was
//! judged there is not judged again by what later nodes make of it.
//!
//! Knows both graphs and how they pair; runs nothing, and knows no tolerance.

use std::collections::{HashMap, HashSet};

use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::model::Invalid;
use crate::verify::nature::{self, Saturation};
use crate::verify::pairs::{Pairs, is_same_constant};
use crate::verify::slices::{Stretch, is_constant};

/// A tensor of the old graph, and the one of the new graph that stands for it.
pub type TensorPair = (ValueId, ValueId);

/// A place where both runs meet, after a node of each.
#[derive(Debug)]
pub struct Meeting {
    /// The last node on either side.
    nodes: (Option<NodeId>, Option<NodeId>),
    /// The outputs of these nodes. Both runs go on from the old ones.
    pub results: Vec<TensorPair>,
    /// How they are compared.
    pub rule: MeetingRule,
}

/// How the results of a meeting are compared.
#[derive(Debug)]
pub enum MeetingRule {
    /// Both models have the node, and its result jumps where an operand passes a value. The
    /// operands are compared; a result may differ only because they do.
    Step(Vec<TensorPair>),
    /// Both models have the node, and its result saturates. The operand is compared; the result
    /// needs only the accuracy that follows.
    Saturation(Saturation, TensorPair),
    /// The nodes differ. The results are compared, and what rounding may do is measured by what
    /// the old nodes make on the way.
    Piece(Vec<NodeId>),
}

/// The course of two runs from their inputs to their outputs.
#[derive(Debug)]
pub struct Course {
    /// Where both runs meet.
    pub meetings: Vec<Meeting>,
    /// Stretches of the old model: what both compute alike, then what leads up to each meeting,
    /// then the rest.
    pub old: Vec<Stretch>,
    /// Stretches of the new model, of which the first one is empty.
    pub new: Vec<Stretch>,
    /// Tensors that the new model takes over from the old one's first stretch, or from its inputs.
    pub handed: Vec<TensorPair>,
    /// Outputs of both models that may differ, each with its name.
    pub outputs: Vec<(String, TensorPair)>,
    /// Maps an output of the old model to the result of a meeting whose values it has.
    pub met: HashMap<ValueId, ValueId>,
    /// Tensors that are compared at the end, beside the outputs: operands of nodes that flatten
    /// values.
    pub fronts: Vec<TensorPair>,
}

impl Course {
    /// Returns the course of both models as they are. They meet at steps, and where values saturate
    /// behind the last layers; elsewhere, later layers weigh what is left of the values.
    ///
    /// # Errors
    /// Returns an error if a constant cannot be decoded.
    pub fn whole(old: &Graph, new: &Graph, pairs: &Pairs) -> Result<Self, Invalid> {
        let outputs = outputs(old, new, pairs)?;
        let ends: Vec<ValueId> = outputs.iter().map(|(_, (old, _))| *old).collect();
        let closing = nature::closing(old, &ends);
        let meetings = pairs.new.iter().filter_map(|id| {
            let twin = *pairs.kept.get(id)?;
            let node = old.node(twin);
            let operands = zipped(&node.inputs, &new.node(*id).inputs);
            let saturation = nature::saturation(node).filter(|_| closing.contains(&twin));
            let rule = if nature::is_step(node) {
                MeetingRule::Step(operands)
            } else {
                MeetingRule::Saturation(saturation?, *operands.first()?)
            };
            let results = zipped(&node.outputs, &new.node(*id).outputs);
            Some(Meeting { nodes: (Some(twin), Some(*id)), results, rule })
        });
        let meetings: Vec<Meeting> = meetings.collect();
        let fronts = nature::fronts(old, &ends).into_iter();
        let fronts = fronts.filter(|id| !meetings.iter().any(|meeting| meeting.compares(*id)));
        let made: HashSet<NodeId> = pairs.new.iter().copied().collect();
        let fronts = fronts.filter_map(|id| {
            let twin = new.find(old.value(id).name)?;
            let is_there = new.value(twin).producer.is_some_and(|node| made.contains(&node));
            is_there.then_some((id, twin))
        });
        let fronts = fronts.collect();
        Ok(Course::of(old, new, pairs, meetings, outputs, fronts))
    }

    /// Returns the course of both models that meet wherever their nodes differ.
    ///
    /// # Errors
    /// Returns an error if a constant cannot be decoded.
    pub fn in_pieces(old: &Graph, new: &Graph, pairs: &Pairs) -> Result<Self, Invalid> {
        let kept: HashSet<NodeId> = pairs.kept.values().copied().collect();
        let places: HashMap<NodeId, usize> =
            pairs.old.iter().enumerate().map(|(place, &id)| (id, place)).collect();
        let place = |(old_id, _): &TensorPair| {
            old.value(*old_id).producer.and_then(|node| places.get(&node)).copied()
        };
        let mut parted = pairs.parted.clone();
        parted.sort_by_key(place);
        let named: HashSet<ValueId> = parted.iter().map(|(old, _)| *old).collect();
        let meetings = parted.into_iter().map(|(old_id, new_id)| {
            let is_inside = |id: NodeId| places.contains_key(&id) && !kept.contains(&id);
            Meeting {
                nodes: (old.value(old_id).producer, new.value(new_id).producer),
                results: vec![(old_id, new_id)],
                rule: MeetingRule::Piece(interior(old, old_id, &named, is_inside)),
            }
        });
        let (meetings, outputs) = (meetings.collect(), outputs(old, new, pairs)?);
        Ok(Course::of(old, new, pairs, meetings, outputs, Vec::new()))
    }

    fn of(
        old: &Graph,
        new: &Graph,
        pairs: &Pairs,
        meetings: Vec<Meeting>,
        outputs: Vec<(String, TensorPair)>,
        fronts: Vec<TensorPair>,
    ) -> Self {
        let ends = |side: fn(&Meeting) -> Option<NodeId>| meetings.iter().map(side).collect();
        let old_nodes = up_to_each(old, &pairs.old, ends(|meeting| meeting.nodes.0));
        let new_nodes = up_to_each(new, &pairs.new, ends(|meeting| meeting.nodes.1));
        let mut wanted: Vec<(Vec<ValueId>, Vec<ValueId>)> =
            meetings.iter().map(|meeting| meeting.wanted(old)).collect();
        let last = outputs.iter().map(|(_, pair)| *pair).chain(fronts.iter().copied());
        wanted.push(last.unzip());
        let used = new_nodes.iter().flatten().flat_map(|&id| new.uses(id));
        let used = used.chain(wanted.iter().flat_map(|(_, new)| new.iter().copied()));
        let mut seen = HashSet::new();
        let handed = used.filter(|&id| !is_constant(new, id) && seen.insert(id));
        let handed: Vec<TensorPair> =
            handed.filter_map(|id| Some((*pairs.equal.get(&id)?, id))).collect();
        let first = Stretch {
            nodes: pairs.common.clone(),
            wanted: handed.iter().map(|(old, _)| *old).collect(),
        };
        let (old_wanted, new_wanted): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
        let stretches = |nodes: Vec<Vec<NodeId>>, wanted: Vec<Vec<ValueId>>| {
            let pairs = nodes.into_iter().zip(wanted);
            pairs.map(|(nodes, wanted)| Stretch { nodes, wanted })
        };
        let met = outputs.iter().filter_map(|(_, (id, _))| {
            let unmoved = nature::unmoved(old, *id);
            meetings.iter().any(|meeting| meeting.saturates(unmoved)).then_some((*id, unmoved))
        });
        let met = met.collect();
        let nothing = Stretch::default();
        Course {
            meetings,
            old: std::iter::once(first).chain(stretches(old_nodes, old_wanted)).collect(),
            new: std::iter::once(nothing).chain(stretches(new_nodes, new_wanted)).collect(),
            handed,
            outputs,
            met,
            fronts,
        }
    }
}

impl Meeting {
    /// Returns whether `id` of the old graph is a result that saturates at this meeting.
    fn saturates(&self, id: ValueId) -> bool {
        matches!(self.rule, MeetingRule::Saturation(..))
            && self.results.iter().any(|(old, _)| *old == id)
    }

    /// Returns whether `id` of the old graph is an operand that is compared at this meeting.
    fn compares(&self, id: ValueId) -> bool {
        match &self.rule {
            MeetingRule::Step(operands) => operands.iter().any(|(old, _)| *old == id),
            MeetingRule::Saturation(_, (old, _)) => *old == id,
            MeetingRule::Piece(_) => false,
        }
    }

    /// Returns the tensors that are looked at, of the old graph and of the new one.
    fn wanted(&self, old: &Graph) -> (Vec<ValueId>, Vec<ValueId>) {
        let (mut before, mut after): (Vec<_>, Vec<_>) = self.results.iter().copied().unzip();
        match &self.rule {
            MeetingRule::Saturation(_, (old, new)) => {
                before.push(*old);
                after.push(*new);
            }
            MeetingRule::Step(operands) => {
                before.extend(operands.iter().map(|(old, _)| *old));
                after.extend(operands.iter().map(|(_, new)| *new));
            }
            MeetingRule::Piece(nodes) => {
                // The engine may know nothing of further outputs: means and masks of training.
                let made = |&id: &NodeId| old.uses(id).chain(old.node(id).output());
                before.extend(nodes.iter().flat_map(made));
            }
        }
        (before, after)
    }
}

/// Returns the outputs of both models that are not known to be equal.
fn outputs(old: &Graph, new: &Graph, pairs: &Pairs) -> Result<Vec<(String, TensorPair)>, Invalid> {
    let mut outputs = Vec::new();
    for (&old_id, &new_id) in old.outputs.iter().zip(&new.outputs) {
        if !is_same_constant(old, old_id, new, new_id)? && pairs.equal.get(&new_id) != Some(&old_id)
        {
            outputs.push((old.value(old_id).name.to_owned(), (old_id, new_id)));
        }
    }
    Ok(outputs)
}

/// Returns the nodes for which `is_inside` holds and from which `end` is computed, up to the
/// tensors `named`, which are compared themselves.
fn interior(
    graph: &Graph,
    end: ValueId,
    named: &HashSet<ValueId>,
    is_inside: impl Fn(NodeId) -> bool,
) -> Vec<NodeId> {
    let (mut found, mut open, mut seen) = (Vec::new(), vec![end], HashSet::new());
    while let Some(tensor) = open.pop() {
        let node = graph.value(tensor).producer.filter(|&node| is_inside(node));
        let Some(node) = node.filter(|&node| seen.insert(node)) else { continue };
        found.push(node);
        open.extend(graph.uses(node).filter(|used| !named.contains(used)));
    }
    found.sort_unstable();
    found
}

/// Splits `nodes` into stretches: what each of `ends` needs and no earlier one does, and at last
/// the rest. Within a stretch they keep their order.
fn up_to_each(graph: &Graph, nodes: &[NodeId], ends: Vec<Option<NodeId>>) -> Vec<Vec<NodeId>> {
    let mut waiting: HashSet<NodeId> = nodes.iter().copied().collect();
    let mut stretches = Vec::with_capacity(ends.len().saturating_add(1));
    for end in ends {
        let (mut stretch, mut open) = (Vec::new(), Vec::from_iter(end));
        while let Some(id) = open.pop() {
            if waiting.remove(&id) {
                stretch.push(id);
                open.extend(graph.uses(id).filter_map(|used| graph.value(used).producer));
            }
        }
        stretch.sort_unstable();
        stretches.push(stretch);
    }
    stretches.push(nodes.iter().copied().filter(|id| waiting.contains(id)).collect());
    stretches
}

fn zipped(old: &[Option<ValueId>], new: &[Option<ValueId>]) -> Vec<TensorPair> {
    old.iter().zip(new).filter_map(|(old, new)| Some(((*old)?, (*new)?))).collect()
}
