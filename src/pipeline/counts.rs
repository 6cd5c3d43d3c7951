//! How much a model holds and computes, before and after: what only reports ask for.
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

/// How much may be spent on counting what is told of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// Nothing is counted.
    Nothing,
    /// What needs no more than the file and what is known of its sizes.
    WhatIsKnown,
    /// All; sizes are inferred for this purpose alone.
    Everything,
}

impl Counting {
    /// Of a model with more nodes, sizes are not inferred for this purpose alone: the
    /// engine's time for that grows faster than their number.
    fn most_nodes(self) -> usize {
        if self == Counting::Everything { 10_000 } else { 0 }
    }
}

/// How many nodes there are of each operator.
pub type Operators = BTreeMap<String, usize>;

/// How many nodes of each operator `graphs` have; those of other domains are named with it.
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

/// Of which operators there are more or fewer nodes `after` than `before`; those that changed most
/// first.
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

/// Elements of the floating-point tensors that `graphs` store, as initializers or in
/// `Constant` nodes.
///
/// # Errors
/// If one cannot be decoded.
pub fn parameters(graphs: &[Graph]) -> Result<u64, Invalid> {
    let mut count: u64 = 0;
    for graph in graphs {
        for (id, value) in graph.values() {
            // What a body reads of the graph around it is counted there.
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

/// How many elements a tensor of `dims` has, if they are floats.
fn floats(tensor: &TensorProto, dims: &[i64]) -> u64 {
    let product = |product: u64, &dim: &i64| product.saturating_mul(dim.unsigned_abs());
    Float::from_onnx(tensor.data_type()).map_or(0, |_| dims.iter().fold(1, product))
}

/// Multiply-adds of what is read as linear, for inputs of the known sizes and a batch of
/// one where that is open.
#[derive(Debug, Clone, PartialEq)]
pub struct MultiplyAdds {
    /// Of the old model; `None` if a size is not known.
    pub before: Option<f64>,
    /// Of the new one.
    pub after: Option<f64>,
    /// How many positions the outputs of the blocks have, in the order of the plans.
    pub positions: Vec<Option<f64>>,
}

/// Counts them, if per graph these `blocks` are made.
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

/// What a node that computes `output` costs; `None` if its size is not known.
fn macs_of(reader: &Reader, map: &LinearOp, output: ValueId, most_nodes: usize) -> Option<f64> {
    let each = map.macs().each;
    if each == 0.0 {
        return Some(0.0);
    }
    let geometry = map.geometry();
    let (positions, channels) = positions_of(reader, &geometry, output, most_nodes)?;
    // What treats all channels alike is counted for one of them.
    let channels = if geometry.channels.is_some() { 1.0 } else { channels? };
    Some(each * positions * channels)
}

/// How many positions the kernel of `term` makes of `output`, over all images: behind views, which
/// give these other axes, as many as have the channels of the kernel each.
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

/// How many positions, over all images, and channels `output` has. Sizes are not inferred for
/// this alone in graphs of more than `most_nodes`.
fn positions_of(
    reader: &Reader,
    geometry: &Geometry,
    output: ValueId,
    most_nodes: usize,
) -> Option<(f64, Option<f64>)> {
    let sizes = &reader.sizes;
    // Of a batch that is open, one image is counted.
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
