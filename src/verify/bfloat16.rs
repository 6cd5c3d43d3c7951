//! Which tensors are of bfloat16 in the file. The engine has float32 in its place and does not
//! know; how far both models may be apart follows from the type in the file.
//!
//! Knows the old model, its types by their rules, and what it declares; runs nothing.

use std::collections::HashSet;

use crate::facts::constants::Constants;
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::info;
use crate::onnx::model::Invalid;
use crate::verify::bridge::declarations;
use crate::verify::slices::live_nodes;

/// The tensors of bfloat16 of a model.
#[derive(Debug, Default)]
pub struct Bfloat16 {
    tensors: HashSet<ValueId>,
    /// Whether there is one in a graph of it, bodies included, that an output needs.
    pub is_used: bool,
}

impl Bfloat16 {
    /// Those of a model whose main graph is the first of `graphs`. Where no rule tells the type
    /// of what a node makes and nothing declares it, it is that of an operand.
    ///
    /// # Errors
    /// If a constant cannot be decoded.
    pub fn of(graphs: &[Graph]) -> Result<Self, Invalid> {
        let mut found = Bfloat16::default();
        let all = Constants::find_all(graphs, false)?;
        for (number, (graph, constants)) in graphs.iter().zip(&all).enumerate() {
            let declared = declarations(graph);
            let mut tensors = HashSet::new();
            for id in live_nodes(graph) {
                let node = graph.node(id);
                let is_narrow = |id: ValueId| constants.element_type(id) == Some(BFLOAT16);
                tensors.extend(graph.uses(id).filter(|&used| is_narrow(used)));
                let reads_one = node.inputs.iter().flatten().any(|used| tensors.contains(used));
                let makes_one = |output: ValueId| {
                    let named = declared.get(&graph.value(output).name);
                    let declared = named.and_then(info::element_type);
                    let known = constants.element_type(output).or(declared);
                    known.map_or(reads_one, |known| known == BFLOAT16)
                };
                let outputs = node.outputs.iter().flatten().copied();
                tensors.extend(outputs.filter(|&output| makes_one(output)));
            }
            found.is_used |= !tensors.is_empty();
            if number == 0 {
                found.tensors = tensors;
            }
        }
        Ok(found)
    }

    /// The type of the tensor `id` of the main graph in the file; `None` of integers and
    /// booleans. `run` is the one that it is run in.
    pub fn in_file(&self, id: ValueId, run: Option<Float>) -> Option<Float> {
        run.map(|run| if self.tensors.contains(&id) { Float::Bf16 } else { run })
    }
}

/// `TensorProto.DataType` of bfloat16.
const BFLOAT16: i32 = crate::onnx::proto::tensor_proto::DataType::Bfloat16 as i32;
