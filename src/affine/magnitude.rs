//! How large the weights of a kernel are: by position, as in the paper (Eq. 9 and 10), and by
//! output channel, which decides how well they can be quantized.
//!
//! Knows weights and shapes. Large kernels are read in pieces; the caller decides whether one
//! after the other or in parallel.

use std::ops::Range;

use crate::affine::branches::DominantBranch;
use crate::affine::geometry::Geometry;
use crate::affine::kernel::{Affine, Summand, of_channel, shape};
use crate::affine::quantization::{EachPiece, Int8Weights, RoundingNoise};
use crate::numbers::{self, LazyWeights, pieces};

/// The magnitude of one kernel's weights.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Magnitude {
    /// Taps per spatial axis.
    pub kernel: Vec<usize>,
    /// `S / max(S)` of Eq. 9, the last axis fastest; all zero if all weights are zero.
    pub by_position: Vec<f64>,
    /// Distribution of the largest |w| of each output channel.
    pub channels: Spread,
    /// The effect of rounding all weights to int8.
    pub int8: Int8Weights,
}

/// Distribution of one number per output channel, without channels of zeros. Quartiles are
/// interpolated; all numbers are zero if no channel is left.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Spread {
    /// The smallest number.
    pub smallest: f64,
    /// A quarter of the numbers is below.
    pub lower_quartile: f64,
    /// Half of the numbers is below.
    pub median: f64,
    /// A quarter of the numbers is above.
    pub upper_quartile: f64,
    /// The largest number.
    pub largest: f64,
    /// `largest / median`; `None` if no channel is left.
    pub ratio: Option<f64>,
}

/// The weights of a fused kernel in comparison to those of the largest kernel in it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// The largest kernel by output channel, as it is stored, before any norm is folded.
    pub stored: Spread,
    /// The same kernel with the norms and scales of its branch folded: what a quantizer would
    /// see without the other branches.
    pub before: Magnitude,
    /// The fused kernel.
    pub after: Magnitude,
    /// The branch that holds the largest weights of the fused kernel; `None` unless its int8
    /// weights are poor.
    pub dominant: Option<DominantBranch>,
}

impl Affine {
    /// Compares the kernel with the largest kernel that it is a sum of: one that mixes channels,
    /// if there is one, and the first of several. Returns `None` if there are no summands.
    pub(crate) fn compared(&self, work: &impl EachPiece) -> Option<Comparison> {
        let magnitude = |weights: &dyn LazyWeights, shape: &[usize], scale: &[f64]| {
            let pass = Pass::over(weights, shape, scale);
            pass.magnitude(work)
        };
        let size =
            |summand: &Summand| (summand.geometry.channels.is_some(), summand.geometry.weights());
        let larger = |a: &Summand, b: &Summand| size(a) >= size(b);
        let largest = self.summands.iter().reduce(|a, b| if larger(a, b) { a } else { b })?;
        let (before, stored) = match largest.geometry.channels {
            Some(_) => magnitude(&*largest.weights, &shape(&largest.geometry), &largest.scale),
            // The kernel is the same for every channel, apart from the scale.
            None => {
                let scaled = |scale: &[f64]| {
                    let windows = largest.geometry.windows.clone();
                    let geometry = Geometry { windows, ..self.geometry.clone() };
                    let summand = Summand { scale: scale.to_vec(), ..largest.clone() };
                    let alone = Affine { geometry, summands: vec![summand], bias: Vec::new() };
                    magnitude(&alone, &alone.shape(), &[1.0])
                };
                (scaled(&largest.scale).0, scaled(&[1.0]).1)
            }
        };
        let (after, _) = magnitude(self, &self.shape(), &[1.0]);
        let is_poor = after.int8.is_poor_beside(&before.int8);
        let dominant = if is_poor { self.dominant(work) } else { None };
        Some(Comparison { stored, before, after, dominant })
    }
}

/// One pass over the weights of a kernel, in independent pieces.
#[derive(Debug)]
struct Pass<'w> {
    weights: &'w dyn LazyWeights,
    /// Number of outputs, and of weights per output.
    rows: usize,
    row: usize,
    /// Taps per spatial axis.
    kernel: Vec<usize>,
    /// Output `j` is scaled by `scale[j]`; a single scale serves all outputs.
    scale: &'w [f64],
}

/// The partial results of one piece of a [`Pass`].
#[derive(Debug, Clone, PartialEq)]
struct PieceSums {
    /// `Σ |scale·w|` by position (Eq. 10).
    by_position: Vec<f64>,
    /// The largest unscaled `|w|` of each row.
    largest: Vec<f64>,
}

impl<'w> Pass<'w> {
    /// A pass over the kernel `[O, C, taps…]` with this `shape`, scaled.
    fn over(weights: &'w dyn LazyWeights, shape: &[usize], scale: &'w [f64]) -> Self {
        let (rows, width, kernel) = match shape {
            [rows, width, kernel @ ..] => (*rows, *width, kernel.to_vec()),
            _ => (1, 1, Vec::new()),
        };
        let taps = kernel.iter().product::<usize>().max(1);
        Pass { weights, rows, row: (width * taps).max(1), kernel, scale }
    }

    /// The ranges of weights that are read at a time.
    fn pieces(&self) -> Vec<Range<usize>> {
        pieces(self.rows * self.row, self.row).collect()
    }

    /// Reads one of its [pieces](Self::pieces).
    fn read(&self, piece: Range<usize>) -> PieceSums {
        let (first, numbers) = (piece.start / self.row, numbers::read(self.weights, piece));
        let mut by_position = vec![0.0; self.taps()];
        let mut largest = Vec::with_capacity(numbers.len() / self.row);
        for (output, filters) in (first..).zip(numbers.chunks_exact(self.row)) {
            let scale = factor(self.scale, output);
            for filter in filters.chunks_exact(self.taps()) {
                let sums = by_position.iter_mut().zip(filter);
                sums.for_each(|(sum, weight)| *sum += scale * weight.abs());
            }
            largest.push(filters.iter().fold(0.0f64, |largest, w| largest.max(w.abs())));
        }
        PieceSums { by_position, largest }
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product::<usize>().max(1)
    }

    /// The magnitude of the kernel, and the spread without the scale. `pieces` are in the order
    /// of the weights, so that the same weights give the same sums.
    fn summed(&self, pieces: Vec<PieceSums>) -> (Magnitude, Spread) {
        let mut by_position = vec![0.0; self.taps()];
        let mut unscaled = Vec::with_capacity(self.rows);
        for piece in pieces {
            by_position.iter_mut().zip(piece.by_position).for_each(|(sum, more)| *sum += more);
            unscaled.extend(piece.largest);
        }
        let largest = by_position.iter().fold(0.0f64, |largest, sum| largest.max(*sum));
        if largest > 0.0 {
            by_position.iter_mut().for_each(|sum| *sum /= largest);
        }
        let scaled = unscaled.iter().zip(0..).map(|(weight, j)| weight * factor(self.scale, j));
        let channels = Spread::of(scaled.collect());
        let (kernel, int8) = (self.kernel.clone(), Int8Weights::default());
        (Magnitude { kernel, by_position, channels, int8 }, Spread::of(unscaled))
    }

    /// As [`Self::summed`], over all pieces, and including the effect of rounding.
    fn magnitude(&self, work: &impl EachPiece) -> (Magnitude, Spread) {
        let (magnitude, stored) = self.summed(work.each(self.pieces(), |piece| self.read(piece)));
        let scale = |output| factor(self.scale, output);
        let int8 = RoundingNoise::of(self.weights, self.row, scale, work).int8();
        (Magnitude { int8, ..magnitude }, stored)
    }
}

fn factor(scale: &[f64], output: usize) -> f64 {
    of_channel(scale, output).map_or(1.0, f64::abs)
}

impl Spread {
    /// The spread of `numbers`.
    fn of(mut numbers: Vec<f64>) -> Self {
        numbers.retain(|&number| number > 0.0);
        numbers.sort_by(f64::total_cmp);
        let Some(last) = numbers.len().checked_sub(1) else { return Spread::default() };
        let at = |part: f64| {
            let place = part * last as f64;
            let near = |place: f64| numbers.get(place as usize).copied().unwrap_or(0.0);
            let (below, above) = (near(place.floor()), near(place.ceil()));
            below + (above - below) * place.fract()
        };
        let (median, largest) = (at(0.5), at(1.0));
        Spread {
            smallest: at(0.0),
            lower_quartile: at(0.25),
            median,
            upper_quartile: at(0.75),
            largest,
            ratio: Some(largest / median),
        }
    }
}

/// The average of normalised matrices of one size (Eq. 9), and their number. Returns `None` if
/// there are none.
pub fn average<'m>(matrices: impl Iterator<Item = &'m [f64]>) -> Option<(Vec<f64>, usize)> {
    let mut layers = 0;
    let mut sums: Vec<f64> = Vec::new();
    for matrix in matrices {
        sums.resize(sums.len().max(matrix.len()), 0.0);
        sums.iter_mut().zip(matrix).for_each(|(sum, value)| *sum += value);
        layers += 1;
    }
    sums.iter_mut().for_each(|sum| *sum /= f64::from(layers));
    (layers > 0).then_some((sums, layers as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn magnitude(weights: &dyn LazyWeights, shape: &[usize], scale: &[f64]) -> (Magnitude, Spread) {
        let pass = Pass::over(weights, shape, scale);
        pass.summed(pass.pieces().into_iter().map(|piece| pass.read(piece)).collect())
    }

    /// Two filters of two channels on 1×2 taps.
    const KERNEL: [f64; 8] = [1.0, -2.0, 3.0, 0.0, -0.5, 0.5, 0.0, -1.0];

    #[test]
    fn magnitudes_follow_equation_10() {
        let numbers = KERNEL.to_vec();
        // |1| + |3| + |−0.5| + |0| and |−2| + |0| + |0.5| + |−1|.
        let (plain, stored) = magnitude(&numbers, &[2, 2, 1, 2], &[1.0]);
        assert_eq!((plain.kernel, plain.by_position), (vec![1, 2], vec![1.0, 3.5 / 4.5]));
        assert_eq!(stored, plain.channels);
        assert_eq!((stored.smallest, stored.median, stored.largest), (1.0, 2.0, 3.0));
        assert_eq!(stored.ratio, Some(1.5));
        // The second filter four times: 4 + 2 and 2 + 6.
        let (scaled, stored) = magnitude(&numbers, &[2, 2, 1, 2], &[1.0, -4.0]);
        assert_eq!(scaled.by_position, vec![6.0 / 8.0, 1.0]);
        assert_eq!((scaled.channels.smallest, scaled.channels.largest), (3.0, 4.0));
        assert_eq!(stored.largest, 3.0);
    }

    #[test]
    fn zeros_and_long_rows_are_kernels_too() {
        let (zero, stored) = magnitude(&vec![0.0; 4], &[2, 1, 2], &[1.0]);
        assert_eq!((zero.by_position, stored), (vec![0.0, 0.0], Spread::default()));
        let (matrix, _) = magnitude(&vec![2.0; 6], &[3, 2], &[1.0]);
        assert_eq!((matrix.kernel, matrix.by_position), (vec![], vec![1.0]));
        // Rows of 100,000 numbers are read one at a time.
        let long: Vec<f64> = (0..300_000).map(|at| f64::from(at / 100_000)).collect();
        let (long, _) = magnitude(&long, &[3, 50_000, 2], &[1.0]);
        assert_eq!(long.by_position, vec![1.0, 1.0]);
        assert_eq!((long.channels.smallest, long.channels.largest), (1.0, 2.0));
    }

    #[test]
    fn spreads_leave_out_channels_of_zeros() {
        let spread = Spread::of(vec![0.0, 4.0, 1.0, 2.0, 0.0, 3.0]);
        let expected = Spread {
            smallest: 1.0,
            lower_quartile: 1.75,
            median: 2.5,
            upper_quartile: 3.25,
            largest: 4.0,
            ratio: Some(1.6),
        };
        assert_eq!(spread, expected);
    }

    #[test]
    fn averages_follow_equation_9() {
        let layers = [[1.0, 0.5], [0.25, 1.0]];
        let found = average(layers.iter().map(|layer| &layer[..]));
        assert_eq!(found, Some((vec![0.625, 0.75], 2)));
        assert_eq!(average(std::iter::empty()), None);
    }
}
