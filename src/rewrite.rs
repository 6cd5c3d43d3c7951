//! Applies what was decided: the list of edits that make the new file of the old.
//!
//! Only what the new nodes made superfluous goes: nodes, initializers that nothing
//! reads any more, and the entries that describe removed tensors. All else, dead
//! nodes included, stays where it is.

use std::collections::{BTreeSet, HashMap, HashSet};

use prost::bytes::Bytes;

use crate::fuse::Fused;
use crate::onnx::graph::{Graph, NodeId, ValueId};
use crate::onnx::model::{Invalid, graph_field};
use crate::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::proto::{TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};
use crate::onnx::splice::{self, Edit};
use crate::plan::Plan;

/// What is spliced out and in.
#[derive(Debug, Default)]
pub struct Rewrite {
    /// For [`splice::write`], in file order and with lengths.
    pub edits: Vec<Edit>,
    /// Nodes that go away.
    pub removed_nodes: usize,
    /// Nodes that come.
    pub new_nodes: usize,
    /// Graph inputs that only named initializers which go away.
    pub removed_inputs: usize,
}

/// The edits that put each `Fused` in the place of what computes its output.
///
/// # Errors
/// If an entry's name cannot be read.
pub fn rewrite(graph: &Graph, blocks: &[(ValueId, &Fused)]) -> Result<Rewrite, Invalid> {
    if blocks.is_empty() {
        return Ok(Rewrite::default());
    }
    let replaced: HashMap<NodeId, &Fused> = blocks
        .iter()
        .filter_map(|&(output, fused)| Some((graph.value(output).producer?, fused)))
        .collect();
    let roots = replaced.iter().map(|(&id, fused)| (id, fused.roots.clone())).collect();
    let removed = removed_nodes(graph, &roots);
    let mut rewrite = Rewrite { removed_nodes: removed.len(), ..Rewrite::default() };

    let mut edits = Vec::new();
    for &id in &removed {
        let field = &graph.node(id).field;
        let mut with = Vec::new();
        if let Some(fused) = replaced.get(&id) {
            rewrite.new_nodes += fused.nodes.len();
            for node in &fused.nodes {
                with.extend(splice::entry(graph_field::NODE, node));
            }
        }
        edits.push(Edit { at: field.entry.clone(), with: with.into() });
    }

    let gone = gone_tensors(graph, &removed, &replaced);
    for &id in &gone {
        let value = graph.value(id);
        edits.extend(value.initializer.iter().map(|field| Edit::remove(field.entry.clone())));
        if value.initializer.is_some()
            && let Some(input) = &value.input
        {
            edits.push(Edit::remove(input.entry.clone()));
            rewrite.removed_inputs += 1;
        }
    }
    let gone: HashSet<&str> = gone.iter().map(|&id| graph.value(id).name.as_str()).collect();
    const NAME: u32 = 1;
    for number in [graph_field::VALUE_INFO, graph_field::QUANTIZATION_ANNOTATION] {
        for field in graph.model.graph_fields(number) {
            if gone.contains(graph.model.string_within(&field.payload, NAME)?.as_str()) {
                edits.push(Edit::remove(field.entry.clone()));
            }
        }
    }

    let at = graph.model.end_of_initializers();
    // Up to IR version 3 every initializer must be listed as a graph input too.
    let inputs_at = graph.model.graph_fields(graph_field::INPUT).next_back();
    let inputs_at = inputs_at.map(|field| field.entry.end).filter(|_| graph.model.ir_version < 4);
    let mut stored = HashSet::new();
    for tensor in blocks.iter().flat_map(|(_, fused)| &fused.tensors) {
        if stored.insert(tensor.name()) {
            let with: Bytes = splice::entry(graph_field::INITIALIZER, tensor).into();
            edits.push(Edit { at: at..at, with });
            edits.extend(inputs_at.map(|at| Edit {
                at: at..at,
                with: splice::entry(graph_field::INPUT, &info_of(tensor)).into(),
            }));
        }
    }
    rewrite.edits = splice::with_lengths(edits, &[graph.model.graph_container()]);
    Ok(rewrite)
}

/// Declares `tensor` as a graph input.
fn info_of(tensor: &TensorProto) -> ValueInfoProto {
    let dim = |&size: &i64| Dimension {
        value: Some(dimension::Value::DimValue(size)),
        ..Dimension::default()
    };
    let shape = TensorShapeProto { dim: tensor.dims.iter().map(dim).collect() };
    let value = type_proto::Tensor { elem_type: tensor.data_type, shape: Some(shape) };
    ValueInfoProto {
        name: tensor.name.clone(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(value)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// How many nodes the graph has once `plan` is carried out.
pub fn nodes_after(graph: &Graph, plan: &Plan) -> usize {
    let roots: HashMap<NodeId, Vec<ValueId>> = plan
        .blocks
        .iter()
        .filter_map(|block| {
            let roots = block.parts.iter().map(|part| part.root).collect();
            Some((graph.value(block.region.output).producer?, roots))
        })
        .collect();
    let new: usize = plan.blocks.iter().map(|block| block.after.nodes).sum();
    (graph.node_count() + new).saturating_sub(removed_nodes(graph, &roots).len())
}

/// Nodes that nothing needs any more, those that are replaced included. A node that
/// was dead before goes only if it would read a tensor that does not exist now.
fn removed_nodes(graph: &Graph, replaced: &HashMap<NodeId, Vec<ValueId>>) -> BTreeSet<NodeId> {
    let mut live: HashSet<NodeId> = HashSet::new();
    let mut wanted = graph.outputs.clone();
    while let Some(value) = wanted.pop() {
        let Some(producer) = graph.value(value).producer else { continue };
        if !live.insert(producer) {
            continue;
        }
        match replaced.get(&producer) {
            Some(roots) => wanted.extend(roots),
            None => wanted.extend(graph.uses(producer)),
        }
    }
    let mut removed = BTreeSet::new();
    for (id, _) in graph.nodes() {
        let reads_a_removed_one = || {
            let producers = graph.uses(id).filter_map(|value| {
                let producer = graph.value(value).producer?;
                let kept = replaced.contains_key(&producer)
                    && graph.node(producer).output() == Some(value);
                (!kept).then_some(producer)
            });
            producers.into_iter().any(|producer| removed.contains(&producer))
        };
        let died = graph.is_live(id) && !live.contains(&id);
        if died || replaced.contains_key(&id) || (!live.contains(&id) && reads_a_removed_one()) {
            removed.insert(id);
        }
    }
    removed
}

/// Tensors that no longer exist: what removed nodes made, and initializers that only
/// they read.
fn gone_tensors(
    graph: &Graph,
    removed: &BTreeSet<NodeId>,
    replaced: &HashMap<NodeId, &Fused>,
) -> BTreeSet<ValueId> {
    let mut read: HashSet<ValueId> = graph.outputs.iter().copied().collect();
    for (id, _) in graph.nodes().filter(|(id, _)| !removed.contains(id)) {
        read.extend(graph.uses(id));
    }
    read.extend(replaced.values().flat_map(|fused| &fused.roots));
    let mut gone = BTreeSet::new();
    for &id in removed {
        let kept = if replaced.contains_key(&id) { graph.node(id).output() } else { None };
        gone.extend(
            graph.node(id).outputs.iter().flatten().filter(|&&output| Some(output) != kept),
        );
        let stored = |value: &ValueId| graph.value(*value).initializer.is_some();
        gone.extend(graph.uses(id).filter(|value| stored(value) && !read.contains(value)));
    }
    gone
}
