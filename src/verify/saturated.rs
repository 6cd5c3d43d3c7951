//! How far the results of a saturating operator may be apart: as far as its operands may be,
//! times its slope, and as far as its own rounding takes them.
//!
//! A Sigmoid of −14 is 8e-7, and rounded like a number of its range, by 6e-8: relative to the
//! largest value that is 7e-2, though the operands agree within 1e-6.
//!
//! Knows numbers; [`nature`](crate::verify::nature) knows the operators.

use crate::engine::Array;
use crate::onnx::float::Float;
use crate::verify::compare::{ComparedTensor, width, worse};
use crate::verify::nature::Saturation;

/// What the rounding of a function may lose, in units of [`Float::unit`] (half of the last
/// place) of its range: engines approximate by polynomials, which are off by that much.
const ROUNDINGS_OF_A_FUNCTION: f64 = 8.0;

/// Judges `result`, the comparison of what a node made of an operand that is compared itself: an
/// element may differ by its slope times what the operand may, and by rounding. The comparison
/// counts as varying only if there is an element that the operand, as far as it varies, moves by
/// more than may differ.
pub fn saturated(
    saturation: Saturation,
    mut result: ComparedTensor,
    operand: &Array,
    results: &[Array; 2],
    float: Option<Float>,
) -> ComparedTensor {
    let ([Array::Float(before), Array::Float(after)], Array::Float(operand_values)) =
        (results, operand)
    else {
        return result;
    };
    let is_same_shape = before.shape() == after.shape() && before.shape() == operand_values.shape();
    let Some(float) = float.filter(|_| is_same_shape && result.tolerance > 0.0) else {
        return result;
    };
    let slope = |y: f64| saturation.steepness * (saturation.slope)(y);
    let finite = |value: f64| if value.is_finite() { value.abs() } else { 0.0 };
    // An operand that moves nothing, like a mask of −1e9, is no yardstick.
    let moving = operand_values.iter().zip(before).filter(|&(_, &y)| slope(y) > 0.0);
    let largest_operand = moving.fold(0.0f64, |most, (&x, _)| most.max(finite(x)));
    let largest = before.iter().fold(0.0f64, |most, &y| most.max(finite(y)));
    let rounding = ROUNDINGS_OF_A_FUNCTION * float.unit() * saturation.range;
    let allowed = |y: f64| result.tolerance * (largest + slope(y) * largest_operand) + rounding;
    let worst = before.iter().zip(after).fold(0.0f64, |worst, (&a, &b)| {
        let is_same = a == b || (a.is_nan() && b.is_nan());
        worse(worst, if is_same { 0.0 } else { (a - b).abs() / allowed(a) })
    });
    let steepest = before.iter().fold(0.0f64, |most, &y| most.max(slope(y)));
    let is_still = steepest * width(operand) <= result.tolerance * saturation.range;
    result.error = result.tolerance * worst;
    if is_still { result.still() } else { result }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use super::*;
    use crate::verify::compare::{Tolerances, compared};

    const SIGMOID: Saturation = Saturation { slope: |y| y * (1.0 - y), steepness: 1.0, range: 1.0 };

    /// Operands, old results and new ones: whether the latter agree, and whether they vary.
    #[test]
    fn results_differ_by_slope_and_rounding() {
        let array = |values: [f64; 2]| {
            Array::Float(ArrayD::from_shape_vec(vec![2], values.to_vec()).unwrap())
        };
        for (case, operand, before, after, agrees, varies) in [
            ("rounding of the range", [-14.0, -17.0], [8.3e-7, 4.1e-8], [9.5e-7, 0.0], true, false),
            ("more than rounding", [-14.0, -17.0], [8.3e-7, 4.1e-8], [8.3e-6, 0.0], false, false),
            ("by the slope", [0.0, 9.0], [0.5, 0.9999], [0.5003, 0.9999], true, true),
            ("more than the slope", [0.0, 2.0], [0.5, 0.88], [0.5003, 0.88], false, true),
            // What lies far out moves nothing.
            ("behind a mask", [0.0, -1e9], [0.5, 0.0], [0.5003, 0.0], false, true),
            ("at the end", [100.0, 101.0], [1.0, 1.0], [1.0, 1.0], true, false),
            ("not a number", [0.0, 1.0], [0.5, 0.73], [0.5, f64::NAN], false, true),
        ] {
            let results = [array(before), array(after)];
            let [old, new] = &results;
            let float = Some(Float::F32);
            let ordinary = compared("y", old, new, Tolerances { given: None }, float);
            let seen = saturated(SIGMOID, ordinary, &array(operand), &results, float);
            assert_eq!((seen.agrees(), seen.varies()), (agrees, varies), "{case}: {seen:?}");
        }
    }
}
