//! What became of the factors of channels.
//!
//! Knows data, and one line of words.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::json;
use crate::setting::Setting;
use crate::verify::outcome::{Agreement, Outcome};

/// What became of the factors of channels.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Equalization {
    /// Whether the new model has them.
    pub applied: bool,
    /// Why it has not.
    pub reason: Option<String>,
    /// The choice of the caller that the reason names.
    #[serde(skip)]
    pub setting: Option<Setting>,
    /// Whether factors are powers of two only.
    pub exact: bool,
    /// Whether the caller gave all inputs; else the gain is not known.
    pub given: bool,
    /// Samples of the caller's that were not looked at, since runs on them take too long.
    pub left_out: usize,
    /// Kernels that a channel is read or made by.
    pub kernels: usize,
    /// Those on one side of which a channel is free.
    pub free_kernels: usize,
    /// Factors that are free.
    pub channels: usize,
    /// Why tensors have none, and how many for that reason.
    pub pinned: BTreeMap<String, usize>,
    /// Signal and noise of the outputs on 8 bits, weights and tensors, as the model was; in dB.
    pub before: Option<f64>,
    /// With the factors.
    pub after: Option<f64>,
    /// Tensors that changed.
    pub tensors: usize,
    /// The least and the largest factor.
    pub factors: Option<[f64; 2]>,
    /// The largest difference of the proofs, one for each node whose weights changed.
    pub proof: Option<f64>,
    /// The run of the model without and with the factors.
    #[serde(serialize_with = "json::run")]
    pub run: Option<Outcome>,
    /// How long it took to find, prove and try them.
    pub seconds: f64,
}

impl Equalization {
    /// In one line.
    pub fn in_words(&self) -> String {
        let (free, all) = (self.free_kernels, self.kernels);
        let place = format!("{free} of {all} kernels with free channels");
        let within = if all > 0 { format!(" ({place})") } else { String::new() };
        let gain = match (self.before, self.after) {
            (Some(before), Some(after)) => {
                format!("int8 outputs {before:.1} → {after:.1} dB{}", self.left_out())
            }
            _ => "the gain is not known without representative inputs".to_owned(),
        };
        match &self.reason {
            Some(why) if self.before.is_some() => {
                format!("not equalized, as {why} ({gain}; {place})")
            }
            Some(why) => format!("not equalized: {why}{within}"),
            None => format!("equalized: {gain}; {place}{}", self.verified()),
        }
    }

    fn left_out(&self) -> String {
        match self.left_out {
            0 => String::new(),
            left_out => format!(" (without the last {left_out} inputs: runs on all take too long)"),
        }
    }

    fn verified(&self) -> String {
        let proof = self.proof.map(|error| format!(", each proved in float64 within {error:.1e}"));
        let run = match &self.run {
            Some(Outcome::Agreed(agreement)) if self.exact && agreement.largest_error() == 0.0 => {
                "; both runs agree bit for bit".to_owned()
            }
            Some(Outcome::Agreed(agreement)) => {
                format!("; run: within {:.1e}", Agreement::largest_error(agreement))
            }
            Some(Outcome::NotRun(why)) => format!("; not run: {why}"),
            _ => String::new(),
        };
        format!("{}{run}", proof.unwrap_or_default())
    }
}
