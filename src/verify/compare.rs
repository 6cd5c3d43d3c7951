//! How far two tensors are apart, relative to the largest magnitude on one side.
//!
//! Knows numbers, and what their type allows.

use crate::engine::Array;
use crate::numbers::larger;
use crate::onnx::float::Float;

/// Sums of thousands of products are rounded at each step: of the largest value on the way, so
/// many times [`Float::unit`], half of the last place, may be lost. 4,608 products (512 channels of 3×3) lose
/// about 70 where rounding is random, several branches lose each their own.
const ROUNDINGS_OF_A_SUM: f64 = 256.0;

/// What the rounding of a tensor is measured by: what is on the way to it.
#[derive(Debug, Clone, Copy)]
pub struct Yardstick {
    /// The largest value, in the unit of the tensor.
    pub largest: f64,
    /// Whether any of it varies.
    pub varies: bool,
}

/// What may differ.
#[derive(Debug, Clone, Copy)]
pub struct Tolerances {
    /// What the caller allows, whatever the type.
    pub given: Option<f64>,
}

impl Tolerances {
    /// The allowed difference of a tensor of this type, relative to its largest magnitude;
    /// `None` are integers, of which none may differ.
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

/// What was seen of one tensor of both models.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedTensor {
    /// What the old model calls it.
    pub name: String,
    /// The largest difference, relative to the largest magnitude.
    pub error: f64,
    /// What is allowed.
    pub tolerance: f64,
    /// The least and the largest old value; `None` if it has no elements.
    range: Option<(f64, f64)>,
}

impl ComparedTensor {
    /// Of a tensor that differs beyond measure.
    pub fn failed(name: &str) -> Self {
        ComparedTensor { name: name.to_owned(), error: f64::INFINITY, tolerance: 0.0, range: None }
    }

    /// Whether the old values vary, so that agreement says something.
    pub fn varies(&self) -> bool {
        self.range.is_some_and(|(least, most)| least < most)
    }

    /// Whether the old tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.range.is_none()
    }

    /// Whether the difference is allowed.
    pub fn agrees(&self) -> bool {
        self.error <= self.tolerance
    }

    /// Counts as what has the same values and was compared before both runs went on from one
    /// side.
    pub fn stand_for(&mut self, met: &ComparedTensor) {
        self.error = self.error.max(met.error);
        self.range = met.range;
    }

    /// The same of values that do not move with what they are made of: they vary nowhere.
    #[must_use]
    pub fn still(self) -> Self {
        ComparedTensor { range: self.range.map(|_| (0.0, 0.0)), ..self }
    }

    /// As if both had been one comparison of more elements.
    pub fn add(&mut self, other: ComparedTensor) {
        self.error = larger(self.error, other.error);
        self.tolerance = self.tolerance.min(other.tolerance);
        self.range = match (self.range, other.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (own, its) => own.or(its),
        };
    }

    /// The same, where the rounding of values as large as those on the way to the tensor
    /// explains a part of the difference, and it counts as varying if these vary: `s − s` is 0
    /// for whatever `s` there is.
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

/// Compares a tensor of both models, which has this type; `None` are integers.
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

/// What a difference is relative to: below the type's smallest normal value, rounding is no
/// longer relative to the value. Processors take what is smaller for zero if they are told to,
/// in float32 and float64: of sums as small as that over the type's last place, they may drop
/// products that would count.
fn magnitude(old: &Array, float: Option<Float>) -> f64 {
    let least = match float {
        Some(float @ (Float::F32 | Float::F64)) => float.smallest_normal() / float.unit(),
        Some(float @ (Float::F16 | Float::Bf16)) => float.smallest_normal(),
        None => 0.0,
    };
    largest_magnitude(old).max(least)
}

/// The largest difference of two arrays, relative to the largest magnitude in
/// `expected`; infinite if shapes differ or one side alone is not finite.
///
/// Never element by element: near zeros f32 rounding alone gives 8e-4.
#[cfg(feature = "unstable")]
pub fn relative_error(expected: &Array, found: &Array) -> f64 {
    relative(largest_difference(expected, found), largest_magnitude(expected))
}

/// `difference / magnitude`, where no difference is none whatever the magnitude.
pub fn relative(difference: f64, magnitude: f64) -> f64 {
    if difference == 0.0 { 0.0 } else { difference / magnitude }
}

/// The larger of two, of which the second one may be no number: that counts as infinite.
pub fn worse(most: f64, difference: f64) -> f64 {
    if difference.is_nan() { f64::INFINITY } else { most.max(difference) }
}

/// The largest absolute difference of two elements at one place; infinite if shapes differ or
/// one side alone is NaN or infinite, or if integers differ.
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

/// How many elements differ by more than `tolerance` of the largest magnitude, and how many
/// there are; all if shapes differ.
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

/// The distance of the least and the largest of finite values.
pub fn width(array: &Array) -> f64 {
    range(array).map_or(0.0, |(least, most)| most - least)
}

/// Whether two elements differ.
pub fn varies(array: &Array) -> bool {
    range(array).is_some_and(|(least, most)| least < most)
}

/// Whether no element is NaN or infinite.
pub fn is_finite(array: &Array) -> bool {
    match array {
        Array::Float(values) => values.iter().all(|value| value.is_finite()),
        Array::Int(_) => true,
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

/// The largest magnitude of finite elements: a mask of −∞ is no yardstick.
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
