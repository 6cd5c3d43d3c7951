//! Two models, node by node: what both compute from equal tensors, which nodes both have, and
//! where they part.
//!
//! Looks in both files, by names and bytes; knows nothing of what was planned, nor of what is
//! done with the result.

use std::collections::{HashMap, HashSet};

use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::model::Invalid;
use crate::verify::entries::{self, same_tensors};
use crate::verify::slices::{is_constant, live_nodes, tensor};

/// How a new graph relates to an old one. Only nodes that an output needs count.
#[derive(Debug, Default)]
pub struct Pairs {
    /// Nodes of the old graph that the new one has too, with equal inputs: both compute the same
    /// there.
    pub common: Vec<NodeId>,
    /// All other nodes of the old graph.
    pub old: Vec<NodeId>,
    /// All other nodes of the new one.
    pub new: Vec<NodeId>,
    /// Maps tensors of the new graph to those of the old one that are equal.
    pub equal: HashMap<ValueId, ValueId>,
    /// Maps nodes of the new graph to equal nodes of the old one, if they read what may differ.
    pub kept: HashMap<NodeId, NodeId>,
    /// Nodes of the old graph that the new one has too, whatever they read.
    pub shared_old: HashSet<NodeId>,
    /// Nodes of the new graph that the old one has too, except for those that run once for both:
    /// the nodes of `kept`.
    pub shared_new: HashSet<NodeId>,
    /// Tensors of one name that different nodes make, each of the old graph with that of the new
    /// one.
    pub parted: Vec<(ValueId, ValueId)>,
}

/// Returns whether two nodes of two models are the same.
fn is_alike((old, one): (&Graph, NodeId), (new, other): (&Graph, NodeId)) -> Result<bool, Invalid> {
    entries::same_nodes((old.model, &old.node(one).proto), (new.model, &new.node(other).proto))
}

impl Pairs {
    /// Compares the nodes of both graphs.
    ///
    /// # Errors
    /// Returns an error if a constant cannot be decoded.
    pub fn of(old: &Graph, new: &Graph) -> Result<Self, Invalid> {
        let mut pairs = Pairs { old: live_nodes(old), ..Pairs::default() };
        let by_output: HashMap<&str, NodeId> =
            pairs.old.iter().filter_map(|&id| Some((first_output(old, id)?, id))).collect();
        let is_fed = |graph: &Graph, id| {
            let value = graph.value(id);
            value.producer.is_none() && value.initializer.is_none()
        };
        for (id, value) in new.values().filter(|&(id, _)| is_fed(new, id)) {
            if let Some(old_id) = old.find(value.name).filter(|&old_id| is_fed(old, old_id)) {
                pairs.equal.insert(id, old_id);
            }
        }
        let mut common = HashSet::new();
        for id in live_nodes(new) {
            let twin = first_output(new, id).and_then(|name| by_output.get(name)).copied();
            let twin = match twin {
                Some(twin)
                    if is_alike((old, twin), (new, id))?
                        && pairs.has_equal_constants(old, twin, new, id)? =>
                {
                    Some(twin)
                }
                _ => None,
            };
            match twin {
                Some(twin) if new.uses(id).all(|used| pairs.equal.contains_key(&used)) => {
                    common.insert(twin);
                    let outputs = new.node(id).outputs.iter().zip(&old.node(twin).outputs);
                    let outputs = outputs.filter_map(|(&new, &old)| Some((new?, old?)));
                    pairs.equal.extend(outputs);
                }
                Some(twin) => {
                    pairs.kept.insert(id, twin);
                    pairs.new.push(id);
                }
                None => {
                    pairs.parted.extend(namesakes(old, new, id));
                    pairs.new.push(id);
                }
            }
        }
        pairs.shared_old = pairs.kept.values().chain(&common).copied().collect();
        pairs.shared_new = pairs.kept.keys().copied().collect();
        (pairs.common, pairs.old) = pairs.old.into_iter().partition(|id| common.contains(id));
        Ok(pairs)
    }

    /// Returns whether equal nodes read equal constants, and notes those that are equal.
    fn has_equal_constants(
        &mut self,
        old: &Graph,
        twin: NodeId,
        new: &Graph,
        id: NodeId,
    ) -> Result<bool, Invalid> {
        let used = |graph: &Graph, id| {
            graph.uses(id).map(|used| graph.value(used).name.to_owned()).collect::<Vec<_>>()
        };
        if used(old, twin) != used(new, id) {
            return Ok(false);
        }
        for (old_id, id) in old.uses(twin).zip(new.uses(id)) {
            if self.equal.contains_key(&id) {
                continue;
            }
            if is_same_constant(old, old_id, new, id)? {
                self.equal.insert(id, old_id);
            } else if is_constant(old, old_id) || is_constant(new, id) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Returns whether two tensors are constants that hold the same; sparse initializers never count
/// as the same.
///
/// # Errors
/// Returns an error if a constant cannot be decoded.
pub fn is_same_constant(
    old: &Graph,
    old_id: ValueId,
    new: &Graph,
    new_id: ValueId,
) -> Result<bool, Invalid> {
    if !is_constant(old, old_id) || !is_constant(new, new_id) {
        return Ok(false);
    }
    if let (Some(before), Some(after)) = (tensor(old, old_id)?, tensor(new, new_id)?) {
        return Ok(same_tensors((before, &old.model.storage), (after, &new.model.storage)));
    }
    let node = |graph: &Graph, id| {
        graph.value(id).producer.map(|producer| graph.node(producer).proto.clone())
    };
    Ok(node(old, old_id).is_some_and(|before| Some(before) == node(new, new_id)))
}

/// Returns what a node of the new graph makes, each output with the tensor of the old graph that
/// has the same name.
fn namesakes(old: &Graph, new: &Graph, id: NodeId) -> Vec<(ValueId, ValueId)> {
    let outputs = new.node(id).outputs.iter().flatten();
    let pairs = outputs.filter_map(|&made| Some((old.find(new.value(made).name)?, made)));
    let is_made = |id: ValueId| {
        let producer = old.value(id).producer;
        is_constant(old, id) || producer.is_some_and(|node| old.is_live(node))
    };
    pairs.filter(|&(old, _)| is_made(old)).collect()
}

fn first_output<'g>(graph: &'g Graph, id: NodeId) -> Option<&'g str> {
    graph.node(id).output().map(|output| graph.value(output).name)
}
