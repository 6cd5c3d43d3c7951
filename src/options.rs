//! The options of a conversion.
//!
//! Knows what can be asked for; neither command-line flags nor how it is done.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::tensors::{Array, InputShapes};
use crate::onnx::staged::Clobber;
use crate::onnx::storage::Links;

/// The source or destination of a model: a file or a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A file.
    File(PathBuf),
    /// Standard input or output.
    Pipe,
}

/// The options of a conversion. The default verifies, with one random input.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Prove every block and run both models.
    pub verify: bool,
    /// The kind of factors by which channels are multiplied before weights are written, so that
    /// int8 weights are more exact; `None` if no factors are looked for.
    pub equalize: Option<Equalize>,
    /// Treat initializers that a caller of the model may override as unknown.
    pub keep_overridable: bool,
    /// The fraction of its parameters by which the model may grow where convolutions share a
    /// kernel and each gets one of its own. If all copies together take more, none is made.
    pub growth: f64,
    /// Whether identity branches stay apart from the kernels beside them.
    pub keep_identity: KeepIdentity,
    /// Which nodes in training mode are converted to their eval form.
    pub training_mode: TrainingMode,
    /// Names of blocks that are left alone.
    pub skip: Vec<String>,
    /// Whether side files may be links that lead out of the model's folder.
    pub links: Links,
    /// Whether an existing output file is replaced.
    pub clobber: Clobber,
    /// Files that the caller itself writes, such as reports. If one of them is a file of the old
    /// or new model, the conversion fails before the work begins.
    pub also_written: Vec<PathBuf>,
    /// Fail if the whole model cannot be run.
    pub require_run: bool,
    /// Fail if nothing is fused.
    pub require_fusion: bool,
    /// How the whole models are run.
    pub run: RunOptions,
    /// Time limit of the whole verification.
    pub verify_timeout: Duration,
    /// Upper bound on the bytes of a run's tensors at any time.
    pub verify_memory: usize,
    /// Hash the files, count what they hold and compare the weights, which only a report file or a
    /// verbose summary shows.
    pub details: bool,
    /// Run the new model with int8 weights, and report how this changes its outputs.
    pub int8_outputs: bool,
    /// Called from any thread as the conversion proceeds.
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

/// How the whole models are run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunOptions {
    /// Seed of the random inputs.
    pub seed: u64,
    /// Number of inputs that are tried.
    pub samples: usize,
    /// Allowed relative difference; `None` if it depends on the type of the outputs.
    pub tolerance: Option<f64>,
    /// Shapes of inputs whose dimensions the file leaves open.
    pub shapes: InputShapes,
    /// Given inputs, which replace random ones.
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

/// The input for which a tensor is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The input with this name.
    Named(String),
    /// The input with this index, from 0, among those that have no default.
    Numbered(usize),
}

impl Which {
    /// Whether this is the input with the given number and name.
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

/// The kind of factors by which channels may be multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equalize {
    /// Any factors.
    Best,
    /// Powers of two: the model's outputs stay the same, bit for bit.
    Exact,
}

/// Which nodes in training mode are converted to their eval form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrainingMode {
    /// Dropouts, and batch norms whose input depends on an input of the model and whose stored
    /// statistics are no placeholders.
    #[default]
    Auto,
    /// Also norms whose statistics are placeholders.
    Convert,
    /// No nodes.
    Keep,
}

/// Whether a branch that only scales its input stays apart from the kernel beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeepIdentity {
    /// Any branch, if merging it costs more than 6 dB of the signal-to-noise ratio that the
    /// kernel's weights have as int8, and leaves less than 30 dB.
    Auto,
    /// Every such branch stays apart.
    Always,
    /// No branch stays apart: the form of the papers.
    #[default]
    Never,
}

/// The stage that a conversion has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The model is being read.
    Reading,
    /// Blocks are being looked for.
    Planning,
    /// Blocks are being fused and, if that is asked for, proved.
    Proving {
        /// Number of blocks that are done.
        done: usize,
        /// Number of blocks in the plan.
        all: usize,
    },
    /// Both models are about to run.
    Running,
    /// Factors of channels are being looked for.
    Equalizing,
    /// The new model, if there is one, is being written, or put in its place.
    Writing,
}
