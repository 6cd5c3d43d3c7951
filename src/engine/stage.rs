//! A slice of a model: it takes tensors that the engine made for the slices before it, and
//! leaves its own with the engine, so that nothing is widened, and nothing copied.
//!
//! Knows one slice; where a model is cut is for the caller to say.

use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan::eval;

use crate::engine::guard::guarded;
use crate::engine::limits::EngineError;
use crate::engine::load::{Engine, planned};
use crate::engine::memory;
use crate::engine::parse::parsed;
use crate::engine::source::Source;
use crate::engine::tensors::{EngineTensor, has_nan};

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
    /// If tract does not support something in it, or takes too long, or this process cannot take
    /// so much.
    pub fn load(source: Source, inputs: &[(String, EngineTensor)]) -> Result<Self, EngineError> {
        let (limits, given) = (source.limits, inputs.to_vec());
        let ((plan, known, bytes), names) = guarded(limits, move || {
            parsed(&source, &given, |model, _| {
                let model = model.into_typed()?;
                let outputs = model.output_outlets()?.iter();
                let facts = outputs.map(|&outlet| Ok(model.outlet_fact(outlet)?.konst.is_some()));
                let known = facts.collect::<TractResult<Vec<bool>>>()?;
                let (plan, bytes) = planned(model, limits)?;
                Ok((plan, known, bytes))
            })
        })?;
        memory::check(bytes)?;
        let names = Arc::new(names);
        let inputs = inputs.iter().map(|(_, tensor)| tensor.clone()).collect();
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
    /// As [`Engine::run`], and if a value that is no number would be hidden.
    pub fn run(&self, inputs: &[(String, EngineTensor)]) -> Result<Vec<EngineTensor>, EngineError> {
        let fed = inputs.iter().filter(|(_, input)| !input.is_constant);
        let fed: TVec<TValue> =
            fed.map(|(_, input)| Arc::clone(&input.tensor).into_tvalue()).collect();
        let (made, hidden) = self.engine.guarded(move |plan| {
            let mut hidden = false;
            let made = plan.spawn()?.run_plan_with_eval(fed, |context, state, node, inputs| {
                hidden |= hides_nan(&node.op.name()) && inputs.iter().any(|input| has_nan(input));
                eval(context, state, node, inputs)
            })?;
            let made = made.into_iter().map(IntoArcTensor::into_arc_tensor);
            Ok((made.collect::<Vec<_>>(), hidden))
        })?;
        if hidden {
            return Err(EngineError::NotANumber);
        }
        Ok(made
            .into_iter()
            .zip(&self.known)
            .map(|(one, &known)| EngineTensor::made(one, known))
            .collect())
    }
}

/// Whether tract's operator of this name makes numbers of what is none: it takes the larger or
/// the smaller of two values, where NaN is neither.
fn hides_nan(name: &str) -> bool {
    matches!(name, "Max" | "Min" | "MaxPool" | "Reduce<Max>" | "Reduce<Min>")
}
