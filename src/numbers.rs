//! Weights that are read in pieces from wherever they are stored, so that kernels of any size are
//! fused, proved and written in little memory.
//!
//! Knows the number of weights; neither their type in a file, nor what they are weights of.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// A sequence of weights, read as float64.
pub trait LazyWeights: Debug + Send + Sync {
    /// The number of weights.
    fn count(&self) -> usize;

    /// Fills `into` with the weights from index `start` on; at least `into.len()` follow from
    /// there.
    fn read(&self, start: usize, into: &mut [f64]);

    /// The number of nested sequences that are read in turn, each for the one around it.
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

/// A range of other weights.
#[derive(Debug, Clone)]
pub struct WeightRange {
    /// The other weights.
    pub of: Arc<dyn LazyWeights>,
    /// Index of the first weight of the range in `of`.
    pub start: usize,
    /// Length of the range.
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

/// Approximate number of weights that are read at a time: half a MiB, which fits a processor's
/// cache.
const PIECE: usize = 1 << 16;

/// Splits `count` numbers into ranges that are best read at a time. The ranges consist of whole
/// rows of `row` numbers, since otherwise nearly all of a row might be computed twice.
pub fn pieces(count: usize, row: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let row = row.max(1);
    let piece = PIECE.checked_div(row).unwrap_or(0).max(1).saturating_mul(row);
    (0..count).step_by(piece).map(move |at| at..at.saturating_add(piece).min(count))
}

/// The larger of two numbers, or NaN if one of them is NaN, which must not disappear in a maximum.
pub fn larger(most: f64, number: f64) -> f64 {
    if most.is_nan() || number <= most { most } else { number }
}

/// `10·log₁₀(signal / noise)`.
pub fn decibels(signal: f64, noise: f64) -> f64 {
    10.0 * (signal / noise).log10()
}

/// The weights of `numbers` in `range`.
pub fn read(numbers: &dyn LazyWeights, range: Range<usize>) -> Vec<f64> {
    let mut read = vec![0.0; range.len()];
    numbers.read(range.start, &mut read);
    read
}

/// All weights of `numbers`.
pub fn all(numbers: &dyn LazyWeights) -> Vec<f64> {
    read(numbers, 0..numbers.count())
}
