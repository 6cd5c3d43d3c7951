//! Operators that keep elements as they are, under another name or with their axes in another
//! order.
//!
//! Knows orders of axes; neither sizes nor weights.

use crate::affine::AxisOrder;
use crate::facts::validity::Validity;
use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::reader::{Reader, first_input, not_linear};
use crate::ops::stop::Stop;
use crate::ops::training::eval_form;
use crate::refusal::NotLinear;

/// Reads Identity (opset 1 to 25).
///
/// # Errors
/// Returns an error if its input is missing.
pub fn identity(_: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    Ok(Meaning::Alias(first_input(node)?))
}

/// Reads Dropout (opset 1 to 22) that drops nothing.
///
/// # Errors
/// Returns an error if it stays in training mode, or its mask is used.
pub fn dropout(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    if reader.graph.yields_more(node) {
        return Err(NotLinear::Unrepresentable("its mask is used").into());
    }
    eval_form(reader, node)?;
    Ok(Meaning::Alias(first_input(node)?))
}

/// Reads Cast (opset 1 to 25) to the type of its input.
///
/// # Errors
/// Returns an error if it casts to another type.
pub fn cast(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    let to = node.int("to", 0);
    let from = node.input(0).and_then(|input| reader.constants.element_type(input));
    if from.is_none_or(|from| i64::from(from) != to) {
        return Err(not_linear(node).into());
    }
    Ok(Meaning::Alias(first_input(node)?))
}

/// Reads CastLike (opset 15 to 25) to the type of its input.
///
/// # Errors
/// Returns an error if it casts to another type.
pub fn cast_like(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    let [from, to] = [0, 1].map(|input| reader.constants.element_type(node.input(input)?));
    if from.is_none() || from != to {
        return Err(not_linear(node).into());
    }
    Ok(Meaning::Alias(first_input(node)?))
}

/// Reads Expand (opset 8 to 13) to the sizes of its input.
///
/// # Errors
/// Returns an error if the sizes may differ.
pub fn expand(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    let (input, output) = (first_input(node)?, node.output().ok_or_else(|| not_linear(node))?);
    if !reader.sizes.are_same(input, output) {
        return Err(not_linear(node).into());
    }
    Ok(Meaning::Alias(input))
}

/// Reads Transpose (opset 1 to 25).
///
/// # Errors
/// Returns an error if `perm` is no permutation, or depends on a rank that is not known.
pub fn transpose(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let rank = match node.ints("perm") {
        Some(perm) => perm.len(),
        None => reader.rank(input, valid)?,
    };
    let axes = transposition(node, rank);
    let axes = axes.ok_or(NotLinear::Malformed("its perm is no permutation"))?;
    Ok(turned(input, axes))
}

/// Returns `input` with its axes in the order `axes`, or as another name of it if that is their
/// order already.
pub fn turned(input: ValueId, axes: AxisOrder) -> Meaning {
    if axes.is_canonical() {
        return Meaning::Alias(input);
    }
    Meaning::Linear(input, LinearOp::Transpose { axes })
}

/// Returns the `perm` of a Transpose of a tensor with `rank` axes; by default it reverses them.
fn transposition(node: &Node, rank: usize) -> Option<AxisOrder> {
    let reversed = || (0..rank as i64).rev().collect();
    AxisOrder::new(&node.ints("perm").map_or_else(reversed, <[i64]>::to_vec))
}
