//! tract behind a border: the only module that names it.
//!
//! Runs ONNX models as they are written: the plain typed plan, neither
//! decluttered nor optimised, because declutter folds batch norms itself and the
//! comparison would then be of our folding with tract's. Whatever happens inside
//! tract, a panic, a loop without an end, is an [`EngineError`] like any other: it
//! works in a thread of its own (`border`), which is given up when its time by the `clock` is
//! over. [`normal`] puts models into words that it knows, `names` under names that it cannot
//! misread, [`held`] takes tensors from one to the next.

mod clock;
pub mod dialect;
mod guard;
mod names;
pub mod stage;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use half::f16;
use ndarray::ArrayD;
use prost::Message;
use prost::bytes::Bytes;
use tract_onnx::Onnx;
use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{Factoid, GenericFactoid};
use tract_onnx::tract_hir::ops::konst::Const;

use crate::engine::guard::guarded;
use crate::engine::names::NeutralNames;
use crate::engine::stage::EngineTensor;
use crate::numbers::LazyWeights;
use crate::onnx::data;
use crate::onnx::proto::TensorProto;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// Why tract could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// It says why.
    #[error("tract: {0}")]
    Failed(String),
    /// It panicked.
    #[error("tract: it panicked: {0}")]
    Panicked(String),
    /// It was given up.
    #[error("tract did not end in time (--verify-timeout allows more)")]
    TooLong,
    /// It was not even tried.
    #[error("its tensors would take {} MiB at a time (--verify-memory allows more)", bytes >> 20)]
    TooLarge {
        /// What is needed, at least.
        bytes: usize,
    },
}

/// What the engine may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// When it has to be done, by the clock of the process; `None` if that is never.
    pub until: Option<Duration>,
    /// Bytes of the tensors that it holds at a time.
    pub bytes: usize,
}

impl Limits {
    /// From now on, so much time in which the process runs: what it stood still does not
    /// count.
    pub fn new(time: Duration, bytes: usize) -> Self {
        // A time that no clock shows is as good as never.
        let until = clock::now().and_then(|now| now.checked_add(time));
        Limits { until, bytes }
    }

    /// For reading a model: constant sub-graphs, sizes, borders. How much of these is
    /// tried is counted before the engine is asked, so that every machine knows the same;
    /// what is allowed takes seconds. Whoever does not end long after that has met a loop
    /// of the engine's, and the run ends in an error: not in another file.
    pub fn of_reading() -> Self {
        Limits::new(Duration::from_secs(900), 4 << 30)
    }

    /// Whether the time is over.
    fn are_over(self) -> bool {
        self.until.zip(clock::now()).is_some_and(|(until, now)| now >= until)
    }
}

/// A tensor that goes into or comes out of the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Floating point of any width, widened.
    Float(ArrayD<f64>),
    /// Integers and booleans.
    Int(ArrayD<i64>),
}

impl Array {
    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        match self {
            Array::Float(values) => values.shape(),
            Array::Int(values) => values.shape(),
        }
    }
}

/// What follows from the shapes of the graph's inputs, by tensor.
#[derive(Debug, Default)]
pub struct Inference {
    /// Sizes; `None` where one is not fixed.
    pub shapes: HashMap<String, Vec<Option<i64>>>,
    /// Integers that are computed from sizes: pads, bounds.
    pub integers: HashMap<String, Vec<i64>>,
    /// What ended the inference before its end.
    pub limit: Option<&'static str>,
}

/// Why sizes were not inferred to the end.
const LONG_SIZES: &str = "sizes that are expressions of more than 256 terms are not followed";

/// So many terms has no size of a network: a few sums, products and quotients.
const MAX_SIZE_TERMS: usize = 256;

/// How often a node may be looked at, on average. What is told of one tells of those
/// before and behind it, a few times.
const MAX_VISITS: usize = 64;

impl Inference {
    fn note_integers(&mut self, name: &str, value: &Tensor) {
        let is_list = value.len() <= MAX_INTEGERS && !value.datum_type().is_float();
        let integers = value.cast_to::<i64>().ok().filter(|_| is_list);
        let integers = integers.as_ref().and_then(|value| value.to_plain_array_view::<i64>().ok());
        if let Some(integers) = integers {
            self.integers.insert(name.to_owned(), integers.iter().copied().collect());
        }
    }

    /// Notes the sizes that are numbers, next to those that are known of `name` already.
    fn note_shape(&mut self, name: &str, dims: impl Iterator<Item = Option<TDim>>) {
        // "To the end" may have become a size on the way.
        let is_size = |size: &i64| (0..MAX_SIZE).contains(size);
        let dims: Vec<Option<i64>> = dims.map(|dim| dim?.to_i64().ok().filter(is_size)).collect();
        let known = self.shapes.entry(name.to_owned()).or_insert_with(|| vec![None; dims.len()]);
        if known.len() == dims.len() {
            known.iter_mut().zip(dims).for_each(|(known, dim)| *known = known.or(dim));
        }
    }
}

/// No tensor is larger along any axis.
const MAX_SIZE: i64 = 1 << 32;

/// Lists of integers that are computed from sizes are not longer.
const MAX_INTEGERS: usize = 64;

/// Shapes that the user gave for graph inputs.
pub type InputShapes = std::collections::BTreeMap<String, Vec<usize>>;

/// A model that is ready to run.
#[derive(Debug)]
pub struct Engine {
    plan: Arc<TypedRunnableModel>,
    names: Arc<NeutralNames>,
    limits: Limits,
}

/// A model to be loaded.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file's content.
    pub bytes: Bytes,
    /// Further initializers of its graph.
    pub constants: Vec<Constant>,
    /// Where its side files lie, if it has any.
    pub storage: Storage,
    /// What loading and running it may take.
    pub limits: Limits,
}

/// A constant whose data goes to tract without a detour.
#[derive(Debug, Clone)]
pub struct Constant {
    /// The tensor.
    pub header: TensorProto,
    /// In the place of its data, if it is of type float64.
    pub numbers: Option<Arc<dyn LazyWeights>>,
}

impl From<TensorProto> for Constant {
    fn from(tensor: TensorProto) -> Self {
        Constant { header: tensor, numbers: None }
    }
}

impl Constant {
    /// `numbers` in float64.
    pub fn doubles(name: &str, dims: &[i64], numbers: Arc<dyn LazyWeights>) -> Self {
        let header = tensor::header(name, dims, DOUBLE);
        Constant { header, numbers: Some(numbers) }
    }

    /// The same, under another name.
    #[must_use]
    pub fn called(mut self, name: String) -> Self {
        self.header.name = Some(name);
        self
    }

    /// The constant's name.
    pub fn name(&self) -> &str {
        self.header.name()
    }
}

/// float64, in ONNX.
const DOUBLE: i32 = pb::tensor_proto::DataType::Double as i32;

impl Source {
    /// A small model that holds all it needs.
    pub fn small(bytes: Vec<u8>, limits: Limits) -> Self {
        let (bytes, constants) = (bytes.into(), Vec::new());
        Source { bytes, constants, storage: Storage::default(), limits }
    }
}

impl Engine {
    /// Loads a model for inputs of the given shapes, in the order of the graph's inputs.
    ///
    /// # Errors
    /// If tract does not support something in it, the shapes do not fit, or its limits
    /// are too narrow.
    pub fn load(source: Source, shapes: &[Vec<usize>]) -> Result<Self, EngineError> {
        let (limits, shapes) = (source.limits, shapes.to_vec());
        let ((plan, bytes), names) = guarded(limits, move || {
            parsed(&source, &[], |mut model, _| {
                for (index, shape) in shapes.iter().enumerate() {
                    let fact = model.input_fact(index)?.clone().with_shape(shape);
                    model.set_input_fact(index, fact)?;
                }
                let model = model.into_typed()?;
                let bytes = footprint(&model)?;
                Ok((model.into_runnable()?, bytes))
            })
        })?;
        match bytes <= limits.bytes {
            true => Ok(Engine { plan, names: Arc::new(names), limits }),
            false => Err(EngineError::TooLarge { bytes }),
        }
    }

    /// Runs the model once.
    ///
    /// # Errors
    /// If tract fails, or takes too long.
    pub fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, EngineError> {
        let tensor = |input: &Array| -> Tensor {
            match input {
                Array::Float(values) => values.clone().into(),
                Array::Int(values) => values.clone().into(),
            }
        };
        let inputs: Vec<Tensor> = inputs.iter().map(tensor).collect();
        self.guarded(move |plan| {
            let mut feed = tvec!();
            for (index, tensor) in inputs.into_iter().enumerate() {
                let wanted = plan.model().input_fact(index)?.datum_type;
                feed.push(tensor.cast_to_dt(wanted)?.into_owned().into());
            }
            plan.run(feed)?.iter().map(|value| from_tract(value)).collect()
        })
    }

    /// Does `work` with the plan within the engine's limits; an error is in the file's names.
    fn guarded<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<TypedRunnableModel>) -> TractResult<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (plan, names) = (Arc::clone(&self.plan), Arc::clone(&self.names));
        guarded(self.limits, move || {
            work(&plan).map_err(|error| names.in_words_of_the_file(&error))
        })
    }
}

/// What a model without inputs computes, in the types that its outputs have.
///
/// # Errors
/// As [`Engine::load`] and [`Engine::run`], and if ONNX has no such type.
pub fn evaluate(source: Source) -> Result<Vec<TensorProto>, EngineError> {
    let limits = source.limits;
    let plan = Engine::load(source, &[])?.plan;
    guarded(limits, move || plan.run(tvec!())?.iter().map(|value| in_onnx(value)).collect())
}

/// Bytes of the tensors that live at the same time, at most. Constants and what is fed
/// live all the time. What depends on values, not on shapes, counts as nothing.
fn footprint(model: &TypedModel) -> TractResult<usize> {
    let size = |outlet: OutletId| {
        let fact = model.outlet_fact(outlet)?;
        let sizes = fact.shape.as_concrete().unwrap_or(&[0]);
        let bytes = fact.datum_type.size_of();
        TractResult::Ok(sizes.iter().fold(bytes, |bytes, &size| bytes.saturating_mul(size)))
    };
    let order = model.eval_order()?;
    let mut last: HashMap<OutletId, usize> = HashMap::new();
    for (time, &node) in order.iter().enumerate() {
        last.extend(model.node(node).inputs.iter().map(|&input| (input, time)));
    }
    last.extend(model.output_outlets()?.iter().map(|&output| (output, usize::MAX)));
    let stays = |node: usize| model.node(node).inputs.is_empty();
    let (mut live, mut most) = (0usize, 0usize);
    for &node in order.iter().filter(|&&node| stays(node)) {
        for slot in 0..model.node(node).outputs.len() {
            live = live.saturating_add(size(OutletId::new(node, slot))?);
        }
    }
    most = most.max(live);
    for (time, &node) in order.iter().enumerate().filter(|&(_, &node)| !stays(node)) {
        let node = model.node(node);
        for slot in 0..node.outputs.len() {
            live = live.saturating_add(size(OutletId::new(node.id, slot))?);
        }
        most = most.max(live);
        let mut inputs = node.inputs.clone();
        inputs.sort_unstable();
        inputs.dedup();
        let ends = |input: &OutletId| last.get(input) == Some(&time) && !stays(input.node);
        for input in inputs.into_iter().filter(ends) {
            live = live.saturating_sub(size(input)?);
        }
    }
    Ok(most)
}

/// Infers what it can from the shapes of the graph's inputs, ignoring what
/// the file says of others: `value_info` is sometimes wrong.
///
/// # Errors
/// If tract cannot read the model at all; what it cannot infer is just missing.
pub fn infer(source: Source, inputs: &InputShapes) -> Result<Inference, EngineError> {
    let inputs = inputs.clone();
    let inferred = guarded(source.limits, move || {
        parsed(&source, &[], |model, names| inferred(model, names, &inputs))
    });
    inferred.map(|(inference, _)| inference)
}

fn inferred(
    mut model: InferenceModel,
    names: &NeutralNames,
    inputs: &InputShapes,
) -> TractResult<Inference> {
    for (index, outlet) in model.inputs.clone().into_iter().enumerate() {
        let name = names.original(&model.node(outlet.node).name);
        if let Some(shape) = name.and_then(|name| inputs.get(name)) {
            let fact = model.input_fact(index)?.clone().with_shape(shape);
            model.set_input_fact(index, fact)?;
        }
    }
    // What was inferred before a failure holds.
    let limit = analyse(&mut model)?;
    let mut inference = Inference { limit, ..Inference::default() };
    for node in model.nodes() {
        for (slot, outlet) in node.outputs.iter().enumerate() {
            let label = model.outlet_label(OutletId::new(node.id, slot)).unwrap_or(&node.name);
            let Some(name) = names.original(label) else { continue };
            if let Some(value) = outlet.fact.value.concretize() {
                inference.note_integers(name, &value);
            }
            if !outlet.fact.shape.is_open() {
                let size = |dim: &GenericFactoid<TDim>| dim.concretize();
                inference.note_shape(name, outlet.fact.shape.dims().map(size));
            }
        }
    }
    // Typed, it knows what its constant sub-graphs yield too. Only labels are tensors of
    // the file then; nodes may be steps of its own.
    if let Some(typed) = limit.is_none().then(|| model.into_typed()).and_then(Result::ok) {
        for node in typed.nodes() {
            for (slot, outlet) in node.outputs.iter().enumerate() {
                let label = typed.outlet_label(OutletId::new(node.id, slot));
                let Some(name) = label.and_then(|label| names.original(label)) else { continue };
                if let Some(value) = &outlet.fact.konst {
                    inference.note_integers(name, value);
                }
                let dims = outlet.fact.shape.iter();
                inference.note_shape(name, dims.map(|dim| Some(dim.clone())));
            }
        }
    }
    Ok(inference)
}

/// Reads a model under neutral names and goes on with it; an error is in the file's names.
fn parsed<T>(
    source: &Source,
    given: &[(String, EngineTensor)],
    go_on: impl FnOnce(InferenceModel, &NeutralNames) -> TractResult<T>,
) -> TractResult<(T, NeutralNames)> {
    let mut names = NeutralNames::default();
    let model = parse(source, given, &mut names);
    match model.and_then(|model| go_on(model, &names)) {
        Ok(value) => Ok((value, names)),
        Err(error) => Err(names.in_words_of_the_file(&error)),
    }
}

/// The engine's own analysis of a model, step by step, so that it ends where sizes become
/// endless: where each is a sum of two that came before, thirty nodes make a billion terms.
/// Returns the limit that ended it.
fn analyse(model: &mut InferenceModel) -> TractResult<Option<&'static str>> {
    let mut waiting: BTreeSet<usize> = (0..model.nodes().len()).collect();
    let mut observers: HashMap<OutletId, Vec<usize>> = HashMap::new();
    for node in model.nodes() {
        for outlet in node.op.observe_outlets(model, node)? {
            observers.entry(outlet).or_default().push(node.id);
        }
    }
    let visits = MAX_VISITS.saturating_mul(waiting.len());
    for _ in 0..visits {
        let Some(next) = waiting.pop_first() else { return Ok(None) };
        // What it cannot infer of one node, it may of others.
        let Ok(changed) = refined(model, next) else { continue };
        for (outlet, fact) in changed {
            if fact.shape.dims().filter_map(GenericFactoid::concretize).any(|dim| is_long(&dim)) {
                return Ok(Some(LONG_SIZES));
            }
            model.set_outlet_fact(outlet, fact)?;
            let successors = model.node(outlet.node).outputs.get(outlet.slot);
            let successors = successors.into_iter().flat_map(|output| &output.successors);
            waiting.extend(successors.map(|inlet| inlet.node));
            waiting.extend(observers.get(&outlet).into_iter().flatten());
            waiting.insert(outlet.node);
        }
    }
    Ok(Some("its nodes tell more of each other, time and again, than is followed"))
}

/// What one node tells of the outlets around it that was not known.
fn refined(model: &mut InferenceModel, id: usize) -> TractResult<Vec<(OutletId, InferenceFact)>> {
    let node = model.node(id);
    let observed = node.op.observe_outlets(model, node)?;
    let inputs = node.inputs.clone();
    let outputs: Vec<OutletId> =
        (0..node.outputs.len()).map(|slot| OutletId::new(id, slot)).collect();
    let facts = |outlets: &[OutletId]| -> TractResult<TVec<InferenceFact>> {
        outlets.iter().map(|&outlet| Ok(model.outlet_fact(outlet)?.clone())).collect()
    };
    let [of_inputs, of_outputs, seen] = [facts(&inputs)?, facts(&outputs)?, facts(&observed)?];
    let (of_inputs, of_outputs, seen) = model.node_mut(id).op.infer(
        of_inputs.iter().collect(),
        of_outputs.iter().collect(),
        seen.iter().collect(),
    )?;
    let around = inputs.iter().zip(of_inputs).chain(outputs.iter().zip(of_outputs));
    let mut changed = Vec::new();
    for (&outlet, fact) in around.chain(observed.iter().zip(seen)) {
        let old = model.outlet_fact(outlet)?;
        let unified = old.unify(&fact)?;
        if unified != *old {
            changed.push((outlet, unified));
        }
    }
    Ok(changed)
}

/// Whether a size is an expression of more than [`MAX_SIZE_TERMS`] terms.
fn is_long(size: &TDim) -> bool {
    let (mut terms, mut open) = (0usize, vec![size]);
    while let Some(next) = open.pop() {
        terms = terms.saturating_add(1);
        if terms > MAX_SIZE_TERMS {
            return true;
        }
        match next {
            TDim::Val(_) | TDim::Sym(_) => {}
            TDim::Add(parts)
            | TDim::Mul(parts)
            | TDim::Broadcast(parts)
            | TDim::Min(parts)
            | TDim::Max(parts) => open.extend(parts),
            TDim::MulInt(_, part) | TDim::Div(part, _) => open.push(part),
            TDim::Ge(left, right) | TDim::Eq(left, right) => open.extend([&**left, &**right]),
        }
    }
    false
}

/// The model, with `given` tensors as its inputs, after its own.
fn parse(
    source: &Source,
    given: &[(String, EngineTensor)],
    names: &mut NeutralNames,
) -> TractResult<InferenceModel> {
    static ONNX: LazyLock<Onnx> = LazyLock::new(|| tract_onnx::onnx().with_ignore_value_info(true));
    let mut proto = pb::ModelProto::decode(&source.bytes[..])?;
    if let Some(graph) = &mut proto.graph {
        names.neutralize(graph);
        in_dialect(graph);
    }
    let mut root = None;
    let mut settled = Vec::new();
    if let Some(graph) = &mut proto.graph {
        for constant in &source.constants {
            let name = names.neutral(constant.name());
            match tensor_of(constant)? {
                None => {
                    let stored = constant.header.encode_to_vec();
                    let stored = pb::TensorProto::decode(&stored[..])?;
                    graph.initializer.push(pb::TensorProto { name, ..stored });
                }
                Some(tensor) => {
                    graph.input.push(declared(&name, tensor.shape()));
                    settled.push((name, tensor.into_arc_tensor()));
                }
            }
        }
        for (name, held) in given {
            graph.input.push(declared(&names.neutral(name.as_str()), held.tensor.shape()));
        }
        spare_norms_of_vectors(graph);
        locate(graph, &source.storage, &mut root)?;
    }
    let mut parsed = ONNX.parse(&proto, root.as_deref().and_then(Path::to_str))?;
    if let [name, ..] = parsed.unresolved_inputs.as_slice() {
        return Err(TractError::msg(format!("nothing defines `{name}`")));
    }
    let (model, outlets) = (&mut parsed.model, &parsed.outlets_by_name);
    let outlet = |name: &str| {
        outlets.get(name).copied().ok_or_else(|| TractError::msg(format!("`{name}` is lost")))
    };
    for (name, held) in given {
        let name = names.neutral(name.as_str());
        match held.is_constant {
            true => settled.push((name, Arc::clone(&held.tensor))),
            false => {
                let (kind, shape) = (held.tensor.datum_type(), held.tensor.shape());
                model.set_outlet_fact(outlet(&name)?, InferenceFact::dt_shape(kind, shape))?;
            }
        }
    }
    settle(model, settled.into_iter().map(|(name, value)| Ok((outlet(&name)?, value))))?;
    Ok(parsed.model)
}

/// Makes constants of these inputs. tract compares a constant that it reads with all that
/// it has read already; as inputs they come in without that, and without a copy.
fn settle(
    model: &mut InferenceModel,
    values: impl Iterator<Item = TractResult<(OutletId, Arc<Tensor>)>>,
) -> TractResult<()> {
    let mut settled = HashSet::new();
    for value in values {
        let (outlet, value) = value?;
        let fact = TypedFact::try_from(Arc::clone(&value))?;
        model.set_outlet_fact(outlet, fact.into())?;
        model.node_mut(outlet.node).op = Const::new(value)?.into();
        settled.insert(outlet);
    }
    model.inputs.retain(|input| !settled.contains(input));
    Ok(())
}

/// A graph input, of whatever type.
fn declared(name: &str, shape: &[usize]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::Dimension;
    use pb::tensor_shape_proto::dimension::Value;
    let dim = |&size: &usize| Dimension {
        value: i64::try_from(size).ok().map(Value::DimValue),
        ..Dimension::default()
    };
    let shape = pb::TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let elem_type = pb::tensor_proto::DataType::Float.into();
    let tensor = pb::type_proto::Tensor { elem_type, shape: Some(shape) };
    let value = Some(pb::type_proto::Value::TensorType(tensor));
    let r#type = Some(pb::TypeProto { value, ..pb::TypeProto::default() });
    pb::ValueInfoProto { name: name.to_owned(), r#type, ..pb::ValueInfoProto::default() }
}

/// The tensor that goes to tract as it is; `None` if tract reads the constant itself.
fn tensor_of(constant: &Constant) -> TractResult<Option<Tensor>> {
    let Some(numbers) = &constant.numbers else { return plain(&constant.header) };
    let mut tensor = Tensor::zero::<f64>(&data::dims(&constant.header)?)?;
    let mut view = tensor.to_plain_array_view_mut::<f64>()?;
    if let Some(place) = view.as_slice_mut() {
        numbers.read(0, place);
    }
    Ok(Some(tensor))
}

/// The tensor that `stored` holds, if its data is one run of bytes of a common type: then
/// one copy takes it from the file to tract. All else is left to tract's own reading.
fn plain(stored: &TensorProto) -> TractResult<Option<Tensor>> {
    use pb::tensor_proto::DataType as T;
    let Ok(T::Float | T::Float16 | T::Double | T::Int64 | T::Int32 | T::Int8 | T::Uint8) =
        T::try_from(stored.data_type())
    else {
        return Ok(None);
    };
    let (Some(raw), Ok(())) = (&stored.raw_data, data::check(stored, &Storage::default())) else {
        return Ok(None);
    };
    let kind = T::try_from(stored.data_type())?.try_into()?;
    let mut tensor = Tensor::zero_dt(kind, &data::dims(stored)?)?;
    // An empty tensor has no bytes on either side.
    if tensor.as_bytes().len() != raw.len() {
        return Ok(None);
    }
    tensor.as_bytes_mut().copy_from_slice(raw);
    Ok(Some(tensor))
}

/// Nodes as tract wants them, those of bodies included.
fn in_dialect(graph: &mut pb::GraphProto) {
    for node in &mut graph.node {
        // tract wants unique node names, exporters do not always give them; what it makes
        // of a node it calls after that, and must not meet a tensor of the file.
        node.name = node.output.first().map(|output| format!("{output} node")).unwrap_or_default();
        // It ignores domains: an operator of somebody's own is not the one of ONNX.
        if !matches!(node.domain.as_str(), "" | "ai.onnx" | "ai.onnx.ml") {
            node.op_type = format!("{}::{}", node.domain, node.op_type);
        }
        // It looks for the steps of a permutation until it has found them.
        let perm = node.attribute.iter().find(|attribute| attribute.name == "perm");
        if node.op_type == "Transpose" && perm.is_some_and(|perm| !is_permutation(&perm.ints)) {
            node.op_type = "Transpose by no permutation".into();
        }
        let attributes = node.attribute.iter_mut();
        attributes.flat_map(|attribute| attribute.g.iter_mut()).for_each(in_dialect);
    }
}

/// A batch norm looks for channels in the second dimension, beyond the end of the shape if
/// there is none, and the process may end there: tract is not asked about norms of
/// vectors, nor of what is made of vectors element by element.
fn spare_norms_of_vectors(graph: &mut pb::GraphProto) {
    use pb::type_proto::Value;
    let is_vector = |info: &&pb::ValueInfoProto| {
        let declared = info.r#type.as_ref().and_then(|declared| declared.value.as_ref());
        let Some(Value::TensorType(tensor)) = declared else { return false };
        tensor.shape.as_ref().is_some_and(|shape| shape.dim.len() < 2)
    };
    let inputs = graph.input.iter().filter(is_vector).map(|input| input.name.clone());
    let stored = graph.initializer.iter().filter(|tensor| tensor.dims.len() < 2);
    let mut vectors: HashSet<String> =
        inputs.chain(stored.map(|tensor| tensor.name.clone())).collect();
    const BY_ELEMENT: [&str; 12] = [
        "Add",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Div",
        "Dropout",
        "Identity",
        "Mul",
        "Neg",
        "Relu",
        "Sigmoid",
        "Sub",
    ];
    for node in &mut graph.node {
        let by_element = BY_ELEMENT.contains(&node.op_type.as_str());
        let of_vectors = match node.op_type.as_str() {
            "BatchNormalization" => node.input.first().is_some_and(|data| vectors.contains(data)),
            "Constant" => node
                .attribute
                .iter()
                .any(|attribute| attribute.t.as_ref().is_none_or(|tensor| tensor.dims.len() < 2)),
            _ => by_element && node.input.iter().all(|input| vectors.contains(input)),
        };
        if of_vectors {
            vectors.extend(node.output.iter().cloned());
        }
        if of_vectors && node.op_type == "BatchNormalization" {
            node.op_type = "BatchNormalization of a vector".into();
        }
    }
}

/// Gives external tensors the places that our own reading would find them at, relative to
/// the `root` of the file system: which files may be read is decided in [`Storage`] alone.
fn locate(
    graph: &mut pb::GraphProto,
    storage: &Storage,
    root: &mut Option<PathBuf>,
) -> TractResult<()> {
    const EXTERNAL: i32 = 1;
    let inside = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    let (mut tensors, mut bodies) = (Vec::new(), Vec::new());
    for attribute in inside {
        tensors.extend(attribute.t.iter_mut().chain(&mut attribute.tensors));
        bodies.extend(attribute.g.iter_mut().chain(&mut attribute.graphs));
    }
    tensors.extend(&mut graph.initializer);
    for tensor in tensors.into_iter().filter(|tensor| tensor.data_location == Some(EXTERNAL)) {
        for entry in tensor.external_data.iter_mut().filter(|entry| entry.key == "location") {
            let path = storage.resolve(&entry.value)?;
            let top = path.ancestors().last().unwrap_or(&path);
            let place = path.strip_prefix(top)?.to_str();
            let place = place.ok_or_else(|| TractError::msg("a path is not UTF-8"))?;
            entry.value = place.to_owned();
            *root = Some(top.to_owned());
        }
    }
    bodies.into_iter().try_for_each(|body| locate(body, storage, root))
}

fn is_permutation(axes: &[i64]) -> bool {
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    (0..).zip(sorted).all(|(expected, axis)| expected == axis)
}

/// The tensor without a name, in its own type. Sizes are int64.
fn in_onnx(tensor: &Tensor) -> TractResult<TensorProto> {
    use DatumType as D;
    use pb::tensor_proto::DataType as T;
    let tensor = match tensor.datum_type() {
        D::TDim => tensor.cast_to::<i64>()?,
        _ => Cow::Borrowed(tensor),
    };
    let data_type = match tensor.datum_type() {
        D::Bool => T::Bool,
        D::U8 => T::Uint8,
        D::U16 => T::Uint16,
        D::U32 => T::Uint32,
        D::U64 => T::Uint64,
        D::I8 => T::Int8,
        D::I16 => T::Int16,
        D::I32 => T::Int32,
        D::I64 => T::Int64,
        D::F16 => T::Float16,
        D::F32 => T::Float,
        D::F64 => T::Double,
        other => return Err(TractError::msg(format!("{other:?} is no type of ONNX"))),
    };
    Ok(TensorProto {
        dims: tensor.shape().iter().map(|&dim| dim as i64).collect(),
        data_type: Some(data_type.into()),
        raw_data: Some(tensor.as_bytes().to_vec().into()),
        ..TensorProto::default()
    })
}

fn from_tract(tensor: &Tensor) -> TractResult<Array> {
    use DatumType as D;
    let kind = tensor.datum_type();
    Ok(match kind {
        D::F64 => Array::Float(tensor.to_plain_array_view::<f64>()?.to_owned()),
        D::F32 => Array::Float(tensor.to_plain_array_view::<f32>()?.mapv(f64::from)),
        D::F16 => Array::Float(tensor.to_plain_array_view::<f16>()?.mapv(f16::to_f64)),
        D::String => return Err(TractError::msg("a string tensor cannot be compared")),
        _ => Array::Int(tensor.cast_to::<i64>()?.to_plain_array_view::<i64>()?.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::write;

    #[test]
    fn sizes_are_those_of_tensors() {
        let mut inference = Inference::default();
        let dims = [Some(3), None, Some(i64::MAX), Some(-1)];
        inference.note_shape("x", dims.into_iter().map(|dim| dim.map(TDim::Val)));
        assert_eq!(inference.shapes["x"], [Some(3), None, None, None]);
        // What is known stays, what was not is filled in.
        let dims = [4, 5, 6, 7].map(|dim| Some(TDim::Val(dim)));
        inference.note_shape("x", dims.into_iter());
        assert_eq!(inference.shapes["x"], [Some(3), Some(5), Some(6), Some(7)]);
    }

    /// A name is no size, no arithmetic, and no promise that two sizes are equal; however
    /// long it is, it is none of tract's.
    #[test]
    fn names_say_nothing() {
        use crate::onnx::proto::tensor_shape_proto::dimension::Value;
        use crate::onnx::proto::type_proto;
        let parentheses = format!("{}n{}", "(".repeat(100_000), ")".repeat(100_000));
        for name in ["64", "n", "2*3", &parentheses] {
            let (x, y) = (format!("x{name}"), format!("y{name}"));
            let mut input = write::double_input(&x, 2);
            let declared = input.r#type.as_mut().and_then(|declared| declared.value.as_mut());
            let Some(type_proto::Value::TensorType(tensor)) = declared else { panic!("{name}") };
            for dim in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim).skip(1) {
                dim.value = Some(Value::DimParam(name.to_owned()));
            }
            let nodes = vec![write::node("Relu", &y, &[&x], &y, vec![])];
            let bytes = write::model(17, vec![input], nodes, vec![], &[&y]).encode_to_vec();
            let infer = |shapes| {
                let source = Source::small(bytes.clone(), Limits::of_reading());
                infer(source, &shapes).unwrap().shapes
            };
            assert_eq!(infer(InputShapes::new())[&y], [None, None], "{name:.9}");
            let given = InputShapes::from([(x.clone(), vec![2, 7])]);
            assert_eq!(infer(given)[&y], [Some(2), Some(7)], "{name:.9}");
            let source = Source::small(bytes.clone(), Limits::of_reading());
            assert!(Engine::load(source, &[vec![2, 3]]).is_ok(), "{name:.9}");
        }
    }

    #[test]
    fn a_transpose_by_no_permutation_ends() {
        for perm in [vec![0, 0], vec![1, 2], vec![-1, 0], vec![0]] {
            let nodes =
                vec![write::node("Transpose", "", &["x"], "y", vec![write::ints("perm", perm)])];
            let inputs = vec![write::double_input("x", 2)];
            let bytes = write::model(17, inputs, nodes, vec![], &["y"]).encode_to_vec();
            let source = Source::small(bytes, Limits::of_reading());
            assert!(Engine::load(source, &[vec![2, 3]]).is_err());
        }
    }

    #[test]
    fn what_is_too_large_is_not_run() {
        // At the Add, x, its square and the sum of both live: 3 × 8 × 1000 bytes; and so does
        // the zero that Relu compares with.
        let nodes = vec![
            write::node("Mul", "", &["x", "x"], "square", vec![]),
            write::node("Add", "", &["x", "square"], "y", vec![]),
            write::node("Relu", "", &["y"], "z", vec![]),
        ];
        let inputs = vec![write::double_input("x", 1)];
        let bytes = write::model(17, inputs, nodes, vec![], &["z"]).encode_to_vec();
        let load = |allowed| {
            let limits = Limits::new(Duration::from_secs(60), allowed);
            Engine::load(Source::small(bytes.clone(), limits), &[vec![1000]]).map(drop)
        };
        assert_eq!(load(24_008), Ok(()));
        assert_eq!(load(24_007), Err(EngineError::TooLarge { bytes: 24_008 }));
    }

    /// Constants that stand beside a model are those that it would hold itself, however they
    /// are stored.
    #[test]
    fn constants_beside_the_model_are_its_own() {
        use crate::onnx::proto::tensor_proto::DataType;
        let tensor = |data_type: DataType, dims: &[i64]| TensorProto {
            name: Some("c".into()),
            data_type: Some(data_type.into()),
            dims: dims.to_vec(),
            ..TensorProto::default()
        };
        let raw = |data_type, dims, raw: &'static [u8]| TensorProto {
            raw_data: Some(raw.into()),
            ..tensor(data_type, dims)
        };
        let floats = TensorProto { float_data: vec![1.5, -2.0], ..tensor(DataType::Float, &[2]) };
        let short = raw(DataType::Float, &[2], &[0, 0, 0, 64]);
        for (case, constant, direct) in [
            ("floats", raw(DataType::Float, &[2], &[0, 0, 0, 64, 0, 0, 128, 191]), true),
            ("halves", raw(DataType::Float16, &[2], &[0, 0x40, 0, 0xbc]), true),
            ("scalar", raw(DataType::Int64, &[], &[3, 0, 0, 0, 0, 0, 0, 0]), true),
            ("bytes", raw(DataType::Uint8, &[2, 1], &[1, 2]), true),
            ("booleans", raw(DataType::Bool, &[2], &[1, 0]), false),
            ("typed", floats, false),
            ("empty", tensor(DataType::Float, &[0]), false),
            ("too short", short, false),
        ] {
            assert_eq!(plain(&constant).unwrap().is_some(), direct, "{case}");
            let run = |inside: Vec<TensorProto>, constants: Vec<TensorProto>| {
                let nodes = vec![write::node("Identity", "", &["c"], "y", vec![])];
                let bytes = write::model(17, vec![], nodes, inside, &["y"]).encode_to_vec();
                let source = Source::small(bytes, Limits::of_reading());
                Engine::load(
                    Source {
                        constants: constants.into_iter().map(Constant::from).collect(),
                        ..source
                    },
                    &[],
                )?
                .run(&[])
            };
            let (inside, beside) =
                (run(vec![constant.clone()], vec![]), run(vec![], vec![constant]));
            assert_eq!(inside, beside, "{case}");
            assert_eq!(inside.is_ok(), case != "too short", "{case}");
        }
    }
}
