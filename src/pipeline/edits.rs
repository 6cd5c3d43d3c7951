//! Applies what was decided: the list of edits that make the new file of the old.
//!
//! Only what the new nodes made superfluous goes: nodes, initializers that nothing
//! reads any more, and the entries that describe removed tensors. All else, dead
//! nodes included, stays where it is.
//!
//! Knows graphs and new nodes; not why they are better, nor where the file goes.

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

/// What is to change in one graph.
#[derive(Debug, Default)]
pub struct Changes<'f> {
    /// The new nodes.
    pub blocks: Vec<BlockNodes<'f>>,
    /// Nodes that become their eval form.
    pub eval_forms: Vec<(NodeId, NodeProto)>,
}

/// The nodes in the place of one block.
#[derive(Debug)]
pub struct BlockNodes<'f> {
    /// The tensors of the file that are the block's output, which nobody may need, and its
    /// by-product; they take the place of the node that makes the first one.
    pub made: Vec<ValueId>,
    /// They, and what they read.
    pub fused: &'f FusedNodes,
}

impl<'f> BlockNodes<'f> {
    /// What was made of a block.
    pub fn of(block: &Block, fused: &'f FusedNodes) -> Self {
        let is_named = |tensor: &ValueId| fused.names_byproduct || *tensor == block.region.output;
        BlockNodes { made: block.tensors_made().filter(is_named).collect(), fused }
    }
}

/// What is spliced out and in.
#[derive(Debug, Default)]
pub struct Rewrite {
    /// What goes, and new nodes.
    pub edits: Vec<Edit>,
    /// New initializers.
    pub tensors: Vec<NewTensor>,
    /// The messages around all of these.
    containers: Vec<Container>,
    /// Nodes that go away.
    pub removed_nodes: usize,
    /// Nodes that come.
    pub new_nodes: usize,
    /// Graph inputs that only named initializers which go away.
    pub removed_inputs: usize,
}

/// A new initializer, and where in the file it goes.
#[derive(Debug)]
pub struct NewTensor {
    /// What it holds.
    pub values: NewValues,
    /// What else was said of the tensor in whose place it stands, in the file's bytes.
    notes: Vec<u8>,
    place: TensorPlace,
}

/// Where in the file an initializer goes.
#[derive(Debug, Clone)]
struct TensorPlace {
    /// The graph.
    into: Container,
    at: usize,
    /// Where it is listed as a graph input, if it has to be.
    inputs_at: Option<usize>,
}

impl TensorPlace {
    /// Behind the initializers of `graph`. Up to IR version 3 every initializer must be listed as
    /// an input, which bodies cannot have more of: then the main graph holds the tensors of its
    /// bodies too.
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

/// What a new initializer holds.
#[derive(Debug, Clone)]
pub enum NewValues {
    /// Shapes, axes, pads, factors that nodes are told.
    Told(Box<TensorProto>),
    /// Floats, which are computed when they are written.
    Weights(FusedWeights),
}

impl NewValues {
    /// The message without the data of weights.
    fn header(&self) -> TensorProto {
        match self {
            NewValues::Told(tensor) => TensorProto::clone(tensor),
            NewValues::Weights(weights) => weights.header(),
        }
    }
}

impl Rewrite {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// New weights, and what [`Deferred`] calls them.
    pub fn weights(&self) -> impl Iterator<Item = (Deferred, &FusedWeights)> {
        self.tensors.iter().enumerate().filter_map(|(id, new)| match &new.values {
            NewValues::Weights(weights) => {
                Some((Deferred { id, length: weights.length() }, weights))
            }
            NewValues::Told(_) => None,
        })
    }

    /// The weights that are `deferred`.
    pub fn weight(&self, deferred: Deferred) -> Option<&FusedWeights> {
        match &self.tensors.get(deferred.id)?.values {
            NewValues::Weights(weights) => Some(weights),
            NewValues::Told(_) => None,
        }
    }

    /// Everything for [`splice::write`], `further` edits included: in file order and with
    /// lengths. `elsewhere` gives the message of a tensor whose data is in a side file.
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

/// What makes `changes` to `graphs` (see [`Graph::read_all`]).
///
/// # Errors
/// If an entry's name cannot be read.
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
        // Its node goes, and the body with it.
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

/// What makes initializers, `tensors`, of those of `graph` with these ids and of its Constant nodes
/// that hold the others. What else is said of a tensor stays.
///
/// # Errors
/// If an entry cannot be read.
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

/// The model of `graphs` with the nodes in training mode that are converted at inference,
/// and nothing else changed; `None` if there are none. Per graph the nodes, and what they
/// become.
///
/// # Errors
/// If an entry cannot be read.
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

/// New initializers of `graph`.
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

/// Tensors that no longer exist: what removed nodes made, and initializers that only
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
