//! Folds the training-time convolution blocks of an ONNX model into single
//! convolutions, and proves that nothing changed.
//!
//! [`convert`] is the whole pipeline; the modules stand in the order in which a
//! model flows through them:
//!
//! ```text
//! file ─▶ graph ─▶ regions ─▶ plan ─▶ fused tensors ─▶ proofs ─▶ file
//! ```

// With the lints in `Cargo.toml`: nothing that a file says can make the product panic.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::string_slice))]

pub mod onnx;

pub mod engine;

pub mod affine;
pub mod region;

pub mod plan;

pub mod fuse;

pub mod claim;
pub mod verify;

pub mod rewrite;

pub mod deliver;

pub mod report;

mod error;

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;

use deliver::Delivery;
use engine::Limits;
pub use error::Error;
use fuse::{FuseError, Fused};
use onnx::graph::Graph;
use onnx::inline::{self, inline};
use onnx::model::{self, Invalid, Model};
use onnx::output::{self, Clobber, folder_of};
use onnx::storage::{Links, Storage};
use plan::{Block, Names, Plan};
use region::constant::Constants;
use region::inference::Inferred;
use region::read::{NEWEST_OPSET, Reader};
use region::{NearMiss, Readings, Reason};
use report::{BlockReport, Mode, Report};
use rewrite::{Changes, Replaced};
use verify::block::Unproved;
use verify::model::Outcome;
use verify::written::Expected;

/// A file, or a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// Standard input or output.
    Pipe,
}

/// How to convert. The default verifies, with one random input.
#[derive(Debug, Clone)]
pub struct Options {
    /// Prove every block and run both models.
    pub verify: bool,
    /// Treat initializers that a caller may override as unknown.
    pub keep_overridable: bool,
    /// Names of blocks to leave alone.
    pub skip: Vec<String>,
    /// Whether side files may be links that lead out of the model's folder.
    pub links: Links,
    /// Whether an existing output is replaced.
    pub clobber: Clobber,
    /// Fail if the whole model cannot be run.
    pub require_run: bool,
    /// Fail if nothing is fused.
    pub require_fusion: bool,
    /// How the whole models are run.
    pub run: verify::model::Options,
    /// How long verification may take, all in all.
    pub verify_timeout: Duration,
    /// How many bytes the tensors of a run may take at a time.
    pub verify_memory: usize,
    /// Called as stages begin and advance: name, done, all.
    pub progress: fn(&str, usize, usize),
}

impl Default for Options {
    fn default() -> Self {
        Options {
            verify: true,
            keep_overridable: false,
            skip: Vec::new(),
            links: Links::Confined,
            clobber: Clobber::Replace,
            require_run: false,
            require_fusion: false,
            run: verify::model::Options {
                seed: 0,
                samples: 1,
                tolerance: None,
                shapes: engine::InputShapes::new(),
            },
            verify_timeout: Duration::from_secs(900),
            verify_memory: 8 << 30,
            progress: |_, _, _| {},
        }
    }
}

/// Converts `input`; without `output` it only looks.
///
/// # Errors
/// If the model cannot be read, is malformed, fails verification, or cannot be
/// written. Nothing is written then.
pub fn convert(input: &Place, output: Option<&Place>, options: &Options) -> Result<Report, Error> {
    let file = input.label();
    let invalid = |source| Error::Invalid { file: file.clone(), source };
    if let Some(Place::File(target)) = output {
        output::check_target(target, options.clobber)
            .map_err(|source| Error::Write { file: target.display().to_string(), source })?;
    }
    let original = open(input, options.links)?;
    let inlined = with_functions_inlined(&original, options).map_err(invalid)?;
    let model = inlined.as_ref().unwrap_or(&original);
    let graphs = Graph::read_all(model).map_err(invalid)?;
    graphs.iter().take(1).try_for_each(Graph::check_tensors).map_err(invalid)?;
    check_shapes(&file, &graphs, &options.run.shapes)?;
    let constants = Constants::find_all(&graphs, options.keep_overridable).map_err(invalid)?;
    let readers = readers(&graphs, &constants, options);
    let mut scopes = Scope::of_all(&readers, &options.skip).map_err(invalid)?;
    let mut report = looked(&file, model, &graphs, &scopes, options).map_err(invalid)?;
    let must_fuse = |blocks: &[BlockReport]| match blocks.is_empty() && options.require_fusion {
        true => Err(Error::NothingFused { file: file.clone() }),
        false => Ok(()),
    };
    must_fuse(&report.blocks)?;
    if let Some(output) = output {
        let limits = Limits::new(options.verify_timeout, options.verify_memory);
        let work = Work { file: &file, original: &original, graphs: &graphs, options, limits };
        let fused = work.fuse_and_prove(&mut scopes, &mut report)?;
        must_fuse(&report.blocks)?;
        work.write(output, &scopes, &fused, &mut report)?;
    }
    Ok(report)
}

/// One graph of the model, as it is understood, and what is to be done with it.
struct Scope<'r, 'g, 'm> {
    reader: &'r Reader<'g, 'm>,
    readings: Readings,
    plan: Plan,
    inferred: Inferred,
}

impl<'r, 'g, 'm> Scope<'r, 'g, 'm> {
    fn of_all(readers: &'r [Reader<'g, 'm>], skip: &[String]) -> Result<Vec<Self>, Invalid> {
        let Some(main) = readers.first() else { return Ok(Vec::new()) };
        let mut names = Names::of(main.graph);
        let scope = |reader| {
            let readings = Readings::of(reader)?;
            let plan = plan::plan(reader, &readings, &mut names, skip);
            Ok(Scope { reader, plan, inferred: Inferred::find(reader)?, readings })
        };
        readers.iter().map(scope).collect()
    }
}

/// Whether the shapes that the user gave are those of graph inputs.
fn check_shapes(file: &str, graphs: &[Graph], shapes: &engine::InputShapes) -> Result<(), Error> {
    let Some(main) = graphs.first() else { return Ok(()) };
    let inputs: Vec<(String, Option<usize>)> = main.inputs();
    for (name, shape) in shapes {
        let reason = match inputs.iter().find(|(input, _)| input == name) {
            None => {
                let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
                format!("the model has no such input; it has {}", names.join(", "))
            }
            Some((_, Some(rank))) if *rank != shape.len() => {
                format!("the input has {rank} dimensions, not {}", shape.len())
            }
            Some(_) => continue,
        };
        return Err(Error::InputShape { file: file.to_owned(), input: name.clone(), reason });
    }
    Ok(())
}

/// The model with those local functions inlined that take part in a block, or hold
/// nodes in training mode; `None` if there are none.
fn with_functions_inlined(model: &Model, options: &Options) -> Result<Option<Model>, Invalid> {
    let index = |bytes| Model::index(bytes, model.storage.clone());
    let Some(bytes) = inline(model, &|_| true)? else { return Ok(None) };
    let inlined = index(bytes)?;
    let graphs = Graph::read_all(&inlined)?;
    let constants = Constants::find_all(&graphs, options.keep_overridable)?;
    let readers = readers(&graphs, &constants, options);
    let scopes = Scope::of_all(&readers, &options.skip)?;
    let nodes = scopes.iter().flat_map(|scope| {
        let nodes = scope.plan.blocks.iter().flat_map(|block| &block.region.nodes);
        let inferred = scope.inferred.forms.iter().map(|(id, _)| id);
        nodes.chain(inferred).map(|&id| scope.reader.graph.node(id).proto.name())
    });
    // A call's nodes have names that begin with the call's.
    let mut callers: HashSet<&str> = HashSet::new();
    for name in nodes {
        callers.extend(name.match_indices('/').filter_map(|(end, _)| name.get(..end)));
    }
    let takes_part = |call: &str| callers.contains(call);
    inline(model, &takes_part)?.map(index).transpose()
}

fn readers<'g, 'm>(
    graphs: &'g [Graph<'m>],
    constants: &'g [Arc<Constants<'g, 'm>>],
    options: &'g Options,
) -> Vec<Reader<'g, 'm>> {
    let shapes = &options.run.shapes;
    let both = graphs.iter().zip(constants);
    both.map(|(graph, constants)| Reader::new(graph, constants, shapes)).collect()
}

fn open(input: &Place, links: Links) -> Result<Model, Error> {
    let file = input.label();
    let read = |source| Error::Read { file: file.clone(), source };
    let (bytes, storage) = match input {
        Place::Pipe => (model::read(io::stdin().lock()).map_err(read)?, Storage::default()),
        Place::File(path) => {
            (model::map(path).map_err(read)?, Storage::in_folder(folder_of(path), links))
        }
    };
    Model::index(bytes, storage).map_err(|source| Error::Invalid { file: file.clone(), source })
}

/// What would be done.
fn looked(
    file: &str,
    model: &Model,
    graphs: &[Graph],
    scopes: &[Scope],
    options: &Options,
) -> Result<Report, Invalid> {
    let plans = || scopes.iter().map(|scope| &scope.plan);
    let replaced = scopes.iter().map(|scope| {
        let roots = |block: &Block| block.parts.iter().map(|part| part.root).collect();
        let blocks = scope.plan.blocks.iter().map(|block| (block.region.output, roots(block)));
        Replaced::new(scope.reader.graph, blocks.collect(), &scope.inferred.forms)
    });
    let new = plans().flat_map(|plan| &plan.blocks).map(|block| block.after.nodes).sum();
    let nodes_after = rewrite::nodes_after(graphs, &replaced.collect::<Vec<_>>(), new);
    let inferred = || scopes.iter().map(|scope| &scope.inferred);
    let near_misses = plans().flat_map(|plan| &plan.near_misses);
    let near_misses = near_misses.chain(inferred().flat_map(|inferred| &inferred.near_misses));
    let mut near_misses: Vec<NearMiss> = near_misses.cloned().collect();
    near_misses.extend(calls_that_stay(model, graphs)?);
    let mut said = HashSet::new();
    near_misses.retain(|miss| said.insert((miss.node.clone(), miss.reason.to_string())));
    Ok(Report {
        file: file.to_owned(),
        blocks: plans().flat_map(BlockReport::of).collect(),
        near_misses,
        nodes: (graphs.iter().map(Graph::node_count).sum(), nodes_after),
        newer_opset: Some(model.opset).filter(|&opset| opset > NEWEST_OPSET),
        fixed_shapes: fixed_shapes(scopes, &options.run.shapes),
        inferred: inferred().map(|inferred| inferred.forms.len()).sum(),
        removed_inputs: 0,
        bytes: (model.bytes().len(), 0),
        side_file: None,
        run: None,
        mode: Mode::Look,
    })
}

/// The shapes that the user gave, if a block may rely on them.
fn fixed_shapes(scopes: &[Scope], shapes: &engine::InputShapes) -> Vec<String> {
    let mut blocks = scopes.iter().flat_map(|scope| &scope.plan.blocks);
    if !blocks.any(|block| block.relies_on_sizes) {
        return Vec::new();
    }
    let text = |(name, shape): (&String, &Vec<usize>)| {
        let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
        format!("{name}={}", sizes.join(","))
    };
    shapes.iter().map(text).collect()
}

/// Calls of functions that hold convolutions or norms and cannot be inlined.
fn calls_that_stay(model: &Model, graphs: &[Graph]) -> Result<Vec<NearMiss>, Invalid> {
    let calls = inline::refused(model, graphs)?;
    let miss = |(node, why): (String, String)| NearMiss { node, reason: Reason::Call(why) };
    Ok(calls.into_iter().map(miss).collect())
}

struct Work<'w, 'm> {
    file: &'w str,
    /// As it was read, its functions not inlined.
    original: &'w Model,
    graphs: &'w [Graph<'m>],
    options: &'w Options,
    /// What verification may take from now on.
    limits: Limits,
}

/// A block's fate.
enum Done {
    Fused(Fused, Option<f64>),
    LeftAlone(Reason),
}

impl Work<'_, '_> {
    /// Fuses all blocks in parallel, each proved as soon as it is there. What cannot
    /// be computed or run leaves the plan; what is wrong ends the conversion.
    fn fuse_and_prove(
        &self,
        scopes: &mut [Scope],
        report: &mut Report,
    ) -> Result<Vec<Vec<Fused>>, Error> {
        let total = scopes.iter().map(|scope| scope.plan.blocks.len()).sum();
        let count = std::sync::atomic::AtomicUsize::new(0);
        report.blocks.clear();
        let fuse_scope = |scope: &mut Scope| {
            let view = &*scope;
            let each = |block: &Block| {
                let done = self.block(view, block);
                let count = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
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
    fn write(
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

impl Place {
    /// `-` is a pipe.
    pub fn of(argument: &str) -> Self {
        if argument == "-" { Place::Pipe } else { Place::File(argument.into()) }
    }

    fn label(&self) -> String {
        match self {
            Place::File(path) => path.display().to_string(),
            Place::Pipe => "-".to_owned(),
        }
    }
}
