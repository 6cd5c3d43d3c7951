//! A read-only view of the graph: who makes a tensor, who reads it, what is stored.
//!
//! Names become dense ids here, so that everything downstream is linear in the
//! size of the graph. Building the view checks that the graph is well formed:
//! every tensor is defined once, and before it is read.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use prost::bytes::Bytes;

pub use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::info;
use crate::onnx::model::{GraphFields, Invalid, Model, is_default_domain};
use crate::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, SparseTensorProto, TensorProto,
    ValueInfoProto,
};
use crate::onnx::schema::{graph_field, info_field, node_field, sparse_field, tensor_field};
use crate::onnx::splice::{self, Container, Edit};
use crate::onnx::tensor;
use crate::onnx::wire::{self, Field, WireError};

/// One node with its names resolved.
#[derive(Debug)]
pub struct Node {
    /// The message.
    pub proto: NodeProto,
    /// Where it stands in the file.
    pub field: Field,
    /// Per input; `None` where an optional input is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Per output; `None` where an optional output is left out.
    pub outputs: Vec<Option<ValueId>>,
    /// Tensors of this graph that bodies inside the node (If, Loop, Scan…) may read.
    pub captured: Vec<ValueId>,
}

/// A constant as it is stored.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "it is looked at and dropped, never kept")]
pub enum Initializer {
    /// All its elements.
    Dense(TensorProto),
    /// Those that are not zero.
    Sparse(SparseTensorProto),
}

impl Initializer {
    /// Its element type (`TensorProto.DataType`).
    pub fn element_type(&self) -> i32 {
        match self {
            Initializer::Dense(tensor) => tensor.data_type(),
            Initializer::Sparse(sparse) => {
                sparse.values.as_ref().map_or(0, |values| values.data_type())
            }
        }
    }
}

/// One tensor.
#[derive(Debug, Default)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// The node that computes it.
    pub producer: Option<NodeId>,
    /// The nodes that read it and whose results are needed, one entry per use.
    pub readers: Vec<NodeId>,
    /// The stored constant of that name.
    pub initializer: Option<Field>,
    /// The entry that lists it as a graph input.
    pub input: Option<Box<Field>>,
    /// Whether it is a graph output.
    pub is_output: bool,
    /// Which tensor of the graph around this body it is, if it is one.
    pub outer: Option<ValueId>,
    /// Whether this body has an input or initializer of the outer tensor's name.
    pub is_ambiguous: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Graph<'m> {
    /// The file.
    pub model: &'m Model,
    /// Where in the file the graph lies.
    pub scope: Arc<GraphFields>,
    /// The graph that this one is a body in: its place in [`Graph::read_all`], and the node.
    pub outer: Option<(usize, NodeId)>,
    /// Graph outputs, in order.
    pub outputs: Vec<ValueId>,
    nodes: Vec<Node>,
    values: Vec<Value>,
    ids: HashMap<&'m str, ValueId>,
    live: Vec<bool>,
}

impl Node {
    /// The operator's name, if it is one of the ONNX standard.
    pub fn standard_op(&self) -> Option<&str> {
        is_default_domain(self.proto.domain()).then(|| self.proto.op_type())
    }

    /// Whether it is an If, Loop, Scan or the like.
    pub fn has_bodies(&self) -> bool {
        bodies(&self.proto).next().is_some()
    }

    /// The attribute called `name`.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.proto.attribute.iter().find(|attribute| attribute.name() == name)
    }

    /// Integer attribute `name`, or `default`.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, AttributeProto::i)
    }

    /// Integer list attribute `name`, if it is there.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// Whether the second operand meets the first from an axis on: before operator set 7,
    /// arithmetic had `broadcast` and `axis`.
    pub fn aligns_by_axis(&self) -> bool {
        let arithmetic = matches!(self.standard_op(), Some("Add" | "Sub" | "Mul" | "Div"));
        arithmetic && self.int("broadcast", 0) != 0 && self.attribute("axis").is_some()
    }

    /// That axis; `None` if there is none, or it is counted from the end.
    pub fn broadcast_axis(&self) -> Option<usize> {
        let axis = self.attribute("axis").filter(|_| self.aligns_by_axis())?;
        usize::try_from(axis.i()).ok()
    }

    /// Input number `index`, if it is there.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// The first output, if it is there.
    pub fn output(&self) -> Option<ValueId> {
        self.outputs.first().copied().flatten()
    }

    /// What to call the node in a message: its name, else its first output.
    pub fn label(&self) -> &str {
        label_of(&self.proto)
    }
}

const UNREADABLE_NODE: &str = "a node holds fields of a kind that has been given up";

fn label_of(node: &NodeProto) -> &str {
    let output = node.output.iter().map(String::as_str).find(|name| !name.is_empty());
    match node.name() {
        "" => output.unwrap_or("(a node without a name)"),
        name => name,
    }
}

impl<'m> Graph<'m> {
    /// Decodes the nodes of `model` and resolves their names: the main graph first,
    /// then the bodies in nodes that are needed, each after the graph around it.
    ///
    /// # Errors
    /// If an entry cannot be decoded, a tensor is defined twice or not before it
    /// is read, or a graph has no outputs.
    pub fn read_all(model: &'m Model) -> Result<Vec<Self>, Invalid> {
        let mut graphs = vec![Graph::read(model, model.main.clone(), None)?];
        let mut next = 0;
        while let Some(graph) = graphs.get(next) {
            let mut inner = Vec::new();
            let with_bodies = graph.nodes().filter(|(_, node)| node.has_bodies());
            // What the bodies of foreign operators may read is for their owners to say.
            let with_bodies = with_bodies.filter(|(_, node)| node.standard_op().is_some());
            for (id, node) in with_bodies.filter(|&(id, _)| graph.is_live(id)) {
                for scope in model.bodies(&graph.scope, &node.field)? {
                    inner.push(Graph::read(model, scope, Some((graph, next, id)))?);
                }
            }
            graphs.extend(inner);
            next = next.saturating_add(1);
        }
        Ok(graphs)
    }

    fn read(
        model: &'m Model,
        scope: GraphFields,
        around: Option<(&Graph<'m>, usize, NodeId)>,
    ) -> Result<Self, Invalid> {
        let mut graph = Graph {
            model,
            scope: Arc::new(scope),
            outer: around.map(|(_, outer, node)| (outer, node)),
            outputs: Vec::new(),
            nodes: Vec::new(),
            values: Vec::new(),
            ids: HashMap::new(),
            live: Vec::new(),
        };
        graph.read_stored()?;
        if let Some((outer, _, node)) = around {
            graph.import(outer, node);
        }
        graph.read_nodes()?;
        graph.read_outputs()?;
        graph.find_live();
        Ok(graph)
    }

    /// Makes known what this body may read of `outer`: what its node captures.
    fn import(&mut self, outer: &Graph<'m>, node: NodeId) {
        for &id in &outer.node(node).captured {
            let value = outer.value(id);
            let Some((&name, _)) = outer.ids.get_key_value(value.name.as_str()) else { continue };
            // Of two tensors with one name, inside and outside, engines take either: it
            // is not constant, and both are needed.
            if let Some(own) = self.find(name) {
                let (name, outer) = (name.to_owned(), Some(id));
                *self.value_mut(own) =
                    Value { name, outer, is_ambiguous: true, ..Value::default() };
                continue;
            }
            let own = self.intern(name);
            self.value_mut(own).outer = Some(id);
            self.value_mut(own).initializer.clone_from(&value.initializer);
        }
    }

    fn read_stored(&mut self) -> Result<(), Invalid> {
        let scope = Arc::clone(&self.scope);
        let fields = |number| scope.fields(number);
        let nodes = fields(graph_field::NODE).count();
        let stored =
            [graph_field::INPUT, graph_field::INITIALIZER].map(|kind| fields(kind).count());
        // Most nodes make one tensor.
        let values = stored.into_iter().fold(nodes, usize::saturating_add);
        self.nodes.reserve_exact(nodes);
        self.values.reserve_exact(values);
        self.ids.reserve(values);
        for field in fields(graph_field::INPUT) {
            let name = self.model.str_within(&field.payload, info_field::NAME)?;
            let id = self.intern(name);
            if self.value_mut(id).input.replace(Box::new(field.clone())).is_some() {
                return Err(Invalid::DefinedTwice(name.to_owned()));
            }
        }
        for field in fields(graph_field::INITIALIZER) {
            let name = self.model.str_within(&field.payload, tensor_field::NAME)?;
            self.store(name, field)?;
        }
        for field in fields(graph_field::SPARSE_INITIALIZER) {
            for values in wire::fields(self.model.bytes(), field.payload.clone()) {
                let values = values?;
                if values.number == sparse_field::VALUES {
                    self.store(self.model.str_within(&values.payload, tensor_field::NAME)?, field)?;
                }
            }
        }
        Ok(())
    }

    /// Notes that the constant `name` is stored in `field`.
    fn store(&mut self, name: &'m str, field: &Field) -> Result<(), Invalid> {
        let id = self.intern(name);
        match self.value_mut(id).initializer.replace(field.clone()) {
            Some(_) => Err(Invalid::DefinedTwice(name.to_owned())),
            None => Ok(()),
        }
    }

    fn read_nodes(&mut self) -> Result<(), Invalid> {
        let scope = Arc::clone(&self.scope);
        for field in scope.fields(graph_field::NODE) {
            let (proto, outputs) = self.decoded(field)?;
            let id = NodeId(self.nodes.len() as u32);
            let mut node = Node {
                inputs: Vec::with_capacity(proto.input.len()),
                outputs: Vec::with_capacity(proto.output.len()),
                captured: Vec::new(),
                field: field.clone(),
                proto,
            };
            if self.model.opset == 0 && node.standard_op().is_some() {
                return Err(Invalid::NoOpset);
            }
            for name in &node.proto.input {
                let value = if name.is_empty() { None } else { Some(self.defined(name, &node)?) };
                node.inputs.push(value);
            }
            let mut names = HashSet::new();
            names_read_inside(&node.proto, &mut names);
            // A body's own tensors are not ours; those it takes from us are defined by now.
            node.captured = names.iter().filter_map(|name| self.ids.get(*name).copied()).collect();
            node.captured.sort_unstable();
            for name in outputs {
                if name.is_empty() {
                    node.outputs.push(None);
                    continue;
                }
                match self.find(name).map(|other| self.value(other).outer) {
                    Some(None) => return Err(Invalid::DefinedTwice(name.to_owned())),
                    // It hides a tensor of the graph around this one.
                    Some(Some(_)) => self.ids.remove(name),
                    None => None,
                };
                let value = self.intern(name);
                self.value_mut(value).producer = Some(id);
                node.outputs.push(Some(value));
            }
            self.nodes.push(node);
        }
        Ok(())
    }

    /// The node in `field`, and the names of its outputs as they stand in the file.
    fn decoded(&self, field: &Field) -> Result<(NodeProto, Vec<&'m str>), Invalid> {
        let (mut inputs, mut attributes, mut outputs) = (0usize, 0usize, Vec::new());
        let parts = wire::fields(self.model.bytes(), field.payload.clone());
        // What is malformed is refused by whoever decodes it.
        for part in parts.map_while(Result::ok) {
            match part.number {
                node_field::INPUT => inputs = inputs.saturating_add(1),
                node_field::OUTPUT => {
                    outputs.push(self.model.str_at(part.payload).unwrap_or_default())
                }
                node_field::ATTRIBUTE => attributes = attributes.saturating_add(1),
                _ => {}
            }
        }
        // An attribute has room for everything that one may be, a kilobyte: no more of them
        // than there are.
        let mut node = NodeProto {
            input: Vec::with_capacity(inputs),
            output: Vec::with_capacity(outputs.len()),
            attribute: Vec::with_capacity(attributes),
            ..NodeProto::default()
        };
        self.model.decode_into(&mut node, field, "node")?;
        match node.output == outputs {
            true => Ok((node, outputs)),
            false => Err(WireError { at: field.payload.start, what: UNREADABLE_NODE }.into()),
        }
    }

    fn read_outputs(&mut self) -> Result<(), Invalid> {
        let scope = Arc::clone(&self.scope);
        for field in scope.fields(graph_field::OUTPUT) {
            let info: ValueInfoProto = self.model.decode(field, "graph output")?;
            let id = self
                .find(info.name())
                .ok_or_else(|| Invalid::UndefinedOutput(info.name().to_owned()))?;
            self.value_mut(id).is_output = true;
            self.outputs.push(id);
        }
        if self.outputs.is_empty() { Err(Invalid::NoOutputs) } else { Ok(()) }
    }

    /// Notes which nodes a graph output needs, and their uses of tensors. A dead
    /// reader is no reader.
    fn find_live(&mut self) {
        let mut live = vec![false; self.nodes.len()];
        let mut wanted: Vec<ValueId> = self.outputs.clone();
        while let Some(value) = wanted.pop() {
            let Some(producer) = self.value(value).producer else { continue };
            let Some(flag) = live.get_mut(producer.0 as usize) else { continue };
            if !std::mem::replace(flag, true) {
                wanted.extend(self.uses(producer));
            }
        }
        for index in 0..live.len() {
            let id = NodeId(index as u32);
            if live.get(index) == Some(&true) {
                let uses: Vec<_> = self.uses(id).collect();
                uses.into_iter().for_each(|value| self.value_mut(value).readers.push(id));
            }
        }
        self.live = live;
    }

    fn defined(&self, name: &str, reader: &Node) -> Result<ValueId, Invalid> {
        self.find(name).ok_or_else(|| {
            let (node, tensor) = (format!("node `{}`", reader.label()), name.to_owned());
            let nodes = self.scope.fields(graph_field::NODE);
            let makes_it = |node: NodeProto| node.output.contains(&tensor);
            match nodes.filter_map(|field| self.model.decode(field, "node").ok()).any(makes_it) {
                true => Invalid::Unsorted { node, tensor },
                false => Invalid::Undefined { node, tensor },
            }
        })
    }

    fn intern(&mut self, name: &'m str) -> ValueId {
        let next = ValueId(self.values.len() as u32);
        let id = *self.ids.entry(name).or_insert(next);
        if id == next {
            self.values.push(Value { name: name.to_owned(), ..Value::default() });
        }
        id
    }

    #[expect(clippy::indexing_slicing, reason = "ids are only made by `intern`")]
    fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.0 as usize]
    }

    /// The tensor `id`.
    #[expect(clippy::indexing_slicing, reason = "ids are only made by `intern`")]
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The node `id`.
    #[expect(clippy::indexing_slicing, reason = "ids are only made by `read_nodes`")]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The tensor called `name`.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.ids.get(name).copied()
    }

    /// All nodes in file order, which is a topological order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index as u32), node))
    }

    /// The number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// All tensors.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().map(|(index, value)| (ValueId(index as u32), value))
    }

    /// Whether a graph output needs the node.
    pub fn is_live(&self, id: NodeId) -> bool {
        self.live.get(id.0 as usize).copied().unwrap_or_default()
    }

    /// Every tensor that the node reads, once per use, those of its bodies included.
    pub fn uses(&self, id: NodeId) -> impl Iterator<Item = ValueId> {
        let node = self.node(id);
        node.inputs.iter().flatten().chain(&node.captured).copied()
    }

    /// The stored constant called like `id`, decoded; its data stays in the map. `None`
    /// if there is none.
    ///
    /// # Errors
    /// If the entry cannot be decoded.
    pub fn initializer(&self, id: ValueId) -> Result<Option<Initializer>, Invalid> {
        let Some(field) = &self.value(id).initializer else { return Ok(None) };
        Ok(Some(match field.number {
            graph_field::SPARSE_INITIALIZER => {
                Initializer::Sparse(self.model.decode(field, "sparse initializer")?)
            }
            _ => Initializer::Dense(self.model.decode(field, "initializer")?),
        }))
    }

    /// The element type of that constant, which is not decoded for it.
    ///
    /// # Errors
    /// As [`Self::initializer`], if it is sparse.
    pub fn stored_type(&self, id: ValueId) -> Result<Option<i32>, Invalid> {
        let Some(field) = &self.value(id).initializer else { return Ok(None) };
        if field.number == graph_field::SPARSE_INITIALIZER {
            return Ok(self.initializer(id)?.map(|stored| stored.element_type()));
        }
        // What is malformed is refused by whoever decodes it.
        let parts = wire::fields(self.model.bytes(), field.payload.clone()).map_while(Result::ok);
        let last = parts.filter(|part| part.number == tensor_field::DATA_TYPE).last();
        let bytes = last.and_then(|part| self.model.bytes().get(part.payload));
        Ok(Some(bytes.map_or(0, wire::varint_value) as i32))
    }

    /// Checks every tensor that is stored in the model, whether anybody reads it or not:
    /// initializers, and those in nodes, bodies and functions.
    ///
    /// # Errors
    /// Names the first that cannot be decoded, or contradicts itself.
    pub fn check_tensors(&self) -> Result<(), Invalid> {
        let check = |tensor: &TensorProto| tensor::check(tensor, &self.model.storage);
        for field in self.scope.fields(graph_field::INITIALIZER) {
            check(&self.model.decode(field, "initializer")?)?;
        }
        for field in self.scope.fields(graph_field::SPARSE_INITIALIZER) {
            let sparse: SparseTensorProto = self.model.decode(field, "sparse initializer")?;
            parts_of(&sparse).try_for_each(check)?;
        }
        // Of a Constant, the node has the name.
        let check_node = |node: &NodeProto| {
            tensors_in(node).into_iter().try_for_each(check).map_err(|mut error| {
                if error.name.is_empty() {
                    label_of(node).clone_into(&mut error.name);
                }
                error
            })
        };
        self.nodes.iter().try_for_each(|node| check_node(&node.proto))?;
        for field in &self.model.functions {
            let function: FunctionProto = self.model.decode(field, "function")?;
            function.node.iter().try_for_each(check_node)?;
        }
        Ok(())
    }

    /// Names of the graph inputs that a caller must give, and the dimensions that the file
    /// declares; `None` for a size that it leaves open.
    pub fn inputs(&self) -> Vec<(String, Option<Vec<Option<i64>>>)> {
        let fields = self.scope.fields(graph_field::INPUT);
        let infos = fields.filter_map(|field| self.model.decode(field, "graph input").ok());
        let without_default = |info: &ValueInfoProto| {
            self.find(info.name()).is_some_and(|id| self.value(id).initializer.is_none())
        };
        let infos = infos.filter(without_default);
        infos.map(|info| (info.name().to_owned(), info::dims(&info))).collect()
    }

    /// Element type (`TensorProto.DataType`) that the file declares for graph input `id`.
    pub fn input_type(&self, id: ValueId) -> Option<i32> {
        let field = self.value(id).input.as_ref()?;
        info::element_type(&self.model.decode(field, "graph input").ok()?)
    }

    /// Every name in use anywhere in the model's graph, bodies included; some more than once.
    pub fn all_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.ids.keys().copied().collect();
        for node in &self.nodes {
            names.push(node.proto.name());
            for graph in bodies(&node.proto) {
                names_in(graph, &mut names);
            }
        }
        names
    }
}

/// `suffix`, with a number if need be, so that no name contains it: names that end in it,
/// or go on after it, are new.
pub fn fresh(suffix: &str, names: &[&str]) -> String {
    let digits = |rest: &str| rest.bytes().take_while(u8::is_ascii_digit).count();
    let numbers = names.iter().flat_map(|name| name.split(suffix).skip(1)).map(digits);
    match numbers.max() {
        None => suffix.to_owned(),
        Some(0) => format!("{suffix}2"),
        // A number longer than all that follow the suffix.
        Some(longest) => format!("{suffix}1{}", "0".repeat(longest)),
    }
}

/// The containers of all `graphs`.
pub fn containers(graphs: &[Graph]) -> Vec<Container> {
    graphs.iter().flat_map(|graph| graph.scope.containers.iter().cloned()).collect()
}

/// The bytes of `model` with `edits` to entries of its `graphs` made.
pub fn edited(model: &Model, graphs: &[Graph], edits: Vec<Edit>) -> Bytes {
    if edits.is_empty() {
        return model.bytes().clone();
    }
    let mut bytes = Vec::with_capacity(model.bytes().len());
    let edits = splice::with_lengths(edits, containers(graphs));
    // Writing to a vector cannot fail.
    let _ = splice::write(model.bytes(), &edits, &mut bytes);
    bytes.into()
}

/// The message that fills `payload` of `model` with `edits` to entries of `graphs` made,
/// which all lie in it.
pub fn edited_message(
    model: &Model,
    payload: &Range<usize>,
    graphs: &[&Graph],
    edits: Vec<Edit>,
) -> Bytes {
    let containers = graphs.iter().flat_map(|graph| graph.scope.containers.iter().cloned());
    let containers = containers.filter(|inner| payload.start <= inner.length.start);
    let edits = splice::with_lengths(edits, containers.collect());
    let (before, behind) = (0..payload.start, payload.end..model.bytes().len());
    let edits: Vec<Edit> =
        std::iter::once(Edit::remove(before)).chain(edits).chain([Edit::remove(behind)]).collect();
    let mut bytes = Vec::with_capacity(payload.len());
    // Writing to a vector cannot fail.
    let _ = splice::write(model.bytes(), &edits, &mut bytes);
    bytes.into()
}

/// The bodies of a node, if it is an If, Loop, Scan or the like.
pub fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

/// Tensors in a node's attributes and bodies.
fn tensors_in(node: &NodeProto) -> Vec<&TensorProto> {
    let own = node.attribute.iter().flat_map(|attribute| {
        let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
        attribute.t.iter().chain(&attribute.tensors).chain(sparse.flat_map(parts_of))
    });
    let inner = bodies(node).flat_map(|body| {
        let sparse = body.sparse_initializer.iter().flat_map(parts_of);
        body.initializer.iter().chain(sparse).chain(body.node.iter().flat_map(tensors_in))
    });
    own.chain(inner).collect()
}

fn parts_of(sparse: &SparseTensorProto) -> impl Iterator<Item = &TensorProto> {
    sparse.values.iter().chain(&sparse.indices).map(Box::as_ref)
}

fn names_read_inside<'n>(node: &'n NodeProto, names: &mut HashSet<&'n str>) {
    for graph in bodies(node) {
        names.extend(graph.output.iter().map(ValueInfoProto::name));
        for inner in &graph.node {
            names.extend(inner.input.iter().map(String::as_str));
            names_read_inside(inner, names);
        }
    }
}

fn names_in<'n>(graph: &'n GraphProto, names: &mut Vec<&'n str>) {
    names.extend(graph.input.iter().map(ValueInfoProto::name));
    names.extend(graph.initializer.iter().map(TensorProto::name));
    for node in &graph.node {
        names.push(node.name());
        names.extend(node.input.iter().chain(&node.output).map(String::as_str));
        bodies(node).for_each(|body| names_in(body, names));
    }
}
