//! Measures how far two tensors are apart, relative to the largest magnitude on one side.
//!
//! Knows numbers, and what their types allow.

use crate::engine::Array;
use crate::numbers::larger;
use crate::onnx::float::Float;

/// What the rounding of a sum may lose, in units of [`Float::unit`] (half of the last place) of
/// the largest value on the way: sums of thousands of products are rounded at each step. 4,608
/// products (512 channels of 3×3) lose about 70 units where rounding is random, and each of
/// several branches loses its own.
const ROUNDINGS_OF_A_SUM: f64 = 256.0;

/// The yardstick for the rounding of a tensor: what is on the way to it.
#[derive(Debug, Clone, Copy)]
pub struct Yardstick {
    /// The largest value, in the unit of the tensor.
    pub largest: f64,
    /// Whether anything on the way varies.
    pub varies: bool,
}

/// The allowed differences.
#[derive(Debug, Clone, Copy)]
pub struct Tolerances {
    /// The tolerance that the caller gave, for every type.
    pub given: Option<f64>,
}

impl Tolerances {
    /// Returns the allowed difference of a tensor of type `float`, relative to its largest
    /// magnitude; `None` stands for integers, which may not differ.
    pub fn of(self, float: Option<Float>) -> f64 {
        let by_type = match float {
            Some(Float::F64) => 1e-9,
            Some(Float::F32) => 1e-4,
            Some(Float::F16 | Float::Bf16) => 2e-2,
            None => 0.0,
        };
        self.given.unwrap_or(by_type)
    }
}

/// The comparison of one tensor of both models.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedTensor {
    /// The name of the tensor in the old model.
    pub name: String,
    /// The largest difference, relative to the largest magnitude.
    pub error: f64,
    /// The allowed relative difference.
    pub tolerance: f64,
    /// The least and the largest old value; `None` if the tensor has no elements.
    range: Option<(f64, f64)>,
}

impl ComparedTensor {
    /// Returns the comparison of a tensor that differs beyond measure.
    pub fn failed(name: &str) -> Self {
        ComparedTensor { name: name.to_owned(), error: f64::INFINITY, tolerance: 0.0, range: None }
    }

    /// Returns whether the old values vary, so that agreement says something.
    pub fn varies(&self) -> bool {
        self.range.is_some_and(|(least, most)| least < most)
    }

    /// Returns whether the old tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.range.is_none()
    }

    /// Returns whether the difference is allowed.
    pub fn agrees(&self) -> bool {
        self.error <= self.tolerance
    }

    /// Lets this comparison count as `met`: that of a tensor with the same values, compared
    /// before both runs went on from the old side.
    pub fn stand_for(&mut self, met: &ComparedTensor) {
        self.error = self.error.max(met.error);
        self.range = met.range;
    }

    /// Returns this comparison for values that do not move with their operands: they vary nowhere.
    #[must_use]
    pub fn still(self) -> Self {
        ComparedTensor { range: self.range.map(|_| (0.0, 0.0)), ..self }
    }

    /// Merges `other` into this, as if both were one comparison of more elements.
    pub fn add(&mut self, other: ComparedTensor) {
        self.error = larger(self.error, other.error);
        self.tolerance = self.tolerance.min(other.tolerance);
        self.range = match (self.range, other.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (own, its) => own.or(its),
        };
    }

    /// Returns this comparison with the part of the difference taken off that the rounding of
    /// values as large as those on the way to the tensor explains. It counts as varying if these
    /// vary: `s − s` is 0 for whatever `s` there is.
    #[must_use]
    pub fn with_rounding_of(
        mut self,
        way: Yardstick,
        old: &Array,
        new: &Array,
        float: Option<Float>,
    ) -> Self {
        let largest = way.largest;
        if way.varies && largest > 0.0 {
            self.range = Some((-largest, largest));
        }
        let Some(float) = float.filter(|_| self.tolerance > 0.0) else { return self };
        let lost = (ROUNDINGS_OF_A_SUM * float.unit()).min(self.tolerance) * largest;
        let allowed = self.tolerance * magnitude(old, Some(float)) + lost;
        let error = self.tolerance * relative(largest_difference(old, new), allowed);
        ComparedTensor { error, ..self }
    }
}

/// Compares a tensor of both models, which has the type `float`; `None` stands for integers.
pub fn compared(
    name: &str,
    old: &Array,
    new: &Array,
    tolerances: Tolerances,
    float: Option<Float>,
) -> ComparedTensor {
    let error = relative(largest_difference(old, new), magnitude(old, float));
    let tolerance = tolerances.of(float);
    ComparedTensor { name: name.to_owned(), error, tolerance, range: range(old) }
}

/// Returns the magnitude to which a difference is relative. Below the type's smallest normal
/// value, rounding is no longer relative to the value. In float32 and float64, processors flush
/// smaller values to zero if they are told to: in sums as small as the smallest normal value
/// divided by the type's last place, they may drop products that would count.
fn magnitude(old: &Array, float: Option<Float>) -> f64 {
    let least = match float {
        Some(float @ (Float::F32 | Float::F64)) => float.smallest_normal() / float.unit(),
        Some(float @ (Float::F16 | Float::Bf16)) => float.smallest_normal(),
        None => 0.0,
    };
    largest_magnitude(old).max(least)
}

/// Returns the largest difference of two arrays, relative to the largest magnitude in
/// `expected`; infinite if shapes differ or one side alone is not finite.
///
/// Never relative element by element: near zeros, float32 rounding alone gives 8e-4.
#[cfg(feature = "unstable")]
pub fn relative_error(expected: &Array, found: &Array) -> f64 {
    relative(largest_difference(expected, found), largest_magnitude(expected))
}

/// Returns `difference / magnitude`, or 0 if there is no difference, whatever the magnitude.
pub fn relative(difference: f64, magnitude: f64) -> f64 {
    if difference == 0.0 { 0.0 } else { difference / magnitude }
}

/// Returns the larger of two differences; if the second one is NaN, it counts as infinite.
pub fn worse(most: f64, difference: f64) -> f64 {
    if difference.is_nan() { f64::INFINITY } else { most.max(difference) }
}

/// Returns the largest absolute difference of two elements at one place; infinite if shapes
/// differ, if one side alone is NaN or infinite, or if integers differ.
pub fn largest_difference(expected: &Array, found: &Array) -> f64 {
    match (expected, found) {
        (Array::Float(expected), Array::Float(found)) if expected.shape() == found.shape() => {
            let mut largest = 0.0f64;
            for (a, b) in expected.iter().zip(found) {
                let is_same = a == b || (a.is_nan() && b.is_nan());
                let difference = if is_same { 0.0 } else { (a - b).abs() };
                largest = worse(largest, difference);
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

/// Returns the number of elements that differ by more than `tolerance` of the largest magnitude,
/// and the number of all elements; all differ if the shapes do.
pub fn differing(expected: &Array, found: &Array, tolerance: f64) -> (u64, u64) {
    let elements = |array: &Array| array.shape().iter().product::<usize>() as u64;
    let all = elements(expected).max(elements(found));
    let differ = match (expected, found) {
        (Array::Float(before), Array::Float(after)) if before.shape() == after.shape() => {
            let allowed = tolerance * largest_magnitude(expected);
            let pairs = before.iter().zip(after);
            let is_near = |a: f64, b: f64| a == b || (a - b).abs() <= allowed;
            pairs.filter(|&(&a, &b)| !is_near(a, b)).count() as u64
        }
        (Array::Int(before), Array::Int(after)) if before.shape() == after.shape() => {
            before.iter().zip(after).filter(|(a, b)| a != b).count() as u64
        }
        _ => all,
    };
    (differ, all)
}

/// Returns the distance between the least and the largest of the values, which must be finite.
pub fn width(array: &Array) -> f64 {
    range(array).map_or(0.0, |(least, most)| most - least)
}

/// Returns whether any two elements differ.
pub fn varies(array: &Array) -> bool {
    range(array).is_some_and(|(least, most)| least < most)
}

/// Returns whether no element is NaN or infinite.
pub fn is_finite(array: &Array) -> bool {
    match array {
        Array::Float(values) => values.iter().all(|value| value.is_finite()),
        Array::Int(_) => true,
    }
}

/// Returns the largest magnitude of floating-point values, or 0 for integers: the end of a Slice
/// is no yardstick.
pub fn largest_float(array: &Array) -> f64 {
    match array {
        Array::Float(_) => largest_magnitude(array),
        Array::Int(_) => 0.0,
    }
}

/// Returns the largest magnitude of the finite elements: a mask of −∞ is no yardstick.
pub fn largest_magnitude(array: &Array) -> f64 {
    match array {
        Array::Float(values) => {
            let finite = values.iter().map(|value| value.abs()).filter(|value| value.is_finite());
            finite.fold(0.0, f64::max)
        }
        Array::Int(values) => {
            values.iter().fold(0.0, |most, value| most.max((*value as f64).abs()))
        }
    }
}

fn range(array: &Array) -> Option<(f64, f64)> {
    let of = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(None, |range: Option<(f64, f64)>, value| match range {
            Some((least, most)) => Some((least.min(value), most.max(value))),
            None => Some((value, value)),
        })
    };
    match array {
        Array::Float(values) => of(&mut values.iter().copied()),
        Array::Int(values) => of(&mut values.iter().map(|&value| value as f64)),
    }
}
