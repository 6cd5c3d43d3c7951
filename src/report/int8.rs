//! What int8 weights leave of the outputs of a new model.
//!
//! Knows numbers, and one line of words.

use serde::Serialize;

/// Signal and noise of all outputs, the kernels of the new model rounded to int8 and its tensors
/// as they are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Int8Outputs {
    /// In dB, with one step for each kernel.
    pub per_tensor: f64,
    /// In dB, with one step for each output channel.
    pub per_channel: f64,
    /// Whether the caller gave all inputs; else they were random.
    pub given: bool,
}

impl Int8Outputs {
    /// What was found with one step for each kernel, and for each channel.
    pub(crate) fn new(per_tensor: f64, per_channel: f64, given: bool) -> Self {
        Int8Outputs { per_tensor, per_channel, given }
    }

    /// In one line.
    pub fn in_words(&self) -> String {
        let on = if self.given {
            ""
        } else {
            " (on random inputs, which say little; representative inputs say more)"
        };
        format!(
            "int8 weights: outputs {:.1} dB with one step per tensor, {:.1} dB per channel{on}",
            self.per_tensor, self.per_channel
        )
    }
}
