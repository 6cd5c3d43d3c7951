//! What a run of both models showed: data, which a report takes as it is.

use std::fmt;

use crate::setting::Setting;

/// What the run showed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Every output agreed; per output the largest relative difference.
    Agreed(Vec<(String, f64)>),
    /// An output differed by more than is allowed for its type, but by no more than this
    /// model's rounding explains.
    WithinRounding {
        /// Per output the largest relative difference.
        errors: Vec<(String, f64)>,
        /// How far the old model's outputs move with the last bit of its weights.
        rounding: f64,
    },
    /// An output differs by more than is allowed.
    Differs {
        /// Per output the largest relative difference.
        errors: Vec<(String, f64)>,
        /// The output.
        output: String,
        /// Its relative difference.
        error: f64,
        /// What is allowed.
        tolerance: f64,
    },
    /// The engine ran the old model and could not run the new one; its reason.
    Broken(String),
    /// The old model could not be run.
    NotRun(NotRun),
}

impl Outcome {
    /// The largest relative difference of an output; 0 if none were compared.
    pub fn largest_error(&self) -> f64 {
        match self {
            Outcome::Agreed(errors) | Outcome::WithinRounding { errors, .. } => {
                errors.iter().fold(0.0, |worst, (_, error)| worst.max(*error))
            }
            Outcome::Differs { error, .. } => *error,
            Outcome::Broken(_) | Outcome::NotRun(_) => 0.0,
        }
    }
}

/// Why a model was not run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotRun {
    /// The reason.
    pub reason: String,
    /// The choice of the caller that the reason names.
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
