//! The accuracy of a new model's outputs with int8 weights.
//!
//! Knows numbers, and how to say them in one line; does not measure them.

use serde::Serialize;

/// Signal-to-noise ratio of all outputs if the kernels of the new model are rounded to int8 and
/// its tensors are left as they are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Int8Outputs {
    /// The ratio in dB, with one quantization step for each kernel.
    pub per_tensor: f64,
    /// The ratio in dB, with one quantization step for each output channel.
    pub per_channel: f64,
    /// Whether the caller gave all inputs; if not, they were random.
    pub given: bool,
}

impl Int8Outputs {
    /// Creates the result from the ratios in dB with one step for each kernel and for each
    /// channel.
    pub(crate) fn new(per_tensor: f64, per_channel: f64, given: bool) -> Self {
        Int8Outputs { per_tensor, per_channel, given }
    }

    /// Returns the result in one line.
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
