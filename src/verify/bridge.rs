//! A bridge over a node that the engine cannot run: tensors of the right shapes in the place of
//! its outputs, the same ones in both models, so that both go on behind it.
//!
//! Knows single nodes, and the shapes of what they read; what lies behind is for others to run.

use std::collections::HashMap;

use crate::engine::tensors::{self, EngineTensor};
use crate::engine::{Array, EngineError, Limits, memory_for};
use crate::facts::inference::output_dims;
use crate::facts::operators::operator;
use crate::facts::roles;
use crate::facts::row::TypeRule;
use crate::facts::shape_rules::{Dims, Integers, Operands, resize_lists};
use crate::onnx::data;
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::info;
use crate::onnx::node::Node;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{TensorProto, ValueInfoProto};
use crate::onnx::schema::graph_field;
use crate::onnx::tensor;
use crate::verify::bodies::{self, BodyOutput};
use crate::verify::inputs::Random;
use crate::verify::slices::{self, is_constant};

/// The operands of a node in a run; `None` where an input is left out or is a constant.
pub type NodeInputs = Vec<Option<EngineTensor>>;

/// What a file declares of its tensors, by name.
pub type Declarations = HashMap<String, ValueInfoProto>;

/// Returns what the file declares of tensors on the way and of outputs; an entry that cannot be
/// decoded declares nothing.
pub fn declarations(graph: &Graph) -> Declarations {
    let infos = graph.fields.fields(graph_field::VALUE_INFO);
    let all = infos.chain(graph.fields.fields(graph_field::OUTPUT));
    let decoded = all.filter_map(|field| graph.model.decode(field, "tensor description").ok());
    decoded.map(|info: ValueInfoProto| (info.name().to_owned(), info)).collect()
}

/// Returns tensors in the place of the outputs of a node, each with its id: noise, or zeros for
/// integers. They depend on names and shapes alone, except that a Resize by factors of 1 passes
/// on its operand. Returns `None` if a shape is unknown.
///
/// # Errors
/// Returns an error if the engine does not have a type, or if the tensors would take more than
/// `limits` allow: a file may declare what it likes.
pub fn stand_ins(
    graph: &Graph,
    id: NodeId,
    inputs: &NodeInputs,
    declared: &Declarations,
    limits: Limits,
) -> Result<Option<Vec<(ValueId, EngineTensor)>>, EngineError> {
    /// Bytes per element: the tensors are made as float64 or int64.
    const WIDEST: usize = 8;
    let operands = LiveOperands { graph, node: graph.node(id), inputs, limits };
    let mut made = Vec::new();
    for (number, output) in graph.node(id).outputs.iter().enumerate() {
        let Some(output) = *output else { continue };
        let declared = declared.get(graph.value(output).name);
        let body = bodies::output(graph.node(id), number, &operands);
        let Some(shape) = shape(graph, id, number, &operands, declared, body.as_ref()) else {
            return Ok(None);
        };
        let bytes = shape.iter().fold(WIDEST, |bytes, &size| bytes.saturating_mul(size));
        if bytes > limits.bytes {
            return Err(EngineError::TooLarge { bytes });
        }
        memory_for(bytes)?;
        let same = operands.tensor(0).filter(|read| read.shape() == shape);
        if let Some(same) = same.filter(|_| operands.resizes_by_one()) {
            made.push((output, same.clone()));
            continue;
        }
        let data_type = element_type(graph, id, number, inputs, declared, body.as_ref());
        let name = graph.value(output).name.bytes();
        // Any number that is the same for both models will do.
        let seed = name.fold(7u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let array = match Float::from_onnx(data_type) {
            Some(_) => Random::new(seed).noise(&shape),
            None => Array::Int(ndarray::ArrayD::zeros(ndarray::IxDyn(&shape))),
        };
        let tensor = tensors::from_arrays(vec![(array, data_type)], limits)?;
        made.extend(tensor.into_iter().map(|tensor| (output, tensor)));
    }
    Ok(Some(made))
}

/// Returns the shape of an output: as the operator's rule has it, else as it is declared. Sizes
/// that are open there are those that the node's body declares or, if it has none, those of the
/// first input, if both have as many axes.
fn shape(
    graph: &Graph,
    id: NodeId,
    number: usize,
    operands: &LiveOperands,
    declared: Option<&ValueInfoProto>,
    body: Option<&BodyOutput>,
) -> Option<Vec<usize>> {
    let whole = |dims: Dims| -> Option<Vec<usize>> {
        dims.into_iter().map(|size| usize::try_from(size?).ok()).collect()
    };
    let ruled = output_dims(graph.node(id), graph.model.opset, number, operands);
    let ruled_partly = ruled.is_some();
    if let Some(shape) = ruled.and_then(whole) {
        return Some(shape);
    }
    // Where the rule of an operator says nothing for these operands, the node is malformed, and
    // any guess is wrong: a convolution of a vector has no shape.
    let row = graph.node(id).standard_op().and_then(operator);
    let is_ruled = row.is_some_and(|row| number < row.shape.outputs);
    let likely = match body {
        Some(body) => body.dims.clone(),
        None => operands.dims(0).filter(|_| !is_ruled || ruled_partly),
    };
    let declared = declared.and_then(info::dims).or_else(|| likely.clone())?;
    let size = |(size, likely): (Option<i64>, Option<i64>)| size.or(likely);
    if let Some(likely) = likely.filter(|likely| likely.len() == declared.len()) {
        whole(declared.into_iter().zip(likely).map(size).collect())
    } else {
        whole(declared)
    }
}

fn element_type(
    graph: &Graph,
    id: NodeId,
    number: usize,
    inputs: &NodeInputs,
    declared: Option<&ValueInfoProto>,
    body: Option<&BodyOutput>,
) -> i32 {
    let node = graph.node(id);
    let of_input = |input: usize| Some(inputs.get(input)?.as_ref()?.element_type());
    let rule = node.standard_op().and_then(operator).map(|row| row.element_type);
    let ruled = match rule.filter(|_| number == 0) {
        Some(TypeRule::Always(data_type)) => Some(data_type.into()),
        Some(TypeRule::OfInput(input)) => of_input(input),
        Some(TypeRule::OfAnyInput) => of_input(0),
        Some(TypeRule::OfTo) => i32::try_from(node.int("to", 1)).ok(),
        _ => None,
    };
    let declared = || declared.and_then(info::element_type);
    let inside = || body.and_then(|body| body.element_type);
    ruled
        .or_else(declared)
        .or_else(inside)
        .or_else(|| of_input(0))
        .unwrap_or(DataType::Float.into())
}

/// What the tensors of a run, and constants of the file, say of a node's operands.
struct LiveOperands<'n, 'g, 'm> {
    graph: &'g Graph<'m>,
    node: &'g Node,
    inputs: &'n NodeInputs,
    limits: Limits,
}

impl LiveOperands<'_, '_, '_> {
    fn tensor(&self, input: usize) -> Option<&EngineTensor> {
        self.inputs.get(input)?.as_ref()
    }

    /// Returns whether the node is a Resize by factors of 1, which makes what it reads: the new
    /// file may read its operand instead.
    fn resizes_by_one(&self) -> bool {
        let (factors, _) = resize_lists(self.graph.model.opset);
        let attribute = self.node.attribute("scales").map(|scales| scales.floats.clone());
        let factors = attribute.or_else(|| self.factors(factors)).unwrap_or_default();
        // Other coordinate transformations than the default may sample beside the elements.
        roles::resizes(self.node)
            && self.node.attribute("coordinate_transformation_mode").is_none()
            && !factors.is_empty()
            && factors.iter().all(|&factor| factor == 1.0)
    }

    fn stored(&self, input: usize) -> Option<TensorProto> {
        let id = self.node.input(input).filter(|&id| is_constant(self.graph, id))?;
        slices::tensor(self.graph, id).ok()?
    }
}

/// Upper bound on the number of elements of a list of sizes, axes or factors.
const MAX_LIST: usize = 64;

impl Operands for LiveOperands<'_, '_, '_> {
    fn dims(&self, input: usize) -> Option<Dims> {
        let Some(tensor) = self.tensor(input) else {
            return Some(self.stored(input)?.dims.into_iter().map(Some).collect());
        };
        tensor.shape().iter().map(|&size| i64::try_from(size).ok().map(Some)).collect()
    }

    fn factors(&self, input: usize) -> Option<Vec<f32>> {
        let stored = self.stored(input).filter(|_| self.tensor(input).is_none())?;
        let dims = data::dims(&stored).ok()?;
        let count = dims.into_iter().try_fold(1usize, usize::checked_mul)?;
        if count > MAX_LIST || stored.data_type() != Float::F32.to_onnx() {
            return None;
        }
        let factors = tensor::floats(&stored, &self.graph.model.storage).ok()?;
        Some(factors.iter().map(|&factor| factor as f32).collect())
    }

    fn integers(&self, input: usize) -> Option<Integers> {
        let Some(tensor) = self.tensor(input) else {
            let stored = self.stored(input)?;
            let integers = tensor::integers(&stored, &self.graph.model.storage).ok();
            return integers
                .filter(|integers| integers.len() <= MAX_LIST)
                .map(|integers| integers.into_iter().map(Some).collect());
        };
        if tensor.shape().len() > 1
            || tensor.float().is_some()
            || tensor.shape().iter().product::<usize>() > MAX_LIST
        {
            return None;
        }
        let arrays = tensors::into_arrays(vec![tensor.clone()], self.limits).ok()?;
        match arrays.first()? {
            Array::Int(values) => Some(values.iter().copied().map(Some).collect()),
            Array::Float(_) => None,
        }
    }
}
