//! What regions share: kernels, which go away only if all their readers are rewritten alike,
//! and the tensors that take the place of these.
//!
//! Knows regions and the constants that they read; does not decide which are rewritten.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use prost::Message;

use crate::affine::{Geometry, Macs};
use crate::emit::term::Term;
use crate::onnx::ids::{IdMap, IdSet, NodeId, Table, ValueId};
use crate::onnx::node::Node;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::block::Block;
use crate::plan::cost::{self, Count};
use crate::plan::cuts::Absorbed;
use crate::plan::region::Region;

/// Which kernels serve more than one region. Rewriting frees such a kernel only if
/// all its readers are rewritten alike, for then they share the new one too.
pub struct Sharing<'a> {
    /// What the node's region reads of initializers, numbered.
    recipes: Table<NodeId, usize>,
    /// Whether all readers of a kernel are of one region, or of regions that read the same.
    alike: RefCell<IdMap<ValueId, bool>>,
    /// What regions read: nobody's to remove.
    roots: Table<ValueId, ()>,
    absorbed: &'a Absorbed,
}

impl<'a> Sharing<'a> {
    /// Of all `regions` of one round; uses that are `absorbed` go away anyway.
    pub fn of(
        reader: &Reader,
        meanings: &Meanings,
        regions: &[Region],
        absorbed: &'a Absorbed,
    ) -> Self {
        let mut recipes = Table::of(reader.graph.node_count());
        let mut numbers: HashMap<Vec<ValueId>, usize> = HashMap::new();
        for region in regions {
            let recipe = recipe(reader, meanings, region);
            let next = numbers.len();
            let number = *numbers.entry(recipe).or_insert(next);
            for &id in &region.nodes {
                recipes.insert(id, number);
            }
        }
        let roots = regions.iter().flat_map(|region| &region.cuts).copied().collect();
        Sharing { recipes, alike: RefCell::default(), roots, absorbed }
    }

    /// What goes away with `region`: its cost, and the nodes. Those that are `claimed` go
    /// away with another one too, which has counted them.
    pub fn cost_of(
        &self,
        reader: &Reader,
        meanings: &Meanings,
        region: &Region,
        claimed: &IdSet<NodeId>,
    ) -> (Count, IdSet<NodeId>) {
        let graph = reader.graph;
        let mut dying: IdSet<NodeId> = IdSet::default();
        let once = Macs::each(1.0);
        let mut positions: IdMap<ValueId, Macs> = IdMap::from_iter([(region.output, once)]);
        let (mut count, mut known) = (Count::default(), None);
        for &id in region.nodes.iter().rev() {
            let node = graph.node(id);
            let Some(output) = node.output() else { continue };
            let source = meanings.source(output);
            let is_read_inside = |&by: &NodeId| {
                dying.contains(&by)
                    || self.absorbed.contains(&(by, source))
                    || computes_constant(reader, by)
            };
            let value = graph.value(output);
            let is_needed = value.is_output || self.roots.contains(output);
            let dies =
                output == region.output || !is_needed && value.readers.iter().all(is_read_inside);
            let here = positions.get(&output).copied().unwrap_or(once);
            let geometry = match meanings.get(id) {
                Some(Meaning::Linear(_, map)) => map.geometry(),
                _ => Geometry::identity(),
            };
            for input in graph.uses(id) {
                positions.insert(input, here.before(&geometry));
            }
            if !dies {
                continue;
            }
            dying.insert(id);
            if claimed.contains(&id) {
                continue;
            }
            count.nodes += 1;
            if let Some(Meaning::Linear(input, map)) = meanings.get(id) {
                if let LinearOp::Filter { .. } = map {
                    let made = known.get_or_insert_with(|| channels(reader, meanings, region));
                    let made = made.get(&meanings.source(*input)).copied();
                    count.parameters += cost::of_node(map, made.unwrap_or(0)).weights;
                }
                count.macs = count.macs.plus(here.times(map.macs().each));
                count.parameters += self.parameters(reader, node, id, map);
            }
        }
        (count, dying)
    }

    /// Whether all readers of the kernel `value`, of which `id` is one, are rewritten alike.
    fn are_alike(&self, reader: &Reader, value: ValueId, id: NodeId) -> bool {
        let recipe = self.recipes.get(id);
        let all = || {
            let mut readers = reader.graph.value(value).readers.iter();
            readers.all(|&by| computes_constant(reader, by) || self.recipes.get(by) == recipe)
        };
        *self.alike.borrow_mut().entry(value).or_insert_with(all)
    }

    fn parameters(&self, reader: &Reader, node: &Node, id: NodeId, map: &LinearOp) -> f64 {
        let elements = |value: ValueId| {
            let dims = reader.constants.dims(value).ok().flatten();
            dims.map_or(0.0, |dims| dims.iter().map(|&dim| dim as f64).product())
        };
        let freed = |value: &ValueId| match map {
            LinearOp::Conv { kernel, .. } if kernel == value => self.are_alike(reader, *value, id),
            _ => true,
        };
        match map {
            // Pads, bounds and scalars are no parameters.
            LinearOp::Filter { .. }
            | LinearOp::Transpose { .. }
            | LinearOp::Bordered { .. }
            | LinearOp::View(_) => 0.0,
            _ => {
                let constants =
                    node.inputs.iter().flatten().filter(|&&v| reader.constants.contains(v));
                constants.filter(|value| freed(value)).map(|&value| elements(value)).sum()
            }
        }
    }
}

/// How many channels the tensors of a region have, as far as its kernels and norms say it.
fn channels(reader: &Reader, meanings: &Meanings, region: &Region) -> IdMap<ValueId, usize> {
    let mut known: IdMap<ValueId, usize> = IdMap::default();
    for id in region.read_nodes() {
        let Some((output, meaning)) = reader.graph.node(id).output().zip(meanings.get(id)) else {
            continue;
        };
        let own = match meaning {
            Meaning::Linear(_, map) => map.geometry().channels.map(|channels| channels.outputs),
            _ => None,
        };
        let read = || {
            let operands = meaning.operands();
            operands.iter().find_map(|&of| known.get(&meanings.source(of)).copied())
        };
        if let Some(channels) = own.or_else(read) {
            known.insert(output, channels);
        }
    }
    known
}

/// The initializers that a region reads.
fn recipe(reader: &Reader, meanings: &Meanings, region: &Region) -> Vec<ValueId> {
    let uses = region.nodes.iter().flat_map(|&id| reader.graph.uses(id));
    let sources = uses.map(|value| meanings.source(value));
    let mut recipe: Vec<ValueId> =
        sources.filter(|&value| reader.graph.value(value).initializer.is_some()).collect();
    recipe.sort_unstable();
    recipe.dedup();
    recipe
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
            let tensors = first.tensors.clone();
            blocks.iter_mut().skip(index).take(1).for_each(|b| b.tensors.clone_from(&tensors));
        }
    }
}

/// What is equal of blocks that are the same, and of hardly any others: each is compared
/// with one other block, not with all that read the same constants.
fn digest(reader: &Reader, meanings: &Meanings, block: &Block, hashes: &RandomState) -> u64 {
    let (graph, constants) = (reader.graph, reader.constants);
    let mut hasher = hashes.build_hasher();
    recipe(reader, meanings, &block.region).hash(&mut hasher);
    // What is made inside and what is read are numbered in the order in which they occur.
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
                // Two Constant nodes may hold the same.
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

/// Whether two blocks do the same with the same constants, node by node; only what they
/// read may be another tensor.
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
        (term.kind, term.map.clone(), term.before.clone(), term.after.clone())
    };
    a.float == b.float
        && nodes.len() == others.len()
        && a.terms.iter().map(shape).eq(b.terms.iter().map(shape))
        && nodes.iter().zip(others).all(&mut same_node)
}

/// A node that computes a constant (the shape of a zero bias, a cast to the type of
/// an activation) goes with its reader.
fn computes_constant(reader: &Reader, id: NodeId) -> bool {
    reader.graph.node(id).output().is_some_and(|output| reader.constants.contains(output))
}
