//! Which nodes of a sorted list are needed.
//!
//! Knows nodes and the names of the tensors that they read; no graph.

use std::collections::HashSet;

use crate::onnx::node::bodies;
use crate::onnx::proto::NodeProto;

/// Returns those of `nodes` that the tensors `read` depend on: a call may use only a part of
/// what its function computes.
pub fn needed(mut nodes: Vec<NodeProto>, mut read: HashSet<String>) -> Vec<NodeProto> {
    nodes.reverse();
    nodes.retain(|node| {
        let is_needed = node.output.iter().any(|output| read.contains(output));
        if is_needed {
            read_by(node, &mut read);
        }
        is_needed
    });
    nodes.reverse();
    nodes
}

/// Adds the names of the tensors that `node` and its bodies read to `read`.
fn read_by(node: &NodeProto, read: &mut HashSet<String>) {
    read.extend(node.input.iter().cloned());
    for body in bodies(node) {
        read.extend(body.output.iter().map(|output| output.name().to_owned()));
        body.node.iter().for_each(|inner| read_by(inner, read));
    }
}
