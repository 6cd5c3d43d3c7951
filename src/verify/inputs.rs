//! Random inputs, which are always the same for the same seed.
//!
//! Knows shapes; does not know what is run on the inputs.

use ndarray::{ArrayD, IxDyn};

use crate::engine::Array;

/// Returns the number of elements of tensors of these shapes together, or `usize::MAX` if there
/// are more.
pub fn elements_at_most(shapes: &[Vec<usize>]) -> usize {
    let elements =
        |shape: &Vec<usize>| shape.iter().fold(1usize, |all, &size| all.saturating_mul(size));
    shapes.iter().map(elements).fold(0, usize::saturating_add)
}

/// A small generator (SplitMix64); good enough to tell two linear maps apart.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Returns a generator of another sequence for each number.
    #[must_use]
    pub fn split(&self, number: u64) -> Self {
        let mut random = Random(self.0 ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.uniform();
        random
    }

    /// Returns the next number, uniform in −1 ≤ x < 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Returns the next number of the standard normal distribution (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        // In 0 < u ≤ 1, so that its logarithm is finite.
        let radius = (-2.0 * ((1.0 - self.uniform()) / 2.0).ln()).sqrt();
        radius * (std::f64::consts::PI * self.uniform()).cos()
    }

    /// Returns floats of the standard normal distribution: what networks that normalize their
    /// inputs expect.
    pub fn noise(&mut self, shape: &[usize]) -> Array {
        Array::Float(ArrayD::from_shape_simple_fn(IxDyn(shape), || self.normal()))
    }

    /// Returns floats in 0 ≤ x < `most`.
    pub fn up_to(&mut self, most: f64, shape: &[usize]) -> Array {
        let next = || most * (self.uniform() + 1.0) / 2.0;
        Array::Float(ArrayD::from_shape_simple_fn(IxDyn(shape), next))
    }

    /// Returns floats in 0 ≤ x ≤ 1 that change slowly along the last two axes, like a picture:
    /// each plane has waves and a phase of its own.
    pub fn smooth(&mut self, shape: &[usize]) -> Array {
        let mut values = ArrayD::zeros(IxDyn(shape));
        let (rows, columns) = match shape {
            [.., rows, columns] => ((*rows).max(1), (*columns).max(1)),
            [length] => (1, (*length).max(1)),
            [] => (1, 1),
        };
        let mut planes = values.iter_mut();
        while planes.len() > 0 {
            let (down, across) = (1.0 + self.uniform(), 1.0 + self.uniform());
            let phase = self.uniform() + 1.0;
            let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
            for ((row, column), value) in places.zip(planes.by_ref()) {
                let turns =
                    down * row as f64 / rows as f64 + across * column as f64 / columns as f64;
                *value = 0.5 + 0.5 * (std::f64::consts::TAU * (turns + phase)).sin();
            }
        }
        Array::Float(values)
    }

    /// Returns floats in −1 ≤ x < 1.
    pub fn floats(&mut self, shape: &[usize]) -> Array {
        Array::Float(ArrayD::from_shape_simple_fn(IxDyn(shape), || self.uniform()))
    }

    /// Returns zeros and ones, which are valid as flags, ids and counts.
    pub fn integers(&mut self, shape: &[usize]) -> Array {
        Array::Int(ArrayD::from_shape_simple_fn(IxDyn(shape), || i64::from(self.uniform() > 0.0)))
    }
}
