//! How much a model holds and computes, before and after: counts that only reports need.
//!
//! Knows plans and sizes; decides nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::affine::Geometry;
use crate::emit::term::Term;
use crate::facts::roles;
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::model::{Invalid, is_default_domain};
use crate::onnx::proto::TensorProto;
use crate::onnx::tensor::Initializer;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::reader::Reader;
use crate::pipeline::analysis::GraphAnalysis;
use crate::plan::Block;
use crate::report::OperatorChange;

/// How much may be spent on counting for the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// Nothing is counted.
    Nothing,
    /// Only what follows from the file and from sizes that are already known.
    WhatIsKnown,
    /// Everything; sizes are inferred for this purpose alone.
    Everything,
}

impl Counting {
    /// Upper bound on the nodes of a graph for which sizes are inferred for this purpose alone:
    /// the engine's time for that grows faster than their number.
    fn most_nodes(self) -> usize {
        if self == Counting::Everything { 10_000 } else { 0 }
    }
}

/// The number of nodes of each operator.
pub type Operators = BTreeMap<String, usize>;

/// Counts the nodes of each operator in `graphs`. Those of other domains are named
/// `domain.operator`.
pub fn operators<'g, 'm: 'g>(graphs: impl IntoIterator<Item = &'g Graph<'m>>) -> Operators {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (_, node) in graphs.into_iter().flat_map(Graph::nodes) {
        let count = counts.entry((node.proto.domain(), node.proto.op_type())).or_default();
        *count = count.saturating_add(1);
    }
    let named = counts.into_iter().map(|((domain, operator), count)| {
        let is_onnx = is_default_domain(domain);
        let name = if is_onnx { operator.to_owned() } else { format!("{domain}.{operator}") };
        (name, count)
    });
    let mut operators = Operators::new();
    for (name, count) in named {
        // The default domain has two names.
        let sum = operators.entry(name).or_default();
        *sum = sum.saturating_add(count);
    }
    operators
}

/// Returns the operators whose counts `before` and `after` differ, the largest changes first.
pub fn changes(before: &Operators, after: &Operators) -> Vec<OperatorChange> {
    let count = |of: &Operators, name: &str| of.get(name).copied().unwrap_or_default();
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changes = names.into_iter().map(|name| OperatorChange {
        operator: name.clone(),
        before: count(before, name),
        after: count(after, name),
    });
    let mut changes: Vec<_> = changes.filter(|change| change.before != change.after).collect();
    changes.sort_by_key(|change| Reverse(change.before.abs_diff(change.after)));
    changes
}

/// Counts the elements of the float tensors in `graphs`: initializers and `Constant` nodes.
///
/// # Errors
/// Returns an error if a tensor cannot be decoded.
pub fn parameters(graphs: &[Graph]) -> Result<u64, Invalid> {
    let mut count: u64 = 0;
    for graph in graphs {
        for (id, value) in graph.values() {
            // A tensor that a body reads from the graph around it is counted there.
            if value.initializer.is_none() || value.outer.is_some() {
                continue;
            }
            count = count.saturating_add(match graph.initializer(id)? {
                Some(Initializer::Dense(tensor)) => floats(&tensor, &tensor.dims),
                Some(Initializer::Sparse(sparse)) => {
                    sparse.values.as_ref().map_or(0, |values| floats(values, &sparse.dims))
                }
                None => 0,
            });
        }
        let constants = graph.nodes().filter(|(_, node)| roles::holds_constant(node));
        for attribute in constants.flat_map(|(_, node)| &node.proto.attribute) {
            let tensor = attribute.t.as_deref().map_or(0, |tensor| floats(tensor, &tensor.dims));
            let list = attribute.floats.len() as u64;
            count = count.saturating_add(tensor).saturating_add(list);
        }
    }
    Ok(count)
}

/// Returns the number of elements of a tensor of `dims`, or 0 if they are not floats.
fn floats(tensor: &TensorProto, dims: &[i64]) -> u64 {
    let product = |product: u64, &dim: &i64| product.saturating_mul(dim.unsigned_abs());
    Float::from_onnx(tensor.data_type()).map_or(0, |_| dims.iter().fold(1, product))
}

/// The multiply-adds of all nodes that are read as linear, for inputs of the known sizes and a
/// batch of one where it is open.
#[derive(Debug, Clone, PartialEq)]
pub struct MultiplyAdds {
    /// Multiply-adds of the old model; `None` if a size is not known.
    pub before: Option<f64>,
    /// Multiply-adds of the new model; `None` if a size is not known.
    pub after: Option<f64>,
    /// The positions of each block's output, in plan order; `None` if a size is not known.
    pub positions: Vec<Option<f64>>,
}

/// Counts the multiply-adds before and after, if these `blocks` of each graph are made.
pub fn multiply_adds(
    analyses: &[GraphAnalysis],
    blocks: &[Vec<&Block>],
    counting: Counting,
) -> MultiplyAdds {
    let most_nodes = counting.most_nodes();
    let (mut removed_macs, mut kept, mut new) = (Some(0.0), Some(0.0), Some(0.0));
    let mut positions = Vec::new();
    for (analysis, blocks) in analyses.iter().zip(blocks) {
        let reader = analysis.reader;
        let removed = blocks.iter().flat_map(|block| &block.removed);
        let removed: HashSet<NodeId> = removed.copied().collect();
        for (id, node) in reader.graph.nodes() {
            let Some(Meaning::Linear(_, map)) = analysis.meanings.get(id) else { continue };
            let sum = if removed.contains(&id) { &mut removed_macs } else { &mut kept };
            *sum = add(
                *sum,
                node.output().and_then(|output| macs_of(reader, map, output, most_nodes)),
            );
        }
        for block in blocks {
            let term = block.terms.iter().find(|term| term.map.channels.is_some());
            let here =
                term.and_then(|term| made_positions(reader, term, block.region.output, most_nodes));
            new = add(new, here.map(|here| here * block.after.macs.each));
            positions.push(here);
        }
    }
    MultiplyAdds { before: add(removed_macs, kept), after: add(kept, new), positions }
}

fn add(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? + b?)
}

/// Returns the multiply-adds of a node that computes `output`; `None` if its size is not known.
fn macs_of(reader: &Reader, map: &LinearOp, output: ValueId, most_nodes: usize) -> Option<f64> {
    let each = map.macs().each;
    if each == 0.0 {
        return Some(0.0);
    }
    let geometry = map.geometry();
    let (positions, channels) = positions_of(reader, &geometry, output, most_nodes)?;
    // A map that treats all channels alike is counted for one channel.
    let channels = if geometry.channels.is_some() { 1.0 } else { channels? };
    Some(each * positions * channels)
}

/// Returns the number of positions, over all images, that the kernel of `term` computes for
/// `output`. Behind views, which give them other axes, this is the number of elements divided by
/// the kernel's output channels.
fn made_positions(
    reader: &Reader,
    term: &Term<Geometry>,
    output: ValueId,
    most_nodes: usize,
) -> Option<f64> {
    if term.after.is_empty() {
        return Some(positions_of(reader, &term.map, output, most_nodes)?.0);
    }
    let (positions, others) = positions_of(reader, &Geometry::identity(), output, most_nodes)?;
    let holds_elements = term.after.iter().all(|view| view.view.rank().is_some());
    let outputs = term.map.channels.filter(|_| holds_elements)?.outputs;
    Some(positions * others? / outputs as f64)
}

/// Returns the number of positions, over all images, and the number of channels of `output`.
/// Sizes are not inferred for this alone in graphs of more than `most_nodes` nodes.
fn positions_of(
    reader: &Reader,
    geometry: &Geometry,
    output: ValueId,
    most_nodes: usize,
) -> Option<(f64, Option<f64>)> {
    let sizes = &reader.sizes;
    // If the batch size is open, one image is counted.
    let is_open =
        |(axis, size): (usize, &Option<i64>)| axis != geometry.output.axis(0) && size.is_none();
    let ruled = sizes.by_rules(output).filter(|dims| !dims.iter().enumerate().any(is_open));
    let shape = match ruled {
        Some(dims) => dims,
        None if !sizes.has_asked_engine() && reader.graph.node_count() > most_nodes => return None,
        None => sizes.known(output)?,
    };
    let [batch, channels] = [0, 1].map(|role| geometry.output.axis(role));
    let size = |axis: usize| shape.get(axis).copied().flatten().map(|size| size as f64);
    let mut positions = Some(1.0);
    for axis in (0..shape.len()).filter(|&axis| axis != channels) {
        let open = if axis == batch { Some(1.0) } else { None };
        positions = Some(positions? * size(axis).or(open)?);
    }
    Some((positions?, size(channels)))
}
