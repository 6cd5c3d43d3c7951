//! Weights, wherever they lie: read in pieces, so that kernels of any size are fused,
//! proved and written in little memory.
//!
//! Knows how many there are; neither their type in a file, nor what they are weights of.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// Weights in a row, as float64.
pub trait LazyWeights: Debug + Send + Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// Puts those from `start` on into all of `into`; there are as many.
    fn read(&self, start: usize, into: &mut [f64]);

    /// How many others are read in turn, each for the one before it.
    fn depth(&self) -> usize {
        0
    }
}

impl LazyWeights for Vec<f64> {
    fn count(&self) -> usize {
        self.len()
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        let from = self.get(start..).unwrap_or_default();
        into.iter_mut().zip(from).for_each(|(into, from)| *into = *from);
    }
}

/// Some of other weights.
#[derive(Debug, Clone)]
pub struct WeightRange {
    /// The others.
    pub of: Arc<dyn LazyWeights>,
    /// The first of them that is one of these.
    pub start: usize,
    /// How many these are.
    pub count: usize,
}

impl LazyWeights for WeightRange {
    fn count(&self) -> usize {
        self.count
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        self.of.read(self.start.saturating_add(start), into);
    }
}

/// So many numbers are read at a time, about: they fit a processor's cache.
const PIECE: usize = 1 << 16;

/// Ranges of `count` numbers that are best read at a time. They are of whole rows of `row`
/// numbers, of which nearly all might be computed twice otherwise.
pub fn pieces(count: usize, row: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let row = row.max(1);
    let piece = PIECE.checked_div(row).unwrap_or(0).max(1).saturating_mul(row);
    (0..count).step_by(piece).map(move |at| at..at.saturating_add(piece).min(count))
}

/// The larger of two, one of which may be no number: that must not disappear in a maximum.
pub fn larger(most: f64, number: f64) -> f64 {
    if most.is_nan() || number <= most { most } else { number }
}

/// `10·log₁₀(signal / noise)`.
pub fn decibels(signal: f64, noise: f64) -> f64 {
    10.0 * (signal / noise).log10()
}

/// Those of `numbers` in `range`.
pub fn read(numbers: &dyn LazyWeights, range: Range<usize>) -> Vec<f64> {
    let mut read = vec![0.0; range.len()];
    numbers.read(range.start, &mut read);
    read
}

/// All of them.
pub fn all(numbers: &dyn LazyWeights) -> Vec<f64> {
    read(numbers, 0..numbers.count())
}
