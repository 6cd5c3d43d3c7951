//! What is constant, and its value.
//!
//! A tensor is constant if it is stored (an initializer, a `Constant` node) or
//! computed from such ones by a small sub-graph, as exporters write them for pads
//! and zero biases. Those are evaluated by the engine, node by node, only when somebody
//! asks, and in their own type: 150 + 150 is 44 in uint8. Where it does not compute what
//! ONNX says ([`super::evaluate`]) they are not evaluated; nothing is by hand here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::ArrayD;
use prost::Message;

use crate::engine::{self, EngineError, Limits, Source, dialect};
use crate::facts::budget::{Budget, Effort};
use crate::facts::evaluate::{is_defined, is_sound, only_moves};
use crate::numbers::LazyWeights;
use crate::onnx::data;
use crate::onnx::extremes::{self, Extremes};
use crate::onnx::float::Float;
use crate::onnx::graph::{Graph, Initializer};
use crate::onnx::ids::{IdMap, Table, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::storage::Storage;
use crate::onnx::tensor;
use crate::onnx::write;
use crate::ops::meaning::KernelLayout;

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

/// Those of them whose result may be larger than all that they read.
const GROWING: &[&str] =
    &["Concat", "ConstantOfShape", "Conv", "Einsum", "Expand", "Pad", "Range", "Tile"];

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

/// No constant sub-graph of a real model is deeper.
const MAX_DEPTH: u8 = 250;

/// Why a constant has no value here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// Nothing computes it in its type as ONNX says.
    NotEvaluated,
    /// It is beyond a limit of what is evaluated.
    Beyond(&'static str),
}

type Evaluated = Result<Arc<TensorProto>, Unknown>;
type Cache = Table<ValueId, Evaluated>;

const TOO_DEEP: &str = "250 nodes in a row are the most that are followed";

const TOO_LARGE: &str =
    "it takes more elements or multiply-adds than constants of a file of this size may";

/// See the module's documentation.
pub struct Constants<'g, 'm> {
    graph: &'g Graph<'m>,
    /// Those of the graph around this one, if it is a body.
    outer: Option<Arc<Constants<'g, 'm>>>,
    /// How many nodes deep a constant is computed; stored ones have 0.
    depths: Table<ValueId, u8>,
    /// What would be constant but for [`MAX_DEPTH`].
    too_deep: Table<ValueId, ()>,
    types: Table<ValueId, i32>,
    /// Those that were asked for.
    values: Mutex<Cache>,
    /// Those of kernels that were asked for.
    extremes: Mutex<IdMap<ValueId, Extremes>>,
    /// Of all graphs of the model together.
    budget: Arc<Budget>,
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
        let budget = match &outer {
            Some(outer) => Arc::clone(&outer.budget),
            None => Arc::new(Budget::new(graph.model.bytes_with_side_files())),
        };
        let mut constants = Constants {
            graph,
            outer,
            budget,
            depths: Table::default(),
            too_deep: Table::default(),
            types: Table::default(),
            values: Mutex::default(),
            extremes: Mutex::default(),
        };
        let overridable = keep_overridable && graph.model.ir_version >= 4;
        for (id, value) in graph.values() {
            if value.is_ambiguous {
                continue;
            }
            if let (Some(outside), Some(outer)) = (value.outer, &constants.outer) {
                let outside = outside.in_outer_graph();
                let (known, depth) = (outer.element_type(outside), outer.depths.get(outside));
                known.map(|known| constants.types.insert(id, known));
                depth.map(|&depth| constants.depths.insert(id, depth));
                if outer.too_deep.contains(outside) {
                    constants.too_deep.insert(id, ());
                }
            } else if let Some(element_type) = graph.stored_type(id)? {
                constants.types.insert(id, element_type);
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
            "Constant" => stored(node).map(|stored| stored.element_type()),
            "Cast" => Some(node.int("to", 0) as i32),
            // A kernel tells what it reads and makes, where nobody else does.
            "Conv" | "ConvTranspose" | "Gemm" | "MatMul" => {
                let mut inputs = node.inputs.iter().flatten();
                inputs.find_map(|&input| self.element_type(input))
            }
            // In the type of its scale, unless it says another one.
            "DequantizeLinear" if node.int("output_dtype", 0) != 0 => {
                Some(node.int("output_dtype", 0) as i32)
            }
            "CastLike" | "DequantizeLinear" | "Where" => {
                node.input(1).and_then(|like| self.element_type(like))
            }
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
        let is_too_deep = depth.is_some_and(|depth| depth > MAX_DEPTH);
        let depth = depth.filter(|_| !is_too_deep);
        for (index, &output) in node.outputs.iter().enumerate() {
            let Some(output) = output else { continue };
            // Split alone has several outputs of one kind.
            if let Some(element_type) = element_type.filter(|_| index == 0 || op == "Split") {
                self.types.insert(output, element_type);
            }
            if let Some(depth) = depth.filter(|_| index == 0 || op == "Split") {
                self.depths.insert(output, depth);
            }
            if is_too_deep {
                self.too_deep.insert(output, ());
            }
        }
    }

    /// More than [`MAX_DEPTH`] if it would be constant but for that.
    fn depth_of_result(&self, node: &Node, op: &str) -> Option<u8> {
        // Of nothing comes nothing, but in a malformed node.
        node.inputs.first()?;
        let mut deepest = 0;
        for (index, input) in node.inputs.iter().enumerate() {
            match input {
                // The second input of CastLike only lends its type.
                Some(like) if op == "CastLike" && index == 1 => {
                    self.element_type(*like)?;
                }
                Some(input) if self.too_deep.contains(*input) => deepest = MAX_DEPTH,
                Some(input) => deepest = deepest.max(*self.depths.get(*input)?),
                None => {}
            }
        }
        Some(deepest.saturating_add(1))
    }

    /// The element type (`TensorProto.DataType`), as far as it is known.
    pub fn element_type(&self, id: ValueId) -> Option<i32> {
        self.types.get(id).copied()
    }

    /// Whether `id` is constant.
    pub fn contains(&self, id: ValueId) -> bool {
        self.depths.contains(id)
    }

    /// The constant `id`; `None` if it is not one, or the engine cannot evaluate it.
    ///
    /// # Errors
    /// If a stored tensor cannot be decoded.
    pub fn tensor(&self, id: ValueId) -> Result<Option<Arc<TensorProto>>, Invalid> {
        if !self.contains(id) {
            return Ok(None);
        }
        Ok(self.found(id)?.ok())
    }

    /// The limit that keeps `id` from being a constant with a value, if one does.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn limit(&self, id: ValueId) -> Result<Option<&'static str>, Invalid> {
        if self.too_deep.contains(id) {
            return Ok(Some(TOO_DEEP));
        }
        Ok(match self.contains(id).then(|| self.found(id)).transpose()? {
            Some(Err(Unknown::Beyond(limit))) => Some(limit),
            _ => None,
        })
    }

    /// What the engine did not end with, although it was not too much: whatever was read
    /// since then is of no use.
    pub fn overrun(&self) -> Option<&str> {
        self.budget.overrun()
    }

    /// Whether so many elements may be moved to try a border; they are spent then.
    pub fn allows_moves(&self, moves: usize) -> bool {
        self.budget.spend_moves(moves)
    }

    /// Notes that the engine did not end with `what`.
    pub fn overran(&self, what: impl FnOnce() -> String) {
        self.budget.overran(what);
    }

    fn found(&self, id: ValueId) -> Result<Evaluated, Invalid> {
        if let Some(known) = self.cache().get(id) {
            return Ok(known.clone());
        }
        // What it is computed from comes first, so that long chains need no deep stack.
        let mut open = vec![id];
        while let Some(&next) = open.last() {
            let before = open.len();
            open.extend(self.operands(next).filter(|operand| !self.cache().contains(*operand)));
            if open.len() == before {
                let _ = self.evaluated(next)?;
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

    /// As [`Self::found`], once all that it is computed from is known.
    fn evaluated(&self, id: ValueId) -> Result<Evaluated, Invalid> {
        if let Some(known) = self.cache().get(id) {
            return Ok(known.clone());
        }
        let stored = self.graph.initializer(id)?;
        let found = match (stored, self.graph.value(id).outer, &self.outer) {
            (Some(stored), ..) => self.written_out(stored)?.map(Arc::new),
            (None, Some(outside), Some(outer)) => outer.found(outside.in_outer_graph())?,
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
        Ok(self.tensor(id)?.map(|tensor| data::dims(&tensor)).transpose()?)
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

    /// The values of the float constant `id`, which are read when they are needed; `None`
    /// as in [`Self::floats`].
    ///
    /// # Errors
    /// As [`Self::floats`].
    pub fn numbers(&self, id: ValueId) -> Result<Option<Arc<dyn LazyWeights>>, Invalid> {
        let Some(tensor) = self.tensor(id)? else { return Ok(None) };
        if let Some(stored) = tensor::stored(&tensor, &self.graph.model.storage)? {
            return Ok(Some(Arc::new(stored)));
        }
        let floats = self.floats(id)?;
        Ok(floats.map(|(values, _)| Arc::new(values.into_iter().collect::<Vec<f64>>()) as _))
    }

    /// How large the weights of the kernel `id` are, by filter, or, where filters do not lie
    /// in a row, by weight; `None` as in [`Self::floats`].
    ///
    /// # Errors
    /// As [`Self::floats`].
    pub fn extremes(&self, id: ValueId, layout: KernelLayout) -> Result<Option<Extremes>, Invalid> {
        let known = self.extremes.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        if known.is_some() {
            return Ok(known);
        }
        let Some(tensor) = self.tensor(id)? else { return Ok(None) };
        let lengths = tensor.dims.iter().skip(1).map(|&dim| usize::try_from(dim).unwrap_or(0));
        let row = match layout {
            KernelLayout::OutputsFirst => lengths.fold(1, usize::saturating_mul),
            KernelLayout::InputsFirst => 1,
        };
        let found = extremes::extremes(&tensor, &self.graph.model.storage, row)?;
        self.extremes.lock().unwrap_or_else(PoisonError::into_inner).insert(id, found);
        Ok(Some(found))
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

    /// A node that computes a constant larger than any real one, by its label: the engine
    /// would compute it, too, as soon as it loads the model.
    ///
    /// # Errors
    /// If a stored tensor is malformed.
    pub fn oversized(&self) -> Result<Option<String>, Invalid> {
        for (_, node) in self.graph.nodes() {
            let grows = node.standard_op().is_some_and(|op| GROWING.contains(&op));
            if !grows || !node.output().is_some_and(|output| self.contains(output)) {
                continue;
            }
            let mut inputs = Vec::with_capacity(node.inputs.len());
            for input in node.inputs.iter().flatten() {
                inputs.extend(self.tensor(*input)?.map(|tensor| tensor.as_ref().clone()));
            }
            let effort = Effort::of(node, &inputs, &self.graph.model.storage)?;
            if effort.is_some_and(|effort| !self.budget.allows(effort)) {
                return Ok(Some(node.label().to_owned()));
            }
        }
        Ok(None)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All elements of what is stored, sparse or not.
    fn written_out(&self, stored: Initializer) -> Result<Result<TensorProto, Unknown>, Invalid> {
        match stored {
            Initializer::Dense(tensor) => Ok(Ok(tensor)),
            Initializer::Sparse(sparse) if self.budget.spend(Effort::of_dims(&sparse.dims)) => {
                let dense = tensor::dense(&sparse, &self.graph.model.storage)?;
                Ok(dense.ok_or(Unknown::NotEvaluated))
            }
            Initializer::Sparse(_) => Ok(Err(Unknown::Beyond(TOO_LARGE))),
        }
    }

    fn computed(&self, id: ValueId) -> Result<Result<TensorProto, Unknown>, Invalid> {
        let unknown = Ok(Err(Unknown::NotEvaluated));
        let Some(producer) = self.graph.value(id).producer else { return unknown };
        let node = self.graph.node(producer);
        if node.standard_op() == Some("Constant") {
            let Some(stored) = stored(node) else { return unknown };
            let tensor = self.written_out(stored)?;
            let name = Some(self.graph.value(id).name.clone());
            return Ok(tensor.map(|tensor| TensorProto { name, ..tensor }));
        }
        // A cast to its own type: tract 0.23.9 makes −1 of the "to the end" (2⁶³ − 1)
        // that unoptimised dynamo wraps in one.
        let unchanged = match (node.standard_op(), node.input(0)) {
            (Some("Identity"), Some(input)) => Some(input),
            (Some("Cast" | "CastLike"), Some(input))
                if self.element_type(input) == self.element_type(id) =>
            {
                Some(input)
            }
            _ => None,
        };
        if let Some(input) = unchanged {
            return Ok(self.evaluated(input)?.map(|tensor| tensor.as_ref().clone()));
        }
        let is_cast = matches!(node.standard_op(), Some("Cast" | "CastLike"));
        if is_cast && node.input(0).is_some_and(|input| self.is_rounded(input)) {
            return unknown;
        }
        let Some(proto) = self.in_known_types(node) else { return unknown };
        let (mut operands, mut initializer) = (Vec::new(), Vec::new());
        for (index, &input) in node.inputs.iter().enumerate() {
            let Some(input) = input.filter(|_| index < proto.input.len()) else { continue };
            let tensor = match self.evaluated(input)? {
                Ok(tensor) => self.inlined(&tensor)?,
                Err(unknown) => return Ok(Err(unknown)),
            };
            let name = Some(self.graph.value(input).name.clone());
            initializer.push(TensorProto { name, ..self.widened(&tensor)? });
            operands.push(tensor);
        }
        let effort = Effort::of(node, &initializer, &self.graph.model.storage)?;
        if has_too_few_axes(node, &initializer) {
            return unknown;
        }
        let (Some(effort), Some(wanted)) = (effort, self.element_type(id)) else { return unknown };
        if !is_sound(node, &operands) {
            return unknown;
        }
        if !self.budget.spend(effort) {
            return Ok(Err(Unknown::Beyond(TOO_LARGE)));
        }
        // All outputs of a Split at once.
        let outputs =
            node.outputs.iter().flatten().copied().filter(|&output| self.contains(output));
        let outputs: Vec<ValueId> = outputs.collect();
        let names: Vec<&str> =
            outputs.iter().map(|&output| self.graph.value(output).name.as_str()).collect();
        let opset = self.graph.model.opset;
        // The engine takes a norm in training mode for one at inference, and zeros that nobody
        // gives a type for float64.
        let nodes = match proto.op_type() {
            "BatchNormalization" | "ConstantOfShape" => dialect::node(proto, opset, &|_| None),
            _ => vec![proto],
        };
        let model = write::model(opset, vec![], nodes, initializer, &names);
        let source = Source::small(model.encode_to_vec(), Limits::of_reading());
        let values = match engine::evaluate(source) {
            Ok(values) => values,
            Err(EngineError::TooLong) => {
                self.overran(|| format!("the constant `{}`", self.graph.value(id).name));
                return unknown;
            }
            Err(_) => return unknown,
        };
        let mut own = unknown;
        for (output, value) in outputs.into_iter().zip(values) {
            let value = self.in_own_type(output, value, wanted)?;
            let value = value.filter(|value| is_defined(node, &operands, value));
            let value = value.ok_or(Unknown::NotEvaluated);
            match output == id {
                true => own = Ok(value),
                false => drop(self.cache().insert(output, value.map(Arc::new))),
            }
        }
        own
    }

    /// Whether `id` is of 16 bits and comes of a computation in them. In a row of such nodes,
    /// engines that compute in float32 may leave out the roundings between: 2048 + 1 + 1 is
    /// 2048 in float16, and 2050 in ONNX Runtime. In 16 bits that is one rounding more or
    /// less; in another type it would be seen.
    fn is_rounded(&self, id: ValueId) -> bool {
        let (mut seen, mut open) = (Table::<ValueId, ()>::default(), vec![id]);
        while let Some(next) = open.pop() {
            let is_narrow = matches!(
                self.element_type(next).and_then(Float::from_onnx),
                Some(Float::F16 | Float::Bf16)
            );
            let value = self.graph.value(next);
            let producer = value.producer.filter(|_| value.initializer.is_none());
            let Some(node) = producer.map(|producer| self.graph.node(producer)) else { continue };
            if !is_narrow || seen.insert(next, ()).is_some() {
                continue;
            }
            if node.standard_op() != Some("Constant") && !only_moves(node) {
                return true;
            }
            open.extend(self.operands(next));
        }
        false
    }

    /// What the engine gave for `id`, if that is of the `wanted` type. What it computed in
    /// float32 in the place of bfloat16 is rounded.
    fn in_own_type(
        &self,
        id: ValueId,
        value: TensorProto,
        wanted: i32,
    ) -> Result<Option<TensorProto>, Invalid> {
        let name = &self.graph.value(id).name;
        let is_widened =
            wanted == Float::Bf16.to_onnx() && value.data_type() == Float::F32.to_onnx();
        if is_widened {
            let values = tensor::floats(&value, &Storage::default())?;
            return Ok(Some(tensor::from_floats(name, &values, Float::Bf16)));
        }
        let is_own = value.data_type() == wanted;
        Ok(is_own.then(|| TensorProto { name: Some(name.clone()), ..value }))
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
            proto.attribute = vec![write::int("to", to.into())];
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

/// The tensor of a `Constant` node.
fn stored(node: &Node) -> Option<Initializer> {
    let [attribute] = node.proto.attribute.as_slice() else { return None };
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
    Some(Initializer::Dense(match attribute.name() {
        "value" => attribute.t.clone()?,
        "sparse_value" => return attribute.sparse_tensor.clone().map(Initializer::Sparse),
        "value_float" => float(vec![], &[attribute.f()]),
        "value_floats" => float(vec![attribute.floats.len() as i64], &attribute.floats),
        "value_int" => int(vec![], &[attribute.i()]),
        "value_ints" => int(vec![attribute.ints.len() as i64], &attribute.ints),
        _ => return None,
    }))
}
