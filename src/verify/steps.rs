//! Decides whether the results of a step may differ: an element only where the operand, on the
//! old side, lies within its own tolerance of a value at which the step jumps; an index only
//! where the values behind both indices are equal within tolerance.
//!
//! Knows single nodes and their tensors. Of steps that are not named here, differences are taken
//! to follow from operands that agree, because both models have the same node.

use ndarray::{ArrayD, Axis, IxDyn};

use crate::engine::Array;
use crate::onnx::node::{Node, from_front};
use crate::verify::compare::largest_magnitude;

/// An old operand, and how far the new one may be from it, relative to its largest magnitude.
pub type StepOperand = (Array, f64);

/// Returns whether the results of `node`, old and new each, differ only as they may.
pub fn is_explained(node: &Node, operands: &[StepOperand], results: &[[Array; 2]]) -> bool {
    let explained = match node.standard_op() {
        Some("ArgMax" | "ArgMin") => {
            let axis = node.int("axis", 0);
            is_equal_behind(operands, results.first(), axis, node.int("keepdims", 1) == 1)
        }
        Some("TopK") => is_equal_behind(operands, results.get(1), node.int("axis", -1), true),
        Some(op) => results.first().and_then(|[before, after]| {
            let distance = distance(op, node, operands)?;
            let flips = flips(before, after)?;
            let distance = distance.broadcast(flips.raw_dim())?.to_owned();
            Some(flips.iter().zip(&distance).all(|(&flips, &distance)| !flips || distance <= 1.0))
        }),
        None => None,
    };
    explained.unwrap_or(true)
}

/// Returns per element how far the operand is from the nearest jump, in units of what is
/// allowed; `None` for a step whose jumps are elsewhere.
fn distance(op: &str, node: &Node, operands: &[StepOperand]) -> Option<ArrayD<f64>> {
    let (first, allowed) = floats(operands.first()?)?;
    let nearest = |to: &dyn Fn(f64) -> f64| Some(first.mapv(|x| (x - to(x)).abs() / allowed));
    match op {
        "Round" => nearest(&|x| (x - 0.5).round_ties_even() + 0.5),
        "Floor" | "Ceil" => nearest(&f64::round),
        "Sign" => nearest(&|_| 0.0),
        "Cast" if node.int("to", 0) == i64::from(BOOL) => nearest(&|_| 0.0),
        // A cast to integers rounds toward zero: there is no jump at 0.
        "Cast" => nearest(&|x| if x.abs() < 1.0 { x.signum() } else { x.round() }),
        "ThresholdedRelu" => {
            let threshold = node.attribute("alpha").and_then(|alpha| alpha.f).unwrap_or(1.0);
            nearest(&|_| f64::from(threshold))
        }
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" => {
            let (second, also_allowed) = floats(operands.get(1)?)?;
            let shape = broadcast(first.shape(), second.shape())?;
            let (first, second) = (first.broadcast(shape.clone())?, second.broadcast(shape)?);
            let allowed = allowed + also_allowed;
            let mut distance = first.to_owned();
            distance.zip_mut_with(&second, |a, b| *a = (*a - b).abs() / allowed);
            Some(distance)
        }
        _ => None,
    }
}

/// `TensorProto.DataType` of booleans.
const BOOL: i32 = crate::onnx::proto::tensor_proto::DataType::Bool as i32;

/// Returns where results differ; `None` if their shapes do, or only one side is of integers.
fn flips(before: &Array, after: &Array) -> Option<ArrayD<bool>> {
    if before.shape() != after.shape() {
        return None;
    }
    let differ = match (before, after) {
        (Array::Float(before), Array::Float(after)) => {
            before.iter().zip(after).map(|(a, b)| a != b).collect::<Vec<bool>>()
        }
        (Array::Int(before), Array::Int(after)) => {
            before.iter().zip(after).map(|(a, b)| a != b).collect()
        }
        _ => return None,
    };
    ArrayD::from_shape_vec(IxDyn(before.shape()), differ).ok()
}

/// Returns whether, wherever indices along `axis` differ, the old operand has equal values at
/// both, within tolerance; `None` if the tensors do not fit together.
fn is_equal_behind(
    operands: &[StepOperand],
    indices: Option<&[Array; 2]>,
    axis: i64,
    keeps_axis: bool,
) -> Option<bool> {
    let (values, allowed) = floats(operands.first()?)?;
    let [Array::Int(before), Array::Int(after)] = indices? else { return None };
    let axis = from_front(axis, values.ndim())?;
    // Where a bridge leads over the node, the file says how many axes its indices have.
    let rank = before.ndim().saturating_add(usize::from(!keeps_axis));
    if before.shape() != after.shape() || rank != values.ndim() {
        return None;
    }
    let with_axis = |indices: &ArrayD<i64>| {
        if keeps_axis { indices.clone() } else { indices.clone().insert_axis(Axis(axis)) }
    };
    let (before, after) = (with_axis(before), with_axis(after));
    let behind = |place: &[usize], index: i64| {
        let mut place = place.to_vec();
        *place.get_mut(axis)? = usize::try_from(index).ok()?;
        values.get(IxDyn(&place)).copied()
    };
    let mut pairs = before.indexed_iter().zip(&after);
    Some(pairs.all(|((place, &old), &new)| {
        let place = ndarray::Dimension::slice(&place);
        let (old_value, new_value) = (behind(place, old), behind(place, new));
        old == new || old_value.zip(new_value).is_some_and(|(a, b)| (a - b).abs() <= 2.0 * allowed)
    }))
}

/// Returns floating-point values, and how far they may be off; `None` for integers.
fn floats((array, tolerance): &StepOperand) -> Option<(&ArrayD<f64>, f64)> {
    match array {
        Array::Float(values) => {
            Some((values, (tolerance * largest_magnitude(array)).max(f64::MIN_POSITIVE)))
        }
        Array::Int(_) => None,
    }
}

/// Returns the common shape of two tensors, as ONNX broadcasts them; `None` if there is none.
fn broadcast(first: &[usize], second: &[usize]) -> Option<Vec<usize>> {
    let rank = first.len().max(second.len());
    let size = |shape: &[usize], place: usize| {
        let missing = rank.saturating_sub(shape.len());
        place.checked_sub(missing).and_then(|axis| shape.get(axis)).copied().unwrap_or(1)
    };
    (0..rank)
        .map(|place| match (size(first, place), size(second, place)) {
            (a, b) if a == b => Some(a),
            (1, b) => Some(b),
            (a, 1) => Some(a),
            _ => None,
        })
        .collect()
}
