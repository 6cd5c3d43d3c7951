//! What will be rewritten: blocks, their names, and their cost before and after.
//!
//! A region becomes a [`Block`] if its result, counted, has fewer nodes and no more
//! weights and multiply-adds, and if its weights exist in the model's type
//! ([`fit`]). Writes nothing; what it decides can be printed.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

pub mod cuts;
pub mod fit;
pub mod region;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::iter::{once, repeat};
use std::sync::Arc;

use prost::Message;

use crate::affine::{ConvKind, Geometry, Macs, Refusal};
use crate::emit::layout::nodes_of;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, IdSet, NodeId, Table, ValueId};
use crate::onnx::names::{self, UniqueNames};
use crate::onnx::node::Node;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::cuts::{Absorbed, Walk};
use crate::plan::region::{Region, Term, TermKind};
use crate::refusal::{NearMiss, NotLinear, Reason};

/// No kernel of a real network has more weights; a bound on what is allocated.
const MAX_WEIGHTS: f64 = (1u64 << 31) as f64;

/// How often the regions are reconsidered; real models need one round.
const MAX_ROUNDS: usize = 8;

/// How often smaller regions are looked for inside those that are left alone; in real
/// models these nest a few deep.
const MAX_RETRIES: usize = 64;

const TOO_MANY_RETRIES: Reason =
    Reason::Limit("smaller blocks are looked for 64 times inside those that are left alone");

/// Size of a piece of graph.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Count {
    /// Nodes.
    pub nodes: usize,
    /// Elements of weights, biases and statistics.
    pub parameters: f64,
    /// Multiply-adds per position of the block's output.
    pub macs: Macs,
}

/// One region that is rewritten.
#[derive(Debug, Clone)]
pub struct Block {
    /// The common part of its branches' names.
    pub name: String,
    /// What the names of its new nodes and tensors begin with; no name in the model does.
    pub stem: String,
    /// What the names of its new tensors begin with: that of the first block that is the
    /// same, so that kernels which blocks share are shared by what takes their place.
    pub tensors: String,
    /// Which nodes.
    pub region: Region,
    /// Those of its nodes that nobody else needs.
    pub removed: IdSet<NodeId>,
    /// Its branches, as in `3×3 + 1×3 + 3×1`.
    pub branches: String,
    /// The same, as it may be drawn.
    pub drawing: Arc<Drawing>,
    /// Batch norms that are folded.
    pub norms: usize,
    /// The normal form: a convolution per weighted part, the rest added.
    pub parts: Vec<Term<Geometry>>,
    /// For which inputs it is right.
    pub valid: Validity,
    /// Type of its weights.
    pub float: Float,
    /// What the nodes that go away cost.
    pub before: Count,
    /// What the new ones cost.
    pub after: Count,
}

/// A block's branches from what they read to their sum, and what comes after it, as in
/// `3×3`, `norm`, `scale`, `identity`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drawing {
    /// One per branch; the last may stand for further ones.
    pub branches: Vec<Vec<Arc<str>>>,
    /// What all branches have in common at their end.
    pub after: Vec<Arc<str>>,
}

/// What will be done, and what will not.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In topological order.
    pub blocks: Vec<Block>,
    /// Places left alone.
    pub near_misses: Vec<NearMiss>,
}

/// Plans the rewrite of a graph, except for the blocks called `skip`. `names` serve
/// all graphs of a model.
pub fn plan(reader: &Reader, meanings: &Meanings, names: &mut BlockNames, skip: &[String]) -> Plan {
    names.names.clear();
    let made_by = |nodes: &[NodeId]| -> Vec<ValueId> {
        nodes.iter().filter_map(|&id| reader.graph.node(id).output()).collect()
    };
    let mut left_alone = IdSet::default();
    let mut refused = Vec::new();
    let mut inside_refused: IdSet<NodeId> = IdSet::default();
    let mut absorbed = Absorbed::default();
    let (mut rounds, mut retries) = (0, 0);
    loop {
        let found = Walk::new(reader, meanings, &absorbed).regions(&left_alone);
        let shared = Sharing::of(reader, meanings, &found.regions, &absorbed);
        let mut plan = Plan { blocks: Vec::new(), near_misses: found.near_misses };
        let mut claimed: IdSet<NodeId> = IdSet::default();
        let before = left_alone.len();
        for region in found.regions {
            let output = region.output;
            let nodes = region.nodes.clone();
            match block(reader, meanings, region, &shared, &claimed) {
                Ok(mut block) => {
                    let name = names.of_block(reader.graph, meanings, &block.region);
                    if skip.contains(&name) {
                        // None of its parts is touched either.
                        left_alone.extend(made_by(&nodes));
                        refused.push(NearMiss { node: name, reason: Reason::Skipped });
                    } else {
                        block.stem = format!("{name}{}", names.suffix);
                        block.tensors.clone_from(&block.stem);
                        block.name = name;
                        claimed.extend(&block.removed);
                        plan.blocks.push(block);
                    }
                }
                Err(reason) => {
                    left_alone.insert(output);
                    if retries > MAX_RETRIES {
                        left_alone.extend(made_by(&nodes));
                    }
                    let reason = match reason {
                        Reason::Dearer { .. } if retries > MAX_RETRIES => TOO_MANY_RETRIES,
                        reason => reason,
                    };
                    // Of a region and the smaller ones inside it, the whole is the news.
                    let last = nodes.last().filter(|node| !inside_refused.contains(node));
                    if let Some(&last) = last {
                        let node = reader.graph.node(last).label().to_owned();
                        refused.push(NearMiss { node, reason });
                    }
                    inside_refused.extend(nodes);
                }
            }
        }
        // A region that is left alone may hold smaller ones that are worth it.
        if left_alone.len() > before {
            retries += 1;
            continue;
        }
        // Tensors that lost some of their readers to blocks may now go into the others.
        let now = absorbed_uses(reader, meanings, &plan);
        rounds += 1;
        if now == absorbed || rounds == MAX_ROUNDS {
            plan.near_misses.append(&mut refused);
            share_tensors(reader, meanings, &mut plan.blocks);
            return plan;
        }
        absorbed = now;
    }
}

/// Uses that go away with the plan's blocks, of tensors that are still used by others.
fn absorbed_uses(reader: &Reader, meanings: &Meanings, plan: &Plan) -> Absorbed {
    let mut absorbed = Absorbed::default();
    for block in &plan.blocks {
        for &id in &block.removed {
            let sources = reader.graph.uses(id).map(|value| meanings.source(value));
            let gone = sources.filter(|source| !block.region.cuts.contains(source));
            absorbed.extend(gone.map(|source| (id, source)));
        }
    }
    let outputs: Table<ValueId, ()> = plan.blocks.iter().map(|block| block.region.output).collect();
    let removed: Table<NodeId, ()> = plan.blocks.iter().flat_map(|b| &b.removed).copied().collect();
    let remains = |source: ValueId| {
        let producer = reader.graph.value(source).producer;
        outputs.contains(source) || producer.is_some_and(|producer| !removed.contains(producer))
    };
    absorbed.retain(|&(_, source)| remains(source));
    absorbed
}

fn block(
    reader: &Reader,
    meanings: &Meanings,
    region: Region,
    shared: &Sharing,
    claimed: &IdSet<NodeId>,
) -> Result<Block, Reason> {
    let shape = |map: &LinearOp| Ok::<_, Refusal>(map.geometry());
    let (parts, mut valid) = region.evaluate(meanings, reader, &Geometry::identity(), shape)?;
    let mut crops = Validity::default();
    parts.iter().for_each(|part| require_enough_to_crop(part, &mut crops));
    // Where that is open, nothing that the report says would keep a caller from it.
    must_hold(reader, &crops, |size, sizes| size.is_some_and(|size| sizes.contains(size)))?;
    valid.intersect(&crops);
    must_hold(reader, &valid, |size, sizes| size.is_none_or(|size| sizes.contains(size)))?;
    let mut layouts = parts.iter().filter(|part| part.kind == TermKind::Conv);
    if layouts.next().is_some_and(|first| layouts.any(|part| part.map.output != first.map.output)) {
        return Err(Refusal::Axes.into());
    }
    let after = cost_of(&parts, reader.graph.model.opset);
    let (before, removed) = shared.cost_of(reader, meanings, &region, claimed);
    let emittable = parts.iter().all(|part| part.kind != TermKind::Pointwise);
    let weighted = parts.iter().any(|part| part.kind == TermKind::Conv);
    let profitable = after.nodes < before.nodes
        && after.parameters <= before.parameters
        && after.macs.no_more_than(&before.macs);
    if !(emittable && weighted && profitable) {
        return Err(Reason::Dearer { before: before.parameters, after: after.parameters });
    }
    if after.parameters >= MAX_WEIGHTS {
        return Err(Reason::Limit("kernels of 2³¹ weights and more are not fused"));
    }
    let kernels = region.nodes.iter().filter_map(|&id| match meanings.get(id) {
        Some(Meaning::Linear(_, LinearOp::Conv { float, .. })) => Some((id, *float)),
        _ => None,
    });
    let float = kernels.clone().next().map_or(Float::F32, |(_, float)| float);
    // What they are added to each other in is no node, whatever its inputs' types are.
    if let Some((id, _)) = kernels.clone().find(|(_, other)| *other != float) {
        let node = reader.graph.node(id).label().to_owned();
        let why = NotLinear::Malformed("its kernel has another type than those beside it");
        return Err(Reason::NotLinear { node, why });
    }
    fit::check(reader, meanings, &region, float)?;
    let described = Branches { reader, meanings, region: &region, parts: &parts };
    let (branches, drawing) = described.of(region.output);
    let norms = region
        .nodes
        .iter()
        .filter(|&&id| reader.graph.node(id).proto.op_type() == "BatchNormalization")
        .count();
    Ok(Block {
        removed,
        name: String::new(),
        stem: String::new(),
        tensors: String::new(),
        branches,
        drawing,
        norms,
        parts,
        valid,
        float,
        before,
        after,
        region,
    })
}

/// A kernel that begins inside its input and reaches beyond the other end is written as a
/// Slice and a padded convolution: `x[2:]`, padded by 3 behind. Of 1 element that Slice
/// leaves 0, not −1, and the convolution makes one output too many.
fn require_enough_to_crop(part: &Term<Geometry>, valid: &mut Validity) {
    let gathers = part.map.kind != ConvKind::ConvTranspose;
    for (axis, window) in part.map.windows.iter().enumerate().filter(|_| gathers) {
        let (before, behind) = window.pads();
        if before.min(behind) < 0 && before.max(behind) > 0 {
            let along = part.map.input.axis(axis + 2);
            let least = 1 - before.min(behind);
            valid.require(part.root, Property::Size(along, SizeSet::AtLeast(least)));
        }
    }
}

/// Whether all sizes that `valid` is about are right, as far as they are known.
fn must_hold(
    reader: &Reader,
    valid: &Validity,
    is_right: fn(Option<i64>, &SizeSet) -> bool,
) -> Result<(), Reason> {
    for condition in valid.conditions() {
        let Property::Size(axis, sizes) = &condition.property else { continue };
        let known = reader.sizes.by_rules(condition.tensor);
        let size = known.and_then(|dims| dims.get(*axis).copied().flatten());
        if !is_right(size, sizes) {
            return Err(Reason::OutOfRange(condition.describe(reader.graph)));
        }
    }
    Ok(())
}

/// What `parts` cost as new nodes.
fn cost_of(parts: &[Term<Geometry>], opset: i64) -> Count {
    let mut count = Count { nodes: parts.len().saturating_sub(1), ..Count::default() };
    for part in parts.iter().filter(|part| part.kind == TermKind::Conv) {
        let outputs = part.map.channels.map_or(0, |channels| channels.outputs) as f64;
        let weights = part.map.weights();
        count.nodes += nodes_of(&part.map, opset);
        count.parameters += weights + if part.map.shifted { outputs } else { 0.0 };
        count.macs = count.macs.plus(part.map.macs());
    }
    count
}

/// Which kernels serve more than one region. Rewriting frees such a kernel only if
/// all its readers are rewritten alike, for then they share the new one too.
struct Sharing<'a> {
    /// What the node's region reads of initializers, numbered.
    recipes: Table<NodeId, usize>,
    /// Whether all readers of a kernel are of one region, or of regions that read the same.
    alike: RefCell<IdMap<ValueId, bool>>,
    /// What regions read: nobody's to remove.
    roots: Table<ValueId, ()>,
    absorbed: &'a Absorbed,
}

impl<'a> Sharing<'a> {
    fn of(
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
    fn cost_of(
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
        let mut count = Count::default();
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
            if let Some(Meaning::Linear(_, map)) = meanings.get(id) {
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
            LinearOp::Filter { .. } | LinearOp::Transpose { .. } | LinearOp::Bordered { .. } => 0.0,
            _ => {
                let constants =
                    node.inputs.iter().flatten().filter(|&&v| reader.constants.contains(v));
                constants.filter(|value| freed(value)).map(|&value| elements(value)).sum()
            }
        }
    }
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
fn share_tensors(reader: &Reader, meanings: &Meanings, blocks: &mut [Block]) {
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
    let part = |part: &Term<Geometry>| (part.kind, part.map.clone());
    a.float == b.float
        && nodes.len() == others.len()
        && a.parts.iter().map(part).eq(b.parts.iter().map(part))
        && nodes.iter().zip(others).all(&mut same_node)
}

/// A node that computes a constant (the shape of a zero bias, a cast to the type of
/// an activation) goes with its reader.
fn computes_constant(reader: &Reader, id: NodeId) -> bool {
    reader.graph.node(id).output().is_some_and(|output| reader.constants.contains(output))
}

/// Describes a region by its branches.
struct Branches<'a, 'g, 'm> {
    reader: &'a Reader<'g, 'm>,
    meanings: &'a Meanings,
    region: &'a Region,
    parts: &'a [Term<Geometry>],
}

/// What is told of one node on the way through a branch.
#[derive(Clone)]
struct Step {
    node: Option<NodeId>,
    text: Arc<str>,
    is_kernel: bool,
}

impl Branches<'_, '_, '_> {
    /// The branches in words, and as they may be drawn: one per path from `value` to a root.
    fn of(&self, value: ValueId) -> (String, Arc<Drawing>) {
        let mut branches: Vec<Vec<Step>> = vec![];
        let mut open = vec![(value, Vec::new())];
        while let Some((value, mut path)) = open.pop() {
            if branches.len() + open.len() > 64 {
                branches.push(vec![Step { node: None, text: "…".into(), is_kernel: true }]);
                break;
            }
            let source = self.meanings.source(value);
            let at_cut = source != self.region.output && self.region.cuts.contains(&source);
            let producer = self.reader.graph.value(source).producer.filter(|_| !at_cut);
            match producer.and_then(|producer| Some((producer, self.meanings.get(producer)?))) {
                Some((node, Meaning::Linear(input, map))) => {
                    path.extend(self.step(node, map));
                    open.push((*input, path));
                }
                Some((_, Meaning::Sum(operands))) => {
                    let branches =
                        operands.iter().rev().map(|&(_, operand)| (operand, path.clone()));
                    open.extend(branches);
                }
                _ => {
                    if !path.iter().any(|step| step.is_kernel) {
                        let text = self.operand(source).into();
                        path.push(Step { node: None, text, is_kernel: true });
                    }
                    path.reverse();
                    branches.push(path);
                }
            }
        }
        let mut words = String::new();
        for (branch, plus) in branches.iter().zip(once("").chain(repeat(" + "))) {
            let kernels = branch.iter().filter(|step| step.is_kernel);
            for (kernel, arrow) in kernels.zip(once(plus).chain(repeat(" → "))) {
                words.extend([arrow, &kernel.text]);
            }
        }
        (words, Arc::new(drawing(&branches)))
    }

    fn step(&self, node: NodeId, map: &LinearOp) -> Option<Step> {
        let is_norm = self.reader.graph.node(node).proto.op_type() == "BatchNormalization";
        let step = |text, is_kernel| Step { node: Some(node), text, is_kernel };
        match map {
            _ if is_norm => Some(step("norm".into(), false)),
            LinearOp::Diagonal { .. } => Some(step("scale".into(), false)),
            _ => text_of(map).map(|text| step(text.into(), true)),
        }
    }
}

/// Takes what all branches have in common at their end behind their sum.
fn drawing(branches: &[Vec<Step>]) -> Drawing {
    let texts = |steps: &[Step]| steps.iter().map(|step| step.text.clone()).collect();
    let (first, others) = match branches {
        [first, others @ ..] if !others.is_empty() => (first, others),
        _ => {
            let branches = branches.iter().map(|branch| texts(branch)).collect();
            return Drawing { branches, after: Vec::new() };
        }
    };
    let is_common = |back: usize, step: &Step| {
        step.node.is_some()
            && others.iter().all(|branch| {
                branch.iter().rev().nth(back).is_some_and(|other| other.node == step.node)
            })
    };
    let common = first.iter().rev().enumerate().take_while(|(back, step)| is_common(*back, step));
    let common = common.count();
    let own = |branch: &Vec<Step>| texts(branch.get(..branch.len() - common).unwrap_or_default());
    let after = first.get(first.len() - common..).unwrap_or_default();
    Drawing { branches: branches.iter().map(own).collect(), after: texts(after) }
}

impl Branches<'_, '_, '_> {
    /// A root that is added as it is: part of a kernel, or an operand that stays.
    fn operand(&self, root: ValueId) -> String {
        let plain =
            |part: &Term<Geometry>| part.root == root && matches!(part.kind, TermKind::Identity(_));
        if self.parts.iter().any(plain) {
            format!("`{}`", self.reader.graph.value(root).name)
        } else {
            "identity".to_owned()
        }
    }
}

fn text_of(map: &LinearOp) -> Option<String> {
    let list = |numbers: Vec<i64>| numbers.iter().map(i64::to_string).collect::<Vec<_>>().join("×");
    let sizes = |geometry: &Geometry| {
        let windows = || geometry.windows.iter();
        let taps = list(windows().map(|window| window.taps).collect());
        let mut steps: Vec<i64> = windows().map(|window| window.dilation).collect();
        if windows().all(|window| window.taps == 1 || window.dilation == 1) {
            return taps;
        }
        steps.dedup();
        format!("{taps} dilated {}", list(steps))
    };
    match map {
        LinearOp::Conv { geometry, .. } => Some(match geometry.kind {
            ConvKind::Conv => sizes(geometry),
            ConvKind::MatMul => "matrix".to_owned(),
            ConvKind::ConvTranspose => format!("transposed {}", sizes(geometry)),
        }),
        LinearOp::Bordered { map, .. } => text_of(map),
        LinearOp::Filter { windows, .. } if windows.iter().any(|window| window.taps > 1) => {
            Some(format!("mean {}", sizes(&map.geometry())))
        }
        _ => None,
    }
}

/// BlockNames for blocks and what is made for them.
pub struct BlockNames {
    /// A text that no name in the model contains: what is made of a block's name and
    /// this is new, whatever follows.
    suffix: String,
    unique: UniqueNames,
    /// By the block's output: a block keeps its name whatever becomes of others.
    names: IdMap<ValueId, String>,
}

impl BlockNames {
    /// BlockNames that do not occur in a model's main graph or its bodies.
    pub fn of(graph: &Graph) -> Self {
        let suffix = names::fresh(graph, ".fused");
        BlockNames { suffix, unique: UniqueNames::default(), names: IdMap::default() }
    }

    /// The block's base name, or that with `_2`, `_3`, … if another has it.
    fn of_block(&mut self, graph: &Graph, meanings: &Meanings, region: &Region) -> String {
        if let Some(name) = self.names.get(&region.output) {
            return name.clone();
        }
        let name = self.unique.unique(&block_name(graph, meanings, region));
        self.names.insert(region.output, name.clone());
        name
    }
}

/// The common part of the names of the branches' kernels, else of their nodes,
/// else the name of the block's output.
fn block_name(graph: &Graph, meanings: &Meanings, region: &Region) -> String {
    let convolutions = || {
        region.nodes.iter().filter_map(|&id| match meanings.get(id) {
            Some(Meaning::Linear(_, LinearOp::Conv { kernel, .. })) => {
                Some((graph.node(id), *kernel))
            }
            _ => None,
        })
    };
    let kernels = convolutions().map(|(_, kernel)| graph.value(kernel).name.as_str());
    let nodes = convolutions().map(|(node, _)| node.label());
    // "onnx::Conv_28" says nothing.
    let telling = |name: &&str| !name.contains("::");
    common_path(kernels.filter(telling))
        .or_else(|| common_path(nodes))
        .unwrap_or_else(|| graph.value(region.output).name.clone())
}

/// The longest common beginning of `names` that ends where a part of a path ends;
/// of a single name, all but its last part.
fn common_path<'n>(mut names: impl Iterator<Item = &'n str>) -> Option<String> {
    let first = names.next()?;
    let parts = |name: &'n str| name.split_inclusive(['.', '/', ':']).collect::<Vec<_>>();
    let mut common = parts(first);
    common.pop();
    for name in names {
        let same = common.iter().zip(parts(name)).take_while(|(a, b)| *a == b).count();
        common.truncate(same);
    }
    let path = common.concat();
    let path = path.trim_matches(['.', '/', ':']);
    (!path.is_empty()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_common_part_of_the_branches() {
        for (names, expected) in [
            (
                &["layer1.0.conv1.square.weight", "layer1.0.conv1.hor.weight"][..],
                Some("layer1.0.conv1"),
            ),
            (&["/layer1/conv/square/Conv", "/layer1/conv/ver/Conv"], Some("layer1/conv")),
            (&["conv.weight"], Some("conv")),
            (&["a", "b"], None),
            (&[], None),
        ] {
            assert_eq!(common_path(names.iter().copied()).as_deref(), expected, "{names:?}");
        }
    }
}
