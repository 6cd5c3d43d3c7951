//! The reasons why no channel of a model is scaled.
//!
//! Knows how a run or the reading of a stored tensor may fail; not who is told.

use crate::emit::weights::NotFinite;
use crate::engine::EngineError;
use crate::onnx::model::Invalid;

/// The reason why nothing is scaled.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Unscaled {
    /// The model is malformed.
    Invalid(#[from] Invalid),
    /// The engine did not run the model.
    NotRun(#[from] EngineError),
    /// A scaled number exceeds its type.
    NotFinite(#[from] NotFinite),
}
