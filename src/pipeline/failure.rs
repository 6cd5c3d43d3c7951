//! How a conversion ends that did not come to its end.
//!
//! Knows the error and the report; not with which code the process ends.

use crate::error::Error;
use crate::report::Report;

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
