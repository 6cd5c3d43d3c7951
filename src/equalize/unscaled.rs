//! Why no channel of a model is scaled.
//!
//! Knows what a run and a stored tensor may end with; not whom that is told.

use crate::emit::weights::NotFinite;
use crate::engine::EngineError;
use crate::onnx::model::Invalid;

/// Why nothing is scaled.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Unscaled {
    /// The model is malformed.
    Invalid(#[from] Invalid),
    /// The engine did not run it.
    NotRun(#[from] EngineError),
    /// A scaled number leaves its type.
    NotFinite(#[from] NotFinite),
}
