//! The fields of a stored tensor besides its content: doc string, metadata, and whatever a
//! later version of the format may add.
//!
//! Decoding drops fields that the schema does not know, so they are looked for in the bytes.
//! Knows the fields of a message; not what they say.

use std::ops::Range;

use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::model::{Invalid, Model};
use crate::onnx::schema::{attribute_field, node_field, tensor_field};
use crate::onnx::wire::{self, WireError};

/// Returns the bytes of those fields of the TensorProto that fills `payload` that are not its
/// content.
///
/// # Errors
/// Returns an error if it is not a protobuf message.
pub fn within(model: &Model, payload: Range<usize>) -> Result<Vec<u8>, WireError> {
    let mut notes = Vec::new();
    for field in wire::fields(model.bytes(), payload) {
        let field = field?;
        if !tensor_field::CONTENT.contains(&field.number) {
            notes.extend_from_slice(model.bytes().get(field.entry()).unwrap_or_default());
        }
    }
    Ok(notes)
}

/// Returns the notes of the tensor `id` of `graph`: of its initializer, or of the tensor in its
/// Constant node; empty if it is stored in neither.
///
/// # Errors
/// Returns an error if an entry cannot be read.
pub fn of_stored(graph: &Graph, id: ValueId) -> Result<Vec<u8>, Invalid> {
    let value = graph.value(id);
    let message = match (&value.initializer, value.producer) {
        (Some(field), _) => Some(field.payload.clone()),
        (None, Some(producer)) => in_node(graph.model, &graph.node(producer).field.payload)?,
        (None, None) => None,
    };
    Ok(message.map(|payload| within(graph.model, payload)).transpose()?.unwrap_or_default())
}

/// Returns the range of the tensor in the attribute `value` of the node at `payload`.
fn in_node(model: &Model, payload: &Range<usize>) -> Result<Option<Range<usize>>, Invalid> {
    for attribute in wire::fields(model.bytes(), payload.clone()) {
        let attribute = attribute?;
        if attribute.number != node_field::ATTRIBUTE {
            continue;
        }
        let name = model.str_within(&attribute.payload, attribute_field::NAME)?;
        if name != "value" {
            continue;
        }
        for part in wire::fields(model.bytes(), attribute.payload) {
            let part = part?;
            if part.number == attribute_field::TENSOR {
                return Ok(Some(part.payload));
            }
        }
    }
    Ok(None)
}
