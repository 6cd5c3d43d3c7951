//! Runs a model to observe its tensors: their sizes, and how large their channels are.
//!
//! Knows the engine and a graph; not what follows from what is seen.

#![allow(clippy::arithmetic_side_effects, reason = "sizes of what is in memory")]

use std::collections::BTreeMap;

use ndarray::{ArrayD, Axis};
use prost::Message;

use crate::engine::{Array, Engine, EngineError, Limits, Source, dialect};
use crate::equalize::placed::SeenShapes;
use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::info;
use crate::onnx::model::{Invalid, Model};
use crate::onnx::proto::ModelProto;
use crate::onnx::storage::Storage;

/// A model that may be changed before it is run.
#[derive(Debug, Clone)]
pub struct RunnableModel {
    /// The model, rewritten for the engine.
    pub proto: ModelProto,
    storage: Storage,
    limits: Limits,
}

/// What is fed at a time: some samples of each input, in the graph's order.
pub type Piece = Vec<Array>;

impl RunnableModel {
    /// Rewrites `model` to be run within `limits`.
    ///
    /// # Errors
    /// Returns an error if an entry cannot be decoded.
    pub fn of(model: &Model, limits: Limits) -> Result<Self, Invalid> {
        let bytes = dialect::model(model)?;
        let proto = ModelProto::decode(bytes).map_err(|error| Invalid::Decode {
            entry: "model",
            at: 0,
            reason: error.to_string(),
        })?;
        Ok(RunnableModel { proto, storage: model.storage.clone(), limits })
    }

    /// Returns the same model with the outputs `names` instead of its own.
    #[must_use]
    pub fn showing(mut self, names: &[&str]) -> Self {
        if let Some(graph) = &mut self.proto.graph {
            graph.output = names.iter().map(|name| info::untyped(name)).collect();
        }
        self
    }

    /// Runs the model on each piece, and passes the number of the piece and the outputs to
    /// `see`.
    ///
    /// # Errors
    /// As [`Engine::load`] and [`Engine::run`].
    pub fn run(
        &self,
        pieces: &[Piece],
        mut see: impl FnMut(usize, Vec<Array>),
    ) -> Result<(), EngineError> {
        let mut loaded: Option<(Vec<Vec<usize>>, Engine)> = None;
        for (number, sample) in pieces.iter().enumerate() {
            let shapes: Vec<Vec<usize>> = sample.iter().map(|one| one.shape().to_vec()).collect();
            let fits = loaded.take().filter(|(known, _)| *known == shapes);
            let (shapes, engine) = match fits {
                Some(fits) => fits,
                None => {
                    let source = Source {
                        bytes: self.proto.encode_to_vec().into(),
                        constants: Vec::new(),
                        storage: self.storage.clone(),
                        limits: self.limits,
                    };
                    let engine = Engine::load(source, &shapes)?;
                    (shapes, engine)
                }
            };
            see(number, engine.run(sample)?);
            loaded = Some((shapes, engine));
        }
        Ok(())
    }
}

/// Statistics of the channels of a tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChannelStatistics {
    /// The least element of each channel, or 0 if all are larger.
    pub least: Vec<f64>,
    /// The largest element of each channel, or 0 if all are less.
    pub largest: Vec<f64>,
    /// The mean of the squares of each channel.
    pub power: Vec<f64>,
    /// The mean over samples of the squared mean over positions, per channel.
    pub steady: Vec<f64>,
    /// The fraction of elements that are not zero, per channel.
    pub nonzero: Vec<f64>,
    /// The number of positions of one channel in one sample.
    pub positions: f64,
    seen: f64,
}

/// Returns the tensors that nodes of the main `graph` compute or that are fed to it, in order,
/// unless nothing reads them or `is_constant` holds.
pub fn tensors(graph: &Graph, is_constant: impl Fn(ValueId) -> bool) -> Vec<ValueId> {
    let live = graph.nodes().filter(|&(id, _)| graph.is_live(id));
    let made = live.flat_map(|(_, node)| node.outputs.iter().flatten().copied());
    let is_read = |id: &ValueId| {
        let value = graph.value(*id);
        value.is_output || !value.readers.is_empty()
    };
    fed(graph).chain(made).filter(is_read).filter(|&id| !is_constant(id)).collect()
}

/// Returns the sizes of `tensors` when `model` runs on the first of `pieces`.
///
/// # Errors
/// As [`RunnableModel::run`].
pub fn shapes(
    model: &RunnableModel,
    graph: &Graph,
    tensors: &[ValueId],
    pieces: &[Piece],
) -> Result<SeenShapes, EngineError> {
    let mut seen = SeenShapes::new();
    let first = pieces.get(..1).unwrap_or_default();
    watched(model, graph, tensors, first, |id, array| {
        if let Array::Float(values) = array {
            seen.insert(id, values.shape().to_vec());
        }
    })?;
    Ok(seen)
}

/// Returns the statistics of each of `tensors`, given with their channel axes, over all of
/// `pieces`.
///
/// # Errors
/// As [`RunnableModel::run`].
pub fn statistics(
    model: &RunnableModel,
    graph: &Graph,
    tensors: &BTreeMap<ValueId, usize>,
    pieces: &[Piece],
) -> Result<BTreeMap<ValueId, ChannelStatistics>, EngineError> {
    let ids: Vec<ValueId> = tensors.keys().copied().collect();
    let mut seen: BTreeMap<ValueId, ChannelStatistics> = BTreeMap::new();
    watched(model, graph, &ids, pieces, |id, array| {
        if let (Array::Float(values), Some(&axis)) = (array, tensors.get(&id)) {
            seen.entry(id).or_default().add(values, axis);
        }
    })?;
    seen.values_mut().for_each(ChannelStatistics::finish);
    Ok(seen)
}

fn watched(
    model: &RunnableModel,
    graph: &Graph,
    tensors: &[ValueId],
    pieces: &[Piece],
    mut see: impl FnMut(ValueId, &Array),
) -> Result<(), EngineError> {
    let fed: Vec<(ValueId, usize)> = fed(graph)
        .enumerate()
        .filter(|(_, id)| tensors.contains(id))
        .map(|(at, id)| (id, at))
        .collect();
    let is_fed = |id: &ValueId| fed.iter().any(|(other, _)| other == id);
    let made: Vec<ValueId> = tensors.iter().copied().filter(|id| !is_fed(id)).collect();
    let names: Vec<&str> = made.iter().map(|&id| graph.value(id).name).collect();
    let showing = model.clone().showing(&names);
    showing.run(pieces, |number, arrays| {
        let given = pieces.get(number);
        for (id, at) in &fed {
            if let Some(one) = given.and_then(|given| given.get(*at)) {
                see(*id, one);
            }
        }
        made.iter().zip(&arrays).for_each(|(&id, array)| see(id, array));
    })
}

/// Returns the graph inputs without a default, in order.
pub fn fed<'g>(graph: &'g Graph) -> impl Iterator<Item = ValueId> + use<'g> {
    graph.inputs().into_iter().filter_map(|(name, _)| graph.find(&name))
}

impl ChannelStatistics {
    /// Adds the sums over one piece. Samples lie along axis 0, unless that is the channel axis.
    fn add(&mut self, values: &ArrayD<f64>, axis: usize) {
        if values.ndim() <= axis {
            return;
        }
        let channels = values.len_of(Axis(axis));
        let samples = if axis == 0 { 1 } else { values.len_of(Axis(0)) };
        for of in [&mut self.least, &mut self.largest, &mut self.power, &mut self.steady] {
            of.resize(channels, 0.0);
        }
        self.nonzero.resize(channels, 0.0);
        let all = values.len().checked_div(channels * samples).unwrap_or_default();
        let positions = all.max(1) as f64;
        self.positions = positions;
        self.seen += samples as f64;
        for (channel, lane) in values.axis_iter(Axis(axis)).enumerate() {
            let of = |list: &mut Vec<f64>, change: &mut dyn FnMut(&mut f64)| {
                if let Some(of_channel) = list.get_mut(channel) {
                    change(of_channel);
                }
            };
            let range = lane.iter().fold((0.0f64, 0.0f64), |(least, most), &value| {
                (least.min(value), most.max(value))
            });
            let power: f64 = lane.iter().map(|value| value * value).sum();
            let nonzero = lane.iter().filter(|value| **value != 0.0).count() as f64;
            let steady: f64 = if axis == 0 {
                lane.sum().powi(2) / positions.powi(2)
            } else {
                let means = lane.axis_iter(Axis(0)).map(|one| one.sum() / positions);
                means.map(|mean| mean * mean).sum()
            };
            of(&mut self.least, &mut |least| *least = least.min(range.0));
            of(&mut self.largest, &mut |most| *most = most.max(range.1));
            of(&mut self.power, &mut |sum| *sum += power / positions);
            of(&mut self.nonzero, &mut |sum| *sum += nonzero / positions);
            of(&mut self.steady, &mut |sum| *sum += steady);
        }
    }

    /// Turns the sums into means.
    fn finish(&mut self) {
        let seen = self.seen.max(1.0);
        for of in [&mut self.power, &mut self.steady, &mut self.nonzero] {
            of.iter_mut().for_each(|sum| *sum /= seen);
        }
    }
}
