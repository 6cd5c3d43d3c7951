//! Tensors on both sides of the border, and the conversions between those of ndarray, ONNX and
//! tract.
//!
//! Knows single tensors; knows no model.

use std::borrow::Cow;
use std::sync::Arc;

use half::f16;
use ndarray::ArrayD;
use tract_onnx::pb;
use tract_onnx::prelude::*;

use crate::engine::dialect::widened;
use crate::engine::guard::guarded;
use crate::engine::limits::{EngineError, Limits};
use crate::engine::source::Constant;
use crate::onnx::data;
use crate::onnx::float::Float;
use crate::onnx::proto::TensorProto;
use crate::onnx::storage::Storage;

/// A tensor that goes into or comes out of the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Floating-point elements of any width, widened to float64.
    Float(ArrayD<f64>),
    /// Integers and booleans.
    Int(ArrayD<i64>),
}

impl Array {
    /// Returns the sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        match self {
            Array::Float(values) => values.shape(),
            Array::Int(values) => values.shape(),
        }
    }
}

/// Shapes that the user gave for graph inputs.
pub type InputShapes = std::collections::BTreeMap<String, Vec<usize>>;

/// A tensor as tract holds it. Clones share the data.
#[derive(Debug, Clone)]
pub struct EngineTensor {
    pub(super) tensor: Arc<Tensor>,
    /// Whether the next model takes it as a constant.
    pub(super) is_constant: bool,
}

/// Largest number of elements of a tensor that is handed on as a constant. tract needs shapes,
/// bounds and scales when it loads a model. If these were in one model with the nodes that
/// compute them, it would evaluate them; across slices, integers and lists up to this size are
/// constants instead.
const MAX_CONSTANT: usize = 64;

impl EngineTensor {
    /// Wraps a tensor that a model made; `is_known` if its value was known without running the
    /// model.
    pub(super) fn made(tensor: Arc<Tensor>, is_known: bool) -> Self {
        let may_be_wanted = !tensor.datum_type().is_float() || tensor.rank() < 2;
        let is_constant = is_known || (may_be_wanted && tensor.len() <= MAX_CONSTANT);
        EngineTensor { tensor, is_constant }
    }

    /// Returns the sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    /// Returns the element type (`TensorProto.DataType`), or 0 if ONNX has no such type.
    pub fn element_type(&self) -> i32 {
        in_onnx_types(self.tensor.datum_type()).map_or(0, Into::into)
    }

    /// Returns the floating-point type, or `None` for integers and booleans.
    pub fn float(&self) -> Option<Float> {
        match self.tensor.datum_type() {
            DatumType::F16 => Some(Float::F16),
            DatumType::F32 => Some(Float::F32),
            DatumType::F64 => Some(Float::F64),
            _ => None,
        }
    }

    /// Returns the number of bytes of the elements.
    pub fn bytes(&self) -> usize {
        self.tensor.len().saturating_mul(self.tensor.datum_type().size_of())
    }

    /// Whether a model that was loaded for this tensor can run with `other`.
    pub(super) fn allows(&self, other: &EngineTensor) -> bool {
        let (own, its) = (&self.tensor, &other.tensor);
        let is_alike = own.datum_type() == its.datum_type() && own.shape() == its.shape();
        let is_same = || Arc::ptr_eq(own, its) || own == its;
        is_alike && self.is_constant == other.is_constant && (!self.is_constant || is_same())
    }
}

/// Converts inputs of a model, each with its element type (`TensorProto.DataType`), to tensors
/// of the engine.
///
/// # Errors
/// Returns an error if tract does not know a type.
pub fn from_arrays(
    inputs: Vec<(Array, i32)>,
    limits: Limits,
) -> Result<Vec<EngineTensor>, EngineError> {
    guarded(limits, move || {
        let convert = |(array, data_type): (Array, i32)| {
            let known = widened::known_type(data_type);
            let wanted = pb::tensor_proto::DataType::try_from(known)?.try_into()?;
            let tensor = to_tract(rounded(array, data_type))
                .cast_to_dt(wanted)?
                .into_owned()
                .into_arc_tensor();
            Ok(EngineTensor { tensor, is_constant: false })
        };
        inputs.into_iter().map(convert).collect()
    })
}

/// Rounds the elements to bfloat16 if that is the type: float32, which stands in for it, has
/// more digits.
fn rounded(array: Array, data_type: i32) -> Array {
    match (Float::from_onnx(data_type), array) {
        (Some(Float::Bf16), Array::Float(values)) => {
            Array::Float(values.mapv_into(|value| Float::Bf16.round(value)))
        }
        (_, array) => array,
    }
}

/// Whether a floating-point tensor has an element that is NaN.
pub(super) fn has_nan(tensor: &Tensor) -> bool {
    fn any<T: Datum>(tensor: &Tensor, is_nan: impl Fn(&T) -> bool) -> bool {
        let view = tensor.to_plain_array_view::<T>();
        view.is_ok_and(|view| view.iter().fold(false, |any, value| any | is_nan(value)))
    }
    match tensor.datum_type() {
        DatumType::F16 => any(tensor, |value: &f16| value.is_nan()),
        DatumType::F32 => any(tensor, |value: &f32| value.is_nan()),
        DatumType::F64 => any(tensor, |value: &f64| value.is_nan()),
        _ => false,
    }
}

/// Converts tensors to arrays of numbers that can be compared.
///
/// # Errors
/// Returns an error if a tensor does not hold numbers.
pub fn into_arrays(tensors: Vec<EngineTensor>, limits: Limits) -> Result<Vec<Array>, EngineError> {
    guarded(limits, move || tensors.iter().map(|own| from_tract(&own.tensor)).collect())
}

/// Returns the tensor that is passed to tract directly, or `None` if tract decodes the constant
/// itself.
pub(super) fn tensor_of(constant: &Constant) -> TractResult<Option<Tensor>> {
    let Some(numbers) = &constant.numbers else { return plain(&constant.header) };
    let mut tensor = Tensor::zero::<f64>(&data::dims(&constant.header)?)?;
    let mut view = tensor.to_plain_array_view_mut::<f64>()?;
    if let Some(place) = view.as_slice_mut() {
        numbers.read(0, place);
    }
    Ok(Some(tensor))
}

/// Returns the tensor that `stored` holds if its data is one run of bytes of a common type: one
/// copy takes it from the file to tract. Returns `None` otherwise; tract decodes it then.
pub(super) fn plain(stored: &TensorProto) -> TractResult<Option<Tensor>> {
    use pb::tensor_proto::DataType as T;
    let Ok(T::Float | T::Float16 | T::Double | T::Int64 | T::Int32 | T::Int8 | T::Uint8) =
        T::try_from(stored.data_type())
    else {
        return Ok(None);
    };
    let (Some(raw), Ok(())) = (data::raw_data(stored), data::check(stored, &Storage::default()))
    else {
        return Ok(None);
    };
    let kind = T::try_from(stored.data_type())?.try_into()?;
    let mut tensor = Tensor::zero_dt(kind, &data::dims(stored)?)?;
    // An empty tensor has no bytes on either side.
    if tensor.as_bytes().len() != raw.len() {
        return Ok(None);
    }
    tensor.as_bytes_mut().copy_from_slice(raw);
    Ok(Some(tensor))
}

/// Returns the tensor in ONNX's form, without a name and in its own type. Sizes become int64.
pub(super) fn in_onnx(tensor: &Tensor) -> TractResult<TensorProto> {
    let tensor = match tensor.datum_type() {
        DatumType::TDim => tensor.cast_to::<i64>()?,
        _ => Cow::Borrowed(tensor),
    };
    let kind = tensor.datum_type();
    let data_type = in_onnx_types(kind)
        .ok_or_else(|| TractError::msg(format!("{kind:?} is no type of ONNX")))?;
    Ok(TensorProto {
        dims: tensor.shape().iter().map(|&dim| dim as i64).collect(),
        data_type: Some(data_type.into()),
        raw_data: Some(tensor.as_bytes().to_vec().into()),
        ..TensorProto::default()
    })
}

/// Returns the ONNX type for a type of tract. Sizes become int64.
fn in_onnx_types(kind: DatumType) -> Option<pb::tensor_proto::DataType> {
    use DatumType as D;
    use pb::tensor_proto::DataType as T;
    Some(match kind {
        D::Bool => T::Bool,
        D::U8 => T::Uint8,
        D::U16 => T::Uint16,
        D::U32 => T::Uint32,
        D::U64 => T::Uint64,
        D::I8 => T::Int8,
        D::I16 => T::Int16,
        D::I32 => T::Int32,
        D::I64 | D::TDim => T::Int64,
        D::F16 => T::Float16,
        D::F32 => T::Float,
        D::F64 => T::Double,
        _ => return None,
    })
}

/// Returns the tensor in tract's form, of type float64 or int64.
pub(super) fn to_tract(array: Array) -> Tensor {
    match array {
        Array::Float(values) => values.into(),
        Array::Int(values) => values.into(),
    }
}

/// Returns the tensor as numbers that can be compared: floats in float64, all other types in
/// int64.
pub(super) fn from_tract(tensor: &Tensor) -> TractResult<Array> {
    use DatumType as D;
    let kind = tensor.datum_type();
    Ok(match kind {
        D::F64 => Array::Float(tensor.to_plain_array_view::<f64>()?.to_owned()),
        D::F32 => Array::Float(tensor.to_plain_array_view::<f32>()?.mapv(f64::from)),
        D::F16 => Array::Float(tensor.to_plain_array_view::<f16>()?.mapv(f16::to_f64)),
        D::String => return Err(TractError::msg("a string tensor cannot be compared")),
        _ => Array::Int(tensor.cast_to::<i64>()?.to_plain_array_view::<i64>()?.to_owned()),
    })
}
