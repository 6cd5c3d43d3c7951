//! The second step: all that was decided for a model. No later step changes it.
//!
//! Knows graphs that were read and the caller's options; opens no file and edits nothing.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::facts::roles;
use crate::facts::shapes::{NO_SHAPES, Sizes};
use crate::facts::validity::{Condition, Property, SizeSet};
use crate::onnx::graph::Graph;
use crate::onnx::inline;
use crate::onnx::model::{Invalid, Model};
use crate::ops::reader::Reader;
use crate::options::Options;
use crate::pipeline::analysis::GraphAnalysis;
use crate::pipeline::counts::{self, Counting, MultiplyAdds};
use crate::pipeline::remains;
use crate::plan::{Block, UnprovedBlock};
use crate::refusal::{NearMiss, Reason, Subject};

/// Everything that is to be done with a model, and what is told about it.
pub struct Planned<'r, 'g, 'm> {
    /// The graphs of the model, the main graph first.
    pub graphs: &'r [Graph<'m>],
    /// The readers of these graphs.
    pub readers: &'r [Reader<'g, 'm>],
    /// The analysis of each graph, in their order.
    pub analyses: Vec<GraphAnalysis<'r, 'g, 'm>>,
    /// For each block, in the order of the plans, the conditions under which it is right, as far
    /// as the file does not promise them itself.
    pub conditions: Vec<Vec<String>>,
    /// Calls of functions that contain convolutions or norms and cannot be inlined.
    pub calls: Vec<NearMiss>,
    /// Number of nodes of all graphs.
    pub nodes_before: usize,
    /// Number of nodes of all graphs if every block is made.
    pub nodes_after: usize,
    /// How much was spent on counting.
    pub counting: Counting,
    /// The counts that only reports need; `None` if nobody asks for them.
    pub details: Option<Details>,
}

/// How much a model holds and computes.
pub struct Details {
    /// Number of elements of its stored floating-point tensors.
    pub parameters: u64,
    /// Its multiply-adds before, and if every block is made.
    pub multiply_adds: MultiplyAdds,
}

impl<'r, 'g, 'm> Planned<'r, 'g, 'm> {
    /// Plans the rewrite of a model, whose `graphs` the `readers` read; `unproved` holds, for each
    /// graph, the blocks that are not planned again.
    ///
    /// # Errors
    /// Returns an error if an entry cannot be decoded.
    pub fn of(
        graphs: &'r [Graph<'m>],
        readers: &'r [Reader<'g, 'm>],
        options: &Options,
        counting: Counting,
        unproved: &[Vec<UnprovedBlock>],
    ) -> Result<Self, Invalid> {
        let analyses = GraphAnalysis::of_all(readers, options, unproved)?;
        let nodes_after = nodes_after(graphs, &analyses);
        let calls = match graphs {
            [main, ..] => calls_that_stay(main.model, graphs)?,
            [] => Vec::new(),
        };
        let parameters = match counting {
            Counting::Nothing => None,
            _ => Some(counts::parameters(graphs)?),
        };
        let conditions = conditions(&analyses, options)?;
        let details = parameters.map(|parameters| {
            let blocks = analyses.iter().map(|analysis| analysis.plan.blocks.iter().collect());
            let blocks: Vec<Vec<&Block>> = blocks.collect();
            let multiply_adds = counts::multiply_adds(&analyses, &blocks, counting);
            Details { parameters, multiply_adds }
        });
        let nodes_before = graphs.iter().map(Graph::node_count).sum();
        Ok(Planned {
            graphs,
            readers,
            analyses,
            conditions,
            calls,
            nodes_before,
            nodes_after,
            counting,
            details,
        })
    }

    /// Plans the same rewrite without the blocks that turned out to be `unproved`, by graph.
    ///
    /// # Errors
    /// Returns an error if an entry cannot be decoded.
    pub fn without(
        &self,
        unproved: &[Vec<UnprovedBlock>],
        options: &Options,
    ) -> Result<Self, Invalid> {
        Planned::of(self.graphs, self.readers, options, self.counting, unproved)
    }

    /// Checks that each name in `skip` is the name of a block.
    ///
    /// # Errors
    /// Returns an error with the names that no block has.
    pub fn check_skipped(&self, file: &str, skip: &[String]) -> Result<(), Error> {
        let missed = self.analyses.iter().flat_map(|analysis| &analysis.plan.near_misses);
        let skipped = missed.filter(|miss| miss.reason == Reason::Skipped).map(|miss| &miss.node);
        let blocks: BTreeSet<&String> =
            self.blocks().map(|block| &block.name).chain(skipped).collect();
        let names: Vec<String> =
            skip.iter().filter(|name| !blocks.contains(name)).cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let blocks = blocks.into_iter().cloned().collect();
        Err(Error::NoSuchBlock { file: file.to_owned(), names, blocks })
    }

    /// Checks whether knowing the open sizes might let something be fused that is left alone.
    pub fn wants_sizes(&self) -> bool {
        let mut missed = self.analyses.iter().flat_map(|analysis| &analysis.plan.near_misses);
        missed.any(|miss| miss.reason.is_open())
    }

    /// Returns the number of blocks that are not planned again because they were not proved.
    pub fn unproved(&self) -> usize {
        let missed = self.analyses.iter().flat_map(|analysis| &analysis.plan.near_misses);
        missed.filter(|miss| matches!(miss.reason, Reason::Unproved { .. })).count()
    }

    /// All blocks of all graphs.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.analyses.iter().flat_map(|analysis| &analysis.plan.blocks)
    }
}

fn nodes_after(graphs: &[Graph], analyses: &[GraphAnalysis]) -> usize {
    let replaced = analyses.iter().map(|analysis| analysis.replaced(analysis.plan.blocks.iter()));
    let blocks = analyses.iter().flat_map(|analysis| &analysis.plan.blocks);
    let new = blocks.map(|block| block.after.nodes).sum();
    remains::nodes_after(graphs, &replaced.collect::<Vec<_>>(), new)
}

fn conditions(analyses: &[GraphAnalysis], options: &Options) -> Result<Vec<Vec<String>>, Invalid> {
    let mut all = Vec::new();
    let mut of_file: Vec<Sizes> = Vec::with_capacity(analyses.len());
    for analysis in analyses {
        let reader = analysis.reader;
        let own = Sizes::new(reader.graph, reader.constants, &NO_SHAPES);
        let outer = reader.graph.outer.and_then(|(outer, _)| of_file.get(outer));
        let own = match outer {
            Some(outer) => own.within(outer),
            None => own,
        };
        let sizes = if options.run.shapes.is_empty() { &reader.sizes } else { &own };
        for block in &analysis.plan.blocks {
            let mut conditions = Vec::new();
            for condition in block.valid.conditions() {
                if !sizes.promises(condition)? && !is_met_where_it_runs(reader, block, condition) {
                    conditions.push(condition.describe(reader.graph));
                }
            }
            all.push(conditions);
        }
        of_file.push(own);
    }
    Ok(all)
}

/// Checks whether nodes of `block` can only run where `condition` holds anyway: a square kernel
/// beside crops needs as many elements as they do.
pub fn is_met_where_it_runs(reader: &Reader, block: &Block, condition: &Condition) -> bool {
    let Property::Size(axis, SizeSet::AtLeast(least)) = condition.property else { return false };
    let nodes = block.region.nodes.iter().map(|&id| reader.graph.node(id));
    let kernels = nodes.filter(|node| roles::slides(node) && !roles::scatters(node));
    let made = kernels.filter_map(|node| node.output());
    reader.sizes.has_as_many_where((condition.tensor, axis, least), made)
}

fn calls_that_stay(model: &Model, graphs: &[Graph]) -> Result<Vec<NearMiss>, Invalid> {
    let calls = inline::refused(model, graphs)?;
    let miss = |(node, why): (String, String)| {
        let (subject, reason) = (Subject::Node, Reason::Call(why));
        NearMiss { subject, node, reason }
    };
    Ok(calls.into_iter().map(miss).collect())
}
