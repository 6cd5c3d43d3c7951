//! What is constant in the graphs of a model, including sizes that no input changes: a
//! convolution has as many channels as its kernel has filters, whatever it is given.
//!
//! Exporters compute γ and β from such sizes, and lists of axes. What the file declares of its
//! inputs has no part in this: it is not known to be true.
//!
//! Knows constants and shape rules; knows no operator by name.

use std::sync::{Arc, Mutex};

use crate::facts::constants::Constants;
use crate::facts::propagation::{Answers, Facts, NO_SHAPES};
use crate::facts::roles;
use crate::onnx::graph::{Graph, Value};
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::tensor;

impl<'g, 'm> Constants<'g, 'm> {
    /// Finds what is constant in each of `graphs` (see [`Graph::read_all`]). With
    /// `keep_overridable`, an initializer that a caller may override (one that is a graph input
    /// too, from IR version 4 on) is not constant.
    ///
    /// # Errors
    /// Returns an error if an initializer cannot be decoded.
    pub fn find_all(
        graphs: &'g [Graph<'m>],
        keep_overridable: bool,
    ) -> Result<Vec<Arc<Self>>, Invalid> {
        let mut all: Vec<Arc<Self>> = Vec::with_capacity(graphs.len());
        for graph in graphs {
            let outer = graph.outer.and_then(|(outer, _)| all.get(outer).cloned());
            let mut constants = Self::find(graph, outer, keep_overridable)?;
            constants.know(counted(graph, &constants));
            all.push(Arc::new(constants));
        }
        Ok(all)
    }
}

/// Returns the integers that follow from sizes which no input changes.
fn counted(graph: &Graph, constants: &Constants) -> Vec<(ValueId, TensorProto)> {
    if !graph.nodes().any(|(id, node)| graph.is_live(id) && roles::measures(node)) {
        return Vec::new();
    }
    // Up to IR version 3, initializers are listed among the inputs.
    let is_given =
        |(id, value): &(ValueId, &Value)| value.input.is_some() && !constants.contains(*id);
    let inputs = graph.values().filter(is_given);
    let answers = Mutex::new(Answers::given(inputs.map(|(id, _)| (id, None))));
    let mut facts = Facts::new(graph, constants, &NO_SHAPES, &answers);
    let live = graph.nodes().filter(|&(id, _)| graph.is_live(id));
    let outputs = live.flat_map(|(_, node)| node.outputs.iter().flatten().copied());
    let is_open = |id: &ValueId| {
        let is_list = constants.element_type(*id) == Some(DataType::Int64.into());
        is_list && !constants.contains(*id)
    };
    let mut known = |id: ValueId| {
        let integers: Vec<i64> = facts.integers(id)?.into_iter().collect::<Option<_>>()?;
        let dims: Vec<i64> = facts.dims(id)?.into_iter().collect::<Option<_>>()?;
        let count = dims.iter().try_fold(1i64, |count, &size| count.checked_mul(size))?;
        let is_whole = usize::try_from(count).ok() == Some(integers.len());
        let tensor = tensor::from_integers(graph.value(id).name, &integers);
        is_whole.then_some((id, TensorProto { dims, ..tensor }))
    };
    outputs.filter(is_open).filter_map(&mut known).collect()
}
