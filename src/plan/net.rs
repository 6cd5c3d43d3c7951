//! The planner's graph: that of the file, in which some tensors are computed otherwise by now.
//!
//! Every linear tensor has a *form*, the sum of terms that its node is, or that it is planned
//! to become; a tensor is *read* by live nodes and outputs, and goes away with its last reader.
//! As a plan is made on what was planned before, nothing is left to find in the file that is
//! written: it is this graph.
//!
//! Knows meanings, forms and costs; not which tensors should be computed otherwise.

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

/// How a tensor is computed otherwise.
#[derive(Debug, Clone)]
pub struct PlannedForm {
    /// A convolution per weighted term, the rest added.
    pub form: Form<Geometry>,
    /// The number of its steps.
    pub recipe: usize,
    /// What the new nodes cost, if they read their roots as these are.
    pub count: Count,
    /// The Transpose that they end with.
    pub turn: Option<Box<LastTurn>>,
    /// Nodes of the file that its terms stand for.
    pub size: usize,
}

/// See the module's documentation.
pub struct Net<'r, 'g, 'm> {
    /// The graph of the file.
    pub reader: &'r Reader<'g, 'm>,
    /// What its nodes compute.
    pub meanings: &'r Meanings,
    /// Whether branches may be kept apart from their kernels, if these are less exact with them.
    pub keeps_branches: bool,
    /// Of each linear node as it stands.
    pub(super) forms: Table<NodeId, Form<Geometry>>,
    /// What a node's constants and multiply-adds cost, if it has any.
    costs: IdMap<NodeId, Count>,
    pub(super) planned: IdMap<NodeId, PlannedForm>,
    /// The steps to what is planned.
    pub recipes: Recipes,
    /// Nodes that nothing needs any more.
    pub(super) gone: Table<NodeId, ()>,
    /// Nodes that compute the shapes of views: sizes, not elements of tensors.
    of_shapes: IdSet<NodeId>,
    /// How often live nodes and outputs read a tensor.
    reads: Table<ValueId, usize>,
    /// How often any node of the file does that is needed, and outputs: those too that only
    /// constants are computed from.
    pub(super) uses: Table<ValueId, usize>,
    /// Kernels that go away with their last reader only, and how often live nodes read them as
    /// they stand.
    pub(super) kept: IdMap<ValueId, usize>,
}

impl<'r, 'g, 'm> Net<'r, 'g, 'm> {
    /// The graph as it stands in the file. A kernel goes away with each of its readers, as if
    /// each had a copy; those of `kept` go away with the last one.
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
            // Asked only where a number shifts several channels.
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

    /// Tensors of which nothing but constants is computed are used, and not read: the shape of a
    /// zero bias, a cast to the type of an activation go with what reads them.
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

    /// What node `id` reads as it stands of what goes away with its last reader only.
    pub(super) fn kept_kernels(&self, id: NodeId) -> Vec<ValueId> {
        if self.kept.is_empty() || self.is_planned(id) {
            return Vec::new();
        }
        let sources = self.reader.graph.uses(id).map(|value| self.meanings.source(value));
        sources.filter(|source| self.kept.contains_key(source)).collect()
    }

    /// Elements of the weights, biases and statistics that go away with node `id`, which makes
    /// so many `channels`, or is behind a view of a tensor that has so many. A number that
    /// shifts several of them is a parameter of each: of a bias, it is the same again.
    fn parameters(&self, id: NodeId, map: &LinearOp, channels: usize) -> f64 {
        let repeated = map.repeated_shifts(channels) as f64;
        // Pads, bounds and scalars are no parameters.
        if !matches!(map, LinearOp::Conv { .. } | LinearOp::Diagonal { .. }) {
            return repeated;
        }
        let kept = self.kept_kernels(id);
        let inputs = self.reader.graph.node(id).inputs.iter().flatten().copied();
        let constants = inputs.filter(|&value| self.reader.constants.contains(value));
        let own = constants.filter(|&value| !kept.contains(&self.meanings.source(value)));
        own.map(|value| self.reader.constants.elements(value)).sum::<f64>() + repeated
    }

    /// What node `id` of the file was read as a map of, if other nodes are between: even if
    /// these are computed otherwise, it is needed.
    fn read_behind_consumed(&self, id: NodeId) -> impl Iterator<Item = ValueId> + use<> {
        let consumes = !self.meanings.consumed(id).is_empty();
        let meaning = self.meanings.get(id).filter(|_| consumes);
        let operands = meaning.map(Meaning::operands).unwrap_or_default();
        let sources = operands.into_iter().map(|operand| self.meanings.source(operand));
        sources.collect::<Vec<_>>().into_iter()
    }

    /// Whether the node is there and makes something of the tensors that are read.
    pub fn is_live(&self, id: NodeId) -> bool {
        self.meanings.get(id).is_some() && !self.gone.contains(id)
    }

    /// The live linear nodes, in topological order of what they make.
    pub fn tensors(&self) -> impl Iterator<Item = (NodeId, ValueId)> {
        let nodes = self.reader.graph.nodes().filter(|&(id, _)| self.forms.contains(id));
        let live = nodes.filter(|&(id, _)| self.is_live(id));
        live.filter_map(|(id, node)| Some((id, node.output()?)))
    }

    /// The node whose form `value` has; `None` if it has none.
    pub fn former(&self, value: ValueId) -> Option<NodeId> {
        let producer = self.reader.graph.value(value).producer?;
        self.forms.contains(producer).then_some(producer)
    }

    /// Whether what a change of what node `id` reads means for what it makes is a matter of the
    /// search: it is linear, hands on elements, or nothing but constants is computed of it.
    pub fn connects(&self, id: NodeId) -> bool {
        self.forms.contains(id) || self.passes_on(id) || !self.is_live(id)
    }

    /// What node `id` reads as it stands.
    pub fn read_in_file(&self, id: NodeId) -> impl Iterator<Item = ValueId> {
        self.reader.graph.uses(id).chain(self.read_behind_consumed(id))
    }

    /// The form of what node `id` makes, as it is computed now.
    pub fn form(&self, id: NodeId) -> Option<&Form<Geometry>> {
        self.planned.get(&id).map(|planned| &planned.form).or_else(|| self.forms.get(id))
    }

    /// The terms of that form.
    pub fn terms(&self, id: NodeId) -> &[Term<Geometry>] {
        self.form(id).map(|form| form.terms.as_slice()).unwrap_or_default()
    }

    /// How many nodes of the file compute what node `id` makes from the roots of its form.
    pub fn size(&self, id: NodeId) -> usize {
        self.planned.get(&id).map_or(1, |planned| planned.size)
    }

    /// How often live nodes and outputs read `value`.
    pub fn reads(&self, value: ValueId) -> usize {
        self.reads.get(value).copied().unwrap_or(0)
    }

    /// Whether node `id`'s tensor is computed otherwise.
    pub fn is_planned(&self, id: NodeId) -> bool {
        self.planned.contains_key(&id)
    }

    /// What is computed otherwise, in topological order.
    pub fn planned(&self) -> Vec<(NodeId, &PlannedForm)> {
        let mut planned: Vec<_> = self.planned.iter().map(|(&id, planned)| (id, planned)).collect();
        planned.sort_unstable_by_key(|&(id, _)| id);
        planned
    }

    /// Tells of what node `id` reads, and through which term if it is linear.
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

    /// The kernel of node `id` as it stands, if nodes compute it.
    pub fn computed_kernel(&self, id: NodeId) -> Option<ValueId> {
        computed_kernel(self.reader, self.meanings, id).filter(|_| !self.is_planned(id))
    }

    /// What node `id` of the file is the sum of, the first of it, if it is linear.
    pub(super) fn term_in_file(&self, id: NodeId) -> Option<&Term<Geometry>> {
        self.forms.get(id)?.terms.first()
    }

    /// What node `id` costs as it stands, or as it is planned. Engines leave out another name
    /// of a tensor, and next to what computes elements, what computes a shape is nothing.
    pub fn count(&self, id: NodeId) -> Count {
        match self.planned.get(&id) {
            Some(planned) => self.turned_back(&planned.form.terms).unwrap_or(planned.count),
            None if self.is_alias(id) || self.of_shapes.contains(&id) => Count::default(),
            None if self.is_byproduct(id) => Count::default(),
            None => self.count_in_file(id),
        }
    }

    /// Whether node `id` hands on elements of a tensor, without a form.
    pub(super) fn passes_on(&self, id: NodeId) -> bool {
        self.is_alias(id) || matches!(self.meanings.get(id), Some(Meaning::Parted(..)))
    }

    /// Whether node `id` makes means, as it stands in the file.
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

    /// Whether nothing but constants is computed of the node that makes `value`.
    pub(super) fn is_computed(&self, value: ValueId) -> bool {
        let producer = self.reader.graph.value(value).producer;
        producer.is_some_and(|producer| !self.is_live(producer))
    }

    /// Nodes of which nothing but constants is computed, and that go with `values`: `lost` says how
    /// many uses of each tensor are gone, and takes those that go with the dead nodes.
    pub(super) fn dead_constants(
        &self,
        values: Vec<ValueId>,
        lost: &mut IdMap<ValueId, usize>,
    ) -> DeadConstants {
        DeadConstants::of(self.reader, values, &|id| self.is_live(id), &self.uses, lost)
    }

    /// Computes `id`'s tensor by this form from now on, which was found in these steps; returns the
    /// tensors that are computed otherwise or read more or less often since.
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
