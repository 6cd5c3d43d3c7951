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

    /// The next number, of the standard normal distribution (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        // In 0 < u ≤ 1, so that its logarithm is finite.
        let radius = (-2.0 * ((1.0 - self.uniform()) / 2.0).ln()).sqrt();
        radius * (std::f64::consts::PI * self.uniform()).cos()
    }

    /// Floats of the standard normal distribution: what networks that normalize their inputs
    /// expect.
    pub fn noise(&mut self, shape: &[usize]) -> Array {
        Array::Float(ArrayD::from_shape_simple_fn(IxDyn(shape), || self.normal()))
    }

    /// Floats in 0 ≤ x < `most`.
    pub fn up_to(&mut self, most: f64, shape: &[usize]) -> Array {
        let next = || most * (self.uniform() + 1.0) / 2.0;
        Array::Float(ArrayD::from_shape_simple_fn(IxDyn(shape), next))
    }

    /// Floats in 0 ≤ x ≤ 1 that change slowly along the last two axes, like a picture: each
    /// plane has waves, phases and a contrast of its own.
    pub fn smooth(&mut self, shape: &[usize]) -> Array {
        let mut values = ArrayD::zeros(IxDyn(shape));
        let along = shape.len().min(2);
        let length = |axis: usize| shape.get(axis).copied().unwrap_or(1).max(1) as f64;
        let (rows, columns) = match along {
            2 => (length(shape.len() - 2), length(shape.len() - 1)),
            _ => (1.0, length(0)),
        };
        let plane = (rows * columns) as usize;
        let (mut down, mut across, mut phase) = (0.0, 0.0, 0.0);
        for (place, value) in values.iter_mut().enumerate() {
            let within = place % plane.max(1);
            if within == 0 {
                (down, across) = (1.0 + self.uniform(), 1.0 + self.uniform());
                phase = self.uniform() + 1.0;
            }
            let (row, column) = ((within as f64 / columns).floor(), within as f64 % columns);
            let turns = down * row / rows + across * column / columns + phase;
            *value = 0.5 + 0.5 * (std::f64::consts::TAU * turns).sin();
        }
        Array::Float(values)
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
