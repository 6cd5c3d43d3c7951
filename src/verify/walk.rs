//! A model that is run slice by slice.
//!
//! What the slices give together is what the model gives in one piece: each gets the
//! tensors that those before it made. Only one of them is in the engine at a time, only
//! its weights are read then, and the engine never sees more nodes than it handles well.

use std::collections::HashMap;

use prost::Message;

use super::feed::Random;
use super::slices::{self, Most, Slice};
use crate::engine::held::{self, Held, Stage};
use crate::engine::{Array, EngineError, Limits, Source, normal};
use crate::onnx::build;
use crate::onnx::graph::{Graph, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::proto::TensorProto;
use crate::onnx::tensor::Float;

/// What the engine gets at a time. It takes a while to begin, and compares each node with
/// those before it.
pub const MOST: Most = Most { nodes: 64, bytes: 8 << 20 };

/// Weights of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// As they are stored.
    AsStored,
    /// Every other one of stored kernels and matrices changed in the last bit.
    OtherLastBits,
}

/// Why a walk did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// An entry cannot be decoded.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The engine could not run it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// One way through a model.
#[derive(Debug, Clone, Copy)]
pub struct Walk<'w, 'm> {
    /// The model's graphs, the main one first; its functions are inlined.
    pub graphs: &'w [Graph<'m>],
    /// See there.
    pub weights: Weights,
    /// How it is cut.
    pub most: Most,
    /// What it may take.
    pub limits: Limits,
}

/// Tensors between slices.
type Tensors = HashMap<ValueId, Held>;

impl Walk<'_, '_> {
    /// The outputs of the main graph for each of `samples`, whose tensors are called
    /// `inputs`.
    ///
    /// # Errors
    /// If an entry cannot be decoded, or the engine cannot run it or needs too much.
    pub fn outputs(
        &self,
        inputs: &[String],
        samples: &[Vec<Held>],
    ) -> Result<Vec<Vec<Array>>, Stopped> {
        match self.all_at_once(inputs, samples) {
            // Side by side, they hold more tensors.
            Err(Stopped::Engine(EngineError::TooLarge { .. })) if samples.len() > 1 => {
                let one = |sample| self.all_at_once(inputs, std::slice::from_ref(sample));
                let all: Vec<_> = samples.iter().map(one).collect::<Result<_, _>>()?;
                Ok(all.into_iter().flatten().collect())
            }
            other => other,
        }
    }

    fn all_at_once(
        &self,
        inputs: &[String],
        samples: &[Vec<Held>],
    ) -> Result<Vec<Vec<Array>>, Stopped> {
        let Some(graph) = self.graphs.first() else { return Err(Invalid::NoGraph.into()) };
        let fed = |sample: &Vec<Held>| -> Tensors {
            let named = inputs.iter().zip(sample);
            named.filter_map(|(name, held)| Some((graph.find(name)?, held.clone()))).collect()
        };
        let mut samples: Vec<Tensors> = samples.iter().map(fed).collect();
        for slice in &slices::cut(graph, self.most)? {
            self.pass(graph, slice, &mut samples)?;
        }
        let outputs = |tensors: &Tensors| -> Result<Vec<Array>, Stopped> {
            let outputs = graph.outputs.iter().map(|&id| named(graph, tensors, id));
            let outputs =
                outputs.map(|output| Ok(output?.1)).collect::<Result<_, EngineError>>()?;
            Ok(held::arrays(outputs, self.limits)?)
        };
        samples.iter().map(outputs).collect()
    }

    /// Takes all samples through one slice.
    fn pass(&self, graph: &Graph, slice: &Slice, samples: &mut [Tensors]) -> Result<(), Stopped> {
        let mut held = bytes(samples.iter().flat_map(Tensors::values));
        let source = self.source(graph, slice)?;
        let mut loaded: Option<Stage> = None;
        for tensors in samples {
            let inputs = slice.inputs.iter().map(|&id| named(graph, tensors, id));
            let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
            let stage = match loaded.take().filter(|stage| stage.allows(&inputs)) {
                Some(stage) => stage,
                None => Stage::load(source.clone(), &inputs)?,
            };
            // What it is fed is counted on both sides.
            let fed = bytes(inputs.iter().map(|(_, held)| held));
            let needed = stage.bytes.saturating_add(held.saturating_sub(fed));
            if needed > self.limits.bytes {
                return Err(EngineError::TooLarge { bytes: needed }.into());
            }
            let before = bytes(tensors.values());
            tensors.extend(slice.outputs.iter().copied().zip(stage.run(&inputs)?));
            slice.last_read.iter().for_each(|id| drop(tensors.remove(id)));
            held = held.saturating_sub(before).saturating_add(bytes(tensors.values()));
            loaded = Some(stage);
        }
        Ok(())
    }

    /// A slice as a model of its own.
    fn source(&self, graph: &Graph, slice: &Slice) -> Result<Source, Stopped> {
        let (mut nodes, mut constants) = (Vec::new(), Vec::new());
        for &id in &slice.constants {
            match (slices::tensor(graph, id)?, graph.value(id).producer) {
                (Some(tensor), _) => constants.push(self.weight(tensor)),
                (None, Some(node)) => nodes.extend(normal::nodes(self.graphs, graph, node)?),
                // The engine does not know sparse tensors, and misses it.
                (None, None) => {}
            }
        }
        for &node in &slice.nodes {
            nodes.extend(normal::nodes(self.graphs, graph, node)?);
        }
        let outputs = slice.outputs.iter().map(|&id| graph.value(id).name.as_str());
        let outputs: Vec<&str> = outputs.collect();
        let model = build::model(graph.model.opset, Vec::new(), nodes, Vec::new(), &outputs);
        let (bytes, storage) = (model.encode_to_vec().into(), graph.model.storage.clone());
        Ok(Source { bytes, constants, storage, limits: self.limits })
    }

    fn weight(&self, tensor: TensorProto) -> TensorProto {
        match self.weights {
            Weights::AsStored => tensor,
            Weights::OtherLastBits => with_other_last_bits(tensor),
        }
    }
}

fn bytes<'h>(tensors: impl Iterator<Item = &'h Held>) -> usize {
    tensors.map(Held::bytes).fold(0, usize::saturating_add)
}

fn named(graph: &Graph, tensors: &Tensors, id: ValueId) -> Result<(String, Held), EngineError> {
    let name = &graph.value(id).name;
    let held = tensors.get(&id).cloned();
    let held = held.ok_or_else(|| EngineError::Failed(format!("nothing gives `{name}`")))?;
    Ok((name.clone(), held))
}

/// `weight` with every other number changed in the last bit, if it is a kernel or matrix;
/// always the same ones.
fn with_other_last_bits(mut weight: TensorProto) -> TensorProto {
    let float = Float::from_onnx(weight.data_type()).filter(|_| weight.dims.len() > 1);
    let Some(float) = float else { return weight };
    let name = weight.name().bytes();
    // Any number that is not the same for all will do.
    let seed = name.fold(2u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let mut random = Random::new(seed);
    if let Some(raw) = weight.raw_data.as_mut() {
        let mut new = raw.to_vec();
        // Little endian: the last bit of a number is the lowest of its first byte.
        for lowest in new.iter_mut().step_by(float.size()) {
            *lowest ^= u8::from(random.uniform() > 0.0);
        }
        *raw = new.into();
    }
    for value in &mut weight.float_data {
        *value = f32::from_bits(value.to_bits() ^ u32::from(random.uniform() > 0.0));
    }
    weight
}
