//! Turns what was decided into the list of edits that make the new file from the old one.
//!
//! Only what the new nodes made superfluous is removed: nodes, initializers that nothing reads
//! any more, and the entries that describe removed tensors. Everything else, dead nodes
//! included, stays where it is.
//!
//! Knows graphs and new nodes; does not know why these are better, nor where the file goes.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use std::collections::{BTreeSet, HashSet};

use prost::Message;

use crate::emit::nodes::FusedNodes;
use crate::emit::weights::FusedWeights;
use crate::onnx::edit;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, IdSet, NodeId, Table, ValueId};
use crate::onnx::info::info_like;
use crate::onnx::model::{Invalid, Model};
use crate::onnx::notes;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::schema::{annotation_field, graph_field, info_field, tensor_field};
use crate::onnx::splice::{self, Container, Deferred, Edit};
use crate::pipeline::remains::{Replaced, Rest, dropped};
use crate::plan::Block;

/// The changes in one graph.
#[derive(Debug, Default)]
pub struct Changes<'f> {
    /// The new nodes, block by block.
    pub blocks: Vec<BlockNodes<'f>>,
    /// Training-mode nodes, and the inference forms that they become.
    pub eval_forms: Vec<(NodeId, NodeProto)>,
}

/// The nodes that take the place of one block.
#[derive(Debug)]
pub struct BlockNodes<'f> {
    /// The tensors of the file that the new nodes make: the block's output, even if nobody reads
    /// it, and its by-product if they name it. They take the place of the node that makes the
    /// first one.
    pub made: Vec<ValueId>,
    /// The new nodes, and what they read.
    pub fused: &'f FusedNodes,
}

impl<'f> BlockNodes<'f> {
    /// Returns the nodes that `fused` puts in the place of `block`.
    pub fn of(block: &Block, fused: &'f FusedNodes) -> Self {
        let is_named = |tensor: &ValueId| fused.names_byproduct || *tensor == block.region.output;
        BlockNodes { made: block.tensors_made().filter(is_named).collect(), fused }
    }
}

/// Everything that is spliced out of the file and into it.
#[derive(Debug, Default)]
pub struct Rewrite {
    /// Removals, and insertions of new nodes.
    pub edits: Vec<Edit>,
    /// New initializers.
    pub tensors: Vec<NewTensor>,
    /// The messages that contain all of these.
    containers: Vec<Container>,
    /// Number of nodes that are removed.
    pub removed_nodes: usize,
    /// Number of new nodes.
    pub new_nodes: usize,
    /// Number of removed graph inputs, those that only declared removed initializers.
    pub removed_inputs: usize,
}

/// A new initializer, and where in the file it goes.
#[derive(Debug)]
pub struct NewTensor {
    /// What it holds.
    pub values: NewValues,
    /// The other fields of the tensor that it replaces, as bytes of the file.
    notes: Vec<u8>,
    place: TensorPlace,
}

/// The place in the file where an initializer goes.
#[derive(Debug, Clone)]
struct TensorPlace {
    /// The graph's message.
    into: Container,
    at: usize,
    /// The place where it is listed as a graph input, if it has to be.
    inputs_at: Option<usize>,
}

impl TensorPlace {
    /// Returns the place behind the initializers of `graph`. Up to IR version 3 every
    /// initializer must be listed as an input, and bodies cannot have more of these: then the
    /// main graph holds the tensors of its bodies too.
    fn behind_others(graphs: &[Graph], graph: &Graph) -> Self {
        let listed = (1..4).contains(&graph.model.ir_version);
        let home = graphs.first().filter(|_| listed).unwrap_or(graph);
        let inputs_at = home.fields.fields(graph_field::INPUT).next_back();
        TensorPlace {
            into: home.fields.container(),
            at: home.fields.end_of_initializers(),
            inputs_at: inputs_at.map(|field| field.entry().end).filter(|_| listed),
        }
    }
}

/// The content of a new initializer.
#[derive(Debug, Clone)]
pub enum NewValues {
    /// Shapes, axes, pads or factors that nodes read.
    Told(Box<TensorProto>),
    /// Floats, which are computed when they are written.
    Weights(FusedWeights),
}

impl NewValues {
    /// Returns the message, without the data of weights.
    fn header(&self) -> TensorProto {
        match self {
            NewValues::Told(tensor) => TensorProto::clone(tensor),
            NewValues::Weights(weights) => weights.header(),
        }
    }
}

impl Rewrite {
    /// Checks whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Iterates over the new weights, each with its [`Deferred`].
    pub fn weights(&self) -> impl Iterator<Item = (Deferred, &FusedWeights)> {
        self.tensors.iter().enumerate().filter_map(|(id, new)| match &new.values {
            NewValues::Weights(weights) => {
                Some((Deferred { id, length: weights.length() }, weights))
            }
            NewValues::Told(_) => None,
        })
    }

    /// Returns the weights that `deferred` stands for.
    pub fn weight(&self, deferred: Deferred) -> Option<&FusedWeights> {
        match &self.tensors.get(deferred.id)?.values {
            NewValues::Weights(weights) => Some(weights),
            NewValues::Told(_) => None,
        }
    }

    /// Returns all edits for [`splice::write`], the `further` ones included, in file order and
    /// with the length prefixes of all messages around them. `elsewhere` returns the message of
    /// a tensor whose data is in a side file.
    pub fn edits(
        &self,
        further: Vec<Edit>,
        around_these: Vec<Container>,
        elsewhere: impl Fn(&TensorProto) -> Option<TensorProto>,
    ) -> Vec<Edit> {
        let (mut edits, mut containers) = (self.edits.clone(), self.containers.clone());
        for (id, NewTensor { values, notes, place }) in self.tensors.iter().enumerate() {
            let header = values.header();
            let insert_at = |at: usize, with: Vec<u8>| Edit::insert(at, with.into(), &place.into);
            edits.extend(
                place.inputs_at.map(|at| {
                    insert_at(at, splice::entry(graph_field::INPUT, &info_like(&header)))
                }),
            );
            let insert = |with: Vec<u8>| insert_at(place.at, with);
            let number = graph_field::INITIALIZER;
            let noted = |tensor: &TensorProto| {
                let mut message = tensor.encode_to_vec();
                message.extend_from_slice(notes);
                message
            };
            let entry = |tensor: &TensorProto| splice::begun_entry(number, &noted(tensor), 0);
            edits.push(match (values, elsewhere(&header)) {
                (NewValues::Told(tensor), _) => insert(entry(tensor)),
                (NewValues::Weights(_), Some(moved)) => insert(entry(&moved)),
                (NewValues::Weights(weights), None) => {
                    let length = weights.length();
                    let raw = tensor_field::RAW_DATA;
                    insert(splice::open_entry(number, noted(&header), raw, length))
                        .then(Deferred { id, length })
                }
            });
        }
        edits.extend(further);
        containers.extend(around_these);
        splice::with_lengths(edits, containers)
    }
}

/// Returns the rewrite that makes `changes` to `graphs` (see [`Graph::read_all`]).
///
/// # Errors
/// Returns an error if an entry's name cannot be read.
pub fn rewrite(graphs: &[Graph], changes: &[Changes]) -> Result<Rewrite, Invalid> {
    let mut rewrite = Rewrite::default();
    if changes.iter().all(|changes| changes.blocks.is_empty() && changes.eval_forms.is_empty()) {
        return Ok(rewrite);
    }
    let replaced = graphs.iter().zip(changes).map(|(graph, changes)| {
        let blocks = changes.blocks.iter().flat_map(|BlockNodes { made, fused }| {
            made.iter().map(|&tensor| (tensor, fused.roots.clone()))
        });
        Replaced::new(graph, blocks.collect(), &changes.eval_forms)
    });
    let rests = Rest::of_all(graphs, &replaced.collect::<Vec<_>>());
    for ((graph, changes), rest) in graphs.iter().zip(changes).zip(&rests) {
        // The node of this body is removed, and the body with it.
        if rest.is_gone {
            rewrite.removed_nodes += graph.node_count();
            continue;
        }
        rewrite_graph(graph, changes, rest, &mut rewrite)?;
        let infos = changes.blocks.iter().flat_map(|block| &block.fused.infos);
        let with: Vec<u8> =
            infos.flat_map(|info| splice::entry(graph_field::VALUE_INFO, info)).collect();
        if !with.is_empty() {
            let last = graph.fields.fields(graph_field::VALUE_INFO).next_back();
            let at = last.map_or(graph.fields.end_of_initializers(), |field| field.entry().end);
            rewrite.edits.push(Edit::insert(at, with.into(), &graph.fields.container()));
        }
        rewrite.tensors.extend(new_tensors(graphs, graph, changes));
    }
    rewrite.containers = edit::containers(graphs);
    Ok(rewrite)
}

/// Returns the rewrite that puts `tensors` in the place of the initializers of `graph` with
/// these ids, and of the Constant nodes that hold the others. All other fields of a tensor stay.
///
/// # Errors
/// Returns an error if an entry cannot be read.
pub fn replaced(
    graphs: &[Graph],
    graph: &Graph,
    tensors: impl IntoIterator<Item = (ValueId, FusedWeights)>,
) -> Result<Rewrite, Invalid> {
    let mut rewrite = Rewrite { containers: edit::containers(graphs), ..Rewrite::default() };
    let behind = TensorPlace::behind_others(graphs, graph);
    for (id, weights) in tensors {
        let value = graph.value(id);
        let (old, place) = match (&value.initializer, value.producer) {
            (Some(field), _) => {
                let into = graph.fields.container();
                (field, TensorPlace { into, at: field.entry().start, inputs_at: None })
            }
            (None, Some(node)) => {
                rewrite.removed_nodes += 1;
                (&graph.node(node).field, behind.clone())
            }
            (None, None) => continue,
        };
        rewrite.edits.push(Edit::remove(old.entry()));
        let (values, notes) = (NewValues::Weights(weights), notes::of_stored(graph, id)?);
        rewrite.tensors.push(NewTensor { values, notes, place });
    }
    Ok(rewrite)
}

/// Returns the model of `graphs` with training-mode nodes converted to their inference forms,
/// and nothing else changed; `None` if no node is converted. `forms` holds, for each graph,
/// these nodes and what they become.
///
/// # Errors
/// Returns an error if an entry cannot be read.
pub fn converted(
    graphs: &[Graph],
    forms: impl IntoIterator<Item = Vec<(NodeId, NodeProto)>>,
) -> Result<Option<Model>, Invalid> {
    let changes = forms.into_iter().map(|eval_forms| Changes { blocks: Vec::new(), eval_forms });
    let rewrite = rewrite(graphs, &changes.collect::<Vec<_>>())?;
    let Some(main) = graphs.first().filter(|_| !rewrite.is_empty()) else { return Ok(None) };
    let bytes = edit::edited(main.model, graphs, rewrite.edits);
    Model::index(bytes, main.model.storage.clone()).map(Some)
}

fn rewrite_graph(
    graph: &Graph,
    changes: &Changes,
    rest: &Rest,
    rewrite: &mut Rewrite,
) -> Result<(), Invalid> {
    let edits = &mut rewrite.edits;
    let fused: IdMap<NodeId, &FusedNodes> = changes
        .blocks
        .iter()
        .filter_map(|block| Some((graph.value(*block.made.first()?).producer?, block.fused)))
        .collect();
    rewrite.removed_nodes += rest.removed.len();
    for &id in &rest.removed {
        let mut with = Vec::new();
        for node in fused.get(&id).iter().flat_map(|fused| &fused.nodes) {
            rewrite.new_nodes += 1;
            with.extend(splice::entry(graph_field::NODE, node));
        }
        edits.push(Edit::replace(graph.node(id).field.entry(), with.into()));
    }
    let eval_forms = changes.eval_forms.iter().filter(|(id, _)| !rest.removed.contains(id));
    let eval_forms: IdMap<NodeId, &NodeProto> = eval_forms.map(|(id, form)| (*id, form)).collect();
    for (&id, &form) in &eval_forms {
        let with = splice::entry(graph_field::NODE, form).into();
        edits.push(Edit::replace(graph.node(id).field.entry(), with));
    }

    let mut gone = gone_tensors(graph, rest, &changes.blocks, &eval_forms);
    gone.extend(dropped(graph, &changes.eval_forms));
    for &id in &gone {
        let value = graph.value(id);
        edits.extend(value.initializer.iter().map(|field| Edit::remove(field.entry())));
        if value.initializer.is_some()
            && let Some(input) = &value.input
        {
            edits.push(Edit::remove(input.entry()));
            rewrite.removed_inputs += 1;
        }
    }
    let gone: HashSet<&str> = gone.iter().map(|&id| graph.value(id).name).collect();
    for (number, name) in [
        (graph_field::VALUE_INFO, info_field::NAME),
        (graph_field::QUANTIZATION_ANNOTATION, annotation_field::TENSOR_NAME),
    ] {
        for field in graph.fields.fields(number) {
            if gone.contains(graph.model.string_within(&field.payload, name)?.as_str()) {
                edits.push(Edit::remove(field.entry()));
            }
        }
    }
    Ok(())
}

/// Returns the new initializers of `graph`, each once.
fn new_tensors(graphs: &[Graph], graph: &Graph, changes: &Changes) -> Vec<NewTensor> {
    let place = TensorPlace::behind_others(graphs, graph);
    let mut stored = HashSet::new();
    let mut new = Vec::new();
    let mut add = |name, values| {
        if stored.insert(name) {
            new.push(NewTensor { values, notes: Vec::new(), place: place.clone() });
        }
    };
    for BlockNodes { fused, .. } in &changes.blocks {
        for weights in &fused.weights {
            add(weights.name.as_str(), NewValues::Weights(weights.clone()));
        }
        for tensor in &fused.told {
            add(tensor.name(), NewValues::Told(Box::new(tensor.clone())));
        }
    }
    new
}

/// Returns the tensors that no longer exist: what removed nodes made, and initializers that only
/// they, or rewritten bodies, read.
fn gone_tensors(
    graph: &Graph,
    rest: &Rest,
    blocks: &[BlockNodes],
    eval_forms: &IdMap<NodeId, &NodeProto>,
) -> BTreeSet<ValueId> {
    let mut read: Table<ValueId, ()> = graph.outputs.iter().copied().collect();
    let mut gone = BTreeSet::new();
    let mut read_before: Vec<ValueId> =
        rest.removed.iter().flat_map(|&id| graph.uses(id)).collect();
    for (id, node) in graph.nodes().filter(|(id, _)| !rest.removed.contains(id)) {
        if let Some(form) = eval_forms.get(&id) {
            read.extend(form.input.iter().filter_map(|name| graph.find(name)));
            read_before.extend(graph.uses(id));
        } else {
            read.extend(rest.uses(graph, id));
            read_before.extend(&node.captured);
        }
    }
    read.extend(blocks.iter().flat_map(|block| &block.fused.roots).copied());
    let new_nodes = blocks.iter().flat_map(|block| &block.fused.nodes);
    let made = new_nodes.flat_map(|node| &node.output).filter_map(|name| graph.find(name));
    let made: IdSet<ValueId> = made.collect();
    for &id in &rest.removed {
        let outputs = graph.node(id).outputs.iter().flatten();
        gone.extend(outputs.filter(|output| !made.contains(output)));
    }
    gone.extend(read_before.into_iter().filter(|id| {
        let value = graph.value(*id);
        value.initializer.is_some() && value.outer.is_none() && !read.contains(*id)
    }));
    gone
}
