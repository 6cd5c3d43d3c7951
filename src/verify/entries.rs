//! Entries of a graph as they are compared: with data that lies in side files inside, by the
//! names that they hold, and under the names that a message gives them.
//!
//! Knows the format; knows nothing of what is expected.

use std::collections::HashSet;
use std::ops::Range;

use crate::onnx::info;
use crate::onnx::model::{GraphFields, Invalid, Model};
use crate::onnx::node::bodies;
use crate::onnx::proto::{GraphProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto};
use crate::onnx::schema::{graph_field, info_field, sparse_field, tensor_field};
use crate::onnx::storage::{Storage, same_bytes};
use crate::onnx::tensor;
use crate::onnx::wire::{self, Field};

/// The initializer in `field`, with its data.
pub fn filled_tensor(model: &Model, field: &Field) -> Result<TensorProto, Invalid> {
    let mut tensor: TensorProto = model.decode(field, "initializer")?;
    fill(model, &mut tensor)?;
    Ok(tensor)
}

/// Whether two tensors of two models are the same.
pub fn same_tensors(
    (mut one, of_one): (TensorProto, &Storage),
    (mut other, of_other): (TensorProto, &Storage),
) -> bool {
    let same_data = match (one.raw_data.take(), other.raw_data.take()) {
        (Some(one), Some(other)) => same_bytes((&one, of_one), (&other, of_other)),
        (one, other) => one == other,
    };
    same_data && one == other
}

/// The tensor without what is said of it besides its content: see [`crate::onnx::notes`].
pub fn without_notes(tensor: TensorProto) -> TensorProto {
    TensorProto { doc_string: None, metadata_props: Vec::new(), segment: None, ..tensor }
}

/// The node in `field`, with the data of its tensors.
pub fn filled_node(model: &Model, field: &Field) -> Result<NodeProto, Invalid> {
    let mut node: NodeProto = model.decode(field, "node")?;
    fill_node(model, &mut node)?;
    Ok(node)
}

/// Puts the data of a tensor into it, if it lies in a side file.
fn fill(model: &Model, tensor: &mut TensorProto) -> Result<(), Invalid> {
    *tensor = tensor::inlined(tensor, &model.storage)?;
    Ok(())
}

/// Puts the data of a sparse tensor into it.
pub fn fill_sparse(model: &Model, sparse: &mut SparseTensorProto) -> Result<(), Invalid> {
    sparse.values.iter_mut().chain(&mut sparse.indices).try_for_each(|part| fill(model, part))
}

/// Puts the data of a node's tensors into it, those of its bodies included.
pub fn fill_node(model: &Model, node: &mut NodeProto) -> Result<(), Invalid> {
    for attribute in &mut node.attribute {
        let mut tensors = attribute.t.as_deref_mut().into_iter().chain(&mut attribute.tensors);
        tensors.try_for_each(|tensor| fill(model, tensor))?;
        let mut sparse = attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors);
        sparse.try_for_each(|sparse| fill_sparse(model, sparse))?;
        let mut graphs = attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs);
        graphs.try_for_each(|graph| fill_graph(model, graph))?;
    }
    Ok(())
}

/// Puts the data of all tensors of a body into them.
pub fn fill_graph(model: &Model, graph: &mut GraphProto) -> Result<(), Invalid> {
    graph.initializer.iter_mut().try_for_each(|tensor| fill(model, tensor))?;
    let mut sparse = graph.sparse_initializer.iter_mut();
    sparse.try_for_each(|sparse| fill_sparse(model, sparse))?;
    graph.node.iter_mut().try_for_each(|node| fill_node(model, node))
}

/// Whether two nodes of two models say the same, wherever the data of their tensors lies.
pub fn same_nodes(
    (of_one, one): (&Model, &NodeProto),
    (of_other, other): (&Model, &NodeProto),
) -> Result<bool, Invalid> {
    if one == other {
        return Ok(true);
    }
    if bodies(one).next().is_none() || bodies(other).next().is_none() {
        return Ok(false);
    }
    let (mut one, mut other) = (one.clone(), other.clone());
    fill_node(of_one, &mut one)?;
    fill_node(of_other, &mut other)?;
    Ok(one == other)
}

/// Where the graph with these `fields` lies.
pub fn payload(fields: &GraphFields) -> Range<usize> {
    fields.container().payload
}

/// The name of the first tensor that the node makes; empty if it makes none.
pub fn first_output(node: &NodeProto) -> &str {
    node.output.iter().find(|name| !name.is_empty()).map_or("", String::as_str)
}

/// Names of the graph inputs.
pub fn input_names(model: &Model, fields: &GraphFields) -> Result<HashSet<String>, Invalid> {
    let inputs = fields.fields(graph_field::INPUT);
    inputs.map(|field| model.string_within(&field.payload, info_field::NAME)).collect()
}

/// Names of initializers, sparse ones included.
pub fn stored_names(model: &Model, fields: &GraphFields) -> Result<HashSet<String>, Invalid> {
    let dense = fields.fields(graph_field::INITIALIZER).map(|field| Ok(field.payload.clone()));
    let sparse = fields.fields(graph_field::SPARSE_INITIALIZER).flat_map(|field| {
        let parts = wire::fields(model.bytes(), field.payload.clone());
        let is_values = |part: &Result<Field, _>| {
            part.as_ref().map_or(true, |part| part.number == sparse_field::VALUES)
        };
        parts.filter(is_values).map(|part| Ok(part?.payload))
    });
    let all = dense.chain(sparse);
    all.map(|payload: Result<_, Invalid>| model.string_within(&payload?, tensor_field::NAME))
        .collect()
}

/// Whether `info` declares a tensor like `tensor`.
pub fn declares(info: &ValueInfoProto, tensor: &TensorProto) -> bool {
    let Some(declared) = info::declared(info) else { return false };
    let dims = declared.dims.unwrap_or_default();
    declared.element_type.unwrap_or_default() == tensor.data_type()
        && dims.into_iter().eq(tensor.dims.iter().copied().map(Some))
}

/// What to call an entry in a message.
pub fn label(model: &Model, field: &Field) -> String {
    let name = |number| model.string_within(&field.payload, number).unwrap_or_default();
    match field.number {
        graph_field::NODE => match model.decode::<NodeProto>(field, "node") {
            Ok(node) => format!("the node that makes `{}`", first_output(&node)),
            Err(error) => error.to_string(),
        },
        graph_field::INITIALIZER => format!("tensor `{}`", name(tensor_field::NAME)),
        graph_field::INPUT => format!("input `{}`", name(info_field::NAME)),
        graph_field::OUTPUT => format!("output `{}`", name(info_field::NAME)),
        _ => format!("the entry at byte {}", field.entry().start),
    }
}
