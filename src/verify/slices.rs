//! Cuts the nodes of a graph into consecutive slices, to be run one after the other: what each
//! one reads, makes, and leaves to those behind it.
//!
//! Knows the format; knows no engine, and not what becomes of a slice.

use std::collections::{HashMap, HashSet};

use prost::Message;

use crate::facts::roles;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::onnx::proto::TensorProto;
use crate::onnx::tensor::{self, Initializer};

/// Limits of one slice; a single node may exceed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceLimits {
    /// Number of nodes.
    pub nodes: usize,
    /// Bytes of the constants that the nodes read.
    pub bytes: usize,
}

/// Nodes that run without a stop, and the tensors that are wanted at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stretch {
    /// The nodes in an order in which they can run, without those that hold constants.
    pub nodes: Vec<NodeId>,
    /// Wanted tensors of this or an earlier stretch, graph inputs and constants.
    pub wanted: Vec<ValueId>,
}

/// A stretch, cut into slices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlicedStretch {
    /// The slices, in order.
    pub slices: Vec<Slice>,
    /// Wanted tensors that nobody needs behind the stretch.
    pub last_wanted: Vec<ValueId>,
}

/// Consecutive nodes of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slice {
    /// The nodes, in order, without those that hold constants.
    pub nodes: Vec<NodeId>,
    /// Constants that they read, or that are wanted.
    pub constants: Vec<ValueId>,
    /// Other tensors that they read and do not make.
    pub inputs: Vec<ValueId>,
    /// Tensors that they make for later slices, or that are wanted.
    pub outputs: Vec<ValueId>,
    /// The inputs that nobody needs behind this slice.
    pub last_read: Vec<ValueId>,
}

/// Returns the nodes of `graph` that a graph output needs, in order, without those that hold
/// constants.
pub fn live_nodes(graph: &Graph) -> Vec<NodeId> {
    let live = graph.nodes().filter(|&(id, node)| graph.is_live(id) && !makes_constant(node));
    live.map(|(id, _)| id).collect()
}

/// Cuts the stretches of `graph`, which run one after the other, into slices of at most `most`.
///
/// # Errors
/// Returns an error if a constant cannot be decoded.
pub fn cut(
    graph: &Graph,
    stretches: &[Stretch],
    most: SliceLimits,
) -> Result<Vec<SlicedStretch>, Invalid> {
    let grouped = stretches.iter().map(|stretch| grouped(graph, &stretch.nodes, most));
    let mut grouped = grouped.collect::<Result<Vec<_>, _>>()?;
    for (slices, stretch) in grouped.iter_mut().zip(stretches) {
        // Wanted constants come with the last slice.
        if slices.is_empty() && stretch.wanted.iter().any(|&id| is_constant(graph, id)) {
            slices.push(Slice::default());
        }
    }
    // Per tensor, the moment at which it is made, and the last one at which it is needed: there
    // is one moment per slice, and one for the end of each stretch.
    let (mut made, mut needed) = (HashMap::new(), HashMap::new());
    let mut moment = 0usize;
    for (slices, stretch) in grouped.iter().zip(stretches) {
        for slice in slices {
            for &node in &slice.nodes {
                made.extend(outputs(graph, node).map(|output| (output, moment)));
                needed.extend(graph.uses(node).map(|used| (used, moment)));
            }
            moment = moment.saturating_add(1);
        }
        needed.extend(stretch.wanted.iter().map(|&wanted| (wanted, moment)));
        moment = moment.saturating_add(1);
    }
    let mut moment = 0usize;
    let mut sliced = Vec::with_capacity(stretches.len());
    for (mut slices, stretch) in grouped.into_iter().zip(stretches) {
        for slice in &mut slices {
            let used = unique(slice.nodes.iter().flat_map(|&node| graph.uses(node)));
            let used = used.into_iter().filter(|used| made.get(used) != Some(&moment));
            (slice.constants, slice.inputs) = used.partition(|&used| is_constant(graph, used));
            let outputs = slice.nodes.iter().flat_map(|&node| outputs(graph, node));
            let is_needed = |output: &ValueId| needed.get(output).is_some_and(|&at| at > moment);
            slice.outputs = outputs.filter(is_needed).collect();
            let inputs = slice.inputs.iter().copied();
            slice.last_read = inputs.filter(|input| needed.get(input) == Some(&moment)).collect();
            moment = moment.saturating_add(1);
        }
        let wanted = unique(stretch.wanted.iter().copied());
        let constants = wanted.iter().copied().filter(|&id| is_constant(graph, id));
        let constants: Vec<ValueId> = constants.collect();
        if let Some(last) = slices.last_mut() {
            last.constants = unique(last.constants.iter().chain(&constants).copied());
            last.outputs.extend(constants);
        }
        let is_over = |id: &ValueId| needed.get(id) == Some(&moment);
        sliced.push(SlicedStretch {
            slices,
            last_wanted: wanted.into_iter().filter(is_over).collect(),
        });
        moment = moment.saturating_add(1);
    }
    Ok(sliced)
}

/// Groups nodes into slices.
fn grouped(graph: &Graph, nodes: &[NodeId], most: SliceLimits) -> Result<Vec<Slice>, Invalid> {
    let mut slices = Vec::new();
    let mut slice = Slice::default();
    let (mut bytes, mut read) = (0usize, HashSet::new());
    for &id in nodes {
        let mut own = 0usize;
        for used in graph.uses(id).filter(|&used| is_constant(graph, used)) {
            if !read.contains(&used) {
                own = own.saturating_add(size(graph, used)?);
            }
        }
        let is_full = slice.nodes.len() >= most.nodes || bytes.saturating_add(own) > most.bytes;
        if is_full && !slice.nodes.is_empty() {
            slices.push(std::mem::take(&mut slice));
            (bytes, read) = (0, HashSet::new());
        }
        bytes = bytes.saturating_add(own);
        read.extend(graph.uses(id));
        slice.nodes.push(id);
    }
    if !slice.nodes.is_empty() {
        slices.push(slice);
    }
    Ok(slices)
}

/// Returns the constant `id` with its data in the message; `None` if it is made by a node that
/// does not hold it as one tensor, or if it is stored sparsely.
///
/// # Errors
/// Returns an error if the constant cannot be decoded, or its data is missing.
pub fn tensor(graph: &Graph, id: ValueId) -> Result<Option<TensorProto>, Invalid> {
    let value = graph.value(id);
    let stored = match (graph.initializer(id)?, value.producer) {
        (Some(Initializer::Dense(stored)), _) => Some(stored),
        (None, Some(node)) => {
            graph.node(node).attribute("value").and_then(|value| value.t.as_deref().cloned())
        }
        _ => None,
    };
    let Some(stored) = stored else { return Ok(None) };
    let inlined = tensor::inlined(&stored, &graph.model.storage)?;
    Ok(Some(TensorProto { name: Some(value.name.to_owned()), ..inlined }))
}

/// Returns whether an initializer or a Constant node holds `id`.
pub fn is_constant(graph: &Graph, id: ValueId) -> bool {
    let value = graph.value(id);
    let producer = value.producer.map(|producer| graph.node(producer));
    value.initializer.is_some() || producer.is_some_and(makes_constant)
}

fn makes_constant(node: &Node) -> bool {
    roles::holds_constant(node) && node.inputs.is_empty() && node.outputs.len() == 1
}

fn size(graph: &Graph, id: ValueId) -> Result<usize, Invalid> {
    Ok(tensor(graph, id)?.map_or(0, |tensor| tensor.encoded_len()))
}

fn outputs(graph: &Graph, node: NodeId) -> impl Iterator<Item = ValueId> {
    graph.node(node).outputs.iter().flatten().copied()
}

/// Returns each id once, in order.
fn unique(ids: impl Iterator<Item = ValueId>) -> Vec<ValueId> {
    let mut seen = HashSet::new();
    ids.filter(|&id| seen.insert(id)).collect()
}
