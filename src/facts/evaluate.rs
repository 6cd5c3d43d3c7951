//! Whether the engine computes a constant node as ONNX says, in the type that the node has;
//! other nodes do not count as constant. `tests/it/operators/constants.rs` compares every
//! operator in every type with what ONNX Runtime computes.
//!
//! Knows rows, types and values; knows no operator by name.

use crate::facts::ranges::range_of;
use crate::facts::row::{FoldingKind, FoldingRule};
use crate::onnx::data::TensorError;
use crate::onnx::float::Float;
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// Whether the engine computes a node of this rule as ONNX says, on operands of these types.
pub fn is_sound(rule: &FoldingRule, operands: &[TensorProto]) -> bool {
    let FoldingKind::Computes { of_integers, rounds_once_of } = rule.kind else { return true };
    let data = operands.first().map_or(0, TensorProto::data_type);
    match (Float::from_onnx(data), DataType::try_from(data)) {
        (Some(Float::F32 | Float::F64), _) => true,
        (Some(Float::F16 | Float::Bf16), _) => operands.len() <= rounds_once_of,
        (None, Ok(data)) => range_of(data).is_some() && of_integers,
        (None, Err(_)) => false,
    }
}

/// Whether ONNX says what a node of this rule computes on operands of these values, and `value`
/// is just that.
pub fn is_defined(rule: &FoldingRule, operands: &[TensorProto], value: &TensorProto) -> bool {
    let checked = || -> Result<bool, TensorError> {
        match rule.kind {
            FoldingKind::Casts => match operands.first() {
                Some(from) => return is_cast(from, value),
                None => return Ok(false),
            },
            FoldingKind::Keeps | FoldingKind::Moves => return Ok(true),
            FoldingKind::Computes { .. } => {}
        }
        // A quotient by zero, a logarithm of zero, or a sum that overflows.
        let floats = operands.iter().filter(|operand| is_float(operand));
        let all_finite = floats.map(is_finite).collect::<Result<Vec<_>, _>>()?;
        if all_finite.into_iter().all(|finite| finite) && is_float(value) && !is_finite(value)? {
            return Ok(false);
        }
        match DataType::try_from(value.data_type()).ok().and_then(range_of) {
            Some(range) => (rule.range)(operands, range),
            None => Ok(true),
        }
    };
    checked().unwrap_or(false)
}

/// Whether `value` is what a cast of `from` gives, and ONNX says so: integers are cut to their
/// lower bits, floats to their integer part; floats out of range may become anything. Floats are
/// rounded once, so that it does not matter over which type a cast goes.
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
                // 2⁶³ is a float, and is one more than the largest int64.
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
