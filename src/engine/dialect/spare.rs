//! What tract is not asked at all: nodes that it would loop on, end the process at, or take
//! for others, under names of operators that it does not know.
//!
//! Works on tract's own form of a model, just before tract reads it.

use std::collections::HashSet;

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

/// A batch norm looks for channels in the second dimension, beyond the end of the shape if
/// there is none, and the process may end there: tract is not asked about norms of
/// vectors, nor of what is made of vectors element by element.
pub fn norms_of_vectors(graph: &mut pb::GraphProto) {
    use pb::type_proto::Value;
    let is_vector = |info: &&pb::ValueInfoProto| {
        let declared = info.r#type.as_ref().and_then(|declared| declared.value.as_ref());
        let Some(Value::TensorType(tensor)) = declared else { return false };
        tensor.shape.as_ref().is_some_and(|shape| shape.dim.len() < 2)
    };
    let inputs = graph.input.iter().filter(is_vector).map(|input| input.name.clone());
    let stored = graph.initializer.iter().filter(|tensor| tensor.dims.len() < 2);
    let mut vectors: HashSet<String> =
        inputs.chain(stored.map(|tensor| tensor.name.clone())).collect();
    const BY_ELEMENT: [&str; 12] = [
        "Add",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Div",
        "Dropout",
        "Identity",
        "Mul",
        "Neg",
        "Relu",
        "Sigmoid",
        "Sub",
    ];
    for node in &mut graph.node {
        let by_element = BY_ELEMENT.contains(&node.op_type.as_str());
        let of_vectors = match node.op_type.as_str() {
            "BatchNormalization" => node.input.first().is_some_and(|data| vectors.contains(data)),
            "Constant" => node
                .attribute
                .iter()
                .any(|attribute| attribute.t.as_ref().is_none_or(|tensor| tensor.dims.len() < 2)),
            _ => by_element && node.input.iter().all(|input| vectors.contains(input)),
        };
        if of_vectors {
            vectors.extend(node.output.iter().cloned());
        }
        if of_vectors && node.op_type == "BatchNormalization" {
            node.op_type = "BatchNormalization of a vector".into();
        }
    }
}

fn is_permutation(axes: &[i64]) -> bool {
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    (0..).zip(sorted).all(|(expected, axis)| expected == axis)
}
