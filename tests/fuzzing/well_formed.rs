//! Checks whether a graph is well formed, on decoded messages and with none of the tool's own
//! code: every name must be defined once, and before it is read.

use std::collections::HashSet;

use acb_fuse::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

/// Returns what is wrong with `model`, or `None` if nothing is.
pub fn problem(model: &ModelProto) -> Option<String> {
    let graph = model.graph.as_ref()?;
    problem_of(graph, &HashSet::new())
}

fn problem_of<'g>(graph: &'g GraphProto, around: &HashSet<&'g str>) -> Option<String> {
    let mut own: HashSet<&str> = HashSet::new();
    let inputs = graph.input.iter().map(ValueInfoProto::name);
    for name in inputs {
        if !own.insert(name) {
            return Some(format!("input `{name}` is listed twice"));
        }
    }
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_deref());
    let mut stored = HashSet::new();
    for name in graph.initializer.iter().chain(sparse).map(TensorProto::name) {
        if !stored.insert(name) {
            return Some(format!("`{name}` is stored twice"));
        }
    }
    own.extend(stored);
    for node in &graph.node {
        for name in node.input.iter().map(String::as_str) {
            if !name.is_empty() && !own.contains(name) && !around.contains(name) {
                return Some(format!("{} reads `{name}` before it is defined", label(node)));
            }
        }
        let visible: HashSet<&str> = own.union(around).copied().collect();
        for body in bodies(node) {
            if let Some(problem) = problem_of(body, &visible) {
                return Some(problem);
            }
        }
        for name in node.output.iter().map(String::as_str).filter(|name| !name.is_empty()) {
            if !own.insert(name) {
                return Some(format!("`{name}` is defined twice"));
            }
        }
    }
    let outputs = graph.output.iter().map(ValueInfoProto::name);
    let mut undefined = outputs.filter(|name| !own.contains(name) && !around.contains(name));
    undefined.next().map(|name| format!("output `{name}` is computed by no node"))
}

fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute
        .iter()
        .flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

fn label(node: &NodeProto) -> String {
    format!("{} `{}`", node.op_type(), node.name())
}
