//! What is known of each graph of a model, and what is to be done with it.
//!
//! Reads everything and changes nothing. Knows the planner and the operators, and neither
//! files nor the report.

use std::sync::Arc;

use crate::facts::constants::Constants;
use crate::facts::dependence::Dependence;
use crate::onnx::graph::Graph;
use crate::onnx::model::Invalid;
use crate::ops::meanings::Meanings;
use crate::ops::reader::{Reader, Training};
use crate::ops::training::TrainingNodes;
use crate::options::Options;
use crate::plan::{self, BlockNames, Plan};

/// One graph of the model, as it is understood, and what is to be done with it.
pub struct GraphAnalysis<'r, 'g, 'm> {
    /// Its nodes and tensors.
    pub reader: &'r Reader<'g, 'm>,
    /// What each node computes.
    pub meanings: Meanings,
    /// Its blocks.
    pub plan: Plan,
    /// Its nodes in training mode.
    pub training: TrainingNodes,
}

impl<'r, 'g, 'm> GraphAnalysis<'r, 'g, 'm> {
    /// One per reader; `skip` names blocks to leave alone.
    ///
    /// # Errors
    /// If a stored tensor is malformed.
    pub fn of_all(readers: &'r [Reader<'g, 'm>], skip: &[String]) -> Result<Vec<Self>, Invalid> {
        let Some(main) = readers.first() else { return Ok(Vec::new()) };
        let mut names = BlockNames::of(main.graph);
        let analysis = |reader| {
            let meanings = Meanings::of(reader)?;
            let plan = plan::plan(reader, &meanings, &mut names, skip);
            Ok(GraphAnalysis { reader, plan, training: TrainingNodes::find(reader)?, meanings })
        };
        readers.iter().map(analysis).collect()
    }
}

/// Readers of all graphs of a model.
pub fn readers<'g, 'm>(
    graphs: &'g [Graph<'m>],
    constants: &'g [Arc<Constants<'g, 'm>>],
    dependence: &'g [Dependence],
    options: &'g Options,
) -> Vec<Reader<'g, 'm>> {
    let (shapes, asked) = (&options.run.shapes, options.training_mode);
    let all = graphs.iter().zip(constants).zip(dependence);
    let reader = |((graph, constants), dependence): ((_, &'g Arc<Constants<'g, 'm>>), _)| {
        Reader::new(graph, constants, shapes, Training { asked, dependence })
    };
    all.map(reader).collect()
}
