//! A slice of a model. It takes tensors that the engine made for the slices before it, and
//! leaves its own with the engine, so that nothing is widened and nothing copied. Kernels are
//! fed as inputs as well, and the last run gives them away: tract reorders a kernel in place if
//! nobody else holds it, whereas it would copy a constant.
//!
//! Knows one slice; the caller decides where a model is cut.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prost::Message;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan::eval;

use crate::engine::guard::guarded;
use crate::engine::limits::EngineError;
use crate::engine::load::{Engine, planned};
use crate::engine::memory;
use crate::engine::parse::parsed;
use crate::engine::source::{Constant, Source};
use crate::engine::tensors::{EngineTensor, has_nan, tensor_of};
use crate::onnx::node::bodies;
use crate::onnx::proto::{ModelProto, NodeProto, ValueInfoProto};

/// A slice of a model that is ready to run.
#[derive(Debug)]
pub struct LoadedSlice {
    engine: Engine,
    /// The inputs that the slice was loaded for.
    inputs: Vec<EngineTensor>,
    /// The kernels that are fed after the inputs.
    kernels: Vec<Arc<Tensor>>,
    /// Per output, whether it is constant, so that it does not depend on the inputs.
    known: Vec<bool>,
    /// Bytes that the tensors take at the same time, including inputs and constants.
    pub bytes: usize,
}

impl LoadedSlice {
    /// Loads a slice for input tensors of these names, which it does not declare itself. The
    /// caller decides whether it takes too much memory.
    ///
    /// # Errors
    /// Returns an error if tract does not support something in the slice or takes too long, or
    /// if the process cannot allocate that much memory.
    pub fn load(source: Source, inputs: &[(String, EngineTensor)]) -> Result<Self, EngineError> {
        let (limits, mut given) = (source.limits, inputs.to_vec());
        let ((plan, known, bytes, kernels), names) = guarded(limits, move || {
            let (source, fed) = kernels_apart(source)?;
            let kernels = fed.iter().map(|(_, kernel)| Arc::clone(&kernel.tensor)).collect();
            given.extend(fed);
            let ((plan, known, bytes), names) = parsed(&source, &given, |model, _| {
                let model = model.into_typed()?;
                let outputs = model.output_outlets()?.iter();
                let facts = outputs.map(|&outlet| Ok(model.outlet_fact(outlet)?.konst.is_some()));
                let known = facts.collect::<TractResult<Vec<bool>>>()?;
                let (plan, bytes) = planned(model, limits)?;
                Ok((plan, known, bytes))
            })?;
            Ok(((plan, known, bytes, kernels), names))
        })?;
        memory::check(bytes)?;
        let names = Arc::new(names);
        let inputs = inputs.iter().map(|(_, tensor)| tensor.clone()).collect();
        Ok(LoadedSlice { engine: Engine { plan, names, limits }, inputs, kernels, known, bytes })
    }

    /// Whether the slice can run with `inputs`, too.
    pub fn allows(&self, inputs: &[(String, EngineTensor)]) -> bool {
        let pairs = || self.inputs.iter().zip(inputs);
        self.inputs.len() == inputs.len() && pairs().all(|(own, (_, its))| own.allows(its))
    }

    /// Runs the slice on inputs that [`Self::allows`] accepts.
    ///
    /// # Errors
    /// As [`Engine::run`], and returns an error if a NaN would be hidden.
    pub fn run(&self, inputs: &[(String, EngineTensor)]) -> Result<Vec<EngineTensor>, EngineError> {
        self.run_with(self.kernels.clone(), inputs)
    }

    /// Runs the slice for the last time, giving its kernels away.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_last(
        mut self,
        inputs: &[(String, EngineTensor)],
    ) -> Result<Vec<EngineTensor>, EngineError> {
        let kernels = std::mem::take(&mut self.kernels);
        self.run_with(kernels, inputs)
    }

    fn run_with(
        &self,
        kernels: Vec<Arc<Tensor>>,
        inputs: &[(String, EngineTensor)],
    ) -> Result<Vec<EngineTensor>, EngineError> {
        let fed = inputs.iter().filter(|(_, input)| !input.is_constant);
        let fed = fed.map(|(_, input)| Arc::clone(&input.tensor)).chain(kernels);
        let fed: TVec<TValue> = fed.map(IntoTValue::into_tvalue).collect();
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

/// Lower bound on the elements of a kernel that is fed; smaller ones are copied in no time.
const LEAST_ELEMENTS: i64 = 1 << 14;

/// Takes the constants out of `source` that are large and used only as the kernel of one
/// convolution with a single group: tract does not require such a kernel to be constant.
fn kernels_apart(mut source: Source) -> TractResult<(Source, Vec<(String, EngineTensor)>)> {
    let is_large = |constant: &Constant| {
        let elements = constant.header.dims.iter().try_fold(1i64, |all, &dim| all.checked_mul(dim));
        elements.is_none_or(|elements| elements >= LEAST_ELEMENTS)
    };
    if !source.constants.iter().any(is_large) {
        return Ok((source, Vec::new()));
    }
    let graph = ModelProto::decode(&source.bytes[..])?.graph.unwrap_or_default();
    let nodes = &graph.node;
    // What a body reads is not listed by its node.
    if nodes.iter().any(|node| bodies(node).next().is_some()) {
        return Ok((source, Vec::new()));
    }
    let mut reads: HashMap<&str, usize> = HashMap::new();
    let outputs = graph.output.iter().map(ValueInfoProto::name);
    let inputs = nodes.iter().flat_map(|node| &node.input).map(String::as_str);
    for input in inputs.chain(outputs) {
        let reads = reads.entry(input).or_default();
        *reads = reads.saturating_add(1);
    }
    let is_single = |node: &&NodeProto| {
        node.op_type() == "Conv"
            && node.attribute.iter().all(|told| told.name() != "group" || told.i() == 1)
    };
    let kernels = nodes.iter().filter(is_single).filter_map(|conv| conv.input.get(1));
    let kernels: HashSet<&str> = kernels.map(String::as_str).collect();
    let (mut fed, mut constants) = (Vec::new(), Vec::new());
    for constant in source.constants {
        let name = constant.name();
        let is_kernel = kernels.contains(name) && reads.get(name) == Some(&1);
        match if is_kernel && is_large(&constant) { tensor_of(&constant)? } else { None } {
            Some(tensor) => {
                let tensor = tensor.into_arc_tensor();
                fed.push((name.to_owned(), EngineTensor { tensor, is_constant: false }));
            }
            None => constants.push(constant),
        }
    }
    source.constants = constants;
    Ok((source, fed))
}

/// Whether tract's operator of this name can turn NaN into a number: it takes the larger or the
/// smaller of two values, and a comparison with NaN is always false.
fn hides_nan(name: &str) -> bool {
    matches!(name, "Max" | "Min" | "MaxPool" | "Reduce<Max>" | "Reduce<Min>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::limits::Limits;
    use crate::engine::tensors::{Array, from_arrays, into_arrays};
    use crate::onnx::float::Float;
    use crate::onnx::{tensor, write};
    use ndarray::ArrayD;

    /// Whether a kernel is given away, lent or shared with another reader, the slice computes
    /// the same as the model in which it is a constant.
    #[test]
    fn a_kernel_that_is_fed_is_that_of_the_model() {
        let (limits, noise) = (Limits::of_reading(), |at: usize| (at % 31) as f64 / 8.0 - 2.0);
        let floats = |shape: &[usize]| {
            let mut next = 0..;
            ArrayD::from_shape_simple_fn(shape, || noise(next.next().unwrap_or(0)))
        };
        let kernel = tensor::from_floats("k", &floats(&[128, 128, 1, 1]), Float::F64);
        let conv = |input: &str, output: &str| {
            write::node("Conv", "", &[input, "k"], output, vec![write::int("group", 1)])
        };
        let size = write::node("Size", "", &["k"], "n", vec![]);
        let float = write::node("Cast", "", &["n"], "f", vec![write::int("to", 11)]);
        let add = write::node("Add", "", &["z", "f"], "y", vec![]);
        for (nodes, fed) in [
            (vec![conv("x", "y")], 1),
            (vec![conv("x", "z"), conv("z", "y")], 0),
            (vec![conv("x", "z"), size, float, add], 0),
        ] {
            let bytes = write::model(17, vec![], nodes.clone(), vec![], &["y"]).encode_to_vec();
            let constants = vec![Constant::from(kernel.clone())];
            let source = Source { constants, ..Source::small(bytes, limits) };
            let x = Array::Float(floats(&[1, 128, 2, 3]));
            let inputs = from_arrays(vec![(x.clone(), 11)], limits).unwrap();
            let inputs = vec![("x".to_owned(), inputs[0].clone())];
            let slice = LoadedSlice::load(source, &inputs).unwrap();
            assert_eq!(slice.kernels.len(), fed);
            let mut runs = vec![slice.run(&inputs).unwrap(), slice.run(&inputs).unwrap()];
            runs.push(slice.run_last(&inputs).unwrap());
            let input = write::double_input("x", 4);
            let whole = write::model(17, vec![input], nodes, vec![kernel.clone()], &["y"]);
            let whole = Source::small(whole.encode_to_vec(), limits);
            let whole = Engine::load(whole, &[vec![1, 128, 2, 3]]).unwrap().run(&[x]).unwrap();
            for run in runs {
                assert_eq!(into_arrays(run, limits).unwrap(), whole);
            }
        }
    }
}
