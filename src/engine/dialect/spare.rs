//! Keeps nodes from tract on which it would loop or end the process, or which it would take for
//! others: they get names of operators that it does not know.
//!
//! Works on tract's own form of a model, just before tract reads it.

use tract_onnx::pb;

/// Gives every node, including those of bodies, a name of its own. What tract would wrongly take
/// for an operator of ONNX, or would never finish, is renamed to an operator that it does not
/// know.
pub fn unknown_operators(graph: &mut pb::GraphProto) {
    for node in &mut graph.node {
        // tract wants unique node names, which exporters do not always write. It derives names
        // from them, which must not clash with a tensor of the file.
        node.name = node.output.first().map(|output| format!("{output} node")).unwrap_or_default();
        // tract ignores domains, but a custom operator is not the one of ONNX.
        if !matches!(node.domain.as_str(), "" | "ai.onnx" | "ai.onnx.ml") {
            node.op_type = format!("{}::{}", node.domain, node.op_type);
        }
        // tract searches for the steps of a permutation until it has found them.
        let perm = node.attribute.iter().find(|attribute| attribute.name == "perm");
        if node.op_type == "Transpose" && perm.is_some_and(|perm| !is_permutation(&perm.ints)) {
            node.op_type = "Transpose by no permutation".into();
        }
        let attributes = node.attribute.iter_mut();
        attributes.flat_map(|attribute| attribute.g.iter_mut()).for_each(unknown_operators);
    }
}

fn is_permutation(axes: &[i64]) -> bool {
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    (0..).zip(sorted).all(|(expected, axis)| expected == axis)
}
