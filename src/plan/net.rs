//! The planner's graph: the graph of the file, in which some tensors are computed otherwise by
//! now.
//!
//! Every linear tensor has a *form*, the sum of terms that its node is or that it is planned to
//! become. A tensor is *read* by live nodes and graph outputs, and goes away with its last
//! reader. Since a plan builds on what was planned before, nothing is left to find in the file
//! that is written: it is this graph.
//!
//! Knows meanings, forms and costs; does not decide which tensors should be computed otherwise.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use std::convert::Infallible;

use crate::affine::Geometry;
use crate::emit::term::Term;
use crate::emit::turned::LastTurn;
use crate::onnx::ids::{IdMap, IdSet, NodeId, Table, ValueId};
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::channels::channels_read;
use crate::plan::computed::{DeadConstants, computed_kernel};
use crate::plan::cost::{self, Count};
use crate::plan::form::{Form, FormStep};
use crate::plan::recipes::{PlannedNode, Recipes};
use crate::plan::tails::Tails;

/// A form by which a tensor is planned to be computed, in the place of its node.
#[derive(Debug, Clone)]
pub struct PlannedForm {
    /// The form: a convolution per weighted term, the rest added.
    pub form: Form<Geometry>,
    /// The number of the recipe by which the form is made.
    pub recipe: usize,
    /// What the new nodes cost if they read their roots as these are.
    pub count: Count,
    /// The Transpose that the new nodes end with, if they do.
    pub turn: Option<Box<LastTurn>>,
    /// How many nodes of the file its terms stand for.
    pub size: usize,
}

/// The planner's graph; see the module's documentation.
pub struct Net<'r, 'g, 'm> {
    /// The graph of the file.
    pub reader: &'r Reader<'g, 'm>,
    /// What its nodes compute.
    pub meanings: &'r Meanings,
    /// Whether branches may be kept apart from kernels that would be less exact with them.
    pub keeps_branches: bool,
    /// The form of each linear node as it stands in the file.
    pub(super) forms: Table<NodeId, Form<Geometry>>,
    /// What the constants and multiply-adds of a node cost, if it has any.
    costs: IdMap<NodeId, Count>,
    pub(super) planned: IdMap<NodeId, PlannedForm>,
    /// The recipes of the planned forms.
    pub recipes: Recipes,
    /// Nodes that nothing needs any more.
    pub(super) gone: Table<NodeId, ()>,
    /// Nodes that compute the shapes of views: sizes, not elements of tensors.
    of_shapes: IdSet<NodeId>,
    /// How often live nodes and graph outputs read a tensor.
    reads: Table<ValueId, usize>,
    /// How often graph outputs and all nodes of the file that are needed use a tensor,
    /// including the nodes from which only constants are computed.
    pub(super) uses: Table<ValueId, usize>,
    /// Kernels that go away only with their last reader, and how often live nodes read them as
    /// they stand.
    pub(super) kept: IdMap<ValueId, usize>,
}

impl<'r, 'g, 'm> Net<'r, 'g, 'm> {
    /// Returns the graph as it stands in the file. A kernel goes away with each of its readers,
    /// as if each had a copy; a kernel in `kept` goes away with the last one.
    pub fn new(
        reader: &'r Reader<'g, 'm>,
        meanings: &'r Meanings,
        kept: impl Iterator<Item = ValueId>,
    ) -> Self {
        let mut net = Net {
            reader,
            meanings,
            keeps_branches: false,
            forms: Table::of(reader.graph.node_count()),
            costs: IdMap::default(),
            planned: IdMap::default(),
            recipes: Recipes::default(),
            gone: Table::default(),
            of_shapes: IdSet::default(),
            reads: Table::default(),
            uses: Table::default(),
            kept: kept.map(|kernel| (kernel, 0)).collect(),
        };
        net.count_reads();
        let mut tails = Tails::default();
        let mut channels: Table<ValueId, usize> = Table::default();
        for (id, node) in reader.graph.nodes() {
            let Some(meaning) = meanings.get(id).filter(|_| net.is_live(id)) else { continue };
            let Some(output) = node.output() else { continue };
            let of_operand = |operand: &ValueId| channels.get(meanings.source(*operand)).copied();
            let made = meaning.operands().iter().find_map(of_operand);
            // The readers are asked only where a number shifts several channels.
            let counted = |map: &LinearOp| {
                let is_asked = made.is_none() && map.repeated_shifts(usize::MAX) > 0;
                let read = is_asked.then(|| channels_read(reader, meanings, output)).flatten();
                made.or(read).unwrap_or(0)
            };
            if let Meaning::Linear(input, map) = meaning {
                if matches!(map, LinearOp::View(_)) {
                    let consumed = meanings.consumed(id).iter();
                    net.of_shapes.extend(consumed.filter(|id| !net.forms.contains(**id)));
                }
                if tails.note(reader, meanings, (id, *input), map) {
                    continue;
                }
                let weights = net.parameters(id, map, counted(map));
                let count = Count { nodes: 0, parameters: weights, macs: map.macs() };
                if count != Count::default() {
                    net.costs.insert(id, count);
                }
            }
            if let Meaning::Sum(summands) = meaning {
                let maps = summands.iter().filter_map(|summand| summand.map.as_deref());
                let weights = maps.map(|map| net.parameters(id, map, counted(map)));
                let count = Count { parameters: weights.sum(), ..Count::default() };
                net.costs.insert(id, count);
            }
            let shape = |map: &LinearOp| Ok::<_, Infallible>(map.geometry());
            let Ok(form) = Form::of_node(meanings, id, &Geometry::identity(), shape);
            let Some(form) = form else { continue };
            let made = form.channels(made);
            net.forms.insert(id, form);
            if let Some(made) = made {
                channels.insert(output, made);
            }
        }
        net
    }

    /// Counts the readers of each tensor. A tensor from which only constants are computed is
    /// used, but not read: the shape of a zero bias and a cast to the type of an activation go
    /// with what reads them.
    fn count_reads(&mut self) {
        let graph = self.reader.graph;
        for &output in &graph.outputs {
            *self.reads.or_default(output) += 1;
            *self.uses.or_default(output) += 1;
        }
        for (id, node) in graph.nodes().rev().filter(|&(id, _)| self.meanings.get(id).is_some()) {
            let mut outputs = node.outputs.iter().flatten();
            if outputs.any(|output| self.uses.get(*output).is_some()) {
                for value in graph.uses(id).chain(self.read_behind_consumed(id)) {
                    *self.uses.or_default(value) += 1;
                }
            }
            let is_read = |output: &ValueId| self.reads(*output) > 0;
            if self.reader.computes_constant(node) || !node.outputs.iter().flatten().any(is_read) {
                self.gone.insert(id, ());
                continue;
            }
            for value in graph.uses(id).chain(self.read_behind_consumed(id)) {
                *self.reads.or_default(value) += 1;
            }
            for kernel in self.kept_kernels(id) {
                *self.kept.entry(kernel).or_default() += 1;
            }
        }
    }

    /// Returns the kernels among `kept` that node `id` reads as it stands.
    pub(super) fn kept_kernels(&self, id: NodeId) -> Vec<ValueId> {
        if self.kept.is_empty() || self.is_planned(id) {
            return Vec::new();
        }
        let sources = self.reader.graph.uses(id).map(|value| self.meanings.source(value));
        sources.filter(|source| self.kept.contains_key(source)).collect()
    }

    /// Returns the number of elements of the weights, biases and statistics that go away with
    /// node `id`, which makes `channels` channels or stands behind a view of a tensor that has
    /// as many. A number that shifts several of them is a parameter of each, as it would be of
    /// a bias.
    fn parameters(&self, id: NodeId, map: &LinearOp, channels: usize) -> f64 {
        let repeated = map.repeated_shifts(channels) as f64;
        // Pads, clamp bounds and scalars are no parameters.
        if !matches!(map, LinearOp::Conv { .. } | LinearOp::Diagonal { .. }) {
            return repeated;
        }
        let kept = self.kept_kernels(id);
        let inputs = self.reader.graph.node(id).inputs.iter().flatten().copied();
        let constants = inputs.filter(|&value| self.reader.constants.contains(value));
        let own = constants.filter(|&value| !kept.contains(&self.meanings.source(value)));
        own.map(|value| self.reader.constants.elements(value)).sum::<f64>() + repeated
    }

    /// Returns the operands that node `id` of the file was read as a map of, if other nodes
    /// stand between: it needs them even if these nodes are computed otherwise.
    fn read_behind_consumed(&self, id: NodeId) -> impl Iterator<Item = ValueId> + use<> {
        let consumes = !self.meanings.consumed(id).is_empty();
        let meaning = self.meanings.get(id).filter(|_| consumes);
        let operands = meaning.map(Meaning::operands).unwrap_or_default();
        let sources = operands.into_iter().map(|operand| self.meanings.source(operand));
        sources.collect::<Vec<_>>().into_iter()
    }

    /// Whether the node is there and computes something from the tensors that are read.
    pub fn is_live(&self, id: NodeId) -> bool {
        self.meanings.get(id).is_some() && !self.gone.contains(id)
    }

    /// Returns the live linear nodes with their outputs, in topological order.
    pub fn tensors(&self) -> impl Iterator<Item = (NodeId, ValueId)> {
        let nodes = self.reader.graph.nodes().filter(|&(id, _)| self.forms.contains(id));
        let live = nodes.filter(|&(id, _)| self.is_live(id));
        live.filter_map(|(id, node)| Some((id, node.output()?)))
    }

    /// Returns the node whose form is that of `value`; `None` if `value` has no form.
    pub fn former(&self, value: ValueId) -> Option<NodeId> {
        let producer = self.reader.graph.value(value).producer?;
        self.forms.contains(producer).then_some(producer)
    }

    /// Whether the search follows a change from what node `id` reads to what it makes: the node
    /// is linear, or passes elements on, or only constants are computed from it.
    pub fn connects(&self, id: NodeId) -> bool {
        self.forms.contains(id) || self.passes_on(id) || !self.is_live(id)
    }

    /// Returns what node `id` reads as it stands in the file.
    pub fn read_in_file(&self, id: NodeId) -> impl Iterator<Item = ValueId> {
        self.reader.graph.uses(id).chain(self.read_behind_consumed(id))
    }

    /// Returns the form of what node `id` makes, as it is computed now.
    pub fn form(&self, id: NodeId) -> Option<&Form<Geometry>> {
        self.planned.get(&id).map(|planned| &planned.form).or_else(|| self.forms.get(id))
    }

    /// Returns the terms of this form.
    pub fn terms(&self, id: NodeId) -> &[Term<Geometry>] {
        self.form(id).map(|form| form.terms.as_slice()).unwrap_or_default()
    }

    /// Returns how many nodes of the file compute what node `id` makes from the roots of its
    /// form.
    pub fn size(&self, id: NodeId) -> usize {
        self.planned.get(&id).map_or(1, |planned| planned.size)
    }

    /// Returns how often live nodes and graph outputs read `value`.
    pub fn reads(&self, value: ValueId) -> usize {
        self.reads.get(value).copied().unwrap_or(0)
    }

    /// Whether the tensor of node `id` is computed otherwise than in the file.
    pub fn is_planned(&self, id: NodeId) -> bool {
        self.planned.contains_key(&id)
    }

    /// Returns the planned forms and their nodes, in topological order.
    pub fn planned(&self) -> Vec<(NodeId, &PlannedForm)> {
        let mut planned: Vec<_> = self.planned.iter().map(|(&id, planned)| (id, planned)).collect();
        planned.sort_unstable_by_key(|&(id, _)| id);
        planned
    }

    /// Calls `tell` with each tensor that node `id` reads, and with the term that reads it if
    /// the node is linear.
    pub fn each_read(&self, id: NodeId, mut tell: impl FnMut(ValueId, Option<&Term<Geometry>>)) {
        match self.planned.get(&id) {
            Some(planned) => {
                planned.form.terms.iter().for_each(|term| tell(term.root, Some(term)));
            }
            None => {
                let term = self.term_in_file(id);
                self.read_in_file(id).for_each(|value| tell(value, term));
            }
        }
    }

    /// Returns the kernel of node `id` as it stands, if nodes compute that kernel.
    pub fn computed_kernel(&self, id: NodeId) -> Option<ValueId> {
        computed_kernel(self.reader, self.meanings, id).filter(|_| !self.is_planned(id))
    }

    /// Returns the first term of node `id` as it stands in the file, if it is linear.
    pub(super) fn term_in_file(&self, id: NodeId) -> Option<&Term<Geometry>> {
        self.forms.get(id)?.terms.first()
    }

    /// Returns the cost of node `id` as it stands, or as it is planned. Another name of a
    /// tensor costs nothing, since engines drop it, nor does what computes a shape, next to
    /// what computes elements.
    pub fn count(&self, id: NodeId) -> Count {
        match self.planned.get(&id) {
            Some(planned) => self.turned_back(&planned.form.terms).unwrap_or(planned.count),
            None if self.is_alias(id) || self.of_shapes.contains(&id) => Count::default(),
            None if self.is_byproduct(id) => Count::default(),
            None => self.count_in_file(id),
        }
    }

    /// Whether node `id` passes on elements of a tensor, without a form.
    pub(super) fn passes_on(&self, id: NodeId) -> bool {
        self.is_alias(id) || matches!(self.meanings.get(id), Some(Meaning::Parted(..)))
    }

    /// Whether node `id`, as it stands in the file, makes means.
    pub fn makes_means(&self, id: NodeId) -> bool {
        let meaning = self.meanings.get(id).filter(|_| !self.is_planned(id));
        matches!(meaning, Some(Meaning::Linear(_, LinearOp::Filter { mean: Some(_), .. })))
    }

    fn is_alias(&self, id: NodeId) -> bool {
        matches!(self.meanings.get(id), Some(Meaning::Alias(_)))
    }

    pub(super) fn count_in_file(&self, id: NodeId) -> Count {
        let count = self.costs.get(&id).copied().unwrap_or_default();
        Count { nodes: 1, ..count }
    }

    /// Whether only constants are computed from what the producer of `value` makes.
    pub(super) fn is_computed(&self, value: ValueId) -> bool {
        let producer = self.reader.graph.value(value).producer;
        producer.is_some_and(|producer| !self.is_live(producer))
    }

    /// Returns the nodes from which only constants are computed and that go away with `values`.
    /// `lost` says how many uses of each tensor are gone; the uses that go with the dead nodes
    /// are added to it.
    pub(super) fn dead_constants(
        &self,
        values: Vec<ValueId>,
        lost: &mut IdMap<ValueId, usize>,
    ) -> DeadConstants {
        DeadConstants::of(self.reader, values, &|id| self.is_live(id), &self.uses, lost)
    }

    /// Computes the tensor of node `id` by this form from now on, which was found in these
    /// steps. Returns the tensors that are computed otherwise or read more or less often since.
    pub fn plan(
        &mut self,
        id: NodeId,
        form: Form<Geometry>,
        steps: Vec<FormStep<NodeId>>,
    ) -> Vec<ValueId> {
        let planned = |id: NodeId| PlannedNode {
            id,
            recipe: self.planned.get(&id).map(|planned| planned.recipe),
        };
        let mut size = self.size(id);
        let step = |step: FormStep<NodeId>| match step {
            FormStep::Select(selected) => FormStep::Select(selected),
            FormStep::Join => FormStep::Join,
            FormStep::Stack => FormStep::Stack,
            FormStep::Mean(id) => {
                size += self.size(id);
                FormStep::Mean(id)
            }
            FormStep::Through(id) => {
                size += self.size(id);
                FormStep::Through(planned(id))
            }
            FormStep::AsOne(id, through) => {
                size += self.size(id);
                size += through.iter().map(|&id| self.size(id)).sum::<usize>();
                FormStep::AsOne(planned(id), through.into_iter().map(planned).collect())
            }
        };
        let steps = steps.into_iter().map(step).collect();
        let start = planned(id);
        let recipe = self.recipes.note(start, steps);
        let count = cost::of_sum(&form.terms, self.reader.forms);
        let terms = &form.terms;
        let cone = self.mffc(id, terms);
        let mut read: Vec<ValueId> = Vec::new();
        for &node in &cone.nodes {
            self.each_read(node, |value, _| read.push(value));
        }
        for &value in &read {
            for counts in [&mut self.reads, &mut self.uses] {
                let count = counts.or_default(value);
                *count = count.saturating_sub(1);
            }
        }
        let computed: Vec<_> =
            read.iter().copied().filter(|&value| self.is_computed(value)).collect();
        if !computed.is_empty() {
            let mut lost: IdMap<ValueId, usize> = IdMap::default();
            self.dead_constants(computed, &mut lost);
            for (value, lost) in lost {
                let uses = self.uses.or_default(value);
                *uses = uses.saturating_sub(lost);
                read.push(value);
            }
        }
        for &node in &cone.nodes {
            for kernel in self.kept_kernels(node) {
                let readers = self.kept.entry(kernel).or_default();
                *readers = readers.saturating_sub(1);
            }
            self.planned.remove(&node);
            if node != id {
                self.gone.insert(node, ());
            }
        }
        for term in terms {
            *self.reads.or_default(term.root) += 1;
            *self.uses.or_default(term.root) += 1;
            read.push(term.root);
        }
        read.extend(self.reader.graph.node(id).output());
        let turn = LastTurn::of(terms, self.reader.forms).map(Box::new);
        self.planned.insert(id, PlannedForm { form, recipe, count, turn, size });
        read
    }
}
