//! bfloat16, in which tract does not compute, as float32, which holds every number of it:
//! stored tensors, declared types, and the types that nodes name.
//!
//! What is computed is not rounded to bfloat16 then. Both models are computed so: what differs
//! between them is what they hold, not how it is rounded on the way.
//!
//! Works on tract's own form of a model, just before tract reads it.

use prost::Message;
use tract_onnx::pb;
use tract_onnx::prelude::TractResult;

use crate::onnx::data::TensorError;
use crate::onnx::float::Float;
use crate::onnx::proto::TensorProto;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// Attributes of standard operators that name an element type.
const TYPES: [&str; 5] = ["dtype", "output_datatype", "output_dtype", "stash_type", "to"];

/// The element type (`TensorProto.DataType`) in whose place tract computes.
pub fn known_type(data_type: i32) -> i32 {
    if data_type == Float::Bf16.to_onnx() { Float::F32.to_onnx() } else { data_type }
}

/// Puts float32 in the place of bfloat16, in bodies too.
///
/// # Errors
/// If a stored tensor does not hold what it says.
pub fn graph(graph: &mut pb::GraphProto, storage: &Storage) -> TractResult<()> {
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        use pb::type_proto::Value;
        let declared = info.r#type.as_mut().and_then(|declared| declared.value.as_mut());
        if let Some(Value::TensorType(tensor)) = declared {
            tensor.elem_type = known_type(tensor.elem_type);
        }
    }
    graph.initializer.iter_mut().try_for_each(|stored| widen(stored, storage))?;
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        if TYPES.contains(&attribute.name.as_str())
            && attribute.i == i64::from(Float::Bf16.to_onnx())
        {
            attribute.i = Float::F32.to_onnx().into();
        }
        let mut tensors = attribute.t.iter_mut().chain(&mut attribute.tensors);
        tensors.try_for_each(|stored| widen(stored, storage))?;
        let mut bodies = attribute.g.iter_mut().chain(&mut attribute.graphs);
        bodies.try_for_each(|body| self::graph(body, storage))?;
    }
    Ok(())
}

fn widen(stored: &mut pb::TensorProto, storage: &Storage) -> TractResult<()> {
    if stored.data_type == Float::Bf16.to_onnx() {
        let narrow = TensorProto::decode(&stored.encode_to_vec()[..])?;
        let wide = tensor(&narrow, storage)?;
        *stored = pb::TensorProto::decode(&wide.encode_to_vec()[..])?;
    }
    Ok(())
}

/// bfloat16 as float32, with its data inside; all else as it is.
///
/// # Errors
/// If it does not hold what it says.
pub fn tensor(stored: &TensorProto, storage: &Storage) -> Result<TensorProto, TensorError> {
    if stored.data_type() != Float::Bf16.to_onnx() {
        return Ok(stored.clone());
    }
    let values = tensor::floats(stored, storage)?;
    Ok(tensor::from_floats(stored.name(), &values, Float::F32))
}
