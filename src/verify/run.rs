//! Runs whole models: the model as it was read, and as it will be written.
//!
//! The old model is tried at likely sizes, and where it runs both are run: on noise, then at
//! other sizes, and on other inputs where these show nothing. All runs together take at most
//! twice what the first one takes.
//!
//! Knows which runs there are and when they are enough; a single run is the task of [`whole_run`].

use crate::engine::{EngineError, InputShapes, Limits, dialect, memory_for};
use crate::onnx::graph::Graph;
use crate::onnx::model::{Invalid, Model};
use crate::options::RunOptions;
use crate::verify::along::FedInput;
use crate::verify::decided::{decided, has_choices};
use crate::verify::evidence::Evidence;
use crate::verify::feeding::{self, BridgedNodes, Feed, Filling, Manner, RunInput, Unfed};
use crate::verify::outcome::{NotRun, Outcome};
use crate::verify::sizes::{first_candidates, second_candidates};
pub use crate::verify::whole_run::SameTensors;
use crate::verify::whole_run::{Ended, Silent, WholeRun, not_run};

/// What is claimed of the new model.
#[derive(Clone, Copy)]
pub struct RunClaim<'c> {
    /// Which tensors are the same in both models.
    pub same: SameTensors,
    /// Whether the new model is right for inputs of these shapes, as far as that is known: a
    /// file with a crop is not, at sizes of which the crop would leave nothing.
    pub holds_at: &'c dyn Fn(&InputShapes) -> bool,
}

/// Like [`run_graphs`], for models whose graphs have not been read yet.
///
/// # Errors
/// Returns an error if an entry of either model cannot be decoded.
#[cfg(feature = "unstable")]
pub fn run(
    old: &Model,
    new: &Model,
    options: &RunOptions,
    limits: Limits,
) -> Result<Outcome, Invalid> {
    let (old_graphs, new_graphs) = (Graph::read_all(old)?, Graph::read_all(new)?);
    let claim = RunClaim { same: SameTensors::All, holds_at: &|_| true };
    run_graphs((old, &old_graphs), (new, &new_graphs), claim, options, limits)
}

/// Runs the old and the new model, whose graphs have been read, on the same inputs.
///
/// # Errors
/// Returns an error if an entry of either model cannot be decoded.
pub fn run_graphs(
    (old, old_graphs): (&Model, &[Graph]),
    (new, new_graphs): (&Model, &[Graph]),
    claim: RunClaim,
    options: &RunOptions,
    limits: Limits,
) -> Result<Outcome, Invalid> {
    let old_flat = dialect::flattened(old, old_graphs)?;
    let new_flat = dialect::flattened(new, new_graphs)?;
    let (old, new) = (old_flat.as_ref().unwrap_or(old), new_flat.as_ref().unwrap_or(new));
    let old_flat = old_flat.as_ref().map(Graph::read_all).transpose()?;
    let new_flat = new_flat.as_ref().map(Graph::read_all).transpose()?;
    let old_graphs = old_flat.as_deref().unwrap_or(old_graphs);
    let new_graphs = new_flat.as_deref().unwrap_or(new_graphs);
    let (Some(old_graph), Some(_)) = (old_graphs.first(), new_graphs.first()) else {
        return Err(Invalid::NoGraph);
    };
    // A bridge may lead over a node of the main graph, but not over one inside a body.
    let bodies = old_graphs
        .iter()
        .skip(1)
        .flat_map(|body| body.nodes().filter(|&(id, _)| body.is_live(id)).map(|(_, node)| node));
    if let Some(reason) = bodies.filter_map(dialect::misread).next() {
        return Ok(Outcome::NotRun(reason.into()));
    }
    let inputs = match feeding::inputs(old_graph, options) {
        Ok(inputs) => inputs,
        Err(Unfed::NotRun(reason)) => return Ok(Outcome::NotRun(reason)),
        Err(Unfed::Invalid(error)) => return Err(error),
    };
    let has_choices = has_choices(old_graph);
    let read = if has_choices {
        Read::Deciding { old, new }
    } else {
        Read::Whole(Box::new(WholeRun::of(old_graphs, new_graphs, options, limits, claim.same)?))
    };
    let trial = ModelTrial { old: old_graph, read, inputs: &inputs, claim, options, limits };
    match trial.outcome() {
        Ok(outcome) => Ok(outcome),
        Err(Ended::With(outcome)) => Ok(*outcome),
        Err(Ended::Invalid(error)) => Err(error),
    }
}

/// Upper bound on the number of input elements at sizes that are tried, except for the most
/// likely sizes: a picture of 1024×1024 has fewer.
const MOST_TRIED: usize = 1 << 22;

/// Upper bound on the number of input elements, over all sizes at which the old model does not
/// run, counted with bridges and without each. Further sizes are left out, so that a model that
/// runs at none is not fed for minutes.
const MOST_TRIED_IN_VAIN: usize = 1 << 22;

/// Upper bound on the bytes of all tensors that are computed at such sizes; the run that exceeds it
/// is still finished. A model of transposed convolutions may make hundreds of elements of one.
const MOST_COMPUTED_IN_VAIN: usize = 4 << 30;

/// Both models, prepared as far as they are the same at all sizes.
enum Read<'t, 'o, 'n> {
    /// No size chooses between nodes.
    Whole(Box<WholeRun<'t, 'o, 'n>>),
    /// Which nodes run is decided at each size.
    Deciding { old: &'t Model, new: &'t Model },
}

/// Both models, and what they are run on.
struct ModelTrial<'t, 'o, 'n> {
    old: &'t Graph<'o>,
    read: Read<'t, 'o, 'n>,
    inputs: &'t [RunInput],
    claim: RunClaim<'t>,
    options: &'t RunOptions,
    limits: Limits,
}

impl ModelTrial<'_, '_, '_> {
    fn outcome(&self) -> Result<Outcome, Ended> {
        let mut evidence = Evidence::default();
        let samples = self.options.samples.max(1);
        let (first, usual) = self.first(samples, &mut evidence)?;
        let most = feeding::elements(&first, samples).unwrap_or_default().saturating_mul(2);
        let is_too_much = |evidence: &Evidence, shapes: &[Vec<usize>]| {
            let elements = feeding::elements(shapes, 1).unwrap_or(usize::MAX);
            evidence.spent.saturating_add(elements) > most
        };
        let mut smallest = first.clone();
        let smaller = second_candidates(&self.fed(), &first).into_iter();
        for shapes in smaller.filter(|shapes| self.holds_at(shapes)) {
            if is_too_much(&evidence, &shapes) {
                break;
            }
            if self.attempt(&shapes, usual, 1, &mut evidence)?.is_none() {
                smallest = shapes;
                break;
            }
        }
        for filling in [Filling::Unit, Filling::Pixels, Filling::Picture] {
            if evidence.is_enough() || is_too_much(&evidence, &smallest) {
                break;
            }
            let _ = self.attempt(&smallest, Manner { filling, ..usual }, 1, &mut evidence)?;
        }
        if !evidence.is_enough() {
            evidence.wants_pieces = true;
            let _ = self.attempt(&smallest, usual, 1, &mut evidence)?;
        }
        Ok(evidence.outcome(self.inputs))
    }

    fn holds_at(&self, shapes: &[Vec<usize>]) -> bool {
        let named = self.inputs.iter().zip(shapes);
        let named = named.map(|(input, shape)| (input.name.clone(), shape.clone()));
        (self.claim.holds_at)(&named.collect())
    }

    fn fed(&self) -> Vec<FedInput> {
        self.inputs.iter().map(|input| input.fed.clone()).collect()
    }

    /// Runs both models at the first sizes at which the old model runs and makes something, with
    /// bridges over failing nodes only if it runs at no sizes without them; returns these sizes,
    /// and how the models were run.
    fn first(
        &self,
        samples: usize,
        evidence: &mut Evidence,
    ) -> Result<(Vec<Vec<usize>>, Manner), Ended> {
        let declared = feeding::declared_axes(self.old)?;
        let candidates = first_candidates(&self.fed(), &declared);
        let likely = candidates.first().and_then(|shapes| feeding::elements(shapes, 1));
        let most = likely.unwrap_or_default().max(MOST_TRIED);
        let is_small = |shapes: &&Vec<Vec<usize>>| {
            feeding::elements(shapes, 1).is_none_or(|elements| elements <= most)
        };
        let (mut first_reason, mut of_nothing) = (None, None);
        let mut left_out = 0usize;
        for bridges in [BridgedNodes::Misread, BridgedNodes::Failing] {
            let (mut in_vain, mut computed_in_vain) = (0usize, 0usize);
            let manner = Manner { filling: Filling::Noise, bridges };
            let holds = |shapes: &&Vec<Vec<usize>>| self.holds_at(shapes);
            for shapes in candidates.iter().filter(is_small).filter(holds) {
                let elements = feeding::elements(shapes, samples).unwrap_or_default();
                let is_too_much = in_vain.saturating_add(elements) > MOST_TRIED_IN_VAIN
                    || computed_in_vain > MOST_COMPUTED_IN_VAIN;
                if in_vain > 0 && is_too_much {
                    left_out = left_out.saturating_add(1);
                    continue;
                }
                let before = evidence.computed;
                match self.try_at(shapes, manner, samples, evidence)? {
                    Ok(_) if evidence.is_of_nothing() => {
                        of_nothing.get_or_insert((shapes, manner, std::mem::take(evidence)));
                    }
                    Ok(manner) => return Ok((shapes.clone(), manner)),
                    Err(reason) => {
                        // Inputs that are too large for memory were not made, and do not count.
                        let made = if elements > MOST_TRIED { 0 } else { elements };
                        in_vain = in_vain.saturating_add(made);
                        let computed = evidence.computed.saturating_sub(before);
                        computed_in_vain = computed_in_vain.saturating_add(computed);
                        first_reason.get_or_insert(reason);
                    }
                }
            }
            if let Some((shapes, manner, seen)) = of_nothing {
                *evidence = seen;
                return Ok((shapes.clone(), manner));
            }
        }
        let nothing = || NotRun::from("no sizes of its inputs are known".to_owned());
        let mut why = first_reason.unwrap_or_else(nothing);
        if left_out > 0 {
            why.reason
                .push_str("; it ran at no other size that was tried, and larger ones were not");
        }
        Err(Ended::with(Outcome::NotRun(why)))
    }

    /// Runs both models at these sizes on noise or, if that makes no finite numbers, on noise in
    /// 0 … 1; returns how they were run, or why they were not.
    fn try_at(
        &self,
        shapes: &[Vec<usize>],
        manner: Manner,
        samples: usize,
        evidence: &mut Evidence,
    ) -> Result<Result<Manner, NotRun>, Ended> {
        if let Some(why) = unfed(shapes, samples) {
            return Ok(Err(why));
        }
        let unit = Manner { filling: Filling::Unit, ..manner };
        match self.attempt(shapes, manner, samples, evidence)? {
            None => Ok(Ok(manner)),
            Some(Silent::Engine(error @ EngineError::TooLong)) => {
                Err(Ended::with(Outcome::NotRun(not_run(&error))))
            }
            Some(Silent::Engine(error)) => Ok(Err(not_run(&error))),
            Some(Silent::NotFinite) => {
                if self.attempt(shapes, unit, samples, evidence)?.is_none() {
                    return Ok(Ok(unit));
                }
                // Other sizes do not help.
                let reason = "the original gives NaN or infinity on random inputs";
                Err(Ended::with(Outcome::NotRun(reason.to_owned().into())))
            }
        }
    }

    /// Runs both models and adds what was seen to the evidence; returns the reason if the run
    /// shows nothing.
    fn attempt(
        &self,
        shapes: &[Vec<usize>],
        manner: Manner,
        samples: usize,
        evidence: &mut Evidence,
    ) -> Result<Option<Silent>, Ended> {
        // Every run has random numbers of its own.
        let begin = self.options.seed.wrapping_add(evidence.shapes.len() as u64);
        let seeds = begin..begin.saturating_add(samples as u64);
        let feed = Feed { inputs: self.inputs, shapes, manner, seeds };
        let (old, new) = match &self.read {
            Read::Whole(run) => return run.attempt(&feed, evidence),
            Read::Deciding { old, new } => (*old, *new),
        };
        let named = self.inputs.iter().map(|input| input.name.clone());
        let shapes = named.zip(shapes.iter().cloned()).collect();
        let mut silent = None;
        for values in feeding::choices(self.old, &feed) {
            let (old_decided, new_decided) =
                (decided(old, &shapes, &values)?, decided(new, &shapes, &values)?);
            let old = old_decided.as_ref().map_or(old, |decided| &decided.model);
            let new = new_decided.as_ref().map_or(new, |decided| &decided.model);
            let (old, new) = (Graph::read_all(old)?, Graph::read_all(new)?);
            silent = WholeRun::of(&old, &new, self.options, self.limits, self.claim.same)?
                .attempt(&feed, evidence)?;
            if silent.is_some() {
                break;
            }
            // Only now: if a run fails, the branch that it takes was not run either.
            evidence.leave_out(old_decided.as_ref(), new_decided.as_ref());
            if evidence.left_out().is_none() {
                break;
            }
        }
        Ok(silent)
    }
}

/// Returns why `samples` samples of these shapes cannot be made; `None` if they can.
pub fn unfed(shapes: &[Vec<usize>], samples: usize) -> Option<NotRun> {
    let Some(elements) = feeding::elements(shapes, samples) else {
        let reason = "its inputs, all samples together, are too large to be fed";
        return Some(reason.to_owned().into());
    };
    // Elements are held in float64 and in the model's own type.
    memory_for(elements.saturating_mul(16)).err().map(|error| not_run(&error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ndarray::Array2;
    use prost::Message;

    use super::*;
    use crate::engine::InputShapes;
    use crate::onnx::float::Float;
    use crate::onnx::proto::{AttributeProto, NodeProto};
    use crate::onnx::storage::Storage;
    use crate::onnx::tensor;
    use crate::onnx::write::{self, double_input, int, ints, model, node};

    /// One of the first two takes two tensors of 8,000 bytes and the zero of a Relu, the last
    /// three; and while one of both runs, what the other waits with counts.
    #[test]
    fn models_run_one_after_the_other_if_memory_asks_for_it() {
        let indexed = |nodes| {
            let model = model(17, vec![double_input("x", 1)], nodes, vec![], &["y"]);
            Model::index(model.encode_to_vec().into(), Storage::default()).unwrap()
        };
        let relu = |from, to, doc: &str| NodeProto {
            doc_string: Some(doc.to_owned()),
            ..node("Relu", "", &[from], to, vec![])
        };
        let once = indexed(vec![relu("x", "y", "one")]);
        let other = indexed(vec![relu("x", "y", "another")]);
        let twice = indexed(vec![relu("x", "a", ""), relu("a", "y", "")]);
        let shapes = InputShapes::from([("x".to_owned(), vec![1000])]);
        let agreed = |outcome: &Outcome| matches!(outcome, Outcome::Agreed(_));
        let not_run = |outcome: &Outcome| matches!(outcome, Outcome::NotRun(_));
        let broken = |outcome: &Outcome| matches!(outcome, Outcome::Broken(_));
        type Check<'e> = &'e dyn Fn(&Outcome) -> bool;
        for (old, new, samples, bytes, expected) in [
            (&once, &once, 1, 16_008, &agreed as Check),
            (&once, &other, 1, 24_008, &agreed),
            (&once, &other, 1, 24_007, &not_run),
            (&once, &other, 3, 24_008, &agreed),
            (&once, &other, 3, 24_007, &not_run),
            (&once, &twice, 1, 32_008, &agreed),
            (&once, &twice, 1, 32_007, &broken),
            (&twice, &once, 1, 32_007, &not_run),
        ] {
            let limits = Limits::new(Duration::from_secs(60), bytes);
            let (shapes, given) = (shapes.clone(), Vec::new());
            let options = RunOptions { seed: 0, samples, tolerance: None, shapes, given };
            let outcome = run(old, new, &options, limits).unwrap();
            assert!(expected(&outcome), "{samples}, {bytes}: {outcome:?}");
        }
    }

    /// Over a node that only the new model's run fails at no bridge leads: the result does not
    /// run.
    #[test]
    fn what_fails_in_the_new_model_alone_is_broken() {
        let indexed = |joined: &[&str]| {
            let nodes = vec![
                node("Concat", "", joined, "a", vec![int("axis", 0)]),
                node("Reshape", "", &["a", "square"], "y", vec![]),
            ];
            let stored = vec![tensor::from_integers("square", &[4, 4])];
            let model = model(17, vec![double_input("x", 1)], nodes, stored, &["y"]);
            Model::index(model.encode_to_vec().into(), Storage::default()).unwrap()
        };
        let (right, wrong) = (indexed(&["x", "x"]), indexed(&["x", "x", "x"]));
        let shapes = InputShapes::from([("x".to_owned(), vec![8])]);
        let options = RunOptions { shapes, ..RunOptions::default() };
        let limits = Limits::new(Duration::from_secs(60), 1 << 20);
        let outcome = |old, new| run(old, new, &options, limits).unwrap();
        assert!(matches!(outcome(&right, &right), Outcome::Agreed(_)));
        assert!(matches!(outcome(&right, &wrong), Outcome::Broken(_)));
    }

    /// At a size that a product does not take, the old model runs over a bridge alone: that the
    /// product in its place fails says nothing.
    #[test]
    fn what_fails_in_both_models_is_not_run() {
        let indexed = |with_shape: &str, product: &str| {
            let mut nodes = vec![
                node("MatMul", "", &["x", "matrix"], "a", vec![]),
                node("MatMul", "", &["x", "scaled"], "b", vec![]),
                node("Shape", "", &[with_shape], "s", vec![]),
                node("Expand", "", &[product, "s"], "y", vec![]),
            ];
            nodes.retain(|node| ["s", "y", with_shape, product].contains(&node.output[0].as_str()));
            let stored = ["matrix", "scaled"].map(|name| {
                let values = Array2::from_shape_fn((2, 4), |(row, column)| (row + column) as f64);
                tensor::from_floats(name, &values.into_dyn(), Float::F64)
            });
            let model = model(17, vec![double_input("x", 2)], nodes, stored.to_vec(), &["y"]);
            Model::index(model.encode_to_vec().into(), Storage::default()).unwrap()
        };
        let (old, new) = (indexed("a", "a"), indexed("a", "b"));
        let outcome = |columns: usize| {
            let shapes = InputShapes::from([("x".to_owned(), vec![3, columns])]);
            let options = RunOptions { shapes, ..RunOptions::default() };
            run(&old, &new, &options, Limits::new(Duration::from_secs(60), 1 << 20)).unwrap()
        };
        assert!(matches!(outcome(2), Outcome::Agreed(_)), "{:?}", outcome(2));
        assert!(matches!(outcome(6), Outcome::NotRun(_)), "{:?}", outcome(6));
    }

    /// Constants are equal if what they hold is, wherever they hold it.
    #[test]
    fn another_constant_is_seen() {
        let indexed = |held: AttributeProto| {
            let nodes = vec![
                node("Constant", "", &[], "c", vec![held]),
                node("Expand", "", &["x", "c"], "y", vec![]),
            ];
            let model = model(17, vec![double_input("x", 1)], nodes, vec![], &["y"]);
            Model::index(model.encode_to_vec().into(), Storage::default()).unwrap()
        };
        let listed = |rows: i64| indexed(ints("value_ints", vec![rows, 8]));
        let held =
            |rows: i64| indexed(write::tensor("value", tensor::from_integers("", &[rows, 8])));
        let shapes = InputShapes::from([("x".to_owned(), vec![8])]);
        let options = RunOptions { shapes, ..RunOptions::default() };
        let limits = Limits::new(Duration::from_secs(60), 1 << 20);
        for (old, new, same) in [
            (listed(2), listed(2), true),
            (held(2), held(2), true),
            (listed(2), held(2), true),
            (listed(2), listed(3), false),
            (held(2), held(3), false),
            (listed(2), held(3), false),
        ] {
            let outcome = run(&old, &new, &options, limits).unwrap();
            assert_eq!(matches!(outcome, Outcome::Agreed(_)), same, "{outcome:?}");
            assert_eq!(matches!(outcome, Outcome::Differs { .. }), !same, "{outcome:?}");
        }
    }
}
