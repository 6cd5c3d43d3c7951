//! Which constant nodes the engine computes as ONNX says, in the type that they have; all
//! others do not count as constant. `tests/constants.rs` holds every operator in every type
//! to what ONNX Runtime computes.

use crate::onnx::data::TensorError;
use crate::onnx::float::Float;
use crate::onnx::node::Node;
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// Operators that move elements or compare them: right in every type.
const MOVES: &[&str] = &[
    "And",
    "Cast",
    "CastLike",
    "Concat",
    "ConstantOfShape",
    "DepthToSpace",
    "Equal",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "Greater",
    "GreaterOrEqual",
    "Identity",
    "Less",
    "LessOrEqual",
    "Not",
    "Or",
    "Pad",
    "Reshape",
    "ScatterElements",
    "ScatterND",
    "Shape",
    "Size",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
    "Xor",
];

/// Operators on integers that wrap, or whose results [`is_defined`] holds to be in range.
/// Means are not among them (whether 5/3 is 1 or 2 is for every engine to say), nor are
/// matrix products, which no exporter computes of integers.
const OF_INTEGERS: &[&str] = &[
    "Abs",
    "Add",
    "Clip",
    "CumSum",
    "Div",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Pow",
    "Range",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Relu",
    "Sign",
    "Sub",
    "Sum",
];

/// Operators that round once per element: in 16 bits, every engine that computes them in
/// float32 and rounds gives the same (24 bits are more than 2·11 + 2, so rounding twice is
/// rounding once). A sum of several products or terms is rounded at places of the engine's
/// own.
const ROUND_ONCE: &[&str] = &[
    "Abs",
    "Add",
    "Ceil",
    "Clip",
    "Div",
    "Floor",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Reciprocal",
    "ReduceMax",
    "ReduceMin",
    "Relu",
    "Round",
    "Sign",
    "Sqrt",
    "Sub",
];

/// Whether `node` moves elements, compares or casts them.
pub fn only_moves(node: &Node) -> bool {
    node.standard_op().is_some_and(|op| MOVES.contains(&op))
}

/// Whether the engine computes `node` as ONNX says, on operands of these types.
pub fn is_sound(node: &Node, operands: &[TensorProto]) -> bool {
    let Some(op) = node.standard_op() else { return false };
    if only_moves(node) {
        return true;
    }
    let data = operands.first().map_or(0, TensorProto::data_type);
    match (Float::from_onnx(data), DataType::try_from(data)) {
        (Some(Float::F32 | Float::F64), _) => true,
        (Some(Float::F16 | Float::Bf16), _) => {
            ROUND_ONCE.contains(&op) || (op == "Sum" && operands.len() <= 2)
        }
        (None, Ok(data)) => range_of(data).is_some() && OF_INTEGERS.contains(&op),
        (None, Err(_)) => false,
    }
}

/// Whether ONNX says what `node` computes on operands of these values, and that is `value`.
pub fn is_defined(node: &Node, operands: &[TensorProto], value: &TensorProto) -> bool {
    let checked = || -> Result<bool, TensorError> {
        if matches!(node.standard_op(), Some("Cast" | "CastLike")) {
            return match operands.first() {
                Some(from) => is_cast(from, value),
                None => Ok(false),
            };
        }
        if only_moves(node) {
            return Ok(true);
        }
        // A quotient by zero, a logarithm of zero, a sum that overflows.
        let floats = operands.iter().filter(|operand| is_float(operand));
        let all_finite = floats.map(is_finite).collect::<Result<Vec<_>, _>>()?;
        if all_finite.into_iter().all(|finite| finite) && is_float(value) && !is_finite(value)? {
            return Ok(false);
        }
        match DataType::try_from(value.data_type()).ok().and_then(range_of) {
            Some(range) => is_in_range(node, operands, range),
            None => Ok(true),
        }
    };
    checked().unwrap_or(false)
}

/// The least and the largest value of an integer type.
fn range_of(data_type: DataType) -> Option<(i128, i128)> {
    use DataType as T;
    Some(match data_type {
        T::Int8 => (i8::MIN.into(), i8::MAX.into()),
        T::Uint8 => (0, u8::MAX.into()),
        T::Int16 => (i16::MIN.into(), i16::MAX.into()),
        T::Uint16 => (0, u16::MAX.into()),
        T::Int32 => (i32::MIN.into(), i32::MAX.into()),
        T::Uint32 => (0, u32::MAX.into()),
        T::Int64 => (i64::MIN.into(), i64::MAX.into()),
        T::Uint64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

/// Whether nothing is divided by zero and nothing leaves the type where it does not wrap, on
/// the way to a result in this range.
fn is_in_range(
    node: &Node,
    operands: &[TensorProto],
    (least, most): (i128, i128),
) -> Result<bool, TensorError> {
    let integers = |index: usize| match operands.get(index) {
        Some(operand) => tensor::wide_integers(operand, &Storage::default()),
        None => Ok(Vec::new()),
    };
    let magnitudes =
        |index| Ok(integers(index)?.into_iter().map(i128::unsigned_abs).collect::<Vec<u128>>());
    let fits = |magnitude: u128| magnitude <= most.unsigned_abs();
    let sum = |all: Vec<u128>| all.into_iter().fold(0, u128::saturating_add);
    Ok(match node.standard_op() {
        Some("Div" | "Mod") => {
            let (dividend, divisor) = (integers(0)?, integers(1)?);
            // Of the least, −1 makes one more than the most.
            let overflows = least < 0 && dividend.contains(&least) && divisor.contains(&-1);
            !divisor.contains(&0) && !overflows
        }
        Some("Neg" | "Abs") => least == 0 || !integers(0)?.contains(&least),
        Some("Pow") => {
            // Of floats, no list of integers comes.
            let largest = magnitudes(0)?.into_iter().max().unwrap_or(0);
            let exponents = integers(1)?;
            let highest = exponents.iter().copied().max().unwrap_or(0);
            let highest = u32::try_from(highest).ok();
            let power = highest.and_then(|highest| largest.checked_pow(highest));
            exponents.iter().all(|&exponent| exponent >= 0) && power.is_some_and(fits)
        }
        // Engines saturate or wrap as they like.
        Some("ReduceSum" | "CumSum") => fits(sum(magnitudes(0)?)),
        Some("ReduceProd") => {
            let all = magnitudes(0)?.into_iter();
            fits(all.fold(1, |product, one| product.saturating_mul(one.max(1))))
        }
        _ => true,
    })
}

/// Whether `value` is what a cast of `from` gives, and ONNX says so: integers are cut to
/// their lower bits, floats to their whole part; floats out of range are anything. Floats
/// are rounded once, so that it does not matter over which type a cast goes.
fn is_cast(from: &TensorProto, value: &TensorProto) -> Result<bool, TensorError> {
    let storage = &Storage::default();
    let to = DataType::try_from(value.data_type()).ok();
    match (is_float(from), Float::from_onnx(value.data_type())) {
        (true, Some(float)) => {
            let (from, value) = (tensor::floats(from, storage)?, tensor::floats(value, storage)?);
            let is_rounded = |(&from, &value): (&f64, &f64)| {
                let over_f32 = float.round(f64::from(from as f32));
                float.round(from) == value
                    && (over_f32 == value || from == value)
                    && value.is_finite()
            };
            Ok(from.iter().zip(&value).all(is_rounded))
        }
        (true, None) => {
            let (from, value) =
                (tensor::floats(from, storage)?, tensor::wide_integers(value, storage)?);
            let is_whole_part = |(&from, &value): (&f64, &i128)| match to.and_then(range_of) {
                // 2⁶³ is a float, and one more than the most.
                Some((least, most)) => {
                    from.is_finite()
                        && (least..=most).contains(&(from.trunc() as i128))
                        && from.trunc() as i128 == value
                }
                None => to == Some(DataType::Bool) && i128::from(from != 0.0) == value,
            };
            Ok(from.iter().zip(&value).all(is_whole_part))
        }
        (false, Some(float)) => {
            let (from, value) =
                (tensor::wide_integers(from, storage)?, tensor::floats(value, storage)?);
            let is_rounded = |(&from, &value): (&i128, &f64)| {
                let exact = from as f64;
                let over_f32 = float.round(f64::from(exact as f32));
                let is_once = float == Float::F64 || over_f32 == float.round(exact);
                float.round(exact) == value && is_once && value.is_finite()
            };
            Ok(from.iter().zip(&value).all(is_rounded))
        }
        (false, None) => {
            let (from, value) =
                (tensor::wide_integers(from, storage)?, tensor::wide_integers(value, storage)?);
            let is_cut = |(&from, &value): (&i128, &i128)| match to.and_then(range_of) {
                Some((least, most)) => {
                    let values = most.saturating_sub(least).saturating_add(1);
                    from.saturating_sub(least).rem_euclid(values).saturating_add(least) == value
                }
                None => to == Some(DataType::Bool) && i128::from(from != 0) == value,
            };
            Ok(from.iter().zip(&value).all(is_cut))
        }
    }
}

fn is_float(tensor: &TensorProto) -> bool {
    Float::from_onnx(tensor.data_type()).is_some()
}

fn is_finite(tensor: &TensorProto) -> Result<bool, TensorError> {
    Ok(tensor::floats(tensor, &Storage::default())?.iter().all(|value| value.is_finite()))
}
