//! `TensorProto` ↔ plain arrays.
//!
//! Floats of any width are widened to `f64` when they come in and rounded once
//! when they go out. A tensor is checked here, once; whoever holds the array may
//! trust its shape.

use std::fmt;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use prost::bytes::Bytes;

use crate::numbers::{self, LazyWeights, larger};
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{SparseTensorProto, TensorProto};
use crate::onnx::storage::{DataPlace, Storage, StorageError};

/// The floating point types a weight can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Float {
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
}

impl Float {
    /// The type with ONNX number `data_type`, if it is one of these.
    pub fn from_onnx(data_type: i32) -> Option<Self> {
        match DataType::try_from(data_type).ok()? {
            DataType::Float16 => Some(Float::F16),
            DataType::Bfloat16 => Some(Float::Bf16),
            DataType::Float => Some(Float::F32),
            DataType::Double => Some(Float::F64),
            _ => None,
        }
    }

    /// The type's number in `TensorProto.DataType`.
    pub fn to_onnx(self) -> i32 {
        let data_type = match self {
            Float::F16 => DataType::Float16,
            Float::Bf16 => DataType::Bfloat16,
            Float::F32 => DataType::Float,
            Float::F64 => DataType::Double,
        };
        data_type.into()
    }

    /// The value of this type that is nearest to `value` (ties to even), widened again.
    pub fn round(self, value: f64) -> f64 {
        match self {
            Float::F16 => round_to_f16(value).to_f64(),
            Float::Bf16 => round_to_bf16(value).to_f64(),
            Float::F32 => f64::from(value as f32),
            Float::F64 => value,
        }
    }

    /// Whether all values are finite when they are rounded to this type.
    pub fn holds(self, values: &[f64]) -> bool {
        // Without an early end, many are looked at at a time.
        let all = |is_finite: fn(f64) -> bool| {
            values.iter().fold(true, |all, &value| all & is_finite(value))
        };
        match self {
            Float::F16 => all(|value| round_to_f16(value).is_finite()),
            Float::Bf16 => all(|value| round_to_bf16(value).is_finite()),
            Float::F32 => all(|value| (value as f32).is_finite()),
            Float::F64 => all(f64::is_finite),
        }
    }

    /// The largest finite value.
    pub fn largest(self) -> f64 {
        match self {
            Float::F16 => f16::MAX.to_f64(),
            Float::Bf16 => bf16::MAX.to_f64(),
            Float::F32 => f32::MAX.into(),
            Float::F64 => f64::MAX,
        }
    }

    /// The smallest value above zero with all of its bits.
    pub fn smallest_normal(self) -> f64 {
        match self {
            Float::F16 => f16::MIN_POSITIVE.to_f64(),
            Float::Bf16 => bf16::MIN_POSITIVE.to_f64(),
            Float::F32 => f32::MIN_POSITIVE.into(),
            Float::F64 => f64::MIN_POSITIVE,
        }
    }

    /// How far a value between 1 and 2 is moved at most when it is rounded.
    pub fn unit(self) -> f64 {
        match self {
            Float::F16 => f16::EPSILON.to_f64() / 2.0,
            Float::Bf16 => bf16::EPSILON.to_f64() / 2.0,
            Float::F32 => f64::from(f32::EPSILON) / 2.0,
            Float::F64 => f64::EPSILON / 2.0,
        }
    }

    /// Bytes per number.
    pub fn size(self) -> usize {
        match self {
            Float::F16 | Float::Bf16 => 2,
            Float::F32 => 4,
            Float::F64 => 8,
        }
    }
}

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Float::F16 => "float16",
            Float::Bf16 => "bfloat16",
            Float::F32 => "float32",
            Float::F64 => "float64",
        })
    }
}

/// Rounds to f32 so that rounding again, to 16 bits, equals rounding once: an
/// inexact result gets an odd last bit, so it never looks like a tie.
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) == value || !nearest.is_finite() {
        return nearest;
    }
    let overshot = f64::from(nearest).abs() > value.abs();
    let toward_zero = nearest.to_bits().saturating_sub(u32::from(overshot));
    f32::from_bits(toward_zero | 1)
}

fn round_to_f16(value: f64) -> f16 {
    f16::from_f32(round_to_odd(value))
}

fn round_to_bf16(value: f64) -> bf16 {
    bf16::from_f32(round_to_odd(value))
}

/// A tensor whose parts contradict each other, or that is of no use here.
#[derive(Debug, thiserror::Error)]
#[error("tensor `{name}`: {problem}")]
pub struct TensorError {
    /// The tensor.
    pub name: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// See [`TensorError`].
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A dimension is negative, or their product overflows.
    #[error("its dimensions {0:?} are negative or too large")]
    Dims(Vec<i64>),
    /// The data does not fill the dimensions.
    #[error("its dimensions {dims:?} need {expected} {unit}, the data holds {found}")]
    Size {
        /// The shape.
        dims: Vec<i64>,
        /// What is counted: elements of a typed field, bytes of all else.
        unit: &'static str,
        /// What the shape needs.
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// Raw and typed data, or data here and in a side file.
    #[error("it stores its data in more than one place")]
    Ambiguous,
    /// Type number 0.
    #[error("its type is UNDEFINED")]
    Undefined,
    /// Not the kind of number that its use asks for.
    #[error("its type number {0} is not one that can stand here")]
    Type(i32),
    /// A value of a sparse tensor that lies outside of it.
    #[error("it has a value at {0:?}, which is outside its dimensions")]
    Place(Vec<i64>),
    /// Its side file.
    #[error(transparent)]
    External(#[from] StorageError),
}

/// Checks that `tensor` holds what its type and dimensions ask for, wherever its data
/// lies. Of types that are not known here, only the dimensions are checked.
///
/// # Errors
/// What contradicts what.
pub fn check(tensor: &TensorProto, storage: &Storage) -> Result<(), TensorError> {
    checked_dims(tensor).and_then(|_| check_data(tensor, storage)).map_err(|p| named(tensor, p))
}

/// No memory is taken for a tensor before this.
fn check_data(tensor: &TensorProto, storage: &Storage) -> Result<(), Problem> {
    let typed = [
        tensor.float_data.len(),
        tensor.int32_data.len(),
        tensor.int64_data.len(),
        tensor.double_data.len(),
        tensor.uint64_data.len(),
        tensor.string_data.len(),
    ];
    let place = DataPlace::of(tensor)?;
    let has_raw = tensor.raw_data.as_ref().is_some_and(|raw| !raw.is_empty());
    let stores = typed.iter().filter(|&&count| count > 0).count();
    if [stores, usize::from(has_raw), usize::from(place.is_some())].iter().sum::<usize>() > 1 {
        return Err(Problem::Ambiguous);
    }
    let elements = checked_dims(tensor)?.iter().product::<usize>();
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
        None => tensor.raw_data.as_ref().filter(|_| has_raw).map(Bytes::len),
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
            // LazyWeights of less than a byte stand alone or packed.
            let packed = elements.saturating_mul(bits.min(8)).div_ceil(8);
            match elements.saturating_mul(each) {
                expected if expected == found || packed == found && each == 1 => Ok(()),
                expected => size("elements", expected, found),
            }
        }
        // Strings, which are not stored raw, and types that are not known here.
        (None, _) => Ok(()),
    }
}

/// Bits per element; `None` for strings and for what is not known here.
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

/// Dimensions of `tensor`.
///
/// # Errors
/// If one is negative or their product is no `usize`.
pub fn dims(tensor: &TensorProto) -> Result<Vec<usize>, TensorError> {
    checked_dims(tensor).map_err(|problem| named(tensor, problem))
}

/// The values of a float tensor of any width, widened to `f64`.
///
/// # Errors
/// If it is not a float tensor, or its data does not fit its dimensions.
pub fn floats(tensor: &TensorProto, storage: &Storage) -> Result<ArrayD<f64>, TensorError> {
    let read = || {
        let dims = checked_dims(tensor)?;
        let float = Float::from_onnx(tensor.data_type())
            .ok_or_else(|| Problem::Type(tensor.data_type()))?;
        check_data(tensor, storage)?;
        shaped(tensor, &dims, float_values(tensor, float, storage)?)
    };
    read().map_err(|problem| named(tensor, problem))
}

/// Floats as they are stored; widened when they are read.
#[derive(Debug, Clone)]
pub struct Stored {
    bytes: Bytes,
    float: Float,
    storage: Storage,
}

/// The raw data of a float tensor; `None` if it is of another type, or stored otherwise.
///
/// # Errors
/// If its data does not fit its dimensions.
pub fn stored(tensor: &TensorProto, storage: &Storage) -> Result<Option<Stored>, TensorError> {
    check(tensor, storage)?;
    let Some(float) = Float::from_onnx(tensor.data_type()) else { return Ok(None) };
    let bytes = raw(tensor, storage).map_err(|problem| named(tensor, problem))?;
    Ok(bytes.map(|bytes| Stored { bytes, float, storage: storage.clone() }))
}

impl LazyWeights for Stored {
    fn count(&self) -> usize {
        self.bytes.len().checked_div(self.float.size()).unwrap_or(0)
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        let size = self.float.size();
        let bytes = start.checked_mul(size).and_then(|start| self.bytes.get(start..));
        let bytes = bytes.unwrap_or_default();
        match self.float {
            Float::F16 => read_into(bytes, into, |b| f16::from_le_bytes(b).to_f64()),
            Float::Bf16 => read_into(bytes, into, |b| bf16::from_le_bytes(b).to_f64()),
            Float::F32 => read_into(bytes, into, |b| f64::from(f32::from_le_bytes(b))),
            Float::F64 => read_into(bytes, into, f64::from_le_bytes),
        }
        self.storage.has_read(into.len().saturating_mul(size));
    }
}

/// How large the numbers of a tensor are, by rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extremes {
    /// The largest of all; NaN if one is no number.
    pub most: f64,
    /// The smallest of the rows' largest, rows of zeros left out; infinite if there are no
    /// others.
    pub least: f64,
    /// Whether a row is all zeros.
    pub has_zeros: bool,
}

impl Extremes {
    /// Of no rows.
    const NONE: Extremes = Extremes { most: 0.0, least: f64::INFINITY, has_zeros: false };

    /// With one more row, whose largest number is `largest`.
    fn with_row(self, largest: f64) -> Self {
        Extremes {
            most: larger(self.most, largest),
            least: if largest > 0.0 { self.least.min(largest) } else { self.least },
            has_zeros: self.has_zeros || largest == 0.0,
        }
    }
}

/// How large the numbers of a float tensor are, whose rows have `row` elements. One pass over
/// its bytes, which are not widened where they lie in a row.
///
/// # Errors
/// As [`floats`].
pub fn extremes(
    tensor: &TensorProto,
    storage: &Storage,
    row: usize,
) -> Result<Extremes, TensorError> {
    let read = || -> Result<Option<Extremes>, Problem> {
        check_data(tensor, storage)?;
        let Some(bytes) = raw(tensor, storage)? else { return Ok(None) };
        let found = match Float::from_onnx(tensor.data_type()) {
            Some(Float::F16) => of_bits(
                &bytes,
                row,
                |b| u16::from_le_bytes(b) & 0x7fff,
                |bits| f16::from_bits(bits).to_f64(),
            ),
            Some(Float::Bf16) => of_bits(
                &bytes,
                row,
                |b| u16::from_le_bytes(b) & 0x7fff,
                |bits| bf16::from_bits(bits).to_f64(),
            ),
            Some(Float::F32) => of_bits(
                &bytes,
                row,
                |b| u32::from_le_bytes(b) & (u32::MAX >> 1),
                |bits| f32::from_bits(bits).into(),
            ),
            Some(Float::F64) => {
                of_bits(&bytes, row, |b| u64::from_le_bytes(b) & (u64::MAX >> 1), f64::from_bits)
            }
            None => return Err(Problem::Type(tensor.data_type())),
        };
        storage.has_read(bytes.len());
        Ok(Some(found))
    };
    if let Some(found) = read().map_err(|problem| named(tensor, problem))? {
        return Ok(found);
    }
    let values: Vec<f64> = floats(tensor, storage)?.into_iter().map(f64::abs).collect();
    let rows = values.chunks(row.max(1)).map(|row| row.iter().copied().fold(0.0, larger));
    Ok(rows.fold(Extremes::NONE, Extremes::with_row))
}

/// Without their sign, floats are ordered as their bits are, infinity and NaN at the end.
fn of_bits<const N: usize, B: Copy + Default + Ord>(
    bytes: &[u8],
    row: usize,
    bits: impl Fn([u8; N]) -> B,
    value: impl Fn(B) -> f64,
) -> Extremes {
    let (numbers, _) = bytes.as_chunks::<N>();
    let rows = numbers.chunks(row.max(1));
    let largest = rows.map(|row| row.iter().map(|&number| bits(number)).fold(B::default(), B::max));
    largest.fold(Extremes::NONE, |found, largest| found.with_row(value(largest)))
}

fn read_into<const N: usize>(bytes: &[u8], into: &mut [f64], decode: impl Fn([u8; N]) -> f64) {
    let (chunks, _) = bytes.as_chunks::<N>();
    into.iter_mut().zip(chunks).for_each(|(value, &chunk)| *value = decode(chunk));
}

/// The values of an int64 or int32 tensor.
///
/// # Errors
/// If it is of another type, or its data does not fit its dimensions.
pub fn integers(tensor: &TensorProto, storage: &Storage) -> Result<Vec<i64>, TensorError> {
    let read = || {
        let dims = checked_dims(tensor)?;
        check_data(tensor, storage)?;
        let values = match DataType::try_from(tensor.data_type()) {
            Ok(DataType::Int64) => match raw(tensor, storage)? {
                Some(bytes) => little_endian(&bytes, i64::from_le_bytes),
                None => tensor.int64_data.clone(),
            },
            Ok(DataType::Int32) => match raw(tensor, storage)? {
                Some(bytes) => little_endian(&bytes, |b| i64::from(i32::from_le_bytes(b))),
                None => tensor.int32_data.iter().map(|&v| i64::from(v)).collect(),
            },
            Ok(DataType::Bool) => match raw(tensor, storage)? {
                Some(bytes) => bytes.iter().map(|&byte| i64::from(byte != 0)).collect(),
                None => tensor.int32_data.iter().map(|&v| i64::from(v != 0)).collect(),
            },
            _ => return Err(Problem::Type(tensor.data_type())),
        };
        Ok(shaped(tensor, &dims, values)?.into_raw_vec_and_offset().0)
    };
    read().map_err(|problem| named(tensor, problem))
}

/// The values of a tensor of integers or booleans of any width.
///
/// # Errors
/// If it is of another type, or its data does not fit its dimensions.
pub fn wide_integers(tensor: &TensorProto, storage: &Storage) -> Result<Vec<i128>, TensorError> {
    use DataType as T;
    let read = || {
        let dims = checked_dims(tensor)?;
        check_data(tensor, storage)?;
        let raw = raw(tensor, storage)?;
        // Narrow ones are stored as int32, the widest unsigned ones as uint64.
        let int32s = || tensor.int32_data.iter().map(|&value| value.into()).collect();
        let uint64s = || tensor.uint64_data.iter().map(|&value| value.into()).collect();
        let int64s = || tensor.int64_data.iter().map(|&value| value.into()).collect();
        let bytes = raw.as_deref();
        let values = match DataType::try_from(tensor.data_type()) {
            Ok(T::Bool) => bytes.map_or_else(int32s, |b| wide(b, |[byte]| (byte != 0).into())),
            Ok(T::Int8) => bytes.map_or_else(int32s, |b| wide(b, |b| i8::from_le_bytes(b).into())),
            Ok(T::Uint8) => bytes.map_or_else(int32s, |b| wide(b, |b| u8::from_le_bytes(b).into())),
            Ok(T::Int16) => {
                bytes.map_or_else(int32s, |b| wide(b, |b| i16::from_le_bytes(b).into()))
            }
            Ok(T::Uint16) => {
                bytes.map_or_else(int32s, |b| wide(b, |b| u16::from_le_bytes(b).into()))
            }
            Ok(T::Int32) => {
                bytes.map_or_else(int32s, |b| wide(b, |b| i32::from_le_bytes(b).into()))
            }
            Ok(T::Uint32) => {
                bytes.map_or_else(uint64s, |b| wide(b, |b| u32::from_le_bytes(b).into()))
            }
            Ok(T::Uint64) => {
                bytes.map_or_else(uint64s, |b| wide(b, |b| u64::from_le_bytes(b).into()))
            }
            Ok(T::Int64) => {
                bytes.map_or_else(int64s, |b| wide(b, |b| i64::from_le_bytes(b).into()))
            }
            _ => return Err(Problem::Type(tensor.data_type())),
        };
        Ok(shaped(tensor, &dims, values)?.into_raw_vec_and_offset().0)
    };
    read().map_err(|problem| named(tensor, problem))
}

fn wide<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> i128) -> Vec<i128> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&chunk| decode(chunk)).collect()
}

/// The same tensor with its data inside the message.
///
/// # Errors
/// If its side file cannot be read.
pub fn inlined(tensor: &TensorProto, storage: &Storage) -> Result<TensorProto, TensorError> {
    let place = DataPlace::of(tensor).map_err(|problem| named(tensor, problem.into()))?;
    let Some(place) = place else { return Ok(tensor.clone()) };
    let data = storage.data(&place).map_err(|problem| named(tensor, problem.into()))?;
    Ok(TensorProto {
        raw_data: Some(data),
        external_data: Vec::new(),
        data_location: None,
        ..tensor.clone()
    })
}

/// A sparse float tensor written out; `None` if it is of another type. Whether there is
/// memory for all its elements is for the caller to know.
///
/// # Errors
/// If its places do not lie in its dimensions.
pub fn dense(
    sparse: &SparseTensorProto,
    storage: &Storage,
) -> Result<Option<TensorProto>, TensorError> {
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else { return Ok(None) };
    let Some(float) = Float::from_onnx(values.data_type()) else { return Ok(None) };
    let shape = TensorProto { dims: sparse.dims.clone(), ..values.as_ref().clone() };
    let dims = dims(&shape)?;
    let mut written = ArrayD::zeros(IxDyn(&dims));
    let places = integers(indices, storage)?;
    // One flat place per value, or one per axis.
    let sizes = if indices.dims.len() == 2 { dims } else { vec![written.len()] };
    let slots = written.as_slice_mut().unwrap_or_default();
    for (place, value) in places.chunks(sizes.len().max(1)).zip(floats(values, storage)?) {
        let at = place.iter().zip(&sizes).try_fold(0, |at, (&index, &size)| {
            let index = usize::try_from(index).ok().filter(|&index| index < size)?;
            usize::checked_mul(at, size)?.checked_add(index)
        });
        let outside = || named(values, Problem::Place(place.to_vec()));
        *at.and_then(|at| slots.get_mut(at)).ok_or_else(outside)? = value;
    }
    Ok(Some(from_floats(values.name(), &written, float)))
}

/// A tensor of type `float` that holds `values`, each rounded once.
pub fn from_floats(name: &str, values: &ArrayD<f64>, float: Float) -> TensorProto {
    let dims: Vec<i64> = values.shape().iter().map(|&dim| dim as i64).collect();
    let raw = match values.as_slice() {
        Some(values) => rounded(values, float),
        None => rounded(&values.iter().copied().collect::<Vec<f64>>(), float),
    };
    TensorProto { raw_data: Some(raw.into()), ..header(name, &dims, float.to_onnx()) }
}

/// Each number rounded once, as raw data.
pub fn rounded(values: &[f64], float: Float) -> Vec<u8> {
    match float {
        Float::F16 => encoded(values, |v| round_to_f16(v).to_le_bytes()),
        Float::Bf16 => encoded(values, |v| round_to_bf16(v).to_le_bytes()),
        Float::F32 => encoded(values, |v| (v as f32).to_le_bytes()),
        Float::F64 => encoded(values, f64::to_le_bytes),
    }
}

fn encoded<const N: usize>(values: &[f64], encode: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
    let mut raw = vec![0; values.len().saturating_mul(N)];
    let (chunks, _) = raw.as_chunks_mut::<N>();
    chunks.iter_mut().zip(values).for_each(|(chunk, &value)| *chunk = encode(value));
    raw
}

/// An int64 vector.
pub fn from_integers(name: &str, values: &[i64]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let header = header(name, &[values.len() as i64], DataType::Int64.into());
    TensorProto { raw_data: Some(raw.into()), ..header }
}

/// A tensor without its data.
pub fn header(name: &str, dims: &[i64], data_type: i32) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(data_type),
        ..TensorProto::default()
    }
}

fn named(tensor: &TensorProto, problem: Problem) -> TensorError {
    TensorError { name: tensor.name().to_owned(), problem }
}

fn checked_dims(tensor: &TensorProto) -> Result<Vec<usize>, Problem> {
    let invalid = || Problem::Dims(tensor.dims.clone());
    let dims: Vec<usize> = tensor
        .dims
        .iter()
        .map(|&dim| usize::try_from(dim).map_err(|_| invalid()))
        .collect::<Result<_, _>>()?;
    // Zero dimensions must not hide an overflow of the others.
    let product =
        dims.iter().filter(|&&dim| dim > 0).try_fold(1usize, |a, &dim| a.checked_mul(dim));
    match product {
        Some(elements) if elements <= isize::MAX as usize / 8 => Ok(dims),
        _ => Err(invalid()),
    }
}

fn shaped<T>(tensor: &TensorProto, dims: &[usize], values: Vec<T>) -> Result<ArrayD<T>, Problem> {
    let found = values.len();
    ArrayD::from_shape_vec(IxDyn(dims), values).map_err(|_| Problem::Size {
        dims: tensor.dims.clone(),
        unit: "elements",
        expected: dims.iter().product(),
        found,
    })
}

/// The raw little-endian bytes, wherever they lie; `None` if the typed fields hold the data.
fn raw(tensor: &TensorProto, storage: &Storage) -> Result<Option<Bytes>, Problem> {
    match DataPlace::of(tensor)? {
        Some(place) => Ok(Some(storage.data(&place)?)),
        None => Ok(tensor.raw_data.clone()),
    }
}

fn float_values(
    tensor: &TensorProto,
    float: Float,
    storage: &Storage,
) -> Result<Vec<f64>, Problem> {
    if let Some(bytes) = raw(tensor, storage)? {
        let stored = Stored { bytes, float, storage: storage.clone() };
        return Ok(numbers::all(&stored));
    }
    // onnx.proto: 16-bit floats stand bit-wise in int32_data.
    let halves = || tensor.int32_data.iter().map(|&bits| bits as u16);
    Ok(match float {
        Float::F16 => halves().map(|bits| f16::from_bits(bits).to_f64()).collect(),
        Float::Bf16 => halves().map(|bits| bf16::from_bits(bits).to_f64()).collect(),
        Float::F32 => tensor.float_data.iter().map(|&value| f64::from(value)).collect(),
        Float::F64 => tensor.double_data.clone(),
    })
}

fn little_endian<T, const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&chunk| decode(chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows, and the largest, the smallest of the rows' largest, and whether one is zero.
    #[test]
    fn extremes_are_those_of_rows() {
        type Case<'c> = (&'c [f64], usize, f64, f64, bool);
        let cases: [Case; 4] = [
            (&[1.0, -2.0, 0.5, 0.25], 2, 2.0, 0.5, false),
            (&[1.0, -2.0, 0.0, 0.0], 2, 2.0, 2.0, true),
            (&[0.0, 0.0], 1, 0.0, f64::INFINITY, true),
            (&[1.0, f64::NEG_INFINITY], 1, f64::INFINITY, 1.0, false),
        ];
        for (values, row, most, least, has_zeros) in cases {
            for float in [Float::F16, Float::Bf16, Float::F32, Float::F64] {
                let array = ArrayD::from_shape_vec(IxDyn(&[values.len()]), values.to_vec());
                let tensor = from_floats("w", &array.unwrap(), float);
                let found = extremes(&tensor, &Storage::default(), row).unwrap();
                assert_eq!(found, Extremes { most, least, has_zeros }, "{values:?} {float}");
            }
        }
        let typed = TensorProto {
            float_data: vec![f32::NAN, 1.0],
            raw_data: None,
            ..header("w", &[2], Float::F32.to_onnx())
        };
        assert!(extremes(&typed, &Storage::default(), 1).unwrap().most.is_nan());
    }

    fn proto(dims: &[i64], data_type: DataType) -> TensorProto {
        TensorProto {
            name: Some("w".into()),
            dims: dims.to_vec(),
            data_type: Some(data_type.into()),
            ..TensorProto::default()
        }
    }

    #[test]
    fn sparse_tensors_are_written_out() {
        let values = from_floats("w", &ndarray::arr1(&[5.0, 7.0]).into_dyn(), Float::F32);
        let sparse = |places: &[i64], dims: &[i64]| SparseTensorProto {
            values: Some(values.clone().into()),
            indices: Some(TensorProto { dims: dims.to_vec(), ..from_integers("i", places) }.into()),
            dims: vec![2, 3],
        };
        let storage = Storage::default();
        for (case, places, dims) in
            [("flat", &[1, 5][..], &[2][..]), ("by axis", &[0, 1, 1, 2], &[2, 2])]
        {
            let dense = dense(&sparse(places, dims), &storage).unwrap().unwrap();
            let dense = floats(&dense, &storage).unwrap();
            assert_eq!(dense.as_slice().unwrap(), [0., 5., 0., 0., 0., 7.], "{case}");
        }
        for outside in [&[1, 6], &[-1, 2]] {
            assert!(dense(&sparse(outside, &[2]), &storage).is_err(), "{outside:?}");
        }
    }

    #[test]
    fn every_way_to_store_a_float_is_read() {
        let raw = |dims: &[i64], t, bytes: &'static [u8]| TensorProto {
            raw_data: Some(Bytes::from_static(bytes)),
            ..proto(dims, t)
        };
        for (case, tensor) in [
            ("raw f32", raw(&[2], DataType::Float, &[0, 0, 128, 63, 0, 0, 0, 192])),
            ("raw f16", raw(&[2], DataType::Float16, &[0, 0x3c, 0, 0xc0])),
            ("raw bf16", raw(&[2], DataType::Bfloat16, &[0x80, 0x3f, 0, 0xc0])),
            (
                "raw f64",
                raw(
                    &[2],
                    DataType::Double,
                    &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0],
                ),
            ),
            ("f32", TensorProto { float_data: vec![1.0, -2.0], ..proto(&[2], DataType::Float) }),
            ("f64", TensorProto { double_data: vec![1.0, -2.0], ..proto(&[2], DataType::Double) }),
            (
                "f16",
                TensorProto { int32_data: vec![0x3c00, 0xc000], ..proto(&[2], DataType::Float16) },
            ),
            (
                "bf16",
                TensorProto { int32_data: vec![0x3f80, 0xc000], ..proto(&[2], DataType::Bfloat16) },
            ),
        ] {
            let values = floats(&tensor, &Storage::default()).unwrap();
            assert_eq!(values.as_slice().unwrap(), [1.0, -2.0], "{case}");
        }
    }

    #[test]
    fn a_tensor_that_lies_is_refused_by_name() {
        let raw = |dims: &[i64], length: usize| TensorProto {
            raw_data: Some(vec![0; length].into()),
            ..proto(dims, DataType::Float)
        };
        for (case, tensor, message) in [
            ("short", raw(&[2, 3], 20), "need 24 bytes, the data holds 20"),
            ("long", raw(&[2], 12), "need 8 bytes, the data holds 12"),
            ("odd", raw(&[2], 9), "need 8 bytes, the data holds 9"),
            ("two stores", TensorProto { float_data: vec![1.0], ..raw(&[1], 4) }, "than one place"),
            ("enormous", raw(&[1 << 40], 4), "need 4398046511104 bytes, the data holds 4"),
            ("negative", raw(&[-1], 4), "negative or too large"),
            ("overflow", raw(&[i64::MAX, 4, 0], 0), "negative or too large"),
            ("integers", proto(&[1], DataType::Int64), "type number 7"),
            ("no data", proto(&[1], DataType::Float), "need 1 elements, the data holds 0"),
        ] {
            let error = floats(&tensor, &Storage::default()).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains("`w`"), "{case}: {error}");
        }
    }

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

    #[test]
    fn rounding_happens_once() {
        // Just above the tie between two bf16 values, but on it after rounding to f32.
        let value = f64::from(f32::from_bits(0x3f80_8000)) + 1e-12;
        assert_eq!(round_to_bf16(value).to_bits(), 0x3f81);
        assert_eq!(round_to_bf16(-value).to_bits(), 0xbf81);
        let below = f64::from(f32::from_bits(0x3f81_8000)) - 1e-12;
        assert_eq!(round_to_bf16(below).to_bits(), 0x3f81);
        for float in [Float::F16, Float::Bf16, Float::F32, Float::F64] {
            let array = ArrayD::from_elem(IxDyn(&[1]), 0.1);
            let back = floats(&from_floats("w", &array, float), &Storage::default()).unwrap();
            assert_eq!(back[0], float.round(0.1), "{float:?}");
            assert_eq!(float.round(back[0]), back[0]);
        }
    }
}
