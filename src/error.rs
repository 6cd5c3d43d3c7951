//! Everything that ends a run without a result.

use std::io;

use crate::onnx::model::Invalid;
use crate::onnx::sniff::Foreign;

/// Names the file, what is wrong, and what can be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The output cannot be written; what stood there still does.
    #[error("{file}: cannot be written: {source}")]
    Write {
        /// The file.
        file: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The input is not a valid model.
    #[error("{file}: {source}")]
    Invalid {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: Invalid,
    },
    /// The input is something else.
    #[error("{file}: this is no ONNX model but {}; {}", .kind.what, .kind.remedy)]
    Foreign {
        /// The file.
        file: String,
        /// What it is.
        kind: &'static Foreign,
    },
    /// A shape or tensor was given for what is no input, or has other dimensions.
    #[error("{file}: what was given for input `{input}` does not fit: {reason}")]
    Input {
        /// The file.
        file: String,
        /// The name that was given.
        input: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A block is not what it was; nothing was written.
    #[error(
        "{file}: verification failed, nothing was written: block `{block}` (output `{output}`): {reason}"
    )]
    BlockDiffers {
        /// The file.
        file: String,
        /// The block.
        block: String,
        /// The tensor it computes.
        output: String,
        /// What was seen.
        reason: String,
    },
    /// The new file, read back, is not the old one with what was proved; it was not put in
    /// place.
    #[error("{file}: verification failed, nothing was written: in the new file {reason}")]
    Miswritten {
        /// The file.
        file: String,
        /// The first entry that is wrong.
        reason: String,
    },
    /// A model output is not what it was; nothing was written.
    #[error(
        "{file}: verification failed, nothing was written: output `{output}` differs by \
         {error:.1e} of its largest value (allowed: {tolerance:.0e})"
    )]
    OutputDiffers {
        /// The file.
        file: String,
        /// The output.
        output: String,
        /// The relative difference.
        error: f64,
        /// What is allowed.
        tolerance: f64,
    },
    /// The engine runs the original and not what was made of it; nothing was written.
    #[error(
        "{file}: verification failed, nothing was written: the original runs and the result \
         does not: {reason}"
    )]
    Broken {
        /// The file.
        file: String,
        /// The engine's reason.
        reason: String,
    },
    /// `--require-run` was given, and the model could not be run.
    #[error("{file}: the whole model could not be run, nothing was written: {reason}")]
    NotRun {
        /// The file.
        file: String,
        /// The engine's reason.
        reason: String,
    },
    /// The engine did not end with what others depend on. Nothing is decided by time, so
    /// there is no result.
    #[error("{file}: nothing was written: tract did not end in time with {what}")]
    TooLong {
        /// The file.
        file: String,
        /// What it was asked for, and what allows more time, if anything does.
        what: String,
    },
    /// `--require-fusion` was given, and there was nothing to fuse.
    #[error("{file}: nothing was fused")]
    NothingFused {
        /// The file.
        file: String,
    },
    /// `--check` was given, and there is something to fuse or to convert.
    #[error("{file}: {}", possible(*.blocks, *.converted))]
    Fusable {
        /// The file.
        file: String,
        /// How many blocks can be fused.
        blocks: usize,
        /// How many nodes in training mode can be converted to inference.
        converted: usize,
    },
}

/// What can be done with a file, in words.
fn possible(blocks: usize, converted: usize) -> String {
    let count = |count: usize, what: &str| {
        let s = if count == 1 { "" } else { "s" };
        (count > 0).then(|| format!("{count} {what}{s}"))
    };
    let (blocks, nodes) = (count(blocks, "block"), count(converted, "node"));
    let fused = blocks.map(|blocks| format!("{blocks} can be fused"));
    let converted = nodes.map(|nodes| format!("{nodes} in training mode can be converted"));
    fused.into_iter().chain(converted).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Invalid { .. } | Error::Foreign { .. } => 1,
            Error::Input { .. } => 2,
            Error::BlockDiffers { .. }
            | Error::Miswritten { .. }
            | Error::OutputDiffers { .. }
            | Error::Broken { .. } => 3,
            Error::NothingFused { .. } => 4,
            Error::Fusable { .. } => 5,
            Error::Read { .. } | Error::Write { .. } => 6,
            Error::NotRun { .. } | Error::TooLong { .. } => 7,
        }
    }
}
