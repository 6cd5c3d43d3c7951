//! How a conversion ends that did not come to its end.
//!
//! Knows the error and the report; not with which code the process ends.

use crate::engine::EngineError;
use crate::error::Error;
use crate::options::Options;
use crate::report::Report;
use crate::setting::Setting;
use crate::verify::claim::Unproved;

/// A conversion that did not come to its end. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct Failure {
    /// What ended it.
    #[source]
    pub error: Box<Error>,
    /// What was done, as far as it came.
    pub report: Box<Report>,
}

/// That the engine was stopped at `what`, which a choice of the caller may allow more; `None` if
/// another machine would not have done better. Nothing is decided by a machine.
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

/// What ends the conversion of `file` because `output` of the `kind` of thing called `name`, a block
/// or a node, is not proved; `None` if that is only left as it is.
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

/// Whether a block is fused, if one must be: not if `nothing_is`, with so many blocks `unproved`.
///
/// # Errors
/// If none is.
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
