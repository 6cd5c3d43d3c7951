//! The loop: regions are found and decided on, and looked for again where some were left alone
//! or where what is rewritten frees tensors for others, until nothing changes.
//!
//! Knows the search and the decision by their results; edits nothing.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdSet, NodeId, Table, ValueId};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::block::Block;
use crate::plan::cuts::{Absorbed, Walk};
use crate::plan::decide;
use crate::plan::dissolved::Dissolved;
use crate::plan::missed;
use crate::plan::name::BlockNames;
use crate::plan::region::Region;
use crate::plan::share::{Sharing, share_tensors};
use crate::refusal::{NearMiss, Reason};

/// How often the regions are reconsidered; real models need one round.
const MAX_ROUNDS: usize = 8;

/// How often smaller regions are looked for inside those that are left alone; in real
/// models these nest a few deep.
const MAX_RETRIES: usize = 64;

const TOO_MANY_RETRIES: Reason =
    Reason::Limit("smaller blocks are looked for 64 times inside those that are left alone");

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
    names.begin_graph();
    let mut left = Refusals::default();
    let mut absorbed = Absorbed::default();
    let mut rounds = 0;
    let mut dissolved: Option<Dissolved> = None;
    loop {
        let gone = dissolved.as_ref().map_or_else(|| absorbed.clone(), |all| all.and(&absorbed));
        let walk = Walk::new(reader, meanings, &gone);
        let dissolved = match &mut dissolved {
            Some(dissolved) => dissolved,
            none => {
                let found = none.insert(Dissolved::of(&walk, &left.tensors));
                if found.uses().next().is_some() {
                    continue;
                }
                found
            }
        };
        let regions = walk.regions(&left.tensors);
        let shared = Sharing::of(reader, meanings, &regions, &gone);
        let (before, mut kept) = (left.tensors.len(), false);
        let mut blocks: Vec<Block> = Vec::new();
        let mut claimed: IdSet<NodeId> = IdSet::default();
        for region in &regions {
            let credit = dissolved.credit(reader.graph, region);
            match decide::block(reader, meanings, region, &shared, &claimed, credit) {
                Err(_) if dissolved.keep_inside(reader.graph, region) => kept = true,
                Err(reason) => left.refuse(reader.graph, region, reason),
                Ok(block) => {
                    let name = names.of_block(reader.graph, meanings, region);
                    if skip.contains(&name) {
                        kept |= dissolved.keep_inside(reader.graph, region);
                        left.skip(reader.graph, region, name);
                    } else {
                        claimed.extend(&block.removed);
                        let stem = names.stem(&name);
                        blocks.push(Block { name, tensors: stem.clone(), stem, ..block });
                    }
                }
            }
        }
        // A region that is left alone may hold smaller ones that are worth it.
        if kept || left.tensors.len() > before {
            left.retries += 1;
            continue;
        }
        // Tensors that lost some of their readers to blocks may now go into the others.
        let now = absorbed_uses(reader, meanings, &blocks);
        rounds += 1;
        if now == absorbed || rounds == MAX_ROUNDS {
            let mut near_misses = missed::near_misses(&walk, &regions);
            near_misses.append(&mut left.near_misses);
            share_tensors(reader, meanings, &mut blocks);
            return Plan { blocks, near_misses };
        }
        absorbed = now;
    }
}

/// What no region is to end in any more, and why.
#[derive(Default)]
struct Refusals {
    tensors: IdSet<ValueId>,
    near_misses: Vec<NearMiss>,
    /// All nodes of regions that were refused.
    inside_refused: IdSet<NodeId>,
    /// How often that led to another search.
    retries: usize,
}

impl Refusals {
    /// The caller wants the block called `name` as it is, and no part of it touched either.
    fn skip(&mut self, graph: &Graph, region: &Region, name: String) {
        self.tensors.extend(made_in(graph, region));
        self.near_misses.push(NearMiss { node: name, reason: Reason::Skipped });
    }

    /// The region does not become a block; smaller ones inside it may, unless that was tried
    /// too often.
    fn refuse(&mut self, graph: &Graph, region: &Region, reason: Reason) {
        let is_too_often = self.retries > MAX_RETRIES;
        self.tensors.insert(region.output);
        if is_too_often {
            self.tensors.extend(made_in(graph, region));
        }
        let reason = match reason {
            Reason::Dearer { .. } if is_too_often => TOO_MANY_RETRIES,
            reason => reason,
        };
        // Of a region and the smaller ones inside it, the whole is the news.
        let last = region.nodes.last().filter(|node| !self.inside_refused.contains(node));
        if let Some(&last) = last {
            let node = graph.node(last).label().to_owned();
            self.near_misses.push(NearMiss { node, reason });
        }
        self.inside_refused.extend(&region.nodes);
    }
}

fn made_in(graph: &Graph, region: &Region) -> impl Iterator<Item = ValueId> {
    region.nodes.iter().filter_map(|&id| graph.node(id).output())
}

/// Uses that go away with these blocks, of tensors that are still used by others.
fn absorbed_uses(reader: &Reader, meanings: &Meanings, blocks: &[Block]) -> Absorbed {
    let mut absorbed = Absorbed::default();
    for block in blocks {
        for &id in &block.removed {
            let sources = reader.graph.uses(id).map(|value| meanings.source(value));
            let gone = sources.filter(|source| !block.region.cuts.contains(source));
            absorbed.extend(gone.map(|source| (id, source)));
        }
    }
    let outputs: Table<ValueId, ()> = blocks.iter().map(|block| block.region.output).collect();
    let removed: Table<NodeId, ()> = blocks.iter().flat_map(|b| &b.removed).copied().collect();
    let remains = |source: ValueId| {
        let producer = reader.graph.value(source).producer;
        outputs.contains(source) || producer.is_some_and(|producer| !removed.contains(producer))
    };
    absorbed.retain(|&(_, source)| remains(source));
    absorbed
}
