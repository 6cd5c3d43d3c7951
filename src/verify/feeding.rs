//! What runs of whole models are fed: the inputs of the old model, at sizes that were chosen for
//! what the file leaves open.
//!
//! Knows declarations and what the caller gave; does not choose sizes.

use std::collections::HashMap;
use std::ops::Range;
use std::slice;
use std::sync::Mutex;

use crate::engine::tensors::{self, EngineTensor};
use crate::engine::{Array, EngineError, Limits};
use crate::facts::constants::Constants;
use crate::facts::propagation::{Facts, NO_SHAPES};
use crate::facts::roles;
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::info::{self, AxisSize};
use crate::onnx::model::Invalid;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{TensorProto, ValueInfoProto};
use crate::onnx::schema::graph_field;
use crate::onnx::tensor;
use crate::onnx::wire::Field;
use crate::options::RunOptions;
use crate::setting::Setting;
use crate::verify::along::{FedInput, is_open};
use crate::verify::inputs::Random;
use crate::verify::outcome::NotRun;
use crate::verify::slices;

/// One graph input that has to be fed.
#[derive(Debug)]
pub struct RunInput {
    /// Its name.
    pub name: String,
    /// What is known of its shape.
    pub fed: FedInput,
    data_type: i32,
    given: Option<Array>,
}

/// What floating-point inputs look like that the caller did not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filling {
    /// Standard normal noise.
    Noise,
    /// Noise in 0 ≤ x < 1.
    Unit,
    /// Noise in 0 ≤ x < 256, as pixels are stored.
    Pixels,
    /// Pictures in 0 ≤ x ≤ 1.
    Picture,
}

/// What both models are fed in one run.
pub struct Feed<'f> {
    /// The inputs.
    pub inputs: &'f [RunInput],
    /// The shape of each input.
    pub shapes: &'f [Vec<usize>],
    /// How the models are run.
    pub manner: Manner,
    /// The seeds of the samples, one each.
    pub seeds: Range<u64>,
}

/// How models are run on what they are fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// What the inputs look like.
    pub filling: Filling,
    /// The nodes over which bridges lead.
    pub bridges: BridgedNodes,
}

/// The nodes over which bridges lead, among those that both models have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgedNodes {
    /// Nodes that the engine would read wrongly. A failure at another node says that the sizes
    /// are not the model's.
    Misread,
    /// Nodes at which the engine fails, too.
    Failing,
}

/// Reasons why there is nothing to feed.
#[derive(Debug)]
pub enum Unfed {
    /// An entry cannot be decoded.
    Invalid(Invalid),
    /// An input cannot be made.
    NotRun(NotRun),
}

impl From<Invalid> for Unfed {
    fn from(error: Invalid) -> Self {
        Unfed::Invalid(error)
    }
}

impl RunInput {
    /// Returns the values that this input is fed, in the given `shape`.
    fn fill(&self, shape: &[usize], filling: Filling, random: &mut Random) -> Array {
        if let Some(given) = &self.given {
            return given.clone();
        }
        if Float::from_onnx(self.data_type).is_none() {
            return random.integers(shape);
        }
        match filling {
            Filling::Noise => random.noise(shape),
            Filling::Unit => random.up_to(1.0, shape),
            Filling::Pixels => random.up_to(256.0, shape),
            Filling::Picture => random.smooth(shape),
        }
    }
}

/// Returns the inputs of `graph` that have no default.
///
/// # Errors
/// Returns an error if an input cannot be decoded, is not a tensor, or has no shape.
pub fn inputs(graph: &Graph, options: &RunOptions) -> Result<Vec<RunInput>, Unfed> {
    let mut inputs = Vec::new();
    for field in graph.fields.fields(graph_field::INPUT) {
        let info: ValueInfoProto = graph.model.decode(field, "graph input")?;
        let name = info.name().to_owned();
        if graph.find(&name).is_some_and(|id| graph.value(id).initializer.is_some()) {
            continue;
        }
        let Some(declared) = info::declared(&info) else {
            return Err(Unfed::NotRun(format!("input `{name}` is not a tensor").into()));
        };
        let mut given = options.given.iter().rev();
        let given = given.find(|(which, _)| which.is(inputs.len(), &name)).map(|(_, array)| array);
        let shape = given.map(Array::shape).or(options.shapes.get(&name).map(Vec::as_slice));
        let (given_shape, axes) = (shape.map(<[usize]>::to_vec), info::axes(&info));
        if given_shape.is_none() && axes.is_none() {
            let setting = Setting::InputShape { input: name.clone(), example: "…".to_owned() };
            let reason = format!("input `{name}` has no shape; give {setting}");
            return Err(Unfed::NotRun(NotRun { reason, setting: Some(setting) }));
        }
        let fed = FedInput { axes: axes.unwrap_or_default(), given: given_shape };
        let given = given.cloned();
        let data_type = declared.element_type.unwrap_or_default();
        inputs.push(RunInput { name, fed, data_type, given });
    }
    tell_demanded(graph, &mut inputs)?;
    Ok(inputs)
}

/// Sets sizes that the file leaves open and that the readers of an input tell: a convolution
/// tells its channels.
///
/// # Errors
/// Returns an error if a constant cannot be decoded.
fn tell_demanded(graph: &Graph, inputs: &mut [RunInput]) -> Result<(), Invalid> {
    // No reader tells a batch.
    let has_open = |input: &RunInput| input.fed.axes.iter().skip(1).any(is_open);
    if !inputs.iter().any(has_open) {
        return Ok(());
    }
    let constants = Constants::find_all(slice::from_ref(graph), false)?;
    let Some(constants) = constants.first() else { return Ok(()) };
    let answers = Mutex::default();
    let mut facts = Facts::new(graph, constants, &NO_SHAPES, &answers);
    let mut named: HashMap<String, i64> = HashMap::new();
    for RunInput { name, fed, .. } in inputs.iter_mut() {
        let demanded = graph.find(name).and_then(|id| facts.demanded(id)).unwrap_or_default();
        for (axis, size) in fed.axes.iter_mut().zip(demanded) {
            match (&*axis, size) {
                (AxisSize::Named(name), Some(size)) => drop(named.insert(name.clone(), size)),
                (AxisSize::Open, Some(size)) => *axis = AxisSize::Fixed(size),
                _ => {}
            }
        }
    }
    for axis in inputs.iter_mut().flat_map(|input| &mut input.fed.axes) {
        let size = match &*axis {
            AxisSize::Named(name) => named.get(name),
            _ => None,
        };
        if let Some(&size) = size {
            *axis = AxisSize::Fixed(size);
        }
    }
    Ok(())
}

/// Returns the number of elements of all inputs of these shapes in all samples; `None` if there
/// are more than could be held, since all samples of all inputs are made before the first run.
pub fn elements(shapes: &[Vec<usize>], samples: usize) -> Option<usize> {
    const MOST: usize = 1 << 28;
    let elements = |shape: &Vec<usize>| {
        shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
    };
    let all = shapes.iter().try_fold(0usize, |all, shape| all.checked_add(elements(shape)?));
    all?.checked_mul(samples).filter(|&all| all <= MOST)
}

/// Returns the declared axes of tensors other than inputs: of the outputs, and of the first
/// tensors on the way.
///
/// # Errors
/// Returns an error if an entry cannot be decoded.
pub fn declared_axes(graph: &Graph) -> Result<Vec<Vec<AxisSize>>, Invalid> {
    const MOST: usize = 64;
    let outputs = graph.fields.fields(graph_field::OUTPUT);
    let infos = graph.fields.fields(graph_field::VALUE_INFO).take(MOST);
    let axes = |field: &Field| {
        let info: ValueInfoProto = graph.model.decode(field, "tensor description")?;
        Ok(info::axes(&info))
    };
    let axes = outputs.chain(infos).map(axes).collect::<Result<Vec<_>, Invalid>>()?;
    Ok(axes.into_iter().flatten().collect())
}

/// Returns the inputs of one sample as a caller of the engine has them.
pub fn arrays(feed: &Feed) -> Vec<Array> {
    let mut random = Random::new(feed.seeds.start);
    let filled = feed.inputs.iter().zip(feed.shapes);
    filled.map(|(input, shape)| input.fill(shape, feed.manner.filling, &mut random)).collect()
}

/// Returns one sample per seed.
///
/// # Errors
/// Returns an error if the engine does not know a type.
pub fn samples(feed: &Feed, limits: Limits) -> Result<Vec<Vec<EngineTensor>>, EngineError> {
    let sample = |seed: u64| {
        let mut random = Random::new(seed);
        let filled = feed.inputs.iter().zip(feed.shapes);
        let filled = filled.map(|(input, shape)| {
            (input.fill(shape, feed.manner.filling, &mut random), input.data_type)
        });
        tensors::from_arrays(filled.collect(), limits)
    };
    feed.seeds.clone().map(sample).collect()
}

/// Returns values of short integer inputs, for models in which an If may ask for them: those of
/// the first sample, then those with which a node compares the inputs.
pub fn choices(graph: &Graph, feed: &Feed) -> Vec<Vec<TensorProto>> {
    let mut random = Random::new(feed.seeds.start);
    let (mut drawn, mut asked) = (Vec::new(), Vec::new());
    for (input, shape) in feed.inputs.iter().zip(feed.shapes) {
        let Array::Int(values) = input.fill(shape, feed.manner.filling, &mut random) else {
            continue;
        };
        if input.data_type != i32::from(DataType::Int64) || values.len() > MAX_CHOICE {
            continue;
        }
        let values: Vec<i64> = values.iter().copied().collect();
        let compared = compared_with(graph, &input.name).filter(|_| input.given.is_none());
        let other = compared.map_or_else(|| values.clone(), |value| vec![value; values.len()]);
        drawn.push(constant(&input.name, shape, &values));
        asked.push(constant(&input.name, shape, &other));
    }
    if drawn == asked { vec![drawn] } else { vec![drawn, asked] }
}

/// Upper bound on the number of elements of an input that an If may ask for.
const MAX_CHOICE: usize = 64;

fn constant(name: &str, shape: &[usize], values: &[i64]) -> TensorProto {
    let dims = shape.iter().map(|&size| size as i64).collect();
    TensorProto { dims, ..tensor::from_integers(name, values) }
}

/// Returns the number with which a node compares the input.
fn compared_with(graph: &Graph, input: &str) -> Option<i64> {
    let readers = graph.value(graph.find(input)?).readers.iter();
    readers.map(|&node| graph.node(node)).filter(|node| roles::compares(node)).find_map(|node| {
        node.inputs.iter().flatten().find_map(|&operand| {
            let stored = slices::tensor(graph, operand).ok()??;
            tensor::integers(&stored, &graph.model.storage).ok()?.first().copied()
        })
    })
}
