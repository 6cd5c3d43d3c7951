//! Tensors that stay the engine's own on their way from one slice of a model to the
//! next: nothing is widened, and nothing copied.

use std::sync::Arc;

use tract_onnx::pb;
use tract_onnx::prelude::*;

use crate::engine::guard::guarded;
use crate::engine::{Array, Engine, EngineError, Limits, Source, footprint, from_tract, parsed};

/// A tensor as tract has it. Clones share it.
#[derive(Debug, Clone)]
pub struct EngineTensor {
    pub(super) tensor: Arc<Tensor>,
    /// Whether the next model takes it as a constant.
    pub(super) is_constant: bool,
}

/// tract wants to know shapes, bounds and scales when it loads a model. In one piece with
/// what computes them it would work them out: integers and lists of so many elements are
/// handed on as constants.
const MAX_CONSTANT: usize = 64;

impl EngineTensor {
    /// A tensor that is made by a model, which `is_known` if that told it without running.
    fn made(tensor: Arc<Tensor>, is_known: bool) -> Self {
        let may_be_wanted = !tensor.datum_type().is_float() || tensor.rank() < 2;
        let is_constant = is_known || (may_be_wanted && tensor.len() <= MAX_CONSTANT);
        EngineTensor { tensor, is_constant }
    }

    /// How many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.tensor.len().saturating_mul(self.tensor.datum_type().size_of())
    }

    /// Whether a model that was loaded for this tensor can run with `other`.
    fn allows(&self, other: &EngineTensor) -> bool {
        let (own, its) = (&self.tensor, &other.tensor);
        let is_alike = own.datum_type() == its.datum_type() && own.shape() == its.shape();
        let is_same = || Arc::ptr_eq(own, its) || own == its;
        is_alike && self.is_constant == other.is_constant && (!self.is_constant || is_same())
    }
}

/// Inputs of a model, each with its element type (`TensorProto.DataType`), as the engine
/// holds them.
///
/// # Errors
/// If tract does not know a type.
pub fn hold(inputs: Vec<(Array, i32)>, limits: Limits) -> Result<Vec<EngineTensor>, EngineError> {
    guarded(limits, move || {
        let hold = |(array, data_type): (Array, i32)| {
            let wanted = pb::tensor_proto::DataType::try_from(data_type)?.try_into()?;
            let tensor: Tensor = match array {
                Array::Float(values) => values.into(),
                Array::Int(values) => values.into(),
            };
            let tensor = tensor.cast_to_dt(wanted)?.into_owned().into_arc_tensor();
            Ok(EngineTensor { tensor, is_constant: false })
        };
        inputs.into_iter().map(hold).collect()
    })
}

/// Tensors in numbers that can be compared.
///
/// # Errors
/// If one does not hold numbers.
pub fn arrays(tensors: Vec<EngineTensor>, limits: Limits) -> Result<Vec<Array>, EngineError> {
    guarded(limits, move || tensors.iter().map(|held| from_tract(&held.tensor)).collect())
}

/// A slice of a model that is ready to run.
#[derive(Debug)]
pub struct LoadedSlice {
    engine: Engine,
    /// What it was loaded for.
    inputs: Vec<EngineTensor>,
    /// Per output, whether it does not depend on what is fed.
    known: Vec<bool>,
    /// How many bytes its tensors take at a time, what it is fed and its constants included.
    pub bytes: usize,
}

impl LoadedSlice {
    /// Loads a slice for tensors of these names, which it does not declare itself. Whether
    /// it takes too much memory is for the caller to say.
    ///
    /// # Errors
    /// If tract does not support something in it, or takes too long.
    pub fn load(source: Source, inputs: &[(String, EngineTensor)]) -> Result<Self, EngineError> {
        let (limits, given) = (source.limits, inputs.to_vec());
        let ((plan, known, bytes), names) = guarded(limits, move || {
            parsed(&source, &given, |model, _| {
                let model = model.into_typed()?;
                let outputs = model.output_outlets()?.iter();
                let facts = outputs.map(|&outlet| Ok(model.outlet_fact(outlet)?.konst.is_some()));
                let known = facts.collect::<TractResult<Vec<bool>>>()?;
                let bytes = footprint(&model)?;
                Ok((model.into_runnable()?, known, bytes))
            })
        })?;
        let names = Arc::new(names);
        let inputs = inputs.iter().map(|(_, held)| held.clone()).collect();
        Ok(LoadedSlice { engine: Engine { plan, names, limits }, inputs, known, bytes })
    }

    /// Whether it can run with `inputs` too.
    pub fn allows(&self, inputs: &[(String, EngineTensor)]) -> bool {
        let pairs = || self.inputs.iter().zip(inputs);
        self.inputs.len() == inputs.len() && pairs().all(|(own, (_, its))| own.allows(its))
    }

    /// Runs it on inputs that it allows.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run(&self, inputs: &[(String, EngineTensor)]) -> Result<Vec<EngineTensor>, EngineError> {
        let fed = inputs.iter().filter(|(_, held)| !held.is_constant);
        let fed: TVec<TValue> =
            fed.map(|(_, held)| Arc::clone(&held.tensor).into_tvalue()).collect();
        let made = self.engine.guarded(move |plan| {
            Ok(plan.run(fed)?.into_iter().map(IntoArcTensor::into_arc_tensor).collect::<Vec<_>>())
        })?;
        Ok(made
            .into_iter()
            .zip(&self.known)
            .map(|(one, &known)| EngineTensor::made(one, known))
            .collect())
    }
}
