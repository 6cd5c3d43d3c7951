//! What is constant, and its value.
//!
//! A tensor is constant if it is stored (an initializer, a `Constant` node) or computed from
//! such tensors by a small sub-graph, as exporters write them for pads and zero biases. Such
//! sub-graphs are evaluated node by node ([`folding`](crate::facts::folding)), only when
//! somebody asks, and the values are kept. The rows of [`operators`](crate::facts::operators)
//! say which can be evaluated; none is named here.
//!
//! Knows the graph, and nothing that depends on what the model is given.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::EngineError;
use crate::engine::dialect::widened;
use crate::facts::budget::Budget;
use crate::facts::estimate::estimate;
use crate::facts::folding::{
    ConstantNode, NoValue, Unknown, in_known_types, stored, type_of_result, written_out,
};
use crate::facts::operators::operator;
use crate::facts::roles;
use crate::facts::row::{FoldingKind, InputsRead, TypeRule};
use crate::onnx::extremes::Extremes;
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, Table, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::onnx::proto::TensorProto;
use crate::onnx::tensor;

/// Upper bound on the depth of a constant sub-graph; none of a real model is deeper.
const MAX_DEPTH: u8 = 250;

type Evaluated = Result<Arc<TensorProto>, Unknown>;
type Cache = Table<ValueId, Evaluated>;

/// From this many bytes on, a value is not kept once the only node that reads it is evaluated.
const LARGE: usize = 1 << 16;

const TOO_DEEP: &str = "250 nodes in a row are the most that are followed";

/// The constants of one graph; see the module's documentation.
pub struct Constants<'g, 'm> {
    pub(super) graph: &'g Graph<'m>,
    /// The constants of the graph around this one, if it is a body.
    outer: Option<Arc<Constants<'g, 'm>>>,
    /// How many nodes deep each constant is computed; stored ones have 0.
    depths: Table<ValueId, u8>,
    /// Tensors that would be constant but for [`MAX_DEPTH`].
    too_deep: Table<ValueId, ()>,
    types: Table<ValueId, i32>,
    /// The values that were asked for.
    values: Mutex<Cache>,
    /// Constants whose values were known, and were released.
    released: Mutex<Table<ValueId, ()>>,
    /// The extremes of kernels that were asked for.
    pub(super) extremes: Mutex<IdMap<ValueId, Extremes>>,
    /// The budget of all graphs of the model together.
    budget: Arc<Budget>,
}

impl<'g, 'm> Constants<'g, 'm> {
    /// Returns what is stored in `graph`, and computed from that; `outer` and `keep_overridable`
    /// as in `Constants::find_all`.
    ///
    /// # Errors
    /// Returns an error if an initializer cannot be decoded.
    pub(super) fn find(
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
            released: Mutex::default(),
            extremes: Mutex::default(),
        };
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
                if !(keep_overridable && graph.may_be_overridden(id)) {
                    constants.depths.insert(id, 0);
                }
            } else if let Some(declared) = graph.input_type(id) {
                constants.types.insert(id, declared);
            }
        }
        constants.note_nodes();
        Ok(constants)
    }

    /// Notes integers that are known although they are not computed from constants alone, and
    /// what is computed from them.
    pub(super) fn know(&mut self, integers: Vec<(ValueId, TensorProto)>) {
        if integers.is_empty() {
            return;
        }
        for (id, known) in integers {
            self.depths.insert(id, 0);
            self.cache().insert(id, Ok(Arc::new(known)));
        }
        self.note_nodes();
    }

    fn note_nodes(&mut self) {
        for (_, node) in self.graph.nodes() {
            self.note_node(node);
        }
    }

    fn note_node(&mut self, node: &Node) {
        let Some(operator) = node.standard_op().and_then(operator) else { return };
        let types = |id: ValueId| self.element_type(id);
        let element_type = type_of_result(node, operator.element_type, &types);
        let depth = match (operator.element_type, operator.folding) {
            (TypeRule::OfStored, _) => Some(0),
            (_, Some(_)) => self.depth_of_result(node, operator.reads),
            (_, None) => None,
        };
        let is_too_deep = depth.is_some_and(|depth| depth > MAX_DEPTH);
        let depth = depth.filter(|_| !is_too_deep);
        for (index, &output) in node.outputs.iter().enumerate() {
            let Some(output) = output else { continue };
            let is_of_the_kind = index == 0 || operator.has_equal_outputs;
            if let Some(element_type) = element_type.filter(|_| is_of_the_kind) {
                self.types.insert(output, element_type);
            }
            if let Some(depth) = depth.filter(|_| is_of_the_kind) {
                self.depths.insert(output, depth);
            }
            if is_too_deep {
                self.too_deep.insert(output, ());
            }
        }
    }

    /// Returns the depth; above [`MAX_DEPTH`] if only that keeps the result from being constant.
    fn depth_of_result(&self, node: &Node, reads: InputsRead) -> Option<u8> {
        // Nothing is computed from no inputs, except in a malformed node.
        node.inputs.first()?;
        let mut deepest = 0;
        for (index, input) in node.inputs.iter().enumerate() {
            match input {
                Some(like) if reads == InputsRead::ElementsThenType && index == 1 => {
                    self.element_type(*like)?;
                }
                Some(input) if self.too_deep.contains(*input) => deepest = MAX_DEPTH,
                Some(input) => deepest = deepest.max(*self.depths.get(*input)?),
                None => {}
            }
        }
        Some(deepest.saturating_add(1))
    }

    /// Returns the element type (`TensorProto.DataType`), as far as it is known.
    pub fn element_type(&self, id: ValueId) -> Option<i32> {
        self.types.get(id).copied()
    }

    /// Whether `id` is constant.
    pub fn contains(&self, id: ValueId) -> bool {
        self.depths.contains(id)
    }

    /// Returns the constant `id`; `None` if it is not one, or the engine cannot evaluate it.
    ///
    /// # Errors
    /// Returns an error if a stored tensor cannot be decoded.
    pub fn tensor(&self, id: ValueId) -> Result<Option<Arc<TensorProto>>, Invalid> {
        if !self.contains(id) {
            return Ok(None);
        }
        match self.found(id) {
            Ok(tensor) => Ok(Some(tensor)),
            Err(none) => none.unknown().map(|_| None),
        }
    }

    /// Returns the limit that keeps `id` from being a constant with a value, if one does.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn limit(&self, id: ValueId) -> Result<Option<&'static str>, Invalid> {
        if self.too_deep.contains(id) {
            return Ok(Some(TOO_DEEP));
        }
        if !self.contains(id) {
            return Ok(None);
        }
        let Err(none) = self.found(id) else { return Ok(None) };
        Ok(match none.unknown()? {
            Unknown::Beyond(limit) => Some(limit),
            Unknown::NotEvaluated => None,
        })
    }

    /// Returns the first computation within the budget that the engine did not finish: whatever
    /// was read since then is of no use.
    pub fn overrun(&self) -> Option<&(String, EngineError)> {
        self.budget.overrun()
    }

    /// Returns the budget for everything that is worked out before anything is planned.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    fn found(&self, id: ValueId) -> Result<Arc<TensorProto>, NoValue> {
        if let Some(known) = self.cache().get(id) {
            return Ok(known.clone()?);
        }
        let unknown = |id| self.operands(id).filter(|&operand| !self.cache().contains(operand));
        // The operands come first, so that long chains need no deep stack.
        let mut open: Vec<ValueId> = unknown(id).collect();
        while let Some(&next) = open.last() {
            // Operands of what is known already may be released.
            if self.cache().contains(next) {
                open.pop();
                continue;
            }
            let before = open.len();
            open.extend(unknown(next));
            if open.len() == before {
                // That it has no value is kept, too.
                self.evaluated(next).map(|_| ()).or_else(|none| none.unknown().map(|_| ()))?;
                open.pop();
            }
        }
        self.evaluated(id)
    }

    /// Returns the constants that `id` is computed from.
    fn operands(&self, id: ValueId) -> impl Iterator<Item = ValueId> {
        let value = self.graph.value(id);
        let producer = value.producer.filter(|_| value.initializer.is_none());
        let inputs = producer.map(|producer| &self.graph.node(producer).inputs);
        inputs.into_iter().flatten().flatten().copied().filter(|&input| self.contains(input))
    }

    /// Releases the large constants from which only `id`, which is known, is computed: an OREPA
    /// kernel comes of twenty others of its size. Asked for again, they are evaluated again, and
    /// what they take is spent twice; planning, in one thread, asks for each first.
    fn release_operands(&self, id: ValueId) {
        let Some(producer) = self.graph.value(id).producer else { return };
        let is_large = |tensor: &Evaluated| {
            tensor.as_ref().is_ok_and(|tensor| tensor.raw_data().len() >= LARGE)
        };
        for operand in self.operands(id) {
            let value = self.graph.value(operand);
            let is_computed = self.depths.get(operand).is_some_and(|&depth| depth > 0);
            let is_read_here = value.readers.iter().all(|&reader| reader == producer);
            let mut known = self.cache();
            if is_computed
                && is_read_here
                && !value.is_output
                && known.get(operand).is_some_and(is_large)
            {
                known.remove(operand);
                self.released.lock().unwrap_or_else(PoisonError::into_inner).insert(operand, ());
            }
        }
    }

    /// Whether `id` was evaluated, and has a value.
    fn was_evaluated(&self, id: ValueId) -> bool {
        let released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        released.contains(id) || self.cache().get(id).is_some_and(Result::is_ok)
    }

    /// As [`Self::found`], once all operands are known: these may be released then.
    fn evaluated(&self, id: ValueId) -> Result<Arc<TensorProto>, NoValue> {
        if let Some(known) = self.cache().get(id) {
            return Ok(known.clone()?);
        }
        let found = match self.stored_or_computed(id) {
            Ok(tensor) => Ok(tensor),
            Err(none) => Err(none.unknown()?),
        };
        self.cache().insert(id, found.clone());
        if found.is_ok() {
            self.release_operands(id);
        }
        Ok(found?)
    }

    fn stored_or_computed(&self, id: ValueId) -> Result<Arc<TensorProto>, NoValue> {
        let stored = self.graph.initializer(id)?;
        match (stored, self.graph.value(id).outer, &self.outer) {
            (Some(stored), ..) => {
                Ok(Arc::new(written_out(stored, &self.graph.model.storage, &self.budget)?))
            }
            (None, Some(outside), Some(outer)) => outer.found(outside.in_outer_graph()),
            _ => self.computed(id).map(Arc::new),
        }
    }

    /// Returns the label of a node that computes a constant larger than any real one: the engine
    /// would compute it, too, as soon as it loads the model.
    ///
    /// # Errors
    /// Returns an error if a stored tensor is malformed.
    pub fn oversized(&self) -> Result<Option<String>, Invalid> {
        for (_, node) in self.graph.nodes() {
            let Some(rule) = roles::folding(node).filter(|rule| rule.grows) else { continue };
            let is_open = |output| self.contains(output) && !self.was_evaluated(output);
            if !node.output().is_some_and(is_open) {
                continue;
            }
            let mut inputs = Vec::with_capacity(node.inputs.len());
            for input in node.inputs.iter().flatten() {
                inputs.extend(self.tensor(*input)?.map(|tensor| tensor.as_ref().clone()));
            }
            let estimate = estimate(rule.estimate, node, &inputs, &self.graph.model.storage)?;
            if estimate.is_some_and(|estimate| !self.budget.allows(estimate)) {
                return Ok(Some(node.label().to_owned()));
            }
        }
        Ok(None)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the node that makes `id` computes, in its type.
    fn computed(&self, id: ValueId) -> Result<TensorProto, NoValue> {
        let producer = self.graph.value(id).producer.ok_or(Unknown::NotEvaluated)?;
        let node = self.graph.node(producer);
        let storage = &self.graph.model.storage;
        let Some(rule) = roles::folding(node) else {
            let stored = stored(node).ok_or(Unknown::NotEvaluated)?;
            let tensor = written_out(stored, storage, &self.budget)?;
            return Ok(TensorProto { name: Some(self.name(id)), ..tensor });
        };
        let is_cast = rule.kind == FoldingKind::Casts;
        if let Some(input) = node.input(0) {
            // A cast to its own type: tract 0.23.9 makes −1 of the "to the end" (2⁶³ − 1)
            // that unoptimised dynamo wraps in one.
            let keeps_type = is_cast && self.element_type(input) == self.element_type(id);
            if keeps_type || rule.kind == FoldingKind::Keeps {
                return Ok(self.evaluated(input)?.as_ref().clone());
            }
            if is_cast && self.is_rounded(input) {
                return Err(Unknown::NotEvaluated.into());
            }
        }
        let like = node.input(1).and_then(|like| self.element_type(like));
        let proto = in_known_types(node, like, storage).ok_or(Unknown::NotEvaluated)?;
        let (operands, widened) = self.operand_tensors(node, proto.input.len())?;
        let wanted = self.element_type(id).ok_or(Unknown::NotEvaluated)?;
        let (opset, budget) = (self.graph.model.opset, &self.budget);
        let constant =
            ConstantNode { node, proto, rule, opset, operands, widened, storage, budget };
        self.all_outputs(constant, id, wanted)
    }

    fn name(&self, id: ValueId) -> String {
        self.graph.value(id).name.to_owned()
    }

    /// Returns the values of the first `count` inputs of `node` that are not left out, under
    /// their names: as they are, and in types that the engine knows.
    fn operand_tensors(
        &self,
        node: &Node,
        count: usize,
    ) -> Result<(Vec<TensorProto>, Vec<TensorProto>), NoValue> {
        let storage = &self.graph.model.storage;
        let (mut operands, mut widened_operands) = (Vec::new(), Vec::new());
        for &input in node.inputs.iter().take(count).flatten() {
            let tensor = tensor::inlined(&*self.evaluated(input)?, storage)?;
            let tensor = TensorProto { name: Some(self.name(input)), ..tensor };
            widened_operands.push(widened::tensor(tensor.clone(), storage)?);
            operands.push(tensor);
        }
        Ok((operands, widened_operands))
    }

    /// Returns the output `id` of `constant`. All outputs of a Split are evaluated at once; the
    /// others are kept.
    fn all_outputs(
        &self,
        constant: ConstantNode,
        id: ValueId,
        wanted: i32,
    ) -> Result<TensorProto, NoValue> {
        let outputs = constant.node.outputs.iter().flatten().copied();
        let outputs: Vec<ValueId> = outputs.filter(|&output| self.contains(output)).collect();
        let names: Vec<String> = outputs.iter().map(|&output| self.name(output)).collect();
        let values = constant.evaluate(&self.name(id), &names, wanted)?;
        let mut own = None;
        for (output, value) in outputs.into_iter().zip(values) {
            if output == id {
                own = value;
            } else {
                self.cache().insert(output, value.map(Arc::new).ok_or(Unknown::NotEvaluated));
            }
        }
        Ok(own.ok_or(Unknown::NotEvaluated)?)
    }

    /// Whether `id` is of 16 bits and comes of a computation in them, or of a cast to bfloat16.
    /// In a chain of such nodes, engines that compute in float32 may leave out the roundings
    /// between: 2048 + 1 + 1 is 2048 in float16, and 2050 in ONNX Runtime. In 16 bits that is
    /// one rounding more or less; in another type it would be seen.
    fn is_rounded(&self, id: ValueId) -> bool {
        let (mut seen, mut open) = (Table::<ValueId, ()>::default(), vec![id]);
        while let Some(next) = open.pop() {
            let float = |id| self.element_type(id).and_then(Float::from_onnx);
            let is_narrow = matches!(float(next), Some(Float::F16 | Float::Bf16));
            let value = self.graph.value(next);
            let producer = value.producer.filter(|_| value.initializer.is_none());
            let Some(node) = producer.map(|producer| self.graph.node(producer)) else { continue };
            if !is_narrow || seen.insert(next, ()).is_some() {
                continue;
            }
            let is_narrowed = || float(next) != node.input(0).and_then(float);
            match roles::folding(node).map(|rule| rule.kind) {
                Some(FoldingKind::Computes { .. }) => return true,
                Some(FoldingKind::Casts) if float(next) == Some(Float::Bf16) && is_narrowed() => {
                    return true;
                }
                _ => open.extend(self.operands(next)),
            }
        }
        false
    }
}
