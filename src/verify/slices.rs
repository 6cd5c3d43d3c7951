//! A graph in consecutive slices, to be run one after the other: what each one reads,
//! makes, and leaves to those behind it.
//!
//! Knows the format; knows no engine, and not what becomes of a slice.

use std::collections::{HashMap, HashSet};

use prost::Message;

use crate::facts::roles;
use crate::onnx::graph::{Graph, Initializer};
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::onnx::proto::TensorProto;
use crate::onnx::tensor;

/// What one slice may hold; a single node may have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Nodes.
    pub nodes: usize,
    /// Bytes of the constants that they read.
    pub bytes: usize,
}

/// Consecutive nodes of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slice {
    /// Those that a graph output needs, in order. Constant nodes are not among them.
    pub nodes: Vec<NodeId>,
    /// Constants that they read.
    pub constants: Vec<ValueId>,
    /// What else they read and do not make.
    pub inputs: Vec<ValueId>,
    /// What they make for later slices, or for the graph's outputs.
    pub outputs: Vec<ValueId>,
    /// Those of the inputs that nothing behind this slice reads.
    pub last_read: Vec<ValueId>,
}

/// Cuts `graph`.
///
/// # Errors
/// If a constant cannot be decoded.
pub fn cut(graph: &Graph, most: Most) -> Result<Vec<Slice>, Invalid> {
    let mut slices = grouped(graph, most)?;
    let constants = graph.outputs.iter().copied().filter(|&output| is_constant(graph, output));
    let constants: Vec<ValueId> = unique(constants);
    // Nodes that an output needs are in some slice; constants that are outputs are in the last.
    if !constants.is_empty() && slices.is_empty() {
        slices.push(Slice::default());
    }
    // Per tensor, the slice that makes it, and the last that reads it.
    let (mut made, mut read) = (HashMap::new(), HashMap::new());
    for (index, slice) in slices.iter().enumerate() {
        for &node in &slice.nodes {
            made.extend(outputs(graph, node).map(|output| (output, index)));
            read.extend(graph.uses(node).map(|used| (used, index)));
        }
    }
    read.extend(graph.outputs.iter().map(|&output| (output, usize::MAX)));
    for (index, slice) in slices.iter_mut().enumerate() {
        let used = unique(slice.nodes.iter().flat_map(|&node| graph.uses(node)));
        let used = used.into_iter().filter(|used| made.get(used) != Some(&index));
        (slice.constants, slice.inputs) = used.partition(|&used| is_constant(graph, used));
        let outputs = slice.nodes.iter().flat_map(|&node| outputs(graph, node));
        let is_wanted = |output: &ValueId| read.get(output).is_some_and(|&last| last > index);
        slice.outputs = outputs.filter(is_wanted).collect();
        let inputs = slice.inputs.iter().copied();
        slice.last_read = inputs.filter(|input| read.get(input) == Some(&index)).collect();
    }
    if let Some(last) = slices.last_mut() {
        last.constants = unique(last.constants.iter().chain(&constants).copied());
        last.outputs.extend(constants);
    }
    Ok(slices)
}

/// The nodes of each slice.
fn grouped(graph: &Graph, most: Most) -> Result<Vec<Slice>, Invalid> {
    let mut slices = Vec::new();
    let mut slice = Slice::default();
    let (mut bytes, mut read) = (0usize, HashSet::new());
    let live = graph.nodes().filter(|&(id, node)| graph.is_live(id) && !makes_constant(node));
    for (id, _) in live {
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

/// The constant `id` with its data in the message; `None` if a node makes it that does not
/// hold it as one tensor, or if it is stored sparsely.
///
/// # Errors
/// If it cannot be decoded, or its data is missing.
pub fn tensor(graph: &Graph, id: ValueId) -> Result<Option<TensorProto>, Invalid> {
    let value = graph.value(id);
    let stored = match (graph.initializer(id)?, value.producer) {
        (Some(Initializer::Dense(stored)), _) => Some(stored),
        (None, Some(node)) => graph.node(node).attribute("value").and_then(|value| value.t.clone()),
        _ => None,
    };
    let Some(stored) = stored else { return Ok(None) };
    let inlined = tensor::inlined(&stored, &graph.model.storage)?;
    Ok(Some(TensorProto { name: Some(value.name.clone()), ..inlined }))
}

fn is_constant(graph: &Graph, id: ValueId) -> bool {
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

/// Each of them once, in order.
fn unique(ids: impl Iterator<Item = ValueId>) -> Vec<ValueId> {
    let mut seen = HashSet::new();
    ids.filter(|&id| seen.insert(id)).collect()
}
