//! What a caller asks for.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::tensors::InputShapes;
use crate::onnx::staged::Clobber;
use crate::onnx::storage::Links;
use crate::verify::run::RunOptions;

/// A file, or a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A file.
    File(PathBuf),
    /// Standard input or output.
    Pipe,
}

impl Endpoint {
    /// `-` is a pipe.
    pub fn of(argument: &str) -> Self {
        if argument == "-" { Endpoint::Pipe } else { Endpoint::File(argument.into()) }
    }

    /// What it is called in messages.
    pub(crate) fn label(&self) -> String {
        match self {
            Endpoint::File(path) => path.display().to_string(),
            Endpoint::Pipe => "-".to_owned(),
        }
    }
}

/// How to convert. The default verifies, with one random input.
#[derive(Debug, Clone)]
pub struct Options {
    /// Prove every block and run both models.
    pub verify: bool,
    /// Treat initializers that a caller may override as unknown.
    pub keep_overridable: bool,
    /// Which nodes in training mode become their inference form.
    pub training_mode: TrainingMode,
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
    pub run: RunOptions,
    /// How long verification may take, all in all.
    pub verify_timeout: Duration,
    /// How many bytes the tensors of a run may take at a time.
    pub verify_memory: usize,
    /// Hash the files, count what they hold and compare the weights: what only a report
    /// file or a verbose summary shows.
    pub details: bool,
    /// Called as stages begin and advance: name, done, all.
    pub progress: fn(&str, usize, usize),
}

impl Default for Options {
    fn default() -> Self {
        Options {
            verify: true,
            keep_overridable: false,
            training_mode: TrainingMode::Auto,
            skip: Vec::new(),
            links: Links::Confined,
            clobber: Clobber::Replace,
            require_run: false,
            require_fusion: false,
            run: RunOptions {
                seed: 0,
                samples: 1,
                tolerance: None,
                shapes: InputShapes::new(),
                given: Vec::new(),
            },
            verify_timeout: Duration::from_secs(900),
            verify_memory: 8 << 30,
            details: false,
            progress: |_, _, _| {},
        }
    }
}

/// Which nodes in training mode become their inference form.
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
