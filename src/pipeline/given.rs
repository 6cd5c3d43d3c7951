//! Tensors that a caller gives for the run of both models: from the bytes that ONNX stores
//! one in, and whether an input of some type takes one.
//!
//! Knows how ONNX stores a tensor; not which input one is for.

use ndarray::ArrayD;
use prost::Message;

use crate::engine::Array;
use crate::facts::ranges::range_of;
use crate::onnx::data::{self, TensorError};
use crate::onnx::float::Float;
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;
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

/// Why an input of this element type (`TensorProto.DataType`) cannot be fed with `array`:
/// what is cast to another type, or is no finite number in it, is not what the caller means.
/// `None` if it can.
pub fn misfit(array: &Array, element_type: i32) -> Option<String> {
    match (array, Float::from_onnx(element_type)) {
        (Array::Float(values), Some(float)) => {
            let beyond = values.iter().find(|&&value| !float.round(value).is_finite())?;
            Some(format!(
                "an element is {beyond:e} in {float}; both models agree for finite inputs only"
            ))
        }
        (Array::Int(_), Some(float)) => {
            Some(format!("the input is of {float}, and not of integers"))
        }
        (Array::Float(_), None) => {
            Some(format!("the input is of {}, and not of floats", name_of(element_type)))
        }
        (Array::Int(values), None) => {
            let Some((least, most)) = range(element_type) else {
                return Some(format!("the input is of {}, and no numbers", name_of(element_type)));
            };
            let beyond = values.iter().find(|&&value| !(least..=most).contains(&value.into()))?;
            Some(format!("an element is {beyond}, which {} does not hold", name_of(element_type)))
        }
    }
}

/// The least and the largest number that such a type holds; `None` if it holds none.
fn range(element_type: i32) -> Option<(i128, i128)> {
    match DataType::try_from(element_type).ok()? {
        DataType::Bool => Some((0, 1)),
        other => range_of(other),
    }
}

/// What ONNX calls the type.
fn name_of(element_type: i32) -> String {
    let name = DataType::try_from(element_type).map(|known| known.as_str_name().to_lowercase());
    name.unwrap_or_else(|_| format!("type {element_type}"))
}

fn integers(stored: &TensorProto) -> Result<Array, TensorError> {
    let (values, dims) = (tensor::integers(stored, &Storage::default())?, data::dims(stored)?);
    // The number of values was checked against the dimensions.
    Ok(Array::Int(ArrayD::from_shape_vec(dims, values).unwrap_or_default()))
}
