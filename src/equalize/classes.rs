//! Finds which channels share one factor, and which have none.
//!
//! Union-find over (tensor, channel), whose class 0 has the factor 1. A kernel that has a single
//! reader connects nothing, because it takes the factors of both sides. An operator that passes
//! factors unites an input channel with an output channel, a sum the channels of all its
//! operands; everything else pins its channels to class 0.
//!
//! Knows rules of operators, sizes and what is stored; not how large anything is.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "channels are numbered here, and there are as many entries as numbers"
)]

use std::collections::{BTreeMap, BTreeSet};

use crate::equalize::channels::{ChannelClasses, ScaledForm, ScaledTensor, TensorChannels};
use crate::equalize::placed::{Axes, SeenShapes, forward};
use crate::facts::constants::Constants;
use crate::facts::kernels::KernelLayout;
use crate::facts::roles;
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::node::{Node, from_front};
use crate::onnx::schema::{annotation_field, graph_field};
use crate::onnx::wire::Field;
use crate::ops::scaling::{KernelChannels, ScaleRule, is_quantized, scale_rule};

const SHARED: &str = "weights that several nodes, or bodies, read";
const DYNAMIC: &str = "weights that are no stored tensors of their own";
const OVERRIDABLE: &str = "weights that a caller may override";
const OPAQUE: &str = "operators that no factor passes";
const ENDS: &str = "graph inputs and outputs";
const CAPTURED: &str = "what bodies read";
const ANNOTATED: &str = "tensors for which the file states a quantization";
const DISAGREE: &str = "channels that lie along different axes";
const UNPROVED: &str = "nodes whose rule could not be proved";

impl ChannelClasses {
    /// Returns the classes of `graph`, whose tensors have the sizes `shapes`. Nodes in `refused`
    /// pass no factors.
    ///
    /// # Errors
    /// Returns an error if a stored tensor cannot be read.
    pub fn of(
        graph: &Graph,
        constants: &Constants,
        shapes: &SeenShapes,
        refused: &BTreeSet<NodeId>,
    ) -> Result<Self, Invalid> {
        let axes = Axes::of(graph, constants, shapes);
        let mut finder = Finder {
            graph,
            constants,
            shapes,
            axes,
            places: BTreeMap::new(),
            parents: vec![0],
            scaled: Vec::new(),
            pinned: BTreeMap::new(),
            kernels: Vec::new(),
            captured: graph.nodes().flat_map(|(_, node)| node.captured.iter().copied()).collect(),
            annotated: annotated(graph)?,
        };
        finder.place();
        finder.pin_ends();
        let live = || graph.nodes().filter(|&(id, _)| graph.is_live(id));
        let (gates, others): (Vec<_>, Vec<_>) =
            live().partition(|(_, node)| scale_rule(node) == Some(ScaleRule::Gates));
        for (id, node) in others {
            match scale_rule(node).filter(|_| !refused.contains(&id)) {
                Some(ScaleRule::Kernel(channels)) => finder.kernel(id, node, channels)?,
                Some(rule) => finder.passing(id, node, rule)?,
                None if refused.contains(&id) => finder.pin_all(node, UNPROVED),
                None => finder.pin_all(node, OPAQUE),
            }
        }
        // Whether an operand of a product is pinned is known only when all other nodes are done.
        for (id, node) in gates {
            if refused.contains(&id) {
                finder.pin_all(node, UNPROVED);
            } else {
                finder.gate(node);
            }
        }
        Ok(finder.classes(refused))
    }
}

/// A stored kernel: how its factors are arranged, its sizes and its type.
struct KernelSides {
    form: ScaledForm,
    dims: Vec<usize>,
    float: Float,
}

/// The union-find structure, and what was found so far.
struct Finder<'f, 'g, 'm> {
    graph: &'g Graph<'m>,
    constants: &'f Constants<'g, 'm>,
    shapes: &'f SeenShapes,
    axes: Axes,
    /// The slot of the first channel of each tensor, and the number of its channels.
    places: BTreeMap<ValueId, (usize, usize)>,
    parents: Vec<usize>,
    scaled: Vec<ScaledTensor>,
    pinned: BTreeMap<&'static str, usize>,
    kernels: Vec<(ValueId, ValueId)>,
    /// Tensors that bodies read.
    captured: BTreeSet<ValueId>,
    /// Tensors for which the file states a scale and a zero point.
    annotated: BTreeSet<ValueId>,
}

/// Returns the tensors that the quantization annotations of the graph name.
fn annotated(graph: &Graph) -> Result<BTreeSet<ValueId>, Invalid> {
    let annotations = graph.fields.fields(graph_field::QUANTIZATION_ANNOTATION);
    let name =
        |field: &Field| graph.model.string_within(&field.payload, annotation_field::TENSOR_NAME);
    let named = annotations.map(|field| Ok(graph.find(&name(field)?)));
    Ok(named.collect::<Result<Vec<_>, Invalid>>()?.into_iter().flatten().collect())
}

impl Finder<'_, '_, '_> {
    fn find(&mut self, mut slot: usize) -> usize {
        while self.parents[slot] != slot {
            self.parents[slot] = self.parents[self.parents[slot]];
            slot = self.parents[slot];
        }
        slot
    }

    /// The pinned class, slot 0, stays the root of its tree.
    fn union(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.parents[a.max(b)] = a.min(b);
    }

    fn place(&mut self) {
        for (&id, shape) in self.shapes {
            let Some(axis) = self.axes.get(id) else { continue };
            let channels = shape.get(axis).copied().unwrap_or_default();
            let start = self.parents.len();
            self.parents.extend(start..start + channels);
            self.places.insert(id, (start, channels));
        }
    }

    fn pin(&mut self, id: ValueId, why: &'static str) {
        let Some(&(start, channels)) = self.places.get(&id) else { return };
        *self.pinned.entry(why).or_default() += 1;
        (start..start + channels).for_each(|slot| self.union(slot, 0));
    }

    fn pin_all(&mut self, node: &Node, why: &'static str) {
        let tensors = node.inputs.iter().chain(&node.outputs).flatten().chain(&node.captured);
        tensors.copied().collect::<Vec<_>>().into_iter().for_each(|id| self.pin(id, why));
    }

    fn pin_ends(&mut self) {
        let is_quantized = self.graph.nodes().any(|(_, node)| is_quantized(node));
        let all: Vec<ValueId> = self.places.keys().copied().collect();
        for id in all {
            let value = self.graph.value(id);
            if value.is_output || value.producer.is_none() || value.outer.is_some() {
                self.pin(id, ENDS);
            }
            if is_quantized {
                self.pin(id, "a model that is quantized already");
            }
        }
        self.captured.clone().into_iter().for_each(|id| self.pin(id, CAPTURED));
        self.annotated.clone().into_iter().for_each(|id| self.pin(id, ANNOTATED));
    }

    /// Returns the sizes and type of a stored float tensor of this graph that one input of one
    /// node reads, or why `id` is none.
    fn own(&self, id: ValueId) -> Result<Result<(Vec<usize>, Float), &'static str>, Invalid> {
        let value = self.graph.value(id);
        let is_stored = self.constants.stores(id);
        // A caller may pass another tensor, of which the next kernels would know nothing.
        if self.graph.may_be_overridden(id) {
            return Ok(Err(OVERRIDABLE));
        }
        if self.annotated.contains(&id) {
            return Ok(Err(ANNOTATED));
        }
        if !is_stored || !self.constants.contains(id) || value.is_ambiguous {
            return Ok(Err(DYNAMIC));
        }
        if value.readers.len() != 1 || value.is_output || self.captured.contains(&id) {
            return Ok(Err(SHARED));
        }
        let float = self.constants.element_type(id).and_then(Float::from_onnx);
        let dims = self.constants.dims(id)?;
        let is_dense = self.constants.numbers(id)?.is_some();
        Ok(dims.zip(float).filter(|_| is_dense).ok_or(DYNAMIC))
    }

    fn kernel(&mut self, id: NodeId, node: &Node, channels: KernelChannels) -> Result<(), Invalid> {
        let (Some(input), Some(output)) = (node.input(0), node.output()) else { return Ok(()) };
        let stored = match (node.input(1), self.places.get(&input), self.places.get(&output)) {
            (Some(kernel), Some(&(_, inputs)), Some(&(_, outputs))) => {
                let sides = self.sides(node, channels, kernel, [inputs, outputs])?;
                sides.map(|sides| (kernel, sides))
            }
            _ => Err(DYNAMIC),
        };
        let found = stored.and_then(|(value, KernelSides { form, dims, float })| {
            let axes = [input, output].map(|id| self.axes.get(id));
            let rank = self.shapes.get(&input).map_or(0, Vec::len);
            let axis = channels.axis(rank);
            if axes != [Some(axis); 2] {
                return Err(DISAGREE);
            }
            let input = Some(input);
            Ok(ScaledTensor { value, node: id, dims, float, form, input, output })
        });
        let shift = match (node.input(2), &found) {
            (Some(bias), Ok(_)) => match self.own(bias)? {
                Ok((dims, float)) => {
                    let outputs = self.places.get(&output).map_or(0, |place| place.1);
                    let is_one_each =
                        dims.iter().product::<usize>() == outputs && dims.last() == Some(&outputs);
                    let (form, input, value) = (ScaledForm::Shift, None, bias);
                    let shift = ScaledTensor { value, node: id, dims, float, form, input, output };
                    if is_one_each { Ok(Some(shift)) } else { Err(DYNAMIC) }
                }
                Err(why) => Err(why),
            },
            _ => Ok(None),
        };
        self.kernels.push((input, output));
        match (found, shift) {
            (Ok(kernel), Ok(shift)) => {
                self.scaled.push(kernel);
                self.scaled.extend(shift);
            }
            (Err(why), _) | (_, Err(why)) => self.pin_all(node, why),
        }
        Ok(())
    }

    /// Checks that the sizes of the stored `kernel` match the numbers of `inputs` and `outputs`,
    /// and returns how it takes factors, or why it does not.
    fn sides(
        &self,
        node: &Node,
        KernelChannels { layout, is_matrix }: KernelChannels,
        kernel: ValueId,
        [inputs, outputs]: [usize; 2],
    ) -> Result<Result<KernelSides, &'static str>, Invalid> {
        let (dims, float) = match self.own(kernel)? {
            Ok(own) => own,
            Err(why) => return Ok(Err(why)),
        };
        if is_matrix && dims.len() != 2 {
            return Ok(Err(DYNAMIC));
        }
        let groups = if is_matrix { 1 } else { node.int("group", 1) };
        let groups = usize::try_from(groups).unwrap_or_default();
        let expected = match layout {
            KernelLayout::OutputsFirst => [Some(outputs), inputs.checked_div(groups)],
            KernelLayout::InputsFirst => [Some(inputs), outputs.checked_div(groups)],
        };
        let form = ScaledForm::Kernel { layout, groups };
        let is_right = expected == [dims.first().copied(), dims.get(1).copied()];
        Ok(if is_right { Ok(KernelSides { form, dims, float }) } else { Err(DYNAMIC) })
    }

    fn passing(&mut self, id: NodeId, node: &Node, rule: ScaleRule) -> Result<(), Invalid> {
        match rule {
            ScaleRule::Sums => self.sum(id, node),
            ScaleRule::Joins => {
                let mut from = 0;
                let inputs: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
                let Some(output) = node.output() else { return Ok(()) };
                for input in inputs {
                    from += self.part(node, input, output, from);
                }
                Ok(())
            }
            ScaleRule::Splits => {
                let mut from = 0;
                let Some(input) = node.input(0) else { return Ok(()) };
                for output in node.outputs.iter().flatten() {
                    from += self.part(node, *output, input, from);
                }
                Ok(())
            }
            _ => {
                if let (Some(input), Some(output)) = (node.input(0), node.output()) {
                    self.tie(node, rule, input, output);
                }
                // A slope or a bound takes no factor.
                let further = node.inputs.iter().chain(&node.outputs).flatten().copied();
                let further =
                    further.filter(|&id| node.input(0) != Some(id) && node.output() != Some(id));
                further.collect::<Vec<_>>().into_iter().for_each(|id| self.pin(id, OPAQUE));
                Ok(())
            }
        }
    }

    /// Unites each channel of `input` with those of `output`; pins both if their channel axes do
    /// not correspond.
    fn tie(&mut self, node: &Node, rule: ScaleRule, input: ValueId, output: ValueId) {
        let (Some(&own), Some(&made)) = (self.places.get(&input), self.places.get(&output)) else {
            self.pin(input, OPAQUE);
            self.pin(output, OPAQUE);
            return;
        };
        let sizes = |id| self.shapes.get(&id).map_or(&[][..], Vec::as_slice);
        let mapped = self
            .axes
            .get(input)
            .and_then(|axis| forward(node, rule, axis, sizes(input), sizes(output)));
        let each = made.1.checked_div(own.1).filter(|each| each * own.1 == made.1);
        match each.filter(|_| mapped.is_some() && mapped == self.axes.get(output)) {
            Some(each) => (0..made.1).for_each(|at| self.union(own.0 + at / each, made.0 + at)),
            None => {
                self.pin(input, DISAGREE);
                self.pin(output, DISAGREE);
            }
        }
    }

    /// Unites the channels of `part` with those of `whole`. The part begins at `from` along the
    /// axis of the parts, which may be the channel axis or another one. Returns the length of
    /// the part along that axis.
    fn part(&mut self, node: &Node, part: ValueId, whole: ValueId, from: usize) -> usize {
        let sizes = |id| self.shapes.get(&id).map_or(&[][..], Vec::as_slice);
        let rank = sizes(whole).len();
        let axis = from_front(node.int("axis", 0), rank);
        let length = axis.and_then(|axis| sizes(part).get(axis).copied()).unwrap_or_default();
        let (own, all) = (self.places.get(&part).copied(), self.places.get(&whole).copied());
        let along = self.axes.get(whole);
        let start = if along == axis { from } else { 0 };
        match own.zip(all) {
            Some((own, all)) if along == self.axes.get(part) && start + own.1 <= all.1 => {
                (0..own.1).for_each(|at| self.union(own.0 + at, all.0 + start + at));
            }
            _ => {
                self.pin(part, DISAGREE);
                self.pin(whole, DISAGREE);
            }
        }
        length
    }

    /// Ties the operands of a sum; a stored operand with one number per channel is a shift.
    fn sum(&mut self, id: NodeId, node: &Node) -> Result<(), Invalid> {
        let Some(output) = node.output() else { return Ok(()) };
        let operands: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        let moving = operands.iter().filter(|&&id| !self.constants.contains(id)).count();
        for operand in operands {
            if !self.constants.contains(operand) {
                self.tie(node, ScaleRule::Sums, operand, output);
                continue;
            }
            let (axis, place) = (self.axes.get(output), self.places.get(&output).copied());
            let rank = self.shapes.get(&output).map_or(0, Vec::len);
            let shift = match self.own(operand)? {
                Ok((dims, float)) if moving == 1 && roles::sums(node) => {
                    let at = axis.and_then(|axis| (axis + dims.len()).checked_sub(rank));
                    let channels = place.map_or(0, |place| place.1);
                    let is_one_each = at.is_some_and(|at| dims.get(at) == Some(&channels))
                        && dims.iter().product::<usize>() == channels;
                    let (form, input, value) = (ScaledForm::Shift, None, operand);
                    let shift = ScaledTensor { value, node: id, dims, float, form, input, output };
                    is_one_each.then_some(shift)
                }
                _ => None,
            };
            match shift {
                Some(shift) => self.scaled.push(shift),
                None => self.pin_all(node, DYNAMIC),
            }
        }
        Ok(())
    }

    /// Lets factors through one operand of a product if the other one is pinned.
    fn gate(&mut self, node: &Node) {
        let (Some(a), Some(b), Some(output)) = (node.input(0), node.input(1), node.output()) else {
            return self.pin_all(node, OPAQUE);
        };
        let is_pinned = |finder: &mut Self, id: ValueId| match finder.places.get(&id).copied() {
            Some((start, channels)) => (start..start + channels).all(|slot| finder.find(slot) == 0),
            None => true,
        };
        match (is_pinned(self, a), is_pinned(self, b)) {
            (false, true) if a != b => self.tie(node, ScaleRule::Gates, a, output),
            (true, false) if a != b => self.tie(node, ScaleRule::Gates, b, output),
            _ => self.pin_all(node, OPAQUE),
        }
    }

    /// Numbers the classes densely, and returns what the search found.
    fn classes(mut self, refused: &BTreeSet<NodeId>) -> ChannelClasses {
        let mut numbers = BTreeMap::from([(0, 0)]);
        let mut classes = ChannelClasses { pinned: self.pinned.clone(), ..Default::default() };
        let places: Vec<(ValueId, (usize, usize))> =
            self.places.iter().map(|(&id, &place)| (id, place)).collect();
        for (id, (start, channels)) in places {
            let roots = (start..start + channels).map(|slot| self.find(slot));
            let roots: Vec<usize> = roots.collect();
            let numbered = roots.into_iter().map(|root| {
                let next = numbers.len();
                *numbers.entry(root).or_insert(next)
            });
            let axis = self.axes.get(id).unwrap_or_default();
            let rank = self.shapes.get(&id).map_or(0, Vec::len);
            let classes_of = numbered.collect();
            classes.tensors.insert(id, TensorChannels { axis, rank, classes: classes_of });
        }
        classes.count = numbers.len();
        classes.kernels = self.kernels.len();
        let free = |&&(a, b): &&(ValueId, ValueId)| classes.is_free(a) || classes.is_free(b);
        classes.free_kernels = self.kernels.iter().filter(free).count();
        let is_taken = |scaled: &ScaledTensor| {
            classes.is_free(scaled.output) || scaled.input.is_some_and(|id| classes.is_free(id))
        };
        let scaled = self.scaled.iter().filter(|scaled| is_taken(scaled)).cloned().collect();
        classes.scaled = scaled;
        classes.stored = self.scaled;
        let passes = |(id, node): &(NodeId, &Node)| {
            let is_shift = || classes.scaled.iter().any(|scaled| scaled.node == *id);
            let is_free = |tensor: &ValueId| classes.is_free(*tensor);
            self.graph.is_live(*id)
                && !refused.contains(id)
                && node.inputs.iter().chain(&node.outputs).flatten().any(is_free)
                && !is_shift()
        };
        let passing = self.graph.nodes().filter(passes).map(|(id, _)| id).collect();
        classes.passing = passing;
        classes
    }
}
