//! The analysis of each graph of a model: what its nodes mean, and what is to be done with them.
//!
//! Reads everything and changes nothing. Knows the planner and the operators, not files or the
//! report.

use std::sync::Arc;

use crate::facts::constants::Constants;
use crate::facts::dependence::Dependence;
use crate::onnx::graph::Graph;
use crate::onnx::model::Invalid;
use crate::ops::meanings::Meanings;
use crate::ops::reader::{Reader, Training};
use crate::ops::training::TrainingNodes;
use crate::options::Options;
use crate::pipeline::remains::Replaced;
use crate::plan::{self, Block, BlockNames, Plan, UnprovedBlock, Wanted};
use crate::refusal::{NearMiss, Reason, Subject};

/// One graph of the model, what its nodes mean, and what is planned for it.
pub struct GraphAnalysis<'r, 'g, 'm> {
    /// The reader of its nodes and tensors.
    pub reader: &'r Reader<'g, 'm>,
    /// The meaning of each node.
    pub meanings: Meanings,
    /// The plan with its blocks.
    pub plan: Plan,
    /// Its nodes in training mode.
    pub training: TrainingNodes,
}

impl<'r, 'g, 'm> GraphAnalysis<'r, 'g, 'm> {
    /// Analyses the graph of each reader; `unproved` holds, for each of them, the blocks that are
    /// not planned again. Kernels that several convolutions read are copied if all copies together
    /// enlarge the model by no more than `options.growth`.
    ///
    /// # Errors
    /// Returns an error if a stored tensor is malformed.
    pub fn of_all(
        readers: &'r [Reader<'g, 'm>],
        options: &Options,
        unproved: &[Vec<UnprovedBlock>],
    ) -> Result<Vec<Self>, Invalid> {
        let Some(main) = readers.first() else { return Ok(Vec::new()) };
        let mut names = BlockNames::of(main.graph);
        let wanted = |graph: usize| Wanted {
            skip: &options.skip,
            keep_identity: options.keep_identity,
            unproved: unproved.get(graph).map(Vec::as_slice).unwrap_or_default(),
        };
        let analysis = |(graph, reader)| {
            let meanings = Meanings::of(reader)?;
            let plan = plan::plan(reader, &meanings, &mut names, wanted(graph));
            Ok(GraphAnalysis { reader, plan, training: TrainingNodes::find(reader)?, meanings })
        };
        let analyses = readers.iter().enumerate().map(analysis);
        let mut analyses = analyses.collect::<Result<Vec<_>, Invalid>>()?;
        let copies = || analyses.iter().map(|analysis| &analysis.plan.copies);
        let copied: f64 = copies().map(|copies| copies.elements).sum();
        let growth = copied / copies().map(|copies| copies.parameters).sum::<f64>();
        if growth > options.growth {
            let mut names = BlockNames::of(main.graph);
            for (graph, analysis) in analyses.iter_mut().enumerate() {
                let GraphAnalysis { reader, meanings, plan, .. } = analysis;
                let (wanted, copies) = (wanted(graph), std::mem::take(&mut plan.copies));
                *plan = plan::without_copies(reader, meanings, &mut names, wanted, copies, growth);
            }
        }
        if main.graph.model.has_training_info {
            analyses.iter_mut().for_each(GraphAnalysis::leave_alone);
        }
        Ok(analyses)
    }

    /// Plans nothing: whatever would be fused or converted is left alone, since the code that
    /// trains the model reads and sets its tensors by their names.
    fn leave_alone(&mut self) {
        let blocks = std::mem::take(&mut self.plan.blocks);
        let left = |subject, node| NearMiss { subject, node, reason: Reason::TrainingInfo };
        let blocks = blocks.into_iter().map(|block| left(Subject::Block, block.name));
        self.plan.near_misses.extend(blocks);
        let label = |id| self.reader.graph.node(id).label().to_owned();
        let forms = std::mem::take(&mut self.training.forms);
        let nodes = forms.into_iter().map(|(id, _)| left(Subject::Node, label(id)));
        self.training.near_misses.extend(nodes);
    }

    /// Returns what is replaced in the graph if these `blocks` are made.
    pub fn replaced<'b>(&self, blocks: impl Iterator<Item = &'b Block>) -> Replaced {
        let made = blocks.flat_map(Block::made).collect();
        Replaced::new(self.reader.graph, made, &self.training.forms)
    }
}

/// Creates the readers of all graphs of a model, in their order; a body's reader refers to the
/// reader of the graph around it.
pub fn readers<'g, 'm>(
    graphs: &'g [Graph<'m>],
    constants: &'g [Arc<Constants<'g, 'm>>],
    dependence: &'g [Dependence],
    options: &'g Options,
) -> Vec<Reader<'g, 'm>> {
    let (shapes, asked) = (&options.run.shapes, options.training_mode);
    let mut readers: Vec<Reader> = Vec::with_capacity(graphs.len());
    for ((graph, constants), dependence) in graphs.iter().zip(constants).zip(dependence) {
        let reader = Reader::new(graph, constants, shapes, Training { asked, dependence });
        let outer = graph.outer.and_then(|(outer, _)| readers.get(outer));
        let reader = match outer {
            Some(outer) => reader.within(outer),
            None => reader,
        };
        readers.push(reader);
    }
    readers
}
