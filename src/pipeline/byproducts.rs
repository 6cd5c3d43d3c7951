//! What made blocks read of each other instead of their roots: checks whether these by-products
//! are made, and whose outputs nobody reads for that reason.
//!
//! Knows the plan and what was made of it; makes nothing.

use crate::emit::nodes::FusedNodes;
use crate::onnx::ids::{IdMap, ValueId};
use crate::onnx::proto::NodeProto;
use crate::pipeline::analysis::GraphAnalysis;
use crate::pipeline::edits::BlockNodes;
use crate::pipeline::fate::{Fate, MadeBlock, made_blocks};
use crate::plan::{Block, Replacement, TurnedRoot, outputs_read};

/// Returns the indices of those blocks that read a by-product which is not made as it was
/// planned, given the `fates` of all blocks.
pub fn reading_what_is_missing(analysis: &GraphAnalysis, fates: &[Fate]) -> Vec<usize> {
    let graph = analysis.reader.graph;
    let last = made_blocks(analysis, fates)
        .filter_map(|(block, made)| Some((block.region.output, made.fused.nodes.last()?)));
    let last: IdMap<ValueId, &NodeProto> = last.collect();
    let is_missing = |turned: &TurnedRoot| {
        let planned = turned.transpose(graph.value(turned.root).name);
        let made = last.get(&turned.root).map(|&made| NodeProto { name: None, ..made.clone() });
        made != Some(planned)
    };
    let blocks = analysis.plan.blocks.iter().zip(fates).enumerate();
    let wrong = blocks.filter(|(_, (block, fate))| {
        let Fate::Made(made) = fate else { return false };
        let read = |turned: &&TurnedRoot| reads(&made.fused, &turned.byproduct);
        block.turned_roots.iter().filter(read).any(is_missing)
    });
    wrong.map(|(place, _)| place).collect()
}

/// Removes the last nodes of blocks whose by-products are read and whose outputs are not.
pub fn leave_out_unread(analysis: &GraphAnalysis, fates: &mut [Fate]) {
    if made_blocks(analysis, fates).all(|(_, made)| !made.fused.names_byproduct) {
        return;
    }
    let graph = analysis.reader.graph;
    let name = |id: &ValueId| graph.value(*id).name;
    let replacement = |(block, made): (&Block, &MadeBlock)| Replacement {
        made: BlockNodes::of(block, &made.fused).made,
        roots: made.fused.roots.clone(),
        read: made.fused.roots.iter().filter(|id| reads(&made.fused, name(id))).copied().collect(),
    };
    let replacements: Vec<Replacement> = made_blocks(analysis, fates).map(replacement).collect();
    let read = outputs_read(graph, &replacements);
    for (block, fate) in analysis.plan.blocks.iter().zip(fates) {
        let Fate::Made(made) = fate else { continue };
        if made.fused.names_byproduct && !read.contains(&block.region.output) {
            made.fused.nodes.pop();
        }
    }
}

fn reads(fused: &FusedNodes, name: &str) -> bool {
    fused.nodes.iter().flat_map(|node| &node.input).any(|input| input == name)
}
