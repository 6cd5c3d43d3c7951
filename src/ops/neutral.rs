//! Operators that keep elements as they are because of their other operands: a slope of 1, an
//! exponent of 1, a bound that nothing reaches.
//!
//! Knows numbers, and whether the shape stays; no weights.

use crate::facts::validity::Validity;
use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;
use crate::ops::meaning::Meaning;
use crate::ops::reader::{Reader, not_linear};
use crate::ops::stop::Stop;

/// Reads LeakyRelu (opset 1 to 16) that is as steep below zero as above, like VanillaNet's at
/// the end of its training.
///
/// # Errors
/// Returns an error if its slope is not 1.
pub fn leaky_relu(_: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    let slope = node.attribute("alpha").map(|slope| slope.f());
    alias(node, 0, slope == Some(1.0))
}

/// Reads PRelu (opset 1 to 16) whose slopes are all 1.
///
/// # Errors
/// Returns an error if a slope is another number, or not known.
pub fn prelu(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    let is_straight = is_everywhere(reader, node.input(1), |slope| slope == 1.0)?;
    alias(node, 0, is_straight)
}

/// Reads Pow (opset 7 to 15) to the power of 1.
///
/// # Errors
/// Returns an error if the exponent is another number, not known, or of a larger shape.
pub fn power(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    let is_one = is_everywhere(reader, node.input(1), |exponent| exponent == 1.0)?;
    alias(node, 0, is_one && keeps_shape(reader, node, 0))
}

/// Reads Clip (opset 1 to 13) without bounds, or with bounds beyond all float32 numbers, such as
/// the defaults before operator set 11.
///
/// # Errors
/// Returns an error if a bound is another number, or not known.
pub fn clip(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    let attribute = |name: &str, is_beyond: fn(f64) -> bool| {
        node.attribute(name).is_none_or(|bound| is_beyond(bound.f().into()))
    };
    let input = |index: usize, is_beyond: fn(f64) -> bool| match node.input(index) {
        Some(bound) => is_everywhere(reader, Some(bound), is_beyond),
        None => Ok(true),
    };
    let is_free = attribute("min", is_least) && attribute("max", is_most);
    alias(node, 0, is_free && input(1, is_least)? && input(2, is_most)?)
}

/// Reads Max (opset 8 to 13) of one tensor and of constants below all other numbers.
///
/// # Errors
/// Returns an error if it chooses between elements.
pub fn maximum(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    only_one(reader, node, is_least)
}

/// Reads Min (opset 8 to 13) of one tensor and of constants above all other numbers.
///
/// # Errors
/// Returns an error if it chooses between elements.
pub fn minimum(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    only_one(reader, node, is_most)
}

/// Reads Tile (opset 6 to 13) that repeats nothing.
///
/// # Errors
/// Returns an error if it repeats something, or how often is not known.
pub fn tile(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let times = node.input(1).ok_or_else(|| not_linear(node))?;
    let times = reader.known_integers(times, valid)?;
    alias(node, 0, times.iter().all(|&times| times == 1))
}

fn only_one(reader: &Reader, node: &Node, is_neutral: fn(f64) -> bool) -> Result<Meaning, Stop> {
    let is_other =
        |input: &usize| node.input(*input).is_some_and(|id| !reader.constants.contains(id));
    let others: Vec<usize> = (0..node.inputs.len()).filter(is_other).collect();
    let &[only] = others.as_slice() else { return Err(not_linear(node).into()) };
    let mut is_only = keeps_shape(reader, node, only);
    for input in (0..node.inputs.len()).filter(|&input| input != only) {
        is_only = is_only && is_everywhere(reader, node.input(input), is_neutral)?;
    }
    alias(node, only, is_only)
}

/// Returns the meaning of a node that is another name of this input, if it `is` one.
fn alias(node: &Node, input: usize, is: bool) -> Result<Meaning, Stop> {
    let input = node.input(input).ok_or_else(|| not_linear(node))?;
    if is { Ok(Meaning::Alias(input)) } else { Err(not_linear(node).into()) }
}

/// Whether `is` holds for all elements of a constant; `false` for tensors that are not constant.
fn is_everywhere(
    reader: &Reader,
    constant: Option<ValueId>,
    is: impl Fn(f64) -> bool,
) -> Result<bool, Stop> {
    let Some(constant) = constant.filter(|&id| reader.constants.contains(id)) else {
        return Ok(false);
    };
    Ok(reader.constants.floats(constant)?.is_some_and(|(values, _)| values.iter().all(|&v| is(v))))
}

fn is_least(bound: f64) -> bool {
    bound <= f64::from(f32::MIN)
}

fn is_most(bound: f64) -> bool {
    bound >= f64::from(f32::MAX)
}

/// Whether the output is as large as this input, which the other operands may broadcast.
fn keeps_shape(reader: &Reader, node: &Node, input: usize) -> bool {
    let beside = node.inputs.iter().enumerate().filter(|(at, _)| *at != input);
    let mut beside = beside.filter_map(|(_, id)| *id);
    let is_number = |id: ValueId| {
        let dims = reader.constants.dims(id).ok().flatten();
        dims.is_some_and(|dims| dims.iter().all(|&size| size == 1) && dims.len() < 2)
    };
    let are_same = || {
        let pair = node.input(input).zip(node.output());
        pair.is_some_and(|(input, output)| reader.sizes.are_same(input, output))
    };
    beside.all(is_number) || are_same()
}
