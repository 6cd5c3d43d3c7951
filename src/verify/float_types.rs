//! The float type that each tensor has in the file, and the one by which it is compared: how far
//! two models may be apart follows from it.
//!
//! Knows a model, its types by their rules, and what it declares; runs nothing.

use crate::facts::constants::Constants;
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, Table, ValueId};
use crate::onnx::info;
use crate::onnx::model::Invalid;
use crate::verify::bridge::declarations;
use crate::verify::slices::live_nodes;

/// The float types that the tensors of a model's main graph have in the file.
#[derive(Debug, Default)]
pub struct FloatTypes {
    types: Table<ValueId, Float>,
    /// Whether a graph of the model, bodies included, has a bfloat16 tensor that an output needs.
    pub has_bfloat16: bool,
}

impl FloatTypes {
    /// Returns the float types of a model whose main graph is the first of `graphs`. Where no
    /// rule tells the type of a node's output and nothing declares it, it is the least exact
    /// type of the operands.
    ///
    /// # Errors
    /// Returns an error if a constant cannot be decoded.
    pub fn of(graphs: &[Graph]) -> Result<Self, Invalid> {
        let mut found = FloatTypes::default();
        let all = Constants::find_all(graphs, false)?;
        for (number, (graph, constants)) in graphs.iter().zip(&all).enumerate() {
            let types = float_types(graph, constants);
            let is_narrow = |id| types.get(id) == Some(&Float::Bf16);
            found.has_bfloat16 |= graph.values().any(|(id, _)| is_narrow(id));
            if number == 0 {
                found.types = types;
            }
        }
        Ok(found)
    }

    /// Returns the float type of `id`; `None` if its type is another one, or unknown.
    pub fn get(&self, id: ValueId) -> Option<Float> {
        self.types.get(id).copied()
    }
}

/// The types by which tensors of a model are compared, where they are less exact than those in
/// which they are run.
#[derive(Debug, Default)]
pub struct ComparedTypes(Table<ValueId, Float>);

impl ComparedTypes {
    /// Returns bfloat16 for the tensors that have it in the file, since the engine uses float32
    /// in its place. What a file says of other types is not asked: what it declares of a tensor
    /// may be wrong.
    pub fn of_file(types: &FloatTypes, graph: &Graph) -> Self {
        let narrow = |(id, _)| Some((id, types.get(id).filter(|&float| float == Float::Bf16)?));
        let mut compared = ComparedTypes::default();
        for (id, float) in graph.values().filter_map(narrow) {
            compared.0.insert(id, float);
        }
        compared
    }

    /// Returns, for each tensor that `nodes` make, the least exact type from which it follows
    /// through `nodes`, in their order: what is cast to float32 at the end of a float16 model
    /// differs by the rounding of float16.
    pub fn followed_through(types: &FloatTypes, graph: &Graph, nodes: &[NodeId]) -> Self {
        let mut compared = ComparedTypes::default();
        for &id in nodes {
            let before = graph.uses(id).filter_map(|used| compared.0.get(used).copied());
            let before = before.reduce(least_exact);
            for output in graph.node(id).outputs.iter().flatten().copied() {
                let float = types.get(output).into_iter().chain(before).reduce(least_exact);
                float.map(|float| compared.0.insert(output, float));
            }
        }
        compared
    }

    /// Returns the type by which a tensor is compared that has the type `run` where it is run;
    /// `None` for integers and booleans.
    pub fn get(&self, id: ValueId, run: Option<Float>) -> Option<Float> {
        run.map(|run| self.0.get(id).map_or(run, |&own| least_exact(run, own)))
    }
}

fn float_types(graph: &Graph, constants: &Constants) -> Table<ValueId, Float> {
    let declared = declarations(graph);
    let mut types: Table<ValueId, Float> = Table::default();
    for id in live_nodes(graph) {
        let node = graph.node(id);
        for used in graph.uses(id) {
            let known = constants.element_type(used).and_then(Float::from_onnx);
            known.map(|float| types.insert(used, float));
        }
        let operands = node.inputs.iter().flatten();
        let operands = operands.filter_map(|&used| types.get(used).copied()).reduce(least_exact);
        for output in node.outputs.iter().flatten().copied() {
            let named = declared.get(graph.value(output).name);
            let known = constants.element_type(output).or(named.and_then(info::element_type));
            let float = known.map_or(operands, Float::from_onnx);
            float.map(|float| types.insert(output, float));
        }
    }
    types
}

fn least_exact(one: Float, other: Float) -> Float {
    if other.unit() > one.unit() { other } else { one }
}
