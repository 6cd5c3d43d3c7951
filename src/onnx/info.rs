//! Reading and making what a `ValueInfoProto` declares of a tensor, its element type and the
//! sizes of its axes; no other module does either.
//!
//! A symbolic size is a name, even if it looks like a number, and a negative number is no size:
//! either leaves the axis open. Knows the message; what follows from a declaration, and whether
//! it is believed, is decided elsewhere.

use crate::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::proto::{TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

/// The declaration of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The element type (`TensorProto.DataType`), if declared.
    pub element_type: Option<i32>,
    /// The size of each axis, `None` where it is open; `None` if not even the rank is declared.
    pub dims: Option<Vec<Option<i64>>>,
}

/// The declared size of one axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AxisSize {
    /// A fixed number.
    Fixed(i64),
    /// A symbolic size: any number, the same for all axes with this name.
    Named(String),
    /// Any number.
    Open,
}

/// Returns what `info` declares; `None` if it has no type, or if that is not a tensor type.
pub fn declared(info: &ValueInfoProto) -> Option<Declared> {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()? else {
        return None;
    };
    let dims = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(size).collect());
    Some(Declared { element_type: tensor.elem_type, dims })
}

/// Returns the declared size of each axis; `None` if `info` declares no tensor shape.
pub fn axes(info: &ValueInfoProto) -> Option<Vec<AxisSize>> {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()? else {
        return None;
    };
    let axis = |dim: &Dimension| match (size(dim), &dim.value) {
        (Some(size), _) => AxisSize::Fixed(size),
        (None, Some(dimension::Value::DimParam(name))) if !name.is_empty() => {
            AxisSize::Named(name.clone())
        }
        _ => AxisSize::Open,
    };
    Some(tensor.shape.as_ref()?.dim.iter().map(axis).collect())
}

/// Returns the declared sizes, `None` for open axes; `None` if `info` declares no tensor shape.
pub fn dims(info: &ValueInfoProto) -> Option<Vec<Option<i64>>> {
    declared(info)?.dims
}

/// Returns the declared element type.
pub fn element_type(info: &ValueInfoProto) -> Option<i32> {
    declared(info)?.element_type
}

fn size(dim: &Dimension) -> Option<i64> {
    match dim.value {
        Some(dimension::Value::DimValue(size)) if size >= 0 => Some(size),
        _ => None,
    }
}

/// Declares the tensor `name` with this element type (`TensorProto.DataType`) and these sizes.
pub fn info(
    name: &str,
    element_type: i32,
    sizes: impl IntoIterator<Item = AxisSize>,
) -> ValueInfoProto {
    let dim = |size| {
        let value = match size {
            AxisSize::Fixed(size) => Some(dimension::Value::DimValue(size)),
            AxisSize::Named(name) => Some(dimension::Value::DimParam(name)),
            AxisSize::Open => None,
        };
        Dimension { value, ..Dimension::default() }
    };
    let shape = TensorShapeProto { dim: sizes.into_iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(element_type), shape: Some(shape) };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto { r#type: Some(TypeProto { value, ..TypeProto::default() }), ..untyped(name) }
}

/// Declares a tensor like the stored `tensor`.
pub fn info_like(tensor: &TensorProto) -> ValueInfoProto {
    info(tensor.name(), tensor.data_type(), tensor.dims.iter().copied().map(AxisSize::Fixed))
}

/// Declares the tensor `name` without type and shape.
pub fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_is_read_back() {
        let sizes = [
            AxisSize::Fixed(1),
            AxisSize::Named("64".to_owned()),
            AxisSize::Open,
            AxisSize::Fixed(-1),
        ];
        let expected =
            Declared { element_type: Some(11), dims: Some(vec![Some(1), None, None, None]) };
        assert_eq!(declared(&info("x", 11, sizes)), Some(expected));
        let like = TensorProto {
            name: Some("w".to_owned()),
            dims: vec![2, 0],
            data_type: Some(1),
            ..TensorProto::default()
        };
        let (info, expected) = (info_like(&like), Some(vec![Some(2), Some(0)]));
        assert_eq!((info.name(), dims(&info), element_type(&info)), ("w", expected, Some(1)));
        assert_eq!(declared(&untyped("y")), None);
    }
}
