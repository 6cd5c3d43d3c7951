//! Folds the training-time convolution blocks of an ONNX model into single
//! convolutions, and proves that nothing changed.
//!
//! [`convert`] is the whole pipeline; the modules stand in the order in which a
//! model flows through them:
//!
//! ```text
//! file ─▶ graph ─▶ regions ─▶ plan ─▶ fused tensors ─▶ proofs ─▶ file
//! ```

pub mod engine;
pub mod onnx;

pub mod affine;
pub mod region;

pub mod plan;

pub mod fuse;

pub mod claim;
pub mod verify;

pub mod rewrite;

pub mod report;

mod error;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

pub use error::Error;
use fuse::{FuseError, Fused};
use onnx::graph::Graph;
use onnx::model::{self, Invalid, Model};
use onnx::output::{self, Staged};
use onnx::splice;
use onnx::storage::Storage;
use plan::{Block, Plan};
use region::constant::Constants;
use region::read::Reader;
use region::{NearMiss, Readings, Reason};
use report::{BlockReport, Mode, Report};
use verify::block::Unproved;
use verify::model::Outcome;

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
    /// Fail if the whole model cannot be run.
    pub require_run: bool,
    /// Fail if nothing is fused.
    pub require_fusion: bool,
    /// How the whole models are run.
    pub run: verify::model::Options,
    /// Called as stages begin and advance: name, done, all.
    pub progress: fn(&str, usize, usize),
}

impl Default for Options {
    fn default() -> Self {
        Options {
            verify: true,
            keep_overridable: false,
            skip: Vec::new(),
            require_run: false,
            require_fusion: false,
            run: verify::model::Options {
                seed: 0,
                samples: 1,
                tolerance: None,
                shapes: engine::InputShapes::new(),
            },
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
    let model = open(input)?;
    let invalid = |source| Error::Invalid { file: file.clone(), source };
    let graph = Graph::read(&model).map_err(invalid)?;
    let constants = Constants::find(&graph, options.keep_overridable).map_err(invalid)?;
    let reader = Reader::new(&graph, &constants, &options.run.shapes);
    let readings = Readings::of(&reader).map_err(invalid)?;
    let mut plan = plan::plan(&reader, &readings, &options.skip);
    let mut report = looked(&file, &graph, &plan);
    let must_fuse = |blocks: &[BlockReport]| match blocks.is_empty() && options.require_fusion {
        true => Err(Error::NothingFused { file: file.clone() }),
        false => Ok(()),
    };
    must_fuse(&report.blocks)?;
    if let Some(output) = output {
        let work = Work { file: &file, reader: &reader, readings: &readings, options };
        let fused = work.fuse_and_prove(&mut plan, &mut report)?;
        must_fuse(&report.blocks)?;
        work.write(output, &plan, &fused, &mut report)?;
    }
    Ok(report)
}

fn open(input: &Place) -> Result<Model, Error> {
    let file = input.label();
    let read = |source| Error::Read { file: file.clone(), source };
    let (bytes, storage) = match input {
        Place::Pipe => (model::read(io::stdin().lock()).map_err(read)?, Storage::default()),
        Place::File(path) => (model::map(path).map_err(read)?, Storage::in_folder(folder_of(path))),
    };
    Model::index(bytes, storage).map_err(|source| Error::Invalid { file: file.clone(), source })
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn looked(file: &str, graph: &Graph, plan: &Plan) -> Report {
    let blocks = BlockReport::of(plan);
    Report {
        file: file.to_owned(),
        blocks,
        near_misses: plan.near_misses.clone(),
        nodes: (graph.node_count(), rewrite::nodes_after(graph, plan)),
        removed_inputs: 0,
        bytes: (graph.model.bytes().len(), 0),
        run: None,
        mode: Mode::Look,
    }
}

struct Work<'w, 'g, 'm> {
    file: &'w str,
    reader: &'w Reader<'g, 'm>,
    readings: &'w Readings,
    options: &'w Options,
}

/// A block's fate.
enum Done {
    Fused(Fused, Option<f64>),
    LeftAlone(Reason),
}

impl Work<'_, '_, '_> {
    /// Fuses all blocks in parallel, each proved as soon as it is there. What cannot
    /// be computed or run leaves the plan; what is wrong ends the conversion.
    fn fuse_and_prove(&self, plan: &mut Plan, report: &mut Report) -> Result<Vec<Fused>, Error> {
        let total = plan.blocks.len();
        let count = std::sync::atomic::AtomicUsize::new(0);
        let done: Vec<Done> = plan
            .blocks
            .par_iter()
            .map(|block| {
                let done = self.block(block);
                let count = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                (self.options.progress)("fusing and proving", count + 1, total);
                done
            })
            .collect::<Result<_, _>>()?;
        let (mut fused, mut kept, mut proofs) = (Vec::new(), Vec::new(), Vec::new());
        for (block, done) in std::mem::take(&mut plan.blocks).into_iter().zip(done) {
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
        plan.blocks = kept;
        report.blocks = BlockReport::of(plan);
        report.blocks.iter_mut().zip(proofs).for_each(|(block, proof)| block.proof = proof);
        Ok(fused)
    }

    fn block(&self, block: &Block) -> Result<Done, Error> {
        let invalid = |source| Error::Invalid { file: self.file.to_owned(), source };
        let fused = match fuse::fuse(self.reader, self.readings, block) {
            Ok(fused) => fused,
            Err(FuseError::Invalid(source)) => return Err(invalid(source)),
            Err(refused) => return Ok(Done::LeftAlone(Reason::Unproved(refused.to_string()))),
        };
        if !self.options.verify {
            return Ok(Done::Fused(fused, None));
        }
        match self.prove(block, &fused).map_err(invalid)? {
            Ok(error) => Ok(Done::Fused(fused, Some(error))),
            Err(cannot_tell @ (Unproved::NotRun(_) | Unproved::TooWide)) => {
                Ok(Done::LeftAlone(Reason::Unproved(cannot_tell.to_string())))
            }
            Err(wrong) => Err(Error::BlockDiffers {
                file: self.file.to_owned(),
                block: block.name.clone(),
                output: self.reader.graph.value(block.region.output).name.clone(),
                reason: wrong.to_string(),
            }),
        }
    }

    fn prove(&self, block: &Block, fused: &Fused) -> Result<Result<f64, Unproved>, Invalid> {
        let claim = claim::claim(self.reader, self.readings, block, fused)?;
        Ok(verify::block::check_rounding(&fused.tensors, &fused.exact, block.float)
            .and_then(|()| verify::block::prove(&claim)))
    }

    /// Writes the new model, runs it against the old one, and only then puts it in place.
    fn write(
        &self,
        to: &Place,
        plan: &Plan,
        fused: &[Fused],
        report: &mut Report,
    ) -> Result<(), Error> {
        let graph = self.reader.graph;
        let invalid = |source| Error::Invalid { file: self.file.to_owned(), source };
        let blocks: Vec<_> =
            plan.blocks.iter().map(|block| block.region.output).zip(fused).collect();
        let rewrite = rewrite::rewrite(graph, &blocks).map_err(invalid)?;
        report.mode = if self.options.verify { Mode::Verified } else { Mode::Unverified };
        report.removed_inputs = rewrite.removed_inputs;
        report.nodes.1 = report.nodes.0 - rewrite.removed_nodes + rewrite.new_nodes;

        let file = to.label();
        let failed = |source| Error::Write { file: file.clone(), source };
        let old = graph.model.bytes();
        let side_files = graph.side_files().map_err(invalid)?;
        match to {
            Place::Pipe if !side_files.is_empty() => Err(failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "weights in side files cannot go through a pipe; name an output file",
            ))),
            Place::Pipe => {
                let mut new = Vec::with_capacity(old.len());
                splice::write(old, &rewrite.edits, &mut new).map_err(failed)?;
                self.run(&new, None, report)?;
                report.bytes.1 = new.len();
                io::stdout().lock().write_all(&new).map_err(failed)
            }
            Place::File(target) => {
                let staged = Staged::write(target, old, &rewrite.edits).map_err(failed)?;
                let new = model::map(staged.path()).map_err(failed)?;
                self.run(&new, graph.model.storage.folder(), report)?;
                report.bytes.1 = new.len();
                self.copy_side_files(target, &side_files).map_err(failed)?;
                staged.commit(target).map_err(failed)
            }
        }
    }

    /// A model in another folder needs its side files there; they go first.
    fn copy_side_files(&self, target: &Path, locations: &BTreeSet<String>) -> io::Result<()> {
        let storage = &self.reader.graph.model.storage;
        let folder = folder_of(target);
        let same = match (storage.folder().map(Path::canonicalize), folder.canonicalize()) {
            (Some(Ok(old)), Ok(new)) => old == new,
            _ => false,
        };
        for location in locations.iter().filter(|_| !same) {
            let content = storage.side_file(location).map_err(io::Error::other)?;
            output::copy_side_file(&content, folder, location)?;
        }
        Ok(())
    }

    fn run(&self, new: &[u8], folder: Option<&Path>, report: &mut Report) -> Result<(), Error> {
        if !self.options.verify || report.blocks.is_empty() {
            return Ok(());
        }
        (self.options.progress)("running both models", 0, 1);
        let file = self.file.to_owned();
        let source = engine::Source { bytes: new, folder };
        let outcome = verify::model::run(self.reader.graph, source, &self.options.run);
        match outcome.map_err(|source| Error::Invalid { file: file.clone(), source })? {
            Outcome::Differs { output, error, tolerance } => {
                Err(Error::OutputDiffers { file, output, error, tolerance })
            }
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
