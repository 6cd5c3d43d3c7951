//! From what was made to what changes: the edits of all graphs, and the model they refer to.
//!
//! Knows what was planned and made; writes no file.

use std::ptr;

use crate::onnx::graph::Graph;
use crate::onnx::model::{Invalid, Model};
use crate::pipeline::counts;
use crate::pipeline::edits::{self, BlockNodes, Changes, Rewrite};
use crate::pipeline::fate::made_blocks;
use crate::pipeline::make::Made;
use crate::pipeline::open::Opened;
use crate::pipeline::planned::Planned;

/// The edits that make the new model, and the model that they apply to.
pub struct Edited<'m> {
    /// The model that the edits refer to.
    pub old: &'m Model,
    /// The edits, with the new weights.
    pub rewrite: Rewrite,
    /// What is reported of the old model instead of the plan, if calls were inlined in vain.
    pub stays: Option<Stays>,
}

/// The size of a model that stays as it is.
pub struct Stays {
    /// Number of nodes of all graphs.
    pub nodes: usize,
    /// Number of elements of its stored floating-point tensors.
    pub parameters: u64,
}

impl<'m> Edited<'m> {
    /// Returns the edits for what was `made` of the model `opened` and read as `graphs`.
    ///
    /// # Errors
    /// Returns an error if an entry cannot be read.
    pub fn of(
        opened: &'m Opened,
        graphs: &[Graph<'m>],
        planned: &Planned,
        made: &Made,
    ) -> Result<Self, Invalid> {
        let changes = planned.analyses.iter().zip(&made.fates).map(|(analysis, fates)| {
            let blocks = made_blocks(analysis, fates);
            let blocks = blocks.map(|(block, made)| BlockNodes::of(block, &made.fused));
            Changes { blocks: blocks.collect(), eval_forms: analysis.training.forms.clone() }
        });
        let rewrite = edits::rewrite(graphs, &changes.collect::<Vec<_>>())?;
        let read = graphs.first().map_or(opened.model(), |main| main.model);
        if !rewrite.is_empty() {
            return Ok(Edited { old: read, rewrite, stays: None });
        }
        // Nodes are sorted and functions inlined only for blocks; without any, the file stays as
        // is.
        let is_inlined = !ptr::eq(read, opened.model());
        let stays = if is_inlined { Some(Stays::of(opened.model())?) } else { None };
        Ok(Edited { old: &opened.original, rewrite, stays })
    }
}

impl Stays {
    fn of(model: &Model) -> Result<Self, Invalid> {
        let graphs = Graph::read_all(model)?;
        let nodes = graphs.iter().map(Graph::node_count).sum();
        Ok(Stays { nodes, parameters: counts::parameters(&graphs)? })
    }
}
