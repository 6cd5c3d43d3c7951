//! Decides whether two sides differ by nothing but rounding: where all that they read is zero,
//! they differ by no more than one of them does if its constants are moved by what rounds them.
//!
//! What is made of zeros is on the way to the output whatever the inputs are, so the old nodes
//! always round at its scale. No tolerance of the output is involved: element by element, the
//! bound is the largest difference that was measured in several draws.
//!
//! Knows sides and trials; does not know in what the sides differ.

use std::sync::Arc;

use ndarray::{ArrayD, IxDyn, Zip};

use crate::engine::{Array, Constant, Limits};
use crate::numbers::LazyWeights;
use crate::verify::claim::{Side, Unproved};
use crate::verify::inputs::Random;
use crate::verify::trial_run::TrialRun;

/// Number of draws, in each of which all constants are moved: in a single one, an element in
/// forty moves by chance less than a fortieth as far as others do.
const DRAWS: u64 = 6;

/// Returns whether `other` makes of zeros what `side` makes of them, up to what moving the
/// constants of `side` by the fraction `most` of themselves changes.
///
/// # Errors
/// Returns an error if the engine cannot run a side.
pub fn differ_by_rounding(
    together: &TrialRun,
    output: &str,
    [side, other]: [&Side; 2],
    most: f64,
    limits: Limits,
) -> Result<bool, Unproved> {
    let shapes = together.trials.iter().flat_map(|trial| &trial.shapes);
    let zeros: Vec<Array> = shapes.map(|shape| Array::Float(ArrayD::zeros(IxDyn(shape)))).collect();
    let made = |side: &Side| together.outputs(side, output, &zeros, limits);
    let (first, second) = (made(side)?, made(other)?);
    let mut moved: Vec<ArrayD<f64>> = Vec::new();
    for draw in 0..DRAWS {
        let nudged = made(&nudged(side, most, draw))?;
        for (trial, (first, nudged)) in first.iter().zip(&nudged).enumerate() {
            let Some(distance) = distance(first, nudged) else { return Ok(false) };
            match moved.get_mut(trial) {
                Some(moved) => Zip::from(moved).and(&distance).for_each(|a, &b| *a = a.max(b)),
                None => moved.push(distance),
            }
        }
    }
    let is_within = |((first, second), moved): ((&Array, &Array), &ArrayD<f64>)| {
        let distance = distance(first, second);
        distance.is_some_and(|distance| Zip::from(&distance).and(moved).all(|d, most| d <= most))
    };
    Ok(first.iter().zip(&second).zip(&moved).all(is_within))
}

/// Returns |a − b|, element by element; `None` if the shapes differ or one of both is of integers.
fn distance(one: &Array, other: &Array) -> Option<ArrayD<f64>> {
    match (one, other) {
        (Array::Float(one), Array::Float(other)) if one.shape() == other.shape() => {
            Some(Zip::from(one).and(other).map_collect(|a, b| (a - b).abs()))
        }
        _ => None,
    }
}

/// Returns `side` with each of its floats moved by no more than the fraction `most` of itself.
fn nudged(side: &Side, most: f64, draw: u64) -> Side {
    let constants = (0..).zip(&side.constants).map(|(number, constant)| {
        let of = constant.numbers.clone();
        let seed = Random::new(draw).split(number);
        let numbers = of.map(|of| Arc::new(Nudged { of, most, seed }) as Arc<dyn LazyWeights>);
        Constant { numbers, ..constant.clone() }
    });
    Side { nodes: side.nodes.clone(), constants: constants.collect() }
}

/// Weights, each moved a little.
#[derive(Debug)]
struct Nudged {
    of: Arc<dyn LazyWeights>,
    most: f64,
    seed: Random,
}

impl LazyWeights for Nudged {
    fn count(&self) -> usize {
        self.of.count()
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        self.of.read(start, into);
        for (number, place) in into.iter_mut().zip((start as u64)..) {
            *number += *number * self.most * self.seed.split(place).uniform();
        }
    }
}
