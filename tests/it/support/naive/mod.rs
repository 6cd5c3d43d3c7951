//! An interpreter of ONNX nodes, straight from the ONNX specification, in float64 and without an
//! engine: the judge of mutants and of cases that are written as text.
//!
//! It is slow and knows the operators that these need; `operators::interpreter` checks it against
//! ONNX's own tests. It uses nothing of the tool but its reading of tensors and its float types.

mod convolution;
mod layout;
mod node;
mod operators;

use std::collections::HashMap;

use acb_fuse::engine::Array;
use acb_fuse::numbers;
use acb_fuse::onnx::data;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto,
};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use acb_fuse::verify::claim::Side;
use ndarray::{ArrayD, ShapeError};

use node::Node;

/// Why nothing was computed.
#[derive(Debug)]
pub enum Stop {
    /// The judge does not know this operator, or this way to use it.
    Unknown(String),
    /// The nodes are no valid model.
    Wrong(String),
}

impl From<&str> for Stop {
    fn from(why: &str) -> Self {
        Stop::Wrong(why.to_owned())
    }
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Stop::Wrong(why)
    }
}

impl From<ShapeError> for Stop {
    fn from(error: ShapeError) -> Self {
        Stop::Wrong(error.to_string())
    }
}

/// Tensors by name.
type Tensors = HashMap<String, Array>;

/// Returns what `side` computes from its roots.
///
/// # Panics
/// Panics at an operator that is not known here: no mutant passes for different because of it.
pub fn run(side: &Side, roots: &[(String, ArrayD<f64>)]) -> Result<ArrayD<f64>, String> {
    let mut tensors: Tensors =
        roots.iter().map(|(name, values)| (name.clone(), Array::Float(values.clone()))).collect();
    for constant in &side.constants {
        let header = &constant.header;
        let value = match &constant.numbers {
            Some(numbers) => {
                let dims: Vec<usize> = header.dims.iter().map(|&dim| dim as usize).collect();
                Array::Float(ArrayD::from_shape_vec(dims, numbers::all(&**numbers)).unwrap())
            }
            None => stored(header, &Storage::default()),
        };
        tensors.insert(constant.name().to_owned(), value);
    }
    let functions = HashMap::new();
    let last = side.nodes.last().ok_or("there are no nodes")?;
    let machine = Machine { functions: &functions, storage: &Storage::default() };
    match machine.run(&side.nodes, &mut tensors, &[]) {
        Ok(()) => match tensors.remove(&last.output[0]) {
            Some(Array::Float(result)) => Ok(result),
            _ => Err("the result is no floating point".to_owned()),
        },
        Err(Stop::Wrong(why)) => Err(why),
        Err(Stop::Unknown(what)) => panic!("{what} stands among the nodes: teach it to this judge"),
    }
}

/// Returns what a whole model computes from its inputs, with norms and dropouts in their own modes.
pub fn outputs(
    model: &ModelProto,
    storage: &Storage,
    inputs: &[Array],
) -> Result<Vec<Array>, Stop> {
    let named =
        |function: &'_ FunctionProto| (function.domain().to_owned(), function.name().to_owned());
    let functions = model.functions.iter().map(|function| (named(function), function)).collect();
    let machine = Machine { functions: &functions, storage };
    let graph = model.graph.as_ref().ok_or("there is no graph")?;
    let stored: Vec<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    let mut inputs_of_caller = inputs.iter().cloned();
    let mut tensors = Tensors::new();
    for input in graph.input.iter().filter(|input| !stored.contains(&input.name())) {
        let value = inputs_of_caller.next().ok_or("an input is not given")?;
        tensors.insert(input.name().to_owned(), value);
    }
    machine.graph(graph, tensors)
}

/// Returns the values of a tensor of a file.
pub fn stored(tensor: &TensorProto, storage: &Storage) -> Array {
    if Float::from_onnx(tensor.data_type()).is_some() {
        return Array::Float(tensor::floats(tensor, storage).unwrap());
    }
    let values = tensor::wide_integers(tensor, storage).unwrap();
    let values = values.into_iter().map(|value| value as i64).collect();
    Array::Int(ArrayD::from_shape_vec(data::dims(tensor).unwrap(), values).unwrap())
}

/// The functions that nodes may call, and the side files of their tensors.
struct Machine<'m> {
    functions: &'m HashMap<(String, String), &'m FunctionProto>,
    storage: &'m Storage,
}

impl Machine<'_> {
    /// Returns what a graph computes from the tensors that it may read: its inputs, and those
    /// around it.
    fn graph(&self, graph: &GraphProto, mut tensors: Tensors) -> Result<Vec<Array>, Stop> {
        for tensor in &graph.initializer {
            tensors.insert(tensor.name().to_owned(), stored(tensor, self.storage));
        }
        for sparse in &graph.sparse_initializer {
            let dense = tensor::dense(sparse, self.storage).unwrap();
            let dense = dense.ok_or_else(|| Stop::Unknown("a sparse tensor".into()))?;
            let name = sparse.values.as_ref().map_or("", |values| values.name());
            tensors.insert(name.to_owned(), stored(&dense, self.storage));
        }
        self.run(&graph.node, &mut tensors, &[])?;
        let outputs = graph.output.iter().map(|output| {
            let found = tensors.get(output.name());
            found.cloned().ok_or_else(|| Stop::Wrong(format!("{} is not made", output.name())))
        });
        outputs.collect()
    }

    /// Runs the nodes of a graph, or of a function that was called with `given` attributes.
    fn run(
        &self,
        nodes: &[NodeProto],
        tensors: &mut Tensors,
        given: &[AttributeProto],
    ) -> Result<(), Stop> {
        for node in nodes {
            let node = filled_in(node, given);
            let key = (node.domain().to_owned(), node.op_type().to_owned());
            let results = match (self.functions.get(&key), node.op_type()) {
                (Some(function), _) => self.call(function, &node, tensors)?,
                (None, "If") => self.choose(&node, tensors)?,
                (None, "Loop") => self.repeat(&node, tensors)?,
                (None, "Scan") => self.scan(&node, tensors)?,
                (None, _) if !["", "ai.onnx"].contains(&node.domain()) => {
                    return Err(Stop::Unknown(format!("{}.{}", node.domain(), node.op_type())));
                }
                (None, _) => Node { node: &node, tensors, storage: self.storage }.run()?,
            };
            for (name, result) in node.output.iter().zip(results) {
                tensors.insert(name.clone(), result);
            }
        }
        Ok(())
    }

    fn call(
        &self,
        function: &FunctionProto,
        node: &NodeProto,
        tensors: &Tensors,
    ) -> Result<Vec<Array>, Stop> {
        let mut inside = Tensors::new();
        for (name, given) in function.input.iter().zip(&node.input) {
            if let Some(value) = tensors.get(given) {
                inside.insert(name.clone(), value.clone());
            }
        }
        let mut attributes = node.attribute.clone();
        let is_given = |name: &str| node.attribute.iter().any(|given| given.name() == name);
        let defaults = function.attribute_proto.iter().filter(|default| !is_given(default.name()));
        attributes.extend(defaults.cloned());
        self.run(&function.node, &mut inside, &attributes)?;
        let outputs = function.output.iter().map(|name| {
            inside.get(name).cloned().ok_or_else(|| Stop::Wrong(format!("{name} is not made")))
        });
        outputs.collect()
    }

    fn choose(&self, node: &NodeProto, tensors: &Tensors) -> Result<Vec<Array>, Stop> {
        let condition = Node { node, tensors, storage: self.storage }.integers(0)?;
        let branch =
            if condition.iter().any(|&value| value != 0) { "then_branch" } else { "else_branch" };
        self.graph(body(node, branch)?, tensors.clone())
    }

    fn repeat(&self, node: &NodeProto, tensors: &Tensors) -> Result<Vec<Array>, Stop> {
        let here = Node { node, tensors, storage: self.storage };
        let body = body(node, "body")?;
        let flag = |value: bool| Array::Int(ArrayD::from_elem(vec![], i64::from(value)));
        let times =
            if here.has(0) { here.integers(0)?.first().copied().unwrap() } else { i64::MAX };
        let mut goes_on = !here.has(1) || here.integers(1)?.iter().all(|&value| value != 0);
        let states = node.input.len().saturating_sub(2);
        let mut state: Vec<Array> = (2..node.input.len())
            .map(|index| here.any(index).cloned())
            .collect::<Result<_, _>>()?;
        let mut stacked: Vec<Vec<Array>> = vec![vec![]; node.output.len() - states];
        let mut at = 0;
        while goes_on && at < times {
            let mut inside = tensors.clone();
            let counters = [Array::Int(ArrayD::from_elem(vec![], at)), flag(true)];
            let given = counters.into_iter().chain(state.drain(..));
            inside.extend(body.input.iter().map(|input| input.name().to_owned()).zip(given));
            let mut results = self.graph(body, inside)?.into_iter();
            let condition = results.next().ok_or("the body has no condition")?;
            goes_on =
                matches!(condition, Array::Int(values) if values.iter().all(|&value| value != 0));
            state = results.by_ref().take(states).collect();
            stacked.iter_mut().zip(results).for_each(|(all, one)| all.push(one));
            at += 1;
        }
        let stacks = stacked.iter().map(|all| layout::stacked(all));
        state.into_iter().map(Ok).chain(stacks).collect()
    }

    /// Runs a Scan forwards along the first axis of each scanned input.
    fn scan(&self, node: &NodeProto, tensors: &Tensors) -> Result<Vec<Array>, Stop> {
        let here = Node { node, tensors, storage: self.storage };
        let body = body(node, "body")?;
        let scanned = here.int("num_scan_inputs", 0) as usize;
        if node.attribute.iter().any(|attribute| attribute.name().starts_with("scan_")) {
            return Err(Stop::Unknown("a Scan along other axes".into()));
        }
        let states = node.input.len() - scanned;
        let inputs: Vec<Array> = (0..node.input.len())
            .map(|index| here.any(index).cloned())
            .collect::<Result<_, _>>()?;
        let (state, sequences) = inputs.split_at(states);
        let mut state = state.to_vec();
        let mut stacked: Vec<Vec<Array>> = vec![vec![]; node.output.len() - states];
        for at in 0..sequences[0].shape()[0] {
            let mut inside = tensors.clone();
            let steps = sequences.iter().map(|sequence| layout::element(sequence, at));
            let given = state.drain(..).chain(steps);
            inside.extend(body.input.iter().map(|input| input.name().to_owned()).zip(given));
            let mut results = self.graph(body, inside)?.into_iter();
            state = results.by_ref().take(states).collect();
            stacked.iter_mut().zip(results).for_each(|(all, one)| all.push(one));
        }
        let stacks = stacked.iter().map(|all| layout::stacked(all));
        state.into_iter().map(Ok).chain(stacks).collect()
    }
}

/// Returns a node of a function, with the call's attributes in place of references to them.
fn filled_in(node: &NodeProto, given: &[AttributeProto]) -> NodeProto {
    let mut node = node.clone();
    node.attribute = std::mem::take(&mut node.attribute)
        .into_iter()
        .filter_map(|attribute| match attribute.ref_attr_name() {
            "" => Some(attribute),
            name => {
                let found = given.iter().find(|given| given.name() == name)?.clone();
                Some(AttributeProto { name: attribute.name, ..found })
            }
        })
        .collect();
    node
}

fn body<'n>(node: &'n NodeProto, name: &str) -> Result<&'n GraphProto, Stop> {
    let found = node.attribute.iter().find(|attribute| attribute.name() == name);
    found.and_then(|attribute| attribute.g.as_deref()).ok_or_else(|| "a body is missing".into())
}
