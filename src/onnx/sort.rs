//! The order of nodes. The standard requires that each node follows those whose tensors it
//! reads, but some writers (converters to float16 among them) append what they add.
//!
//! Unsorted graphs are sorted: each node that comes too late is moved right before the first that
//! reads it, and the others keep their order. Entries are moved unchanged, so that every message
//! keeps its length. What a body reads of the graph around it counts as read by its node.
//!
//! Knows names, entries and their positions; not what a node computes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use prost::bytes::Bytes;

use crate::onnx::model::{Model, is_default_domain};
use crate::onnx::schema::{
    attribute_field, function_field, graph_field, info_field, node_field, tensor_field,
};
use crate::onnx::wire::{self, Field, WireError};

/// The maximum nesting of bodies that is followed; no protobuf reader goes much deeper.
const MAX_NESTING: usize = 64;

/// Returns the bytes of `model` with the nodes of its graphs, bodies and functions sorted;
/// `None` if they are sorted already. The nodes of a graph with a cycle stay as they are.
///
/// # Errors
/// Returns an error if the bytes are not a protobuf message.
pub fn sorted(model: &Model) -> Result<Option<Bytes>, WireError> {
    let mut unsorted = Vec::new();
    let mut graphs = vec![Scope::of_main(model)?];
    for function in &model.functions {
        graphs.push(Scope::of_function(model, function)?);
    }
    while let Some(scope) = graphs.pop() {
        if let Ok(Some(order)) = scope.order() {
            unsorted.push((scope.payload.clone(), scope.kind.nodes(), order));
        }
        graphs.extend(scope.bodies()?);
    }
    if unsorted.is_empty() {
        return Ok(None);
    }
    let mut bytes = model.bytes().to_vec();
    // Innermost first, because sorting an outer graph moves its bodies. A body starts after its
    // graph.
    unsorted.sort_by_key(|(payload, ..)| std::cmp::Reverse(payload.start));
    for (payload, number, order) in unsorted {
        let moved = with_nodes_in_order(&bytes, &payload, number, &order)?;
        if let Some(place) = bytes.get_mut(payload).filter(|place| place.len() == moved.len()) {
            place.copy_from_slice(&moved);
        }
    }
    Ok(Some(bytes.into()))
}

/// Returns the names of nodes that form a cycle in the graph that fills `payload`; `None` if it
/// has no cycle.
///
/// # Errors
/// Same as [`sorted`].
pub fn circle(model: &Model, payload: &Range<usize>) -> Result<Option<Vec<String>>, WireError> {
    let scope = Scope::read(model, payload.clone(), Kind::Graph, Rc::default(), 0)?;
    Ok(scope.order().err())
}

/// The kind of a message that lists nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Graph,
    Function,
}

impl Kind {
    /// Returns the field number of its nodes.
    fn nodes(self) -> u32 {
        match self {
            Kind::Graph => graph_field::NODE,
            Kind::Function => function_field::NODE,
        }
    }
}

/// A graph, body or function: its nodes, and the tensors of enclosing graphs that they may read.
struct Scope<'m> {
    model: &'m Model,
    payload: Range<usize>,
    kind: Kind,
    nodes: Vec<Names<'m>>,
    names: NameLists<'m>,
    around: Rc<Around<'m>>,
    depth: usize,
}

/// The tensors of the graph that encloses a body, and of those that enclose that one.
#[derive(Default)]
struct Around<'m> {
    tensors: HashSet<&'m str>,
    further: Option<Rc<Around<'m>>>,
}

impl Around<'_> {
    fn holds(&self, name: &str) -> bool {
        let mut around = Some(self);
        while let Some(Around { tensors, further }) = around {
            if tensors.contains(name) {
                return true;
            }
            around = further.as_deref();
        }
        false
    }
}

/// The names of the tensors that the nodes of a graph read and produce, node by node.
#[derive(Default)]
struct NameLists<'m> {
    read: Vec<&'m str>,
    made: Vec<&'m str>,
}

/// The names in one node; those of tensors are ranges of the lists of its graph.
struct Names<'m> {
    label: &'m str,
    is_standard: bool,
    reads: Range<usize>,
    makes: Range<usize>,
    bodies: Vec<Range<usize>>,
}

impl<'m> Scope<'m> {
    fn of_main(model: &'m Model) -> Result<Self, WireError> {
        let payload = model.main.container().payload;
        Scope::read(model, payload, Kind::Graph, Rc::default(), 0)
    }

    fn of_function(model: &'m Model, function: &Field) -> Result<Self, WireError> {
        Scope::read(model, function.payload.clone(), Kind::Function, Rc::default(), 0)
    }

    fn read(
        model: &'m Model,
        payload: Range<usize>,
        kind: Kind,
        around: Rc<Around<'m>>,
        depth: usize,
    ) -> Result<Self, WireError> {
        let (mut nodes, mut names) = (Vec::new(), NameLists::default());
        for field in wire::fields(model.bytes(), payload.clone()) {
            let field = field?;
            if field.number == kind.nodes() {
                nodes.push(Names::of(model, &field.payload, depth, &mut names)?);
            }
        }
        Ok(Scope { model, payload, kind, nodes, names, around, depth })
    }

    fn read_by(&self, node: &Names) -> &[&'m str] {
        self.names.read.get(node.reads.clone()).unwrap_or_default()
    }

    fn made_by(&self, node: &Names) -> &[&'m str] {
        self.names.made.get(node.makes.clone()).unwrap_or_default()
    }

    /// Returns the names of its own tensors: its inputs, its initializers, and what its nodes
    /// produce.
    fn tensors(&self) -> HashSet<&'m str> {
        let fields = wire::fields(self.model.bytes(), self.payload.clone()).map_while(Result::ok);
        let given = fields.filter_map(|field| match (self.kind, field.number) {
            (Kind::Graph, graph_field::INPUT) => text(self.model, &field.payload, info_field::NAME),
            (Kind::Graph, graph_field::INITIALIZER) => {
                text(self.model, &field.payload, tensor_field::NAME)
            }
            (Kind::Function, function_field::INPUT) => self.model.str_at(field.payload),
            _ => None,
        });
        given.chain(self.names.made.iter().copied()).collect()
    }

    /// Returns the bodies in its nodes.
    fn bodies(&self) -> Result<Vec<Scope<'m>>, WireError> {
        let mut bodies = Vec::new();
        if self.nodes.iter().all(|node| node.bodies.is_empty()) || self.depth >= MAX_NESTING {
            return Ok(bodies);
        }
        let further = Some(Rc::clone(&self.around));
        let around = Rc::new(Around { tensors: self.tensors(), further });
        // Only whoever defines a foreign operator knows what its bodies mean.
        for node in self.nodes.iter().filter(|node| node.is_standard) {
            for body in &node.bodies {
                let depth = self.depth.saturating_add(1);
                let (body, around) = (body.clone(), Rc::clone(&around));
                bodies.push(Scope::read(self.model, body, Kind::Graph, around, depth)?);
            }
        }
        Ok(bodies)
    }

    /// Returns the indices of the nodes in an order in which each follows those whose tensors
    /// it reads; `None` if the nodes are in such an order already.
    ///
    /// # Errors
    /// Returns the names of nodes that form a cycle.
    fn order(&self) -> Result<Option<Vec<usize>>, Vec<String>> {
        let mut makers: HashMap<&str, usize> = HashMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            // A name of an enclosing graph means the outer tensor until a node here has
            // produced it, so that it does not order nodes.
            let is_own = |name: &&&str| !self.around.holds(name);
            for &name in self.made_by(node).iter().filter(is_own) {
                makers.entry(name).or_insert(number);
            }
        }
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut states = vec![State::New; self.nodes.len()];
        // The stack of a depth-first search: nodes, each needed by the one below it, and how
        // many of the names that the node reads have been visited.
        let mut open = Vec::new();
        for first in 0..self.nodes.len() {
            open.push((first, 0));
            while let Some((number, read)) = open.pop() {
                let Some((node, state)) = self.nodes.get(number).zip(states.get_mut(number)) else {
                    continue;
                };
                if *state == State::Placed {
                    continue;
                }
                *state = State::Open;
                let Some(name) = self.read_by(node).get(read) else {
                    *state = State::Placed;
                    order.push(number);
                    continue;
                };
                open.push((number, read.saturating_add(1)));
                let Some(&maker) = makers.get(name) else { continue };
                match states.get(maker) {
                    Some(State::New) => open.push((maker, 0)),
                    Some(State::Open) => return Err(self.circle(&open, maker)),
                    _ => {}
                }
            }
        }
        let is_sorted = order.iter().copied().eq(0..self.nodes.len());
        Ok((!is_sorted).then_some(order))
    }

    /// Returns the names of the `open` nodes from `first` on: each reads from the next, and the
    /// last reads from the first.
    fn circle(&self, open: &[(usize, usize)], first: usize) -> Vec<String> {
        let circle = open.iter().map(|(number, _)| *number).skip_while(|number| *number != first);
        circle.filter_map(|number| Some(self.nodes.get(number)?.label.to_owned())).collect()
    }
}

/// The state of a node in the depth-first search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    /// The nodes whose tensors it reads are being visited.
    Open,
    Placed,
}

impl<'m> Names<'m> {
    /// Reads the names in `node`; those of the tensors that it reads and produces are appended
    /// to the `lists` of its graph.
    fn of(
        model: &'m Model,
        node: &Range<usize>,
        depth: usize,
        lists: &mut NameLists<'m>,
    ) -> Result<Self, WireError> {
        let (mut label, mut domain, mut bodies) = ("", "", Vec::new());
        let (read, made) = (lists.read.len(), lists.made.len());
        let name_at = |at| model.str_at(at).filter(|name| !name.is_empty());
        for field in wire::fields(model.bytes(), node.clone()) {
            let field = field?;
            match field.number {
                node_field::INPUT => lists.read.extend(name_at(field.payload)),
                node_field::OUTPUT => lists.made.extend(name_at(field.payload)),
                node_field::ATTRIBUTE => bodies.extend(graphs_in(model, &field.payload)?),
                node_field::NAME => label = name_at(field.payload).unwrap_or_default(),
                node_field::DOMAIN => domain = name_at(field.payload).unwrap_or_default(),
                _ => {}
            }
        }
        for body in &bodies {
            let outside = read_outside(model, body, depth.saturating_add(1))?;
            lists.read.extend(outside.into_iter().filter(|name| !name.is_empty()));
        }
        if label.is_empty() {
            label = lists.made.get(made).copied().unwrap_or("(a node without a name)");
        }
        let (reads, makes) = (read..lists.read.len(), made..lists.made.len());
        Ok(Names { label, is_standard: is_default_domain(domain), reads, makes, bodies })
    }
}

/// Returns the graphs in an attribute.
fn graphs_in(model: &Model, attribute: &Range<usize>) -> Result<Vec<Range<usize>>, WireError> {
    let mut graphs = Vec::new();
    for field in wire::fields(model.bytes(), attribute.clone()) {
        let field = field?;
        if matches!(field.number, attribute_field::GRAPH | attribute_field::GRAPHS) {
            graphs.push(field.payload);
        }
    }
    Ok(graphs)
}

/// Returns the names that the body at `payload` reads and does not define itself.
fn read_outside<'m>(
    model: &'m Model,
    payload: &Range<usize>,
    depth: usize,
) -> Result<Vec<&'m str>, WireError> {
    if depth >= MAX_NESTING {
        return Ok(Vec::new());
    }
    let body = Scope::read(model, payload.clone(), Kind::Graph, Rc::default(), depth)?;
    let outputs = wire::fields(model.bytes(), payload.clone()).filter_map(Result::ok);
    let outputs = outputs.filter(|field| field.number == graph_field::OUTPUT);
    let outputs = outputs.filter_map(|field| text(model, &field.payload, info_field::NAME));
    let own = body.tensors();
    let read = body.names.read.iter().copied().chain(outputs);
    Ok(read.filter(|name| !own.contains(name)).collect())
}

fn text<'m>(model: &'m Model, message: &Range<usize>, number: u32) -> Option<&'m str> {
    model.str_within(message, number).ok()
}

/// Returns the message that fills `payload` with its nodes, the entries with field number
/// `number`, in this `order`; all other entries keep their positions among the nodes.
fn with_nodes_in_order(
    bytes: &[u8],
    payload: &Range<usize>,
    number: u32,
    order: &[usize],
) -> Result<Vec<u8>, WireError> {
    let fields: Vec<Field> =
        wire::fields(bytes, payload.clone()).collect::<Result<_, WireError>>()?;
    let nodes: Vec<&Field> = fields.iter().filter(|field| field.number == number).collect();
    let mut next = order.iter().filter_map(|&number| nodes.get(number));
    let mut moved = Vec::with_capacity(payload.len());
    for field in &fields {
        let is_node = field.number == number;
        let stands_here = if is_node { next.next().copied() } else { None }.unwrap_or(field);
        moved.extend_from_slice(bytes.get(stands_here.entry()).unwrap_or_default());
    }
    Ok(moved)
}
