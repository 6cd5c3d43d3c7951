//! Cross-layer equalization to its fixed point (Nagel et al. 2019), for any number of kernels
//! per channel: every channel gets the factor at which the largest weight that produces it
//! equals the largest weight that reads it. It needs no inputs.
//!
//! Knows weights and classes.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "classes are numbers below their count"
)]

use crate::equalize::channels::ChannelClasses;
use crate::equalize::sensitivity::KernelSums;

/// Upper bound on the rounds, each of which is one pass over all weights; no network took more.
const ROUNDS: usize = 100;

/// Returns the logarithm of the factor of each class, within ±`bound`.
pub fn balanced(classes: &ChannelClasses, kernels: &[KernelSums], bound: f64) -> Vec<f64> {
    let mut x: Vec<f64> = vec![0.0; classes.count];
    for _ in 0..ROUNDS {
        let (mut made, mut read) = (vec![0.0f64; x.len()], vec![0.0f64; x.len()]);
        for kernel in kernels {
            let of = |id| classes.tensors.get(&id).map(|own| own.classes.as_slice());
            let (outputs, inputs) = (of(kernel.tensor.output), kernel.tensor.input.and_then(of));
            let (Some(outputs), Some(inputs)) = (outputs, inputs) else { continue };
            let factors = |classes: &[usize]| -> Vec<f64> {
                classes.iter().map(|&class| x[class].exp()).collect()
            };
            let (of_outputs, of_inputs) = (factors(outputs), factors(inputs));
            for (row, &output) in outputs.iter().enumerate() {
                for column in 0..kernel.sizes[1] {
                    let at = kernel.input(row, column);
                    let own = kernel.largest[row * kernel.sizes[1] + column];
                    let scaled = own * of_outputs[row] / of_inputs[at];
                    let input = inputs[at];
                    made[output] = made[output].max(scaled);
                    read[input] = read[input].max(scaled);
                }
            }
        }
        let mut most = 0.0f64;
        for class in 1..x.len() {
            // A channel of zeros keeps the factor 1.
            if made[class] > 0.0 && read[class] > 0.0 {
                // Half of the step to equal ranges, because neighbouring classes move at the
                // same time.
                let step = (read[class] / made[class]).ln() / 4.0;
                let next = (x[class] + step).clamp(-bound, bound);
                most = most.max((next - x[class]).abs());
                x[class] = next;
            }
        }
        if most < 1e-3 {
            break;
        }
    }
    x
}
