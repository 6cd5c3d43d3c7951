//! The graph as it stands in the file: which of its nodes compute a tensor from others, and
//! what the constants are that they read.
//!
//! Knows the file and what is known of its tensors, and nothing of what was made of it: a
//! constant that nodes compute is computed here by the engine from the stored ones, all its
//! nodes at once and each in its own type.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::ArrayD;
use prost::Message;

use crate::engine::{Array, Constant, Engine, Limits, Source, dialect};
use crate::facts::constants::Constants;
use crate::facts::shape_rules::{self, Dims, Operands};
use crate::facts::shapes::Sizes;
use crate::numbers::LazyWeights;
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, NodeId, Table, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::names;
use crate::onnx::node::Node;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::tensor;
use crate::onnx::write;
use crate::verify::proof::{Side, Unproved};

/// A block's nodes are some hundred; with borders that are filled by assignment, thousands.
const MAX_NODES: usize = 8192;

/// One graph of the file.
pub struct Original<'r, 'g, 'm> {
    /// Its nodes and tensors.
    pub graph: &'g Graph<'m>,
    /// What is stored in it.
    pub constants: &'g Constants<'g, 'm>,
    /// What is known of its tensors' dimensions.
    pub sizes: &'r Sizes<'g, 'm>,
    /// The graph around it, if it is a body.
    outer: Option<Arc<Original<'r, 'g, 'm>>>,
    /// Nodes in training mode that are converted, and what they become.
    converted: IdMap<NodeId, NodeProto>,
    /// Tensors that follow from stored ones alone.
    derived: Table<ValueId, ()>,
    /// Those of them that were asked for.
    values: Mutex<IdMap<ValueId, Option<Constant>>>,
}

/// The nodes that compute one tensor from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cone {
    /// The tensors that it begins with and that are no constants.
    pub roots: Vec<ValueId>,
    /// The tensor that it ends with.
    pub output: ValueId,
    /// In topological order.
    pub nodes: Vec<NodeId>,
    /// Constants that the nodes read, and roots that are constants.
    pub constants: Vec<ValueId>,
    /// Tensors outside, of which a node of the cone reads the shape.
    pub measured: Vec<(NodeId, ValueId)>,
}

impl<'r, 'g, 'm> Original<'r, 'g, 'm> {
    /// `converted` are nodes in training mode that become their form at inference.
    pub fn new(
        graph: &'g Graph<'m>,
        constants: &'g Constants<'g, 'm>,
        sizes: &'r Sizes<'g, 'm>,
        outer: Option<Arc<Original<'r, 'g, 'm>>>,
        converted: IdMap<NodeId, NodeProto>,
    ) -> Self {
        let (derived, values) = (Table::default(), Mutex::default());
        let mut original = Original { graph, constants, sizes, outer, converted, derived, values };
        original.find_derived();
        original
    }

    fn find_derived(&mut self) {
        for (id, value) in self.graph.values() {
            let outside = value.outer.filter(|_| !value.is_ambiguous);
            let is_outside = |outer: &Arc<Self>| outside.is_some_and(|id| outer.is_constant(id));
            let is_stored = value.initializer.is_some() && self.constants.contains(id);
            if is_stored || self.outer.as_ref().is_some_and(is_outside) {
                self.derived.insert(id, ());
            }
        }
        for (_, node) in self.graph.nodes() {
            if self.is_derived(node) {
                let outputs = node.outputs.iter().flatten().copied();
                self.derived.extend(outputs);
            }
        }
    }

    fn is_derived(&self, node: &Node) -> bool {
        let Some(op) = node.standard_op() else { return false };
        if op == "Constant" {
            return true;
        }
        let is_random = op.starts_with("Random") || matches!(op, "Bernoulli" | "Multinomial");
        let mut inputs = node.inputs.iter().enumerate();
        !is_random
            && !node.has_bodies()
            && node.inputs.first().is_some_and(Option::is_some)
            && inputs.all(|(index, input)| {
                lends_its_type(node, index) || input.is_none_or(|input| self.is_constant(input))
            })
    }

    /// Whether `id` follows from stored tensors alone.
    pub fn is_constant(&self, id: ValueId) -> bool {
        self.derived.contains(id)
    }

    /// The nodes that make `output` of `roots`; tensors that `ends` names are not looked
    /// behind, but at what is given for them.
    ///
    /// # Errors
    /// If it depends on something else.
    pub fn cone(
        &self,
        output: ValueId,
        roots: &[ValueId],
        ends: &IdMap<ValueId, ValueId>,
    ) -> Result<Cone, Unproved> {
        let (mut nodes, mut seen, mut constants) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut measuring = Vec::new();
        let mut wanted = vec![output];
        while let Some(value) = wanted.pop() {
            if !seen.insert(value) {
                continue;
            }
            if value != output && roots.contains(&value) {
                if self.is_constant(value) {
                    constants.insert(value);
                }
                continue;
            }
            if self.is_constant(value) {
                constants.insert(value);
                continue;
            }
            let name = || self.graph.value(value).name.clone();
            let Some(producer) = self.graph.value(value).producer else {
                return Err(Unproved::ReadsElse(name()));
            };
            nodes.insert(producer);
            if nodes.len() > MAX_NODES {
                return Err(Unproved::TooManyNodes(MAX_NODES));
            }
            let node = self.graph.node(producer);
            match (ends.get(&value), node.standard_op()) {
                (Some(&inner), _) => wanted.push(inner),
                (None, Some("Shape" | "Size")) => {
                    measuring.extend(node.input(0).map(|input| (producer, input)));
                }
                (None, Some("CastLike")) => wanted.extend(node.input(0)),
                (None, Some(_)) if !node.has_bodies() => {
                    wanted.extend(node.inputs.iter().flatten());
                }
                (None, _) => return Err(Unproved::ReadsElse(name())),
            }
        }
        let is_outside = |(_, value): &(NodeId, ValueId)| !seen.contains(value);
        let measured: Vec<_> = measuring.into_iter().filter(is_outside).collect();
        let is_root = |root: &&ValueId| seen.contains(*root) && !self.is_constant(**root);
        Ok(Cone {
            roots: roots.iter().filter(is_root).copied().collect(),
            output,
            nodes: nodes.into_iter().collect(),
            constants: constants.into_iter().collect(),
            measured,
        })
    }

    /// Whether the nodes from `inner` to `output` move the elements of `inner` as what is in
    /// them has no part in: where they go, and what is put beside them, depends on sizes alone.
    pub fn only_moves(&self, output: ValueId, inner: ValueId) -> bool {
        let (mut path, mut beside) = (BTreeSet::from([inner, output]), Vec::new());
        let mut at = output;
        while at != inner {
            let Some(producer) = self.graph.value(at).producer else { return false };
            let node = self.graph.node(producer);
            let Some(next) = node.input(0).filter(|_| path.len() < MAX_NODES) else { return false };
            beside.extend(node.inputs.iter().skip(1).flatten().copied());
            path.insert(next);
            at = next;
        }
        let mut seen = BTreeSet::new();
        while let Some(value) = beside.pop() {
            if self.is_constant(value) || !seen.insert(value) {
                continue;
            }
            let producer = self.graph.value(value).producer.map(|id| self.graph.node(id));
            match producer {
                Some(_) if path.contains(&value) => return false,
                Some(node) if matches!(node.standard_op(), Some("Shape" | "Size")) => {}
                Some(node) if seen.len() < MAX_NODES => {
                    let inputs = node.inputs.iter().enumerate();
                    let read = inputs.filter(|&(index, _)| !lends_its_type(node, index));
                    beside.extend(read.filter_map(|(_, input)| *input));
                }
                _ => return false,
            }
        }
        true
    }

    /// Node `id` as the proof runs it: in float64, at inference if it is converted.
    ///
    /// # Errors
    /// If it rounds to another type, or computes in training mode.
    pub fn node(&self, id: NodeId) -> Result<NodeProto, Unproved> {
        let node = self.graph.node(id);
        let form = self.converted.get(&id);
        let proto = form.unwrap_or(&node.proto);
        let mut proto = NodeProto { doc_string: None, metadata_props: Vec::new(), ..proto.clone() };
        match proto.op_type() {
            "BatchNormalization" | "Dropout" if !self.evaluates(&proto) => {
                return Err(Unproved::Trains(node.label().to_owned()));
            }
            "BatchNormalization" => {
                proto.output.truncate(1);
                let stays = |name: &str| matches!(name, "epsilon" | "is_test");
                proto.attribute.retain(|attribute| stays(attribute.name()));
            }
            "Dropout" => {
                proto.output.truncate(1);
                into_identity(&mut proto);
            }
            "Cast" | "CastLike" => self.cast(node, &mut proto)?,
            _ => {}
        }
        Ok(proto)
    }

    /// Whether a norm or dropout is at inference.
    fn evaluates(&self, node: &NodeProto) -> bool {
        let integers = |name: &str| self.constants.integers(self.graph.find(name)?).ok()?;
        dialect::evaluates(node, self.graph.model.opset, &integers)
    }

    /// A cast between floats is none in float64, if it is none in the file.
    fn cast(&self, node: &Node, proto: &mut NodeProto) -> Result<(), Unproved> {
        let known = |index: usize| self.constants.element_type(node.input(index)?);
        let (from, to) = (known(0), self.cast_to(node));
        let is_float =
            |kind: Option<i32>| kind.is_some_and(|kind| Float::from_onnx(kind).is_some());
        match (is_float(from), is_float(to)) {
            (true, true) if from == to => into_identity(proto),
            (false, true) if from.is_some() => into_cast(proto, DataType::Double.into()),
            (_, true) => return Err(Unproved::Rounds(node.label().into())),
            (_, false) => {
                let to = to.ok_or_else(|| Unproved::Rounds(node.label().into()))?;
                into_cast(proto, to);
            }
        }
        Ok(())
    }

    fn cast_to(&self, node: &Node) -> Option<i32> {
        match node.standard_op() {
            Some("CastLike") => self.constants.element_type(node.input(1)?),
            _ => node.int("to", 0).try_into().ok(),
        }
    }

    /// The constant `id`, floats in float64.
    ///
    /// # Errors
    /// If it is malformed, or cannot be computed.
    pub fn value(&self, id: ValueId) -> Result<Constant, Unproved> {
        let known = || self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let value = known().get(&id).cloned();
        let value = match value {
            Some(value) => value,
            None => {
                let value = self.found(id)?;
                known().insert(id, value.clone());
                value
            }
        };
        value.ok_or_else(|| Unproved::NotComputed(self.graph.value(id).name.clone()))
    }

    fn found(&self, id: ValueId) -> Result<Option<Constant>, Unproved> {
        let value = self.graph.value(id);
        if let (Some(outside), Some(outer), None) = (value.outer, &self.outer, &value.initializer) {
            let constant = outer.value(outside)?;
            return Ok(Some(constant.called(value.name.clone())));
        }
        match self.is_stored(id) {
            true => Ok(self.stored(id)?),
            false => self.computed(id),
        }
    }

    /// Whether nothing but the file says what `id` is.
    fn is_stored(&self, id: ValueId) -> bool {
        let value = self.graph.value(id);
        let producer = value.producer.map(|producer| self.graph.node(producer));
        value.initializer.is_some()
            || producer.is_some_and(|producer| producer.standard_op() == Some("Constant"))
    }

    fn stored(&self, id: ValueId) -> Result<Option<Constant>, Invalid> {
        let name = &self.graph.value(id).name;
        let Some(stored) = self.constants.tensor(id)? else { return Ok(None) };
        if let Some(numbers) = self.constants.numbers(id)? {
            return Ok(Some(Constant::doubles(name, &stored.dims, numbers)));
        }
        let stored = tensor::inlined(&stored, &self.graph.model.storage)?;
        Ok(Some(Constant::from(stored).called(name.clone())))
    }

    fn computed(&self, id: ValueId) -> Result<Option<Constant>, Unproved> {
        // What it takes is bounded there.
        if self.constants.tensor(id)?.is_none() {
            return Ok(None);
        }
        let (mut nodes, mut stored) = (BTreeSet::new(), BTreeSet::new());
        let (mut seen, mut wanted) = (BTreeSet::new(), vec![id]);
        while let Some(value) = wanted.pop() {
            if !seen.insert(value) {
                continue;
            }
            let producer = self.graph.value(value).producer;
            match producer.filter(|_| !self.is_stored(value)) {
                Some(producer) => {
                    nodes.insert(producer);
                    let node = self.graph.node(producer);
                    let inputs = node.inputs.iter().enumerate();
                    let read = inputs.filter(|&(index, _)| !lends_its_type(node, index));
                    wanted.extend(read.filter_map(|(_, input)| *input));
                }
                None => drop(stored.insert(value)),
            }
        }
        let mut initializers = Vec::with_capacity(stored.len());
        for value in stored {
            let Some(tensor) = self.in_its_type(value)? else { return Ok(None) };
            initializers.push(tensor);
        }
        let integers = |name: &str| {
            let tensor = initializers.iter().find(|tensor| tensor.name() == name)?;
            tensor::integers(tensor, &self.graph.model.storage).ok()
        };
        let opset = self.graph.model.opset;
        let mut dialect = Vec::with_capacity(nodes.len());
        for &producer in &nodes {
            let Some(node) = self.settled(producer) else { return Ok(None) };
            dialect.extend(dialect::node(node, opset, &integers));
        }
        let name = &self.graph.value(id).name;
        let model = write::model(opset, vec![], dialect, initializers, &[name]);
        let source = Source::small(model.encode_to_vec(), Limits::of_reading());
        let run = Engine::load(source, &[]).and_then(|engine| engine.run(&[]));
        let value = run.map_err(Unproved::NotRun)?.into_iter().next();
        Ok(value.map(|value| self.constant(id, value)))
    }

    /// A stored tensor with its data inside, as it is.
    fn in_its_type(&self, id: ValueId) -> Result<Option<TensorProto>, Invalid> {
        let name = Some(self.graph.value(id).name.clone());
        if self.graph.value(id).outer.is_some() || self.is_stored(id) {
            let Some(stored) = self.constants.tensor(id)? else { return Ok(None) };
            let stored = tensor::inlined(&stored, &self.graph.model.storage)?;
            return Ok(Some(TensorProto { name, ..stored }));
        }
        Ok(None)
    }

    /// The node without the type that another tensor lends, and without a cast that changes
    /// none: tract 0.23.9 makes −1 of the "to the end" (2⁶³ − 1) in one.
    fn settled(&self, id: NodeId) -> Option<NodeProto> {
        let node = self.graph.node(id);
        let mut proto =
            NodeProto { doc_string: None, metadata_props: Vec::new(), ..node.proto.clone() };
        if matches!(node.standard_op(), Some("Cast" | "CastLike")) {
            let (from, to) = (self.constants.element_type(node.input(0)?), self.cast_to(node)?);
            match from == Some(to) {
                true => into_identity(&mut proto),
                false => into_cast(&mut proto, to),
            }
        }
        Some(proto)
    }

    /// What the engine gave for `id`.
    fn constant(&self, id: ValueId, value: Array) -> Constant {
        let name = &self.graph.value(id).name;
        let dims: Vec<i64> = value.shape().iter().map(|&size| size as i64).collect();
        match value {
            Array::Float(values) => {
                let numbers: Arc<dyn LazyWeights> =
                    Arc::new(values.into_iter().collect::<Vec<f64>>());
                Constant::doubles(name, &dims, numbers)
            }
            Array::Int(values) => integers(name, &values, self.constants.element_type(id)).into(),
        }
    }

    /// What `node` gives that measures a tensor of these dimensions.
    ///
    /// # Errors
    /// If it is not one that this is known of.
    pub fn measured(&self, node: &Node, dims: &[usize]) -> Result<Constant, Unproved> {
        let name = node.output().map(|output| self.graph.value(output).name.as_str());
        let name = name.unwrap_or_default();
        let given = MeasuredDims(dims.iter().map(|&size| i64::try_from(size).ok()).collect());
        let opset = self.graph.model.opset;
        let integers = shape_rules::output_integers(node, opset, 0, &given);
        let integers = integers.and_then(|list| list.into_iter().collect::<Option<Vec<i64>>>());
        let known = shape_rules::output_dims(node, opset, 0, &given);
        match (integers, known) {
            (Some(list), Some(dims)) => {
                let dims = dims.iter().map(|size| size.unwrap_or(1)).collect();
                Ok(TensorProto { dims, ..tensor::from_integers(name, &list) }.into())
            }
            _ => Err(Unproved::SizeUnknown(name.to_owned())),
        }
    }

    /// The nodes of `cone` as they stand, and the constants that they read.
    ///
    /// # Errors
    /// If one of them cannot be taken into float64.
    pub fn side(&self, cone: &Cone) -> Result<Side, Unproved> {
        let is_measured = |id: &NodeId| cone.measured.iter().any(|(node, _)| node == id);
        let constants = cone.constants.iter().map(|&id| self.value(id));
        let mut side = Side { nodes: Vec::new(), constants: constants.collect::<Result<_, _>>()? };
        for &id in cone.nodes.iter().filter(|id| !is_measured(id)) {
            let mut proto = self.node(id)?;
            let node = self.graph.node(id);
            if let (Some(axis), Some(second)) = (node.broadcast_axis(), node.input(1))
                && self.is_constant(second)
            {
                let constant = self.aligned(node, axis, self.value(second)?)?;
                let name = constant.name().to_owned();
                proto.input.iter_mut().skip(1).take(1).for_each(|input| input.clone_from(&name));
                side.constants.push(constant);
            }
            side.nodes.push(proto);
        }
        Ok(side)
    }

    /// A constant that before opset 7 met its operand from `axis` on, with the dimensions
    /// that make it meet the same axes now.
    fn aligned(
        &self,
        node: &Node,
        axis: usize,
        mut constant: Constant,
    ) -> Result<Constant, Unproved> {
        let operand = node.input(0).and_then(|operand| self.sizes.rank_and_more(operand));
        let rank = operand.map(|dims| dims.len());
        let rank = rank.ok_or_else(|| Unproved::SizeUnknown(node.label().to_owned()))?;
        let dims = &mut constant.header.dims;
        dims.resize(rank.saturating_sub(axis).max(dims.len()), 1);
        // Node names need not differ; outputs do.
        let output = node.output().map_or("", |output| self.graph.value(output).name.as_str());
        let fresh = names::fresh(self.graph, ".at");
        let name = format!("{}{fresh}.{output}", constant.name());
        Ok(constant.called(name))
    }
}

/// The operand of a node that reads nothing but its shape.
struct MeasuredDims(Dims);

impl Operands for MeasuredDims {
    fn dims(&self, input: usize) -> Option<Dims> {
        (input == 0).then(|| self.0.clone())
    }

    fn integers(&self, _: usize) -> Option<Vec<Option<i64>>> {
        None
    }
}

/// The second input of CastLike says what to cast to, and nothing else.
fn lends_its_type(node: &Node, index: usize) -> bool {
    node.standard_op() == Some("CastLike") && index == 1
}

fn into_identity(proto: &mut NodeProto) {
    proto.op_type = Some("Identity".into());
    proto.input.truncate(1);
    proto.attribute.clear();
}

fn into_cast(proto: &mut NodeProto, to: i32) {
    proto.op_type = Some("Cast".into());
    proto.input.truncate(1);
    proto.attribute = vec![write::int("to", to.into())];
}

fn integers(name: &str, values: &ArrayD<i64>, element_type: Option<i32>) -> TensorProto {
    let dims = values.shape().iter().map(|&size| size as i64).collect();
    let values: Vec<i64> = values.iter().copied().collect();
    let wide = TensorProto { dims, ..tensor::from_integers(name, &values) };
    match element_type.map(DataType::try_from) {
        Some(Ok(narrow @ (DataType::Int32 | DataType::Bool))) => TensorProto {
            data_type: Some(narrow.into()),
            raw_data: None,
            int32_data: values.iter().map(|&value| value as i32).collect(),
            ..wide
        },
        _ => wide,
    }
}
