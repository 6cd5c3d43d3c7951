//! The tensors that blocks share: blocks that do the same with the same constants share the
//! tensors that take the place of these.
//!
//! Knows blocks and the constants that they read; decides nothing about them.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use prost::Message;

use crate::affine::Geometry;
use crate::emit::layout::weighted_operator;
use crate::emit::term::Term;
use crate::onnx::ids::{IdMap, NodeId, ValueId};
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::block::Block;
use crate::plan::region::Region;

/// Returns the initializers that a region reads.
fn initializers_read(reader: &Reader, meanings: &Meanings, region: &Region) -> Vec<ValueId> {
    let uses = region.nodes.iter().flat_map(|&id| reader.graph.uses(id));
    let sources = uses.map(|value| meanings.source(value));
    let mut read: Vec<ValueId> =
        sources.filter(|&value| reader.graph.value(value).initializer.is_some()).collect();
    read.sort_unstable();
    read.dedup();
    read
}

/// Gives blocks that do the same with the same constants the names of one set of tensors.
pub fn share_tensors(reader: &Reader, meanings: &Meanings, blocks: &mut [Block]) {
    let hashes = RandomState::new();
    let mut first_of: HashMap<u64, usize> = HashMap::new();
    for index in 0..blocks.len() {
        let Some(block) = blocks.get(index) else { continue };
        let first = *first_of.entry(digest(reader, meanings, block, &hashes)).or_insert(index);
        let first = blocks.get(first).filter(|_| first != index);
        if let Some(first) = first.filter(|first| are_same(reader, meanings, first, block)) {
            let tensor_stem = first.tensor_stem.clone();
            if let Some(block) = blocks.get_mut(index) {
                block.tensor_stem = tensor_stem;
            }
        }
    }
}

/// Returns a hash that is equal for blocks that are the same and for hardly any others: each
/// block is compared with one other block, not with all that read the same constants.
fn digest(reader: &Reader, meanings: &Meanings, block: &Block, hashes: &RandomState) -> u64 {
    let (graph, constants) = (reader.graph, reader.constants);
    let mut hasher = hashes.build_hasher();
    initializers_read(reader, meanings, &block.region).hash(&mut hasher);
    // Tensors that are made inside or read are numbered in the order in which they occur.
    let mut numbers: IdMap<ValueId, usize> = IdMap::default();
    let mut encoded = Vec::new();
    for &id in &block.region.nodes {
        let node = graph.node(id);
        (node.proto.op_type(), node.proto.domain(), node.inputs.len()).hash(&mut hasher);
        encoded.clear();
        for attribute in &node.proto.attribute {
            // Writing to a vector cannot fail.
            let _ = attribute.encode_length_delimited(&mut encoded);
        }
        encoded.hash(&mut hasher);
        for input in node.inputs.iter().flatten().map(|&input| meanings.source(input)) {
            if !constants.contains(input) {
                let next = numbers.len();
                numbers.entry(input).or_insert(next).hash(&mut hasher);
            } else if graph.value(input).initializer.is_none() {
                // Two Constant nodes may hold the same tensor.
                let tensor = constants.tensor(input).ok().flatten();
                let tensor = tensor.map(|tensor| (tensor.dims.clone(), tensor.raw_data.clone()));
                tensor.hash(&mut hasher);
            }
        }
        for &output in node.outputs.iter().flatten() {
            let next = numbers.len();
            numbers.entry(output).or_insert(next);
        }
    }
    hasher.finish()
}

/// Whether two blocks do the same with the same constants, node by node; only the tensors that
/// they read may differ.
fn are_same(reader: &Reader, meanings: &Meanings, a: &Block, b: &Block) -> bool {
    let (graph, constants) = (reader.graph, reader.constants);
    let made = |block: &Block| -> IdMap<ValueId, usize> {
        let nodes = block.region.nodes.iter().enumerate();
        let outputs = nodes.flat_map(|(at, &id)| {
            graph.node(id).outputs.iter().flatten().map(move |&output| (output, at))
        });
        outputs.collect()
    };
    let (made_by_a, made_by_b) = (made(a), made(b));
    let value = |id: ValueId| {
        let tensor = constants.tensor(id).ok().flatten();
        tensor.map(|tensor| TensorProto { name: None, ..(*tensor).clone() })
    };
    let mut roots: IdMap<ValueId, ValueId> = IdMap::default();
    let mut same_input = |a: Option<ValueId>, b: Option<ValueId>| {
        let (Some(a), Some(b)) = (a, b) else { return a == b };
        let (a, b) = (meanings.source(a), meanings.source(b));
        match (made_by_a.get(&a), made_by_b.get(&b)) {
            (None, None) if constants.contains(a) && constants.contains(b) => {
                a == b || value(a).is_some_and(|value_of_a| Some(value_of_a) == value(b))
            }
            (None, None) => *roots.entry(a).or_insert(b) == b,
            (a, b) => a == b,
        }
    };
    let mut same_node = |(&a, &b): (&NodeId, &NodeId)| {
        let (a, b) = (graph.node(a), graph.node(b));
        let same = |a: &NodeProto, b: &NodeProto| {
            (a.op_type(), a.domain(), &a.attribute) == (b.op_type(), b.domain(), &b.attribute)
        };
        same(&a.proto, &b.proto)
            && a.inputs.len() == b.inputs.len()
            && a.inputs.iter().zip(&b.inputs).all(|(&a, &b)| same_input(a, b))
    };
    let (nodes, others) = (&a.region.nodes, &b.region.nodes);
    let shape = |term: &Term<Geometry>| {
        (term.kind, term.map.clone(), term.before.clone(), term.after.clone(), term.part.clone())
    };
    let shapes = |block: &Block| -> Vec<Vec<_>> {
        block.terms.iter().map(|term| term.kernels().map(shape).collect()).collect()
    };
    // A block that reads a by-product may be a convolution where the other one is a product.
    let forms = reader.forms;
    let operators = |block: &Block| -> Vec<Vec<_>> {
        let written = block.terms.iter().map(|term| block.written(term, forms));
        let operator = |term: &Term<Geometry>| weighted_operator(&term.map, forms);
        written.map(|term| term.kernels().map(operator).collect()).collect()
    };
    a.float == b.float
        && nodes.len() == others.len()
        && shapes(a) == shapes(b)
        && operators(a) == operators(b)
        && nodes.iter().zip(others).all(&mut same_node)
}
