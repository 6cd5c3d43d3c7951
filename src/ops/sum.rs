//! Sums of any number of tensors, and tensors in a row.
//!
//! Knows operands and how they are joined; no weights.

use crate::affine::Part;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::ops::frame;
use crate::ops::meaning::{Meaning, Sign};
use crate::ops::pointwise;
use crate::ops::reader::{Reader, not_linear};
use crate::ops::stop::Stop;
use crate::refusal::NotLinear;

/// No block adds more tensors at one node.
const MAX_OPERANDS: usize = 256;

const TOO_MANY_OPERANDS: NotLinear =
    NotLinear::Limit("it adds more than 256 tensors, and no block has so many branches");

/// Sum (opset 1 to 13) of any number of tensors; with a constant that shifts, as an Add.
///
/// # Errors
/// If an operand is missing, or there are too many.
pub fn sum(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let inputs: Vec<usize> = (0..node.inputs.len()).collect();
    reader.same_types(node, &inputs)?;
    if inputs.len() == 2 {
        match pointwise::add(reader, node, valid) {
            // With a constant that is no shift, it is a sum all the same.
            Err(Stop::NotLinear(_)) => {}
            shift => return shift,
        }
    }
    match node.inputs.as_slice() {
        [Some(only)] => Ok(Meaning::Alias(*only)),
        operands if operands.len() > MAX_OPERANDS => Err(TOO_MANY_OPERANDS.into()),
        operands => {
            let terms = operands.iter().map(|operand| Some((Sign::Plus, (*operand)?)));
            let terms = terms.collect::<Option<_>>();
            Ok(Meaning::Sum(terms.ok_or(NotLinear::Malformed("an operand is missing"))?))
        }
    }
}

/// ReduceSum (opset 1 to 13) over an axis along which tensors were stacked.
///
/// # Errors
/// If it sums up anything else.
pub fn stacked(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let opaque = || Err(not_linear(node).into());
    let producer = |id: ValueId| Some(reader.graph.node(reader.graph.value(id).producer?));
    let made_by =
        |id: Option<ValueId>, op: &str| producer(id?).filter(|node| node.standard_op() == Some(op));
    let Some(concat) = made_by(node.input(0), "Concat") else { return opaque() };
    let axis = [concat.int("axis", 1)];
    if axes(reader, node, valid)?.as_deref() != Some(&axis) || node.int("keepdims", 1) != 0 {
        return opaque();
    }
    if concat.inputs.len() > MAX_OPERANDS {
        return Err(TOO_MANY_OPERANDS.into());
    }
    let mut operands = Vec::with_capacity(concat.inputs.len());
    for &input in &concat.inputs {
        let Some(unsqueeze) = made_by(input, "Unsqueeze") else { return opaque() };
        let Some(operand) = unsqueeze.input(0) else { return opaque() };
        if axes(reader, unsqueeze, valid)?.as_deref() != Some(&axis) {
            return opaque();
        }
        operands.push((Sign::Plus, operand));
    }
    Ok(match operands.as_slice() {
        &[(_, only)] => Meaning::Alias(only),
        _ => Meaning::Sum(operands),
    })
}

/// Concat (opset 4 to 13): circular padding, or tensors in a row.
///
/// # Errors
/// If the size of one of them along that axis is not known, or is none, or there are too many.
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
        let dims = reader.sizes.dims(operand).ok_or_else(opaque)?;
        let size = dims.get(axis).copied().flatten().ok_or_else(opaque)?;
        valid.require(operand, Property::Size(axis, SizeSet::Exactly(size as i64)));
        sizes.push(size);
    }
    let parts = Part::joined(axis, &sizes).ok_or_else(opaque)?;
    Ok(Meaning::Joined(parts.into_iter().zip(operands).collect()))
}

/// The axes of a node: an attribute before opset 13, an input since.
fn axes(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Option<Vec<i64>>, Invalid> {
    match (node.ints("axes"), node.input(1)) {
        (Some(axes), _) => Ok(Some(axes.to_vec())),
        (None, Some(axes)) => reader.integers(axes, valid),
        (None, None) => Ok(None),
    }
}
