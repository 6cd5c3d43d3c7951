//! Minimization of a smooth convex function: L-BFGS (Liu and Nocedal 1989), with a bound on each
//! entry.
//!
//! Knows numbers.

#![allow(clippy::arithmetic_side_effects, reason = "counts of steps")]

/// Number of pairs of a step and a change of the gradient that are kept.
const MEMORY: usize = 8;

/// The function counts as flat where the descent along the search direction is less than this.
const FLAT: f64 = 1e-10;

/// Upper bound on how often one step is halved.
const MAX_HALVINGS: usize = 24;

/// Fraction of the decrease promised by the slope that a step must achieve (Armijo 1966).
const SUFFICIENT_DECREASE: f64 = 1e-4;

/// Least cosine of the angle between a step and the change of the gradient at which the pair
/// says something about the curvature.
const LEAST_CURVATURE: f64 = 1e-12;

/// A step that decreases the value by less is the last one.
const LEAST_GAIN: f64 = 1e-7;

/// Returns where `function`, which returns its value and gradient, has its minimum within
/// ±`bound`, searching from `start` in at most `steps` steps.
pub fn minimum(
    function: impl Fn(&[f64]) -> (f64, Vec<f64>),
    start: Vec<f64>,
    bound: f64,
    steps: usize,
) -> Vec<f64> {
    let mut x = start;
    let (mut value, mut gradient) = function(&x);
    let mut pairs: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
    for _ in 0..steps {
        let direction = direction(&gradient, &pairs);
        let slope = dot(&direction, &gradient);
        if slope > -FLAT {
            break;
        }
        let mut length = if pairs.is_empty() { 1.0 / norm(&direction).max(1.0) } else { 1.0 };
        let mut found = None;
        for _ in 0..MAX_HALVINGS {
            let next: Vec<f64> = x
                .iter()
                .zip(&direction)
                .map(|(x, d)| (x + length * d).clamp(-bound, bound))
                .collect();
            let (new_value, new_gradient) = function(&next);
            if new_value <= value + SUFFICIENT_DECREASE * length * slope {
                found = Some((next, new_value, new_gradient));
                break;
            }
            length /= 2.0;
        }
        let Some((next, new_value, new_gradient)) = found else { break };
        let step: Vec<f64> = next.iter().zip(&x).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = new_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        if dot(&step, &change) > LEAST_CURVATURE * norm(&step) * norm(&change) {
            pairs.push((step, change));
            if pairs.len() > MEMORY {
                pairs.remove(0);
            }
        }
        let gained = value - new_value;
        (x, value, gradient) = (next, new_value, new_gradient);
        if gained < LEAST_GAIN {
            break;
        }
    }
    x
}

fn direction(gradient: &[f64], pairs: &[(Vec<f64>, Vec<f64>)]) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut weights = Vec::with_capacity(pairs.len());
    for (step, change) in pairs.iter().rev() {
        let weight = dot(step, &q) / dot(step, change);
        q.iter_mut().zip(change).for_each(|(q, change)| *q -= weight * change);
        weights.push(weight);
    }
    if let Some((step, change)) = pairs.last() {
        let scale = dot(step, change) / dot(change, change);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for ((step, change), weight) in pairs.iter().zip(weights.iter().rev()) {
        let own = dot(change, &q) / dot(step, change);
        q.iter_mut().zip(step).for_each(|(q, step)| *q += (weight - own) * step);
    }
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `log Σ exp` of a few affine functions, and a parabola that is steep along one axis.
    #[test]
    fn it_ends_where_the_gradient_is_nothing() {
        let sum_of_exponentials = |x: &[f64]| {
            let terms = [(1.0, 2.0), (-1.0, 0.5), (0.3, -1.0)];
            let values = terms.map(|(a, b)| (a * x[0] + b * x[1]).exp());
            let all: f64 = values.iter().sum();
            let slope = |which: fn(&(f64, f64)) -> f64| {
                terms.iter().zip(&values).map(|(term, v)| which(term) * v / all).sum()
            };
            (all.ln(), vec![slope(|term| term.0), slope(|term| term.1)])
        };
        let found = minimum(sum_of_exponentials, vec![3.0, -2.0], 10.0, 100);
        assert!(norm(&sum_of_exponentials(&found).1) < 1e-3, "{found:?}");
        let parabola = |x: &[f64]| {
            let value = (x[0] - 1.0).powi(2) + 1e4 * (x[1] + 2.0).powi(2);
            (value, vec![2.0 * (x[0] - 1.0), 2e4 * (x[1] + 2.0)])
        };
        let found = minimum(parabola, vec![0.0, 0.0], 10.0, 100);
        assert!((found[0] - 1.0).abs() < 1e-3 && (found[1] + 2.0).abs() < 1e-3, "{found:?}");
        let bounded = minimum(parabola, vec![0.0, 0.0], 0.5, 100);
        assert!(bounded.iter().all(|x| x.abs() <= 0.5));
    }
}
