//! tract behind a border: the only module that names it.
//!
//! Runs ONNX models as they are written: the plain typed plan, neither
//! decluttered nor optimised, because declutter folds batch norms itself and the
//! comparison would then be of our folding with tract's. A panic inside tract is
//! an [`EngineError`] like any other. [`normal`] puts models into words that it knows.

pub mod normal;

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Once};

use half::f16;
use ndarray::ArrayD;
use prost::Message;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{Factoid, GenericFactoid};

/// Why tract could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tract: {0}")]
pub struct EngineError(String);

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
}

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
pub struct Engine(Arc<TypedRunnableModel>);

/// A model to be loaded.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file's content.
    pub bytes: &'a [u8],
    /// Where its side files lie, if it has any.
    pub folder: Option<&'a Path>,
}

impl Engine {
    /// Loads a model for inputs of the given shapes, in the order of the graph's inputs.
    ///
    /// # Errors
    /// If tract does not support something in it, or the shapes do not fit.
    pub fn load(source: Source<'_>, shapes: &[Vec<usize>]) -> Result<Self, EngineError> {
        guarded(|| {
            let mut model = parse(source)?;
            for (index, shape) in shapes.iter().enumerate() {
                let fact = model.input_fact(index)?.clone().with_shape(shape);
                model.set_input_fact(index, fact)?;
            }
            Ok(Engine(model.into_typed()?.into_runnable()?))
        })
    }

    /// Runs the model once.
    ///
    /// # Errors
    /// If tract fails.
    pub fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, EngineError> {
        guarded(|| {
            let model = self.0.model();
            let mut feed = tvec!();
            for (index, input) in inputs.iter().enumerate() {
                let wanted = model.input_fact(index)?.datum_type;
                let tensor: Tensor = match input {
                    Array::Float(values) => values.clone().into(),
                    Array::Int(values) => values.clone().into(),
                };
                feed.push(tensor.cast_to_dt(wanted)?.into_owned().into());
            }
            self.0.run(feed)?.iter().map(|value| from_tract(value)).collect()
        })
    }
}

/// Infers what it can from the shapes of the graph's inputs, ignoring what
/// the file says of others: `value_info` is sometimes wrong.
///
/// # Errors
/// If tract cannot read the model at all; what it cannot infer is just missing.
pub fn infer(source: Source<'_>, inputs: &InputShapes) -> Result<Inference, EngineError> {
    guarded(|| {
        let mut model = parse(source)?;
        for (index, outlet) in model.inputs.clone().into_iter().enumerate() {
            if let Some(shape) = inputs.get(&model.node(outlet.node).name) {
                let fact = model.input_fact(index)?.clone().with_shape(shape);
                model.set_input_fact(index, fact)?;
            }
        }
        // What was inferred before a failure holds.
        let _ = model.analyse(true);
        let mut inference = Inference::default();
        for node in model.nodes() {
            for (slot, outlet) in node.outputs.iter().enumerate() {
                let name = model.outlet_label(OutletId::new(node.id, slot)).unwrap_or(&node.name);
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
        if let Ok(typed) = model.into_typed() {
            for node in typed.nodes() {
                for (slot, outlet) in node.outputs.iter().enumerate() {
                    let Some(name) = typed.outlet_label(OutletId::new(node.id, slot)) else {
                        continue;
                    };
                    if let Some(value) = &outlet.fact.konst {
                        inference.note_integers(name, value);
                    }
                    let dims = outlet.fact.shape.iter();
                    inference.note_shape(name, dims.map(|dim| Some(dim.clone())));
                }
            }
        }
        Ok(inference)
    })
}

fn parse(source: Source<'_>) -> TractResult<InferenceModel> {
    let onnx = tract_onnx::onnx().with_ignore_value_info(true);
    let mut proto = tract_onnx::pb::ModelProto::decode(source.bytes)?;
    proto.graph.iter_mut().for_each(rename);
    let folder = source.folder.and_then(Path::to_str);
    let parsed = onnx.parse(&proto, folder)?;
    match parsed.unresolved_inputs.as_slice() {
        [] => Ok(parsed.model),
        [name, ..] => Err(TractError::msg(format!("nothing defines `{name}`"))),
    }
}

fn rename(graph: &mut tract_onnx::pb::GraphProto) {
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
        attributes.flat_map(|attribute| attribute.g.iter_mut()).for_each(rename);
    }
}

fn is_permutation(axes: &[i64]) -> bool {
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    (0..).zip(sorted).all(|(expected, axis)| expected == axis)
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

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, which calls tract, and turns a panic into an error.
fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, EngineError> {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                report(panic);
            }
        }));
    });
    GUARDED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(EngineError(first_line(&format!("{error:#}")))),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(EngineError(format!("it panicked: {}", first_line(&text.unwrap_or_default()))))
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::build;

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

    #[test]
    fn a_transpose_by_no_permutation_ends() {
        for perm in [vec![0, 0], vec![1, 2], vec![-1, 0], vec![0]] {
            let nodes =
                vec![build::node("Transpose", "", &["x"], "y", vec![build::ints("perm", perm)])];
            let inputs = vec![build::double_input("x", 2)];
            let bytes = build::model(17, inputs, nodes, vec![], &["y"]).encode_to_vec();
            let loaded = Engine::load(Source { bytes: &bytes, folder: None }, &[vec![2, 3]]);
            assert!(loaded.is_err());
        }
    }
}
