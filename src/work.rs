//! Carries a plan out: fuses and proves every block, writes the new model, and has it
//! checked before it is put in place.

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::claim;
use crate::deliver::Delivery;
use crate::engine::Limits;
use crate::error::Error;
use crate::fuse::{self, FuseError, Fused};
use crate::onnx::graph::Graph;
use crate::onnx::model::{Invalid, Model};
use crate::options::{Options, Place};
use crate::plan::Block;
use crate::region::{NearMiss, Reason};
use crate::report::{BlockReport, Mode, Report};
use crate::rewrite::{self, Changes};
use crate::scope::Scope;
use crate::verify;
use crate::verify::block::Unproved;
use crate::verify::model::Outcome;
use crate::verify::written::Expected;

/// One conversion that is more than a look.
pub struct Work<'w, 'm> {
    /// What the input is called in errors.
    pub file: &'w str,
    /// As it was read, its functions not inlined.
    pub original: &'w Model,
    /// Of the model whose functions are inlined.
    pub graphs: &'w [Graph<'m>],
    /// What was asked for.
    pub options: &'w Options,
    /// What verification may take from now on.
    pub limits: Limits,
}

/// A block's fate.
enum Done {
    Fused(Fused, Option<f64>),
    LeftAlone(Reason),
}

impl Work<'_, '_> {
    /// Fuses all blocks in parallel, each proved as soon as it is there. What cannot
    /// be computed or run leaves the plan; what is wrong ends the conversion.
    ///
    /// # Errors
    /// If a block is malformed, or is not what it was.
    pub fn fuse_and_prove(
        &self,
        scopes: &mut [Scope],
        report: &mut Report,
    ) -> Result<Vec<Vec<Fused>>, Error> {
        let total = scopes.iter().map(|scope| scope.plan.blocks.len()).sum();
        let count = AtomicUsize::new(0);
        report.blocks.clear();
        let fuse_scope = |scope: &mut Scope| {
            let view = &*scope;
            let each = |block: &Block| {
                let done = self.block(view, block);
                let count = count.fetch_add(1, Ordering::Relaxed);
                (self.options.progress)("fusing and proving", count.saturating_add(1), total);
                done
            };
            let done = scope.plan.blocks.par_iter().map(each).collect::<Result<Vec<_>, _>>()?;
            let (mut fused, mut kept, mut proofs) = (Vec::new(), Vec::new(), Vec::new());
            for (block, done) in std::mem::take(&mut scope.plan.blocks).into_iter().zip(done) {
                match done {
                    Done::Fused(tensors, proof) => {
                        fused.push(tensors);
                        kept.push(block);
                        proofs.push(proof);
                    }
                    Done::LeftAlone(reason) => {
                        report.near_misses.push(NearMiss { node: block.name, reason });
                    }
                }
            }
            scope.plan.blocks = kept;
            let mut blocks = BlockReport::of(&scope.plan);
            blocks.iter_mut().zip(proofs).for_each(|(block, proof)| block.proof = proof);
            report.blocks.extend(blocks);
            Ok(fused)
        };
        scopes.iter_mut().map(fuse_scope).collect()
    }

    fn block(&self, scope: &Scope, block: &Block) -> Result<Done, Error> {
        let invalid = |source| Error::Invalid { file: self.file.to_owned(), source };
        let fused = match fuse::fuse(scope.reader, &scope.readings, block) {
            Ok(fused) => fused,
            Err(FuseError::Invalid(source)) => return Err(invalid(source)),
            Err(refused) => return Ok(Done::LeftAlone(Reason::Unproved(refused.to_string()))),
        };
        if !self.options.verify {
            return Ok(Done::Fused(fused, None));
        }
        match self.prove(scope, block, &fused).map_err(invalid)? {
            Ok(error) => Ok(Done::Fused(fused, Some(error))),
            Err(cannot_tell @ (Unproved::NotRun(_) | Unproved::TooWide | Unproved::NoElements)) => {
                Ok(Done::LeftAlone(Reason::Unproved(cannot_tell.to_string())))
            }
            Err(wrong) => Err(Error::BlockDiffers {
                file: self.file.to_owned(),
                block: block.name.clone(),
                output: scope.reader.graph.value(block.region.output).name.clone(),
                reason: wrong.to_string(),
            }),
        }
    }

    fn prove(
        &self,
        scope: &Scope,
        block: &Block,
        fused: &Fused,
    ) -> Result<Result<f64, Unproved>, Invalid> {
        let claim = claim::claim(scope.reader, &scope.readings, block, fused)?;
        Ok(verify::block::check_rounding(&fused.tensors, &fused.exact, block.float)
            .and_then(|()| verify::block::prove(&claim, self.limits)))
    }

    /// Writes the new model, runs it against the old one, and only then puts it in place.
    ///
    /// # Errors
    /// If the new model is not the old one, or cannot be written.
    pub fn write(
        &self,
        to: &Place,
        scopes: &[Scope],
        fused: &[Vec<Fused>],
        report: &mut Report,
    ) -> Result<(), Error> {
        let invalid = |source| Error::Invalid { file: self.file.to_owned(), source };
        let changes = scopes.iter().zip(fused).map(|(scope, fused)| {
            let outputs = scope.plan.blocks.iter().map(|block| block.region.output);
            Changes { blocks: outputs.zip(fused).collect(), inferred: scope.inferred.forms.clone() }
        });
        let changes: Vec<Changes> = changes.collect();
        let rewrite = rewrite::rewrite(self.graphs, &changes).map_err(invalid)?;
        report.mode = if self.options.verify { Mode::Verified } else { Mode::Unverified };
        report.removed_inputs = rewrite.removed_inputs;
        report.nodes.1 =
            report.nodes.0.saturating_sub(rewrite.removed_nodes).saturating_add(rewrite.new_nodes);

        // Functions are inlined for blocks; without any, the file stays as it is.
        let old = match (self.graphs.first(), rewrite.is_empty()) {
            (Some(main), false) => main.model,
            _ => self.original,
        };
        // If calls were inlined for nothing, the report is of those that stay.
        if rewrite.is_empty() && self.graphs.first().is_some_and(|main| !ptr::eq(main.model, old)) {
            let graphs = Graph::read_all(old).map_err(invalid)?;
            let nodes = graphs.iter().map(Graph::node_count).sum();
            report.nodes = (nodes, nodes);
        }
        let delivery = Delivery { file: self.file, old, rewrite };
        let check = |new: &Model| self.check(new, scopes, &changes, report);
        let delivered = match to {
            Place::Pipe => delivery.to_pipe(check)?,
            Place::File(target) => delivery.to_file(target, self.options.clobber, check)?,
        };
        report.bytes.1 = delivered.bytes;
        report.side_file = delivered.side_file;
        Ok(())
    }

    /// Reads the new file back, and runs it against the old one.
    fn check(
        &self,
        new: &Model,
        scopes: &[Scope],
        changes: &[Changes],
        report: &mut Report,
    ) -> Result<(), Error> {
        if !self.options.verify || (report.blocks.is_empty() && report.inferred == 0) {
            return Ok(());
        }
        let expected: Vec<Expected> = changes.iter().map(expected).collect();
        verify::written::check(self.graphs, &expected, new).map_err(|wrong| Error::Miswritten {
            file: self.file.to_owned(),
            reason: wrong.to_string(),
        })?;
        self.run(new, scopes, report)
    }

    fn run(&self, new: &Model, scopes: &[Scope], report: &mut Report) -> Result<(), Error> {
        (self.options.progress)("running both models", 0, 1);
        let file = self.file.to_owned();
        let mut oversized = scopes.iter().map(|scope| scope.reader.constants.oversized());
        let outcome = match oversized.find_map(Result::transpose) {
            None => verify::model::run(self.original, new, &self.options.run, self.limits),
            Some(oversized) => oversized.map(|node| {
                Outcome::NotRun(format!("node `{node}` computes a constant beyond all reason"))
            }),
        };
        match outcome.map_err(|source| Error::Invalid { file: file.clone(), source })? {
            Outcome::Differs { output, error, tolerance } => {
                Err(Error::OutputDiffers { file, output, error, tolerance })
            }
            Outcome::Broken(reason) => Err(Error::Broken { file, reason }),
            Outcome::NotRun(reason) if self.options.require_run => {
                Err(Error::NotRun { file, reason })
            }
            outcome => {
                report.run = Some(outcome);
                Ok(())
            }
        }
    }
}

/// What the new file must hold because of `changes`.
fn expected<'c>(changes: &'c Changes) -> Expected<'c> {
    let blocks = changes.blocks.iter();
    let blocks = blocks.map(|(_, fused)| (fused.nodes.as_slice(), fused.tensors.as_slice()));
    let inferred = changes.inferred.iter().map(|(id, form)| (*id, form));
    Expected { blocks: blocks.collect(), inferred: inferred.collect() }
}
