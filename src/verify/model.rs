//! The run of the whole model: as it was read, and as it will be written.

use prost::Message;
use prost::bytes::Bytes;

use super::feed::Random;
use super::relative_error;
use crate::engine::{Array, Engine, EngineError, InputShapes, Limits, Source, normal};
use crate::onnx::graph::Graph;
use crate::onnx::model::{Invalid, Model, graph_field};
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::tensor_shape_proto::dimension::Value as Dim;
use crate::onnx::proto::{ModelProto, ValueInfoProto, type_proto};
use crate::onnx::tensor::Float;

/// How the run is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Random inputs are made from this.
    pub seed: u64,
    /// How many inputs are tried.
    pub samples: usize,
    /// Allowed relative difference; by default it depends on the outputs' type.
    pub tolerance: Option<f64>,
    /// Shapes of inputs whose dimensions the file leaves open.
    pub shapes: InputShapes,
}

/// What the run showed.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Every output agreed; per output the largest relative difference.
    Agreed(Vec<(String, f64)>),
    /// An output differed by more than is allowed for its type, but by no more than this
    /// model's rounding explains.
    WithinRounding {
        /// Per output the largest relative difference.
        errors: Vec<(String, f64)>,
        /// How far the old model's outputs move with the last bit of its weights.
        rounding: f64,
    },
    /// An output differs by more than is allowed.
    Differs {
        /// The output.
        output: String,
        /// Its relative difference.
        error: f64,
        /// What is allowed.
        tolerance: f64,
    },
    /// The engine ran the old model and could not run the new one; its reason.
    Broken(String),
    /// The engine could not run the old model; its reason.
    NotRun(String),
}

/// What the two runs gave.
enum Compared {
    Errors(Vec<(String, f64)>, Box<Trial>),
    NotFinite,
    Broken(EngineError),
}

/// Inputs, and what the old model makes of them.
struct Trial {
    shapes: Vec<Vec<usize>>,
    samples: Vec<Vec<Array>>,
    expected: Vec<Vec<Array>>,
}

/// Fused weights are rounded anew, and so are sums of thousands of products: the
/// difference may be so many times what new last bits of the old weights alone make.
const ROUNDING_MARGIN: f64 = 16.0;

/// Of a model whose rounding explains more than this, no comparison says anything.
const MOST_ROUNDING: f64 = 0.05;

/// One graph input that has to be fed.
struct Input {
    data_type: i32,
    shape: Vec<usize>,
}

/// Runs old and new model on the same inputs.
///
/// # Errors
/// If an entry of either model cannot be decoded.
pub fn run(
    old: &Model,
    new: &Model,
    options: &Options,
    limits: Limits,
) -> Result<Outcome, Invalid> {
    let (old_bytes, new_bytes) = (normal::model(old)?, normal::model(new)?);
    let old = Model::index(old_bytes.clone(), old.storage.clone())?;
    let graphs = Graph::read_all(&old)?;
    let Some(graph) = graphs.first() else { return Err(Invalid::NoGraph) };
    if let Some(reason) = graphs.iter().find_map(normal::misread) {
        return Ok(Outcome::NotRun(reason));
    }
    let new = source(new_bytes, new, limits);
    let inputs = match inputs(graph, options)? {
        Ok(inputs) => inputs,
        Err(reason) => return Ok(Outcome::NotRun(reason)),
    };
    let mut names = Vec::new();
    let mut tolerance = options.tolerance.unwrap_or(1e-9);
    for field in graph.scope.fields(graph_field::OUTPUT) {
        let info: ValueInfoProto = graph.model.decode(field, "graph output")?;
        if options.tolerance.is_none() {
            tolerance = tolerance.max(default_tolerance(&info));
        }
        names.push(info.name().to_owned());
    }
    let compared = compare(graph, new, options, &inputs, &names);
    Ok(match compared {
        Err(error) => Outcome::NotRun(error.to_string()),
        Ok(Compared::NotFinite) => {
            Outcome::NotRun("the original gives NaN or infinity on random inputs".into())
        }
        Ok(Compared::Broken(error)) => Outcome::Broken(error.to_string()),
        Ok(Compared::Errors(errors, trial)) => {
            match errors.iter().find(|(_, error)| error.is_nan() || *error > tolerance) {
                None => Outcome::Agreed(errors),
                Some((output, error)) => {
                    let (output, error) = (output.clone(), *error);
                    let differs = Outcome::Differs { output, error, tolerance };
                    match options.tolerance {
                        Some(_) => differs,
                        None => {
                            explained(&old, &trial, errors, tolerance, limits).unwrap_or(differs)
                        }
                    }
                }
            }
        }
    })
}

/// `bytes`, which are `model` in the engine's words, and `model`'s side files.
fn source(bytes: Bytes, model: &Model, limits: Limits) -> Source {
    Source { bytes, storage: model.storage.clone(), limits }
}

/// Whether `errors` are no more than rounding makes in this model.
fn explained(
    old: &Model,
    trial: &Trial,
    errors: Vec<(String, f64)>,
    tolerance: f64,
    limits: Limits,
) -> Option<Outcome> {
    let bytes = with_other_last_bits(old.bytes())?;
    let source = source(bytes.into(), old, limits);
    let mut moved: Vec<f64> = vec![0.0; errors.len()];
    for (expected, found) in trial.expected.iter().zip(&trial.outputs(source).ok()?) {
        for (moved, (expected, found)) in moved.iter_mut().zip(expected.iter().zip(found)) {
            *moved = moved.max(relative_error(expected, found));
        }
    }
    let explains = |(&moved, (_, error)): (&f64, &(String, f64))| {
        *error <= tolerance.max(ROUNDING_MARGIN * moved)
    };
    if !moved.iter().zip(&errors).all(explains) {
        return None;
    }
    let rounding = moved.into_iter().fold(0.0, f64::max);
    Some(match ROUNDING_MARGIN * rounding <= MOST_ROUNDING {
        true => Outcome::WithinRounding { errors, rounding },
        false => Outcome::NotRun(format!(
            "the last bit of its weights moves its outputs by {rounding:.1e}, so a comparison \
             would say nothing"
        )),
    })
}

/// The model with every other weight of its stored kernels and matrices changed in the
/// last bit; `None` if it has none.
fn with_other_last_bits(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut model = ModelProto::decode(bytes).ok()?;
    let mut random = Random::new(2);
    let mut changed = false;
    for weight in model.graph.as_mut()?.initializer.iter_mut().filter(|t| t.dims.len() > 1) {
        let Some(float) = Float::from_onnx(weight.data_type()) else { continue };
        if let Some(raw) = weight.raw_data.as_mut() {
            let mut new = raw.to_vec();
            // Little endian: the last bit of a number is the lowest of its first byte.
            for lowest in new.iter_mut().step_by(float.size()) {
                *lowest ^= u8::from(random.uniform() > 0.0);
            }
            *raw = new.into();
            changed = true;
        }
        for value in &mut weight.float_data {
            *value = f32::from_bits(value.to_bits() ^ u32::from(random.uniform() > 0.0));
            changed = true;
        }
    }
    changed.then(|| model.encode_to_vec())
}

impl Trial {
    fn outputs(&self, source: Source) -> Result<Vec<Vec<Array>>, EngineError> {
        let engine = Engine::load(source, &self.shapes)?;
        self.samples.iter().map(|sample| engine.run(sample)).collect()
    }
}

fn compare(
    graph: &Graph,
    new: Source,
    options: &Options,
    inputs: &[Input],
    names: &[String],
) -> Result<Compared, EngineError> {
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|input| input.shape.clone()).collect();
    let old = source(graph.model.bytes().clone(), graph.model, new.limits);
    let samples: Vec<Vec<Array>> = (0..options.samples.max(1))
        .map(|sample| {
            let mut random = Random::new(options.seed.wrapping_add(sample as u64));
            inputs.iter().map(|input| input.fill(&mut random)).collect()
        })
        .collect();
    // One model after the other: only one is in memory at a time.
    let mut trial = Trial { shapes, samples, expected: Vec::new() };
    trial.expected = trial.outputs(old)?;
    let finite = |array: &Array| match array {
        Array::Float(values) => values.iter().all(|value| value.is_finite()),
        Array::Int(_) => true,
    };
    if !trial.expected.iter().flatten().all(finite) {
        return Ok(Compared::NotFinite);
    }
    let found = match trial.outputs(new) {
        Ok(found) => found,
        Err(error) => return Ok(Compared::Broken(error)),
    };
    let mut errors: Vec<(String, f64)> = names.iter().map(|name| (name.clone(), 0.0)).collect();
    for (expected, found) in trial.expected.iter().zip(&found) {
        for (((_, error), expected), found) in errors.iter_mut().zip(expected).zip(found) {
            *error = error.max(relative_error(expected, found));
        }
    }
    Ok(Compared::Errors(errors, Box::new(trial)))
}

impl Input {
    fn fill(&self, random: &mut Random) -> Array {
        match DataType::try_from(self.data_type) {
            Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16) => {
                random.floats(&self.shape)
            }
            _ => random.integers(&self.shape),
        }
    }
}

fn inputs(graph: &Graph, options: &Options) -> Result<Result<Vec<Input>, String>, Invalid> {
    let mut inputs = Vec::new();
    for field in graph.scope.fields(graph_field::INPUT) {
        let info: ValueInfoProto = graph.model.decode(field, "graph input")?;
        let name = info.name().to_owned();
        if graph.find(&name).is_some_and(|id| graph.value(id).initializer.is_some()) {
            continue;
        }
        let tensor = match info.r#type.and_then(|declared| declared.value) {
            Some(type_proto::Value::TensorType(tensor)) => tensor,
            _ => return Ok(Err(format!("input `{name}` is not a tensor"))),
        };
        let shape = match (options.shapes.get(&name), &tensor.shape) {
            (Some(shape), _) => shape.clone(),
            (None, Some(shape)) => {
                let rank = shape.dim.len();
                let sizes = shape.dim.iter().enumerate();
                sizes.map(|(axis, dim)| size(axis, rank, &dim.value)).collect()
            }
            (None, None) => {
                return Ok(Err(format!(
                    "input `{name}` has no shape; give --input-shape {name}=…"
                )));
            }
        };
        inputs.push(Input { data_type: tensor.elem_type(), shape });
    }
    let elements = |input: &Input| {
        input.shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
    };
    // All samples of all inputs are made before the first run.
    const MOST: usize = 1 << 28;
    let sum = |all: usize, input: &Input| elements(input).and_then(|one| all.checked_add(one));
    let all = inputs.iter().try_fold(0, sum);
    let all = all.and_then(|all| all.checked_mul(options.samples.max(1)));
    Ok(match all.filter(|&all| all <= MOST) {
        Some(_) => Ok(inputs),
        None => Err("its inputs, all samples together, are too large to be fed".to_owned()),
    })
}

/// A dimension, or a likely size where the file leaves it open: a batch of one, and
/// enough space for a network's strides.
fn size(axis: usize, rank: usize, dim: &Option<Dim>) -> usize {
    match dim {
        Some(Dim::DimValue(size)) if *size > 0 => usize::try_from(*size).unwrap_or(1),
        _ if axis == 0 => 1,
        _ if rank < 5 => 64,
        _ => 16,
    }
}

fn default_tolerance(info: &ValueInfoProto) -> f64 {
    let declared = info.r#type.as_ref().and_then(|declared| declared.value.as_ref());
    let data_type = match declared {
        Some(type_proto::Value::TensorType(tensor)) => tensor.elem_type(),
        _ => 0,
    };
    match DataType::try_from(data_type) {
        Ok(DataType::Double) => 1e-9,
        Ok(DataType::Float16 | DataType::Bfloat16) => 2e-2,
        _ => 1e-4,
    }
}
