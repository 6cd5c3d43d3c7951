//! Everything that ends a run without a result.
//!
//! Knows what can be wrong with a file; of a process, its flags and its exit codes, nothing.

use std::io;

pub use crate::onnx::data::{Problem, TensorError};
pub use crate::onnx::model::Invalid;
pub use crate::onnx::sniff::Foreign;
pub use crate::onnx::storage::StorageError;
pub use crate::onnx::wire::WireError;
use crate::setting::Setting;

/// Names the file, what is wrong, and what can be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// The model could not be run, and has to be.
    #[error("{file}: the whole model could not be run, nothing was written: {reason}")]
    NotRun {
        /// The file.
        file: String,
        /// Why not.
        reason: String,
        /// The choice of the caller that the reason names.
        setting: Option<Setting>,
    },
    /// The engine did not end with what others depend on. Nothing is decided by time, so
    /// there is no result.
    #[error("{file}: nothing was written: tract did not end in time with {what}")]
    TooLong {
        /// The file.
        file: String,
        /// What it was asked for.
        what: String,
    },
    /// The proof of a block did not end. Nothing is decided by time, so there is no result.
    #[error(
        "{file}: nothing was written: tract did not end in time with the proof of block `{block}`"
    )]
    ProofTooLong {
        /// The file.
        file: String,
        /// The block.
        block: String,
    },
    /// The system does not allow this process the memory for what others depend on. Nothing is
    /// decided by that, so there is no result.
    #[error("{file}: nothing was written: this process may not take the memory for {what}")]
    NoMemory {
        /// The file.
        file: String,
        /// What it was needed for.
        what: String,
    },
    /// There was nothing to fuse, and has to be.
    #[error("{file}: nothing was fused")]
    NothingFused {
        /// The file.
        file: String,
    },
}

impl Error {
    /// The choice of the caller that the message names.
    pub fn setting(&self) -> Option<&Setting> {
        match self {
            Error::NotRun { setting, .. } => setting.as_ref(),
            _ => None,
        }
    }

    /// Whether the model's weights lie in files that only
    /// [`Links::Followed`](crate::Links::Followed) allows.
    pub fn is_link(&self) -> bool {
        let Error::Invalid { source: Invalid::Tensor(TensorError { problem, .. }), .. } = self
        else {
            return false;
        };
        matches!(problem, Problem::External(StorageError::LeadsOut(_) | StorageError::HardLink(_)))
    }
}
