//! How far two tensors are apart, relative to the largest magnitude on one side.
//!
//! Knows numbers, and no tolerance.

use crate::engine::Array;

/// The largest difference of two arrays, relative to the largest magnitude in
/// `expected`; infinite if shapes differ or one side alone is not finite.
///
/// Never element by element: near zeros f32 rounding alone gives 8e-4.
pub fn relative_error(expected: &Array, found: &Array) -> f64 {
    relative(largest_difference(expected, found), largest_magnitude(expected))
}

/// `difference / magnitude`, where no difference is none whatever the magnitude.
pub fn relative(difference: f64, magnitude: f64) -> f64 {
    if difference == 0.0 { 0.0 } else { difference / magnitude }
}

/// The largest absolute difference of two elements at one place; infinite if shapes differ or
/// one side alone is not finite, or if integers differ.
pub fn largest_difference(expected: &Array, found: &Array) -> f64 {
    match (expected, found) {
        (Array::Float(expected), Array::Float(found)) if expected.shape() == found.shape() => {
            let mut largest = 0.0f64;
            for (a, b) in expected.iter().zip(found) {
                let difference = if a == b { 0.0 } else { (a - b).abs() };
                // A NaN must not disappear in a maximum.
                largest = if difference.is_nan() { f64::INFINITY } else { largest.max(difference) };
                if largest.is_infinite() {
                    break;
                }
            }
            largest
        }
        (Array::Int(expected), Array::Int(found)) if expected == found => 0.0,
        _ => f64::INFINITY,
    }
}

/// The largest magnitude of floating-point values, 0 for integers: an end of a Slice is no
/// yardstick.
pub fn largest_float(array: &Array) -> f64 {
    match array {
        Array::Float(_) => largest_magnitude(array),
        Array::Int(_) => 0.0,
    }
}

fn largest_magnitude(array: &Array) -> f64 {
    match array {
        Array::Float(values) => values.iter().fold(0.0, |most, value| most.max(value.abs())),
        Array::Int(values) => {
            values.iter().fold(0.0, |most, value| most.max((*value as f64).abs()))
        }
    }
}
