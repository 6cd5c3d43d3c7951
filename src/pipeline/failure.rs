//! A conversion that fails: which error it ends with, and what it still reports.
//!
//! Knows the error and the report; does not know the exit code of the process.

use crate::engine::EngineError;
use crate::error::Error;
use crate::options::Options;
use crate::report::Report;
use crate::setting::Setting;
use crate::verify::claim::Unproved;

/// A conversion that failed. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct Failure {
    /// The error that ended it.
    #[source]
    pub error: Box<Error>,
    /// The report of what was done until then.
    pub report: Box<Report>,
}

/// Returns the error that the engine was stopped at `what`, which the caller's `setting` may
/// allow to take more; `None` if no other machine would have done better. Nothing may be decided
/// by how fast or large a machine is.
pub fn stopped(
    file: &str,
    what: &str,
    why: &EngineError,
    setting: Option<Setting>,
) -> Option<Error> {
    let (file, what) = (file.to_owned(), what.to_owned());
    match why {
        EngineError::TooLong => Some(Error::TooLong { file, what, setting }),
        EngineError::NoMemory { .. } => Some(Error::NoMemory { file, what }),
        _ => None,
    }
}

/// Returns the error that ends the conversion of `file` because `output` is not proved: an
/// output of the block or node (`kind`) called `name`. `None` if that is merely left as it is.
pub fn of_proof(
    file: &str,
    (kind, name): (&str, &str),
    output: &str,
    why: &Unproved,
) -> Option<Error> {
    match why {
        Unproved::NotRun(error) => {
            stopped(file, &format!("the proof of {kind} `{name}`"), error, error.setting())
        }
        wrong if wrong.is_wrong() => Some(Error::BlockDiffers {
            file: file.to_owned(),
            block: name.to_owned(),
            output: output.to_owned(),
            reason: wrong.to_string(),
        }),
        _ => None,
    }
}

/// Checks that a block is fused if the caller requires one: `nothing_is` says that none is, and
/// `unproved` how many blocks were planned but not proved.
///
/// # Errors
/// Returns an error if none is fused although one must be.
pub fn must_fuse(
    options: &Options,
    file: &str,
    nothing_is: bool,
    unproved: usize,
) -> Result<(), Error> {
    if nothing_is && options.require_fusion {
        return Err(Error::NothingFused { file: file.to_owned(), unproved });
    }
    Ok(())
}
