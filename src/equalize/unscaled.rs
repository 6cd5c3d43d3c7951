//! Why no channel of a model is scaled.
//!
//! Knows what a run and a stored tensor may end with; not whom that is told.

use crate::emit::weights::NotFinite;
use crate::engine::EngineError;
use crate::onnx::model::Invalid;

/// Why nothing is scaled.
#[derive(Debug)]
pub enum Unscaled {
    /// The model is malformed.
    Invalid(Invalid),
    /// The engine did not run it.
    NotRun(EngineError),
    /// A scaled number leaves its type.
    NotFinite(NotFinite),
}

impl From<Invalid> for Unscaled {
    fn from(wrong: Invalid) -> Self {
        Unscaled::Invalid(wrong)
    }
}

impl From<EngineError> for Unscaled {
    fn from(error: EngineError) -> Self {
        Unscaled::NotRun(error)
    }
}

impl From<NotFinite> for Unscaled {
    fn from(wrong: NotFinite) -> Self {
        Unscaled::NotFinite(wrong)
    }
}
