//! Operators that pick elements along one axis: kernels with a single 1 in each row.
//!
//! Knows indices and the size of the axis; not what is done with the result.

use std::sync::Arc;

use crate::affine::AxisOrder;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::reader::{Reader, first_input, not_linear};
use crate::ops::stop::Stop;
use crate::refusal::NotLinear;

/// Reads Gather (opset 1 to 13) by a constant list: blue, green and red for red, green and blue.
///
/// # Errors
/// Returns an error if it has no such list, picks images, or picks along an axis whose size is
/// not known.
pub fn gather(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let indices = node.input(1).ok_or_else(|| not_linear(node))?;
    // Indexed by a single number, it makes a tensor without the axis.
    if reader.constants.dims(indices)?.is_none_or(|dims| dims.len() != 1) {
        return Err(not_linear(node).into());
    }
    let axes = reader.axes_from_front(input, &[node.int("axis", 0)], valid)?;
    let [axis] = axes.as_slice() else { return Err(not_linear(node).into()) };
    let size = size(reader, input, *axis, valid)?;
    let of_front = |&index: &i64| {
        let index = if index < 0 { index.saturating_add(size as i64) } else { index };
        usize::try_from(index).ok().filter(|&index| index < size)
    };
    let picks: Option<Vec<usize>> =
        reader.known_integers(indices, valid)?.iter().map(of_front).collect();
    let picks =
        picks.ok_or(NotLinear::Malformed("it picks elements that its input does not have"))?;
    meaning(node, input, *axis, (picks, size))
}

/// Returns the meaning of a node that reverses the elements along one axis.
///
/// # Errors
/// Returns an error if the axis is the batch axis, or its size is not known.
pub fn reversed(
    reader: &Reader,
    node: &Node,
    (input, axis): (ValueId, usize),
    valid: &mut Validity,
) -> Result<Meaning, Stop> {
    let size = size(reader, input, axis, valid)?;
    meaning(node, input, axis, ((0..size).rev().collect(), size))
}

/// Returns the meaning of a node that picks the elements `picks` of the `of` elements along
/// `axis`.
fn meaning(
    node: &Node,
    input: ValueId,
    axis: usize,
    (picks, of): (Vec<usize>, usize),
) -> Result<Meaning, Stop> {
    if axis == 0 || picks.is_empty() {
        return Err(not_linear(node).into());
    }
    if picks.iter().copied().eq(0..of) {
        return Ok(Meaning::Alias(input));
    }
    let (picks, order) = (Arc::from(picks), AxisOrder::with_channels_at(axis));
    Ok(Meaning::Linear(input, LinearOp::Picked { picks, of, order }))
}

/// Returns the size of the axis, on which the reading depends.
fn size(reader: &Reader, input: ValueId, axis: usize, valid: &mut Validity) -> Result<usize, Stop> {
    let size = reader.sizes.size(input, axis)?;
    valid.require(input, Property::Size(axis, SizeSet::Exactly(size)));
    Ok(usize::try_from(size).unwrap_or(0))
}
