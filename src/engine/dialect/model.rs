//! Rewrites a whole model for tract: every live node of every graph as
//! [`crate::engine::dialect::nodes`] returns it, without local functions and sequences.
//!
//! Knows the file, and looks constants up there. What becomes of a single operator is decided in
//! `nodes`; the removal of what inference does not need is decided here.

use prost::Message;
use prost::bytes::Bytes;

use crate::engine::dialect::nodes::{evaluates, node, without_mode};
use crate::engine::dialect::sequences;
use crate::onnx::edit;
use crate::onnx::graph::Graph;
use crate::onnx::ids::NodeId;
use crate::onnx::inline::inline;
use crate::onnx::model::{Invalid, Model, is_default_domain};
use crate::onnx::nested;
use crate::onnx::node::Node;
use crate::onnx::proto::NodeProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::schema::graph_field;
use crate::onnx::splice::{self, Edit};
use crate::onnx::tensor::{self, Initializer};

/// Returns the model without dead nodes, local functions and sequences ([`flattened`]), and with
/// every node, including those of bodies, rewritten by [`node()`]. A norm or dropout keeps its
/// mode.
///
/// # Errors
/// Returns an error if an entry cannot be decoded.
pub fn model(model: &Model) -> Result<Bytes, Invalid> {
    let graphs = Graph::read_all(model)?;
    match flattened(model, &graphs)? {
        None => Ok(in_known_words(model, &graphs)),
        Some(flat) => Ok(in_known_words(&flat, &Graph::read_all(&flat)?)),
    }
}

fn in_known_words(model: &Model, graphs: &[Graph]) -> Bytes {
    let edits = graphs.iter().flat_map(|graph| edits(graphs, graph));
    edit::edited(model, graphs, edits.collect())
}

/// Returns the model, whose `graphs` were read, with local functions inlined and elements of
/// sequences replaced by tensors, or `None` if it has neither.
///
/// # Errors
/// Returns an error if an entry cannot be decoded.
pub fn flattened(model: &Model, graphs: &[Graph]) -> Result<Option<Model>, Invalid> {
    let indexed = |bytes| Model::index(bytes, model.storage.clone());
    let Some(inlined) = inline(model, &|_| true)?.map(indexed).transpose()? else {
        return without_sequences(model, graphs).map(indexed).transpose();
    };
    let tensors = without_sequences(&inlined, &Graph::read_all(&inlined)?);
    Ok(Some(tensors.map(indexed).transpose()?.unwrap_or(inlined)))
}

/// Returns the model with elements of sequences replaced by tensors, or `None` if there are
/// none.
fn without_sequences(model: &Model, graphs: &[Graph]) -> Option<Bytes> {
    let edits = graphs.iter().flat_map(|graph| {
        graph.nodes().filter_map(|(_, node)| {
            let integers = |name: &str| integers(graphs, graph, name);
            Some(replacing(node, &sequences::of_tensors(graph, node, &integers)?))
        })
    });
    let edits: Vec<Edit> = edits.collect();
    (!edits.is_empty()).then(|| edit::edited(model, graphs, edits))
}

fn replacing(node: &Node, with: &[NodeProto]) -> Edit {
    let entries = with.iter().flat_map(|node| splice::entry(graph_field::NODE, node));
    let entries: Vec<u8> = entries.collect();
    Edit::replace(node.field.entry(), entries.into())
}

/// The index of the main graph among all graphs.
const MAIN: usize = 0;

/// Returns the nodes that [`model`] writes in the place of one node of `graph`, which is the
/// main one of `graphs`.
///
/// # Errors
/// Returns an error if the rewritten node cannot be decoded.
pub fn nodes(graphs: &[Graph], graph: &Graph, id: NodeId) -> Result<Vec<NodeProto>, Invalid> {
    let node = graph.node(id);
    if !node.has_bodies() {
        return Ok(forms(graphs, graph, node));
    }
    let payload = &node.field.payload;
    let inner: Vec<&Graph> = nested::inside(graphs, MAIN, id).collect();
    let edits: Vec<Edit> = inner.iter().flat_map(|inner| edits(graphs, inner)).collect();
    if edits.is_empty() {
        return Ok(vec![node.proto.clone()]);
    }
    let bytes = edit::edited_message(graph.model, payload, &inner, edits);
    let node = NodeProto::decode(bytes).map_err(|error| Invalid::Decode {
        entry: "node",
        at: payload.start,
        reason: error.to_string(),
    })?;
    Ok(vec![node])
}

/// Returns the edits that rewrite the nodes of one graph for the engine. Nodes with bodies are
/// left out, since the nodes in their bodies belong to other graphs.
fn edits(graphs: &[Graph], graph: &Graph) -> Vec<Edit> {
    let mut edits = Vec::new();
    for (id, node) in graph.nodes() {
        // A dead node may read an output that a norm at inference does not make.
        if !graph.is_live(id) {
            edits.push(Edit::remove(node.field.entry()));
            continue;
        }
        if node.has_bodies() {
            continue;
        }
        let nodes = forms(graphs, graph, node);
        if nodes != [node.proto.clone()] {
            edits.push(replacing(node, &nodes));
        }
    }
    edits
}

/// Returns a node without bodies as rewritten by [`node()`], without the mode and the outputs
/// that inference does not need.
fn forms(graphs: &[Graph], graph: &Graph, old: &Node) -> Vec<NodeProto> {
    if old.standard_op().is_none() {
        return vec![old.proto.clone()];
    }
    let (opset, mut proto) = (graph.model.opset, old.proto.clone());
    let lookup = |name: &str| integers(graphs, graph, name);
    if !graph.yields_more(old) && evaluates(&proto, opset, &lookup) {
        proto = without_mode(proto);
    }
    node(proto, opset, &lookup)
}

/// Returns why tract would read the node wrongly, as far as the file tells, or `None` if it
/// would not.
pub fn misread(node: &Node) -> Option<String> {
    let why = match node.proto.domain() {
        domain if !is_default_domain(domain) => {
            format!("is of domain `{domain}`, which tract ignores")
        }
        _ if node.aligns_by_axis() => {
            "broadcasts as before operator set 7, which tract ignores".to_owned()
        }
        _ => return None,
    };
    Some(format!("node `{}` {why}", node.label()))
}

/// Returns the integers that are stored as `name`, or that a Constant node of that name holds,
/// in `graph` or around it.
fn integers(graphs: &[Graph], graph: &Graph, name: &str) -> Option<Vec<i64>> {
    integers_behind(graphs, graph, name, 0)
}

/// Whether the output of the node has the same integers as its input, read as a list.
fn keeps_integers(node: &Node) -> bool {
    match node.standard_op() {
        Some("Cast") => node.int("to", 0) == DataType::Int64 as i64,
        Some("Identity" | "Reshape" | "Squeeze" | "Unsqueeze") => true,
        _ => false,
    }
}

/// Upper bound on the nodes that are followed back to a constant.
const MAX_CHAIN: usize = 16;

fn integers_behind(graphs: &[Graph], graph: &Graph, name: &str, depth: usize) -> Option<Vec<i64>> {
    let id = graph.find(name)?;
    if let (Some(_), Some((outer, _))) = (graph.value(id).outer, graph.outer) {
        return integers_behind(graphs, graphs.get(outer)?, name, depth)
            .filter(|_| !graph.value(id).is_ambiguous);
    }
    match graph.initializer(id).ok()? {
        Some(Initializer::Dense(stored)) => {
            return tensor::integers(&stored, &graph.model.storage).ok();
        }
        Some(Initializer::Sparse(_)) => return None,
        None => {}
    }
    let constant = graph.node(graph.value(id).producer?);
    if keeps_integers(constant) && depth < MAX_CHAIN {
        let source = &graph.value(constant.input(0)?).name;
        return integers_behind(graphs, graph, source, depth.saturating_add(1));
    }
    match (constant.attribute("value"), constant.ints("value_ints")) {
        (Some(value), _) => tensor::integers(value.t.as_deref()?, &graph.model.storage).ok(),
        (None, Some(values)) => Some(values.to_vec()),
        (None, None) => None,
    }
}
