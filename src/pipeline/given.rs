//! Tensors that a caller gives for the run of both models, from the bytes that ONNX stores
//! one in.
//!
//! Knows how ONNX stores a tensor; not which input one is for.

use ndarray::ArrayD;
use prost::Message;

use crate::engine::Array;
use crate::onnx::data::{self, TensorError};
use crate::onnx::float::Float;
use crate::onnx::proto::TensorProto;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// The tensor in a file of ONNX's test data: a `TensorProto` that holds its own data.
///
/// # Errors
/// What is wrong with it.
pub fn tensor_from_onnx(bytes: &[u8]) -> Result<Array, String> {
    let stored = TensorProto::decode(bytes).map_err(|error| error.to_string())?;
    let array = match Float::from_onnx(stored.data_type()) {
        Some(_) => tensor::floats(&stored, &Storage::default()).map(Array::Float),
        None => integers(&stored),
    };
    array.map_err(|error| error.to_string())
}

fn integers(stored: &TensorProto) -> Result<Array, TensorError> {
    let (values, dims) = (tensor::integers(stored, &Storage::default())?, data::dims(stored)?);
    // The number of values was checked against the dimensions.
    Ok(Array::Int(ArrayD::from_shape_vec(dims, values).unwrap_or_default()))
}
