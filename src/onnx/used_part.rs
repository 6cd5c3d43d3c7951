//! Which of some nodes in a row anybody needs.
//!
//! Knows nodes and the names of what they read; no graph.

use std::collections::HashSet;

use crate::onnx::node::bodies;
use crate::onnx::proto::NodeProto;

/// Those of `nodes` that these tensors follow from: of what a function makes, a call may use
/// but a part.
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

/// Notes what a node reads, in its bodies, too.
fn read_by(node: &NodeProto, read: &mut HashSet<String>) {
    read.extend(node.input.iter().cloned());
    for body in bodies(node) {
        read.extend(body.output.iter().map(|output| output.name().to_owned()));
        body.node.iter().for_each(|inner| read_by(inner, read));
    }
}
