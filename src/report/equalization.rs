//! The result of scaling channels by factors, so that they make better use of 8 bits.
//!
//! Knows numbers and reasons, and how to say them in one line; does not look for factors.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::json;
use crate::setting::Setting;
use crate::verify::outcome::{Agreement, Outcome};

/// The result of scaling channels.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Equalization {
    /// Whether the new model has the factors.
    pub applied: bool,
    /// Why the new model does not have the factors.
    pub reason: Option<String>,
    /// The caller's option that the reason names.
    #[serde(skip)]
    pub setting: Option<Setting>,
    /// Whether only powers of two are allowed as factors.
    pub exact: bool,
    /// Whether the caller gave all inputs; if not, the gain is not known.
    pub given: bool,
    /// Number of the caller's samples that were not used, since runs on them would take too
    /// long.
    pub left_out: usize,
    /// Number of kernels that read or make channels.
    pub kernels: usize,
    /// Number of kernels with a free channel on at least one side.
    pub free_kernels: usize,
    /// Number of factors that can be chosen.
    pub channels: usize,
    /// The reasons why tensors have no factors, and the number of tensors for each.
    pub pinned: BTreeMap<String, usize>,
    /// Signal-to-noise ratio, in dB, of the outputs of the model as it was, with weights and
    /// tensors on 8 bits; `None` if that was not run.
    pub before: Option<f64>,
    /// The same ratio with the factors.
    pub after: Option<f64>,
    /// Number of tensors that changed.
    pub tensors: usize,
    /// The smallest and the largest factor.
    pub factors: Option<[f64; 2]>,
    /// The largest difference of all proofs; each node whose weights changed has one.
    pub proof: Option<f64>,
    /// The outcome of running the model without and with the factors.
    #[serde(serialize_with = "json::run")]
    pub run: Option<Outcome>,
    /// Seconds that it took to find, prove and try the factors.
    pub seconds: f64,
}

impl Equalization {
    /// Returns the result in one line.
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
