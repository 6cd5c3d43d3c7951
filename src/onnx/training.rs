//! In which mode a batch norm or dropout is, as each operator set says it.
//!
//! Knows one node and its operator set; what becomes of it is decided in `ops`.

use crate::onnx::model::is_default_domain;
use crate::onnx::proto::NodeProto;

/// How a node computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeMode<'n> {
    /// As at inference: with the statistics that it is given, without dropping anything.
    Evaluates,
    /// As in training: with the statistics of its own input, dropping at random.
    Trains,
    /// As the tensor of this name says when it runs.
    GivenBy(&'n str),
}

impl NodeMode<'_> {
    /// Whether that is inference, where `integers` looks up the tensor that says so; `None` if
    /// it is not known.
    pub fn evaluates(self, integers: impl FnOnce(&str) -> Option<Vec<i64>>) -> Option<bool> {
        match self {
            NodeMode::Evaluates => Some(true),
            NodeMode::Trains => Some(false),
            NodeMode::GivenBy(name) => Some(integers(name)? == [0]),
        }
    }
}

/// Whether `node` is of an operator that has a mode: a batch norm or a dropout.
pub fn has_mode(node: &NodeProto) -> bool {
    is_norm(node) || is_dropout(node)
}

/// `node` without what says that it trains, and a norm without what it makes in training
/// alone; what has no mode as it is. An `is_test` stays as it stands.
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

/// The mode of `node`; what is neither a batch norm nor a dropout evaluates.
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
        // Before there was `training_mode`, further outputs meant training.
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
            // Of an operator set that does not have it.
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
