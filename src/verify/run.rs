//! The run of the whole model: as it was read, and as it will be written.
//!
//! Knows files and the engine, and nothing of blocks.

use crate::engine::tensors::{self, EngineTensor};
use crate::engine::{Array, EngineError, Limits, dialect};
use crate::onnx::graph::Graph;
use crate::onnx::info;
use crate::onnx::model::{Invalid, Model};
use crate::onnx::proto::ValueInfoProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::schema::graph_field;
use crate::options::RunOptions;
use crate::setting::Setting;
use crate::verify::compare::relative_error;
use crate::verify::inputs::Random;
use crate::verify::last_bits::WeightRounding;
use crate::verify::outcome::{NotRun, Outcome};
use crate::verify::sliced_run::{MOST, SlicedRun, Stopped};

/// What the two runs gave.
enum Compared {
    Errors(Vec<(String, f64)>, Box<OldRun>),
    NotFinite,
    Broken(EngineError),
}

/// A run of the old model: its inputs, and what it makes of them.
struct OldRun {
    names: Vec<String>,
    samples: Vec<Vec<EngineTensor>>,
    expected: Outputs,
}

/// Per sample, the outputs of a model.
type Outputs = Vec<Vec<Array>>;

/// Fused weights are rounded anew, and so are sums of thousands of products: the
/// difference may be so many times what new last bits of the old weights alone make.
const ROUNDING_MARGIN: f64 = 16.0;

/// Of a model whose rounding explains more than this, no comparison says anything.
const MOST_ROUNDING: f64 = 0.05;

/// One graph input that has to be fed.
struct RunInput {
    name: String,
    data_type: i32,
    shape: Vec<usize>,
    given: Option<Array>,
}

/// As [`run_graphs`], of models whose graphs were not read yet.
///
/// # Errors
/// If an entry of either model cannot be decoded.
#[cfg(feature = "unstable")]
pub fn run(
    old: &Model,
    new: &Model,
    options: &RunOptions,
    limits: Limits,
) -> Result<Outcome, Invalid> {
    run_graphs((old, &Graph::read_all(old)?), (new, &Graph::read_all(new)?), options, limits)
}

/// Runs old and new model, whose graphs were read, on the same inputs.
///
/// # Errors
/// If an entry of either model cannot be decoded.
pub fn run_graphs(
    (old, old_graphs): (&Model, &[Graph]),
    (new, new_graphs): (&Model, &[Graph]),
    options: &RunOptions,
    limits: Limits,
) -> Result<Outcome, Invalid> {
    let (old_inlined, new_inlined) = (dialect::inlined(old)?, dialect::inlined(new)?);
    let old_inlined = old_inlined.as_ref().map(Graph::read_all).transpose()?;
    let new_inlined = new_inlined.as_ref().map(Graph::read_all).transpose()?;
    let old_graphs = old_inlined.as_deref().unwrap_or(old_graphs);
    let new_graphs = new_inlined.as_deref().unwrap_or(new_graphs);
    let Some(graph) = old_graphs.first() else { return Err(Invalid::NoGraph) };
    if let Some(reason) = old_graphs.iter().find_map(dialect::misread) {
        return Ok(Outcome::NotRun(reason.into()));
    }
    let inputs = match inputs(graph, options) {
        Ok(inputs) => inputs,
        Err(Unfed::NotRun(reason)) => return Ok(Outcome::NotRun(reason)),
        Err(Unfed::Invalid(error)) => return Err(error),
    };
    let mut names = Vec::new();
    let mut tolerance = options.tolerance.unwrap_or(1e-9);
    for field in graph.fields.fields(graph_field::OUTPUT) {
        let info: ValueInfoProto = graph.model.decode(field, "graph output")?;
        if options.tolerance.is_none() {
            tolerance = tolerance.max(default_tolerance(&info));
        }
        names.push(info.name().to_owned());
    }
    let weights = WeightRounding::AsStored;
    let old = SlicedRun { graphs: old_graphs, weights, most: MOST, limits };
    let new = SlicedRun { graphs: new_graphs, ..old };
    let compared = match compare(&old, &new, options, &inputs, &names) {
        Err(Stopped::Invalid(invalid)) => return Err(invalid),
        Err(Stopped::Engine(error)) => Err(error),
        Ok(compared) => Ok(compared),
    };
    Ok(match compared {
        Err(error) => not_run(&error),
        Ok(Compared::NotFinite) => {
            let reason = "the original gives NaN or infinity on random inputs".to_owned();
            Outcome::NotRun(reason.into())
        }
        // A machine that was busier during one of the two runs says nothing of the model.
        Ok(Compared::Broken(error @ EngineError::TooLong)) => not_run(&error),
        Ok(Compared::Broken(error)) => Outcome::Broken(error.to_string()),
        Ok(Compared::Errors(errors, old_run)) => {
            match errors.iter().find(|(_, error)| error.is_nan() || *error > tolerance) {
                None => Outcome::Agreed(errors),
                Some((output, error)) => {
                    let (output, error) = (output.clone(), *error);
                    let explained = match options.tolerance {
                        Some(_) => None,
                        None => explained(&old, &old_run, &errors, tolerance),
                    };
                    explained.unwrap_or(Outcome::Differs { errors, output, error, tolerance })
                }
            }
        }
    })
}

/// That the engine has not run the old model.
fn not_run(error: &EngineError) -> Outcome {
    Outcome::NotRun(NotRun { reason: error.to_string(), setting: error.setting() })
}

/// Whether `errors` are no more than rounding makes in this model.
fn explained(
    old: &SlicedRun,
    old_run: &OldRun,
    errors: &[(String, f64)],
    tolerance: f64,
) -> Option<Outcome> {
    let other = SlicedRun { weights: WeightRounding::OtherLastBits, ..*old };
    let outputs = match other.outputs(&old_run.names, &old_run.samples) {
        Ok(outputs) => outputs,
        Err(Stopped::Engine(error @ EngineError::TooLong)) => {
            return Some(not_run(&error));
        }
        Err(_) => return None,
    };
    let mut moved: Vec<f64> = vec![0.0; errors.len()];
    for (expected, found) in old_run.expected.iter().zip(&outputs) {
        for (moved, (expected, found)) in moved.iter_mut().zip(expected.iter().zip(found)) {
            *moved = moved.max(relative_error(expected, found));
        }
    }
    let explains = |(&moved, (_, error)): (&f64, &(String, f64))| {
        *error <= tolerance.max(ROUNDING_MARGIN * moved)
    };
    if !moved.iter().zip(errors).all(explains) {
        return None;
    }
    let rounding = moved.into_iter().fold(0.0, f64::max);
    if ROUNDING_MARGIN * rounding <= MOST_ROUNDING {
        return Some(Outcome::WithinRounding { errors: errors.to_vec(), rounding });
    }
    let reason = format!(
        "the last bit of its weights moves its outputs by {rounding:.1e}, so a comparison \
         would say nothing"
    );
    Some(Outcome::NotRun(reason.into()))
}

fn compare(
    old: &SlicedRun,
    new: &SlicedRun,
    options: &RunOptions,
    inputs: &[RunInput],
    names: &[String],
) -> Result<Compared, Stopped> {
    let samples = (0..options.samples.max(1)).map(|sample| {
        let mut random = Random::new(options.seed.wrapping_add(sample as u64));
        let filled = inputs.iter().map(|input| (input.fill(&mut random), input.data_type));
        tensors::from_arrays(filled.collect(), old.limits)
    });
    let samples = samples.collect::<Result<Vec<_>, _>>()?;
    let input_names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
    let (expected, found) = outputs_of_old_and_new(old, new, &input_names, &samples);
    let old_run = OldRun { names: input_names, samples, expected: expected? };
    let finite = |array: &Array| match array {
        Array::Float(values) => values.iter().all(|value| value.is_finite()),
        Array::Int(_) => true,
    };
    if !old_run.expected.iter().flatten().all(finite) {
        return Ok(Compared::NotFinite);
    }
    let found = match found {
        Ok(found) => found,
        Err(Stopped::Engine(error)) => return Ok(Compared::Broken(error)),
        Err(invalid) => return Err(invalid),
    };
    let mut errors: Vec<(String, f64)> = names.iter().map(|name| (name.clone(), 0.0)).collect();
    for (expected, found) in old_run.expected.iter().zip(&found) {
        for (((_, error), expected), found) in errors.iter_mut().zip(expected).zip(found) {
            *error = error.max(relative_error(expected, found));
        }
    }
    Ok(Compared::Errors(errors, Box::new(old_run)))
}

/// What the old and the new model make of `samples`: at the same time if there is memory for
/// that, else one after the other.
fn outputs_of_old_and_new(
    old: &SlicedRun,
    new: &SlicedRun,
    inputs: &[String],
    samples: &[Vec<EngineTensor>],
) -> (Result<Outputs, Stopped>, Result<Outputs, Stopped>) {
    let beside = |run: &SlicedRun| {
        let limits = Limits { bytes: run.limits.bytes / 2, ..run.limits };
        SlicedRun { limits, ..*run }.outputs(inputs, samples)
    };
    let (mut expected, mut found) = rayon::join(|| beside(old), || beside(new));
    let needs_more = |outcome: &Result<Outputs, Stopped>| {
        matches!(outcome, Err(Stopped::Engine(EngineError::TooLarge { .. })))
    };
    if needs_more(&expected) {
        expected = old.outputs(inputs, samples);
    }
    if needs_more(&found) && expected.is_ok() {
        found = new.outputs(inputs, samples);
    }
    (expected, found)
}

impl RunInput {
    fn fill(&self, random: &mut Random) -> Array {
        if let Some(given) = &self.given {
            return given.clone();
        }
        match DataType::try_from(self.data_type) {
            Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16) => {
                random.floats(&self.shape)
            }
            _ => random.integers(&self.shape),
        }
    }
}

/// Why there is nothing to feed.
enum Unfed {
    Invalid(Invalid),
    NotRun(NotRun),
}

impl From<Invalid> for Unfed {
    fn from(error: Invalid) -> Self {
        Unfed::Invalid(error)
    }
}

impl From<NotRun> for Unfed {
    fn from(reason: NotRun) -> Self {
        Unfed::NotRun(reason)
    }
}

fn inputs(graph: &Graph, options: &RunOptions) -> Result<Vec<RunInput>, Unfed> {
    let mut inputs = Vec::new();
    for field in graph.fields.fields(graph_field::INPUT) {
        let info: ValueInfoProto = graph.model.decode(field, "graph input")?;
        let name = info.name().to_owned();
        if graph.find(&name).is_some_and(|id| graph.value(id).initializer.is_some()) {
            continue;
        }
        let Some(declared) = info::declared(&info) else {
            return Err(NotRun::from(format!("input `{name}` is not a tensor")).into());
        };
        let mut given = options.given.iter().rev();
        let given = given.find(|(which, _)| which.is(inputs.len(), &name)).map(|(_, array)| array);
        let shape = match (given, options.shapes.get(&name), &declared.dims) {
            (Some(given), ..) => given.shape().to_vec(),
            (None, Some(shape), _) => shape.clone(),
            (None, None, Some(dims)) => {
                let sizes = dims.iter().enumerate();
                sizes.map(|(axis, &size)| likely_size(axis, dims.len(), size)).collect()
            }
            (None, None, None) => {
                let setting =
                    Setting::InputShape { input: name.clone(), example: "…".to_owned() };
                let reason = format!("input `{name}` has no shape; give {setting}");
                return Err(NotRun { reason, setting: Some(setting) }.into());
            }
        };
        let given = given.cloned();
        let data_type = declared.element_type.unwrap_or_default();
        inputs.push(RunInput { name, data_type, shape, given });
    }
    let elements = |input: &RunInput| {
        input.shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
    };
    // All samples of all inputs are made before the first run.
    const MOST: usize = 1 << 28;
    let sum = |all: usize, input: &RunInput| elements(input).and_then(|one| all.checked_add(one));
    let all = inputs.iter().try_fold(0, sum);
    let all = all.and_then(|all| all.checked_mul(options.samples.max(1)));
    if all.is_none_or(|all| all > MOST) {
        let reason = "its inputs, all samples together, are too large to be fed".to_owned();
        return Err(NotRun::from(reason).into());
    }
    Ok(inputs)
}

/// A dimension that is declared as a number, or a likely size where the file leaves it open,
/// whatever name it gives it: a batch of one, and enough space for a network's strides.
fn likely_size(axis: usize, rank: usize, declared: Option<i64>) -> usize {
    match declared {
        Some(size) => usize::try_from(size).unwrap_or(1),
        _ if axis == 0 => 1,
        _ if rank < 5 => 64,
        _ => 16,
    }
}

fn default_tolerance(info: &ValueInfoProto) -> f64 {
    match DataType::try_from(info::element_type(info).unwrap_or_default()) {
        Ok(DataType::Double) => 1e-9,
        Ok(DataType::Float16 | DataType::Bfloat16) => 2e-2,
        _ => 1e-4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost::Message;

    use super::*;
    use crate::engine::InputShapes;
    use crate::onnx::storage::Storage;
    use crate::onnx::write::{double_input, model, node};

    /// Each of the two takes two tensors of 8,000 bytes and the zero of a Relu; the second
    /// one, if it keeps more, three.
    #[test]
    fn models_run_one_after_the_other_if_memory_asks_for_it() {
        let indexed = |nodes| {
            let model = model(17, vec![double_input("x", 1)], nodes, vec![], &["y"]);
            Model::index(model.encode_to_vec().into(), Storage::default()).unwrap()
        };
        let once = indexed(vec![node("Relu", "", &["x"], "y", vec![])]);
        let twice = indexed(vec![
            node("Relu", "", &["x"], "a", vec![]),
            node("Relu", "", &["a"], "y", vec![]),
        ]);
        let shapes = InputShapes::from([("x".to_owned(), vec![1000])]);
        let given = Vec::new();
        let options = RunOptions { seed: 0, samples: 1, tolerance: None, shapes, given };
        let agreed = |outcome: &Outcome| matches!(outcome, Outcome::Agreed(_));
        let not_run = |outcome: &Outcome| matches!(outcome, Outcome::NotRun(_));
        let broken = |outcome: &Outcome| matches!(outcome, Outcome::Broken(_));
        type Check<'e> = &'e dyn Fn(&Outcome) -> bool;
        for (old, new, bytes, expected) in [
            (&once, &once, 32_016, &agreed as Check),
            (&once, &once, 16_008, &agreed),
            (&once, &once, 16_007, &not_run),
            (&once, &twice, 24_008, &agreed),
            (&once, &twice, 24_007, &broken),
            (&twice, &once, 24_007, &not_run),
        ] {
            let limits = Limits::new(Duration::from_secs(60), bytes);
            let outcome = run(old, new, &options, limits).unwrap();
            assert!(expected(&outcome), "{bytes}: {outcome:?}");
        }
    }
}
