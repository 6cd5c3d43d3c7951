//! What evaluating one constant node takes, estimated before any of it is spent, from the
//! dimensions and sizes that the node reads.
//!
//! A rule returns `None` where that cannot be told: how far a node grows is said by inputs of
//! which some are missing.
//!
//! Knows one node and its inputs; how much it may take is for the budget to say.

use std::collections::HashMap;

use crate::facts::budget::{Estimate, product};
use crate::onnx::data::TensorError;
use crate::onnx::equation::Equation;
use crate::onnx::node::{Node, from_front};
use crate::onnx::proto::TensorProto;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;
use crate::onnx::windows::{WindowAttributes, WindowAxis};

/// A rule that estimates what evaluating a node on these inputs takes.
pub type EstimateRule =
    fn(&Node, &[TensorProto], &Storage) -> Result<Option<Estimate>, TensorError>;

/// Returns the estimate of a node by its rule. The node is handed all its inputs, whatever it
/// makes of them.
///
/// # Errors
/// Returns an error if an input is malformed.
pub fn estimate(
    rule: EstimateRule,
    node: &Node,
    inputs: &[TensorProto],
    storage: &Storage,
) -> Result<Option<Estimate>, TensorError> {
    let read = inputs.iter().fold(0i64, |all, input| all.saturating_add(elements(input)));
    Ok(rule(node, inputs, storage)?.map(|own| own.at_least(read)))
}

/// Estimates one result per element of the inputs, broadcast.
pub fn of_elements(
    _: &Node,
    inputs: &[TensorProto],
    _: &Storage,
) -> Result<Option<Estimate>, TensorError> {
    Ok(Some(Estimate::of_dims(&broadcast(inputs))))
}

/// Estimates a tensor of the shape that is the only input.
pub fn of_shape(
    _: &Node,
    inputs: &[TensorProto],
    storage: &Storage,
) -> Result<Option<Estimate>, TensorError> {
    let [shape] = inputs else { return Ok(None) };
    Ok(Some(Estimate::of_sizes(&tensor::integers(shape, storage)?)))
}

/// Estimates a tensor that is along each axis as large as the second input says, or as it was.
pub fn expanded(
    _: &Node,
    inputs: &[TensorProto],
    storage: &Storage,
) -> Result<Option<Estimate>, TensorError> {
    let [data, shape] = inputs else { return Ok(None) };
    let sizes = tensor::integers(shape, storage)?;
    if sizes.iter().any(|&size| size < 0) {
        return Ok(Some(Estimate::of_sizes(&sizes)));
    }
    let asked = TensorProto { dims: sizes, ..TensorProto::default() };
    let own = TensorProto { dims: data.dims.clone(), ..TensorProto::default() };
    Ok(Some(Estimate::of_dims(&broadcast(&[own, asked]))))
}

/// Estimates a tensor repeated as many times as the second input says.
pub fn repeated(
    _: &Node,
    inputs: &[TensorProto],
    storage: &Storage,
) -> Result<Option<Estimate>, TensorError> {
    let [data, times] = inputs else { return Ok(None) };
    Ok(Some(Estimate::of_sizes(&tensor::integers(times, storage)?).times(elements(data))))
}

/// Estimates a list of `(limit − start)/delta` numbers.
pub fn range(
    _: &Node,
    inputs: &[TensorProto],
    storage: &Storage,
) -> Result<Option<Estimate>, TensorError> {
    let [start, limit, delta] = inputs else { return Ok(None) };
    let number = |bound| match tensor::integers(bound, storage).ok()?.as_slice() {
        &[number] => Some(number),
        _ => None,
    };
    let steps = || {
        let (start, limit, delta) = (number(start)?, number(limit)?, number(delta)?);
        limit.saturating_sub(start).saturating_abs().checked_div(delta.saturating_abs())
    };
    Ok(steps().map(|steps| Estimate::of_dims(&[steps])))
}

/// Estimates, for each index, what lies at one place of the axis.
pub fn gathered(
    node: &Node,
    inputs: &[TensorProto],
    _: &Storage,
) -> Result<Option<Estimate>, TensorError> {
    let [data, indices] = inputs else { return Ok(None) };
    let (axis, rank) = (node.int("axis", 0), data.dims.len() as i64);
    let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
    let others = data.dims.iter().zip(0..).filter(|&(_, at)| at != axis);
    let others: Vec<i64> = others.map(|(&size, _)| size).collect();
    Ok(Some(Estimate::of_dims(&others).times(elements(indices))))
}

/// Estimates a tensor and what is put around it.
pub fn padded(
    node: &Node,
    inputs: &[TensorProto],
    storage: &Storage,
) -> Result<Option<Estimate>, TensorError> {
    let list = |at: usize| inputs.get(at).map(|list| tensor::integers(list, storage)).transpose();
    let Some(data) = inputs.first() else { return Ok(None) };
    let pads = match node.ints("pads") {
        Some(pads) => Some(pads.to_vec()),
        None => list(1)?,
    };
    // An operand that is left out has no place among these inputs.
    let axes = if node.input(3).is_some() { inputs.last() } else { None };
    let axes = axes.map(|axes| tensor::integers(axes, storage)).transpose()?;
    let rank = data.dims.len();
    let axes: Option<Vec<usize>> = match axes {
        Some(axes) => axes.iter().map(|&axis| from_front(axis, rank)).collect(),
        None => Some((0..rank).collect()),
    };
    Ok(pads.zip(axes).and_then(|(pads, axes)| with_pads(data, &pads, &axes)))
}

/// Estimates one multiply-add per output and tap.
pub fn convolved(
    node: &Node,
    inputs: &[TensorProto],
    _: &Storage,
) -> Result<Option<Estimate>, TensorError> {
    let [data, kernel, ..] = inputs else { return Ok(None) };
    let (&[batch, _, ref spatial @ ..], &[outputs, ref rest @ ..]) =
        (data.dims.as_slice(), kernel.dims.as_slice())
    else {
        return Ok(None);
    };
    let taps: Vec<Option<i64>> = rest.iter().skip(1).copied().map(Some).collect();
    let Ok(windows) = WindowAttributes::of(&node.proto, Some(&taps)) else { return Ok(None) };
    if spatial.len() != windows.axes.len() {
        return Ok(None);
    }
    // With SAME padding, an output is no larger than its input.
    let padded = |(size, axis): (&i64, &WindowAxis)| {
        size.saturating_add(axis.pads.0).saturating_add(axis.pads.1)
    };
    let spatial = spatial.iter().zip(&windows.axes).map(padded);
    let elements = product([batch, outputs].into_iter().chain(spatial));
    let work = elements.saturating_mul(product(rest.iter().copied()));
    Ok(Some(Estimate { elements, work }))
}

/// Estimates a product of two matrices, or of stacks of them.
pub fn multiplied(
    _: &Node,
    inputs: &[TensorProto],
    _: &Storage,
) -> Result<Option<Estimate>, TensorError> {
    let [left, right, ..] = inputs else { return Ok(None) };
    let without_matrix = |stack: &TensorProto| {
        let dims = stack.dims.get(..stack.dims.len().saturating_sub(2)).unwrap_or_default();
        TensorProto { dims: dims.to_vec(), ..TensorProto::default() }
    };
    let largest =
        |tensor: &TensorProto| tensor.dims.iter().rev().take(2).copied().fold(1, i64::max);
    let stack = broadcast(&[without_matrix(left), without_matrix(right)]);
    let sizes = stack.into_iter().chain([largest(left), largest(right)]);
    let elements = product(sizes);
    // Each sum runs along one axis of the left factor, so it has no more terms than the longest
    // axis.
    let inner = left.dims.iter().copied().fold(1, i64::max);
    Ok(Some(Estimate { elements, work: elements.saturating_mul(inner) }))
}

/// Estimates a sum over all letters of the equation; `None` if the equation has more than
/// letters.
pub fn summed(
    node: &Node,
    inputs: &[TensorProto],
    _: &Storage,
) -> Result<Option<Estimate>, TensorError> {
    Ok(by_letters(node, inputs))
}

fn by_letters(node: &Node, inputs: &[TensorProto]) -> Option<Estimate> {
    let equation = Equation::of(node.attribute("equation")?.s())?;
    let mut sizes: HashMap<char, i64> = HashMap::new();
    for (labels, input) in equation.operands.iter().zip(inputs) {
        if labels.len() != input.dims.len() {
            return None;
        }
        for (&label, &size) in labels.iter().zip(&input.dims) {
            // A size of 1 is broadcast to the others of its letter.
            let largest = sizes.entry(label).or_insert(size);
            *largest = size.max(*largest);
        }
    }
    let result = equation.result.iter().map(|label| sizes.get(label).copied());
    let elements = product(result.collect::<Option<Vec<_>>>()?.into_iter());
    Some(Estimate { elements, work: product(sizes.into_values()) })
}

fn elements(tensor: &TensorProto) -> i64 {
    product(tensor.dims.iter().copied())
}

/// Returns the estimate of `data` with pads along these `axes`, and nothing cropped: for an axis
/// that is named twice, the engine may take either pad. `None` if the lists do not fit.
fn with_pads(data: &TensorProto, pads: &[i64], axes: &[usize]) -> Option<Estimate> {
    let (begins, ends) = pads.split_at_checked(axes.len())?;
    if ends.len() != axes.len() {
        return None;
    }
    let mut dims = data.dims.clone();
    for (&axis, (&begin, &end)) in axes.iter().zip(begins.iter().zip(ends)) {
        let size = dims.get_mut(axis)?;
        *size = size.saturating_add(begin.max(0)).saturating_add(end.max(0));
    }
    Some(Estimate::of_dims(&dims))
}

/// Returns the dimensions to which these operands are broadcast.
fn broadcast(operands: &[TensorProto]) -> Vec<i64> {
    let rank = operands.iter().map(|operand| operand.dims.len()).max().unwrap_or(0);
    let from_end = |operand: &TensorProto, axis: usize| {
        operand.dims.iter().rev().nth(axis).copied().unwrap_or(1)
    };
    let size = |axis| operands.iter().map(|operand| from_end(operand, axis)).max().unwrap_or(1);
    (0..rank).map(size).collect()
}
