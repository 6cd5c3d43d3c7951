//! What tract is not asked at all: nodes that it would loop on, end the process at, or take
//! for others, under names of operators that it does not know.
//!
//! Works on tract's own form of a model, just before tract reads it.

use tract_onnx::pb;

/// Gives every node, those of bodies included, a name of its own, and what tract would take for
/// an operator of ONNX, or would never end at, the name of an operator that it does not know.
pub fn unknown_operators(graph: &mut pb::GraphProto) {
    for node in &mut graph.node {
        // tract wants unique node names, exporters do not always give them; what it makes
        // of a node it calls after that, and must not meet a tensor of the file.
        node.name = node.output.first().map(|output| format!("{output} node")).unwrap_or_default();
        // It ignores domains: an operator of somebody's own is not the one of ONNX.
        if !matches!(node.domain.as_str(), "" | "ai.onnx" | "ai.onnx.ml") {
            node.op_type = format!("{}::{}", node.domain, node.op_type);
        }
        // It looks for the steps of a permutation until it has found them.
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
