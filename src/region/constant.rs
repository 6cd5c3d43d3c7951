//! What is constant, and its value.
//!
//! A tensor is constant if it is stored (an initializer, a `Constant` node) or
//! computed from such ones by a small sub-graph, as exporters write them for pads
//! and zero biases. Those are evaluated by the engine, node by node and only when
//! somebody asks; nothing is evaluated by hand here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::ArrayD;
use prost::Message;

use crate::engine::{Array, Engine, Source};
use crate::onnx::build;
use crate::onnx::graph::{Graph, Node, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::storage::Storage;
use crate::onnx::tensor::{self, Float};

/// Operators that exporters build constants with. Deterministic, and without bodies.
const FOLDABLE: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Ceil",
    "Clip",
    "Concat",
    "ConstantOfShape",
    "Conv",
    "CumSum",
    "DepthToSpace",
    "Div",
    "Einsum",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "Gemm",
    "Greater",
    "GreaterOrEqual",
    "Identity",
    "Less",
    "LessOrEqual",
    "Log",
    "MatMul",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pad",
    "Pow",
    "Range",
    "Reciprocal",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Round",
    "ScatterElements",
    "ScatterND",
    "Shape",
    "Sigmoid",
    "Sign",
    "Size",
    "Slice",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
    "Xor",
];

/// Further operators whose first output has the type of their first input.
const KEEPS_TYPE: &[&str] = &[
    "AveragePool",
    "ConvTranspose",
    "Dropout",
    "Elu",
    "Gelu",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "MaxPool",
    "Mish",
    "PRelu",
    "Resize",
    "Selu",
    "SequenceAt",
    "Softmax",
    "Softplus",
    "SpaceToDepth",
    "SplitToSequence",
];

/// No constant sub-graph of a real model is deeper or yields more.
const MAX_DEPTH: u8 = 250;
const MAX_ELEMENTS: usize = 1 << 26;

/// Nor takes more multiply-adds at one node.
const MAX_WORK: i64 = 1 << 33;

/// See the module's documentation.
pub struct Constants<'g, 'm> {
    graph: &'g Graph<'m>,
    /// Those of the graph around this one, if it is a body.
    outer: Option<Arc<Constants<'g, 'm>>>,
    /// How many nodes deep a constant is computed; stored ones have 0.
    depths: HashMap<ValueId, u8>,
    types: HashMap<ValueId, i32>,
    values: Mutex<HashMap<ValueId, Option<Arc<TensorProto>>>>,
}

impl<'g, 'm> Constants<'g, 'm> {
    /// Finds what is constant in each of `graphs` (see [`Graph::read_all`]). With
    /// `keep_overridable`, an initializer that a caller may override (a graph input
    /// too, from IR version 4 on) is not.
    ///
    /// # Errors
    /// If an initializer cannot be decoded.
    pub fn find_all(
        graphs: &'g [Graph<'m>],
        keep_overridable: bool,
    ) -> Result<Vec<Arc<Self>>, Invalid> {
        let mut all: Vec<Arc<Self>> = Vec::with_capacity(graphs.len());
        for graph in graphs {
            let outer = graph.outer.and_then(|(outer, _)| all.get(outer).cloned());
            all.push(Arc::new(Self::find(graph, outer, keep_overridable)?));
        }
        Ok(all)
    }

    fn find(
        graph: &'g Graph<'m>,
        outer: Option<Arc<Self>>,
        keep_overridable: bool,
    ) -> Result<Self, Invalid> {
        let mut constants = Constants {
            graph,
            outer,
            depths: HashMap::new(),
            types: HashMap::new(),
            values: Mutex::default(),
        };
        let overridable = keep_overridable && graph.model.ir_version >= 4;
        for (id, value) in graph.values() {
            if value.is_ambiguous {
                continue;
            }
            if let (Some(outside), Some(outer)) = (value.outer, &constants.outer) {
                constants.types.extend(outer.element_type(outside).map(|known| (id, known)));
                constants.depths.extend(outer.depths.get(&outside).map(|&depth| (id, depth)));
            } else if let Some(initializer) = graph.initializer(id) {
                constants.types.insert(id, initializer?.data_type());
                if !(overridable && value.input.is_some()) {
                    constants.depths.insert(id, 0);
                }
            } else if let Some(declared) = graph.input_type(id) {
                constants.types.insert(id, declared);
            }
        }
        for (_, node) in graph.nodes() {
            constants.note_node(node);
        }
        Ok(constants)
    }

    fn note_node(&mut self, node: &Node) {
        let Some(op) = node.standard_op() else { return };
        let element_type = match op {
            "Constant" => stored(node).map(|tensor| tensor.data_type()),
            "Cast" => Some(node.int("to", 0) as i32),
            "CastLike" | "Where" => node.input(1).and_then(|like| self.element_type(like)),
            "Shape" | "Size" => Some(DataType::Int64.into()),
            "ConstantOfShape" => Some(
                node.attribute("value")
                    .and_then(|value| value.t.as_ref())
                    .map_or(DataType::Float.into(), TensorProto::data_type),
            ),
            "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "Not" | "And"
            | "Or" | "Xor" => Some(DataType::Bool.into()),
            _ if FOLDABLE.contains(&op) || KEEPS_TYPE.contains(&op) => {
                node.input(0).and_then(|first| self.element_type(first))
            }
            _ => None,
        };
        let depth = match op {
            "Constant" => Some(0),
            _ if FOLDABLE.contains(&op) => self.depth_of_result(node, op),
            _ => None,
        };
        for (index, &output) in node.outputs.iter().enumerate() {
            let Some(output) = output else { continue };
            // Split alone has several outputs of one kind.
            if let Some(element_type) = element_type.filter(|_| index == 0 || op == "Split") {
                self.types.insert(output, element_type);
            }
            if let Some(depth) = depth.filter(|_| index == 0 || op == "Split") {
                self.depths.insert(output, depth);
            }
        }
    }

    fn depth_of_result(&self, node: &Node, op: &str) -> Option<u8> {
        let mut deepest = 0;
        for (index, input) in node.inputs.iter().enumerate() {
            match input {
                // The second input of CastLike only lends its type.
                Some(like) if op == "CastLike" && index == 1 => {
                    self.element_type(*like)?;
                }
                Some(input) => deepest = deepest.max(*self.depths.get(input)?),
                None => {}
            }
        }
        deepest.checked_add(1).filter(|&depth| depth <= MAX_DEPTH)
    }

    /// The element type (`TensorProto.DataType`), as far as it is known.
    pub fn element_type(&self, id: ValueId) -> Option<i32> {
        self.types.get(&id).copied()
    }

    /// Whether `id` is constant.
    pub fn contains(&self, id: ValueId) -> bool {
        self.depths.contains_key(&id)
    }

    /// The constant `id`; `None` if it is not one, or the engine cannot evaluate it.
    ///
    /// # Errors
    /// If a stored tensor cannot be decoded.
    pub fn tensor(&self, id: ValueId) -> Result<Option<Arc<TensorProto>>, Invalid> {
        if !self.contains(id) {
            return Ok(None);
        }
        if let Some(known) = self.cache().get(&id) {
            return Ok(known.clone());
        }
        // What it is computed from comes first, so that long chains need no deep stack.
        let mut open = vec![id];
        while let Some(&next) = open.last() {
            let before = open.len();
            open.extend(self.operands(next).filter(|operand| !self.cache().contains_key(operand)));
            if open.len() == before {
                self.evaluated(next)?;
                open.pop();
            }
        }
        self.evaluated(id)
    }

    /// The constants that `id` is computed from.
    fn operands(&self, id: ValueId) -> impl Iterator<Item = ValueId> {
        let value = self.graph.value(id);
        let producer = value.producer.filter(|_| value.initializer.is_none());
        let inputs = producer.map(|producer| &self.graph.node(producer).inputs);
        inputs.into_iter().flatten().flatten().copied().filter(|&input| self.contains(input))
    }

    /// As [`Self::tensor`], once all that it is computed from is known.
    fn evaluated(&self, id: ValueId) -> Result<Option<Arc<TensorProto>>, Invalid> {
        if let Some(known) = self.cache().get(&id) {
            return Ok(known.clone());
        }
        let found = match (self.graph.initializer(id), self.graph.value(id).outer, &self.outer) {
            (Some(stored), ..) => Some(Arc::new(stored?)),
            (None, Some(outside), Some(outer)) => outer.tensor(outside)?,
            _ => self.computed(id)?.map(Arc::new),
        };
        self.cache().insert(id, found.clone());
        Ok(found)
    }

    /// Dimensions of the constant `id`.
    ///
    /// # Errors
    /// As [`Self::tensor`], and if they are negative or overflow.
    pub fn dims(&self, id: ValueId) -> Result<Option<Vec<usize>>, Invalid> {
        Ok(self.tensor(id)?.map(|tensor| tensor::dims(&tensor)).transpose()?)
    }

    /// The values of the float constant `id`, and its type. `None` if it is no
    /// constant or not of floating point.
    ///
    /// # Errors
    /// If its data does not fit its dimensions or cannot be read.
    pub fn floats(&self, id: ValueId) -> Result<Option<(ArrayD<f64>, Float)>, Invalid> {
        let Some(tensor) = self.tensor(id)? else { return Ok(None) };
        let Some(float) = Float::from_onnx(tensor.data_type()) else { return Ok(None) };
        Ok(Some((tensor::floats(&tensor, &self.graph.model.storage)?, float)))
    }

    /// The values of the integer or boolean constant `id`; `None` as in [`Self::floats`].
    ///
    /// # Errors
    /// As [`Self::floats`].
    pub fn integers(&self, id: ValueId) -> Result<Option<Vec<i64>>, Invalid> {
        let Some(tensor) = self.tensor(id)? else { return Ok(None) };
        match DataType::try_from(tensor.data_type()) {
            Ok(DataType::Int64 | DataType::Int32 | DataType::Bool) => {
                Ok(Some(tensor::integers(&tensor, &self.graph.model.storage)?))
            }
            _ => Ok(None),
        }
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<ValueId, Option<Arc<TensorProto>>>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn computed(&self, id: ValueId) -> Result<Option<TensorProto>, Invalid> {
        let Some(producer) = self.graph.value(id).producer else { return Ok(None) };
        let node = self.graph.node(producer);
        if node.standard_op() == Some("Constant") {
            return Ok(stored(node));
        }
        // A cast to its own type: tract 0.23.9 makes −1 of the "to the end" (2⁶³ − 1)
        // that unoptimised dynamo wraps in one.
        let unchanged = match (node.standard_op(), node.input(0)) {
            (Some("Identity"), Some(input)) => Some(input),
            (Some("Cast"), Some(input)) if self.element_type(input) == self.element_type(id) => {
                Some(input)
            }
            _ => None,
        };
        if let Some(input) = unchanged {
            return Ok(self.tensor(input)?.map(|tensor| tensor.as_ref().clone()));
        }
        let Some(proto) = self.in_known_types(node) else { return Ok(None) };
        let mut initializer = Vec::new();
        for (index, &input) in node.inputs.iter().enumerate() {
            let Some(input) = input.filter(|_| index < proto.input.len()) else { continue };
            let Some(tensor) = self.tensor(input)? else { return Ok(None) };
            let tensor = self.widened(&self.inlined(&tensor)?)?;
            let name = Some(self.graph.value(input).name.clone());
            initializer.push(TensorProto { name, ..tensor });
        }
        if has_too_few_axes(node, &initializer) || self.is_too_large(node, &initializer)? {
            return Ok(None);
        }
        let name = &self.graph.value(id).name;
        let opset = self.graph.model.opset;
        let model = build::model(opset, vec![], vec![proto], initializer, &[name]);
        let bytes = model.encode_to_vec();
        let run = Engine::load(Source { bytes: &bytes, folder: None }, &[])
            .and_then(|engine| engine.run(&[]));
        let float = self.element_type(id).and_then(Float::from_onnx).unwrap_or(Float::F32);
        Ok(match run.ok().and_then(|outputs| outputs.into_iter().next()) {
            Some(Array::Float(values)) => Some(tensor::from_floats(name, &values, float)),
            Some(Array::Int(values)) => {
                let dims = values.shape().iter().map(|&dim| dim as i64).collect();
                let values: Vec<i64> = values.iter().copied().collect();
                let integers = TensorProto { dims, ..tensor::from_integers(name, &values) };
                Some(match self.element_type(id).map(DataType::try_from) {
                    Some(Ok(narrow @ (DataType::Int32 | DataType::Bool))) => TensorProto {
                        data_type: Some(narrow.into()),
                        raw_data: None,
                        int32_data: values.iter().map(|&value| value as i32).collect(),
                        ..integers
                    },
                    _ => integers,
                })
            }
            None => None,
        })
    }

    /// `node` without the types that the engine does not know: the second input of
    /// CastLike, which may be no constant, and bfloat16, in whose place is float32; the
    /// result is rounded.
    fn in_known_types(&self, node: &Node) -> Option<NodeProto> {
        let mut proto =
            NodeProto { doc_string: None, metadata_props: Vec::new(), ..node.proto.clone() };
        if node.standard_op() == Some("CastLike") {
            let to = node.input(1).and_then(|like| self.element_type(like))?;
            proto.op_type = Some("Cast".into());
            proto.input.truncate(1);
            proto.attribute = vec![build::int("to", to.into())];
        }
        for attribute in &mut proto.attribute {
            if attribute.name() == "to" && attribute.i() == i64::from(Float::Bf16.to_onnx()) {
                attribute.i = Some(Float::F32.to_onnx().into());
            }
            if let Some(tensor) = attribute.t.take() {
                attribute.t = Some(self.widened(&tensor).ok()?);
            }
        }
        Some(proto)
    }

    /// bfloat16 as float32; all else as it is.
    fn widened(&self, tensor: &TensorProto) -> Result<TensorProto, Invalid> {
        if tensor.data_type() != Float::Bf16.to_onnx() {
            return Ok(tensor.clone());
        }
        let values = tensor::floats(tensor, &self.graph.model.storage)?;
        Ok(tensor::from_floats(tensor.name(), &values, Float::F32))
    }

    /// `tensor` with its data inside, wherever it was.
    fn inlined(&self, tensor: &TensorProto) -> Result<TensorProto, Invalid> {
        tensor::inlined(tensor, &self.graph.model.storage).map_err(Invalid::from)
    }

    /// Whether evaluating `node` could take more memory or time than any real constant does.
    fn is_too_large(&self, node: &Node, inputs: &[TensorProto]) -> Result<bool, Invalid> {
        let storage = &self.graph.model.storage;
        let grown = match (node.standard_op(), inputs) {
            // A negative size is a huge one for whoever takes it as unsigned.
            (Some("ConstantOfShape"), [list]) | (Some("Expand" | "Tile"), [_, list])
                if tensor::integers(list, storage)?.iter().any(|&size| size < 0) =>
            {
                return Ok(true);
            }
            (Some("ConstantOfShape"), [shape]) | (Some("Expand"), [_, shape]) => {
                tensor::integers(shape, storage)?
            }
            (Some("Tile"), [data, repeats]) => {
                let mut sizes = tensor::integers(repeats, storage)?;
                sizes.extend(&data.dims);
                sizes
            }
            (Some("Range"), [start, limit, delta]) => {
                let bounds = [start, limit, delta].map(|bound| tensor::integers(bound, storage));
                match bounds {
                    [Ok(a), Ok(b), Ok(c)] => match (&a[..], &b[..], &c[..]) {
                        ([start], [limit], [delta]) if *delta != 0 => {
                            vec![
                                limit.saturating_sub(*start).saturating_abs()
                                    / delta.saturating_abs(),
                            ]
                        }
                        _ => return Ok(true),
                    },
                    _ => return Ok(true),
                }
            }
            (Some("Gather"), [data, indices]) => {
                let axis = node.int("axis", 0);
                let axis = if axis < 0 { axis + data.dims.len() as i64 } else { axis };
                let others = (0..).zip(&data.dims).filter(|&(at, _)| at != axis);
                others.map(|(_, &dim)| dim).chain(indices.dims.iter().copied()).collect()
            }
            (Some("Pad"), [data, rest @ ..]) => {
                let pads = match (node.ints("pads"), rest) {
                    (Some(pads), _) => pads.to_vec(),
                    (None, [pads, ..]) => tensor::integers(pads, storage)?,
                    (None, []) => return Ok(true),
                };
                let (begins, ends) = pads.split_at(pads.len() / 2);
                let dims = data.dims.iter().zip(begins.iter().zip(ends));
                dims.map(|(&dim, (&a, &b))| dim.saturating_add(a).saturating_add(b)).collect()
            }
            (Some("Conv"), [data, kernel, ..]) => match convolved(node, data, kernel) {
                Some((sizes, work)) if work <= MAX_WORK => sizes,
                _ => return Ok(true),
            },
            (Some("MatMul" | "Gemm"), [left, right, ..]) => {
                // Of all that is summed up, at most both factors' elements are multiplied.
                let inner = left.dims.iter().copied().fold(1, i64::max);
                let mut sizes = broadcast(&[without_matrix(left), without_matrix(right)]);
                sizes.push(left.dims.iter().rev().take(2).copied().fold(1, i64::max));
                sizes.push(right.dims.iter().rev().take(2).copied().fold(1, i64::max));
                if product(&sizes).saturating_mul(inner) > MAX_WORK {
                    return Ok(true);
                }
                sizes
            }
            (Some("Einsum"), _) => match summed(node, inputs) {
                Some((sizes, work)) if work <= MAX_WORK => sizes,
                _ => return Ok(true),
            },
            // What is joined is as large as all of it together, along whichever axis.
            (Some("Concat"), _) => {
                let sizes = inputs.iter().map(|input| product(&input.dims));
                vec![sizes.fold(0, i64::saturating_add)]
            }
            // How far they grow is said by inputs that are not there, or not all.
            (
                Some(
                    "ConstantOfShape" | "Conv" | "Expand" | "Gather" | "Gemm" | "MatMul" | "Pad"
                    | "Range" | "Tile",
                ),
                _,
            ) => return Ok(true),
            _ => broadcast(inputs),
        };
        Ok(product(&grown) > MAX_ELEMENTS as i64)
    }
}

/// Whether the data of `node` has no channels or no spatial axes, where there must be some:
/// tract 0.23.9 takes them for granted, and reads beyond the end of the shape.
fn has_too_few_axes(node: &Node, inputs: &[TensorProto]) -> bool {
    let rank = |index: usize| inputs.get(index).map_or(0, |input| input.dims.len());
    match node.standard_op() {
        Some("BatchNormalization") => rank(0) < 2,
        Some("Conv") => rank(0) < 3 || rank(0) != rank(1),
        _ => false,
    }
}

fn product(sizes: &[i64]) -> i64 {
    sizes.iter().fold(1i64, |product, &size| product.saturating_mul(size.max(1)))
}

/// A stack of matrices as one of single numbers.
fn without_matrix(stack: &TensorProto) -> TensorProto {
    let dims = stack.dims.get(..stack.dims.len().saturating_sub(2)).unwrap_or_default().to_vec();
    TensorProto { dims, ..TensorProto::default() }
}

/// At most how large the result of a convolution is, and its multiply-adds.
fn convolved(node: &Node, data: &TensorProto, kernel: &TensorProto) -> Option<(Vec<i64>, i64)> {
    let (&[batch, _, ref spatial @ ..], &[outputs, ref rest @ ..]) =
        (data.dims.as_slice(), kernel.dims.as_slice())
    else {
        return None;
    };
    // With SAME padding an output is no larger than its input.
    let pads = node.ints("pads").unwrap_or_default();
    let pads = pads.iter().fold(0i64, |all, &pad| all.saturating_add(pad.max(0)));
    let spatial = spatial.iter().map(|size| size.saturating_add(pads));
    let sizes: Vec<i64> = [batch, outputs].into_iter().chain(spatial).collect();
    let work = product(&sizes).saturating_mul(product(rest));
    Some((sizes, work))
}

/// The dimensions of the result of an Einsum, and its multiply-adds; `None` if its
/// equation is not one of letters alone.
fn summed(node: &Node, inputs: &[TensorProto]) -> Option<(Vec<i64>, i64)> {
    let equation = std::str::from_utf8(node.attribute("equation")?.s()).ok()?;
    let (operands, result) = equation.split_once("->")?;
    let mut sizes: HashMap<char, i64> = HashMap::new();
    for (operand, input) in operands.split(',').zip(inputs) {
        let labels: Vec<char> = operand.trim().chars().collect();
        if labels.len() != input.dims.len() || !labels.iter().all(char::is_ascii_alphabetic) {
            return None;
        }
        sizes.extend(labels.into_iter().zip(input.dims.iter().copied()));
    }
    let all: Vec<i64> = sizes.values().copied().collect();
    let result = result.trim().chars().map(|label| sizes.get(&label).copied());
    Some((result.collect::<Option<_>>()?, product(&all)))
}

/// The dimensions that operands of these dimensions are broadcast to.
fn broadcast(operands: &[TensorProto]) -> Vec<i64> {
    let rank = operands.iter().map(|operand| operand.dims.len()).max().unwrap_or(0);
    let from_end = |operand: &TensorProto, axis: usize| {
        operand.dims.iter().rev().nth(axis).copied().unwrap_or(1)
    };
    let size = |axis| operands.iter().map(|operand| from_end(operand, axis)).max().unwrap_or(1);
    (0..rank).map(size).collect()
}

/// The tensor of a `Constant` node.
fn stored(node: &Node) -> Option<TensorProto> {
    let [attribute] = node.proto.attribute.as_slice() else { return None };
    let name = node.proto.output.first().cloned().unwrap_or_default();
    let float = |dims: Vec<i64>, values: &[f32]| TensorProto {
        dims,
        data_type: Some(DataType::Float.into()),
        float_data: values.to_vec(),
        ..TensorProto::default()
    };
    let int = |dims: Vec<i64>, values: &[i64]| TensorProto {
        dims,
        data_type: Some(DataType::Int64.into()),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    };
    let mut tensor = match attribute.name() {
        "value" => attribute.t.clone()?,
        "sparse_value" => {
            tensor::dense(attribute.sparse_tensor.as_ref()?, &Storage::default()).ok()??
        }
        "value_float" => float(vec![], &[attribute.f()]),
        "value_floats" => float(vec![attribute.floats.len() as i64], &attribute.floats),
        "value_int" => int(vec![], &[attribute.i()]),
        "value_ints" => int(vec![attribute.ints.len() as i64], &attribute.ints),
        _ => return None,
    };
    tensor.name = Some(name);
    Some(tensor)
}
