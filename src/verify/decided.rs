//! A model at given sizes, with each If replaced by the branch that the sizes choose.
//!
//! The engine wants both branches of an If to make tensors of one shape, even where the file
//! chooses between `Squeeze` and `Identity` by a size.
//!
//! Knows the format and what follows from sizes; runs nothing.

use std::collections::HashMap;

use crate::engine::InputShapes;
use crate::facts::constants::Constants;
use crate::facts::roles;
use crate::facts::shapes::Sizes;
use crate::onnx::edit;
use crate::onnx::graph::Graph;
use crate::onnx::ids::NodeId;
use crate::onnx::model::{Invalid, Model};
use crate::onnx::names;
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};
use crate::onnx::schema::graph_field;
use crate::onnx::splice::{self, Edit};
use crate::onnx::write;
use crate::verify::entries;

/// Upper bound on the number of times that a model is gone through: a branch may hold an If
/// itself. Each round decides all that it can.
const ROUNDS: usize = 16;

/// A model in which If nodes are decided.
#[derive(Debug)]
pub struct Decided {
    /// The model.
    pub model: Model,
    /// The branches that were left out.
    pub not_taken: NotTaken,
}

/// Branches that are not taken, by the first output of their If and the attribute that holds them.
pub type NotTaken = HashMap<(String, &'static str), GraphProto>;

/// Returns the model with each If decided whose condition follows from inputs of these `shapes`
/// and from the `values` of inputs; `None` if there is none.
///
/// # Errors
/// Returns an error if an entry cannot be decoded.
pub fn decided(
    model: &Model,
    shapes: &InputShapes,
    values: &[TensorProto],
) -> Result<Option<Decided>, Invalid> {
    let graphs = Graph::read_all(model)?;
    if !graphs.first().is_some_and(has_choices) {
        return Ok(None);
    }
    let mut not_taken = HashMap::new();
    let mut latest = with_values(model, &graphs, values)?;
    for _ in 0..ROUNDS {
        let graphs = Graph::read_all(&latest)?;
        let edits = choices(&graphs, shapes, &mut not_taken)?;
        if edits.is_empty() {
            break;
        }
        let bytes = edit::edited(&latest, &graphs, edits);
        let storage = latest.storage.clone();
        drop(graphs);
        latest = Model::index(bytes, storage)?;
    }
    Ok((!not_taken.is_empty()).then_some(Decided { model: latest, not_taken }))
}

/// Returns whether the graph has an If that an output needs.
pub fn has_choices(graph: &Graph) -> bool {
    graph.nodes().any(|(id, node)| graph.is_live(id) && roles::chooses(node))
}

/// Returns the model with `values` as initializers of its inputs.
fn with_values(model: &Model, graphs: &[Graph], values: &[TensorProto]) -> Result<Model, Invalid> {
    let container = graphs.first().ok_or(Invalid::NoGraph)?.fields.container();
    let entries = values.iter().flat_map(|value| splice::entry(graph_field::INITIALIZER, value));
    let entries: Vec<u8> = entries.collect();
    let edits = vec![Edit::insert(container.payload.end, entries.into(), &container)];
    Model::index(edit::edited(model, graphs, edits), model.storage.clone())
}

/// Returns the edits that replace each If of the main graph by the branch taken, if that is known.
fn choices(
    graphs: &[Graph],
    shapes: &InputShapes,
    not_taken: &mut NotTaken,
) -> Result<Vec<Edit>, Invalid> {
    let Some(main) = graphs.first() else { return Ok(Vec::new()) };
    let constants = Constants::find_all(graphs, false)?;
    let Some(constants) = constants.first() else { return Ok(Vec::new()) };
    let sizes = Sizes::new(main, constants, shapes);
    let mark = names::fresh(main, "/taken/");
    let mut edits = Vec::new();
    for (id, node) in main.nodes().filter(|&(id, node)| main.is_live(id) && roles::chooses(node)) {
        let Some(condition) = node.input(0) else { continue };
        let Some(condition) = sizes.integers(condition)?.filter(|known| known.len() == 1) else {
            continue;
        };
        let (name, other_name) = if condition != [0] {
            ("then_branch", "else_branch")
        } else {
            ("else_branch", "then_branch")
        };
        let body =
            |name| node.attribute(name).and_then(|attribute| attribute.g.as_deref().cloned());
        let (Some(taken), Some(mut other)) = (body(name), body(other_name)) else { continue };
        if !taken.sparse_initializer.is_empty() {
            continue;
        }
        // Otherwise equal branches would differ in where their data lies.
        entries::fill(main.model, &mut other)?;
        not_taken.insert((label(main, id), other_name), other);
        let with = in_place(&node.proto, &taken, &format!("{}{mark}", label(main, id)));
        edits.push(Edit::replace(node.field.entry(), with.into()));
    }
    Ok(edits)
}

/// Returns what the If is called: its first output.
fn label(graph: &Graph, id: NodeId) -> String {
    graph.node(id).output().map_or_else(String::new, |output| graph.value(output).name.to_owned())
}

/// Returns the entries that replace an If by the branch `taken`, whose own tensors get `prefix`
/// before their names.
fn in_place(node: &NodeProto, taken: &GraphProto, prefix: &str) -> Vec<u8> {
    let made = taken.node.iter().flat_map(|node| &node.output).map(String::as_str);
    let stored = taken.initializer.iter().map(TensorProto::name);
    let own = made.chain(stored).filter(|name| !name.is_empty());
    let names: HashMap<&str, String> = own.map(|name| (name, format!("{prefix}{name}"))).collect();
    let mut bytes = Vec::new();
    for stored in &taken.initializer {
        let mut stored = stored.clone();
        stored.name = stored.name.map(|name| renamed(&names, &name));
        bytes.extend(splice::entry(graph_field::INITIALIZER, &stored));
    }
    for inner in &taken.node {
        let mut inner = inner.clone();
        rename(&names, &mut inner);
        bytes.extend(splice::entry(graph_field::NODE, &inner));
    }
    for (formal, actual) in taken.output.iter().zip(&node.output).filter(|(_, to)| !to.is_empty()) {
        let from = renamed(&names, formal.name());
        let identity = write::node("Identity", "", &[&from], actual, vec![]);
        bytes.extend(splice::entry(graph_field::NODE, &identity));
    }
    bytes
}

fn renamed(names: &HashMap<&str, String>, name: &str) -> String {
    names.get(name).cloned().unwrap_or_else(|| name.to_owned())
}

/// Renames the inputs and outputs of a node, in its bodies too: in graphs that see each other,
/// no name may stand for two tensors.
fn rename(names: &HashMap<&str, String>, node: &mut NodeProto) {
    let own = node.input.iter_mut().chain(&mut node.output);
    own.for_each(|name| *name = renamed(names, name));
    for attribute in &mut node.attribute {
        for body in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
            let infos = body.output.iter_mut().filter_map(|info| info.name.as_mut());
            infos.for_each(|name| *name = renamed(names, name));
            body.node.iter_mut().for_each(|inner| rename(names, inner));
        }
    }
}
