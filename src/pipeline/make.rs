//! Carries a plan out: fuses and proves every block, writes the new model, and has it
//! checked before it is put in place.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::affine::Comparison;
use crate::emit::nodes::Fused;
use crate::emit::weights::NotFinite;
use crate::engine::{Constant, EngineError, Limits};
use crate::error::Error;
use crate::facts::constants::Constants;
use crate::onnx::graph::Graph;
use crate::onnx::model::{Invalid, Model};
use crate::ops::reader::Reader;
use crate::options::{Endpoint, Options};
use crate::pipeline::claim;
use crate::pipeline::counts;
use crate::pipeline::deliver::Delivery;
use crate::pipeline::edits::{self, Changes};
use crate::pipeline::fuse;
use crate::pipeline::open::{self, GraphAnalysis};
use crate::pipeline::summary;
use crate::plan::{Block, WeightError};
use crate::refusal::{NearMiss, Reason};
use crate::report::{File, Proof, Report, SideFile, Size, timed};
use crate::verify;
use crate::verify::claim::{Side, Unproved};
use crate::verify::fingerprint::Fingerprint;
use crate::verify::original::Original;
use crate::verify::readback::{Expected, Miswritten};
use crate::verify::run::Outcome;

/// One conversion that is more than a look.
pub struct Conversion<'w, 'm> {
    /// What the input is called in errors.
    pub file: &'w str,
    /// As it was read, its functions not inlined.
    pub original: &'w Model,
    /// Of the model whose functions are inlined.
    pub graphs: &'w [Graph<'m>],
    /// What is constant in them.
    pub constants: &'w [Arc<Constants<'w, 'm>>],
    /// What was asked for.
    pub options: &'w Options,
    /// What verification may take from now on.
    pub limits: Limits,
}

/// What takes a block's place, and what is known of it.
struct Made {
    fused: Fused,
    /// What its new tensors must be in the file; none if nothing is verified.
    fingerprints: Vec<Fingerprint>,
    /// The largest relative error of its proof.
    proof: Option<f64>,
    /// What became of its weights; `None` if nobody asks.
    compared: Option<Vec<Comparison>>,
}

/// A block's fate.
enum Done {
    Made(Made),
    LeftAlone(Reason),
}

impl Conversion<'_, '_> {
    /// Fuses and proves all blocks, and writes the new model.
    ///
    /// # Errors
    /// If a block is malformed, or is not what it was; if the new model is not the old one,
    /// or cannot be written; if nothing is left to fuse and there must be.
    pub fn carry_out(
        &self,
        to: &Endpoint,
        scopes: &mut [GraphAnalysis],
        report: &mut Report,
    ) -> Result<(), Error> {
        let mut fusing = 0.0;
        let made = timed(&mut fusing, || self.fuse_and_prove(scopes, report));
        report.seconds.fuse_and_prove = fusing;
        let made = made?;
        open::check_time(self.file, self.constants)?;
        // Blocks leave the plan, and none comes.
        if made.iter().flatten().count() != report.blocks.len() {
            let noted = summary::note_blocks(report, scopes, self.options);
            noted.map_err(|source| Error::Invalid { file: self.file.to_owned(), source })?;
        }
        note_made(&made, report);
        must_fuse(self.file, report, self.options)?;
        self.write(to, scopes, &made, report)
    }

    /// Fuses all blocks in parallel, each proved as soon as it is there. What cannot
    /// be computed or run leaves the plan; what is wrong ends the conversion.
    fn fuse_and_prove(
        &self,
        scopes: &mut [GraphAnalysis],
        report: &mut Report,
    ) -> Result<Vec<Vec<Made>>, Error> {
        let total = scopes.iter().map(|scope| scope.plan.blocks.len()).sum();
        let count = AtomicUsize::new(0);
        let originals = originals(scopes);
        let fuse_scope = |(scope, original): (&mut GraphAnalysis, &Arc<Original>)| {
            let view = &*scope;
            let each = |(index, block): (usize, &Block)| {
                let done = self.block(view, original, block)?;
                let count = count.fetch_add(1, Ordering::Relaxed);
                (self.options.progress)("fusing and proving", count.saturating_add(1), total);
                Ok((index, done))
            };
            // The largest first, one after the other, so that no processor is left alone
            // with one of them at the end.
            let mut blocks: Vec<(usize, &Block)> = view.plan.blocks.iter().enumerate().collect();
            blocks.sort_by(|(_, a), (_, b)| b.before.parameters.total_cmp(&a.before.parameters));
            let done = blocks.into_iter().par_bridge().map(each);
            let mut done = done.collect::<Result<Vec<_>, Error>>()?;
            done.sort_by_key(|&(index, _)| index);
            let (mut all, mut kept) = (Vec::new(), Vec::new());
            for (block, done) in std::mem::take(&mut scope.plan.blocks).into_iter().zip(done) {
                match done.1 {
                    Done::Made(made) => {
                        all.push(made);
                        kept.push(block);
                    }
                    Done::LeftAlone(reason) => {
                        report.near_misses.push(NearMiss { node: block.name, reason });
                    }
                }
            }
            scope.plan.blocks = kept;
            Ok(all)
        };
        scopes.iter_mut().zip(&originals).map(fuse_scope).collect()
    }

    fn block(
        &self,
        scope: &GraphAnalysis,
        original: &Original,
        block: &Block,
    ) -> Result<Done, Error> {
        let invalid = |source| Error::Invalid { file: self.file.to_owned(), source };
        let left_alone =
            |why: &dyn ToString| Ok(Done::LeftAlone(Reason::Unproved(why.to_string())));
        let (reader, meanings) = (scope.reader, &scope.meanings);
        let terms = match fuse::terms(reader, meanings, block) {
            Ok(terms) => terms,
            Err(WeightError::Invalid(source)) => return Err(invalid(source)),
            Err(refused) => return left_alone(&refused),
        };
        let fused = match fuse::fused(reader, block, &terms) {
            Ok(fused) => fused,
            Err(not_finite) => return left_alone(&not_finite),
        };
        let compared = self.options.details.then(|| fuse::compared(&terms));
        if !self.options.verify {
            return Ok(Done::Made(Made { fused, fingerprints: Vec::new(), proof: None, compared }));
        }
        // That they are finite was planned.
        let fingerprints = fingerprints(&fused).map_err(|wrong| Error::Miswritten {
            file: self.file.to_owned(),
            reason: wrong.to_string(),
        })?;
        let new = Side { nodes: fused.nodes.clone(), constants: constants(&fused) };
        let claim = claim::claim(reader, meanings, block, new);
        match verify::proof::prove(original, &claim, self.limits) {
            Ok(error) => Ok(Done::Made(Made { fused, fingerprints, proof: Some(error), compared })),
            // Else it would depend on the machine what is fused.
            Err(Unproved::NotRun(EngineError::TooLong)) => Err(Error::TooLong {
                file: self.file.to_owned(),
                what: format!("the proof of block `{}` (--verify-timeout allows more)", block.name),
            }),
            Err(cannot_tell) if !cannot_tell.is_wrong() => left_alone(&cannot_tell),
            Err(wrong) => Err(Error::BlockDiffers {
                file: self.file.to_owned(),
                block: block.name.clone(),
                output: scope.reader.graph.value(block.region.output).name.clone(),
                reason: wrong.to_string(),
            }),
        }
    }

    /// Writes the new model, runs it against the old one, and only then puts it in place.
    fn write(
        &self,
        to: &Endpoint,
        scopes: &[GraphAnalysis],
        made: &[Vec<Made>],
        report: &mut Report,
    ) -> Result<(), Error> {
        let invalid = |source| Error::Invalid { file: self.file.to_owned(), source };
        let changes = scopes.iter().zip(made).map(|(scope, made)| {
            let outputs = scope.plan.blocks.iter().map(|block| block.region.output);
            let blocks = outputs.zip(made).map(|(output, made)| (output, &made.fused));
            Changes { blocks: blocks.collect(), inferred: scope.inferred.forms.clone() }
        });
        let changes: Vec<Changes> = changes.collect();
        let rewrite = edits::rewrite(self.graphs, &changes).map_err(invalid)?;
        report.notes.removed_inputs = rewrite.removed_inputs;
        let nodes = |before: usize| {
            before.saturating_sub(rewrite.removed_nodes).saturating_add(rewrite.new_nodes)
        };
        report.sizes.after.nodes = report.sizes.before.nodes.map(nodes);

        // Functions are inlined for blocks; without any, the file stays as it is.
        let old = match (self.graphs.first(), rewrite.is_empty()) {
            (Some(main), false) => main.model,
            _ => self.original,
        };
        // If calls were inlined for nothing, the report is of those that stay.
        if rewrite.is_empty() && self.graphs.first().is_some_and(|main| !ptr::eq(main.model, old)) {
            let graphs = Graph::read_all(old).map_err(invalid)?;
            let nodes = Some(graphs.iter().map(Graph::node_count).sum());
            (report.sizes.before.nodes, report.sizes.after.nodes) = (nodes, nodes);
            if self.options.details {
                report.sizes.before.parameters =
                    Some(counts::parameters(&graphs).map_err(invalid)?);
            }
        }
        let delivery = Delivery { file: self.file, old, rewrite };
        let expected = scopes.iter().zip(made).map(|(scope, made)| expected(scope, made));
        let expected: Vec<Expected> = expected.collect();
        let written = &mut File { path: to.label(), ..File::default() };
        let mut seconds = 0.0;
        let delivered = timed(&mut seconds, || {
            let check = |new: &Model| {
                timed(&mut report.seconds.read_back, || {
                    self.measure(new, written, &mut report.sizes.after)
                })?;
                self.check(new, scopes, &expected, report)
            };
            match to {
                Endpoint::Pipe => delivery.to_pipe(check),
                Endpoint::File(target) => delivery.to_file(target, self.options.clobber, check),
            }
        });
        let checked = report.seconds.read_back + report.seconds.run;
        report.seconds.write = (seconds - checked).max(0.0);
        let delivered = delivered?;
        written.bytes = Some(delivered.bytes);
        report.sizes.after.bytes = written.all_bytes().filter(|_| self.options.details);
        let made = |file: &SideFile| Some(&file.location) == delivered.side_file.as_ref();
        written.side_files.retain(made);
        let (bytes, sha256) = (None, None);
        if let (Some(location), true) = (delivered.side_file.clone(), written.side_files.is_empty())
        {
            written.side_files.push(SideFile { location, bytes, sha256 });
        }
        report.output = Some(std::mem::take(written));
        Ok(())
    }

    /// Hashes and counts what was written, if somebody asks.
    fn measure(&self, new: &Model, file: &mut File, size: &mut Size) -> Result<(), Error> {
        if !self.options.details {
            return Ok(());
        }
        let wrong = |invalid: Invalid| Error::Miswritten {
            file: self.file.to_owned(),
            reason: Miswritten::from(invalid).to_string(),
        };
        file.note(new, true);
        file.note_side_files(new);
        let graphs = Graph::read_all(new).map_err(wrong)?;
        size.parameters = Some(counts::parameters(&graphs).map_err(wrong)?);
        Ok(())
    }

    /// Reads the new file back, and runs it against the old one.
    fn check(
        &self,
        new: &Model,
        scopes: &[GraphAnalysis],
        expected: &[Expected],
        report: &mut Report,
    ) -> Result<(), Error> {
        if !self.options.verify || (report.blocks.is_empty() && report.notes.inferred_nodes == 0) {
            return Ok(());
        }
        let wrong = |wrong: Miswritten| Error::Miswritten {
            file: self.file.to_owned(),
            reason: wrong.to_string(),
        };
        let graphs = timed(&mut report.seconds.read_back, || {
            let graphs = Graph::read_all(new)?;
            verify::readback::check(self.graphs, expected, &graphs).map(|()| graphs)
        });
        let graphs = graphs.map_err(wrong)?;
        let mut running = 0.0;
        let result = timed(&mut running, || self.run((new, &graphs), scopes, report));
        report.seconds.run = running;
        result
    }

    fn run(
        &self,
        new: (&Model, &[Graph]),
        scopes: &[GraphAnalysis],
        report: &mut Report,
    ) -> Result<(), Error> {
        (self.options.progress)("running both models", 0, 1);
        let file = self.file.to_owned();
        let mut oversized = scopes.iter().map(|scope| scope.reader.constants.oversized());
        let outcome = match oversized.find_map(Result::transpose) {
            None => self.compare(new, scopes),
            Some(oversized) => oversized.map(|node| {
                Outcome::NotRun(format!("node `{node}` computes a constant beyond all reason"))
            }),
        };
        let outcome = outcome.map_err(|source| Error::Invalid { file: file.clone(), source })?;
        report.run = Some(outcome.clone());
        match outcome {
            Outcome::Differs { output, error, tolerance, .. } => {
                Err(Error::OutputDiffers { file, output, error, tolerance })
            }
            Outcome::Broken(reason) => Err(Error::Broken { file, reason }),
            Outcome::NotRun(reason) if self.options.require_run => {
                Err(Error::NotRun { file, reason })
            }
            _ => Ok(()),
        }
    }

    /// Runs the new model against the old one: as it stands where nothing was converted from
    /// training mode, else with what was converted at inference, and with that alone. A norm
    /// that stays in training mode is run with the statistics of its batch, in both.
    fn compare(
        &self,
        new: (&Model, &[Graph]),
        scopes: &[GraphAnalysis],
    ) -> Result<Outcome, Invalid> {
        let run = |old| verify::run::run_graphs(old, new, &self.options.run, self.limits);
        let forms = scopes.iter().map(|scope| scope.inferred.forms.clone());
        match edits::converted(self.graphs, forms)? {
            Some(converted) => run((&converted, &Graph::read_all(&converted)?)),
            None => run((self.original, self.graphs)),
        }
    }
}

/// What verification knows of the graphs as they stand in the file.
fn originals<'r, 'g, 'm>(scopes: &[GraphAnalysis<'r, 'g, 'm>]) -> Vec<Arc<Original<'r, 'g, 'm>>> {
    let mut originals: Vec<Arc<Original>> = Vec::with_capacity(scopes.len());
    for scope in scopes {
        let Reader { graph, constants, sizes, .. } = scope.reader;
        let outer = graph.outer.and_then(|(outer, _)| originals.get(outer).cloned());
        let converted = scope.inferred.forms.iter().cloned().collect();
        originals.push(Arc::new(Original::new(graph, constants, sizes, outer, converted)));
    }
    originals
}

/// Whether a block is fused, if one must be.
///
/// # Errors
/// If it is not.
pub fn must_fuse(file: &str, report: &Report, options: &Options) -> Result<(), Error> {
    match report.blocks.is_empty() && options.require_fusion {
        true => Err(Error::NothingFused { file: file.to_owned() }),
        false => Ok(()),
    }
}

/// What the new tensors must be in the file.
fn fingerprints(fused: &Fused) -> Result<Vec<Fingerprint>, NotFinite> {
    let floats = fused.weights.iter().map(|weights| {
        let pieces = weights.pieces().map(|piece| weights.read(piece));
        Fingerprint::rounded(weights.header(), weights.float, pieces)
    });
    floats.chain(fused.integers.iter().map(|tensor| Ok(Fingerprint::of(tensor)))).collect()
}

/// What is proved of them.
fn constants(fused: &Fused) -> Vec<Constant> {
    let floats = fused.weights.iter().map(|weights| {
        Constant::doubles(&weights.name, &weights.dims, Arc::clone(&weights.numbers))
    });
    floats.chain(fused.integers.iter().cloned().map(Constant::from)).collect()
}

/// Notes in the report of each block what was made of it.
fn note_made(made: &[Vec<Made>], report: &mut Report) {
    for (block, made) in report.blocks.iter_mut().zip(made.iter().flatten()) {
        let Fused { nodes, weights, integers, .. } = &made.fused;
        let integers = integers.iter().map(|tensor| tensor.name().to_owned());
        block.new_nodes = nodes.iter().map(|node| node.name().to_owned()).collect();
        block.new_tensors =
            weights.iter().map(|weights| weights.name.clone()).chain(integers).collect();
        block.proof = made.proof.map(|error| Proof { error });
        block.note_weights(made.compared.clone());
    }
}

/// What the new file must hold because of what was made.
fn expected<'c>(scope: &'c GraphAnalysis, made: &'c [Made]) -> Expected<'c> {
    let blocks =
        made.iter().map(|made| (made.fused.nodes.as_slice(), made.fingerprints.as_slice()));
    let inferred = scope.inferred.forms.iter().map(|(id, form)| (*id, form));
    let infos = made.iter().flat_map(|made| &made.fused.infos);
    Expected { blocks: blocks.collect(), inferred: inferred.collect(), infos: infos.collect() }
}
