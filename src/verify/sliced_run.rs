//! A model that is run slice by slice.
//!
//! What the slices give together is what the model gives in one piece: each gets the
//! tensors that those before it made. Only one of them is in the engine at a time, only
//! its weights are read then, and the engine never sees more nodes than it handles well.
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

/// What the engine gets at a time. It takes a while to begin, and compares each node with
/// those before it.
pub const SLICE_LIMITS: SliceLimits = SliceLimits { nodes: 64, bytes: 2 << 20 };

/// So many pieces of a large convolution are run side by side. With the other model that is one
/// more than two processors need, which the shorter of both models leaves to the longer one; more
/// would take more memory.
const ROWS_AT_A_TIME: usize = 2;

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// An entry cannot be decoded.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The engine could not run it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// One way through a model, and how far it came.
#[derive(Debug, Clone)]
pub struct SlicedRun<'w, 'm> {
    /// The model's graphs, the main one first; its functions are inlined.
    graphs: &'w [Graph<'m>],
    graph: &'w Graph<'m>,
    /// Per sample the tensors that live between two slices.
    samples: Vec<LiveTensors>,
    /// Where bridges may lead, and must.
    bridges: &'w Bridges,
    /// The types of its tensors.
    types: &'w FloatTypes,
    /// What the file declares of tensors; only bridges ask.
    declared: OnceLock<Declarations>,
    /// Those over which one led, and why.
    pub bridged: BTreeMap<NodeId, EngineError>,
    /// Bytes of the tensors of all slices that were run, whether they came to their end or not.
    pub spent: usize,
}

/// Nodes over which bridges lead.
#[derive(Debug, Clone, Default)]
pub struct Bridges {
    /// Where they may: the other model has the node too.
    pub allowed: HashSet<NodeId>,
    /// Where they must: the other model's run has one there.
    pub wanted: HashSet<NodeId>,
}

/// Tensors that live between two slices.
type LiveTensors = HashMap<ValueId, EngineTensor>;

impl<'w, 'm> SlicedRun<'w, 'm> {
    /// A run of the main graph that begins with `samples`, whose tensors are called `inputs`.
    /// Where the engine fails at a node that may be bridged, a bridge leads over it.
    ///
    /// # Errors
    /// If there is no graph.
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

    /// What the whole model makes of each sample, cut like that.
    ///
    /// # Errors
    /// If an entry cannot be decoded, or the engine cannot run it or needs too much.
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

    /// Runs one stretch for all samples; `limits` are those of this run, of which tensors
    /// that wait in it take their part.
    ///
    /// # Errors
    /// If an entry cannot be decoded, or the engine cannot run it or needs too much.
    pub fn pass(&mut self, stretch: &SlicedStretch, limits: Limits) -> Result<(), Stopped> {
        stretch.slices.iter().try_for_each(|slice| self.pass_or_bridge(slice, limits))
    }

    /// Takes all samples through a slice: in one piece, or, if the engine cannot, node by node
    /// and over those that it cannot run.
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

    /// Goes on behind a node with tensors that stand for what it makes.
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

    /// The tensor `id` of one sample, which the stretch before wanted.
    ///
    /// # Errors
    /// If nothing made it.
    pub fn tensor(&self, sample: usize, id: ValueId) -> Result<EngineTensor, EngineError> {
        let tensors = self.samples.get(sample);
        let tensor = tensors.and_then(|tensors| tensors.get(&id)).cloned();
        tensor.ok_or_else(|| {
            EngineError::Failed(format!("nothing gives `{}`", self.graph.value(id).name))
        })
    }

    /// Goes on with `tensor` as `id` in one sample.
    pub fn put(&mut self, sample: usize, id: ValueId, tensor: EngineTensor) {
        self.samples.get_mut(sample).map(|tensors| tensors.insert(id, tensor));
    }

    /// Forgets what nobody wants behind a stretch.
    pub fn forget(&mut self, ids: &[ValueId]) {
        for tensors in &mut self.samples {
            ids.iter().for_each(|id| drop(tensors.remove(id)));
        }
    }

    /// Bytes of the tensors that wait.
    pub fn bytes(&self) -> usize {
        bytes(self.samples.iter().flat_map(LiveTensors::values))
    }

    /// Takes all samples through one slice.
    fn pass_slice(&mut self, slice: &Slice, limits: Limits) -> Result<(), Stopped> {
        let model = self.model(slice)?;
        let most = SLICE_LIMITS.bytes.checked_div(size_of::<f32>()).unwrap_or(SLICE_LIMITS.bytes);
        // Nothing is put or forgotten before all samples are through: if the engine fails at
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

    /// What a slice makes of each sample.
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

    /// What a slice that begins with a large convolution makes of each sample, some of its channels
    /// at a time.
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

    /// What a slice reads of one sample.
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

    /// A slice as a model of its own.
    fn model(&self, slice: &Slice) -> Result<SliceModel, Stopped> {
        let graph = self.graph;
        let (mut nodes, mut constants) = (Vec::new(), Vec::new());
        for &id in &slice.constants {
            match (slices::tensor(graph, id)?, graph.value(id).producer) {
                (Some(tensor), _) => {
                    constants.push(widened::tensor(tensor, &graph.model.storage)?.into())
                }
                (None, Some(node)) => nodes.extend(dialect::nodes(self.graphs, graph, node)?),
                // The engine does not know sparse tensors, and misses it.
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

/// Whether there is room for what so many slices like this take `at_a_time`, whose `inputs` are
/// among what is `live`.
fn check_fit(
    stage: &LoadedSlice,
    at_a_time: usize,
    inputs: &[(String, EngineTensor)],
    live: usize,
    limits: Limits,
) -> Result<(), EngineError> {
    // The slice counts its inputs too.
    let inputs = bytes(inputs.iter().map(|(_, tensor)| tensor));
    let own = stage.bytes.saturating_sub(inputs).saturating_mul(at_a_time);
    let bytes = own.saturating_add(live.max(inputs));
    if bytes > limits.bytes { Err(EngineError::TooLarge { bytes }) } else { Ok(()) }
}

fn bytes<'h>(tensors: impl Iterator<Item = &'h EngineTensor>) -> usize {
    tensors.map(EngineTensor::bytes).fold(0, usize::saturating_add)
}
