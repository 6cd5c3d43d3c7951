//! Reads types and tensors.

use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::proto::tensor_proto::DataType;
use acb_fuse::onnx::proto::tensor_shape_proto::Dimension;
use acb_fuse::onnx::proto::tensor_shape_proto::dimension::Value;
use acb_fuse::onnx::proto::{TensorProto, TensorShapeProto, TypeProto, type_proto};
use acb_fuse::onnx::tensor::header;

use super::scanner::{Scanner, Word};
use super::weights::{normal, weight};

const TYPES: [(&str, DataType); 15] = [
    ("float", DataType::Float),
    ("double", DataType::Double),
    ("float16", DataType::Float16),
    ("bfloat16", DataType::Bfloat16),
    ("bool", DataType::Bool),
    ("string", DataType::String),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::Uint8),
    ("uint16", DataType::Uint16),
    ("uint32", DataType::Uint32),
    ("uint64", DataType::Uint64),
    ("complex64", DataType::Complex64),
];

/// An element type and a size for each axis: `float` has no axes, `float[]` leaves their number
/// open.
pub struct TensorType {
    data_type: DataType,
    shape: Option<Vec<Dimension>>,
}

/// Reads the type that comes next; returns `None` if what comes next is no type.
pub fn tensor_type(scanner: &mut Scanner) -> Result<Option<TensorType>, String> {
    let word = scanner.peeked();
    let Some(&(name, data_type)) = TYPES.iter().find(|(name, _)| *name == word) else {
        return Ok(None);
    };
    scanner.expect(name)?;
    if !scanner.sees("[") {
        return Ok(Some(TensorType { data_type, shape: Some(vec![]) }));
    }
    let sizes = scanner.list("[", "]", dimension)?;
    let shape = (!sizes.is_empty()).then_some(sizes);
    Ok(Some(TensorType { data_type, shape }))
}

fn dimension(scanner: &mut Scanner) -> Result<Dimension, String> {
    if scanner.takes("?") {
        return Ok(Dimension::default());
    }
    let is_number = scanner.peeked().starts_with(|c: char| c.is_ascii_digit());
    let value = if is_number || scanner.sees("-") {
        Value::DimValue(scanner.integer()?)
    } else {
        Value::DimParam(scanner.name()?)
    };
    Ok(Dimension { value: Some(value), ..Dimension::default() })
}

impl TensorType {
    pub fn proto(&self) -> TypeProto {
        let shape = self.shape.clone().map(|dim| TensorShapeProto { dim });
        let tensor = type_proto::Tensor { elem_type: Some(self.data_type.into()), shape };
        TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }
    }

    fn dims(&self) -> Result<Vec<i64>, String> {
        let size = |dim: &Dimension| match dim.value {
            Some(Value::DimValue(size)) => Ok(size),
            _ => Err("a tensor has sizes".to_owned()),
        };
        let sizes = self.shape.as_ref().ok_or("a tensor has sizes")?;
        sizes.iter().map(size).collect()
    }

    /// Returns the weight `name` of this type.
    pub fn weight(&self, name: &str) -> Result<TensorProto, String> {
        let dims = self.dims()?;
        if let Some(float) = Float::from_onnx(self.data_type.into()) {
            return Ok(weight(name, &dims, float));
        }
        // Integer weights are quantized, as a rule: about as large as eight bits hold.
        let mut tensor = header(name, &dims, self.data_type.into());
        let shape: Vec<usize> = dims.iter().map(|&dim| dim as usize).collect();
        let values = normal(name, &shape).mapv(|value| (40.0 * value).abs().min(127.0) as i64);
        values.into_iter().for_each(|value| self.store(&mut tensor, value));
        Ok(tensor)
    }

    /// Reads the tensor whose values come next, in braces.
    pub fn literal(&self, name: &str, scanner: &mut Scanner) -> Result<TensorProto, String> {
        let values = scanner.list("{", "}", Scanner::literal)?;
        let dims = self.dims()?;
        let elements = dims.iter().product::<i64>();
        if values.len() as i64 != elements {
            return Err(format!("{} values for {elements} elements", values.len()));
        }
        let mut tensor = header(name, &dims, self.data_type.into());
        if let Some(float) = Float::from_onnx(self.data_type.into()) {
            let number = |word: &Word| match word {
                Word::Int(value) => Ok(*value as f64),
                Word::Float(value) => Ok(*value),
                Word::Text(text) => Err(format!("`{text}` is no number")),
            };
            let numbers: Vec<f64> = values.iter().map(number).collect::<Result<_, _>>()?;
            tensor.raw_data = Some(float.encode(&numbers).into());
            return Ok(tensor);
        }
        for value in values {
            match value {
                Word::Int(value) => self.store(&mut tensor, value),
                Word::Text(text) => tensor.string_data.push(text.into_bytes().into()),
                Word::Float(value) => return Err(format!("{value} is no integer")),
            }
        }
        Ok(tensor)
    }

    /// Stores an integer in the field that its type has.
    fn store(&self, tensor: &mut TensorProto, value: i64) {
        match self.data_type {
            DataType::Int64 => tensor.int64_data.push(value),
            DataType::Uint32 | DataType::Uint64 => tensor.uint64_data.push(value as u64),
            _ => tensor.int32_data.push(value as i32),
        }
    }
}
