//! What a run of both models showed, as plain data, which a report takes as it is.
//!
//! Knows no graph, and not how a model is run.

use std::fmt;

use crate::setting::Setting;

/// What the run showed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Every output agreed.
    Agreed(Agreement),
    /// An output differs by more than is allowed.
    Differs {
        /// Per output, the largest relative difference.
        errors: Vec<(String, f64)>,
        /// The output, or a tensor on the way to one.
        output: String,
        /// Its relative difference.
        error: f64,
        /// The allowed relative difference.
        tolerance: f64,
    },
    /// The engine ran the old model and could not run the new one, for this reason.
    Broken(String),
    /// The old model could not be run, or its run says nothing.
    NotRun(NotRun),
}

/// What both models were run on, and how far apart they were.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Agreement {
    /// Per output that depends on what changed, the largest relative difference.
    pub errors: Vec<(String, f64)>,
    /// The largest relative difference of pieces, each compared from equal tensors, where
    /// rounding moves whole models by more than is allowed, or whole models show nothing; `None`
    /// if no pieces were compared.
    pub in_pieces: Option<f64>,
    /// Per run, the shape of each input.
    pub shapes: Vec<Vec<(String, Vec<usize>)>>,
    /// Outputs whose values are all equal: the tensors that they are made of were compared.
    pub flat: Vec<String>,
    /// The largest relative difference of tensors before the outputs, where values are
    /// flattened, and of operands of steps.
    pub before: f64,
    /// Names of nodes that the engine cannot run: both models go on behind them from equal tensors.
    pub bridged: Vec<String>,
    /// Number of nodes of the old model that an output needs.
    pub nodes: usize,
    /// Whether float32 stood in the place of bfloat16, in which the engine does not compute.
    pub widened: bool,
    /// The fraction of the elements behind steps (a rounding, a comparison) that differ because
    /// an operand is as near to the step as rounding moves it.
    pub flipped: f64,
}

impl Outcome {
    /// Returns the largest relative difference of an output; `None` if none were compared.
    pub fn largest_error(&self) -> Option<f64> {
        match self {
            Outcome::Agreed(agreement) => Some(agreement.largest_error()),
            Outcome::Differs { error, .. } => Some(*error),
            Outcome::Broken(_) | Outcome::NotRun(_) => None,
        }
    }
}

impl Agreement {
    /// Returns the largest relative difference of an output, or of a piece where pieces were
    /// compared.
    pub fn largest_error(&self) -> f64 {
        let whole = || self.errors.iter().fold(0.0, |worst: f64, (_, error)| worst.max(*error));
        self.in_pieces.unwrap_or_else(whole)
    }
}

/// The reason why a model was not run, or why its run says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotRun {
    /// The reason.
    pub reason: String,
    /// The caller's choice that the reason names.
    pub setting: Option<Setting>,
}

impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<String> for NotRun {
    fn from(reason: String) -> Self {
        NotRun { reason, setting: None }
    }
}
