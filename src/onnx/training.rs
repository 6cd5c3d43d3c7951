//! The mode of a batch norm or dropout, training or inference, as each operator set states it.
//!
//! Knows one node and its operator set; the meaning of the node is decided in `ops`.

use crate::onnx::model::is_default_domain;
use crate::onnx::proto::NodeProto;

/// The mode in which a node computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeMode<'n> {
    /// Inference: with the given statistics, and without dropping anything.
    Evaluates,
    /// Training: with the statistics of its own input, and with random dropping.
    Trains,
    /// The tensor of this name selects the mode at run time.
    GivenBy(&'n str),
}

impl NodeMode<'_> {
    /// Whether the mode is inference; `integers` looks up the tensor that selects it. Returns
    /// `None` if that is unknown.
    pub fn evaluates(self, integers: impl FnOnce(&str) -> Option<Vec<i64>>) -> Option<bool> {
        match self {
            NodeMode::Evaluates => Some(true),
            NodeMode::Trains => Some(false),
            NodeMode::GivenBy(name) => Some(integers(name)? == [0]),
        }
    }
}

/// Whether `node` has a mode: whether it is a batch norm or a dropout.
pub fn has_mode(node: &NodeProto) -> bool {
    is_norm(node) || is_dropout(node)
}

/// Returns `node` without the attribute or input that selects training, and a batch norm also
/// without the outputs that it has in training only. A node without a mode stays as it is, and
/// so does `is_test`.
pub fn without_mode(mut node: NodeProto) -> NodeProto {
    if is_norm(&node) {
        node.output.truncate(1);
        node.attribute.retain(|attribute| attribute.name() != "training_mode");
    } else if is_dropout(&node) {
        node.input.truncate(2);
        while node.input.last().is_some_and(String::is_empty) {
            node.input.pop();
        }
    }
    node
}

fn is_norm(node: &NodeProto) -> bool {
    is_default_domain(node.domain()) && node.op_type() == "BatchNormalization"
}

/// Whether `node` is a dropout.
pub fn is_dropout(node: &NodeProto) -> bool {
    is_default_domain(node.domain()) && node.op_type() == "Dropout"
}

/// Returns the mode of `node`; a node that is neither a batch norm nor a dropout evaluates.
pub fn mode(node: &NodeProto, opset: i64) -> NodeMode<'_> {
    let is_set = |name: &str| {
        let attribute = node.attribute.iter().find(|attribute| attribute.name() == name);
        attribute.is_some_and(|attribute| attribute.i() != 0)
    };
    let is_norm = is_norm(node);
    if !has_mode(node) {
        return NodeMode::Evaluates;
    }
    let trains = match opset {
        ..7 => !is_set("is_test"),
        14.. if is_norm => is_set("training_mode"),
        // Before `training_mode` existed, further outputs meant training.
        _ if is_norm => node.output.iter().skip(1).any(|name| !name.is_empty()),
        _ => match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(mode) => return NodeMode::GivenBy(mode),
            None => false,
        },
    };
    if trains { NodeMode::Trains } else { NodeMode::Evaluates }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::write::{int, node};

    #[test]
    fn every_operator_set_has_its_own_way_to_say_it() {
        let norm = |outputs: &[&str], attribute: Option<(&str, i64)>| NodeProto {
            output: outputs.iter().map(|&name| name.to_owned()).collect(),
            attribute: attribute.into_iter().map(|(name, value)| int(name, value)).collect(),
            ..node("BatchNormalization", "", &["x", "s", "b", "m", "v"], "", vec![])
        };
        let dropout = |inputs: &[&str]| node("Dropout", "", inputs, "y", vec![]);
        let foreign = NodeProto { domain: Some("own".into()), ..dropout(&["x", "r", "t"]) };
        for (node, opset, expected) in [
            (norm(&["y"], None), 6, NodeMode::Trains),
            (norm(&["y"], Some(("is_test", 0))), 1, NodeMode::Trains),
            (norm(&["y"], Some(("is_test", 1))), 6, NodeMode::Evaluates),
            (norm(&["y"], None), 7, NodeMode::Evaluates),
            (norm(&["y", "m"], None), 7, NodeMode::Trains),
            (norm(&["y", "", "v"], None), 13, NodeMode::Trains),
            (norm(&["y", "", ""], None), 9, NodeMode::Evaluates),
            (norm(&["y", "m", "v"], None), 14, NodeMode::Evaluates),
            (norm(&["y"], Some(("training_mode", 1))), 14, NodeMode::Trains),
            // Operator set 13 does not have this attribute.
            (norm(&["y"], Some(("training_mode", 1))), 13, NodeMode::Evaluates),
            (dropout(&["x"]), 6, NodeMode::Trains),
            (dropout(&["x"]), 10, NodeMode::Evaluates),
            (dropout(&["x", "r", ""]), 12, NodeMode::Evaluates),
            (dropout(&["x", "", "t"]), 13, NodeMode::GivenBy("t")),
            (foreign, 13, NodeMode::Evaluates),
            (node("Relu", "", &["x"], "y", vec![]), 6, NodeMode::Evaluates),
        ] {
            assert_eq!(mode(&node, opset), expected, "{node:?} of operator set {opset}");
        }
    }
}
