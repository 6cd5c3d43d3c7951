//! Which factors are taken: the minima of the predicted noise under a few beliefs of how noise
//! spreads, of which a run on 8 bits picks the best.
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

/// A run on 8 bits must gain so much, in dB.
const GAIN: f64 = 0.5;

/// Weights on 8 bits must, where no inputs are known: trained networks gain 0.4 to 6 dB, and
/// once they are balanced less than 0.02.
const GAIN_OF_WEIGHTS: f64 = 0.2;

/// A factor lies within 2^±so much, and less if a type asks for it.
const MOST_OCTAVES: f64 = 10.0;

/// Steps of one minimum; the candidates have come to rest by then.
const STEPS: usize = 200;

/// The norms by which maxima are smoothed, each from the minimum of the one before; those
/// from place [`FIRST`] on are candidates.
const NORMS: [f64; 3] = [4.0, 8.0, 16.0];
const FIRST: usize = 1;

/// So many further factors are tried, around the best, if a run takes no more multiply-adds
/// than these.
const LOTS: usize = 16;
const MOST_WORK: f64 = 2e10;

/// The standard deviation of a further factor's logarithm around the best one: a hundredth moves
/// the largest weights by one step of 8 bits.
const AROUND: f64 = 0.03;

/// Further factors are made from this.
const SEED: u64 = 1;

/// Multiply-adds of one run on what is looked at: some fifty images by a ResNet-50. There are a
/// dozen runs.
const MOST_LOOKED_AT: f64 = 2e11;

/// What is looked at.
pub struct Candidates<'c, 'g, 'm> {
    /// The model's main graph.
    pub graph: &'g Graph<'m>,
    /// What is stored in it.
    pub constants: &'c Constants<'g, 'm>,
    /// Its channels.
    pub classes: &'c ChannelClasses,
    /// Its kernels.
    pub kernels: &'c [KernelSums],
    /// The sizes of its tensors.
    pub shapes: &'c SeenShapes,
    /// What was asked for.
    pub how: Equalize,
}

/// How many pieces of so many `samples` are looked at, if each sample takes so many multiply-adds.
fn affordable(samples: impl Iterator<Item = usize>, each: f64) -> usize {
    let mut work = 0.0;
    let fits = |samples: &usize| {
        work += *samples as f64 * each;
        work <= MOST_LOOKED_AT
    };
    samples.take_while(fits).count().max(1)
}

/// Samples of a piece.
pub fn samples(piece: &Piece) -> usize {
    piece.first().and_then(|one| one.shape().first().copied()).unwrap_or(1)
}

/// Factors, and what they gain.
pub struct Found {
    /// Their logarithms, by class.
    pub x: Vec<f64>,
    /// What they spare of the noise of 8-bit weights, in dB; `None` if they were run.
    pub weights: Option<f64>,
    /// What 8 bits leave of the outputs as the model stands, in dB, not finite if it does not show
    /// in them; `None` if that was not run.
    pub before: Option<f64>,
    /// With the factors, if they were run.
    pub after: Option<f64>,
}

impl Found {
    /// Why the factors are not taken; `None` if they are.
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
    /// What factors spare of the noise that rounding to 8 bits adds to the kernels, in dB. What
    /// each of them adds, relative to itself, adds up in the outputs.
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

    /// The factor of each class.
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

    /// As many of `pieces`, the first ones, as a run takes no more multiply-adds on than
    /// [`MOST_LOOKED_AT`]; one at least.
    pub fn affordable<'p>(&self, pieces: &'p [Piece]) -> &'p [Piece] {
        let each = self.work() / pieces.first().map_or(1, samples) as f64;
        let count = affordable(pieces.iter().map(samples), each);
        pieces.get(..count).unwrap_or(pieces)
    }

    /// The best of all candidates on `pieces`; where no inputs are known, that of equal ranges.
    ///
    /// # Errors
    /// If a stored tensor cannot be read, or the engine cannot run the model.
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
        // Which weights fall near the grid is a lottery, in which some more lots are drawn.
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

    /// Multiply-adds of a run on the first piece, about.
    fn work(&self) -> f64 {
        let each = self.kernels.iter().filter_map(|kernel| {
            let elements: usize = self.shapes.get(&kernel.tensor.output)?.iter().product();
            let positions = elements.checked_div(kernel.sizes[0].max(1))?;
            Some(kernel.largest.len() as f64 * kernel.taps * positions as f64)
        });
        each.sum()
    }

    /// The least noise that is predicted, under each belief.
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

    /// How far a logarithm may be from 0, so that nothing leaves its type: a weight takes two
    /// factors, a tensor one, of which what was seen may be a sixteenth.
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

    /// What is rounded with these factors; `None` if a weight leaves its type.
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
            // A ResNet-50: one piece of 32 images is 1.3e11.
            (&[32, 32, 32, 4], 4.1e9, 1),
            (&[10, 10, 10], 1e10, 2),
            // One is looked at, whatever it takes.
            (&[32], 1e12, 1),
        ] {
            assert_eq!(affordable(pieces.iter().copied(), each), count, "{pieces:?} {each}");
        }
    }
}
