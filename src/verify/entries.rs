//! Entries of a graph as they are compared: with the data from side files put into them, by the
//! names that they hold, and with labels for messages.
//!
//! Knows the format; knows nothing of what is expected.

use std::collections::HashSet;
use std::ops::Range;

use crate::onnx::info;
use crate::onnx::model::{GraphFields, Invalid, Model};
use crate::onnx::node::bodies;
use crate::onnx::proto::{
    FunctionProto, GraphProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto,
};
use crate::onnx::schema::{graph_field, info_field, sparse_field, tensor_field};
use crate::onnx::storage::{Storage, same_bytes};
use crate::onnx::tensor;
use crate::onnx::wire::{self, Field};

/// Returns whether two tensors of two models are the same.
pub fn same_tensors(
    (mut one, of_one): (TensorProto, &Storage),
    (mut other, of_other): (TensorProto, &Storage),
) -> bool {
    let data = (one.raw_data.take(), other.raw_data.take());
    one == other
        && match data {
            (Some(one), Some(other)) => same_bytes((&one, of_one), (&other, of_other)),
            (one, other) => one == other,
        }
}

/// Returns the tensor without the notes on it, which are not its content: see
/// [`crate::onnx::notes`].
pub fn without_notes(tensor: TensorProto) -> TensorProto {
    TensorProto { doc_string: None, metadata_props: Vec::new(), segment: None, ..tensor }
}

/// A function that is called for each tensor of a message.
pub type TensorVisit<'v> = &'v mut dyn FnMut(&mut TensorProto) -> Result<(), Invalid>;

/// A message that holds tensors, at any depth.
pub trait HoldsTensors {
    /// Calls `visit` for each tensor, in their order.
    ///
    /// # Errors
    /// Returns the error of `visit`.
    fn each_tensor(&mut self, visit: TensorVisit) -> Result<(), Invalid>;
}

impl HoldsTensors for TensorProto {
    fn each_tensor(&mut self, visit: TensorVisit) -> Result<(), Invalid> {
        visit(self)
    }
}

impl HoldsTensors for SparseTensorProto {
    fn each_tensor(&mut self, visit: TensorVisit) -> Result<(), Invalid> {
        self.values.iter_mut().chain(&mut self.indices).try_for_each(|part| visit(part))
    }
}

impl HoldsTensors for NodeProto {
    fn each_tensor(&mut self, visit: TensorVisit) -> Result<(), Invalid> {
        for attribute in &mut self.attribute {
            let mut tensors = attribute.t.as_deref_mut().into_iter().chain(&mut attribute.tensors);
            tensors.try_for_each(&mut *visit)?;
            let mut sparse =
                attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors);
            sparse.try_for_each(|sparse| sparse.each_tensor(visit))?;
            let mut graphs = attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs);
            graphs.try_for_each(|graph| graph.each_tensor(visit))?;
        }
        Ok(())
    }
}

impl HoldsTensors for GraphProto {
    fn each_tensor(&mut self, visit: TensorVisit) -> Result<(), Invalid> {
        self.initializer.iter_mut().try_for_each(&mut *visit)?;
        let mut sparse = self.sparse_initializer.iter_mut();
        sparse.try_for_each(|sparse| sparse.each_tensor(visit))?;
        self.node.iter_mut().try_for_each(|node| node.each_tensor(visit))
    }
}

impl HoldsTensors for FunctionProto {
    fn each_tensor(&mut self, visit: TensorVisit) -> Result<(), Invalid> {
        self.node.iter_mut().try_for_each(|node| node.each_tensor(visit))
    }
}

/// Puts data that lies in side files into the tensors of `entry`.
pub fn fill(model: &Model, entry: &mut impl HoldsTensors) -> Result<(), Invalid> {
    entry.each_tensor(&mut |tensor| {
        *tensor = tensor::inlined(tensor, &model.storage)?;
        Ok(())
    })
}

/// Returns whether two nodes of two models are the same, for nodes with bodies wherever the data
/// of their tensors lies.
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
    fill(of_one, &mut one)?;
    fill(of_other, &mut other)?;
    Ok(one == other)
}

/// Returns where the graph with these `fields` lies.
pub fn payload(fields: &GraphFields) -> Range<usize> {
    fields.container().payload
}

/// Returns the name of the first tensor that the node makes; empty if it makes none.
pub fn first_output(node: &NodeProto) -> &str {
    node.output.iter().find(|name| !name.is_empty()).map_or("", String::as_str)
}

/// Returns the names of the graph inputs.
pub fn input_names(model: &Model, fields: &GraphFields) -> Result<HashSet<String>, Invalid> {
    let inputs = fields.fields(graph_field::INPUT);
    inputs.map(|field| model.string_within(&field.payload, info_field::NAME)).collect()
}

/// Returns the names of initializers, sparse ones included.
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

/// Returns whether `info` declares a tensor of the type and dimensions of `tensor`.
pub fn declares(info: &ValueInfoProto, tensor: &TensorProto) -> bool {
    let Some(declared) = info::declared(info) else { return false };
    let dims = declared.dims.unwrap_or_default();
    declared.element_type.unwrap_or_default() == tensor.data_type()
        && dims.into_iter().eq(tensor.dims.iter().copied().map(Some))
}

/// Returns what to call an entry in a message.
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
