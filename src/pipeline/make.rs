//! The third step: fuses every block, and proves it as soon as it is fused.
//!
//! Knows the plan and writes no file: what takes a block's place is a value.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::emit::nodes::FusedNodes;
use crate::emit::weights::{FusedWeights, NotFinite};
use crate::engine::{Constant, Limits};
use crate::error::Error;
use crate::onnx::ids::{IdMap, ValueId};
use crate::ops::reader::Reader;
use crate::options::{Options, Progress};
use crate::pipeline::analysis::GraphAnalysis;
use crate::pipeline::byproducts;
use crate::pipeline::claim;
use crate::pipeline::counts::{self, MultiplyAdds};
use crate::pipeline::edits::BlockNodes;
use crate::pipeline::failure;
use crate::pipeline::fate::{Fate, MadeBlock, made_blocks};
use crate::pipeline::fuse;
use crate::pipeline::planned::Planned;
use crate::plan::{Block, WeightError};
use crate::refusal::{NearMiss, Reason, Subject};
use crate::setting::Setting;
use crate::verify::claim::{Side, Unproved};
use crate::verify::fingerprint::Fingerprint;
use crate::verify::original::Original;
use crate::verify::proof::prove;

/// The fates of all planned blocks.
pub struct Made {
    /// For each graph, the fate of each block of its plan.
    pub fates: Vec<Vec<Fate>>,
    /// The multiply-adds with the blocks that were made; `None` if all were, or nobody asks.
    pub multiply_adds: Option<MultiplyAdds>,
}

impl Made {
    /// Fuses all blocks of the model called `file`, and proves them within `limits`. Blocks that
    /// were made for an `earlier` plan are taken from it.
    ///
    /// # Errors
    /// Returns an error if a block is malformed or computes something else, or its proof does
    /// not finish.
    pub fn of(
        planned: &Planned,
        earlier: Option<(&Planned, &Made)>,
        file: &str,
        options: &Options,
        limits: Limits,
    ) -> Result<Self, Error> {
        let all = planned.blocks().count();
        if all > 0 {
            (options.progress)(Progress::Proving { done: 0, all });
        }
        let maker = Maker { file, options, limits, done: AtomicUsize::new(0), all };
        let originals = originals(&planned.analyses);
        let graphs = planned.analyses.iter().zip(&originals).enumerate();
        let fates = graphs.map(|(graph, (analysis, original))| {
            maker.graph(analysis, original, &blocks_by_output(earlier, graph))
        });
        let fates = fates.collect::<Result<Vec<Vec<Fate>>, Error>>()?;
        let mut made = Made { fates, multiply_adds: None };
        if planned.details.is_some() && made.left_alone(planned).next().is_some() {
            let blocks = planned.analyses.iter().zip(&made.fates);
            let blocks = blocks.map(|(analysis, fates)| {
                made_blocks(analysis, fates).map(|(block, _)| block).collect()
            });
            let blocks: Vec<Vec<&Block>> = blocks.collect();
            let counted = counts::multiply_adds(&planned.analyses, &blocks, planned.counting);
            made.multiply_adds = Some(counted);
        }
        Ok(made)
    }

    /// Checks whether no block was made.
    pub fn is_empty(&self) -> bool {
        !self.fates.iter().flatten().any(|fate| matches!(fate, Fate::Made(_)))
    }

    /// Returns the blocks that were not made, and why.
    pub fn left_alone(&self, planned: &Planned) -> impl Iterator<Item = NearMiss> {
        planned.blocks().zip(self.fates.iter().flatten()).filter_map(|(block, fate)| match fate {
            Fate::Made(_) => None,
            Fate::LeftAlone(reason) => {
                let (node, reason) = (block.name.clone(), reason.clone());
                Some(NearMiss { subject: Subject::Block, node, reason })
            }
        })
    }
}

/// The blocks that were made, each with what replaces it, by output.
type BlocksByOutput<'m> = IdMap<ValueId, (&'m Block, &'m MadeBlock)>;

/// Returns the blocks of one graph that were made for an earlier plan.
fn blocks_by_output<'m>(
    earlier: Option<(&'m Planned, &'m Made)>,
    graph: usize,
) -> BlocksByOutput<'m> {
    let of_graph = earlier.and_then(|(planned, made)| {
        let (analysis, fates) = (planned.analyses.get(graph)?, made.fates.get(graph)?);
        Some(made_blocks(analysis, fates))
    });
    of_graph.into_iter().flatten().map(|of| (of.0.region.output, of)).collect()
}

/// The context in which all blocks are made.
struct Maker<'w> {
    file: &'w str,
    options: &'w Options,
    limits: Limits,
    /// Number of blocks whose fate is known.
    done: AtomicUsize,
    all: usize,
}

impl Maker<'_> {
    /// Makes all blocks of a graph in parallel, except those that were made `earlier`, and returns
    /// their fates.
    fn graph(
        &self,
        analysis: &GraphAnalysis,
        original: &Original,
        earlier: &BlocksByOutput,
    ) -> Result<Vec<Fate>, Error> {
        let fate = |(index, block): (usize, &Block)| {
            let same = earlier.get(&block.region.output).filter(|(before, _)| before.is(block));
            let fate = match same {
                Some(&(_, made)) => Fate::Made(made.clone()),
                None => self.block(analysis, original, block)?,
            };
            let done = self.done.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            (self.options.progress)(Progress::Proving { done, all: self.all });
            Ok((index, fate))
        };
        // Blocks are handed out one by one, the largest first, so that no processor is left
        // alone with a large one at the end.
        let mut blocks: Vec<(usize, &Block)> = analysis.plan.blocks.iter().enumerate().collect();
        blocks.sort_by(|(_, a), (_, b)| b.before.parameters.total_cmp(&a.before.parameters));
        let fates = blocks.into_iter().par_bridge().map(fate);
        let mut fates = fates.collect::<Result<Vec<(usize, Fate)>, Error>>()?;
        fates.sort_by_key(|&(index, _)| index);
        let mut fates: Vec<Fate> = fates.into_iter().map(|(_, fate)| fate).collect();
        loop {
            let wrong = byproducts::reading_what_is_missing(analysis, &fates);
            let planned =
                wrong.into_iter().filter_map(|at| Some((at, analysis.plan.blocks.get(at)?)));
            let blocks: Vec<(usize, Block)> = planned
                .map(|(at, block)| (at, Block { turned_roots: Vec::new(), ..block.clone() }))
                .collect();
            if blocks.is_empty() {
                break;
            }
            for (at, block) in blocks {
                if let Some(fate) = fates.get_mut(at) {
                    *fate = self.block(analysis, original, &block)?;
                }
            }
        }
        byproducts::leave_out_unread(analysis, &mut fates);
        Ok(fates)
    }

    fn block(
        &self,
        analysis: &GraphAnalysis,
        original: &Original,
        block: &Block,
    ) -> Result<Fate, Error> {
        let GraphAnalysis { reader, meanings, plan, .. } = analysis;
        let terms = match fuse::terms(reader, meanings, plan, block) {
            Ok(terms) => terms,
            Err(WeightError::Invalid(source)) => return Err(Error::invalid(self.file)(source)),
            Err(refused) => return Ok(left_alone(&refused, None)),
        };
        let fused = match fuse::fused(reader, block, &terms) {
            Ok(fused) => fused,
            Err(not_finite) => return Ok(left_alone(&not_finite, None)),
        };
        let compared = self.options.details.then(|| fuse::compared(&terms));
        if !self.options.verify {
            let (fingerprints, proof) = (Vec::new(), None);
            return Ok(Fate::Made(MadeBlock { fused, fingerprints, proof, compared }));
        }
        // The plan made sure that the weights are finite.
        let fingerprints =
            fingerprints(&fused).map_err(|wrong| Error::miswritten(self.file, &wrong))?;
        let BlockNodes { made, .. } = BlockNodes::of(block, &fused);
        let new = Side { nodes: fused.nodes.clone(), constants: constants(&fused) };
        let claims = claim::claims(reader, meanings, (block, &made), &new);
        let mut largest = 0.0f64;
        for claim in &claims {
            match prove(original, claim, self.limits) {
                Ok(error) => largest = largest.max(error),
                Err(why) => {
                    return self.unproved(why, block, reader.graph.value(claim.output).name);
                }
            }
        }
        Ok(Fate::Made(MadeBlock { fused, fingerprints, proof: Some(largest), compared }))
    }

    /// Returns the fate of `block`, one `output` of which is not proved.
    ///
    /// # Errors
    /// Returns an error if that ends the conversion.
    fn unproved(&self, why: Unproved, block: &Block, output: &str) -> Result<Fate, Error> {
        match failure::of_proof(self.file, ("block", &block.name), output, &why) {
            Some(error) => Err(error),
            None => Ok(left_alone(&why, why.setting())),
        }
    }
}

/// Returns the fate of a block whose nodes stay because of `why`.
fn left_alone(why: &impl Display, setting: Option<Setting>) -> Fate {
    Fate::LeftAlone(Reason::Unproved { why: why.to_string(), setting })
}

/// Returns the graphs as verification knows them, as they stand in the file.
fn originals<'r, 'g, 'm>(analyses: &[GraphAnalysis<'r, 'g, 'm>]) -> Vec<Arc<Original<'r, 'g, 'm>>> {
    let mut originals: Vec<Arc<Original>> = Vec::with_capacity(analyses.len());
    for analysis in analyses {
        let Reader { graph, constants, sizes, .. } = analysis.reader;
        let outer = graph.outer.and_then(|(outer, _)| originals.get(outer).cloned());
        let converted = analysis.training.forms.iter().cloned().collect();
        originals.push(Arc::new(Original::new(graph, constants, sizes, outer, converted)));
    }
    originals
}

/// Returns the fingerprints that the new tensors must have in the file.
fn fingerprints(fused: &FusedNodes) -> Result<Vec<Fingerprint>, NotFinite> {
    let told = fused.told.iter().map(|tensor| Ok(Fingerprint::of(tensor)));
    fused.weights.iter().map(fingerprint).chain(told).collect()
}

/// Returns the fingerprint that `weights` must have in the file.
///
/// # Errors
/// Returns an error if one of the weights is not finite after rounding.
pub fn fingerprint(weights: &FusedWeights) -> Result<Fingerprint, NotFinite> {
    let pieces = weights.pieces().map(|piece| weights.read(piece));
    Fingerprint::rounded(weights.header(), weights.float, pieces)
}

/// Returns the new tensors as constants for the proof: weights before rounding, in float64.
fn constants(fused: &FusedNodes) -> Vec<Constant> {
    let floats = fused.weights.iter().map(|weights| {
        Constant::doubles(&weights.name, &weights.dims, Arc::clone(&weights.numbers))
    });
    floats.chain(fused.told.iter().cloned().map(Constant::from)).collect()
}
