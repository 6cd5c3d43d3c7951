//! Operators that scale and shift elements where they stand, `y = s·x + b`, by one number or one
//! per channel; and sums of two tensors, which are written with the same operators.
//!
//! Knows numbers and how they broadcast; no windows.

use crate::affine::{AxisOrder, batch_norm};
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::float::Float;
use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;
use crate::ops::meaning::{LinearOp, Meaning, Sign, SumOperand};
use crate::ops::reader::{Reader, first_input, not_linear};
use crate::ops::stop::Stop;
use crate::ops::training::eval_form;
use crate::refusal::NotLinear;

/// Reads BatchNormalization (opset 1 to 15) with its running statistics,
/// `y = (x − μ)/sqrt(v + ε)·γ + β`: at inference, or where the deploy graph uses them.
///
/// # Errors
/// Returns an error if it stays in training mode, or a statistic is not constant.
pub fn norm(reader: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    let (Some(input), Some(gamma)) = (node.input(0), node.input(1)) else {
        return Err(NotLinear::Malformed("its input or scale is missing").into());
    };
    eval_form(reader, node)?;
    if reader.graph.yields_more(node) {
        return Err(NotLinear::Unrepresentable("its training outputs are used").into());
    }
    let dims = reader.dims(gamma)?;
    // Groups of inputs that must have one type: first all of them; then the running statistics
    // apart; then γ and β apart, too.
    let alike: &[&[usize]] = match reader.graph.model.opset {
        ..14 => &[&[0, 1, 2, 3, 4]],
        14 => &[&[0, 1, 2], &[3, 4]],
        _ => &[&[1, 2], &[3, 4]],
    };
    for inputs in alike {
        reader.same_types(node, inputs)?;
    }
    let channels = dims.first().copied().unwrap_or(0);
    let mut vectors = Vec::with_capacity(4);
    for index in 1..5 {
        let Some(input) = node.input(index) else {
            return Err(NotLinear::Malformed("a statistic is missing").into());
        };
        vectors.push(reader.vector(input, channels)?);
    }
    let [gamma, beta, mean, var] = vectors.as_slice() else {
        return Err(NotLinear::Malformed("a statistic is missing").into());
    };
    let epsilon = f64::from(node.attribute("epsilon").map_or(1e-5, |epsilon| epsilon.f()));
    let (scale, shift) = batch_norm(gamma, beta, mean, var, epsilon);
    // A negative variance, or zero with ε = 0, has no 1/σ.
    if scale.iter().chain(&shift).any(|value| !value.is_finite()) {
        return Err(NotLinear::Unrepresentable("its statistics give no finite scale").into());
    }
    Ok(Meaning::Linear(input, LinearOp::Diagonal { scale, shift, order: AxisOrder::CANONICAL }))
}

/// Reads Neg (opset 1 to 13).
///
/// # Errors
/// Returns an error if its input is missing.
pub fn negation(_: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    Ok(Meaning::Linear(first_input(node)?, uniform(-1.0, 0.0)))
}

/// Reads Add (opset 1 to 14): a sum of tensors, or a shift by a constant.
///
/// # Errors
/// Returns an error if a constant is not one number per channel.
pub fn add(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    arithmetic(reader, node, Arithmetic::Add, valid)
}

/// Reads Sub (opset 1 to 14), as [`add`].
///
/// # Errors
/// As [`add`].
pub fn subtract(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    arithmetic(reader, node, Arithmetic::Sub, valid)
}

/// Reads Mul (opset 1 to 14) by a constant, which scales.
///
/// # Errors
/// As [`add`], and returns an error if no operand is constant.
pub fn multiply(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    arithmetic(reader, node, Arithmetic::Mul, valid)
}

/// Reads Div (opset 1 to 14) by a constant, which scales.
///
/// # Errors
/// As [`multiply`], and returns an error if it divides a constant by a tensor.
pub fn divide(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    arithmetic(reader, node, Arithmetic::Div, valid)
}

/// An elementwise operation on two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
}

impl Arithmetic {
    fn is_sum(self) -> bool {
        matches!(self, Arithmetic::Add | Arithmetic::Sub)
    }

    /// Returns the scale and shift that the operation with the constant `c` applies to the other
    /// operand, or `None` if it is not affine.
    fn affine(self, c: f64, constant_first: bool) -> Option<(f64, f64)> {
        match (self, constant_first) {
            (Arithmetic::Add, _) => Some((1.0, c)),
            (Arithmetic::Sub, false) => Some((1.0, -c)),
            (Arithmetic::Sub, true) => Some((-1.0, c)),
            (Arithmetic::Mul, _) => Some((c, 0.0)),
            (Arithmetic::Div, false) => Some((1.0 / c, 0.0)),
            (Arithmetic::Div, true) => None,
        }
    }
}

fn arithmetic(
    reader: &Reader,
    node: &Node,
    op: Arithmetic,
    valid: &mut Validity,
) -> Result<Meaning, Stop> {
    let (Some(left), Some(right)) = (node.input(0), node.input(1)) else {
        return Err(NotLinear::Malformed("an operand is missing").into());
    };
    reader.same_types(node, &[0, 1])?;
    let (tensor, constant, constant_first) =
        match (reader.constants.contains(left), reader.constants.contains(right)) {
            (false, true) => (left, right, false),
            (true, false) => (right, left, true),
            _ if !op.is_sum() => return Err(not_linear(node).into()),
            _ if node.int("broadcast", 0) != 0 => {
                let why = "it broadcasts as before operator set 7";
                return Err(NotLinear::Unrepresentable(why).into());
            }
            _ => {
                let right_sign = Sign::of_difference(op == Arithmetic::Sub);
                let operands = [(Sign::Plus, left), (right_sign, right)];
                return Ok(Meaning::Sum(
                    operands.map(|(sign, operand)| SumOperand::of(sign, operand)).to_vec(),
                ));
            }
        };
    if node.aligns_by_axis() && node.broadcast_axis().is_none() {
        return Err(NotLinear::Unrepresentable("its axis is counted from the end").into());
    }
    if reader.constants.element_type(constant).and_then(Float::from_onnx).is_none() {
        return Err(not_linear(node).into());
    }
    let values = per_channel(reader, constant, tensor, node.broadcast_axis(), valid)?;
    let pairs = values.values().iter().map(|&c| op.affine(c, constant_first));
    let Some(pairs) = pairs.collect::<Option<Vec<_>>>() else {
        return Err(not_linear(node).into());
    };
    if pairs.iter().any(|(scale, shift)| !(scale.is_finite() && shift.is_finite())) {
        return Err(NotLinear::Unrepresentable("its constant gives no finite scale").into());
    }
    let map = match (&values, pairs.as_slice()) {
        (PerChannel::Same(_), &[(weight, shift)]) => uniform(weight, shift),
        (PerChannel::Same(_), _) => return Err(not_linear(node).into()),
        (PerChannel::Each(_, order), _) => {
            let (scale, shift) = pairs.into_iter().unzip();
            LinearOp::Diagonal { scale, shift, order: order.clone() }
        }
    };
    Ok(Meaning::Linear(tensor, map))
}

/// Returns the map by which `constants`, all along the same axis, shift `tensor`.
///
/// # Errors
/// Returns an error if a constant is not one number per channel, or lies along another axis than
/// others.
pub fn shift_by(
    reader: &Reader,
    constants: &[ValueId],
    tensor: ValueId,
    valid: &mut Validity,
) -> Result<LinearOp, Stop> {
    let mut sum = PerChannel::Same(0.0);
    for &constant in constants {
        let other = per_channel(reader, constant, tensor, None, valid)?;
        sum = sum.plus(other).ok_or(NotLinear::Unrepresentable("it shifts along several axes"))?;
    }
    if sum.values().iter().any(|shift| !shift.is_finite()) {
        return Err(NotLinear::Unrepresentable("its constants give no finite shift").into());
    }
    Ok(match sum {
        PerChannel::Same(shift) => uniform(1.0, shift),
        PerChannel::Each(shift, order) => {
            LinearOp::Diagonal { scale: vec![1.0; shift.len()], shift, order }
        }
    })
}

/// Returns the float constant `id` as one number per position along one axis of `tensor`: its
/// channels, wherever they are. The constant's dimensions begin at `axis`, or else are aligned
/// with the last ones of the tensor.
fn per_channel(
    reader: &Reader,
    id: ValueId,
    tensor: ValueId,
    axis: Option<usize>,
    valid: &mut Validity,
) -> Result<PerChannel, Stop> {
    let values = reader.floats(id)?;
    let name = |id: ValueId| reader.graph.value(id).name.to_owned();
    let dims = values.shape().to_vec();
    let values: Vec<f64> = values.into_iter().collect();
    let rank = reader.sizes.known_rank(tensor);
    // A constant of more dimensions than the tensor would enlarge it.
    let fits = rank.map_or(dims.len() <= 2, |rank| dims.len() <= rank);
    if let ([value], true) = (values.as_slice(), fits) {
        if let Some(rank) = rank.filter(|_| dims.len() > 1) {
            valid.require(tensor, Property::Rank(rank));
        }
        return Ok(PerChannel::Same(*value));
    }
    let Some(rank) = rank else {
        return Err(reader.sizes.rank_unknown(tensor).into());
    };
    // Dimensions align at the end: [C,1,1] and [1,C,1,1] meet the channels of
    // [N,C,H,W], [C] runs along W; in [N,H,W,C] it meets the channels.
    let mut along = dims.iter().enumerate().filter(|&(_, &dim)| dim != 1);
    let axis = match (along.next(), along.next()) {
        (Some((along, _)), None) if fits => {
            along.saturating_add(axis.unwrap_or(rank.saturating_sub(dims.len())))
        }
        _ => 0,
    };
    // Axis 0 is the batch, which is no channel axis.
    if axis == 0 {
        return Err(NotLinear::NotPerChannel { constant: name(id), dims }.into());
    }
    let Some(size) = reader.sizes.known_size(tensor, axis) else {
        let what = format!("whether `{}` enlarges `{}` on axis {axis}", name(id), name(tensor));
        return Err(reader.sizes.unknown(what).into());
    };
    // [1,4,1,1] on [N,1,H,W] makes four channels of one.
    if usize::try_from(size) != Ok(values.len()) {
        return Err(NotLinear::NotPerChannel { constant: name(id), dims }.into());
    }
    valid.require(tensor, Property::Rank(rank));
    valid.require(tensor, Property::Size(axis, SizeSet::Exactly(size)));
    Ok(PerChannel::Each(values, AxisOrder::with_channels_at(axis)))
}

/// A constant operand: one number, or one per channel.
enum PerChannel {
    Same(f64),
    Each(Vec<f64>, AxisOrder),
}

impl PerChannel {
    /// Returns the sum of both, or `None` if they lie along different axes.
    fn plus(self, other: PerChannel) -> Option<PerChannel> {
        Some(match (self, other) {
            (PerChannel::Same(one), PerChannel::Same(other)) => PerChannel::Same(one + other),
            (PerChannel::Each(mut each, order), PerChannel::Same(one))
            | (PerChannel::Same(one), PerChannel::Each(mut each, order)) => {
                each.iter_mut().for_each(|value| *value += one);
                PerChannel::Each(each, order)
            }
            (PerChannel::Each(mut one, order), PerChannel::Each(other, others)) => {
                if order != others || one.len() != other.len() {
                    return None;
                }
                one.iter_mut().zip(other).for_each(|(one, other)| *one += other);
                PerChannel::Each(one, order)
            }
        })
    }

    fn values(&self) -> &[f64] {
        match self {
            PerChannel::Same(value) => std::slice::from_ref(value),
            PerChannel::Each(values, _) => values,
        }
    }
}

/// Returns `y = weight·x + shift`, applied to every channel.
pub fn uniform(weight: f64, shift: f64) -> LinearOp {
    let order = AxisOrder::CANONICAL;
    LinearOp::Filter { windows: Vec::new(), order, weight, shift, mean: None }
}
