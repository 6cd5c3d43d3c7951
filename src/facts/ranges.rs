//! Where integer arithmetic stays what ONNX says: nothing is divided by zero, and nothing leaves
//! the type where engines differ about what follows.
//!
//! A rule is asked about the operands of one node, with the least and the largest value of the
//! type of its result.
//!
//! Knows integers and their type; knows no operator by name.

use crate::onnx::data::TensorError;
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// A rule that tells whether ONNX says what a node computes of these operands, in a type with
/// this range.
pub type RangeRule = fn(&[TensorProto], (i128, i128)) -> Result<bool, TensorError>;

/// Returns the least and the largest value of an integer type; `None` for other types.
pub fn range_of(data_type: DataType) -> Option<(i128, i128)> {
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

/// Accepts every operand: the operation wraps, or cannot leave its range.
pub fn any(_: &[TensorProto], _: (i128, i128)) -> Result<bool, TensorError> {
    Ok(true)
}

/// Accepts quotients that exist and fit: of the least value, a quotient by −1 is one more than
/// the largest.
pub fn quotient(operands: &[TensorProto], (least, _): (i128, i128)) -> Result<bool, TensorError> {
    let (dividend, divisor) = (integers(operands, 0)?, integers(operands, 1)?);
    let overflows = least < 0 && dividend.contains(&least) && divisor.contains(&-1);
    Ok(!divisor.contains(&0) && !overflows)
}

/// Accepts values that have an opposite: the least value of a signed type has none.
pub fn opposite(operands: &[TensorProto], (least, _): (i128, i128)) -> Result<bool, TensorError> {
    Ok(least == 0 || !integers(operands, 0)?.contains(&least))
}

/// Accepts powers if the largest fits and no exponent is negative.
pub fn power(operands: &[TensorProto], (_, most): (i128, i128)) -> Result<bool, TensorError> {
    // For floats, which are no list of integers, this is an error.
    let largest = magnitudes(operands)?.into_iter().max().unwrap_or(0);
    let exponents = integers(operands, 1)?;
    let highest = exponents.iter().copied().max().unwrap_or(0);
    let highest = u32::try_from(highest).ok();
    let power = highest.and_then(|highest| largest.checked_pow(highest));
    let are_whole = exponents.iter().all(|&exponent| exponent >= 0);
    Ok(are_whole && power.is_some_and(|power| power <= most.unsigned_abs()))
}

/// Accepts sums of all elements that fit whatever the signs are: otherwise, engines saturate or
/// wrap as they like.
pub fn sum_of_all(operands: &[TensorProto], (_, most): (i128, i128)) -> Result<bool, TensorError> {
    let sum = magnitudes(operands)?.into_iter().fold(0, u128::saturating_add);
    Ok(sum <= most.unsigned_abs())
}

/// Accepts products of all elements that fit without the elements that make them smaller.
pub fn product_of_all(
    operands: &[TensorProto],
    (_, most): (i128, i128),
) -> Result<bool, TensorError> {
    let all = magnitudes(operands)?.into_iter();
    let product = all.fold(1, |product: u128, one| product.saturating_mul(one.max(1)));
    Ok(product <= most.unsigned_abs())
}

fn integers(operands: &[TensorProto], index: usize) -> Result<Vec<i128>, TensorError> {
    match operands.get(index) {
        Some(operand) => tensor::wide_integers(operand, &Storage::default()),
        None => Ok(Vec::new()),
    }
}

/// Returns the magnitudes of the first operand's elements.
fn magnitudes(operands: &[TensorProto]) -> Result<Vec<u128>, TensorError> {
    Ok(integers(operands, 0)?.into_iter().map(i128::unsigned_abs).collect())
}
