//! What makes a tensor larger or smaller between its elements: Resize, and Upsample before it.
//!
//! Each element that it makes is a mean of elements that it reads, whose weights add up to 1, along
//! each axis for itself: a view, which keeps apart the axes whose sizes stay.
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

/// Places of elements between others, at which all weights add up to 1, at the border too, and a
/// factor of 1 changes nothing. *Counter-examples*: beyond the region of `tf_crop_and_resize` stands
/// a number; `tf_half_pixel_for_nn` is half an element off.
const PLACES: [&[u8]; 4] = [b"half_pixel", b"pytorch_half_pixel", b"align_corners", b"asymmetric"];

/// Which of two elements is the nearest.
const ROUNDINGS: [&[u8]; 4] = [b"floor", b"ceil", b"round_prefer_floor", b"round_prefer_ceil"];

/// Resize (opset 10 to 19) and Upsample (opset 7 to 9) by constant factors or to constant sizes, to
/// nearest elements or linearly between two.
///
/// # Errors
/// If it resamples otherwise, its factors and sizes are not stored, or the rank of its input is
/// not known; sizes of the input, if it is told sizes.
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

/// Which of these axes of `input` have the same size behind the node.
fn stays(
    reader: &Reader,
    node: &Node,
    (input, axes): (ValueId, &[usize]),
    told: &[Option<ViewOperand>],
    valid: &mut Validity,
) -> Result<Vec<bool>, Stop> {
    let are_same = |factors: &[f64]| factors.iter().map(|&factor| factor == 1.0).collect();
    // No mode that is read looks at a region.
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

/// A constant list of factors or sizes.
fn constant(reader: &Reader, node: &Node, operand: ValueId) -> Result<ViewOperand, Stop> {
    // Those that follow from sizes of other tensors are nobody's but the engine's.
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
