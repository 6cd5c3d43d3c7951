//! The run of the whole model: as it was read, and as it will be written.
//!
//! The old model is tried at likely sizes, and both are run where it runs: on noise, then at
//! other sizes, and on other inputs where these say nothing. All runs together take at most
//! twice what the first one takes.
//!
//! Knows which runs there are and when they are enough; one run is for [`whole_run`].

use crate::engine::{EngineError, Limits, dialect, memory_for};
use crate::onnx::graph::Graph;
use crate::onnx::model::{Invalid, Model};
use crate::options::RunOptions;
use crate::verify::along::FedInput;
use crate::verify::decided::{decided, has_choices};
use crate::verify::evidence::Evidence;
use crate::verify::feeding::{self, Feed, Filling, RunInput, Unfed};
use crate::verify::outcome::{NotRun, Outcome};
use crate::verify::sizes::{first_candidates, second_candidates};
use crate::verify::whole_run::{Ended, Silent, WholeRun, not_run};

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
    let (old, new) = (old_inlined.as_ref().unwrap_or(old), new_inlined.as_ref().unwrap_or(new));
    let old_inlined = old_inlined.as_ref().map(Graph::read_all).transpose()?;
    let new_inlined = new_inlined.as_ref().map(Graph::read_all).transpose()?;
    let old_graphs = old_inlined.as_deref().unwrap_or(old_graphs);
    let new_graphs = new_inlined.as_deref().unwrap_or(new_graphs);
    let (Some(old_graph), Some(_)) = (old_graphs.first(), new_graphs.first()) else {
        return Err(Invalid::NoGraph);
    };
    // Over a node of the main graph a bridge may lead, but not inside bodies.
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
        Read::Whole(Box::new(WholeRun::of(old_graphs, new_graphs, options, limits)?))
    };
    let trial = ModelTrial { old: old_graph, read, inputs: &inputs, options, limits };
    match trial.outcome() {
        Ok(outcome) => Ok(outcome),
        Err(Ended::With(outcome)) => Ok(*outcome),
        Err(Ended::Invalid(error)) => Err(error),
    }
}

/// Sizes with more elements than that are not tried, unless they are the most likely ones: a
/// picture of 1024×1024 has fewer.
const MOST_TRIED: usize = 1 << 22;

/// Both models, as far as they are the same at all sizes.
enum Read<'t, 'o, 'n> {
    /// No size chooses between nodes.
    Whole(Box<WholeRun<'t, 'o, 'n>>),
    /// What is run is decided at each size.
    Deciding { old: &'t Model, new: &'t Model },
}

/// Both models, and what they are run on.
struct ModelTrial<'t, 'o, 'n> {
    old: &'t Graph<'o>,
    read: Read<'t, 'o, 'n>,
    inputs: &'t [RunInput],
    options: &'t RunOptions,
    limits: Limits,
}

impl ModelTrial<'_, '_, '_> {
    fn outcome(&self) -> Result<Outcome, Ended> {
        let mut evidence = Evidence::default();
        let samples = self.options.samples.max(1);
        let first = self.first(samples, &mut evidence)?;
        let most = evidence.spent.saturating_mul(2);
        let is_too_much = |evidence: &Evidence, shapes: &[Vec<usize>]| {
            let elements = feeding::elements(shapes, 1).unwrap_or(usize::MAX);
            evidence.spent.saturating_add(elements) > most
        };
        let mut smallest = first.clone();
        let others = second_candidates(&self.fed(), &first).into_iter();
        for shapes in others.filter(|shapes| !is_tiny(shapes, &first)) {
            if is_too_much(&evidence, &shapes) {
                break;
            }
            if self.attempt(&shapes, Filling::Noise, 1, &mut evidence)?.is_none() {
                smallest = shapes;
                break;
            }
        }
        for filling in [Filling::Unit, Filling::Pixels, Filling::Picture] {
            if evidence.is_enough() || is_too_much(&evidence, &smallest) {
                break;
            }
            let _ = self.attempt(&smallest, filling, 1, &mut evidence)?;
        }
        if !evidence.is_enough() {
            evidence.wants_pieces = true;
            let _ = self.attempt(&smallest, Filling::Noise, 1, &mut evidence)?;
        }
        Ok(evidence.outcome(self.inputs))
    }

    fn fed(&self) -> Vec<FedInput> {
        self.inputs.iter().map(|input| input.fed.clone()).collect()
    }

    /// Runs both at the first sizes at which the old model runs; these.
    fn first(&self, samples: usize, evidence: &mut Evidence) -> Result<Vec<Vec<usize>>, Ended> {
        let mut first_reason = None;
        let declared = feeding::declarations(self.old)?;
        let candidates = first_candidates(&self.fed(), &declared);
        let likely = candidates.first().and_then(|shapes| feeding::elements(shapes, 1));
        let most = likely.unwrap_or_default().max(MOST_TRIED);
        let is_small = |shapes: &Vec<Vec<usize>>| {
            feeding::elements(shapes, 1).is_some_and(|elements| elements <= most)
        };
        for shapes in candidates.into_iter().filter(is_small) {
            let elements = feeding::elements(&shapes, samples);
            // In float64, and in the model's own type.
            let taken = elements.map(|elements| memory_for(elements.saturating_mul(16)));
            let silent = if elements.is_none() {
                let reason = "its inputs, all samples together, are too large to be fed";
                Some(NotRun::from(reason.to_owned()))
            } else if let Some(Err(error)) = taken {
                Some(not_run(&error))
            } else {
                match self.attempt(&shapes, Filling::Noise, samples, evidence)? {
                    None => return Ok(shapes),
                    Some(Silent::Engine(error @ EngineError::TooLong)) => {
                        return Err(Ended::with(Outcome::NotRun(not_run(&error))));
                    }
                    Some(Silent::Engine(error)) => Some(not_run(&error)),
                    Some(Silent::NotFinite) => {
                        if self.attempt(&shapes, Filling::Unit, samples, evidence)?.is_none() {
                            return Ok(shapes);
                        }
                        // Other sizes do not help.
                        let reason = "the original gives NaN or infinity on random inputs";
                        let why = NotRun::from(reason.to_owned());
                        return Err(Ended::with(Outcome::NotRun(why)));
                    }
                }
            };
            first_reason = first_reason.or(silent);
        }
        let nothing = || NotRun::from("no sizes of its inputs are known".to_owned());
        Err(Ended::with(Outcome::NotRun(first_reason.unwrap_or_else(nothing))))
    }

    /// Runs both models and adds what was seen to the evidence; or says why that is nothing.
    fn attempt(
        &self,
        shapes: &[Vec<usize>],
        filling: Filling,
        samples: usize,
        evidence: &mut Evidence,
    ) -> Result<Option<Silent>, Ended> {
        // Every run has numbers of its own.
        let begin = self.options.seed.wrapping_add(evidence.shapes.len() as u64);
        let seeds = begin..begin.saturating_add(samples as u64);
        let feed = Feed { inputs: self.inputs, shapes, filling, seeds };
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
            evidence.leave_out(old_decided.as_ref(), new_decided.as_ref());
            let old = old_decided.as_ref().map_or(old, |decided| &decided.model);
            let new = new_decided.as_ref().map_or(new, |decided| &decided.model);
            let (old, new) = (Graph::read_all(old)?, Graph::read_all(new)?);
            silent =
                WholeRun::of(&old, &new, self.options, self.limits)?.attempt(&feed, evidence)?;
            if silent.is_some() || evidence.left_out.is_empty() {
                break;
            }
        }
        Ok(silent)
    }
}

/// Whether a map is so small that kernels and crops may leave nothing of it: tract reads beyond
/// tensors without elements.
fn is_tiny(shapes: &[Vec<usize>], first: &[Vec<usize>]) -> bool {
    const LEAST: usize = 32;
    shapes.iter().zip(first).any(|(shape, first)| {
        let spatial = shape.iter().zip(first).skip(2);
        shape.len() > 3 && spatial.into_iter().any(|(&size, &first)| size < LEAST.min(first))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost::Message;

    use super::*;
    use crate::engine::InputShapes;
    use crate::onnx::proto::NodeProto;
    use crate::onnx::storage::Storage;
    use crate::onnx::write::{double_input, model, node};

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
}
