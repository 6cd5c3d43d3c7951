//! Sums of any number of tensors, joined tensors, and parts of a tensor.
//!
//! Knows operands and how they are joined; no weights.

use crate::affine::Part;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::ops::frame;
use crate::ops::meaning::{LinearOp, Meaning, Sign, SumOperand};
use crate::ops::meanings::Meanings;
use crate::ops::pointwise;
use crate::ops::reader::{Reader, first_input, not_linear};
use crate::ops::stop::Stop;
use crate::ops::views;
use crate::refusal::NotLinear;

/// Upper bound on the operands of one node; no block adds more tensors.
const MAX_OPERANDS: usize = 256;

const TOO_MANY_OPERANDS: NotLinear =
    NotLinear::Limit("it adds more than 256 tensors, and no block has so many branches");

/// Reads Sum (opset 1 to 13) of any number of tensors. A constant among them that can shift one
/// of the others becomes a shift of that one.
///
/// # Errors
/// Returns an error if an operand is missing, or there are too many.
pub fn sum(
    reader: &Reader,
    node: &Node,
    earlier: &Meanings,
    valid: &mut Validity,
) -> Result<Meaning, Stop> {
    let inputs: Vec<usize> = (0..node.inputs.len()).collect();
    reader.same_types(node, &inputs)?;
    if inputs.len() == 2 {
        match pointwise::add(reader, node, valid) {
            // With a constant that is no shift, it is still a sum.
            Err(Stop::NotLinear(_)) => {}
            shift => return shift,
        }
    }
    match operands(node)?.as_slice() {
        &[only] => Ok(Meaning::Alias(only)),
        operands => Ok(Meaning::Sum(summands(reader, earlier, operands, valid)?)),
    }
}

/// Returns the operands of a sum or mean.
fn operands(node: &Node) -> Result<Vec<ValueId>, NotLinear> {
    if node.inputs.len() > MAX_OPERANDS {
        return Err(TOO_MANY_OPERANDS);
    }
    let operands = node.inputs.iter().copied().collect::<Option<Vec<ValueId>>>();
    let operands = operands.filter(|operands| !operands.is_empty());
    operands.ok_or(NotLinear::Malformed("an operand is missing"))
}

/// Returns the `operands` of a sum as summands. Its constants shift the first operand that an
/// affine map makes, or else the first one that a sum makes: these can take a shift.
fn summands(
    reader: &Reader,
    earlier: &Meanings,
    operands: &[ValueId],
    valid: &mut Validity,
) -> Result<Vec<SumOperand>, Invalid> {
    let as_they_are = |operands: &[ValueId]| -> Vec<SumOperand> {
        operands.iter().map(|&operand| SumOperand::of(Sign::Plus, operand)).collect()
    };
    let (constants, tensors): (Vec<ValueId>, Vec<ValueId>) =
        operands.iter().partition(|&&operand| reader.constants.contains(operand));
    let meaning = |tensor: ValueId| {
        let producer = reader.graph.value(earlier.source(tensor)).producer;
        producer.and_then(|id| earlier.get(id))
    };
    let made = || tensors.iter().enumerate().filter_map(|(at, &id)| Some((at, id, meaning(id)?)));
    let linear = made().find(|(.., meaning)| matches!(meaning, Meaning::Linear(..)));
    let sum = || made().find(|(.., meaning)| matches!(meaning, Meaning::Sum(_)));
    let shifted = linear.or_else(sum).filter(|_| !constants.is_empty());
    let Some((place, tensor, meaning)) = shifted else { return Ok(as_they_are(operands)) };
    let mut of_shift = Validity::default();
    let shift = match pointwise::shift_by(reader, &constants, tensor, &mut of_shift) {
        Ok(shift) if is_of_its_channels(meaning, &shift) => Box::new(shift),
        // With a constant that is no shift, it is still a sum.
        Ok(_) | Err(Stop::NotLinear(_)) => return Ok(as_they_are(operands)),
        Err(Stop::Invalid(invalid)) => return Err(invalid),
    };
    valid.intersect(&of_shift);
    let mut summands = as_they_are(&tensors);
    if let Some(summand) = summands.get_mut(place) {
        summand.map = Some(shift);
    }
    Ok(summands)
}

/// Whether `shift` adds to the channels that a node makes, as far as its `meaning` tells where
/// they are.
fn is_of_its_channels(meaning: &Meaning, shift: &LinearOp) -> bool {
    let shift = shift.geometry();
    match meaning {
        Meaning::Linear(_, LinearOp::Transpose { .. } | LinearOp::View(_)) => true,
        Meaning::Linear(_, map) => {
            shift.channels.is_none() || shift.output == map.geometry().output
        }
        _ => true,
    }
}

/// Reads Mean (opset 8 to 13) of any number of computed tensors.
///
/// # Errors
/// Returns an error if an operand is missing or constant, or there are too many.
pub fn mean(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    let inputs: Vec<usize> = (0..node.inputs.len()).collect();
    reader.same_types(node, &inputs)?;
    match operands(node)?.as_slice() {
        &[only] => Ok(Meaning::Alias(only)),
        operands => mean_of(reader, operands).ok_or_else(|| not_linear(node).into()),
    }
}

/// Returns the mean as a sum to which each tensor gives its share, or `None` if one is constant.
fn mean_of(reader: &Reader, operands: &[ValueId]) -> Option<Meaning> {
    if operands.iter().any(|&operand| reader.constants.contains(operand)) {
        return None;
    }
    let share = pointwise::uniform((operands.len() as f64).recip(), 0.0);
    let summand = |&operand| SumOperand {
        map: Some(Box::new(share.clone())),
        ..SumOperand::of(Sign::Plus, operand)
    };
    Some(Meaning::Sum(operands.iter().map(summand).collect()))
}

/// Reads ReduceSum (opset 1 to 13) over an axis along which tensors were stacked.
///
/// # Errors
/// Returns an error if it sums anything else.
pub fn stacked_sum(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let operands = stacked(reader, node, valid)?.ok_or_else(|| not_linear(node))?;
    Ok(match operands.as_slice() {
        &[only] => Meaning::Alias(only),
        operands if operands.len() > MAX_OPERANDS => return Err(TOO_MANY_OPERANDS.into()),
        _ => {
            let summand = |operand| SumOperand::of(Sign::Plus, operand);
            Meaning::Sum(operands.into_iter().map(summand).collect())
        }
    })
}

/// Reads ReduceMean (opset 1 to 18) of tensors that were stacked along its axis, or else as a
/// view.
///
/// # Errors
/// As [`views::mean`].
pub fn stacked_mean(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let mut of_stack = Validity::default();
    let several = stacked(reader, node, &mut of_stack)?;
    let several = several.filter(|operands| (2..=MAX_OPERANDS).contains(&operands.len()));
    match several.and_then(|operands| mean_of(reader, &operands)) {
        Some(mean) => {
            valid.intersect(&of_stack);
            Ok(mean)
        }
        None => views::mean(reader, node, valid),
    }
}

/// Returns the tensors that were stacked along the axis that a node reduces, or `None` if it
/// reduces anything else.
fn stacked(
    reader: &Reader,
    node: &Node,
    valid: &mut Validity,
) -> Result<Option<Vec<ValueId>>, Stop> {
    let producer = |id: ValueId| Some(reader.graph.node(reader.graph.value(id).producer?));
    let made_by =
        |id: Option<ValueId>, op: &str| producer(id?).filter(|node| node.standard_op() == Some(op));
    let Some(concat) = made_by(node.input(0), "Concat") else { return Ok(None) };
    let axis = [concat.int("axis", 1)];
    if axes(reader, node, valid)?.as_deref() != Some(&axis) || node.int("keepdims", 1) != 0 {
        return Ok(None);
    }
    let mut operands = Vec::with_capacity(concat.inputs.len());
    for &input in &concat.inputs {
        let Some(unsqueeze) = made_by(input, "Unsqueeze") else { return Ok(None) };
        let Some(operand) = unsqueeze.input(0) else { return Ok(None) };
        if axes(reader, unsqueeze, valid)?.as_deref() != Some(&axis) {
            return Ok(None);
        }
        operands.push(operand);
    }
    Ok(Some(operands))
}

/// Reads Concat (opset 4 to 13): circular padding, or joined tensors.
///
/// # Errors
/// Returns an error if the size of an operand along that axis is not known or zero, or if there
/// are too many operands.
pub fn concat(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    if let &[Some(only)] = node.inputs.as_slice() {
        return Ok(Meaning::Alias(only));
    }
    let mut of_padding = Validity::default();
    match frame::circular(reader, node, &mut of_padding) {
        Err(Stop::NotLinear(_)) => in_a_row(reader, node, valid),
        padding => {
            valid.intersect(&of_padding);
            padding
        }
    }
}

fn in_a_row(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let opaque = || not_linear(node);
    let inputs: Vec<usize> = (0..node.inputs.len()).collect();
    reader.same_types(node, &inputs)?;
    let operands = node.inputs.iter().copied().collect::<Option<Vec<ValueId>>>();
    let operands = operands.filter(|all| all.len() <= MAX_OPERANDS).ok_or_else(opaque)?;
    let first = *operands.first().ok_or_else(opaque)?;
    let axes = reader.axes_from_front(first, &[node.int("axis", 0)], valid)?;
    let axis = *axes.first().ok_or_else(opaque)?;
    let mut sizes = Vec::with_capacity(operands.len());
    for &operand in &operands {
        let size = reader.sizes.known_size(operand, axis).ok_or_else(opaque)?;
        valid.require(operand, Property::Size(axis, SizeSet::Exactly(size)));
        sizes.push(usize::try_from(size).map_err(|_| opaque())?);
    }
    let parts = Part::joined(axis, &sizes).ok_or_else(opaque)?;
    Ok(Meaning::Joined(parts.into_iter().zip(operands).collect()))
}

/// Reads Split (opset 2 to 18).
///
/// # Errors
/// Returns an error if the size of a part is not known, or a part is empty.
pub fn split(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let opaque = || not_linear(node);
    let input = first_input(node)?;
    let outputs = node.outputs.iter().copied().collect::<Option<Vec<ValueId>>>();
    let outputs = outputs.ok_or_else(opaque)?;
    let told = if outputs.len() == 1 { reader.list(node, "split", 1, valid)? } else { None };
    if outputs.len() == 1 && told.is_none() {
        return Ok(Meaning::Alias(input));
    }
    let axes = reader.axes_from_front(input, &[node.int("axis", 0)], valid)?;
    let axis = *axes.first().ok_or_else(opaque)?;
    if outputs.len() == 1 {
        // A tensor of another size than the one given could not be split.
        let Some(&[whole]) = told.as_deref() else { return Err(opaque().into()) };
        valid.require(input, Property::Size(axis, SizeSet::Exactly(whole)));
        return Ok(Meaning::Alias(input));
    }
    let size = |tensor: ValueId| usize::try_from(reader.sizes.known_size(tensor, axis)?).ok();
    let sizes: Option<Vec<usize>> = outputs.iter().map(|&output| size(output)).collect();
    let parts = sizes.and_then(|sizes| Part::joined(axis, &sizes)).ok_or_else(opaque)?;
    let whole = parts.first().map(|part| part.whole).filter(|&whole| size(input) == Some(whole));
    let whole = whole.ok_or_else(opaque)?;
    valid.require(input, Property::Size(axis, SizeSet::Exactly(whole as i64)));
    Ok(Meaning::Parted(input, parts))
}

/// Returns the axes of a node, which are an attribute before opset 13 and an input since.
fn axes(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Option<Vec<i64>>, Invalid> {
    match (node.ints("axes"), node.input(1)) {
        (Some(axes), _) => Ok(Some(axes.to_vec())),
        (None, Some(axes)) => reader.integers(axes, valid),
        (None, None) => Ok(None),
    }
}
