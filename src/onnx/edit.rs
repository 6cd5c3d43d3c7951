//! The bytes of a model, or of one message in it, with edits to entries of its graphs applied.
//!
//! Knows where graphs lie in a file; not what an edit is for.

use std::ops::Range;

use prost::bytes::Bytes;

use crate::onnx::graph::Graph;
use crate::onnx::model::Model;
use crate::onnx::splice::{self, Container, Edit};

/// Returns the bytes of `model` with `edits` to entries of its `graphs` applied.
pub fn edited(model: &Model, graphs: &[Graph], edits: Vec<Edit>) -> Bytes {
    if edits.is_empty() {
        return model.bytes().clone();
    }
    let mut bytes = Vec::with_capacity(model.bytes().len());
    let edits = splice::with_lengths(edits, containers(graphs));
    // Writing to a vector cannot fail.
    let _ = splice::write(model.bytes(), &edits, &mut bytes);
    bytes.into()
}

/// Returns the message that fills `payload` of `model` with `edits` to entries of `graphs`
/// applied, all of which lie in it.
pub fn edited_message(
    model: &Model,
    payload: &Range<usize>,
    graphs: &[&Graph],
    edits: Vec<Edit>,
) -> Bytes {
    let containers = graphs.iter().flat_map(|graph| graph.fields.containers.iter().cloned());
    let containers = containers.filter(|inner| payload.start <= inner.length.start);
    let edits = splice::with_lengths(edits, containers.collect());
    let (before, behind) = (0..payload.start, payload.end..model.bytes().len());
    let edits: Vec<Edit> =
        std::iter::once(Edit::remove(before)).chain(edits).chain([Edit::remove(behind)]).collect();
    let mut bytes = Vec::with_capacity(payload.len());
    // Writing to a vector cannot fail.
    let _ = splice::write(model.bytes(), &edits, &mut bytes);
    bytes.into()
}

/// Returns the containers of all `graphs`.
pub fn containers(graphs: &[Graph]) -> Vec<Container> {
    graphs.iter().flat_map(|graph| graph.fields.containers.iter().cloned()).collect()
}
