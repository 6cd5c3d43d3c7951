//! What a `ValueInfoProto` says of a tensor, its element type and the sizes of its axes: read
//! and made here only.
//!
//! A name of a size is a name, whatever it looks like, and a negative number is no size: either
//! leaves the axis open. Knows the message; what follows from a declaration, and whether it is
//! believed, is for others to say.

use crate::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::proto::{TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

/// What is declared of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its element type (`TensorProto.DataType`), if that is said.
    pub element_type: Option<i32>,
    /// Its sizes, `None` where one is left open; `None` if not even their number is said.
    pub dims: Option<Vec<Option<i64>>>,
}

/// The size of one axis in a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AxisSize {
    /// A number.
    Fixed(i64),
    /// Any number; the same for all axes with this name.
    Named(String),
    /// Any number.
    Open,
}

/// What `info` declares; `None` if it says nothing, or that it is no tensor.
pub fn declared(info: &ValueInfoProto) -> Option<Declared> {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()? else {
        return None;
    };
    let dims = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(size).collect());
    Some(Declared { element_type: tensor.elem_type, dims })
}

/// What `info` declares of each axis; `None` if it declares no shape.
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

/// The sizes that `info` declares; `None` if it declares no shape.
pub fn dims(info: &ValueInfoProto) -> Option<Vec<Option<i64>>> {
    declared(info)?.dims
}

/// The element type that `info` declares.
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

/// Names a tensor and says nothing of it.
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
