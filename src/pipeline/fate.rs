//! What became of the blocks of a plan.
//!
//! Plain values: knows no file, and not how a block is made or proved.

use crate::affine::Comparison;
use crate::emit::nodes::FusedNodes;
use crate::pipeline::analysis::GraphAnalysis;
use crate::plan::Block;
use crate::refusal::Reason;
use crate::verify::fingerprint::Fingerprint;

/// What became of a block.
pub enum Fate {
    /// It was fused, and proved if that is asked for.
    Made(MadeBlock),
    /// What it would become cannot be computed or run.
    LeftAlone(Reason),
}

/// What takes a block's place, and what is known of it.
#[derive(Clone)]
pub struct MadeBlock {
    /// The new nodes and tensors.
    pub fused: FusedNodes,
    /// What its new tensors must be in the file; none if nothing is verified.
    pub fingerprints: Vec<Fingerprint>,
    /// The largest relative error of its proof; `None` if nothing is verified.
    pub proof: Option<f64>,
    /// What became of its weights; `None` if nobody asks.
    pub compared: Option<Vec<Comparison>>,
}

/// The blocks of a graph that were made, and what takes their place.
pub fn made_blocks<'p>(
    analysis: &'p GraphAnalysis,
    fates: &'p [Fate],
) -> impl Iterator<Item = (&'p Block, &'p MadeBlock)> {
    analysis.plan.blocks.iter().zip(fates).filter_map(|(block, fate)| match fate {
        Fate::Made(made) => Some((block, made)),
        Fate::LeftAlone(_) => None,
    })
}
