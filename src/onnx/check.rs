//! The check of all tensors that are stored in a model, whether they are read or not:
//! initializers, and those in nodes, bodies and functions.
//!
//! That names are defined once and before they are read is checked where they are resolved, in
//! [`graph`](crate::onnx::graph).
//!
//! Knows what a tensor says of itself; not what it is for.

use crate::onnx::data;
use crate::onnx::graph::Graph;
use crate::onnx::model::Invalid;
use crate::onnx::node::{bodies, label_of};
use crate::onnx::proto::{FunctionProto, NodeProto, SparseTensorProto, TensorProto};
use crate::onnx::schema::graph_field;

impl Graph<'_> {
    /// Checks every tensor that is stored in the model, whether it is read or not:
    /// initializers, and those in nodes, bodies and functions.
    ///
    /// # Errors
    /// Returns an error that names the first tensor that cannot be decoded or contradicts itself.
    pub fn check_tensors(&self) -> Result<(), Invalid> {
        let check = |tensor: &TensorProto| data::check(tensor, &self.model.storage);
        for field in self.fields.fields(graph_field::INITIALIZER) {
            check(&self.model.decode(field, "initializer")?)?;
        }
        for field in self.fields.fields(graph_field::SPARSE_INITIALIZER) {
            let sparse: SparseTensorProto = self.model.decode(field, "sparse initializer")?;
            parts_of(&sparse).try_for_each(check)?;
        }
        // The tensor of a Constant usually has no name; the error then names the node.
        let check_node = |node: &NodeProto| {
            tensors_in(node).into_iter().try_for_each(check).map_err(|mut error| {
                if error.name.is_empty() {
                    label_of(node).clone_into(&mut error.name);
                }
                error
            })
        };
        self.nodes().try_for_each(|(_, node)| check_node(&node.proto))?;
        for field in &self.model.functions {
            let function: FunctionProto = self.model.decode(field, "function")?;
            function.node.iter().try_for_each(check_node)?;
        }
        Ok(())
    }
}

/// Returns the tensors in a node's attributes and bodies.
fn tensors_in(node: &NodeProto) -> Vec<&TensorProto> {
    let own = node.attribute.iter().flat_map(|attribute| {
        let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
        attribute
            .t
            .as_deref()
            .into_iter()
            .chain(&attribute.tensors)
            .chain(sparse.flat_map(parts_of))
    });
    let inner = bodies(node).flat_map(|body| {
        let sparse = body.sparse_initializer.iter().flat_map(parts_of);
        body.initializer.iter().chain(sparse).chain(body.node.iter().flat_map(tensors_in))
    });
    own.chain(inner).collect()
}

fn parts_of(sparse: &SparseTensorProto) -> impl Iterator<Item = &TensorProto> {
    sparse.values.iter().chain(&sparse.indices).map(Box::as_ref)
}
