//! The inputs that a model is fed with: tensors that a caller gives, decoded from the bytes in
//! which ONNX stores them, each for the input that it is meant for; noise for inputs that get
//! none.
//!
//! Knows how ONNX stores a tensor, and what a graph declares of its inputs, not what is run.

use ndarray::{ArrayD, Axis, Slice};
use prost::Message;

use crate::engine::{Array, Limits};
use crate::equalize::observed::Piece;
use crate::facts::ranges::range_of;
use crate::onnx::data::{self, TensorError};
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::model::{Invalid, Model};
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;
use crate::options::RunOptions;
use crate::verify::inputs::Random;
use crate::verify::run::unfed;
use crate::verify::runnable::{self, MOST_ONCE_RUN};

/// Decodes the tensor in a file of ONNX's test data: a `TensorProto` that holds its own data.
///
/// # Errors
/// Returns what is wrong with the tensor.
pub fn tensor_from_onnx(bytes: &[u8]) -> Result<Array, String> {
    let stored = TensorProto::decode(bytes).map_err(|error| error.to_string())?;
    let array = match Float::from_onnx(stored.data_type()) {
        Some(_) => tensor::floats(&stored, &Storage::default()).map(Array::Float),
        None => integers(&stored),
    };
    array.map_err(|error| error.to_string())
}

/// Returns why an input of this element type (`TensorProto.DataType`) cannot be fed with
/// `array`; `None` if it can. Values that would be cast to another type, or are not finite in
/// it, are not what the caller means.
pub fn misfit(array: &Array, element_type: i32) -> Option<String> {
    match (array, Float::from_onnx(element_type)) {
        (Array::Float(values), Some(float)) => {
            let beyond = values.iter().find(|&&value| !float.round(value).is_finite())?;
            Some(format!(
                "an element is {beyond:e} in {float}; both models agree for finite inputs only"
            ))
        }
        (Array::Int(_), Some(float)) => {
            Some(format!("the input is of {float}, and not of integers"))
        }
        (Array::Float(_), None) => {
            Some(format!("the input is of {}, and not of floats", name_of(element_type)))
        }
        (Array::Int(values), None) => {
            let Some((least, most)) = range(element_type) else {
                return Some(format!("the input is of {}, and no numbers", name_of(element_type)));
            };
            let beyond = values.iter().find(|&&value| !(least..=most).contains(&value.into()))?;
            Some(format!("an element is {beyond}, which {} does not hold", name_of(element_type)))
        }
    }
}

/// The samples that a model is run on.
pub struct Samples {
    /// Pieces of a few samples each.
    pub pieces: Vec<Piece>,
    /// Whether the caller gave all inputs; otherwise some are noise.
    pub are_given: bool,
}

/// Returns the samples to run a model on: the caller's tensors, cut into pieces where the file
/// leaves the number of samples open; if not all inputs were given, noise for the missing ones.
/// The inner error says why there are none.
///
/// # Errors
/// Returns an error if an entry cannot be decoded.
pub fn samples(
    model: &Model,
    graph: &Graph,
    run: &RunOptions,
) -> Result<Result<Samples, String>, Invalid> {
    let named = graph.inputs();
    let given = named.iter().enumerate().map(|(number, (name, _))| {
        let mut given = run.given.iter().rev();
        given.find(|(which, _)| which.is(number, name)).map(|(_, array)| array.clone())
    });
    let given: Vec<Option<Array>> = given.collect();
    if let Some(all) = given.iter().cloned().collect::<Option<Vec<Array>>>()
        && !all.is_empty()
    {
        let is_open = |dims: &Option<Vec<Option<i64>>>| {
            dims.as_ref().is_none_or(|dims| dims.first().is_some_and(Option::is_none))
        };
        let together = all.first().and_then(|one| one.shape().first().copied()).unwrap_or(1);
        let are_alike = all.iter().all(|one| one.shape().first() == Some(&together));
        let may_be_cut = are_alike && named.iter().all(|(_, dims)| is_open(dims));
        let pieces = if may_be_cut { cut(&all, together) } else { vec![all] };
        return Ok(Ok(Samples { pieces, are_given: true }));
    }
    let open = runnable::shapes(model, graph, run, MOST_ONCE_RUN, Limits::of_reading())?;
    let mut random = Random::new(run.seed);
    let mut sample = Vec::with_capacity(named.len());
    for ((name, dims), given) in named.iter().zip(given) {
        let fixed = || dims.as_ref()?.iter().map(|dim| usize::try_from((*dim)?).ok()).collect();
        let found = || open.iter().find(|(other, _)| other == name).map(|(_, shape)| shape.clone());
        let shape: Option<Vec<usize>> = run.shapes.get(name).cloned().or_else(found).or_else(fixed);
        match (given, shape) {
            (Some(given), _) => sample.push(given),
            (None, Some(shape)) => match unfed(std::slice::from_ref(&shape), 1) {
                Some(why) => return Ok(Err(format!("input `{name}`: {}", why.reason))),
                None => sample.push(random.noise(&shape)),
            },
            (None, None) => {
                return Ok(Err(format!("no sizes of input `{name}` are known at which it runs")));
            }
        }
    }
    Ok(Ok(Samples { pieces: vec![sample], are_given: false }))
}

/// Upper bound on the samples that are run at a time.
const TOGETHER: usize = 32;

fn cut(all: &[Array], samples: usize) -> Vec<Piece> {
    let pieces = (0..samples).step_by(TOGETHER).map(|start| {
        let rows = Slice::from(start..start.saturating_add(TOGETHER).min(samples));
        let piece = |one: &Array| match one {
            Array::Float(values) => Array::Float(values.slice_axis(Axis(0), rows).to_owned()),
            Array::Int(values) => Array::Int(values.slice_axis(Axis(0), rows).to_owned()),
        };
        all.iter().map(piece).collect()
    });
    pieces.collect()
}

/// Returns the least and the largest number of an element type; `None` if it holds no numbers.
fn range(element_type: i32) -> Option<(i128, i128)> {
    match DataType::try_from(element_type).ok()? {
        DataType::Bool => Some((0, 1)),
        other => range_of(other),
    }
}

/// The ONNX name of an element type.
fn name_of(element_type: i32) -> String {
    let name = DataType::try_from(element_type).map(|known| known.as_str_name().to_lowercase());
    name.unwrap_or_else(|_| format!("type {element_type}"))
}

fn integers(stored: &TensorProto) -> Result<Array, TensorError> {
    let (values, dims) = (tensor::integers(stored, &Storage::default())?, data::dims(stored)?);
    // The number of values was checked against the dimensions.
    Ok(Array::Int(ArrayD::from_shape_vec(dims, values).unwrap_or_default()))
}
