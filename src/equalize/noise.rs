//! The noise that rounding to 8 bits makes in the outputs, as a function of the factors.
//!
//! With factors `s = exp(x)`, a tensor of range `r = max s·hi + max s·(−lo)` is rounded in steps
//! of `r / 255`, which are steps of `r / (255·s)` in the old unit of each channel; a kernel
//! likewise in steps of `max |w|·s_out/s_in / 127`. So the noise is
//!
//! ```text
//! N(x) = Σ r² Σ_c S_c / s_c²  +  Σ (max |w|·s_o/s_i)² Σ_oi P_i·s_i²·S_o / s_o²
//! ```
//!
//! with sensitivities S and powers P. Each term is a product of sums and maxima of exponentials
//! of affine functions of x, so `log N` is convex. Maxima are approximated by p-norms.
//!
//! Knows numbers, and classes by number.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "classes are numbers below their count, and lists have one entry per channel"
)]

use std::collections::BTreeMap;

use crate::equalize::channels::ChannelClasses;
use crate::equalize::sensitivity::{KernelSums, Sensitivity, Statistics};
use crate::onnx::ids::ValueId;

/// A tensor that is rounded when the model runs.
struct RoundedTensor {
    classes: Vec<usize>,
    /// The largest and the negated least element of each channel, both at least 0.
    ends: [Vec<f64>; 2],
    weights: Vec<f64>,
}

/// A kernel that is rounded.
struct RoundedKernel {
    outputs: Vec<usize>,
    inputs: Vec<usize>,
    /// `(|w| / largest)` to the power p; outputs first.
    powers: Vec<f64>,
    largest: f64,
    columns: usize,
    groups: usize,
    /// Per kind of noise (white, steady): the power of the inputs, and the sensitivity of the
    /// outputs.
    parts: [(Vec<f64>, Vec<f64>); 2],
}

/// The logarithm of the predicted noise, as in the head of this module.
pub struct NoiseFunction {
    tensors: Vec<RoundedTensor>,
    kernels: Vec<RoundedKernel>,
    count: usize,
    norm: f64,
}

impl NoiseFunction {
    /// Returns the noise of the `rounded` tensors and of all `kernels`, with maxima as
    /// `norm`-norms.
    pub fn of(
        classes: &ChannelClasses,
        statistics: &Statistics,
        sensitivities: &BTreeMap<ValueId, Sensitivity>,
        kernels: &[KernelSums],
        rounded: &[ValueId],
        norm: f64,
    ) -> Self {
        let classes_of = |id: ValueId| classes.tensors.get(&id).map(|own| own.classes.clone());
        let tensors = rounded.iter().filter_map(|&id| {
            let (seen, own) = (statistics.get(&id)?, sensitivities.get(&id)?);
            let weights = own.white.iter().zip(&seen.nonzero).map(|(white, part)| white * part);
            let ends = [seen.largest.clone(), seen.least.iter().map(|least| -least).collect()];
            Some(RoundedTensor { classes: classes_of(id)?, ends, weights: weights.collect() })
        });
        let kernels = kernels.iter().filter_map(|kernel| {
            let (input, output) = (kernel.tensor.input?, kernel.tensor.output);
            let (read, made) = (statistics.get(&input)?, sensitivities.get(&output)?);
            let white = read
                .power
                .iter()
                .zip(&read.steady)
                .map(|(all, steady)| (all - steady).max(0.0) * kernel.taps);
            let steady = read.steady.iter().map(|steady| steady * kernel.taps);
            let largest = kernel.largest.iter().fold(0.0f64, |most, &own| most.max(own));
            let power = |own: &f64| if largest > 0.0 { (own / largest).powf(norm) } else { 0.0 };
            Some(RoundedKernel {
                outputs: classes_of(output)?,
                inputs: classes_of(input)?,
                powers: kernel.largest.iter().map(power).collect(),
                largest,
                columns: kernel.sizes[1],
                groups: kernel.groups,
                parts: [
                    (white.collect(), made.white.clone()),
                    (steady.collect(), made.steady.clone()),
                ],
            })
        });
        NoiseFunction {
            tensors: tensors.collect(),
            kernels: kernels.collect(),
            count: classes.count,
            norm,
        }
    }

    /// Returns the logarithm of the noise at `x`, which has one entry per class, and its
    /// gradient.
    pub fn at(&self, x: &[f64]) -> (f64, Vec<f64>) {
        let mut terms: Vec<(f64, Vec<(usize, f64)>)> = Vec::new();
        terms.extend(self.tensors.iter().filter_map(|tensor| self.of_tensor(tensor, x)));
        terms.extend(self.kernels.iter().filter_map(|kernel| self.of_kernel(kernel, x)));
        let most = terms.iter().fold(f64::NEG_INFINITY, |most, term| most.max(term.0));
        let mut gradient = vec![0.0; self.count];
        if terms.is_empty() {
            return (0.0, gradient);
        }
        let all: f64 = terms.iter().map(|term| (term.0 - most).exp()).sum();
        for (value, slopes) in &terms {
            let share = (value - most).exp() / all;
            slopes.iter().for_each(|&(class, slope)| gradient[class] += share * slope);
        }
        // The pinned class does not move.
        if let Some(pinned) = gradient.first_mut() {
            *pinned = 0.0;
        }
        (most + all.ln(), gradient)
    }

    fn of_tensor(&self, tensor: &RoundedTensor, x: &[f64]) -> Option<(f64, Vec<(usize, f64)>)> {
        let factors: Vec<f64> = tensor.classes.iter().map(|&class| x[class].exp()).collect();
        let [(above, above_shares), (below, below_shares)] = [0, 1].map(|end| {
            let scaled = tensor.ends[end].iter().zip(&factors).map(|(end, factor)| end * factor);
            norm(&scaled.collect::<Vec<_>>(), self.norm)
        });
        let range = above + below;
        let parts = tensor.weights.iter().zip(&factors).map(|(weight, f)| weight / (f * f));
        let parts: Vec<f64> = parts.collect();
        let all: f64 = parts.iter().sum();
        if range <= 0.0 || all <= 0.0 {
            return None;
        }
        let slopes = tensor.classes.iter().enumerate().map(|(at, &class)| {
            let ranges = (above * above_shares[at] + below * below_shares[at]) / range;
            (class, 2.0 * ranges - 2.0 * parts[at] / all)
        });
        Some((2.0 * (range / 255.0).ln() + all.ln(), slopes.collect()))
    }

    fn of_kernel(&self, kernel: &RoundedKernel, x: &[f64]) -> Option<(f64, Vec<(usize, f64)>)> {
        let factor = |&class: &usize| x[class].exp();
        let made: Vec<f64> = kernel.outputs.iter().map(factor).collect();
        let read: Vec<f64> = kernel.inputs.iter().map(factor).collect();
        let raised: Vec<f64> = read.iter().map(|factor| factor.powf(-self.norm)).collect();
        let (rows, columns) = (made.len(), kernel.columns);
        let in_group = (rows / kernel.groups).max(1);
        let mut by_input = vec![0.0; read.len()];
        let mut by_output = vec![0.0; rows];
        for (row, own) in made.iter().enumerate() {
            let first = row / in_group * columns;
            let raised_row = own.powf(self.norm);
            let entries = kernel.powers.get(row * columns..(row + 1) * columns)?;
            let of_inputs = by_input.get_mut(first..first + columns)?;
            let mut sum = 0.0;
            for ((entry, raised), of_input) in
                entries.iter().zip(raised.get(first..first + columns)?).zip(of_inputs)
            {
                let share = entry * raised * raised_row;
                sum += share;
                *of_input += share;
            }
            by_output[row] = sum;
        }
        let all: f64 = by_output.iter().sum();
        let (mut noise, mut of_inputs) = (0.0, vec![0.0; read.len()]);
        let mut of_outputs = vec![0.0; rows];
        for (powers, reaching) in &kernel.parts {
            let inputs = powers.iter().zip(&read).map(|(power, f)| power * f * f);
            let inputs: Vec<f64> = inputs.collect();
            let outputs = reaching.iter().zip(&made).map(|(part, f)| part / (f * f));
            let outputs: Vec<f64> = outputs.collect();
            for group in 0..kernel.groups {
                let from = inputs.get(group * columns..(group + 1) * columns)?;
                let to = outputs.get(group * in_group..(group + 1) * in_group)?;
                let (from_all, to_all) = (from.iter().sum::<f64>(), to.iter().sum::<f64>());
                noise += from_all * to_all;
                for (at, part) in from.iter().enumerate() {
                    of_inputs[group * columns + at] += part * to_all;
                }
                for (at, part) in to.iter().enumerate() {
                    of_outputs[group * in_group + at] += part * from_all;
                }
            }
        }
        if all <= 0.0 || noise <= 0.0 {
            return None;
        }
        let outputs =
            kernel.outputs.iter().enumerate().map(|(at, &class)| {
                (class, 2.0 * by_output[at] / all - 2.0 * of_outputs[at] / noise)
            });
        let inputs =
            kernel.inputs.iter().enumerate().map(|(at, &class)| {
                (class, 2.0 * of_inputs[at] / noise - 2.0 * by_input[at] / all)
            });
        let largest = kernel.largest.ln() + all.ln() / self.norm;
        let value = 2.0 * (largest - 127f64.ln()) + noise.ln();
        Some((value, outputs.chain(inputs).collect()))
    }
}

/// Returns the p-norm of positive numbers, and each number's share in the gradient of its
/// logarithm.
fn norm(numbers: &[f64], p: f64) -> (f64, Vec<f64>) {
    let most = numbers.iter().fold(0.0f64, |most, &own| most.max(own));
    if most <= 0.0 {
        return (0.0, vec![0.0; numbers.len()]);
    }
    let powers: Vec<f64> = numbers.iter().map(|own| (own / most).powf(p)).collect();
    let all: f64 = powers.iter().sum();
    (most * all.powf(p.recip()), powers.iter().map(|power| power / all).collect())
}
