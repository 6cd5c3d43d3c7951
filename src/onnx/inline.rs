//! Local functions (`ModelProto.functions`): calls are replaced by the nodes of the function.
//!
//! The names of these nodes begin with the name of the call, so that nothing collides, and it
//! can be told afterwards which calls took part in a block. Knows the format only; which calls
//! to inline is decided by the caller.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use prost::Message;
use prost::bytes::Bytes;

use crate::onnx::callees::{Callees, called_by, id_of};
use crate::onnx::edit;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdSet, ValueId};
use crate::onnx::model::{Invalid, Model, is_default_domain};
use crate::onnx::names::{self, UniqueNames};
use crate::onnx::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};
use crate::onnx::schema::graph_field;
use crate::onnx::splice::{self, Edit};
use crate::onnx::used_part::needed;

/// Maximum depth of calls within calls; the standard forbids recursion.
const MAX_DEPTH: usize = 32;

/// Maximum nesting of bodies, after inlining, too: no protobuf reader goes much deeper.
const MAX_NESTING: usize = 30;

/// Maximum number of nodes of all inlined calls: functions that call each other twice double at
/// every level.
const MAX_NODES: usize = 1 << 18;

/// Maximum number of bytes of all inlined calls, in addition to four times those of the file: a
/// long name or list in a function is copied at every call.
const MAX_BYTES: usize = 1 << 24;

/// Returns the model with those calls inlined whose names `wanted` accepts; `None` if there are
/// none. The name of a call inside a function is that of the call around it, followed by its own.
///
/// Calls of functions that are written for another operator set than the model's stay as they
/// are: their operators may mean something else.
///
/// # Errors
/// Returns an error if an entry cannot be decoded, if functions call each other in a cycle, or
/// if the calls expand to too many nodes or bytes.
pub fn inline(model: &Model, wanted: &dyn Fn(&str) -> bool) -> Result<Option<Bytes>, Invalid> {
    if model.functions.is_empty() {
        return Ok(None);
    }
    let graphs = Graph::read_all(model)?;
    let Some(main) = graphs.first() else { return Ok(None) };
    let suffix = names::fresh(main, ".inlined");
    let functions = Callees::read(model)?;
    let bytes_left = model.bytes().len().saturating_mul(4).saturating_add(MAX_BYTES);
    let names = UniqueNames::default();
    let mut inliner = Inliner { functions, wanted, suffix, names, nodes: 0, bytes_left };
    let mut edits = Vec::new();
    let mut before = Vec::new();
    let mut after = Vec::new();
    for graph in &graphs {
        let nesting = nesting_of(graph);
        // Dead nodes stay, and so do the nodes that they read from.
        let read_by_nodes = graph.nodes().flat_map(|(id, _)| graph.uses(id));
        let used: IdSet<ValueId> = graph.outputs.iter().copied().chain(read_by_nodes).collect();
        for (id, node) in graph.nodes() {
            // The nodes in bodies of live nodes are visited on their own.
            let alone = graph.is_live(id) && node.standard_op().is_some() && node.has_bodies();
            let called = || {
                if alone { vec![id_of(&node.proto)] } else { called_by([&node.proto]) }
            };
            before.extend(called());
            let mut nodes = Vec::new();
            if inliner.expand(node.proto.clone(), 0, nesting, &mut nodes)? {
                let read = node.outputs.iter().flatten().filter(|id| used.contains(id));
                let read = read.map(|&id| graph.value(id).name.to_owned()).collect();
                let nodes = needed(nodes, read);
                after.extend(called_by(&nodes));
                let entries = nodes.iter().map(|node| splice::entry(graph_field::NODE, node));
                let with: Vec<u8> = entries.flatten().collect();
                edits.push(Edit::replace(node.field.entry(), with.into()));
            } else {
                after.extend(called());
            }
        }
    }
    if edits.is_empty() {
        return Ok(None);
    }
    let imports = inliner.functions.missing_imports(&after, model);
    // Functions go with their last call; those that were never called stay.
    let (before, after) = (inliner.functions.reached(before), inliner.functions.reached(after));
    let gone = before.difference(&after).filter_map(|id| inliner.functions.by_id.get(id));
    edits.extend(gone.map(|known| Edit::remove(known.field.entry())));
    edits.extend(imports);

    Ok(Some(edit::edited(model, &graphs, edits)))
}

/// Returns the calls in `graphs` that cannot be inlined, of functions that have convolutions or
/// batch norms: the label of the node, and the reason.
///
/// # Errors
/// Same as [`inline`].
pub fn refused(model: &Model, graphs: &[Graph]) -> Result<Vec<(String, String)>, Invalid> {
    if model.functions.is_empty() {
        return Ok(Vec::new());
    }
    let functions = Callees::read(model)?;
    let calls = graphs.iter().flat_map(Graph::nodes).filter_map(|(_, node)| {
        let known = functions.by_id.get(&id_of(&node.proto))?;
        let (function, refused) =
            (&known.function, functions.of(&node.proto).is_none() && known.holds_linear);
        let why = if node.has_bodies() {
            "is handed a graph"
        } else if is_default_domain(node.proto.domain()) {
            "is in the domain of the standard"
        } else {
            "is written for other operator sets than the model imports"
        };
        refused.then(|| (node.label().to_owned(), format!("function `{}` {why}", function.name())))
    });
    Ok(calls.collect())
}

/// Returns the number of graphs that enclose this one.
fn nesting_of(graph: &Graph) -> usize {
    // A body adds three messages: the node, its attribute and the graph.
    graph.fields.containers.len() / 3
}

struct Inliner<'w> {
    functions: Callees,
    wanted: &'w dyn Fn(&str) -> bool,
    /// The suffix of the names of calls, which no name of the model contains.
    suffix: String,
    /// The names of calls so far, without the suffix.
    names: UniqueNames,
    /// The number of nodes of inlined calls so far.
    nodes: usize,
    /// The number of bytes that further inlined calls may have.
    bytes_left: usize,
}

impl Inliner<'_> {
    /// Appends the expansion of `node` to `nodes`: the nodes of its function if it is a wanted
    /// call, else the node itself. Returns whether it was a wanted call.
    fn expand(
        &mut self,
        node: NodeProto,
        depth: usize,
        nesting: usize,
        nodes: &mut Vec<NodeProto>,
    ) -> Result<bool, Invalid> {
        let known = self.functions.of(&node);
        let Some(known) =
            known.filter(|known| nesting.saturating_add(known.nesting) <= MAX_NESTING)
        else {
            nodes.push(node);
            return Ok(false);
        };
        let function = Rc::clone(&known.function);
        if depth >= MAX_DEPTH {
            return Err(Invalid::RecursiveFunction(function.name().to_owned()));
        }
        let name = self.name_of(&node);
        if !(self.wanted)(&name) {
            nodes.push(node);
            return Ok(false);
        }
        let call = Call::new(&node, &function, &name);
        let inner = self.instances(&call)?;
        self.expand_all(inner, &name, depth.saturating_add(1), nesting, nodes)?;
        Ok(true)
    }

    /// Returns the nodes of a called function as nodes of the caller.
    fn instances(&mut self, call: &Call) -> Result<Vec<NodeProto>, Invalid> {
        let mut nodes = Vec::with_capacity(call.function.node.len());
        let instances = call.function.node.iter().map(|inner| call.instance(inner));
        for node in instances.chain(call.passed_through()) {
            // The name of the call is going to be prepended to its own.
            let size = node.encoded_len().saturating_add(call.name.len());
            self.bytes_left = self.bytes_left.checked_sub(size).ok_or(Invalid::ManyCalls)?;
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// Appends the expansions of the nodes `inner` of the call `name`; bodies are expanded in
    /// place.
    fn expand_all(
        &mut self,
        inner: Vec<NodeProto>,
        name: &str,
        depth: usize,
        nesting: usize,
        nodes: &mut Vec<NodeProto>,
    ) -> Result<(), Invalid> {
        self.nodes = self.nodes.saturating_add(inner.len());
        if self.nodes > MAX_NODES {
            return Err(Invalid::ManyCalls);
        }
        for (index, mut node) in inner.into_iter().enumerate() {
            if node.name().is_empty() {
                node.name = Some(format!("{}_{index}", node.op_type()));
            }
            node.name = Some(format!("{name}/{}", node.name()));
            let attributes = node.attribute.iter_mut();
            for body in attributes.flat_map(|a| a.g.as_deref_mut().into_iter().chain(&mut a.graphs))
            {
                let inner = std::mem::take(&mut body.node);
                self.expand_all(inner, name, depth, nesting.saturating_add(1), &mut body.node)?;
            }
            self.expand(node, depth, nesting, nodes)?;
        }
        Ok(())
    }

    /// Returns a name for a call that no other name in the model begins with. The same sequence
    /// of requests gives the same names.
    fn name_of(&mut self, node: &NodeProto) -> String {
        let base = if node.name().is_empty() { node.op_type() } else { node.name() };
        format!("{}{}", self.names.unique(base), self.suffix)
    }
}

/// One call: the actual tensors and attributes for the formal ones of its function.
struct Call<'c> {
    name: &'c str,
    node: &'c NodeProto,
    function: &'c FunctionProto,
    inputs: HashSet<&'c str>,
    tensors: HashMap<&'c str, &'c str>,
}

impl<'c> Call<'c> {
    fn new(node: &'c NodeProto, function: &'c FunctionProto, name: &'c str) -> Self {
        let given = node.input.iter().map(String::as_str).chain(std::iter::repeat(""));
        let formal: HashSet<&str> = function.input.iter().map(String::as_str).collect();
        let inputs = function.input.iter().map(String::as_str).zip(given);
        let outputs = function.output.iter().zip(&node.output);
        let outputs = outputs.map(|(formal, actual)| (formal.as_str(), actual.as_str()));
        // An output that is also an input already has the input's name; see `passed_through`.
        let outputs = outputs.filter(|(own, actual)| !actual.is_empty() && !formal.contains(own));
        Call { name, node, function, tensors: inputs.chain(outputs).collect(), inputs: formal }
    }

    /// Returns the name in the caller of the tensor that the function calls `inner`.
    fn tensor(&self, inner: &str) -> String {
        match self.tensors.get(inner) {
            Some(&outer) => outer.to_owned(),
            None if inner.is_empty() => String::new(),
            None => format!("{}/{inner}", self.name),
        }
    }

    /// Returns a node of the function as a node of the caller.
    fn instance(&self, inner: &NodeProto) -> NodeProto {
        let mut node = inner.clone();
        self.rename(&mut node.input);
        self.rename(&mut node.output);
        node.attribute = inner.attribute.iter().filter_map(|a| self.attribute(a)).collect();
        node
    }

    fn rename(&self, names: &mut [String]) {
        names.iter_mut().for_each(|name| *name = self.tensor(name));
    }

    /// Returns an attribute as it is in the caller: a reference is replaced by the value in the
    /// call, or else by the default of the function. `None` if neither has one.
    fn attribute(&self, inner: &AttributeProto) -> Option<AttributeProto> {
        let mut attribute = match inner.ref_attr_name() {
            "" => inner.clone(),
            wanted => {
                let mut given = self.node.attribute.iter().chain(&self.function.attribute_proto);
                let given = given.find(|given| given.name() == wanted)?;
                AttributeProto { name: inner.name.clone(), ..given.clone() }
            }
        };
        attribute
            .g
            .as_deref_mut()
            .into_iter()
            .chain(&mut attribute.graphs)
            .for_each(|body| self.body(body));
        Some(attribute)
    }

    fn body(&self, body: &mut GraphProto) {
        let infos = body.input.iter_mut().chain(&mut body.output).chain(&mut body.value_info);
        for name in infos.filter_map(|info| info.name.as_mut()) {
            *name = self.tensor(name);
        }
        let sparse =
            body.sparse_initializer.iter_mut().filter_map(|sparse| sparse.values.as_deref_mut());
        for name in body.initializer.iter_mut().chain(sparse).filter_map(|t| t.name.as_mut()) {
            *name = self.tensor(name);
        }
        for node in &mut body.node {
            *node = self.instance(node);
        }
    }

    /// Returns an Identity for each output of the function that is one of its inputs.
    fn passed_through(&self) -> impl Iterator<Item = NodeProto> {
        let outputs = self.function.output.iter().zip(&self.node.output);
        let passed = outputs
            .filter(|(formal, actual)| !actual.is_empty() && self.inputs.contains(formal.as_str()));
        let identity = |(formal, actual): (&String, &String)| NodeProto {
            op_type: Some("Identity".into()),
            name: Some(formal.clone()),
            input: vec![self.tensor(formal)],
            output: vec![actual.clone()],
            ..NodeProto::default()
        };
        passed.map(identity)
    }
}
