//! The effect of rounding weights to int8: symmetric, in steps of 1/127 of the largest weight of
//! the whole kernel, or of each output channel.
//!
//! The largest weight divided by the root mean square, the *crest factor*, decides: the larger it
//! is, the larger is the step to which all weights are rounded.
//!
//! Knows weights and rows of them. Large kernels are read in pieces; the caller decides whether
//! one after the other or in parallel.

use std::ops::Range;

use crate::affine::kernel::Affine;
use crate::numbers::{self, LazyWeights, decibels, larger, pieces};

/// The largest value of symmetric int8.
const LARGEST: f64 = 127.0;

/// A strategy for reading independent pieces, in turn or in parallel.
pub trait EachPiece {
    /// Returns the result of `read` for each piece, in the order of the pieces.
    fn each<T: Send>(
        &self,
        pieces: Vec<Range<usize>>,
        read: impl Fn(Range<usize>) -> T + Sync,
    ) -> Vec<T>;
}

/// How well one kernel's weights are represented in int8. A field is `None` if it is not a finite
/// number: all weights are zero, rounding changes none, or one is not finite.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Int8Weights {
    /// `Σ w² / Σ (w − round(w))²` in dB, with one step for the whole kernel.
    pub sqnr_per_tensor: Option<f64>,
    /// The same ratio with a step per output channel.
    pub sqnr_per_channel: Option<f64>,
    /// The largest |w| divided by the root mean square.
    pub crest_factor: Option<f64>,
}

/// The power of weights, and of the noise that rounding them to int8 adds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RoundingNoise {
    /// `Σ w²`.
    pub power: f64,
    /// `Σ (w − round(w))²`, with one step for all weights.
    pub per_tensor: f64,
    /// The same sum with a step per row.
    pub per_channel: f64,
    /// The largest |w|.
    pub largest: f64,
    /// Number of weights.
    count: f64,
}

/// Upper bound, in dB, on what fused weights may lose of their signal-to-noise ratio: 6 dB are one
/// bit.
pub const MOST_LOST: f64 = 6.0;

/// Signal-to-noise ratio, in dB, below which networks begin to lose accuracy.
pub const LEAST_SQNR: f64 = 30.0;

impl Int8Weights {
    /// Whether these weights, with one step for all, are below 30 dB, or have lost too much of
    /// what the weights `before` had.
    pub fn is_poor_beside(&self, before: &Int8Weights) -> bool {
        self.sqnr_per_tensor.is_some_and(|own| own < LEAST_SQNR) || self.is_lost_beside(before)
    }

    /// Whether these weights have lost more than 6 dB of what the weights `before`, which may have
    /// been exact, had.
    pub fn is_lost_beside(&self, before: &Int8Weights) -> bool {
        // The difference is NaN if both are exact.
        before.per_tensor() - self.per_tensor() > MOST_LOST
    }

    /// [`Self::sqnr_per_tensor`], or infinity for `None`: these weights are exact.
    pub fn per_tensor(&self) -> f64 {
        self.sqnr_per_tensor.unwrap_or(f64::INFINITY)
    }
}

impl RoundingNoise {
    /// The noise of weights in rows of length `row`, each multiplied by the `scale` of its index.
    pub fn of(
        weights: &dyn LazyWeights,
        row: usize,
        scale: impl Fn(usize) -> f64 + Sync,
        work: &impl EachPiece,
    ) -> Self {
        let row = row.max(1);
        let rows = |piece: Range<usize>| {
            let first = piece.start / row;
            let mut numbers = numbers::read(weights, piece);
            for (output, numbers) in (first..).zip(numbers.chunks_mut(row)) {
                let factor = scale(output);
                numbers.iter_mut().for_each(|number| *number *= factor);
            }
            numbers
        };
        let all = || pieces(weights.count(), row).collect::<Vec<_>>();
        let largest = |numbers: &[f64]| numbers.iter().map(|w| w.abs()).fold(0.0, larger);
        let maxima = work.each(all(), |piece| {
            let numbers = rows(piece);
            let powers: f64 = numbers.iter().map(|w| w * w).sum();
            (largest(&numbers), powers)
        });
        let most = maxima.iter().map(|(most, _)| *most).fold(0.0, larger);
        let sums = work.each(all(), |piece| {
            let numbers = rows(piece);
            let by_row = numbers.chunks(row).map(|row| noise(row, largest(row)));
            (noise(&numbers, most), by_row.sum::<f64>())
        });
        RoundingNoise {
            power: maxima.iter().map(|(_, power)| power).sum(),
            per_tensor: sums.iter().map(|(all, _)| all).sum(),
            per_channel: sums.iter().map(|(_, own)| own).sum(),
            largest: most,
            count: weights.count() as f64,
        }
    }

    /// The noise of a map's kernel.
    pub fn of_kernel(map: &Affine, work: &impl EachPiece) -> Self {
        let row = map.shape().iter().skip(1).product();
        RoundingNoise::of(map, row, |_| 1.0, work)
    }

    /// The noise of both sets of weights together, each rounded in steps of its own.
    #[must_use]
    pub fn beside(&self, other: &RoundingNoise) -> Self {
        RoundingNoise {
            power: self.power + other.power,
            per_tensor: self.per_tensor + other.per_tensor,
            per_channel: self.per_channel + other.per_channel,
            largest: larger(self.largest, other.largest),
            count: self.count + other.count,
        }
    }

    /// `Σ w² / Σ (w − round(w))²` in dB, with one step for all: infinite if rounding changes
    /// nothing.
    pub fn sqnr(&self) -> f64 {
        decibels(self.power, self.per_tensor)
    }

    /// The ratios in dB.
    pub fn int8(&self) -> Int8Weights {
        let crest = self.largest / (self.power / self.count).sqrt();
        Int8Weights {
            sqnr_per_tensor: finite_decibels(self.power, self.per_tensor),
            sqnr_per_channel: finite_decibels(self.power, self.per_channel),
            crest_factor: Some(crest).filter(|crest| crest.is_finite()),
        }
    }
}

/// `10·log₁₀(signal / noise)`; `None` if that is not finite.
fn finite_decibels(signal: f64, noise: f64) -> Option<f64> {
    Some(decibels(signal, noise)).filter(|decibels| decibels.is_finite())
}

/// A number so large that its float64 neighbours are the integers next to it: a smaller number
/// that is added to it is rounded to an integer, halves to the even one.
const WHOLE: f64 = 1.5 * (1u64 << 52) as f64;

/// `Σ (w − round(w))²` in steps of 1/127 of `largest`.
fn noise(weights: &[f64], largest: f64) -> f64 {
    if largest == 0.0 {
        return 0.0;
    }
    let step = largest / LARGEST;
    // `round_ties_even` compiles to a call of the C library for the oldest supported processors.
    let rounded = |steps: f64| (steps + WHOLE) - WHOLE;
    let error = |w: &f64| w - rounded(w / step) * step;
    weights.iter().map(error).map(|error| error * error).sum()
}

/// Reads one piece after the other.
#[cfg(test)]
pub(super) struct InTurn;

#[cfg(test)]
impl EachPiece for InTurn {
    fn each<T: Send>(
        &self,
        pieces: Vec<Range<usize>>,
        read: impl Fn(Range<usize>) -> T + Sync,
    ) -> Vec<T> {
        pieces.into_iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights in rows of two and a factor per row; the noise per tensor and per channel.
    #[test]
    fn weights_are_rounded_to_127_steps() {
        for (weights, scale, per_tensor, per_channel) in [
            // All weights are on the grid of the largest one.
            (vec![127.0, -3.0, 64.0, 0.0], [1.0, 1.0], 0.0, 0.0),
            // 0.25 is a quarter of a step of the largest weight, 127, and on the grid of its own
            // row.
            (vec![127.0, 1.0, 0.25, 0.0], [1.0, 1.0], 0.0625, 0.0),
            // 1.5 is rounded to 2, which is even, and so is 2.5.
            (vec![127.0, 1.5, 127.0, 2.5], [1.0, 1.0], 0.5, 0.5),
            (vec![127.0, 1.0, 127.0, 1.0], [1.0, -0.25], 0.125, 0.0),
            (vec![0.0; 4], [1.0, 1.0], 0.0, 0.0),
        ] {
            let found = RoundingNoise::of(&weights, 2, |row| scale[row], &InTurn);
            let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
            assert!(close(found.per_tensor, per_tensor), "{weights:?}: {found:?}");
            assert!(close(found.per_channel, per_channel), "{weights:?}: {found:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_told() {
        let zero = RoundingNoise::of(&vec![0.0; 4], 2, |_| 1.0, &InTurn).int8();
        assert_eq!(zero, Int8Weights::default());
        let exact = RoundingNoise::of(&vec![1.0, 0.0, 0.0, 0.0], 2, |_| 1.0, &InTurn).int8();
        assert_eq!((exact.sqnr_per_tensor, exact.crest_factor), (None, Some(2.0)));
        let nan = RoundingNoise::of(&vec![f64::NAN, 1.0], 2, |_| 1.0, &InTurn).int8();
        assert_eq!(nan, Int8Weights::default());
    }
}
