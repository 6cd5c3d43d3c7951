//! Runs a model slice by slice.
//!
//! Together the slices give what the model gives in one piece: each one reads the tensors that
//! earlier slices made. Only one slice is in the engine at a time, only its weights are read
//! then, and the engine never sees more nodes than it handles well.
//!
//! Knows the engine; where slices end is decided in [`slices`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::OnceLock;

use rayon::prelude::*;

use crate::engine::dialect::{self, widened};
use crate::engine::stage::LoadedSlice;
use crate::engine::tensors::EngineTensor;
#[cfg(feature = "unstable")]
use crate::engine::{Array, tensors};
use crate::engine::{EngineError, Limits};
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::model::Invalid;
use crate::verify::bridge::{Declarations, NodeInputs, declarations, stand_ins};
use crate::verify::float_types::FloatTypes;
use crate::verify::slice_model::{InRows, SliceModel};
use crate::verify::slices::{self, Slice, SliceLimits, SlicedStretch, Stretch};

/// Limits of what the engine gets at a time. It takes a while to start, which is against small
/// slices, and compares each node with those before it, which is against large ones.
pub const SLICE_LIMITS: SliceLimits = SliceLimits { nodes: 64, bytes: 2 << 20 };

/// Number of pieces of a large convolution that run in parallel. Together with the other model's
/// run that is one task more than two processors need; once the shorter run is through, its
/// processor serves the longer one. More pieces would take more memory.
const ROWS_AT_A_TIME: usize = 2;

/// Reasons why a run stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// An entry cannot be decoded.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The engine could not run a slice.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A run of one model, as far as it has come.
#[derive(Debug, Clone)]
pub struct SlicedRun<'w, 'm> {
    /// The model's graphs, the main one first; its functions are inlined.
    graphs: &'w [Graph<'m>],
    graph: &'w Graph<'m>,
    /// Per sample, the tensors that live between two slices.
    samples: Vec<LiveTensors>,
    /// The nodes over which bridges may lead, and must.
    bridges: &'w Bridges,
    /// The float types of the model's tensors.
    types: &'w FloatTypes,
    /// What the file declares of tensors; only bridges ask for it.
    declared: OnceLock<Declarations>,
    /// The nodes over which a bridge led, and why.
    pub bridged: BTreeMap<NodeId, EngineError>,
    /// Bytes of the tensors of all slices that were run, whether or not they came to their end.
    pub spent: usize,
}

/// Nodes over which bridges lead.
#[derive(Debug, Clone, Default)]
pub struct Bridges {
    /// Nodes over which a bridge may lead: the other model has them too.
    pub allowed: HashSet<NodeId>,
    /// Nodes over which a bridge must lead: the other model's run has one there.
    pub wanted: HashSet<NodeId>,
}

/// Tensors that live between two slices.
type LiveTensors = HashMap<ValueId, EngineTensor>;

impl<'w, 'm> SlicedRun<'w, 'm> {
    /// Starts a run of the main graph with `samples`, whose tensors have the names `inputs`.
    /// Where the engine fails at a node that may be bridged, a bridge leads over it.
    ///
    /// # Errors
    /// Returns an error if there is no graph.
    pub fn of(
        graphs: &'w [Graph<'m>],
        types: &'w FloatTypes,
        inputs: &[String],
        samples: &[Vec<EngineTensor>],
        bridges: &'w Bridges,
    ) -> Result<Self, Invalid> {
        let graph = graphs.first().ok_or(Invalid::NoGraph)?;
        let by_id = |sample: &Vec<EngineTensor>| -> LiveTensors {
            let named = inputs.iter().zip(sample);
            named.filter_map(|(name, tensor)| Some((graph.find(name)?, tensor.clone()))).collect()
        };
        let samples = samples.iter().map(by_id).collect();
        let (declared, bridged) = (OnceLock::new(), BTreeMap::new());
        let spent = 0;
        Ok(SlicedRun { graphs, graph, samples, bridges, types, declared, bridged, spent })
    }

    /// Runs the whole model, cut into slices of at most `most`, and returns its outputs for each
    /// sample.
    ///
    /// # Errors
    /// Returns an error if an entry cannot be decoded, or if the engine cannot run a slice or
    /// needs more than `limits` allow.
    #[cfg(feature = "unstable")]
    pub fn outputs(
        mut self,
        most: SliceLimits,
        limits: Limits,
    ) -> Result<Vec<Vec<Array>>, Stopped> {
        let (nodes, wanted) = (slices::live_nodes(self.graph), self.graph.outputs.clone());
        let whole = slices::cut(self.graph, &[Stretch { nodes, wanted }], most)?;
        whole.iter().try_for_each(|stretch| self.pass(stretch, limits))?;
        let outputs = |sample| {
            let outputs = self.graph.outputs.iter().map(|&id| self.tensor(sample, id));
            tensors::into_arrays(outputs.collect::<Result<_, _>>()?, limits)
        };
        Ok((0..self.samples.len()).map(outputs).collect::<Result<_, _>>()?)
    }

    /// The graph that is run.
    pub fn graph(&self) -> &'w Graph<'m> {
        self.graph
    }

    /// Runs one stretch for all samples within `limits`, which include the tensors that wait
    /// between slices.
    ///
    /// # Errors
    /// Returns an error if an entry cannot be decoded, or if the engine cannot run a slice or
    /// needs more than `limits` allow.
    pub fn pass(&mut self, stretch: &SlicedStretch, limits: Limits) -> Result<(), Stopped> {
        stretch.slices.iter().try_for_each(|slice| self.pass_or_bridge(slice, limits))
    }

    /// Takes all samples through a slice: in one piece or, if the engine cannot run it so, node
    /// by node, with bridges over the nodes that it cannot run.
    fn pass_or_bridge(&mut self, slice: &Slice, limits: Limits) -> Result<(), Stopped> {
        let why_not = |&id: &NodeId| {
            let is_wanted = self.bridges.wanted.contains(&id);
            let other = is_wanted.then(|| "the other model does not run it".to_owned());
            dialect::misread(self.graph.node(id)).or(other)
        };
        let failed = match slice.nodes.iter().find_map(why_not) {
            Some(why) => EngineError::Misread(why),
            None => match self.pass_slice(slice, limits) {
                Err(Stopped::Engine(
                    error @ (EngineError::Failed(_) | EngineError::Panicked(_)),
                )) => error,
                other => return other,
            },
        };
        if let [only] = slice.nodes.as_slice() {
            return self.bridge(*only, slice, failed, limits);
        }
        if !slice.nodes.iter().any(|id| self.bridges.allowed.contains(id)) {
            return Err(failed.into());
        }
        let stays = slice.inputs.iter().filter(|input| !slice.last_read.contains(input));
        let wanted = slice.outputs.iter().chain(stays).copied().collect();
        let stretch = Stretch { nodes: slice.nodes.clone(), wanted };
        let single =
            slices::cut(self.graph, &[stretch], SliceLimits { nodes: 1, bytes: usize::MAX })?;
        let mut singles = single.iter().flat_map(|stretch| &stretch.slices);
        singles.try_for_each(|slice| self.pass_or_bridge(slice, limits))
    }

    /// Puts tensors in the place of what a node would make, so that the run goes on behind it.
    fn bridge(
        &mut self,
        id: NodeId,
        slice: &Slice,
        failed: EngineError,
        limits: Limits,
    ) -> Result<(), Stopped> {
        if !self.bridges.allowed.contains(&id) {
            return Err(failed.into());
        }
        for tensors in &mut self.samples {
            let inputs = self.graph.node(id).inputs.iter();
            let inputs: NodeInputs =
                inputs.map(|input| input.and_then(|input| tensors.get(&input).cloned())).collect();
            let declared = self.declared.get_or_init(|| declarations(self.graph));
            let Some(made) = stand_ins(self.graph, id, &inputs, declared, limits)? else {
                return Err(failed.into());
            };
            tensors.extend(made.into_iter().filter(|(output, _)| slice.outputs.contains(output)));
            slice.last_read.iter().for_each(|id| drop(tensors.remove(id)));
        }
        self.bridged.insert(id, failed);
        Ok(())
    }

    /// Returns the tensor `id` of one sample, which the last stretch must have wanted.
    ///
    /// # Errors
    /// Returns an error if nothing made it.
    pub fn tensor(&self, sample: usize, id: ValueId) -> Result<EngineTensor, EngineError> {
        let tensors = self.samples.get(sample);
        let tensor = tensors.and_then(|tensors| tensors.get(&id)).cloned();
        tensor.ok_or_else(|| {
            EngineError::Failed(format!("nothing gives `{}`", self.graph.value(id).name))
        })
    }

    /// Sets `id` to `tensor` in one sample; the run goes on from that.
    pub fn put(&mut self, sample: usize, id: ValueId, tensor: EngineTensor) {
        self.samples.get_mut(sample).map(|tensors| tensors.insert(id, tensor));
    }

    /// Drops the tensors `ids`, which nobody wants behind a stretch.
    pub fn forget(&mut self, ids: &[ValueId]) {
        for tensors in &mut self.samples {
            ids.iter().for_each(|id| drop(tensors.remove(id)));
        }
    }

    /// Returns the number of bytes of the tensors that wait between slices.
    pub fn bytes(&self) -> usize {
        bytes(self.samples.iter().flat_map(LiveTensors::values))
    }

    /// Takes all samples through one slice.
    fn pass_slice(&mut self, slice: &Slice, limits: Limits) -> Result<(), Stopped> {
        let model = self.model(slice)?;
        let most = SLICE_LIMITS.bytes.checked_div(size_of::<f32>()).unwrap_or(SLICE_LIMITS.bytes);
        // No tensor is added or dropped before all samples are through: if the engine fails at
        // one, all of them go node by node.
        let all_made = match model.in_rows(most) {
            Some(rows) => self.made_in_rows(slice, &rows, limits)?,
            None => self.made(slice, model, limits)?,
        };
        for (tensors, made) in self.samples.iter_mut().zip(all_made) {
            tensors.extend(slice.outputs.iter().copied().zip(made));
            slice.last_read.iter().for_each(|id| drop(tensors.remove(id)));
        }
        Ok(())
    }

    /// Runs a slice and returns its outputs for each sample.
    fn made(
        &mut self,
        slice: &Slice,
        model: SliceModel,
        limits: Limits,
    ) -> Result<Vec<Vec<EngineTensor>>, Stopped> {
        let mut live = self.bytes();
        let mut all_made = Vec::with_capacity(self.samples.len());
        let (storage, weights) = (&self.graph.model.storage, model.weights());
        let source = model.source(storage.clone(), limits);
        let mut loaded: Option<LoadedSlice> = None;
        for sample in 0..self.samples.len() {
            let inputs = self.inputs(sample, slice)?;
            let stage = match loaded.take().filter(|stage| stage.allows(&inputs)) {
                Some(stage) => stage,
                None => LoadedSlice::load(source.clone(), &inputs)?,
            };
            check_fit(&stage, 1, &inputs, live, limits)?;
            self.spent = self.spent.saturating_add(stage.bytes);
            let is_last = sample.saturating_add(1) == self.samples.len();
            let made = if is_last {
                stage.run_last(&inputs)?
            } else {
                loaded.insert(stage).run(&inputs)?
            };
            live = live.saturating_add(bytes(made.iter()));
            all_made.push(made);
        }
        storage.has_read(weights);
        Ok(all_made)
    }

    /// Runs a slice that begins with a large convolution, some of its output channels at a time,
    /// and returns its outputs for each sample.
    fn made_in_rows(
        &mut self,
        slice: &Slice,
        InRows { rows, joined, demand }: &InRows,
        limits: Limits,
    ) -> Result<Vec<Vec<EngineTensor>>, Stopped> {
        let mut live = self.bytes();
        let storage = &self.graph.model.storage;
        let source = |model: &SliceModel| model.clone().source(storage.clone(), limits);
        let mut all_made = Vec::with_capacity(self.samples.len());
        for sample in 0..self.samples.len() {
            let inputs = self.inputs(sample, slice)?;
            let demanded = inputs.iter().find(|(name, _)| *name == demand.tensor);
            demand.check(demanded.map(|(_, tensor)| tensor.shape()))?;
            let mut pieces = inputs.clone();
            for some in rows.chunks(ROWS_AT_A_TIME) {
                let run = |row: &SliceModel| {
                    let stage = LoadedSlice::load(source(row), &inputs)?;
                    check_fit(&stage, some.len(), &inputs, live, limits)?;
                    storage.has_read(row.weights());
                    Ok((stage.bytes, stage.run_last(&inputs)?))
                };
                let made: Vec<Result<(usize, Vec<EngineTensor>), EngineError>> =
                    some.par_iter().map(run).collect();
                for (row, made) in some.iter().zip(made) {
                    let (own, made) = made?;
                    self.spent = self.spent.saturating_add(own);
                    live = live.saturating_add(bytes(made.iter()));
                    pieces.extend(row.outputs.iter().cloned().zip(made));
                }
            }
            let stage = LoadedSlice::load(source(joined), &pieces)?;
            check_fit(&stage, 1, &pieces, live, limits)?;
            self.spent = self.spent.saturating_add(stage.bytes);
            let made = stage.run_last(&pieces)?;
            all_made.push(made);
        }
        Ok(all_made)
    }

    /// Returns the tensors of one sample that a slice reads, with their names.
    fn inputs(
        &self,
        sample: usize,
        slice: &Slice,
    ) -> Result<Vec<(String, EngineTensor)>, EngineError> {
        let inputs = slice
            .inputs
            .iter()
            .map(|&id| Ok((self.graph.value(id).name.to_owned(), self.tensor(sample, id)?)));
        inputs.collect()
    }

    /// Returns a slice as a model of its own.
    fn model(&self, slice: &Slice) -> Result<SliceModel, Stopped> {
        let graph = self.graph;
        let (mut nodes, mut constants) = (Vec::new(), Vec::new());
        for &id in &slice.constants {
            match (slices::tensor(graph, id)?, graph.value(id).producer) {
                (Some(tensor), _) => {
                    constants.push(widened::tensor(tensor, &graph.model.storage)?.into())
                }
                (None, Some(node)) => nodes.extend(dialect::nodes(self.graphs, graph, node)?),
                // The engine does not know sparse tensors, and reports this one as missing.
                (None, None) => {}
            }
        }
        for &id in &slice.nodes {
            let words = dialect::nodes(self.graphs, graph, id)?;
            let operand = graph.node(id).input(0).and_then(|operand| self.types.get(operand));
            if operand == Some(Float::F16) {
                nodes.extend(words.into_iter().flat_map(widened::sum));
            } else {
                nodes.extend(words);
            }
        }
        nodes.iter_mut().try_for_each(|node| widened::node(node, &graph.model.storage))?;
        let outputs = slice.outputs.iter().map(|&id| graph.value(id).name.to_owned()).collect();
        Ok(SliceModel { nodes, constants, outputs, opset: graph.model.opset })
    }
}

/// Checks that `limits` have room for `at_a_time` slices like `stage` at once, whose `inputs`
/// are among the `live` bytes.
fn check_fit(
    stage: &LoadedSlice,
    at_a_time: usize,
    inputs: &[(String, EngineTensor)],
    live: usize,
    limits: Limits,
) -> Result<(), EngineError> {
    // `stage.bytes` includes its inputs.
    let inputs = bytes(inputs.iter().map(|(_, tensor)| tensor));
    let own = stage.bytes.saturating_sub(inputs).saturating_mul(at_a_time);
    let bytes = own.saturating_add(live.max(inputs));
    if bytes > limits.bytes { Err(EngineError::TooLarge { bytes }) } else { Ok(()) }
}

fn bytes<'h>(tensors: impl Iterator<Item = &'h EngineTensor>) -> usize {
    tensors.map(EngineTensor::bytes).fold(0, usize::saturating_add)
}
