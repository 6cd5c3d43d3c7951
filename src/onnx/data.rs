//! The check that a stored tensor has the amount of data that its type and dimensions require,
//! wherever the data lies. It is made once, and before memory is allocated for the values.
//!
//! Knows the message and where its bytes lie; the values are read in
//! [`tensor`](crate::onnx::tensor).

use prost::bytes::Bytes;

use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::storage::{DataPlace, Storage, StorageError};

/// The error that a tensor contradicts itself, or cannot be used in its place.
#[derive(Debug, thiserror::Error)]
#[error("tensor `{name}`: {problem}")]
pub struct TensorError {
    /// The name of the tensor.
    pub name: String,
    /// What is wrong with the tensor.
    pub problem: Problem,
}

/// What is wrong with a tensor; see [`TensorError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A dimension is negative, or the product of the dimensions is too large.
    #[error("its dimensions {0:?} are negative or too large")]
    Dims(Vec<i64>),
    /// The amount of data does not match the dimensions.
    #[error("its dimensions {dims:?} need {expected} {unit}, the data holds {found}")]
    Size {
        /// The shape.
        dims: Vec<i64>,
        /// The unit of the counts: elements in a typed field, otherwise bytes.
        unit: &'static str,
        /// The amount that the shape requires.
        expected: usize,
        /// The amount that is stored.
        found: usize,
    },
    /// There are both raw and typed data, or data both here and in a side file.
    #[error("it stores its data in more than one place")]
    Ambiguous,
    /// The element type is number 0.
    #[error("its type is UNDEFINED")]
    Undefined,
    /// The element type does not suit the tensor's use.
    #[error("its type number {0} is not one that can stand here")]
    Type(i32),
    /// A value of a sparse tensor lies outside its dimensions.
    #[error("it has a value at {0:?}, which is outside its dimensions")]
    Place(Vec<i64>),
    /// The data in its side file cannot be used.
    #[error(transparent)]
    External(#[from] StorageError),
}

/// Checks that `tensor` has the data that its type and dimensions require, wherever it lies. If
/// its type is unknown here, only the dimensions are checked.
///
/// # Errors
/// Returns the first contradiction.
pub fn check(tensor: &TensorProto, storage: &Storage) -> Result<(), TensorError> {
    element_count(tensor).and_then(|_| check_data(tensor, storage)).map_err(|p| named(tensor, p))
}

/// Returns the dimensions of `tensor`.
///
/// # Errors
/// Returns an error if one is negative, or if their product, zeros left out, exceeds
/// `isize::MAX / 8`.
pub fn dims(tensor: &TensorProto) -> Result<Vec<usize>, TensorError> {
    checked_dims(tensor).map_err(|problem| named(tensor, problem))
}

/// Returns the number of elements of `tensor`.
///
/// # Errors
/// Same as [`dims`].
pub fn elements(tensor: &TensorProto) -> Result<usize, TensorError> {
    element_count(tensor).map_err(|problem| named(tensor, problem))
}

/// Checks that the data matches the type and dimensions. No memory is allocated for values
/// before this.
pub(super) fn check_data(tensor: &TensorProto, storage: &Storage) -> Result<(), Problem> {
    let typed = [
        tensor.float_data.len(),
        tensor.int32_data.len(),
        tensor.int64_data.len(),
        tensor.double_data.len(),
        tensor.uint64_data.len(),
        tensor.string_data.len(),
    ];
    let place = DataPlace::of(tensor)?;
    let stores = typed.iter().filter(|&&count| count > 0).count();
    if [stores, usize::from(raw_data(tensor).is_some()), usize::from(place.is_some())]
        .iter()
        .sum::<usize>()
        > 1
    {
        return Err(Problem::Ambiguous);
    }
    let elements = element_count(tensor)?;
    let bits = match tensor.data_type() {
        0 => return Err(Problem::Undefined),
        data_type => bits_of(data_type),
    };
    let size = |unit, expected, found| {
        let dims = tensor.dims.clone();
        Err(Problem::Size { dims, unit, expected, found })
    };
    let raw = match place {
        Some(place) => Some(storage.data(&place)?.len()),
        None => raw_data(tensor).map(Bytes::len),
    };
    match (bits, raw) {
        (Some(bits), Some(found)) => match elements.saturating_mul(bits).div_ceil(8) {
            expected if expected == found => Ok(()),
            expected => size("bytes", expected, found),
        },
        (Some(bits), None) => {
            let [floats, int32s, int64s, doubles, uint64s, _] = typed;
            let (found, each) = match DataType::try_from(tensor.data_type()) {
                Ok(DataType::Float) => (floats, 1),
                Ok(DataType::Complex64) => (floats, 2),
                Ok(DataType::Double) => (doubles, 1),
                Ok(DataType::Complex128) => (doubles, 2),
                Ok(DataType::Int64) => (int64s, 1),
                Ok(DataType::Uint32 | DataType::Uint64) => (uint64s, 1),
                _ => (int32s, 1),
            };
            // Elements narrower than a byte are stored one per number, or packed.
            let packed = elements.saturating_mul(bits.min(8)).div_ceil(8);
            match elements.saturating_mul(each) {
                expected if expected == found || packed == found && each == 1 => Ok(()),
                expected => size("elements", expected, found),
            }
        }
        // Strings, which are not stored raw, and unknown types.
        (None, _) => Ok(()),
    }
}

pub(super) fn checked_dims(tensor: &TensorProto) -> Result<Vec<usize>, Problem> {
    element_count(tensor)?;
    Ok(tensor.dims.iter().filter_map(|&dim| usize::try_from(dim).ok()).collect())
}

/// Returns the product of the dimensions, each of which is then a `usize`.
fn element_count(tensor: &TensorProto) -> Result<usize, Problem> {
    let invalid = || Problem::Dims(tensor.dims.clone());
    let (mut count, mut has_elements) = (1usize, true);
    for &dim in &tensor.dims {
        let dim = usize::try_from(dim).map_err(|_| invalid())?;
        has_elements &= dim > 0;
        // A dimension of zero must not hide an overflow of the others.
        count = count.checked_mul(dim.max(1)).ok_or_else(invalid)?;
    }
    match count {
        count if count > isize::MAX as usize / 8 => Err(invalid()),
        count => Ok(if has_elements { count } else { 0 }),
    }
}

/// Returns the bits per element; `None` for strings and unknown types.
fn bits_of(data_type: i32) -> Option<usize> {
    use DataType as T;
    match DataType::try_from(data_type).ok()? {
        T::Bool | T::Int8 | T::Uint8 => Some(8),
        T::Float8e4m3fn | T::Float8e4m3fnuz | T::Float8e5m2 | T::Float8e5m2fnuz => Some(8),
        T::Float8e8m0 => Some(8),
        T::Int16 | T::Uint16 | T::Float16 | T::Bfloat16 => Some(16),
        T::Int32 | T::Uint32 | T::Float => Some(32),
        T::Int64 | T::Uint64 | T::Double | T::Complex64 => Some(64),
        T::Complex128 => Some(128),
        T::Int4 | T::Uint4 | T::Float4e2m1 => Some(4),
        T::Int2 | T::Uint2 => Some(2),
        _ => None,
    }
}

/// Returns the raw bytes inside the tensor; an empty field does not count as data.
pub fn raw_data(tensor: &TensorProto) -> Option<&Bytes> {
    tensor.raw_data.as_ref().filter(|raw| !raw.is_empty())
}

/// Returns the raw little-endian bytes, wherever they lie; `None` if the data is in a typed field.
pub(super) fn raw(tensor: &TensorProto, storage: &Storage) -> Result<Option<Bytes>, Problem> {
    match DataPlace::of(tensor)? {
        Some(place) => Ok(Some(storage.data(&place)?)),
        None => Ok(raw_data(tensor).cloned()),
    }
}

pub(super) fn named(tensor: &TensorProto, problem: Problem) -> TensorError {
    TensorError { name: tensor.name().to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_store() {
        let int32s = |count| TensorProto { int32_data: vec![0; count], ..TensorProto::default() };
        let floats = |count| TensorProto { float_data: vec![0.0; count], ..TensorProto::default() };
        let raw =
            |count| TensorProto { raw_data: Some(vec![0; count].into()), ..TensorProto::default() };
        for (case, data_type, store, good) in [
            ("undefined", 0, raw(3), false),
            ("int8", 3, int32s(3), true),
            ("float8", 17, raw(3), true),
            ("int8 as floats", 3, floats(3), false),
            ("complex", 14, floats(6), true),
            ("half of a complex", 14, floats(3), false),
            ("int4, packed", 22, int32s(2), true),
            ("int4, raw", 22, raw(2), true),
            ("int4, one byte each", 22, raw(3), false),
            ("of the future", 99, raw(1), true),
        ] {
            let tensor = TensorProto { data_type: Some(data_type), dims: vec![3], ..store };
            assert_eq!(check(&tensor, &Storage::default()).is_ok(), good, "{case}");
        }
    }
}
