//! Conversion between `TensorProto` and plain arrays.
//!
//! A tensor is checked (see [`data`](crate::onnx::data)) when it is read, so the shape of the
//! resulting array can be trusted. Knows nothing of what an array is for.

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use prost::bytes::Bytes;

use crate::numbers::LazyWeights;
use crate::onnx::data::{Problem, TensorError, check, check_data, checked_dims, dims, named, raw};
use crate::onnx::float::Float;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{SparseTensorProto, TensorProto};
use crate::onnx::storage::{DataPlace, Storage};

/// Returns the values of a float tensor of any width, widened to `f64`.
///
/// # Errors
/// Returns an error if it is not a float tensor, or its data does not fit its dimensions.
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

/// The raw data of a float tensor, widened on reading.
#[derive(Debug, Clone)]
pub struct StoredFloats {
    bytes: Bytes,
    float: Float,
    storage: Storage,
}

/// A stored constant: an initializer, or the tensor of a Constant.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "it is looked at and dropped, never kept")]
pub enum Initializer {
    /// A tensor with all its elements.
    Dense(TensorProto),
    /// A tensor with only the elements that are not zero.
    Sparse(SparseTensorProto),
}

impl Initializer {
    /// Returns the element type (`TensorProto.DataType`).
    pub fn element_type(&self) -> i32 {
        match self {
            Initializer::Dense(tensor) => tensor.data_type(),
            Initializer::Sparse(sparse) => {
                sparse.values.as_ref().map_or(0, |values| values.data_type())
            }
        }
    }
}

/// Returns the raw data of a float tensor; `None` if the tensor has another type, or is not
/// stored as raw data.
///
/// # Errors
/// Returns an error if its data does not fit its dimensions.
pub fn stored(
    tensor: &TensorProto,
    storage: &Storage,
) -> Result<Option<StoredFloats>, TensorError> {
    check(tensor, storage)?;
    let Some(float) = Float::from_onnx(tensor.data_type()) else { return Ok(None) };
    let bytes = raw(tensor, storage).map_err(|problem| named(tensor, problem))?;
    Ok(bytes.map(|bytes| StoredFloats { bytes, float, storage: storage.clone() }))
}

impl LazyWeights for StoredFloats {
    fn count(&self) -> usize {
        self.bytes.len().checked_div(self.float.size()).unwrap_or(0)
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        let size = self.float.size();
        let bytes = start.checked_mul(size).and_then(|start| self.bytes.get(start..));
        self.float.decode(bytes.unwrap_or_default(), into);
        self.storage.has_read(into.len().saturating_mul(size));
    }
}

/// Returns the values of an int64, int32 or boolean tensor.
///
/// # Errors
/// Returns an error if it has another type, or its data does not fit its dimensions.
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

/// Returns the values of an integer tensor of any width, or of a boolean one.
///
/// # Errors
/// Returns an error if it has another type, or its data does not fit its dimensions.
pub fn wide_integers(tensor: &TensorProto, storage: &Storage) -> Result<Vec<i128>, TensorError> {
    use DataType as T;
    let read = || {
        let dims = checked_dims(tensor)?;
        check_data(tensor, storage)?;
        let raw = raw(tensor, storage)?;
        // Integers of up to 32 bits are stored as int32, except uint32, which is stored as
        // uint64 is.
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

/// Returns the same tensor with its data inside the message.
///
/// # Errors
/// Returns an error if its side file cannot be read.
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

/// Returns a sparse float tensor as a dense one; `None` if it has another type or is
/// incomplete. The caller ensures that there is memory for all elements.
///
/// # Errors
/// Returns an error if an index lies outside the dimensions, or if a part of it is malformed.
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
    // Indices are either linear, one per value, or coordinates, one per axis and value.
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

/// Returns a tensor of type `float` that holds `values`, each rounded once.
pub fn from_floats(name: &str, values: &ArrayD<f64>, float: Float) -> TensorProto {
    let dims: Vec<i64> = values.shape().iter().map(|&dim| dim as i64).collect();
    let raw = match values.as_slice() {
        Some(values) => float.encode(values),
        None => float.encode(&values.iter().copied().collect::<Vec<f64>>()),
    };
    TensorProto { raw_data: Some(raw.into()), ..header(name, &dims, float.to_onnx()) }
}

/// Returns an int64 vector.
pub fn from_integers(name: &str, values: &[i64]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let header = header(name, &[values.len() as i64], DataType::Int64.into());
    TensorProto { raw_data: Some(raw.into()), ..header }
}

/// Returns a tensor without its data.
pub fn header(name: &str, dims: &[i64], data_type: i32) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(data_type),
        ..TensorProto::default()
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

fn float_values(
    tensor: &TensorProto,
    float: Float,
    storage: &Storage,
) -> Result<Vec<f64>, Problem> {
    if let Some(bytes) = raw(tensor, storage)? {
        let mut values = vec![0.0; bytes.len().checked_div(float.size()).unwrap_or(0)];
        float.decode(&bytes, &mut values);
        storage.has_read(bytes.len());
        return Ok(values);
    }
    // According to onnx.proto, 16-bit floats are stored bit-wise in int32_data.
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
    use crate::numbers;

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
            (
                "f32 beside raw data without a byte",
                TensorProto { float_data: vec![1.0, -2.0], ..raw(&[2], DataType::Float, &[]) },
            ),
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
            let raw = stored(&tensor, &Storage::default()).unwrap();
            assert_eq!(raw.is_some(), case.starts_with("raw"), "{case}");
            assert!(raw.is_none_or(|raw| numbers::all(&raw) == [1.0, -2.0]), "{case}");
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
}
