//! The choice of factors: minimizes the predicted noise under a few beliefs of how noise
//! spreads, and picks the best of these candidates by a run on 8 bits.
//!
//! Knows the room that predicts and the one that runs; writes nothing.

use std::collections::BTreeMap;

use crate::equalize::balanced::balanced;
use crate::equalize::channels::{ChannelClasses, ScaledForm};
use crate::equalize::gate::{
    Grid, TensorRange, on_grid, on_symmetric_grid, outputs, raw, rounded_tensors, sqnr,
};
use crate::equalize::minimum::minimum;
use crate::equalize::noise::NoiseFunction;
use crate::equalize::observed::{Piece, RunnableModel, statistics};
use crate::equalize::placed::SeenShapes;
use crate::equalize::scaled::scaled;
use crate::equalize::sensitivity::{
    KernelSums, NoiseModel, Sensitivity, Statistics, between, sensitivities,
};
use crate::equalize::unscaled::Unscaled;
use crate::facts::constants::Constants;
use crate::numbers::{self, decibels};
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::options::Equalize;
use crate::verify::inputs::Random;

/// The least gain, in dB, of a run on 8 bits for which factors are taken.
const GAIN: f64 = 0.5;

/// The least gain of 8-bit weights, in dB, where no inputs are known: trained networks gain 0.4
/// to 6 dB, and less than 0.02 once they are balanced.
const GAIN_OF_WEIGHTS: f64 = 0.2;

/// Factors lie within 2^±this number, and closer to 1 if an element type requires it.
const MOST_OCTAVES: f64 = 10.0;

/// Upper bound on the steps of one minimization; the candidates have come to rest by then.
const STEPS: usize = 200;

/// The norms by which maxima are smoothed, each minimization starting from the minimum of the
/// one before; the minima from index [`FIRST`] on are candidates.
const NORMS: [f64; 3] = [4.0, 8.0, 16.0];
const FIRST: usize = 1;

/// Number of further factors that are tried around the best candidate, if a run takes no more
/// multiply-adds than [`MOST_WORK`].
const LOTS: usize = 16;
const MOST_WORK: f64 = 2e10;

/// The standard deviation of the logarithms of further factors around the best ones: a hundredth
/// moves the largest weights by one step of 8 bits.
const AROUND: f64 = 0.03;

/// The seed of the further factors.
const SEED: u64 = 1;

/// Upper bound on the multiply-adds of one run on all samples: some fifty images by a ResNet-50.
/// There are a dozen runs.
const MOST_LOOKED_AT: f64 = 2e11;

/// A model, and all that is known of it, for which factors are sought.
pub struct Candidates<'c, 'g, 'm> {
    /// The main graph of the model.
    pub graph: &'g Graph<'m>,
    /// The constants of the graph.
    pub constants: &'c Constants<'g, 'm>,
    /// The classes of its channels.
    pub classes: &'c ChannelClasses,
    /// The sums over its kernels.
    pub kernels: &'c [KernelSums],
    /// The sizes of its tensors, as seen in a run.
    pub shapes: &'c SeenShapes,
    /// The kind of equalization that was asked for.
    pub how: Equalize,
}

/// Returns how many pieces, with these numbers of `samples`, fit into [`MOST_LOOKED_AT`], at
/// `each` multiply-adds per sample; at least one.
fn affordable(samples: impl Iterator<Item = usize>, each: f64) -> usize {
    let mut work = 0.0;
    let fits = |samples: &usize| {
        work += *samples as f64 * each;
        work <= MOST_LOOKED_AT
    };
    samples.take_while(fits).count().max(1)
}

/// Returns the number of samples of a piece.
pub fn samples(piece: &Piece) -> usize {
    piece.first().and_then(|one| one.shape().first().copied()).unwrap_or(1)
}

/// The best factors that were found, and what they gain.
pub struct Found {
    /// The logarithms of the factors, by class.
    pub x: Vec<f64>,
    /// How much noise of 8-bit weights they save, in dB; `None` if they were judged by runs.
    pub weights: Option<f64>,
    /// The signal-to-noise ratio of the outputs when the model runs on 8 bits without factors,
    /// in dB; not finite if rounding does not show in them; `None` if the model was not run.
    pub before: Option<f64>,
    /// The same with the factors; `None` if they were not run.
    pub after: Option<f64>,
}

impl Found {
    /// Returns why the factors are not taken; `None` if they are.
    pub fn gains_too_little(&self) -> Option<String> {
        match (self.weights, self.before, self.after) {
            (Some(gain), ..) if gain < GAIN_OF_WEIGHTS => {
                Some(format!("8-bit weights would gain less than {GAIN_OF_WEIGHTS} dB"))
            }
            (_, Some(before), _) if !before.is_finite() => {
                let why = "rounding to 8 bits does not show in the outputs on these inputs";
                Some(why.to_owned())
            }
            (_, Some(before), Some(after)) if after < before + GAIN => {
                Some(format!("8 bits would gain less than {GAIN} dB"))
            }
            _ => None,
        }
    }
}

impl Candidates<'_, '_, '_> {
    /// Returns how much factors save, in dB, of the noise that rounding to 8 bits adds to the
    /// kernels. The relative noise of each kernel adds up in the outputs.
    fn gain_of_weights(&self, x: &[f64]) -> f64 {
        let noise = |factors: &[f64]| -> f64 {
            let of = |id| self.classes.factors(id, factors);
            let each = self.kernels.iter().map(|kernel| {
                let outputs = of(kernel.tensor.output);
                let inputs = kernel.tensor.input.and_then(of);
                let factor = |side: &Option<Vec<f64>>, at: usize| {
                    side.as_ref().and_then(|side| side.get(at)).copied().unwrap_or(1.0)
                };
                kernel.int8_noise(|row, input| factor(&outputs, row) / factor(&inputs, input))
            });
            each.sum()
        };
        let (before, after) = (noise(&vec![1.0; x.len()]), noise(&self.factors(x)));
        decibels(before, after.max(f64::MIN_POSITIVE))
    }

    /// Returns the factor of each class, given the logarithms `x`.
    pub fn factors(&self, x: &[f64]) -> Vec<f64> {
        let factor = |&x: &f64| match self.how {
            Equalize::Exact => (x / std::f64::consts::LN_2).round().exp2(),
            Equalize::Best => x.exp(),
        };
        let mut factors: Vec<f64> = x.iter().map(factor).collect();
        if let Some(pinned) = factors.first_mut() {
            *pinned = 1.0;
        }
        factors
    }

    /// Returns as many of the first `pieces` as a run can take with no more multiply-adds than
    /// [`MOST_LOOKED_AT`]; at least one.
    pub fn affordable<'p>(&self, pieces: &'p [Piece]) -> &'p [Piece] {
        let each = self.work() / pieces.first().map_or(1, samples) as f64;
        let count = affordable(pieces.iter().map(samples), each);
        pieces.get(..count).unwrap_or(pieces)
    }

    /// Returns the best candidate on `pieces`; if no inputs are known, the one with equal
    /// ranges.
    ///
    /// # Errors
    /// Returns an error if a stored tensor cannot be read, or the engine cannot run the model.
    pub fn best(&self, model: &RunnableModel, pieces: Option<&[Piece]>) -> Result<Found, Unscaled> {
        let Some(pieces) = pieces else {
            let x = balanced(self.classes, self.kernels, self.bound(None));
            let weights = Some(self.gain_of_weights(&x));
            return Ok(Found { x, weights, before: None, after: None });
        };
        let axes = self.shapes.iter().map(|(&id, shape)| {
            let own = self.classes.tensors.get(&id).map(|channels| channels.axis);
            (id, own.unwrap_or_else(|| shape.len().saturating_sub(1).min(1)))
        });
        let axes: BTreeMap<ValueId, usize> = axes.collect();
        let seen = statistics(model, self.graph, &axes, pieces)?;
        let names = self.graph.outputs.iter().map(|&id| self.graph.value(id).name);
        let names: Vec<&str> = names.collect();
        let wanted = outputs(&model.clone().showing(&names), pieces)?;
        let rounded = rounded_tensors(self.graph, &seen);
        let judge = |x: &[f64]| -> Result<f64, Unscaled> {
            let Some(grid) = self.grid(&seen, &rounded, &self.factors(x))? else {
                return Ok(f64::NEG_INFINITY);
            };
            Ok(sqnr(&wanted, &outputs(&on_grid(model, &grid, &names), pieces)?))
        };
        let none = vec![0.0; self.classes.count];
        let before = judge(&none)?;
        let mut found = Found { x: none, weights: None, before: Some(before), after: None };
        if !before.is_finite() {
            return Ok(found);
        }
        let mut best = before;
        let mut take_if_better = |x: Vec<f64>, found: &mut Found| -> Result<(), Unscaled> {
            let own = judge(&x)?;
            if own > best {
                (best, found.x) = (own, x);
            }
            found.after = Some(best);
            Ok(())
        };
        for x in self.minima(&seen, &rounded) {
            take_if_better(x, &mut found)?;
        }
        // Which weights fall near the grid is a lottery, so a few more lots are drawn.
        let mut random = Random::new(SEED);
        let work = self.work() * pieces.len() as f64;
        let is_better = found.after > found.before;
        let lots = if is_better && work <= MOST_WORK { LOTS } else { 0 };
        for _ in 0..lots {
            let x = found.x.iter().map(|x| x + random.normal() * AROUND).collect();
            take_if_better(x, &mut found)?;
        }
        Ok(found)
    }

    /// Estimates the multiply-adds of a run on the first piece.
    fn work(&self) -> f64 {
        let each = self.kernels.iter().filter_map(|kernel| {
            let elements: usize = self.shapes.get(&kernel.tensor.output)?.iter().product();
            let positions = elements.checked_div(kernel.sizes[0].max(1))?;
            Some(kernel.largest.len() as f64 * kernel.taps * positions as f64)
        });
        each.sum()
    }

    /// Returns the minima of the predicted noise under each belief, as logarithms.
    fn minima(&self, seen: &Statistics, rounded: &[ValueId]) -> Vec<Vec<f64>> {
        let of = |model| sensitivities(self.graph, seen, self.kernels, model);
        let (independent, like_signal) = (of(NoiseModel::Independent), of(NoiseModel::LikeSignal));
        let both = between(&independent, &like_signal);
        let bound = self.bound(Some(seen));
        let mut minima = Vec::new();
        for sensitivities in [&independent, &both, &like_signal] {
            let mut x = vec![0.0; self.classes.count];
            for (number, norm) in NORMS.into_iter().enumerate() {
                x = self.minimum(seen, sensitivities, rounded, norm, x, bound);
                if number >= FIRST {
                    minima.push(x.clone());
                }
            }
        }
        minima
    }

    fn minimum(
        &self,
        seen: &Statistics,
        sensitivities: &BTreeMap<ValueId, Sensitivity>,
        rounded: &[ValueId],
        norm: f64,
        start: Vec<f64>,
        bound: f64,
    ) -> Vec<f64> {
        let noise =
            NoiseFunction::of(self.classes, seen, sensitivities, self.kernels, rounded, norm);
        minimum(|x| noise.at(x), start, bound, STEPS)
    }

    /// Returns how far a logarithm may be from 0 so that no number leaves its type: a weight
    /// takes two factors; a tensor takes one, and may be 16 times as large as was seen.
    fn bound(&self, seen: Option<&Statistics>) -> f64 {
        let floats = self.classes.scaled.iter().map(|scaled| scaled.float);
        let largest = floats.map(Float::largest).fold(f64::MAX, f64::min);
        let weights = self.kernels.iter().flat_map(|kernel| &kernel.largest);
        let weights = weights.fold(0.0f64, |most, &own| most.max(own));
        let tensors = seen.into_iter().flat_map(BTreeMap::values);
        let tensors = tensors.flat_map(|seen| seen.largest.iter().chain(&seen.least));
        let tensors = tensors.fold(1.0f64, |most, own| most.max(own.abs()));
        let of_weights = (largest / weights.max(f64::MIN_POSITIVE)).ln() / 2.0;
        let of_tensors = (largest / tensors / 16.0).ln();
        let most = MOST_OCTAVES * std::f64::consts::LN_2;
        of_weights.min(of_tensors).clamp(0.0, most)
    }

    /// Returns what is rounded under these factors; `None` if a weight leaves its type.
    fn grid(
        &self,
        seen: &Statistics,
        rounded: &[ValueId],
        factors: &[f64],
    ) -> Result<Option<Grid>, Unscaled> {
        let name = |id: ValueId| self.graph.value(id).name.to_owned();
        let ranges = rounded.iter().filter_map(|&id| {
            let own = seen.get(&id)?;
            let of_channels = self.classes.factors(id, factors);
            let factor = |at: usize| of_channels.as_ref().and_then(|f| f.get(at)).copied();
            let scaled = |ends: &[f64]| -> Vec<f64> {
                let ends = ends.iter().enumerate();
                ends.map(|(at, end)| end * factor(at).unwrap_or(1.0)).collect()
            };
            let least = scaled(&own.least).into_iter().fold(0.0, f64::min);
            let largest = scaled(&own.largest).into_iter().fold(0.0, f64::max);
            let float = self.constants.element_type(id).and_then(Float::from_onnx);
            let float = float.unwrap_or(Float::F32);
            Some((name(id), TensorRange { least, largest, float }))
        });
        let ranges = ranges.collect();
        let mut kernels = BTreeMap::new();
        for tensor in &self.classes.stored {
            let new = match scaled(self.graph, self.constants, self.classes, tensor, factors) {
                Err(Unscaled::NotFinite(_)) => return Ok(None),
                new => new?,
            };
            let all = numbers::all(new.numbers.as_ref());
            let (name, dims) = (&new.name, &new.dims);
            let written = match tensor.form {
                ScaledForm::Shift => raw(name, dims, &all, new.float),
                _ => on_symmetric_grid(name, dims, &all, None, new.float),
            };
            kernels.insert(new.name, written);
        }
        Ok(Some(Grid { ranges, kernels }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_looked_at_as_runs_take() {
        for (pieces, each, count) in [
            (&[32, 32, 32, 4][..], 5e7, 4),
            // A ResNet-50: one piece of 32 images takes 1.3e11.
            (&[32, 32, 32, 4], 4.1e9, 1),
            (&[10, 10, 10], 1e10, 2),
            // One piece is taken, whatever it costs.
            (&[32], 1e12, 1),
        ] {
            assert_eq!(affordable(pieces.iter().copied(), each), count, "{pieces:?} {each}");
        }
    }
}
