//! The planning loop: tensors are planned anew until no plan gains, and everything is planned
//! once more if a part of the plan is refused.
//!
//! Knows the search and the decision by their results; edits nothing.

use crate::facts::validity::Validity;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, IdSet, NodeId, ValueId};
use crate::onnx::liveness;
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::options::KeepIdentity;
use crate::plan::block::{Block, Byproduct};
use crate::plan::copies::KernelCopies;
use crate::plan::cuts::MetLimits;
use crate::plan::decide;
use crate::plan::missed::near_misses;
use crate::plan::name::BlockNames;
use crate::plan::net::Net;
use crate::plan::passes::Passes;
use crate::plan::recipes::Recipes;
use crate::plan::refused::{Refused, UnprovedBlock};
use crate::plan::region::Region;
use crate::plan::share::share_tensors;
use crate::plan::turned_roots::{self, outputs_read};
use crate::refusal::{NearMiss, Reason};

/// Upper bound on the number of passes over all tensors. Each pass computes at least one tensor
/// with fewer nodes; real models need three passes.
const MAX_PASSES: usize = 64;

const TOO_MANY_PASSES: Reason =
    Reason::Limit("the search makes at most 64 passes over the tensors");

/// The plan: what will be rewritten, and what will not.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The blocks, in topological order.
    pub blocks: Vec<Block>,
    /// Places that are left alone.
    pub near_misses: Vec<NearMiss>,
    /// The recipes by which the forms of the blocks are made.
    pub recipes: Recipes,
    /// The kernels that the blocks copy.
    pub copies: KernelCopies,
}

/// The caller's choices that the plan follows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'w> {
    /// Names of blocks that are left alone.
    pub skip: &'w [String],
    /// Whether identity branches stay apart from kernels.
    pub keep_identity: KeepIdentity,
    /// Blocks that could not be proved, and are not planned again.
    pub unproved: &'w [UnprovedBlock],
}

/// Plans the rewrite of a graph as it is `wanted`. All graphs of a model share the same `names`.
pub fn plan(reader: &Reader, meanings: &Meanings, names: &mut BlockNames, wanted: Wanted) -> Plan {
    planned(reader, meanings, names, wanted, &KernelCopies::default())
}

/// Plans as [`plan`] does, but without copies of kernels. `copies` are those that the plan would
/// make; by them the model would grow by the fraction `growth` of its parameters.
pub fn without_copies(
    reader: &Reader,
    meanings: &Meanings,
    names: &mut BlockNames,
    wanted: Wanted,
    mut copies: KernelCopies,
    growth: f64,
) -> Plan {
    loop {
        let mut plan = planned(reader, meanings, names, wanted, &copies);
        if !copies.extend(&plan.copies) {
            plan.near_misses.extend(copies.refused(reader.graph, &plan.blocks, growth));
            return plan;
        }
    }
}

fn planned(
    reader: &Reader,
    meanings: &Meanings,
    names: &mut BlockNames,
    wanted: Wanted,
    without: &KernelCopies,
) -> Plan {
    names.begin_graph();
    let graph = reader.graph;
    let mut refused = Refused::of(wanted.unproved);
    loop {
        let mut net = Net::new(reader, meanings, without.kernels());
        net.keeps_branches = wanted.keep_identity != KeepIdentity::Never;
        let limits = improve(&mut net, &refused);
        let mut blocks: Vec<Block> = Vec::new();
        let mut claimed: IdSet<NodeId> = IdSet::default();
        for (id, planned) in net.planned() {
            let Some(output) = graph.node(id).output() else { continue };
            let roots = planned.form.terms.iter().map(|term| term.root).collect();
            let region = Region::new(reader, meanings, output, roots);
            let removed = net.removed(&region, &claimed);
            match decide::block(&net, &region, planned, removed, wanted.keep_identity) {
                Err(reason) => refused.refuse(graph, &region, reason),
                Ok(block) => {
                    let name = names.of_block(graph, meanings, &region);
                    if wanted.skip.contains(&name) {
                        refused.skip(graph, &region, name);
                    } else {
                        claimed.extend(&block.removed);
                        let stem = names.stem(&name);
                        blocks.push(Block { name, tensor_stem: stem.clone(), stem, ..block });
                    }
                }
            }
        }
        if refused.retry() {
            continue;
        }
        let found = byproducts(&net, &blocks);
        keep_needed(graph, &mut blocks, found);
        blocks.iter_mut().for_each(|block| count_byproduct(&net, block));
        turned_roots::note(&mut blocks, reader.forms);
        count_unread(reader, &mut blocks);
        share_tensors(reader, meanings, &mut blocks);
        let is_told = |tensor| refused.concerns(tensor) || without.concerns(tensor);
        let is_made = |tensor: ValueId| {
            graph.value(tensor).producer.is_some_and(|producer| claimed.contains(&producer))
        };
        let checked = refused.checked(is_made);
        let near_misses = near_misses(&net, &limits, &blocks, &checked).into_iter();
        let near_misses = near_misses.filter(|&(output, _)| !is_told(output));
        let mut near_misses: Vec<NearMiss> = near_misses.map(|(_, miss)| miss).collect();
        near_misses.extend(refused.near_misses(is_made));
        let copies = KernelCopies::of(reader, meanings, &blocks);
        return Plan { blocks, near_misses, copies, recipes: net.recipes };
    }
}

/// Plans better forms, none of them `refused`, until none gains; returns the limits that were
/// met. Each round leaves fewer nodes.
fn improve(net: &mut Net, refused: &Refused) -> MetLimits {
    let mut passes = Passes::over(net);
    for _ in 0..MAX_PASSES {
        let is_changed = passes.find_more(net, refused) || passes.eliminate(net, refused);
        if !is_changed {
            return passes.limits(net);
        }
    }
    let last = net.tensors().last();
    let mut limits = passes.limits(net);
    limits.extend(last.map(|(_, output)| (output, vec![TOO_MANY_PASSES])));
    limits
}

/// Returns, for each block output that has one, its by-product: a tensor that the block makes on
/// the way to the output, and that a node of the file makes from the output.
fn byproducts(net: &Net, blocks: &[Block]) -> IdMap<ValueId, ValueId> {
    let promised = |node: &NodeId| {
        let valid = net.meanings.validity(*node);
        let mut conditions = valid.into_iter().flat_map(Validity::conditions);
        conditions.all(|condition| net.reader.sizes.promises(condition).unwrap_or_default())
    };
    let of_block = |block: &Block| {
        let output = block.region.output;
        let former = net.former(output).filter(|_| block.kept.is_empty())?;
        let node = net.byproduct(former).filter(promised)?;
        Some((output, net.reader.graph.node(node).output()?))
    };
    blocks.iter().filter_map(of_block).collect()
}

/// Keeps the blocks that something needs once all are made with these `byproducts`, and the
/// by-products of blocks whose outputs are needed, too. *Counter-example to keeping all*: a
/// tensor of which only the shape is read, to expand another tensor to the shape that it has
/// already; without that Expand, nothing needs the tensor.
fn keep_needed(graph: &Graph, blocks: &mut Vec<Block>, byproducts: IdMap<ValueId, ValueId>) {
    for block in blocks.iter_mut() {
        let tensor = byproducts.get(&block.region.output).copied();
        let name = |tensor| graph.value(tensor).name.to_owned();
        block.byproduct = tensor.map(|id| Byproduct { name: name(id), of_file: Some(id) });
    }
    loop {
        let needed = needed(graph, blocks);
        let before = blocks.len();
        blocks.retain(|block| block.tensors_made().any(|tensor| needed.contains(&tensor)));
        // If only the node that makes the by-product reads the output, that node stays as it is.
        let is_alone = |block: &&mut Block| {
            block.byproduct.is_some() && !needed.contains(&block.region.output)
        };
        let alone = blocks.iter_mut().filter(is_alone);
        let reset = alone.map(|block| block.byproduct = None).count();
        if reset == 0 && blocks.len() == before {
            return;
        }
    }
}

/// Counts the node of the file that makes the block's by-product, since it goes away with the
/// block. Nodes that compute a shape for it go, too, but are not counted.
fn count_byproduct(net: &Net, block: &mut Block) {
    let graph = net.reader.graph;
    let byproduct = block.byproduct.as_ref().and_then(|byproduct| byproduct.of_file);
    let Some(node) = byproduct.and_then(|made| graph.value(made).producer) else { return };
    block.removed.insert(node);
    block.before.nodes = block.before.nodes.saturating_add(1);
    if let Some(own) = net.meanings.validity(node) {
        block.valid.intersect(own);
    }
}

/// Takes one node off the count of each block of which only the by-product is read, since its
/// output is not made.
fn count_unread(reader: &Reader, blocks: &mut [Block]) {
    if blocks.iter().all(|block| block.byproduct.is_none()) {
        return;
    }
    let replacements: Vec<_> = blocks.iter().map(|block| block.replacement(reader.forms)).collect();
    let read = outputs_read(reader.graph, &replacements);
    let is_unread =
        |block: &&mut Block| block.byproduct.is_some() && !read.contains(&block.region.output);
    for block in blocks.iter_mut().filter(is_unread) {
        block.after.nodes = block.after.nodes.saturating_sub(1);
    }
}

/// Returns the tensors made by blocks that something needs.
fn needed(graph: &Graph, blocks: &[Block]) -> IdSet<ValueId> {
    let producer = |value| graph.value(value).producer;
    let made: Vec<(ValueId, Vec<ValueId>)> = blocks.iter().flat_map(Block::made).collect();
    let ends = made.iter().filter_map(|(tensor, roots)| Some((producer(*tensor)?, roots)));
    let ends: IdMap<NodeId, &Vec<ValueId>> = ends.collect();
    let reads = |node, open: &mut Vec<ValueId>| match ends.get(&node) {
        Some(roots) => open.extend(roots.iter()),
        None => open.extend(graph.uses(node)),
    };
    let live = liveness::needed(graph.node_count(), &graph.outputs, producer, reads);
    let is_live = |tensor: &ValueId| producer(*tensor).is_some_and(|node| live.contains(node));
    made.iter().map(|(tensor, _)| *tensor).filter(is_live).collect()
}
