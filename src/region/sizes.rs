//! How large tensors are: from the graph's inputs and the kernels, statistics and
//! transpositions that made them where that is enough, else inferred by the engine from the graph's inputs, never
//! from what the file says of other tensors.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::NotLinear;
use super::constant::Constants;
use crate::affine::Order;
use crate::engine::{self, EngineError, Inference, InputShapes, Limits, Source};
use crate::onnx::graph::{Graph, Node, ValueId};
use crate::onnx::ids::IdMap;
use crate::onnx::model::{Invalid, graph_field};
use crate::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::proto::{ValueInfoProto, type_proto};

/// The engine's time to infer sizes grows faster than the number of nodes, to a minute for
/// so many.
const MAX_NODES: usize = 1 << 16;

/// No tensor of a network has more axes.
pub(super) const MAX_RANK: usize = 16;

/// The sizes of the tensors of one graph.
pub struct Sizes<'g, 'm> {
    graph: &'g Graph<'m>,
    constants: &'g Constants<'g, 'm>,
    inputs: &'g InputShapes,
    inference: OnceLock<Inference>,
    dims: Mutex<IdMap<ValueId, Vec<Option<usize>>>>,
}

impl<'g, 'm> Sizes<'g, 'm> {
    /// `inputs` are the shapes that the user gave.
    pub fn new(
        graph: &'g Graph<'m>,
        constants: &'g Constants<'g, 'm>,
        inputs: &'g InputShapes,
    ) -> Self {
        let (inference, dims) = (OnceLock::new(), Mutex::default());
        Sizes { graph, constants, inputs, inference, dims }
    }

    /// Sizes of `tensor`, inferred from the graph's inputs; empty if nothing is known.
    pub fn shape(&self, tensor: ValueId) -> &[Option<i64>] {
        let shapes = self.inference().map(|inference| &inference.shapes);
        let shape = shapes.and_then(|shapes| shapes.get(&self.graph.value(tensor).name));
        shape.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a decision so far has relied on sizes.
    pub fn has_inferred(&self) -> bool {
        self.inference.get().is_some()
    }

    /// The integers `id`, if they are constant or follow from the sizes of the graph's
    /// inputs.
    ///
    /// # Errors
    /// If a stored tensor is malformed.
    pub fn integers(&self, id: ValueId) -> Result<Option<Vec<i64>>, Invalid> {
        if let Some(constant) = self.constants.integers(id)? {
            return Ok(Some(constant));
        }
        let integers = self.inference().map(|inference| &inference.integers);
        Ok(integers.and_then(|integers| integers.get(&self.graph.value(id).name)).cloned())
    }

    /// `None` for bodies: the engine infers nothing inside them.
    fn inference(&self) -> Option<&Inference> {
        let infer = || {
            // What tract makes of an old broadcast has another shape.
            if self.graph.nodes().any(|(_, node)| node.aligns_by_axis()) {
                return Inference::default();
            }
            let limited = |limit| Inference { limit: Some(limit), ..Inference::default() };
            if !matches!(self.constants.oversized(), Ok(None)) {
                return limited("it computes a constant larger than any that is evaluated");
            }
            if self.graph.node_count() > MAX_NODES {
                return limited("of graphs with more than 65536 nodes no sizes are inferred");
            }
            let model = self.graph.model;
            let Ok(bytes) = engine::normal::model(model) else { return Inference::default() };
            let storage = model.storage.clone();
            let source =
                Source { bytes, constants: Vec::new(), storage, limits: Limits::of_reading() };
            engine::infer(source, self.inputs).unwrap_or_else(|error| {
                if error == EngineError::TooLong {
                    self.constants.overran(|| "the sizes of its tensors".to_owned());
                }
                Inference::default()
            })
        };
        self.graph.outer.is_none().then(|| self.inference.get_or_init(infer))
    }

    /// The size of `tensor` along `axis`.
    pub(super) fn size(&self, tensor: ValueId, axis: usize) -> Result<i64, NotLinear> {
        let size = self.shape(tensor).get(axis).copied().flatten();
        size.filter(|size| (0..1 << 24).contains(size)).ok_or_else(|| {
            let name = &self.graph.value(tensor).name;
            self.unknown(format!(
                "the size of `{name}` on axis {axis}, on which its windows depend,"
            ))
        })
    }

    /// That `what` is not known, and how the user can fix it.
    pub(super) fn unknown(&self, what: String) -> NotLinear {
        if let Some(limit) = self.inference().and_then(|inference| inference.limit) {
            return NotLinear::NotInferred { what, limit };
        }
        let remedy = match self.open_input() {
            Some(example) if self.graph.outer.is_none() => {
                format!("fix it with --input-shape {example}")
            }
            _ => "it cannot be inferred".to_owned(),
        };
        NotLinear::Unknown { what, remedy }
    }

    /// The first graph input that has no fixed shape, with a likely one: `x=1,3,224,224`.
    fn open_input(&self) -> Option<String> {
        let fields = self.graph.scope.fields(graph_field::INPUT);
        let infos = fields.filter_map(|field| self.graph.model.decode(field, "graph input").ok());
        let example = |info: ValueInfoProto| {
            let id = self.graph.find(info.name())?;
            let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref()?.value.as_ref()
            else {
                return None;
            };
            let fixed = |dim: &Dimension| match dim.value {
                Some(dimension::Value::DimValue(size)) if size > 0 => Some(size),
                _ => None,
            };
            let sizes: Option<Vec<Option<i64>>> =
                tensor.shape.as_ref().map(|shape| shape.dim.iter().map(fixed).collect());
            if self.graph.value(id).initializer.is_some()
                || sizes.as_ref().is_some_and(|sizes| !sizes.contains(&None))
            {
                return None;
            }
            let sizes = sizes.unwrap_or_else(|| vec![None, Some(3), None, None]);
            let likely = |(axis, size): (usize, &Option<i64>)| {
                size.unwrap_or(if axis == 0 { 1 } else { 224 }).to_string()
            };
            let sizes: Vec<String> = sizes.iter().enumerate().map(likely).collect();
            Some(format!("{}={}", info.name(), sizes.join(",")))
        };
        infos.into_iter().find_map(example)
    }

    /// The number of dimensions of `tensor`.
    ///
    /// # Errors
    /// If it is not known.
    pub fn rank(&self, tensor: ValueId) -> Result<usize, NotLinear> {
        self.dims(tensor).map(|dims| dims.len()).ok_or_else(|| self.rank_unknown(tensor))
    }

    pub(super) fn rank_unknown(&self, tensor: ValueId) -> NotLinear {
        let name = &self.graph.value(tensor).name;
        self.unknown(format!("the number of dimensions of `{name}`"))
    }

    /// The dimensions of `tensor` that follow from the kernels, statistics and
    /// transpositions that made it, else those inferred from the graph's inputs.
    pub(super) fn dims(&self, tensor: ValueId) -> Option<Vec<Option<usize>>> {
        self.dims_from_producer(tensor, 16).or_else(|| {
            let shape = self.shape(tensor);
            let size = |size: &Option<i64>| size.and_then(|size| size.try_into().ok());
            (!shape.is_empty()).then(|| shape.iter().map(size).collect())
        })
    }

    /// The number of dimensions of `tensor`, if the file declares it of an input.
    pub(super) fn declared_rank(&self, tensor: ValueId) -> Option<usize> {
        self.declared(tensor).map(|dims| dims.len())
    }

    /// As [`Self::dims`], looking back over at most `depth` operators; those of tensors
    /// that were asked for before are known.
    fn dims_from_producer(&self, tensor: ValueId, depth: usize) -> Option<Vec<Option<usize>>> {
        let known = || self.dims.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dims) = known().get(&tensor) {
            return Some(dims.clone());
        }
        let dims = self.dims_of_output(tensor, depth.checked_sub(1)?)?;
        known().insert(tensor, dims.clone());
        Some(dims)
    }

    /// What the file says of an input of the main graph, which holds for whoever runs it.
    fn declared(&self, input: ValueId) -> Option<Vec<Option<usize>>> {
        let field = self.graph.value(input).input.as_ref();
        let field = field.filter(|_| self.graph.outer.is_none())?;
        let info: ValueInfoProto = self.graph.model.decode(field, "graph input").ok()?;
        let Some(type_proto::Value::TensorType(tensor)) = info.r#type?.value else { return None };
        let size = |dim: &Dimension| match dim.value {
            Some(dimension::Value::DimValue(size)) if size > 0 => size.try_into().ok(),
            _ => None,
        };
        Some(tensor.shape?.dim.iter().map(size).collect())
    }

    fn dims_of_output(&self, tensor: ValueId, depth: usize) -> Option<Vec<Option<usize>>> {
        if let Some(dims) = self.constants.dims(tensor).ok()? {
            return Some(dims.into_iter().map(Some).collect());
        }
        let Some(producer) = self.graph.value(tensor).producer else {
            return self.declared(tensor);
        };
        let node = self.graph.node(producer);
        let of_input = |index| self.dims_from_producer(node.input(index)?, depth);
        match node.standard_op()? {
            "Conv" => {
                let kernel = self.constants.dims(node.input(1)?).ok()??;
                let mut dims = vec![None; kernel.len()];
                *dims.get_mut(1)? = kernel.first().copied();
                Some(dims)
            }
            "ConvTranspose" => {
                let kernel = self.constants.dims(node.input(1)?).ok()??;
                let groups = usize::try_from(node.int("group", 1)).ok()?;
                let mut dims = vec![None; kernel.len()];
                *dims.get_mut(1)? = kernel.get(1).and_then(|width| width.checked_mul(groups));
                Some(dims)
            }
            "Gemm" => {
                let weights = self.constants.dims(node.input(1)?).ok()??;
                let outputs =
                    if node.int("transB", 0) == 0 { weights.get(1) } else { weights.first() };
                Some(vec![None, outputs.copied()])
            }
            "MatMul" => {
                let (mut dims, other) = (of_input(0)?, of_input(1)?);
                if dims.len() < other.len().max(2) {
                    return None;
                }
                *dims.last_mut()? = *other.last()?;
                Some(dims)
            }
            "BatchNormalization" => {
                let channels = self.constants.dims(node.input(1)?).ok()??.first().copied();
                let mut dims = of_input(0)?;
                *dims.get_mut(1)? = channels;
                Some(dims)
            }
            "Transpose" => {
                // Its permutation tells the rank of what nobody described. Else a product
                // between two of them is known to make its channels only once it has become
                // a convolution, and a second conversion finds more than the first.
                let dims = of_input(0).or_else(|| open_dims(node.ints("perm")?.len()))?;
                let axes = transposition(node, dims.len())?;
                Some(axes.axes(dims.len()).iter().map(|&axis| dims.get(axis)?.to_owned()).collect())
            }
            "Relu" | "Identity" | "Neg" | "Cast" | "Dropout" | "ScatterND" | "Clip" | "Elu"
            | "Erf" | "Gelu" | "Sqrt" | "Exp" | "Pow" | "HardSigmoid" | "HardSwish"
            | "LayerNormalization" | "LeakyRelu" | "PRelu" | "Sigmoid" | "Softmax" | "Softplus"
            | "Tanh" => of_input(0),
            // Without `keepdims` the parts of a sequence have an axis less.
            "SplitToSequence" if node.int("keepdims", 1) == 0 => None,
            "Concat" => {
                let mut parts = (0..node.inputs.len()).map(of_input);
                let mut all = parts.next()??;
                let axis = node.int("axis", 0);
                let axis = if axis < 0 { axis.saturating_add(all.len() as i64) } else { axis };
                let axis = usize::try_from(axis).ok()?;
                let mut size = *all.get(axis)?;
                for part in parts {
                    size = size
                        .zip(part.and_then(|part| *part.get(axis)?))
                        .and_then(|(a, b)| a.checked_add(b));
                }
                *all.get_mut(axis)? = size;
                Some(all)
            }
            "AveragePool" | "GlobalAveragePool" | "MaxPool" => {
                let dims = of_input(0)?;
                Some(dims.into_iter().zip(0..).map(|(n, axis)| n.filter(|_| axis < 2)).collect())
            }
            "Pad" | "Slice" => {
                let mut dims = of_input(0)?;
                match self.resized_axes(node, dims.len()) {
                    Some(axes) => {
                        axes.into_iter().for_each(|at| {
                            dims.iter_mut().skip(at).take(1).for_each(|n| *n = None)
                        });
                        Some(dims)
                    }
                    None => open_dims(dims.len()),
                }
            }
            "Resize" | "SequenceAt" | "Split" | "SplitToSequence" => {
                let rank = of_input(0)?.len();
                open_dims(rank)
            }
            "Shape" => Some(vec![of_input(0).map(|dims| dims.len())]),
            "Squeeze" | "Unsqueeze" => {
                let axes = match (node.ints("axes"), node.input(1)) {
                    (Some(axes), _) => axes.len(),
                    (None, axes) => *self.constants.dims(axes?).ok()??.first()?,
                };
                let rank = of_input(0)?.len();
                match node.standard_op() {
                    Some("Squeeze") => open_dims(rank.checked_sub(axes)?),
                    // A number in a list.
                    _ if rank == 0 && axes == 1 => Some(vec![Some(1)]),
                    _ => open_dims(rank.checked_add(axes)?),
                }
            }
            "Sum" => {
                let ranks = (0..node.inputs.len()).map(|index| Some(of_input(index)?.len()));
                open_dims(ranks.collect::<Option<Vec<_>>>()?.into_iter().max()?)
            }
            "Flatten" => Some(vec![None; 2]),
            "Reshape" => {
                let rank = *of_input(1)?.first()?;
                open_dims(rank?)
            }
            "Expand" => {
                let (rank, shape) = (of_input(0)?.len(), *of_input(1)?.first()?);
                open_dims(rank.max(shape?))
            }
            "Gather" => {
                let (rank, indices) = (of_input(0)?.len(), of_input(1)?.len());
                open_dims(rank.checked_add(indices)?.checked_sub(1)?)
            }
            "Add" | "Sub" | "Mul" | "Div" => {
                let (left, right) = (node.input(0)?, node.input(1)?);
                let is_constant = |id| self.constants.contains(id);
                if !is_constant(left) && !is_constant(right) {
                    // Of one shape, or one is broadcast: sizes other than 1 stay.
                    let (dims, other) = (of_input(0)?, of_input(1)?);
                    dims.len().checked_sub(other.len())?;
                    return Some(dims.into_iter().map(|size| size.filter(|&n| n != 1)).collect());
                }
                let (operand, constant) = if is_constant(left) { (1, left) } else { (0, right) };
                let dims = of_input(operand)?;
                let other = self.constants.dims(constant).ok()??;
                let offset = dims.len().checked_sub(other.len())?;
                let mut sum = dims;
                for (size, &constant) in sum.iter_mut().skip(offset).zip(&other) {
                    // What is not 1 is what the other is broadcast to, or is.
                    if constant != 1 {
                        *size = Some(constant);
                    }
                }
                Some(sum)
            }
            _ => None,
        }
    }
}

impl Sizes<'_, '_> {
    /// The axes that a Pad or Slice of a tensor with `rank` axes makes longer or shorter, if
    /// they are constant.
    fn resized_axes(&self, node: &Node, rank: usize) -> Option<Vec<usize>> {
        let list = |name: &str, index: usize| match node.ints(name) {
            Some(list) => Some(list.to_vec()),
            None => self.constants.integers(node.input(index)?).ok()?,
        };
        let given =
            |name: &str, index: usize| node.ints(name).is_some() || node.input(index).is_some();
        let place = |axis: i64| {
            let axis = if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis };
            usize::try_from(axis).ok().filter(|&axis| axis < rank)
        };
        let axes = match given("axes", 3) {
            true => Some(list("axes", 3)?.into_iter().map(place).collect::<Option<Vec<_>>>()?),
            false => None,
        };
        if node.standard_op() == Some("Slice") {
            let starts = list("starts", 1)?.len();
            return axes.or_else(|| Some((0..starts.min(rank)).collect()));
        }
        let pads = list("pads", 1)?;
        let axes = axes.unwrap_or_else(|| (0..rank).collect());
        let ends = pads.get(axes.len()..).filter(|ends| ends.len() == axes.len())?;
        let padded = axes.into_iter().zip(pads.iter().zip(ends));
        Some(padded.filter(|(_, pads)| *pads != (&0, &0)).map(|(axis, _)| axis).collect())
    }
}

/// So many dimensions of unknown size; `None` if no tensor of a network has so many.
fn open_dims(rank: usize) -> Option<Vec<Option<usize>>> {
    (rank <= MAX_RANK).then(|| vec![None; rank])
}

/// The `perm` of a Transpose of a tensor with `rank` axes; by default it reverses them.
pub(super) fn transposition(node: &Node, rank: usize) -> Option<Order> {
    let reversed = || (0..rank as i64).rev().collect();
    Order::new(&node.ints("perm").map_or_else(reversed, <[i64]>::to_vec))
}
