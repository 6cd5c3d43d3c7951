//! What a caller asks for.
//!
//! Knows what can be asked for; neither flags nor how it is done.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::tensors::{Array, InputShapes};
use crate::onnx::staged::Clobber;
use crate::onnx::storage::Links;

/// A file, or a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A file.
    File(PathBuf),
    /// Standard input or output.
    Pipe,
}

/// How to convert. The default verifies, with one random input.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Prove every block and run both models.
    pub verify: bool,
    /// Which factors channels are multiplied by before weights are written, so that 8 bits say
    /// more; `None` if none are looked for.
    pub equalize: Option<Equalize>,
    /// Treat initializers that a caller may override as unknown.
    pub keep_overridable: bool,
    /// By which fraction of its parameters the model may grow where convolutions share a
    /// kernel and each gets one of its own; if all together take more, none does.
    pub growth: f64,
    /// Whether identities stay apart from the kernels beside them.
    pub keep_identity: KeepIdentity,
    /// Which nodes in training mode become their eval form.
    pub training_mode: TrainingMode,
    /// Names of blocks to leave alone.
    pub skip: Vec<String>,
    /// Whether side files may be links that lead out of the model's folder.
    pub links: Links,
    /// Whether an existing output is replaced.
    pub clobber: Clobber,
    /// Files that the caller writes itself, such as reports: an error, before the work
    /// begins, if one is a file of the models.
    pub also_written: Vec<PathBuf>,
    /// Fail if the whole model cannot be run.
    pub require_run: bool,
    /// Fail if nothing is fused.
    pub require_fusion: bool,
    /// How the whole models are run.
    pub run: RunOptions,
    /// How long verification may take, all in all.
    pub verify_timeout: Duration,
    /// How many bytes the tensors of a run may take at a time.
    pub verify_memory: usize,
    /// Hash the files, count what they hold and compare the weights: what only a report
    /// file or a verbose summary shows.
    pub details: bool,
    /// Run the new model with int8 weights, and tell what that leaves of its outputs.
    pub int8_outputs: bool,
    /// Called from any thread as the work goes on.
    pub progress: fn(Progress),
}

impl Default for Options {
    fn default() -> Self {
        Options {
            verify: true,
            equalize: None,
            keep_overridable: false,
            growth: 0.1,
            keep_identity: KeepIdentity::default(),
            training_mode: TrainingMode::Auto,
            skip: Vec::new(),
            links: Links::Confined,
            clobber: Clobber::Replace,
            also_written: Vec::new(),
            require_run: false,
            require_fusion: false,
            run: RunOptions::default(),
            verify_timeout: Duration::from_secs(900),
            verify_memory: 8 << 30,
            details: false,
            int8_outputs: false,
            progress: |_| {},
        }
    }
}

/// How the run is done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunOptions {
    /// Random inputs are made from this.
    pub seed: u64,
    /// How many inputs are tried.
    pub samples: usize,
    /// Allowed relative difference; by default it depends on the outputs' type.
    pub tolerance: Option<f64>,
    /// Shapes of inputs whose dimensions the file leaves open.
    pub shapes: InputShapes,
    /// Inputs that are not random.
    pub given: Vec<(Which, Array)>,
}

impl Default for RunOptions {
    /// One random input.
    fn default() -> Self {
        RunOptions {
            seed: 0,
            samples: 1,
            tolerance: None,
            shapes: InputShapes::new(),
            given: Vec::new(),
        }
    }
}

/// The input that a tensor is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// By its name.
    Named(String),
    /// By its number among those that have no default, from 0 on.
    Numbered(usize),
}

impl Which {
    /// Whether it is this one.
    pub fn is(&self, number: usize, name: &str) -> bool {
        match self {
            Which::Named(own) => own == name,
            Which::Numbered(own) => *own == number,
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Named(name) => f.write_str(name),
            Which::Numbered(number) => write!(f, "number {number}"),
        }
    }
}

/// Which factors channels may be multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equalize {
    /// Any.
    Best,
    /// Powers of two: what the model computes stays the same, bit for bit.
    Exact,
}

/// Which nodes in training mode become their eval form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrainingMode {
    /// Dropouts, and norms of what depends on an input, with stored statistics that are no
    /// placeholders.
    #[default]
    Auto,
    /// Those whose statistics are placeholders, too.
    Convert,
    /// None.
    Keep,
}

/// Whether a branch that is nothing but a scale of what it reads stays apart from the kernel
/// beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeepIdentity {
    /// Any branch whose merging costs more than 6 dB of the signal-to-noise ratio that the
    /// kernel's weights have as int8 does.
    Auto,
    /// Each one does.
    Always,
    /// None does: the form of the papers.
    #[default]
    Never,
}

/// How far a conversion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The model is read.
    Reading,
    /// Blocks are looked for.
    Planning,
    /// So many of all blocks are fused and, if that is asked for, proved.
    Proving {
        /// Blocks that are done.
        done: usize,
        /// Blocks of the plan.
        all: usize,
    },
    /// Both models begin to run.
    Running,
    /// Factors of channels are looked for.
    Equalizing,
    /// The new model, if there is one, is written, or put in its place.
    Writing,
}
