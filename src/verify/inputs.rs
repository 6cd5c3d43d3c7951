//! Inputs: random, and always the same for the same seed.
//!
//! Knows shapes; not what is run on the inputs.

use ndarray::{ArrayD, IxDyn};

use crate::engine::Array;

/// A small generator (SplitMix64); good enough to tell two linear maps apart.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number, uniform in −1 ≤ x < 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Floats in −1 ≤ x < 1.
    pub fn floats(&mut self, shape: &[usize]) -> Array {
        Array::Float(ArrayD::from_shape_simple_fn(IxDyn(shape), || self.uniform()))
    }

    /// Zeros and ones, which are valid as flags, ids and counts.
    pub fn integers(&mut self, shape: &[usize]) -> Array {
        Array::Int(ArrayD::from_shape_simple_fn(IxDyn(shape), || i64::from(self.uniform() > 0.0)))
    }
}
