//! The graph as it stands in the file, and the constants in it.
//!
//! Knows the file and what is known of its tensors; knows nothing of what was made of it. A
//! constant that nodes compute is computed here by the engine from the stored ones, with all its
//! nodes at once and each in its own type, except for bfloat16: the engine uses float32 in its
//! place, and the result is rounded.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ndarray::ArrayD;
use prost::Message;

use crate::engine::dialect::widened;
use crate::engine::{Array, Constant, Engine, Limits, Source, dialect};
use crate::facts::constants::Constants;
use crate::facts::roles;
use crate::facts::shapes::Sizes;
use crate::numbers::{self, LazyWeights};
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
use crate::verify::claim::Unproved;
use crate::verify::compare::{Tolerances, compared};

/// One graph of the file.
pub struct Original<'r, 'g, 'm> {
    /// Its nodes and tensors.
    pub graph: &'g Graph<'m>,
    /// The constants in it.
    pub constants: &'g Constants<'g, 'm>,
    /// What is known of its tensors' dimensions.
    pub sizes: &'r Sizes<'g, 'm>,
    /// The graph around it, if it is a body.
    outer: Option<Arc<Original<'r, 'g, 'm>>>,
    /// Nodes in training mode that are converted, with what they become.
    pub(super) converted: IdMap<NodeId, NodeProto>,
    /// Tensors that follow from stored ones alone.
    derived: Table<ValueId, ()>,
    /// Tensors that follow from sizes and stored tensors alone.
    sized: Table<ValueId, ()>,
    /// A suffix that no name in the graph contains.
    suffix: OnceLock<String>,
    /// The constants that were asked for so far; `None` if one cannot be computed.
    values: Mutex<IdMap<ValueId, Option<Constant>>>,
}

impl<'r, 'g, 'm> Original<'r, 'g, 'm> {
    /// Returns the original of `graph`, in which nodes in training mode, `converted`, become
    /// their form at inference.
    pub fn new(
        graph: &'g Graph<'m>,
        constants: &'g Constants<'g, 'm>,
        sizes: &'r Sizes<'g, 'm>,
        outer: Option<Arc<Original<'r, 'g, 'm>>>,
        converted: IdMap<NodeId, NodeProto>,
    ) -> Self {
        let mut original = Original {
            graph,
            constants,
            sizes,
            outer,
            converted,
            derived: Table::default(),
            sized: Table::default(),
            suffix: OnceLock::new(),
            values: Mutex::default(),
        };
        original.find_derived();
        original
    }

    fn find_derived(&mut self) {
        for (id, value) in self.graph.values() {
            let outside = value.outer.filter(|_| !value.is_ambiguous);
            let is_outside = |outer: &Arc<Self>| {
                outside.is_some_and(|id| outer.is_constant(id.in_outer_graph()))
            };
            let is_stored = value.initializer.is_some() && self.constants.contains(id);
            if is_stored || self.outer.as_ref().is_some_and(is_outside) {
                self.derived.insert(id, ());
            }
        }
        for (_, node) in self.graph.nodes() {
            let outputs = node.outputs.iter().flatten().copied();
            if roles::holds_constant(node) || follows(node, |input| self.is_constant(input)) {
                self.derived.extend(outputs);
            } else if roles::measures(node) || follows(node, |input| self.follows_from_sizes(input))
            {
                self.sized.extend(outputs);
            }
        }
    }

    /// Returns a suffix that makes a new name of any in the graph.
    pub(super) fn suffix(&self) -> &str {
        self.suffix.get_or_init(|| names::fresh(self.graph, ".proof"))
    }

    /// Returns whether `id` follows from sizes and stored tensors alone.
    fn follows_from_sizes(&self, id: ValueId) -> bool {
        self.is_constant(id) || self.sized.contains(id)
    }

    /// Returns the type, float16 or float32, in which node `id` computes a number from sizes
    /// that no input changes: whoever has that number as a constant has it as the file rounds
    /// it. The engine has no other types that round.
    pub(super) fn rounds_sizes_to(&self, id: NodeId) -> Option<Float> {
        let is_known =
            |made: &ValueId| self.sized.contains(*made) && self.constants.contains(*made);
        let made = self.graph.node(id).output().filter(is_known)?;
        self.float(made).filter(|float| matches!(float, Float::F16 | Float::F32))
    }

    /// Returns whether `id` follows from stored tensors alone.
    pub fn is_constant(&self, id: ValueId) -> bool {
        self.derived.contains(id)
    }

    /// Returns the element type (`TensorProto.DataType`) to which a node casts.
    pub fn cast_to(&self, node: &Node) -> Option<i32> {
        if roles::reads_type_only(node, 1) {
            self.constants.element_type(node.input(1)?)
        } else {
            node.int("to", 0).try_into().ok()
        }
    }

    /// Returns the constant `id`, with floats in float64.
    ///
    /// # Errors
    /// Returns an error if it is malformed, or cannot be computed.
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
        value.ok_or_else(|| Unproved::NotComputed(self.graph.value(id).name.to_owned()))
    }

    fn found(&self, id: ValueId) -> Result<Option<Constant>, Unproved> {
        let value = self.graph.value(id);
        if let (Some(outside), Some(outer), None) = (value.outer, &self.outer, &value.initializer) {
            let constant = outer.value(outside.in_outer_graph())?;
            return Ok(Some(constant.called(value.name.to_owned())));
        }
        if self.constants.stores(id) { Ok(self.stored(id)?) } else { self.computed(id) }
    }

    pub(super) fn float(&self, id: ValueId) -> Option<Float> {
        self.constants.element_type(id).and_then(Float::from_onnx)
    }

    fn stored(&self, id: ValueId) -> Result<Option<Constant>, Invalid> {
        let name = self.graph.value(id).name;
        let Some(stored) = self.constants.tensor(id)? else { return Ok(None) };
        if let Some(numbers) = self.constants.numbers(id)? {
            return Ok(Some(Constant::doubles(name, &stored.dims, numbers)));
        }
        let stored = tensor::inlined(&stored, &self.graph.model.storage)?;
        Ok(Some(Constant::from(stored).called(name.to_owned())))
    }

    /// Computes the constant `id` by its nodes, with each bfloat16 tensor on the way rounded to
    /// that type. A run of whole models does not round so, and would take what that changes
    /// beyond tolerance for a mistake.
    fn computed(&self, id: ValueId) -> Result<Option<Constant>, Unproved> {
        // What the computation takes is bounded by `Constants`.
        if self.constants.tensor(id)?.is_none() {
            return Ok(None);
        }
        let is_rounded = |value| value != id && self.float(value) == Some(Float::Bf16);
        let Some((value, is_whole)) = self.computed_from(id, &is_rounded)? else {
            return Ok(None);
        };
        if !is_whole && let Some((run, _)) = self.computed_from(id, &|_| false)? {
            let (name, tolerances) = (self.graph.value(id).name, Tolerances { given: None });
            if !compared(name, &value, &run, tolerances, self.float(id)).agrees() {
                return Err(Unproved::RoundedOften(name.to_owned()));
            }
        }
        Ok(Some(self.constant(id, value)))
    }

    /// Computes `id` from stored tensors and from those for which `is_cut` holds, which are
    /// computed separately; also returns whether there are none of the latter.
    fn computed_from(
        &self,
        id: ValueId,
        is_cut: &dyn Fn(ValueId) -> bool,
    ) -> Result<Option<(Array, bool)>, Unproved> {
        let (mut nodes, mut stored) = (BTreeSet::new(), BTreeSet::new());
        let mut is_whole = true;
        let (mut seen, mut wanted) = (BTreeSet::new(), vec![id]);
        while let Some(value) = wanted.pop() {
            if !seen.insert(value) {
                continue;
            }
            let producer = self.graph.value(value).producer;
            let producer = producer.filter(|_| !self.constants.stores(value));
            is_whole &= producer.is_none() || !is_cut(value);
            match producer.filter(|_| !is_cut(value)) {
                Some(producer) => {
                    nodes.insert(producer);
                    let node = self.graph.node(producer);
                    // The engine wants the parameters of a batch norm stored.
                    let is_norm = roles::is_batch_norm(node);
                    let is_read = |value: &ValueId| !is_norm || node.input(0) == Some(*value);
                    let (read, told): (Vec<ValueId>, Vec<ValueId>) =
                        roles::values_read(node).partition(is_read);
                    wanted.extend(read);
                    stored.extend(told);
                }
                None => drop(stored.insert(value)),
            }
        }
        // Other nodes may read the parameters of a norm, too: they are made once.
        let is_told = |id: &NodeId| {
            self.graph.node(*id).output().is_some_and(|output| stored.contains(&output))
        };
        nodes.retain(|id| !is_told(id));
        let storage = &self.graph.model.storage;
        let mut initializers = Vec::with_capacity(stored.len());
        for value in stored {
            let Some(tensor) = self.in_its_type(value)? else { return Ok(None) };
            initializers.push(widened::tensor(tensor, storage)?);
        }
        let integers = |name: &str| {
            let tensor = initializers.iter().find(|tensor| tensor.name() == name)?;
            tensor::integers(tensor, storage).ok()
        };
        let opset = self.graph.model.opset;
        let mut dialect = Vec::with_capacity(nodes.len());
        for &producer in &nodes {
            let Some(node) = self.settled(producer) else { return Ok(None) };
            dialect.extend(dialect::node(node, opset, &integers));
        }
        dialect.iter_mut().try_for_each(|node| widened::node(node, storage))?;
        let name = self.graph.value(id).name;
        let model = write::model(opset, vec![], dialect, initializers, &[name]);
        let source = Source::small(model.encode_to_vec(), Limits::of_reading());
        let run = Engine::load(source, &[]).and_then(|engine| engine.run(&[]));
        let value = run.map_err(Unproved::NotRun)?.into_iter().next();
        Ok(value.map(|value| (value, is_whole)))
    }

    /// Returns a constant in its own type, with its data inside.
    fn in_its_type(&self, id: ValueId) -> Result<Option<TensorProto>, Unproved> {
        let name = Some(self.graph.value(id).name.to_owned());
        if self.graph.value(id).outer.is_some() || self.constants.stores(id) {
            let Some(stored) = self.constants.tensor(id)? else { return Ok(None) };
            let stored = tensor::inlined(&stored, &self.graph.model.storage)?;
            return Ok(Some(TensorProto { name, ..stored }));
        }
        let float = self.float(id);
        let Constant { header, numbers } = self.value(id)?;
        let (Some(float), Some(numbers)) = (float, numbers) else { return Ok(None) };
        let raw = Some(float.encode(&numbers::all(numbers.as_ref())).into());
        Ok(Some(TensorProto { raw_data: raw, data_type: Some(float.to_onnx()), ..header }))
    }

    /// Returns the node, with the type inside to which another tensor tells it to cast, and as
    /// an Identity if a cast changes no type: in such a cast, tract 0.23.9 turns the "to the
    /// end" of a Slice (2⁶³ − 1) into −1.
    fn settled(&self, id: NodeId) -> Option<NodeProto> {
        let node = self.graph.node(id);
        let proto = write::without_notes(&node.proto);
        if !roles::casts(node) {
            return Some(proto);
        }
        let (from, to) = (self.constants.element_type(node.input(0)?), self.cast_to(node)?);
        Some(if from == Some(to) {
            write::into_identity(proto)
        } else {
            write::into_cast(proto, to)
        })
    }

    /// Returns what the engine gave for `id` as a constant.
    fn constant(&self, id: ValueId, value: Array) -> Constant {
        let name = self.graph.value(id).name;
        let dims: Vec<i64> = value.shape().iter().map(|&size| size as i64).collect();
        match value {
            Array::Float(values) => {
                let is_narrow = self.float(id) == Some(Float::Bf16);
                let in_file = |value| if is_narrow { Float::Bf16.round(value) } else { value };
                let numbers: Arc<dyn LazyWeights> =
                    Arc::new(values.into_iter().map(in_file).collect::<Vec<f64>>());
                Constant::doubles(name, &dims, numbers)
            }
            Array::Int(values) => integers(name, &values, self.constants.element_type(id)).into(),
        }
    }
}

/// Returns whether the outputs of `node` follow from tensors for which `is_known` holds.
fn follows(node: &Node, is_known: impl Fn(ValueId) -> bool) -> bool {
    node.standard_op().is_some()
        && !roles::is_random(node)
        && !node.has_bodies()
        && node.inputs.first().is_some_and(Option::is_some)
        && roles::values_read(node).all(is_known)
}

/// Returns `values` as a tensor of its element type if that is int32 or bool, and else of int64.
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
