//! Inputs: random, and always the same for the same seed.

use ndarray::{ArrayD, IxDyn};

use crate::affine::Window;
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

/// How many outputs along an axis make every border case occur: those whose windows
/// overhang on either side, and one that lies inside. With less than two, no stride shows.
pub fn outputs_with_all_borders(windows: &[Window]) -> i64 {
    // ⌈pad/stride⌉
    let overhang =
        |pad: i64, stride: i64| pad.max(0).saturating_sub(1).div_euclid(stride).saturating_add(1);
    let borders = windows.iter().map(|window| {
        let (before, behind) = window.pads();
        overhang(before, window.stride).saturating_add(overhang(behind, window.stride))
    });
    borders.max().unwrap_or(0).saturating_add(1).max(2)
}

/// The input size that gives `outputs` outputs, with `rest` elements left over.
pub fn input_size(window: &Window, outputs: i64, rest: i64) -> i64 {
    let last = outputs.saturating_sub(1).saturating_mul(window.stride);
    last.saturating_sub(window.slack).saturating_add(rest)
}
