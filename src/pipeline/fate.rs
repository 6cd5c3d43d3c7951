//! What became of the blocks of a plan.
//!
//! Plain values: knows no file, and does not know how a block is made or proved.

use crate::affine::Comparison;
use crate::emit::nodes::FusedNodes;
use crate::pipeline::analysis::GraphAnalysis;
use crate::plan::Block;
use crate::refusal::Reason;
use crate::verify::fingerprint::Fingerprint;

/// What became of a planned block.
pub enum Fate {
    /// It was fused, and proved if the caller asked for that.
    Made(MadeBlock),
    /// Its nodes stay, because what it would become cannot be computed or proved.
    LeftAlone(Reason),
}

/// What takes a block's place, and what is known of it.
#[derive(Clone)]
pub struct MadeBlock {
    /// The new nodes and tensors.
    pub fused: FusedNodes,
    /// The fingerprints of its new tensors in the file; empty if nothing is verified.
    pub fingerprints: Vec<Fingerprint>,
    /// The largest relative error of its proof; `None` if nothing is verified.
    pub proof: Option<f64>,
    /// Its weights compared with the original ones; `None` if nobody asks.
    pub compared: Option<Vec<Comparison>>,
}

/// Returns the blocks of a graph that were made, with what takes their place.
pub fn made_blocks<'p>(
    analysis: &'p GraphAnalysis,
    fates: &'p [Fate],
) -> impl Iterator<Item = (&'p Block, &'p MadeBlock)> {
    analysis.plan.blocks.iter().zip(fates).filter_map(|(block, fate)| match fate {
        Fate::Made(made) => Some((block, made)),
        Fate::LeftAlone(_) => None,
    })
}
