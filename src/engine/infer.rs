//! Sizes and integers that follow from the shapes of a model's inputs, as tract infers them.
//!
//! The analysis applies tract's rules, one node at a time, under bounds of our own. If an
//! expression of a size grows beyond them, the analysis ends, and what was inferred before
//! holds.
//!
//! Knows tract's analysis; `facts` decides which of its results are believed.

use std::collections::{BTreeSet, HashMap};

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{Factoid, GenericFactoid};

use crate::engine::guard::guarded;
use crate::engine::limits::EngineError;
use crate::engine::names::NeutralNames;
use crate::engine::parse::parsed;
use crate::engine::source::Source;
use crate::engine::tensors::InputShapes;

/// What follows from the shapes of the graph's inputs, keyed by the names of tensors.
#[derive(Debug, Default)]
pub struct Inference {
    /// The sizes of tensors; a size that is not fixed is `None`.
    pub shapes: HashMap<String, Vec<Option<i64>>>,
    /// Integer tensors that are computed from sizes: pads, bounds.
    pub integers: HashMap<String, Vec<i64>>,
    /// The limit that ended the inference early, if any.
    pub limit: Option<&'static str>,
}

/// The limit that is reported if a size has more than [`MAX_SIZE_TERMS`] terms.
const LONG_SIZES: &str = "sizes that are expressions of more than 256 terms are not followed";

/// Upper bound on the terms of a size. Sizes of real networks have fewer: a few sums, products
/// and quotients.
const MAX_SIZE_TERMS: usize = 256;

/// Upper bound on the visits per node, on average. A fact about a tensor tells something about
/// those before and after it, so a node is visited a few times.
const MAX_VISITS: usize = 64;

/// Upper bound on the size of a tensor along any axis; no tensor of a network is larger.
const MAX_SIZE: i64 = 1 << 32;

/// Upper bound on the length of a list of integers that is computed from sizes.
const MAX_INTEGERS: usize = 64;

/// Infers what follows from the shapes of the graph's inputs, `inputs`. What the file says of
/// other tensors is ignored: `value_info` is sometimes wrong.
///
/// # Errors
/// Returns an error if tract cannot read the model at all. What it cannot infer is just missing.
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
    // A typed model also knows the values of its constant sub-graphs. In it, only labelled
    // outlets are tensors of the file; its nodes may be steps that tract added.
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

impl Inference {
    fn note_integers(&mut self, name: &str, value: &Tensor) {
        let is_list = value.len() <= MAX_INTEGERS && !value.datum_type().is_float();
        let integers = value.cast_to::<i64>().ok().filter(|_| is_list);
        let integers = integers.as_ref().and_then(|value| value.to_plain_array_view::<i64>().ok());
        if let Some(integers) = integers {
            self.integers.insert(name.to_owned(), integers.iter().copied().collect());
        }
    }

    /// Notes those of `dims` that are numbers, next to the sizes of `name` that are known
    /// already.
    fn note_shape(&mut self, name: &str, dims: impl Iterator<Item = Option<TDim>>) {
        // A bound that means "to the end" may have been taken for a size on the way.
        let is_size = |size: &i64| (0..MAX_SIZE).contains(size);
        let dims: Vec<Option<i64>> = dims.map(|dim| dim?.to_i64().ok().filter(is_size)).collect();
        let known = self.shapes.entry(name.to_owned()).or_insert_with(|| vec![None; dims.len()]);
        if known.len() == dims.len() {
            known.iter_mut().zip(dims).for_each(|(known, dim)| *known = known.or(dim));
        }
    }
}

/// Runs the engine's own analysis of a model step by step, so that it ends where sizes become
/// endless: where each size is a sum of two earlier ones, thirty nodes make a billion terms.
/// Returns the limit that ended the analysis, if any.
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
        // If the rules of one node fail, those of others may still succeed.
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

/// Returns the facts about the outlets around one node that its rules add to what was known.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::limits::Limits;
    use crate::engine::load::Engine;
    use crate::onnx::write;
    use prost::Message;

    #[test]
    fn sizes_are_those_of_tensors() {
        let mut inference = Inference::default();
        let dims = [Some(3), None, Some(i64::MAX), Some(-1)];
        inference.note_shape("x", dims.into_iter().map(|dim| dim.map(TDim::Val)));
        assert_eq!(inference.shapes["x"], [Some(3), None, None, None]);
        // What is known stays, and what was not known is filled in.
        let dims = [4, 5, 6, 7].map(|dim| Some(TDim::Val(dim)));
        inference.note_shape("x", dims.into_iter());
        assert_eq!(inference.shapes["x"], [Some(3), Some(5), Some(6), Some(7)]);
    }

    /// A name is no size, no arithmetic, and no promise that two sizes are equal; however long
    /// it is, it never collides with one of tract's names.
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
}
