//! What is said of a stored tensor besides its content: remarks, properties, and whatever a
//! later version of the format may add.
//!
//! Decoding drops what the schema does not know, so it is looked for in bytes. Knows fields of a
//! message; not what they say.

use std::ops::Range;

use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::model::{Invalid, Model};
use crate::onnx::schema::{attribute_field, node_field, tensor_field};
use crate::onnx::wire::{self, WireError};

/// The fields of the TensorProto that fills `payload` which are not its content, as they stand.
///
/// # Errors
/// If it is no message.
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

/// Those of the tensor `id` of `graph`: of its initializer, or of the tensor in its Constant
/// node; none if nothing stores it.
///
/// # Errors
/// If an entry cannot be read.
pub fn of_stored(graph: &Graph, id: ValueId) -> Result<Vec<u8>, Invalid> {
    let value = graph.value(id);
    let message = match (&value.initializer, value.producer) {
        (Some(field), _) => Some(field.payload.clone()),
        (None, Some(producer)) => in_node(graph.model, &graph.node(producer).field.payload)?,
        (None, None) => None,
    };
    Ok(message.map(|payload| within(graph.model, payload)).transpose()?.unwrap_or_default())
}

/// Where the tensor lies that the node at `payload` has as its attribute `value`.
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
