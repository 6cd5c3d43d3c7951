//! Operators that make a tensor larger or smaller between its elements: Resize, and its
//! predecessor Upsample.
//!
//! Each new element is a mean of old ones, with weights that add up to 1, along each axis
//! separately: a view, which keeps apart the axes whose sizes stay.
//!
//! Knows attributes, factors and sizes; not which elements are read.

use crate::affine::{View, ViewedAxis};
use crate::facts::shape_rules::resize_lists;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::float::Float;
use crate::onnx::ids::ValueId;
use crate::onnx::node::{Node, distinct_axes};
use crate::ops::meaning::{Meaning, ViewOperand};
use crate::ops::reader::{NO_SUCH_AXES, Reader, first_input, not_linear};
use crate::ops::stop::Stop;
use crate::ops::views;
use crate::refusal::NotLinear;

/// Coordinate transformations with which all weights add up to 1, at the border too, and a
/// factor of 1 changes nothing. *Counter-examples*: beyond the region of `tf_crop_and_resize`
/// stands a fixed number; `tf_half_pixel_for_nn` is half an element off.
const PLACES: [&[u8]; 4] = [b"half_pixel", b"pytorch_half_pixel", b"align_corners", b"asymmetric"];

/// The modes of choosing the nearest of two elements.
const ROUNDINGS: [&[u8]; 4] = [b"floor", b"ceil", b"round_prefer_floor", b"round_prefer_ceil"];

/// Reads Resize (opset 10 to 19) and Upsample (opset 7 to 9) by constant factors or to constant
/// sizes, in the modes nearest and linear.
///
/// # Errors
/// Returns an error if it resamples otherwise, if its factors or sizes are not stored, or if the
/// rank of its input is not known; for sizes, also if the sizes of its input are not known.
pub fn resize(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let is = |name: &str, known: &[&[u8]]| {
        node.attribute(name).is_none_or(|word| known.contains(&word.s()))
    };
    let is_linear = is("mode", &[b"nearest", b"linear"])
        && is("nearest_mode", &ROUNDINGS)
        && is("coordinate_transformation_mode", &PLACES)
        && is("keep_aspect_ratio_policy", &[b"stretch"])
        && node.int("antialias", 0) == 0;
    if !is_linear {
        return Err(not_linear(node).into());
    }
    let others = node.inputs.iter().skip(1);
    let told =
        others.map(|operand| operand.map(|operand| constant(reader, node, operand)).transpose());
    let told = told.collect::<Result<Vec<_>, Stop>>()?;
    let rank = reader.rank(input, valid)?;
    let axes = match node.ints("axes") {
        Some(axes) => distinct_axes(axes, rank).ok_or(NO_SUCH_AXES)?,
        None => (0..rank).collect(),
    };
    let mut apart: Vec<Option<ViewedAxis>> = (0..rank).map(ViewedAxis::alone).map(Some).collect();
    let stays = stays(reader, node, (input, &axes), &told, valid)?;
    if stays.iter().all(|&stays| stays) && stays.len() == axes.len() {
        return Ok(Meaning::Alias(input));
    }
    for (axis, stays) in axes.iter().zip(stays) {
        let axis = apart.get_mut(*axis).ok_or(NO_SUCH_AXES)?;
        *axis = axis.filter(|_| stays);
    }
    Ok(views::told(input, node, View::resampling(apart.clone(), apart), told))
}

/// Returns, for each of these axes of `input`, whether the node keeps its size.
fn stays(
    reader: &Reader,
    node: &Node,
    (input, axes): (ValueId, &[usize]),
    told: &[Option<ViewOperand>],
    valid: &mut Validity,
) -> Result<Vec<bool>, Stop> {
    let are_same = |factors: &[f64]| factors.iter().map(|&factor| factor == 1.0).collect();
    // `roi` is skipped: no mode that is read here uses it.
    let (first, _) = resize_lists(reader.graph.model.opset);
    let mut given =
        told.iter().skip(first.saturating_sub(1)).flatten().filter(|operand| !operand.is_empty());
    let attribute = node.attribute("scales").map(|scales| &scales.floats);
    let stays: Vec<bool> = match (given.next(), given.next(), attribute) {
        (None, None, Some(factors)) => {
            are_same(&factors.iter().map(|&factor| factor.into()).collect::<Vec<f64>>())
        }
        (Some(ViewOperand::Factors(factors)), None, None) => are_same(factors),
        (Some(ViewOperand::Integers(sizes)), None, None) if sizes.len() == axes.len() => {
            let mut stays = |(&axis, &size): (&usize, &i64)| {
                let read = reader.sizes.size(input, axis)?;
                valid.require(input, Property::Size(axis, SizeSet::Exactly(read)));
                Ok(read == size)
            };
            axes.iter().zip(sizes).map(&mut stays).collect::<Result<_, NotLinear>>()?
        }
        _ => {
            return Err(NotLinear::Malformed(
                "it does not have exactly one list of factors or sizes",
            )
            .into());
        }
    };
    if stays.len() != axes.len() {
        return Err(
            NotLinear::Malformed("it does not have one factor or size for each axis").into()
        );
    }
    Ok(stays)
}

/// Returns a constant list of factors or sizes.
fn constant(reader: &Reader, node: &Node, operand: ValueId) -> Result<ViewOperand, Stop> {
    // Lists that follow from the sizes of other tensors are left to the engine.
    if !reader.constants.stores(operand) || !reader.constants.contains(operand) {
        return Err(not_linear(node).into());
    }
    let kind = reader.constants.element_type(operand);
    if kind.and_then(Float::from_onnx).is_some() {
        let factors = reader.constants.factors(operand);
        let factors = factors.ok_or_else(|| not_linear(node))?;
        return Ok(ViewOperand::Factors(factors.into_iter().map(f64::from).collect()));
    }
    Ok(ViewOperand::Integers(reader.known_integers(operand, &mut Validity::default())?))
}
