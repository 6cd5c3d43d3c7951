//! Runs two models on their course, side by side: on the same inputs, with what both compute
//! alike run once, and with a comparison wherever they meet.
//!
//! Knows both graphs and the engine; does not know why the models should agree, nor what follows
//! if they do not.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::engine::tensors::{self, EngineTensor};
use crate::engine::{Array, EngineError, Limits, dialect};
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, NodeId};
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::verify::compare::{ComparedTensor, Tolerances, compared, differing, is_finite};
use crate::verify::course::{Course, Meeting, MeetingRule, TensorPair};
use crate::verify::entries::first_output;
use crate::verify::feeding::BridgedNodes;
use crate::verify::float_types::{ComparedTypes, FloatTypes};
use crate::verify::nature::Saturation;
use crate::verify::pairs::Pairs;
use crate::verify::saturated::saturated;
use crate::verify::seen::Seen;
use crate::verify::sliced_run::{Bridges, SlicedRun, Stopped};
use crate::verify::slices::{self, SliceLimits, SlicedStretch};
use crate::verify::steps::is_explained;
use crate::verify::yardstick::{Interior, TensorSpread, yardstick};

/// Reasons why the models did not run to their ends.
#[derive(Debug)]
pub enum Halted {
    /// An entry cannot be decoded.
    Invalid(Invalid),
    /// The engine could not run the old model, or what both compute alike.
    Old(EngineError),
    /// The engine could not run the new model.
    New(EngineError),
    /// The old model gives NaN or infinity.
    NotFinite,
}

impl From<Invalid> for Halted {
    fn from(error: Invalid) -> Self {
        Halted::Invalid(error)
    }
}

/// The inputs on which both models are run.
#[derive(Debug, Clone, Copy)]
pub struct Fed<'f> {
    /// The names of the inputs.
    pub names: &'f [String],
    /// The inputs of each sample.
    pub samples: &'f [Vec<EngineTensor>],
    /// The nodes over which bridges may lead.
    pub bridges: BridgedNodes,
}

/// Two models, their course, and the limits of their runs.
#[derive(Debug, Clone, Copy)]
pub struct SideBySide<'s, 'o, 'n> {
    /// The old model's graphs, functions inlined.
    pub old: &'s [Graph<'o>],
    /// The new model's graphs, functions inlined.
    pub new: &'s [Graph<'n>],
    /// The float types of the old model's tensors, and of the new one's.
    pub types: [&'s FloatTypes; 2],
    /// The types by which tensors of the old model are compared.
    pub compared_as: &'s ComparedTypes,
    /// What both models have in common.
    pub pairs: &'s Pairs,
    /// The course of both runs.
    pub course: &'s Course,
    /// The limits of the slices into which both are cut.
    pub most: SliceLimits,
    /// The limits of both runs together.
    pub limits: Limits,
    /// The allowed differences.
    pub tolerances: Tolerances,
    /// Bytes of the tensors of the old model's slices, in all runs.
    pub spent: &'s Cell<usize>,
}

/// How many models run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtATime {
    /// Both models.
    Both,
    /// One model after the other.
    One,
}

impl SideBySide<'_, '_, '_> {
    /// Runs both models on all samples: at the same time if there is memory for that, else one
    /// after the other, and else sample by sample.
    ///
    /// # Errors
    /// Returns an error that says which model did not run to its end, and why.
    pub fn run(&self, fed: Fed) -> Result<Seen, Halted> {
        let needs_more = |halted: &Halted| {
            let (Halted::Old(error) | Halted::New(error)) = halted else { return false };
            matches!(error, EngineError::TooLarge { .. } | EngineError::NoMemory { .. })
        };
        match self.run_all(fed, AtATime::Both) {
            Err(halted) if needs_more(&halted) => {}
            other => return other,
        }
        match self.run_all(fed, AtATime::One) {
            Err(halted) if needs_more(&halted) && fed.samples.len() > 1 => {}
            other => return other,
        }
        let mut seen = Seen::default();
        for sample in fed.samples {
            let samples = std::slice::from_ref(sample);
            seen.add(self.run_all(Fed { samples, ..fed }, AtATime::One)?);
        }
        Ok(seen)
    }

    /// Runs both models with bridges over the same nodes: those at which the engine fails in the
    /// old one. Where it fails in the new one alone, the new model does not run.
    fn run_all(&self, fed: Fed, at_a_time: AtATime) -> Result<Seen, Halted> {
        let old = bridges(self.old, &self.pairs.shared_old, fed.bridges);
        let mut new = bridges(self.new, &self.pairs.shared_new, fed.bridges);
        let (mut seen, mut over) = self.run_once(fed, at_a_time, &old, &new)?;
        let kept = self.pairs.kept.iter();
        let bridged = self.bridged(&seen);
        let in_both = kept.filter(|(_, old)| bridged.contains(old)).map(|(&new, _)| new);
        new.wanted = in_both.collect();
        if new.wanted.iter().any(|node| !over.contains_key(node)) {
            (seen, over) = self.run_once(fed, at_a_time, &old, &new)?;
        }
        match over.into_iter().find(|(node, _)| !new.wanted.contains(node)) {
            Some((_, error)) => Err(self.new_fails(fed, self.bridged(&seen).iter(), error)),
            None => Ok(seen),
        }
    }

    /// Returns the nodes of the old model over which bridges led.
    fn bridged(&self, seen: &Seen) -> BTreeSet<NodeId> {
        let nodes = self.old.first().into_iter().flat_map(Graph::nodes);
        let is_bridged = |node: &Node| seen.bridged.contains_key(first_output(&node.proto));
        nodes.filter(|(_, node)| is_bridged(node)).map(|(id, _)| id).collect()
    }

    /// Returns what follows if the engine fails at nodes that only the new model has: the new
    /// model does not run, unless a node of the old one that reads the same was `bridged`.
    /// *Counter-example to dropping that condition*: at a size that a product does not take,
    /// another product that took its place fails as well.
    fn new_fails<'b>(
        &self,
        Fed { bridges, .. }: Fed,
        mut bridged: impl Iterator<Item = &'b NodeId>,
        error: EngineError,
    ) -> Halted {
        let (Some(old), Some(new)) = (self.old.first(), self.new.first()) else {
            return Halted::New(error);
        };
        let added = self.pairs.new.iter().filter(|id| !self.pairs.kept.contains_key(id));
        let fed = |graph: &Graph, id: NodeId| {
            let inputs = graph.node(id).inputs.iter().flatten();
            let fed = inputs.map(|&input| graph.value(input));
            let names = fed.filter(|value| value.initializer.is_none());
            names.map(|value| value.name.to_owned()).collect::<Vec<String>>()
        };
        let read: HashSet<String> = added.flat_map(|&id| fed(new, id)).collect();
        let reads_that = |id: &NodeId| fed(old, *id).iter().any(|name| read.contains(name));
        let fails_alike = bridges == BridgedNodes::Failing && bridged.any(reads_that);
        if fails_alike { Halted::Old(error) } else { Halted::New(error) }
    }

    /// Runs both models once; returns what was seen, and over which nodes of the new model
    /// bridges led, and why.
    fn run_once(
        &self,
        fed: Fed,
        at_a_time: AtATime,
        old_bridges: &Bridges,
        new_bridges: &Bridges,
    ) -> Result<(Seen, BTreeMap<NodeId, EngineError>), Halted> {
        let (Some(old), Some(new)) = (self.old.first(), self.new.first()) else {
            return Err(Invalid::NoGraph.into());
        };
        let old_stretches = slices::cut(old, &self.course.old, self.most)?;
        let new_stretches = slices::cut(new, &self.course.new, self.most)?;
        let nothing = vec![Vec::new(); fed.samples.len()];
        let [old_types, new_types] = self.types;
        let mut runs = TwoRuns {
            models: self,
            old: SlicedRun::of(self.old, old_types, fed.names, fed.samples, old_bridges)?,
            new: SlicedRun::of(self.new, new_types, &[], &nothing, new_bridges)?,
            samples: fed.samples.len(),
        };
        let mut seen = vec![Seen::default(); fed.samples.len()];
        let mut meetings = self.course.meetings.iter();
        for (number, (old, new)) in old_stretches.iter().zip(&new_stretches).enumerate() {
            let before = runs.old.spent;
            let passed = runs.pass(old, new, at_a_time);
            let own = runs.old.spent.saturating_sub(before);
            self.spent.set(self.spent.get().saturating_add(own));
            passed.map_err(|halted| match halted {
                Halted::New(error) => self.new_fails(fed, runs.old.bridged.keys(), error),
                other => other,
            })?;
            if number == 0 {
                runs.hand_over()?;
            } else {
                let meeting = meetings.next();
                for (sample, seen) in seen.iter_mut().enumerate() {
                    match meeting {
                        Some(meeting) => runs.meet(sample, meeting, seen)?,
                        None => runs.arrive(sample, seen)?,
                    }
                }
            }
            runs.old.forget(&old.last_wanted);
            runs.new.forget(&new.last_wanted);
        }
        let graph = runs.old.graph();
        let label = |&id: &NodeId| {
            let node = graph.node(id);
            (first_output(&node.proto).to_owned(), node.label().to_owned())
        };
        let bridged = runs.old.bridged.keys().map(label).collect();
        let mut whole = Seen { bridged, ..Seen::default() };
        seen.into_iter().for_each(|one| whole.add(one));
        Ok((whole, runs.new.bridged))
    }
}

/// Returns the bridges that may lead over nodes that both models have.
fn bridges(graphs: &[Graph], shared: &HashSet<NodeId>, over: BridgedNodes) -> Bridges {
    let is_misread =
        |id: NodeId| graphs.first().is_some_and(|graph| dialect::misread(graph.node(id)).is_some());
    let may_lead = |id: &NodeId| over == BridgedNodes::Failing || is_misread(*id);
    Bridges { allowed: shared.iter().copied().filter(may_lead).collect(), wanted: HashSet::new() }
}

/// The runs of both models.
struct TwoRuns<'r, 's, 'o, 'n> {
    models: &'r SideBySide<'s, 'o, 'n>,
    old: SlicedRun<'s, 'o>,
    new: SlicedRun<'s, 'n>,
    samples: usize,
}

impl TwoRuns<'_, '_, '_, '_> {
    /// Takes both models through a stretch.
    fn pass(
        &mut self,
        old: &SlicedStretch,
        new: &SlicedStretch,
        at_a_time: AtATime,
    ) -> Result<(), Halted> {
        let limits = self.models.limits;
        let within = |bytes: usize| Limits { bytes, ..limits };
        let (before, after) = match at_a_time {
            AtATime::Both => {
                let half = within(limits.bytes / 2);
                rayon::join(|| self.old.pass(old, half), || self.new.pass(new, half))
            }
            AtATime::One => {
                let left = within(limits.bytes.saturating_sub(self.new.bytes()));
                let before = self.old.pass(old, left);
                let left = within(limits.bytes.saturating_sub(self.old.bytes()));
                let runs = before.is_ok();
                (before, if runs { self.new.pass(new, left) } else { Ok(()) })
            }
        };
        halted(before, Halted::Old)?;
        halted(after, Halted::New)
    }

    /// Hands the new run what both models compute alike.
    fn hand_over(&mut self) -> Result<(), Halted> {
        for sample in 0..self.samples {
            for &(old, new) in &self.models.course.handed {
                let tensor = self.old.tensor(sample, old).map_err(Halted::Old)?;
                self.new.put(sample, new, tensor);
            }
        }
        Ok(())
    }

    /// Compares both runs at a meeting, from which both go on with what the old one made.
    fn meet(&mut self, sample: usize, meeting: &Meeting, seen: &mut Seen) -> Result<(), Halted> {
        match &meeting.rule {
            MeetingRule::Step(operands) => self.step(sample, meeting, operands, seen)?,
            MeetingRule::Saturation(saturation, operand) => {
                self.saturation(sample, meeting, (*saturation, *operand), seen)?;
            }
            MeetingRule::Piece(interior) => self.piece(sample, meeting, interior, seen)?,
        }
        for &(old, new) in &meeting.results {
            let tensor = self.old.tensor(sample, old).map_err(Halted::Old)?;
            self.new.put(sample, new, tensor);
        }
        Ok(())
    }

    fn step(
        &self,
        sample: usize,
        meeting: &Meeting,
        operands: &[TensorPair],
        seen: &mut Seen,
    ) -> Result<(), Halted> {
        let tolerances = self.models.tolerances;
        let mut near = Vec::with_capacity(operands.len());
        for &pair in operands {
            let (float, [before, after]) = self.pair(sample, pair)?;
            let name = self.name(pair);
            seen.on_the_way.push(compared(&name, &before, &after, tolerances, float));
            near.push((before, tolerances.of(float)));
        }
        let mut results = Vec::with_capacity(meeting.results.len());
        for &pair in &meeting.results {
            let (float, [before, after]) = self.pair(sample, pair)?;
            let (differ, all) = differing(&before, &after, tolerances.of(float));
            seen.flipped = seen.flipped.saturating_add(differ);
            seen.stepped = seen.stepped.saturating_add(all);
            results.push([before, after]);
        }
        let Some(&first) = meeting.results.first() else { return Ok(()) };
        let graph = self.old.graph();
        let node = graph.value(first.0).producer.map(|node| graph.node(node));
        if !node.is_some_and(|node| is_explained(node, &near, &results)) {
            seen.on_the_way.push(ComparedTensor::failed(&self.name(first)));
        }
        Ok(())
    }

    fn saturation(
        &self,
        sample: usize,
        meeting: &Meeting,
        (saturation, operand): (Saturation, TensorPair),
        seen: &mut Seen,
    ) -> Result<(), Halted> {
        let tolerances = self.models.tolerances;
        let (float, [read, new_read]) = self.pair(sample, operand)?;
        let in_front = compared(&self.name(operand), &read, &new_read, tolerances, float);
        for &pair in &meeting.results {
            let (float, made) = self.pair(sample, pair)?;
            let [before, after] = &made;
            let result = compared(&self.name(pair), before, after, tolerances, float);
            let mut result = saturated(saturation, result, &read, &made, float);
            // The result says no more than its operand does.
            result.error = result.error.max(in_front.error);
            seen.on_the_way.push(result);
        }
        seen.on_the_way.push(in_front);
        Ok(())
    }

    fn piece(
        &self,
        sample: usize,
        meeting: &Meeting,
        interior: &[NodeId],
        seen: &mut Seen,
    ) -> Result<(), Halted> {
        for &(end, new_end) in &meeting.results {
            let (float, [before, after]) = self.pair(sample, (end, new_end))?;
            let spread = |id| {
                let tensor = self.old.tensor(sample, id).map_err(Halted::Old)?;
                Ok::<_, Halted>(Some(Cow::Owned(TensorSpread::of(&self.array(tensor)?))))
            };
            let interior = Interior { nodes: interior, moved: &IdMap::default() };
            let way = yardstick(self.old.graph(), &interior, end, &spread)?;
            let name = self.name((end, new_end));
            let tolerances = self.models.tolerances;
            let comparison = compared(&name, &before, &after, tolerances, float);
            seen.on_the_way.push(comparison.with_rounding_of(way, &before, &after, float));
        }
        Ok(())
    }

    /// Compares both runs at their ends.
    fn arrive(&self, sample: usize, seen: &mut Seen) -> Result<(), Halted> {
        let (course, tolerances) = (&self.models.course, self.models.tolerances);
        for (name, pair) in &course.outputs {
            let (float, [before, after]) = self.pair(sample, *pair)?;
            if !is_finite(&before) {
                return Err(Halted::NotFinite);
            }
            let met = course.met.get(&pair.0).map(|&id| &self.old.graph().value(id).name);
            let met = met.and_then(|met| seen.on_the_way.iter().find(|one| one.name == *met));
            let mut output = compared(name, &before, &after, tolerances, float);
            if let Some(met) = met {
                output.stand_for(met);
            }
            seen.outputs.push(output);
        }
        for &pair in &course.fronts {
            let (float, [before, after]) = self.pair(sample, pair)?;
            let name = self.name(pair);
            seen.on_the_way.push(compared(&name, &before, &after, tolerances, float));
        }
        Ok(())
    }

    /// Returns the type by which a pair of tensors is compared, and the values of both.
    fn pair(
        &self,
        sample: usize,
        (old, new): TensorPair,
    ) -> Result<(Option<Float>, [Array; 2]), Halted> {
        let before = self.old.tensor(sample, old).map_err(Halted::Old)?;
        let after = self.new.tensor(sample, new).map_err(Halted::New)?;
        let float = self.models.compared_as.get(old, before.float());
        Ok((float, [self.array(before)?, self.array(after)?]))
    }

    fn array(&self, tensor: EngineTensor) -> Result<Array, Halted> {
        let arrays = tensors::into_arrays(vec![tensor], self.models.limits).map_err(Halted::Old)?;
        let missing = || Halted::Old(EngineError::Failed("a tensor is missing".to_owned()));
        arrays.into_iter().next().ok_or_else(missing)
    }

    fn name(&self, (old, _): TensorPair) -> String {
        self.old.graph().value(old).name.to_owned()
    }
}

fn halted(
    outcome: Result<(), Stopped>,
    side: impl FnOnce(EngineError) -> Halted,
) -> Result<(), Halted> {
    outcome.map_err(|stopped| match stopped {
        Stopped::Invalid(invalid) => Halted::Invalid(invalid),
        Stopped::Engine(error) => side(error),
    })
}
