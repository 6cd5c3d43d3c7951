//! Why a reading ends before it knows what a node computes.
//!
//! If a node is not linear, only the reading of this node ends; if the file is malformed, the
//! run ends. Inside a reading both propagate with `?`; where the reading ends, [`Stop::split`]
//! separates them.

use crate::affine::Refusal;
use crate::onnx::model::Invalid;
use crate::refusal::NotLinear;

/// The reason why a reading found no meaning.
#[derive(Debug)]
pub enum Stop {
    /// The node is left alone.
    NotLinear(NotLinear),
    /// Something that is stored in the file is malformed.
    Invalid(Invalid),
}

impl Stop {
    /// Returns what was read, or why the node is left alone.
    ///
    /// # Errors
    /// Returns an error if the file is malformed.
    pub fn split<T>(read: Result<T, Stop>) -> Result<Result<T, NotLinear>, Invalid> {
        match read {
            Ok(value) => Ok(Ok(value)),
            Err(Stop::NotLinear(why)) => Ok(Err(why)),
            Err(Stop::Invalid(error)) => Err(error),
        }
    }
}

impl From<NotLinear> for Stop {
    fn from(why: NotLinear) -> Self {
        Stop::NotLinear(why)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::NotLinear(refusal.into())
    }
}

impl From<Invalid> for Stop {
    fn from(error: Invalid) -> Self {
        Stop::Invalid(error)
    }
}
