//! Copies of kernels: a kernel that others read too stays when a block replaces one of its
//! readers, or each block makes another kernel of it. The file grows by that, so such blocks
//! are made only as far as the caller wants it, all or none.
//!
//! Knows blocks and the kernels that they read; decides nothing about them.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use std::collections::BTreeMap;

use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, IdSet, NodeId, ValueId};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::block::Block;
use crate::refusal::{NearMiss, Reason, Subject};

/// The kernels that blocks copy.
#[derive(Debug, Clone, Default)]
pub struct KernelCopies {
    /// The kernel that the block of each output copies, and another node that reads it.
    by_output: IdMap<ValueId, Copied>,
    /// All kernels that were copied so far; of a block that copies two, only one is known at
    /// first.
    kernels: IdSet<ValueId>,
    /// Elements by which the model grows.
    pub elements: f64,
    /// Elements of all constants that the graph reads, stored or computed.
    pub parameters: f64,
}

/// A kernel that a block copies, since it does not free it.
#[derive(Debug, Clone, Copy)]
struct Copied {
    kernel: ValueId,
    /// The last node of the block.
    node: NodeId,
    /// Another reader of the kernel.
    other: NodeId,
}

impl KernelCopies {
    /// Returns what these blocks copy; blocks that are the same share the tensors of one name.
    pub fn of(reader: &Reader, meanings: &Meanings, blocks: &[Block]) -> Self {
        let mut tensors_of: IdMap<NodeId, &str> = IdMap::default();
        for block in blocks {
            let removed = block.removed.iter().filter(|id| !tensors_of.contains_key(id));
            let removed: Vec<NodeId> = removed.copied().collect();
            tensors_of.extend(removed.into_iter().map(|id| (id, block.tensor_stem.as_str())));
        }
        let readers = readers(reader, meanings);
        let elements = |constant| reader.constants.elements(constant);
        let parameters = readers.keys().map(|&constant| elements(constant)).sum();
        let mut copies = KernelCopies { parameters, ..KernelCopies::default() };
        // The first reader of each kernel, and one that is not rewritten in the same way, if
        // there is one.
        let unlike: IdMap<ValueId, (NodeId, Option<NodeId>)> = readers
            .iter()
            .filter_map(|(&kernel, readers)| {
                let (first, others) = readers.split_first()?;
                let is_other = |by: &&NodeId| tensors_of.get(by) != tensors_of.get(first);
                Some((kernel, (*first, others.iter().find(is_other).copied())))
            })
            .collect();
        // Blocks that are the same make one copy.
        let mut made: BTreeMap<&str, f64> = BTreeMap::new();
        let mut shared: IdSet<ValueId> = IdSet::default();
        for block in blocks {
            let mut more = block.after.parameters - block.before.parameters;
            // The kernels that nobody else reads, with the last reader of each so far. A kernel
            // that the block reads several times was counted as often.
            let mut own: IdMap<ValueId, NodeId> = IdMap::default();
            let mut repeated = None;
            for &id in &block.region.nodes {
                let Some(kernel) = meanings.kernel(id) else { continue };
                let Some(&(first, second)) = unlike.get(&kernel) else { continue };
                let is_of_block = tensors_of.get(&first) == Some(&block.tensor_stem.as_str());
                let Some(other) = (if is_of_block { second } else { Some(first) }) else {
                    if let Some(other) = own.insert(kernel, id) {
                        more += elements(kernel);
                        repeated = Some(Copied { kernel, node: id, other });
                    }
                    continue;
                };
                more += elements(kernel);
                shared.insert(kernel);
                let node = block.region.nodes.last().copied().unwrap_or(id);
                let output = block.region.output;
                copies.by_output.entry(output).or_insert(Copied { kernel, node, other });
            }
            // A sum of one kernel with itself is one kernel; a stack of both holds it twice.
            if let Some(copied) = repeated.filter(|_| more > 0.0) {
                let node = block.region.nodes.last().copied().unwrap_or(copied.node);
                let copied = Copied { node, ..copied };
                copies.by_output.entry(block.region.output).or_insert(copied);
            }
            if copies.by_output.contains_key(&block.region.output) {
                made.insert(&block.tensor_stem, more);
            }
        }
        copies.kernels = copies.by_output.values().map(|copied| copied.kernel).collect();
        let is_freed = |kernel: &&ValueId| {
            let mut readers = readers.get(kernel).into_iter().flatten();
            readers.all(|reader| tensors_of.contains_key(reader))
        };
        let freed = shared.iter().filter(is_freed).map(|&kernel| elements(kernel));
        copies.elements = (made.values().sum::<f64>() - freed.sum::<f64>()).max(0.0);
        copies
    }

    /// Returns why blocks that make copies are left alone, as far as they are not among
    /// `blocks`: the model would grow by the fraction `growth` of its parameters.
    pub fn refused(&self, graph: &Graph, blocks: &[Block], growth: f64) -> Vec<NearMiss> {
        let made: IdSet<NodeId> = blocks.iter().flat_map(|block| &block.removed).copied().collect();
        let mut refused: Vec<&Copied> = self.by_output.values().collect();
        refused.retain(|copied| !made.contains(&copied.node));
        refused.sort_unstable_by_key(|copied| copied.node);
        let thousandths = (growth * 1000.0).ceil() as u64;
        let near_miss = |copied: &Copied| {
            let kernel = graph.value(copied.kernel).name.to_owned();
            let other = graph.node(copied.other).label().to_owned();
            let reason = Reason::SharedKernel { kernel, other, thousandths };
            let node = graph.node(copied.node).label().to_owned();
            NearMiss { subject: Subject::Block, node, reason }
        };
        refused.into_iter().map(near_miss).collect()
    }

    /// Adds what `others` copy; returns whether any of these kernels is new.
    pub fn extend(&mut self, others: &KernelCopies) -> bool {
        self.by_output.extend(&others.by_output);
        let before = self.kernels.len();
        self.kernels.extend(&others.kernels);
        self.kernels.len() > before
    }

    /// Whether the block that makes `output` copies a kernel.
    pub fn concerns(&self, output: ValueId) -> bool {
        self.by_output.contains_key(&output)
    }

    /// The kernels that are copied.
    pub fn kernels(&self) -> impl Iterator<Item = ValueId> {
        self.kernels.iter().copied()
    }
}

/// Returns the readers of each kernel, without the nodes that compute constants.
fn readers(reader: &Reader, meanings: &Meanings) -> IdMap<ValueId, Vec<NodeId>> {
    let graph = reader.graph;
    let mut readers: IdMap<ValueId, Vec<NodeId>> = IdMap::default();
    for (id, node) in graph.nodes().filter(|&(id, _)| meanings.get(id).is_some()) {
        if reader.computes_constant(node) {
            continue;
        }
        for value in graph.uses(id).filter(|&value| reader.constants.contains(value)) {
            readers.entry(meanings.source(value)).or_default().push(id);
        }
    }
    readers
}
