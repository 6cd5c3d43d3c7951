//! What rounding does to weights that become int8: symmetric, in steps of the largest weight's
//! 127th part, of the whole kernel or of each output channel.
//!
//! The largest weight over the root of the mean square, the *crest factor*, decides: a step is
//! the larger for it, and all weights are rounded to it.
//!
//! Knows weights and rows of them. Large kernels are read in pieces; whether in turn or at the
//! same time is for the caller to say.

use std::ops::Range;

use crate::affine::kernel::Affine;
use crate::numbers::{self, LazyWeights, decibels, larger, pieces};

/// The largest number of symmetric int8.
const LARGEST: f64 = 127.0;

/// Who has pieces read that do not depend on each other.
pub trait EachPiece {
    /// What `read` says of each piece, in their order.
    fn each<T: Send>(
        &self,
        pieces: Vec<Range<usize>>,
        read: impl Fn(Range<usize>) -> T + Sync,
    ) -> Vec<T>;
}

/// How well one kernel's weights are represented in int8. What is `None` is not to be told: all
/// weights are zero, or rounding changes none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Int8Weights {
    /// `Σ w² / Σ (w − round(w))²` in dB, if one step serves all.
    pub sqnr_per_tensor: Option<f64>,
    /// The same with a step per output channel.
    pub sqnr_per_channel: Option<f64>,
    /// The largest |w| by the root of the mean square.
    pub crest_factor: Option<f64>,
}

/// `Σ w²` of weights, and what rounding them to int8 adds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RoundingNoise {
    /// `Σ w²`.
    pub power: f64,
    /// `Σ (w − round(w))²`, with one step for all.
    pub per_tensor: f64,
    /// The same with a step per row.
    pub per_channel: f64,
    /// The largest |w|.
    pub largest: f64,
    /// How many weights there are.
    count: f64,
}

/// Fused, weights may lose so many dB of their signal-to-noise ratio: one bit.
pub const MOST_LOST: f64 = 6.0;

/// With fewer dB, networks begin to lose accuracy.
pub const LEAST_SQNR: f64 = 30.0;

impl Int8Weights {
    /// Whether these weights, with one step for all, are worse than they have to be, as those
    /// `before` them were or by themselves.
    pub fn is_poor_beside(&self, before: &Int8Weights) -> bool {
        self.sqnr_per_tensor.is_some_and(|own| own < LEAST_SQNR) || self.is_lost_beside(before)
    }

    /// Whether they have lost more than 6 dB of what those `before` them had, which may
    /// have been exact.
    pub fn is_lost_beside(&self, before: &Int8Weights) -> bool {
        // Of two that are exact, the difference is no number.
        before.per_tensor() - self.per_tensor() > MOST_LOST
    }

    /// [`Self::sqnr_per_tensor`]; infinite if that is not told: they are exact.
    pub fn per_tensor(&self) -> f64 {
        self.sqnr_per_tensor.unwrap_or(f64::INFINITY)
    }
}

impl RoundingNoise {
    /// That of weights in rows of `row` numbers, each row times `scale` of its number.
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

    /// That of a map's kernel.
    pub fn of_kernel(map: &Affine, work: &impl EachPiece) -> Self {
        let row = map.shape().iter().skip(1).product();
        RoundingNoise::of(map, row, |_| 1.0, work)
    }

    /// That of both together, each rounded in steps of its own.
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

    /// In dB.
    pub fn int8(&self) -> Int8Weights {
        let crest = self.largest / (self.power / self.count).sqrt();
        Int8Weights {
            sqnr_per_tensor: finite_decibels(self.power, self.per_tensor),
            sqnr_per_channel: finite_decibels(self.power, self.per_channel),
            crest_factor: Some(crest).filter(|crest| crest.is_finite()),
        }
    }
}

/// `10·log₁₀(signal / noise)`, where that is a number.
fn finite_decibels(signal: f64, noise: f64) -> Option<f64> {
    Some(decibels(signal, noise)).filter(|decibels| decibels.is_finite())
}

/// Of numbers as large as 1.5 · 2⁵², and of their neighbours, float64 holds the integers alone: a
/// smaller number that is added to it is rounded, halves to even ones.
const WHOLE: f64 = 1.5 * (1u64 << 52) as f64;

/// `Σ (w − round(w))²` in steps of a 127th of `largest`.
fn noise(weights: &[f64], largest: f64) -> f64 {
    if largest == 0.0 {
        return 0.0;
    }
    let step = largest / LARGEST;
    // `round_ties_even` is a call of the C library where the oldest processors are compiled for.
    let rounded = |steps: f64| (steps + WHOLE) - WHOLE;
    let error = |w: &f64| w - rounded(w / step) * step;
    weights.iter().map(error).map(|error| error * error).sum()
}

/// One piece after the other.
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

    /// Rows of two weights, the factors of the rows; the noise per tensor and per channel.
    #[test]
    fn weights_are_rounded_to_127_steps() {
        for (weights, scale, per_tensor, per_channel) in [
            // On the grid of the largest.
            (vec![127.0, -3.0, 64.0, 0.0], [1.0, 1.0], 0.0, 0.0),
            // 0.25 is a quarter of a step of 127, and on a grid of its own row.
            (vec![127.0, 1.0, 0.25, 0.0], [1.0, 1.0], 0.0625, 0.0),
            // 1.5 goes to 2, as it is even, and so does 2.5.
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
