//! A read-only view of a graph: which node produces a tensor, which nodes read it, what is stored.
//!
//! Names are resolved to dense ids here, so that everything downstream is linear in the size of
//! the graph. Building the view checks that the graph is well formed: every tensor is defined
//! once, and before it is read.
//!
//! Knows the producer and the readers of each tensor; not what a node computes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::onnx::ids::{NodeId, OuterId, Table, ValueId};
use crate::onnx::info;
use crate::onnx::liveness;
use crate::onnx::model::{GraphFields, Invalid, Model};
use crate::onnx::node::{Node, bodies, names_read_by, names_read_inside};
use crate::onnx::proto::{GraphProto, NodeProto, ValueInfoProto};
use crate::onnx::schema::{graph_field, info_field, node_field, sparse_field, tensor_field};
use crate::onnx::sort;
use crate::onnx::tensor::Initializer;
use crate::onnx::wire::{self, Field, WireError};

/// The name of a graph input and its declared shape: `None` if no shape is declared, with
/// `None` for each axis whose size is left open.
pub type InputDims = (String, Option<Vec<Option<i64>>>);

/// One tensor.
#[derive(Debug, Default)]
pub struct Value<'m> {
    /// Its name.
    pub name: &'m str,
    /// The node that produces it.
    pub producer: Option<NodeId>,
    /// The live nodes that read it, one entry per use.
    pub readers: Vec<NodeId>,
    /// The entry of the initializer with its name.
    pub initializer: Option<Field>,
    /// The entry that lists it as a graph input.
    pub input: Option<Box<Field>>,
    /// Whether it is a graph output.
    pub is_output: bool,
    /// The tensor of the enclosing graph that it stands for, if this graph is a body that reads
    /// one.
    pub outer: Option<OuterId>,
    /// Whether an input or initializer of this body has the name of the outer tensor.
    pub is_ambiguous: bool,
}

/// A graph with its names resolved; see the documentation of the module.
#[derive(Debug)]
pub struct Graph<'m> {
    /// The file.
    pub model: &'m Model,
    /// The position of the graph in the file.
    pub fields: Arc<GraphFields>,
    /// For a body: the index of the enclosing graph in [`Graph::read_all`], and the node there
    /// that holds the body.
    pub outer: Option<(usize, NodeId)>,
    /// The graph outputs, in order.
    pub outputs: Vec<ValueId>,
    nodes: Vec<Node>,
    values: Vec<Value<'m>>,
    ids: HashMap<&'m str, ValueId>,
    live: Table<NodeId, ()>,
}

/// The node that a body belongs to.
struct OuterNode<'o, 'm> {
    graph: &'o Graph<'m>,
    /// The index of that graph in [`Graph::read_all`].
    number: usize,
    id: NodeId,
    body: &'o GraphProto,
}

const UNREADABLE_NODE: &str = "a node holds fields of a kind that has been given up";

impl<'m> Graph<'m> {
    /// Decodes the nodes of `model` and resolves their names. The main graph comes first, then
    /// the bodies of live nodes, each after the graph that encloses it.
    ///
    /// # Errors
    /// Returns an error if an entry cannot be decoded, a tensor is defined twice or not before
    /// it is read, or a graph has no outputs.
    pub fn read_all(model: &'m Model) -> Result<Vec<Self>, Invalid> {
        let mut graphs = vec![Graph::read(model, Arc::clone(&model.main), None)?];
        let mut next = 0;
        while let Some(graph) = graphs.get(next) {
            let mut inner = Vec::new();
            let with_bodies = graph.nodes().filter(|(_, node)| node.has_bodies());
            // Only whoever defines a foreign operator knows what its bodies may read.
            let with_bodies = with_bodies.filter(|(_, node)| node.standard_op().is_some());
            for (id, node) in with_bodies.filter(|&(id, _)| graph.is_live(id)) {
                let fields = model.bodies(&graph.fields, &node.field)?;
                if fields.len() != bodies(&node.proto).count() {
                    return Err(Invalid::ManyBodies(node.label().to_owned()));
                }
                for (fields, body) in fields.into_iter().zip(bodies(&node.proto)) {
                    let around = OuterNode { graph, number: next, id, body };
                    inner.push(Graph::read(model, Arc::new(fields), Some(around))?);
                }
            }
            graphs.extend(inner);
            next = next.saturating_add(1);
        }
        Ok(graphs)
    }

    fn read(
        model: &'m Model,
        fields: Arc<GraphFields>,
        around: Option<OuterNode<'_, 'm>>,
    ) -> Result<Self, Invalid> {
        let mut graph = Graph {
            model,
            fields,
            outer: around.as_ref().map(|around| (around.number, around.id)),
            outputs: Vec::new(),
            nodes: Vec::new(),
            values: Vec::new(),
            ids: HashMap::new(),
            live: Table::default(),
        };
        graph.read_stored()?;
        if let Some(around) = around {
            graph.import(around.graph, around.body);
        }
        graph.read_nodes()?;
        graph.read_outputs()?;
        graph.find_live();
        Ok(graph)
    }

    /// Registers the tensors of `outer` that this `body` may read. Only names that occur in it
    /// are looked up: most of what its node captures may be read by sibling bodies alone.
    fn import(&mut self, outer: &Graph<'m>, body: &GraphProto) {
        let mut names = HashSet::new();
        names_read_by(body, &mut names);
        let read = names.into_iter().filter_map(|name| outer.ids.get_key_value(name));
        let mut read: Vec<(&'m str, ValueId)> = read.map(|(&name, &id)| (name, id)).collect();
        read.sort_unstable_by_key(|&(_, id)| id);
        for (name, id) in read {
            let value = outer.value(id);
            // If an outer and an inner tensor share a name, engines differ in which one they
            // take: the tensor is not constant, and both are needed.
            if let Some(own) = self.find(name) {
                let outer = Some(OuterId::of(id));
                *self.value_mut(own) =
                    Value { name, outer, is_ambiguous: true, ..Value::default() };
                continue;
            }
            let own = self.intern(name);
            self.value_mut(own).outer = Some(OuterId::of(id));
            self.value_mut(own).initializer.clone_from(&value.initializer);
        }
    }

    fn read_stored(&mut self) -> Result<(), Invalid> {
        let own = Arc::clone(&self.fields);
        let fields = |number| own.fields(number);
        let nodes = fields(graph_field::NODE).count();
        let stored =
            [graph_field::INPUT, graph_field::INITIALIZER].map(|kind| fields(kind).count());
        // Most nodes produce one tensor.
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

    /// Registers `field` as the initializer `name`.
    fn store(&mut self, name: &'m str, field: &Field) -> Result<(), Invalid> {
        let id = self.intern(name);
        match self.value_mut(id).initializer.replace(field.clone()) {
            Some(_) => Err(Invalid::DefinedTwice(name.to_owned())),
            None => Ok(()),
        }
    }

    fn read_nodes(&mut self) -> Result<(), Invalid> {
        let fields = Arc::clone(&self.fields);
        for field in fields.fields(graph_field::NODE) {
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
            // The bodies' own tensors are not in this graph; those they capture are defined by now.
            node.captured = names.iter().filter_map(|name| self.ids.get(*name).copied()).collect();
            node.captured.sort_unstable();
            for name in outputs {
                if name.is_empty() {
                    node.outputs.push(None);
                    continue;
                }
                match self.find(name).map(|other| self.value(other).outer) {
                    Some(None) => return Err(Invalid::DefinedTwice(name.to_owned())),
                    // It shadows a tensor of the enclosing graph.
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

    /// Returns the node in `field`, and the names of its outputs borrowed from the file.
    fn decoded(&self, field: &Field) -> Result<(NodeProto, Vec<&'m str>), Invalid> {
        let (mut inputs, mut attributes, mut outputs) = (0usize, 0usize, Vec::new());
        let parts = wire::fields(self.model.bytes(), field.payload.clone());
        // Malformed entries are refused when they are decoded.
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
        // An attribute message has room for every kind of value, about a kilobyte: so reserve
        // exactly as many as there are.
        let mut node = NodeProto {
            input: Vec::with_capacity(inputs),
            output: Vec::with_capacity(outputs.len()),
            attribute: Vec::with_capacity(attributes),
            ..NodeProto::default()
        };
        self.model.decode_into(&mut node, field, "node")?;
        if node.output != outputs {
            return Err(WireError { at: field.payload.start, what: UNREADABLE_NODE }.into());
        }
        Ok((node, outputs))
    }

    fn read_outputs(&mut self) -> Result<(), Invalid> {
        let fields = Arc::clone(&self.fields);
        for field in fields.fields(graph_field::OUTPUT) {
            let info: ValueInfoProto = self.model.decode(field, "graph output")?;
            let id = self
                .find(info.name())
                .ok_or_else(|| Invalid::UndefinedOutput(info.name().to_owned()))?;
            self.value_mut(id).is_output = true;
            self.outputs.push(id);
        }
        if self.outputs.is_empty() { Err(Invalid::NoOutputs) } else { Ok(()) }
    }

    /// Finds the nodes that the graph outputs need, and registers them as readers. A dead node
    /// is no reader.
    fn find_live(&mut self) {
        let producer = |value| self.value(value).producer;
        let reads = |node, open: &mut Vec<ValueId>| open.extend(self.uses(node));
        self.live = liveness::needed(self.nodes.len(), &self.outputs, producer, reads);
        let Graph { nodes, values, live, .. } = self;
        for (id, node) in (0..).map(NodeId).zip(nodes).filter(|(id, _)| live.contains(*id)) {
            for &value in node.inputs.iter().flatten().chain(&node.captured) {
                if let Some(value) = values.get_mut(value.0 as usize) {
                    value.readers.push(id);
                }
            }
        }
    }

    fn defined(&self, name: &str, reader: &Node) -> Result<ValueId, Invalid> {
        self.find(name).ok_or_else(|| {
            let (node, tensor) = (format!("node `{}`", reader.label()), name.to_owned());
            let nodes = self.fields.fields(graph_field::NODE);
            let makes_it = |node: NodeProto| node.output.contains(&tensor);
            if !nodes.filter_map(|field| self.model.decode(field, "node").ok()).any(makes_it) {
                return Invalid::Undefined { node, tensor };
            }
            match sort::circle(self.model, &self.fields.container().payload) {
                Ok(Some(circle)) => Invalid::Circle(circle),
                _ => Invalid::Unsorted { node, tensor },
            }
        })
    }

    fn intern(&mut self, name: &'m str) -> ValueId {
        let next = ValueId(self.values.len() as u32);
        let id = *self.ids.entry(name).or_insert(next);
        if id == next {
            self.values.push(Value { name, ..Value::default() });
        }
        id
    }

    #[expect(clippy::indexing_slicing, reason = "ids are only made by `intern`")]
    fn value_mut(&mut self, id: ValueId) -> &mut Value<'m> {
        &mut self.values[id.0 as usize]
    }

    /// Returns the tensor `id`.
    #[expect(clippy::indexing_slicing, reason = "ids are only made by `intern`")]
    pub fn value(&self, id: ValueId) -> &Value<'m> {
        &self.values[id.0 as usize]
    }

    /// Returns the node `id`.
    #[expect(clippy::indexing_slicing, reason = "ids are only made by `read_nodes`")]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Returns the id of the tensor called `name`.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.ids.get(name).copied()
    }

    /// Returns all nodes in file order, which is a topological order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index as u32), node))
    }

    /// Returns the number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Returns all tensors.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value<'m>)> {
        self.values.iter().enumerate().map(|(index, value)| (ValueId(index as u32), value))
    }

    /// Whether a graph output needs the node `id`.
    pub fn is_live(&self, id: NodeId) -> bool {
        self.live.contains(id)
    }

    /// Returns the tensors that the node reads, once per use, including those that its bodies
    /// capture.
    pub fn uses(&self, id: NodeId) -> impl Iterator<Item = ValueId> {
        let node = self.node(id);
        node.inputs.iter().flatten().chain(&node.captured).copied()
    }

    /// Whether any output of the node besides the first is used: a mask, batch statistics.
    pub fn yields_more(&self, node: &Node) -> bool {
        node.outputs.iter().skip(1).flatten().any(|&extra| {
            let value = self.value(extra);
            value.is_output || !value.readers.is_empty()
        })
    }

    /// Decodes the initializer of tensor `id`; its data stays in the memory map. Returns `None`
    /// if the tensor has none.
    ///
    /// # Errors
    /// Returns an error if the entry cannot be decoded.
    pub fn initializer(&self, id: ValueId) -> Result<Option<Initializer>, Invalid> {
        let Some(field) = &self.value(id).initializer else { return Ok(None) };
        Ok(Some(match field.number {
            graph_field::SPARSE_INITIALIZER => {
                Initializer::Sparse(self.model.decode(field, "sparse initializer")?)
            }
            _ => Initializer::Dense(self.model.decode(field, "initializer")?),
        }))
    }

    /// Returns the element type (`TensorProto.DataType`) of the initializer of tensor `id`;
    /// only a sparse one is decoded for that.
    ///
    /// # Errors
    /// Returns an error if a sparse initializer cannot be decoded.
    pub fn stored_type(&self, id: ValueId) -> Result<Option<i32>, Invalid> {
        let Some(field) = &self.value(id).initializer else { return Ok(None) };
        if field.number == graph_field::SPARSE_INITIALIZER {
            return Ok(self.initializer(id)?.map(|stored| stored.element_type()));
        }
        // Malformed entries are refused when they are decoded.
        let parts = wire::fields(self.model.bytes(), field.payload.clone()).map_while(Result::ok);
        let last = parts.filter(|part| part.number == tensor_field::DATA_TYPE).last();
        let bytes = last.and_then(|part| self.model.bytes().get(part.payload));
        Ok(Some(bytes.map_or(0, wire::varint_value) as i32))
    }

    /// Returns the graph inputs that a caller must provide.
    pub fn inputs(&self) -> Vec<InputDims> {
        let fields = self.fields.fields(graph_field::INPUT);
        let infos = fields.filter_map(|field| self.model.decode(field, "graph input").ok());
        let without_default = |info: &ValueInfoProto| {
            self.find(info.name()).is_some_and(|id| self.value(id).initializer.is_none())
        };
        let infos = infos.filter(without_default);
        infos.map(|info| (info.name().to_owned(), info::dims(&info))).collect()
    }

    /// Whether a caller may override the initializer `id`: from IR version 4 on, if it is a
    /// graph input, too. Up to version 3, all initializers are listed as graph inputs.
    pub fn may_be_overridden(&self, id: ValueId) -> bool {
        self.model.ir_version >= 4 && self.value(id).input.is_some()
    }

    /// Returns the element type (`TensorProto.DataType`) that the file declares for graph input
    /// `id`.
    pub fn input_type(&self, id: ValueId) -> Option<i32> {
        let field = self.value(id).input.as_ref()?;
        info::element_type(&self.model.decode(field, "graph input").ok()?)
    }
}
