//! Products with a constant matrix: `y = x·W + b`, on every row of `x`.
//!
//! Knows constant matrices only: a product of two computed tensors is not a map.

use crate::affine::{AxisOrder, Channels, ConvKind, Geometry, Window};
use crate::facts::kernels::KernelLayout;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::equation::Equation;
use crate::onnx::float::Float;
use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;
use crate::ops::axes;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::reader::{Reader, not_linear};
use crate::ops::stop::Stop;
use crate::refusal::NotLinear;

/// Reads Gemm (opset 7 to 13) of a tensor `[N, C]` with a constant.
///
/// # Errors
/// Returns an error if its weights are not constant, or its bias is not one number per column.
pub fn gemm(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    let (Some(input), Some(weights)) = (node.input(0), node.input(1)) else {
        return Err(NotLinear::Malformed("its input or weights are missing").into());
    };
    let factor = |name| f64::from(node.attribute(name).map_or(1.0, |attribute| attribute.f()));
    let (alpha, beta) = (factor("alpha"), factor("beta"));
    if !(alpha.is_finite() && beta.is_finite()) || alpha == 0.0 {
        return Err(NotLinear::Unrepresentable("its factors are not finite, or zero").into());
    }
    let is_turned = node.int("transB", 0) != 0;
    let layout = if is_turned { KernelLayout::OutputsFirst } else { KernelLayout::InputsFirst };
    let (float, [inputs, outputs]) = matrix(reader, weights, layout)?;
    reader.same_types(node, &[0, 1, 2])?;
    let bias = match node.input(2) {
        None => Vec::new(),
        Some(_) if beta == 0.0 => Vec::new(),
        Some(bias) => row(reader, bias, outputs)?.into_iter().map(|b| beta * b).collect(),
    };
    let geometry = Geometry {
        channels: Some(Channels { inputs, outputs, groups: 1 }),
        kind: ConvKind::MatMul,
        // The rows of Aᵀ are the columns of the input.
        input: AxisOrder::with_channels_at(if node.int("transA", 0) == 0 { 1 } else { 0 }),
        shifted: bias.iter().any(|&value| value != 0.0),
        ..Geometry::identity()
    };
    let kernel = LinearOp::Conv { kernel: weights, layout, factor: alpha, float, bias, geometry };
    Ok(Meaning::Linear(input, kernel))
}

/// Reads MatMul (opset 7 to 13) of a tensor `[N, …, C]` with a constant `[C, O]`, or of a
/// constant `[O, C]` with a tensor `[N, C, L]`. For other ranks, the second form would need
/// Transposes around it.
///
/// # Errors
/// Returns an error if not exactly one side is constant, or the rank of the other is not known.
pub fn matmul(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let opaque = || Err(not_linear(node).into());
    let (Some(left), Some(right)) = (node.input(0), node.input(1)) else { return opaque() };
    // A product of two feature maps, as in attention, is not linear.
    let (input, weights, layout) =
        match [left, right].map(|operand| reader.constants.contains(operand)) {
            [false, true] => (left, right, KernelLayout::InputsFirst),
            [true, false] => (right, left, KernelLayout::OutputsFirst),
            _ => return opaque(),
        };
    let (float, sides) = matrix(reader, weights, layout)?;
    reader.same_types(node, &[0, 1])?;
    let rank = reader.rank(input, valid)?;
    let Some(axes) = rank.checked_sub(2) else { return opaque() };
    let channels_at = match layout {
        KernelLayout::InputsFirst => rank.saturating_sub(1),
        KernelLayout::OutputsFirst => axes,
    };
    if layout == KernelLayout::OutputsFirst && channels_at != 1 {
        return opaque();
    }
    let geometry = along(channels_at, rank, ConvKind::MatMul, sides);
    let (kernel, bias) = (weights, Vec::new());
    Ok(Meaning::Linear(
        input,
        LinearOp::Conv { kernel, layout, factor: 1.0, float, bias, geometry },
    ))
}

/// Reads Einsum (opset 12) of a tensor with a constant matrix, summed over one letter, which the
/// matrix's other letter replaces: `bchw,oc->bohw`, `abc,cd->abd`. Of a single tensor, Einsum is
/// another order of axes.
///
/// # Errors
/// Returns an error if it is any other Einsum, or the size that is summed over is not known.
pub fn einsum(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let equation = node.attribute("equation").and_then(|equation| Equation::of(equation.s()));
    let Equation { operands, result } = equation.ok_or_else(|| not_linear(node))?;
    let product = match (operands.as_slice(), node.inputs.as_slice()) {
        ([own], &[Some(input)]) => {
            let order = order(own, &result).ok_or_else(|| not_linear(node))?;
            return Ok(axes::turned(input, order));
        }
        ([left, right], &[Some(x), Some(w)]) if reader.constants.contains(w) => {
            summed(left, right, &result).map(|summed| (x, w, left.len(), summed))
        }
        ([left, right], &[Some(w), Some(x)]) if reader.constants.contains(w) => {
            summed(right, left, &result).map(|summed| (x, w, right.len(), summed))
        }
        _ => None,
    };
    let (input, weights, rank, (axis, layout)) = product.ok_or_else(|| not_linear(node))?;
    let (float, sides) = matrix(reader, weights, layout)?;
    reader.same_types(node, &[0, 1])?;
    // Engines broadcast a size of 1 to any other.
    let [inputs, _] = sides;
    let size = inputs as i64;
    if reader.sizes.known_size(input, axis) != Some(size) {
        return Err(not_linear(node).into());
    }
    valid.require(input, Property::Size(axis, SizeSet::Exactly(size)));
    let kind = if axis == 1 && rank > 2 { ConvKind::Conv } else { ConvKind::MatMul };
    let geometry = along(axis, rank, kind, sides);
    let (kernel, bias) = (weights, Vec::new());
    Ok(Meaning::Linear(
        input,
        LinearOp::Conv { kernel, layout, factor: 1.0, float, bias, geometry },
    ))
}

/// Returns the shape of a product with a matrix of `inputs` and `outputs` along axis `axis` of a
/// tensor of rank `rank`.
fn along(axis: usize, rank: usize, kind: ConvKind, [inputs, outputs]: [usize; 2]) -> Geometry {
    Geometry {
        channels: Some(Channels { inputs, outputs, groups: 1 }),
        windows: vec![Window::IDENTITY; rank.saturating_sub(2)],
        kind,
        ..Geometry::identity().within(&AxisOrder::with_channels_at(axis))
    }
}

/// Returns where the axes of the result come from, or `None` unless they are all axes of the
/// operand.
fn order(axes: &[char], result: &[char]) -> Option<AxisOrder> {
    let from = |letter: &char| Some(axes.iter().position(|own| own == letter)? as i64);
    let order = result.iter().map(from).collect::<Option<Vec<i64>>>()?;
    AxisOrder::new(&order).filter(|_| axes.len() == result.len())
}

/// Returns the axis that is summed over with a matrix, and the layout of the matrix, if its
/// other letter takes the place of that axis and all other axes stay.
fn summed(axes: &[char], matrix: &[char], result: &[char]) -> Option<(usize, KernelLayout)> {
    let &[first, second] = matrix else { return None };
    let (inner, outer, layout) = match axes.contains(&first) {
        true => (first, second, KernelLayout::InputsFirst),
        false => (second, first, KernelLayout::OutputsFirst),
    };
    let axis = axes.iter().position(|&letter| letter == inner)?;
    let replaced = axes.iter().map(|&letter| if letter == inner { outer } else { letter });
    let is_once = |letter: &char| axes.iter().filter(|other| *other == letter).count() == 1;
    let is_product = axes.iter().all(is_once) && !axes.contains(&outer) && axis > 0;
    (is_product && replaced.eq(result.iter().copied())).then_some((axis, layout))
}

/// Returns the type of a constant matrix, and its numbers of inputs and outputs.
fn matrix(reader: &Reader, id: ValueId, layout: KernelLayout) -> Result<(Float, [usize; 2]), Stop> {
    let dims = reader.dims(id)?;
    let float = reader.constants.element_type(id).and_then(Float::from_onnx);
    let (Some(float), &[first, second]) = (float, dims.as_slice()) else {
        return Err(NotLinear::Unrepresentable("its weights are not one matrix of floats").into());
    };
    if dims.contains(&0) {
        return Err(NotLinear::Malformed("its weights are empty").into());
    }
    Ok(match layout {
        KernelLayout::InputsFirst => (float, [first, second]),
        KernelLayout::OutputsFirst => (float, [second, first]),
    })
}

/// Returns a float constant that broadcasts to every row of a matrix `length` wide.
fn row(reader: &Reader, id: ValueId, length: usize) -> Result<Vec<f64>, Stop> {
    let values = reader.floats(id)?;
    match (values.shape(), values.first()) {
        ([] | [1] | [1, 1], Some(&value)) => Ok(vec![value; length]),
        ([width] | [1, width], _) if *width == length => Ok(values.iter().copied().collect()),
        _ => Err(reader.wrong_length(id, length).into()),
    }
}
