//! One run of both whole models: they are fed, compared and, where they differ by more than is
//! allowed, compared once more piece by piece, each from equal tensors. A model may make of
//! rounding what it likes, a piece may not.
//!
//! Knows two models and what they are fed; does not know which other runs there are.

use std::cell::Cell;

use crate::engine::{EngineError, Limits};
use crate::onnx::graph::Graph;
use crate::onnx::model::Invalid;
use crate::options::RunOptions;
use crate::verify::compare::{ComparedTensor, Tolerances};
use crate::verify::course::Course;
use crate::verify::evidence::Evidence;
use crate::verify::feeding::{self, Feed};
use crate::verify::float_types::{ComparedTypes, FloatTypes};
use crate::verify::outcome::{NotRun, Outcome};
use crate::verify::pairs::Pairs;
use crate::verify::seen::Seen;
use crate::verify::side_by_side::{Fed, Halted, SideBySide};
use crate::verify::sliced_run::SLICE_LIMITS;
use crate::verify::slices;

/// Both models, and their course.
pub struct WholeRun<'w, 'o, 'n> {
    old: &'w [Graph<'o>],
    new: &'w [Graph<'n>],
    types: [FloatTypes; 2],
    /// The types by which tensors of the old model are compared.
    compared_as: ComparedTypes,
    pairs: Pairs,
    course: Course,
    tolerances: Tolerances,
    limits: Limits,
    same: SameTensors,
    spent: Cell<usize>,
}

/// Which tensors of one name both models have to make alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameTensors {
    /// All tensors: what whole models do not show may be compared piece by piece.
    All,
    /// Outputs alone: tensors on the way differ by factors.
    Outputs,
}

/// Reasons why nothing more is run.
#[derive(Debug)]
pub enum Ended {
    /// An entry cannot be decoded.
    Invalid(Invalid),
    /// It is known what the run shows.
    With(Box<Outcome>),
}

impl Ended {
    /// Ends the runs with this outcome.
    pub fn with(outcome: Outcome) -> Self {
        Ended::With(Box::new(outcome))
    }
}

impl From<Invalid> for Ended {
    fn from(error: Invalid) -> Self {
        Ended::Invalid(error)
    }
}

/// Reasons why a run on some inputs shows nothing.
#[derive(Debug)]
pub enum Silent {
    /// The engine cannot run the old model on them.
    Engine(EngineError),
    /// The old model gives NaN or infinity.
    NotFinite,
}

impl<'w, 'o, 'n> WholeRun<'w, 'o, 'n> {
    /// Pairs the nodes of both models, and sets their course.
    ///
    /// # Errors
    /// Returns an error if a constant cannot be decoded.
    pub fn of(
        old: &'w [Graph<'o>],
        new: &'w [Graph<'n>],
        options: &RunOptions,
        limits: Limits,
        same: SameTensors,
    ) -> Result<Self, Invalid> {
        let (old_graph, new_graph) = mains(old, new)?;
        let pairs = Pairs::of(old_graph, new_graph)?;
        let course = Course::whole(old_graph, new_graph, &pairs)?;
        let types = [FloatTypes::of(old)?, FloatTypes::of(new)?];
        let [old_types, _] = &types;
        let compared_as = match same {
            // What whole models do not show is compared piece by piece.
            SameTensors::All => ComparedTypes::of_file(old_types, old_graph),
            SameTensors::Outputs => {
                ComparedTypes::followed_through(old_types, old_graph, &pairs.old)
            }
        };
        let tolerances = Tolerances { given: options.tolerance };
        let spent = Cell::default();
        Ok(WholeRun {
            old,
            new,
            types,
            compared_as,
            pairs,
            course,
            tolerances,
            limits,
            same,
            spent,
        })
    }

    /// Runs both models and adds what was seen to the evidence; returns the reason if that is
    /// nothing.
    ///
    /// # Errors
    /// Returns an error if something is known for good: that an entry cannot be decoded, that
    /// the models differ, that the new one does not run, or that time is over.
    pub fn attempt(&self, feed: &Feed, evidence: &mut Evidence) -> Result<Option<Silent>, Ended> {
        if evidence.wants_pieces && self.same == SameTensors::Outputs {
            return Ok(None);
        }
        let samples = match feeding::samples(feed, self.limits) {
            Ok(samples) => samples,
            Err(error) => return Ok(Some(Silent::Engine(error))),
        };
        let names: Vec<String> = feed.inputs.iter().map(|input| input.name.clone()).collect();
        let fed = Fed { names: &names, samples: &samples, bridges: feed.manner.bridges };
        let compared = if evidence.wants_pieces {
            self.pieces(fed)?.map(|pieces| (None, Some(pieces)))
        } else {
            self.whole(fed)?
        };
        evidence.computed = evidence.computed.saturating_add(self.spent.take());
        let (whole, pieces) = match compared {
            Ok(compared) => compared,
            Err(silent) => return Ok(Some(silent)),
        };
        let (old, _) = mains(self.old, self.new)?;
        evidence.add(feed, whole, pieces);
        evidence.cover(old, &self.pairs);
        evidence.widened |= self.types.iter().any(|types| types.has_bfloat16);
        evidence.nodes = slices::live_nodes(old).len();
        Ok(None)
    }

    /// Runs whole models, and their pieces where these differ; returns what was seen.
    fn whole(&self, fed: Fed) -> Result<Result<WholeAndPieces, Silent>, Ended> {
        let seen = match self.run(&self.course, fed)? {
            Ok(seen) => seen,
            Err(silent) => return Ok(Err(silent)),
        };
        let wrong = seen.all().find(|compared| !compared.agrees());
        let pieces = wrong.map(|wrong| self.explained(fed, &seen, wrong)).transpose()?;
        Ok(Ok((Some(seen), pieces)))
    }

    /// Runs both models in pieces; returns what was seen, if all pieces agree.
    fn pieces(&self, fed: Fed) -> Result<Result<Seen, Silent>, Ended> {
        let (old, new) = mains(self.old, self.new)?;
        let course = Course::in_pieces(old, new, &self.pairs)?;
        let pieces = self.run(&course, fed)?;
        let wrong = pieces.iter().flat_map(Seen::all).find(|piece| !piece.agrees());
        match wrong {
            Some(wrong) => Err(differs(&Seen::default(), wrong)),
            None => Ok(pieces),
        }
    }

    fn run(&self, course: &Course, fed: Fed) -> Result<Result<Seen, Silent>, Ended> {
        let (old, new, limits, tolerances) = (self.old, self.new, self.limits, self.tolerances);
        let ([old_types, new_types], pairs) = (&self.types, &self.pairs);
        let both = SideBySide {
            old,
            new,
            types: [old_types, new_types],
            compared_as: &self.compared_as,
            pairs,
            course,
            most: SLICE_LIMITS,
            limits,
            tolerances,
            spent: &self.spent,
        };
        match both.run(fed) {
            Ok(seen) => Ok(Ok(seen)),
            Err(Halted::Invalid(error)) => Err(error.into()),
            Err(Halted::NotFinite | Halted::Old(EngineError::NotANumber)) => {
                Ok(Err(Silent::NotFinite))
            }
            Err(Halted::Old(error)) => Ok(Err(Silent::Engine(error))),
            // A machine that was busier during one of the two runs says nothing of the model.
            Err(Halted::New(error)) if error.is_of_this_machine() => {
                Err(Ended::with(Outcome::NotRun(not_run(&error))))
            }
            Err(Halted::New(error)) => Err(Ended::with(Outcome::Broken(error.to_string()))),
        }
    }

    /// Returns what was seen of the pieces, if they explain that whole models are wrong. A
    /// tolerance that the caller names is meant for whole models.
    fn explained(&self, fed: Fed, whole: &Seen, wrong: &ComparedTensor) -> Result<Seen, Ended> {
        if self.tolerances.given.is_some() || self.same == SameTensors::Outputs {
            return Err(differs(whole, wrong));
        }
        match self.pieces(fed) {
            Ok(Ok(pieces)) => Ok(pieces),
            Ok(Err(Silent::Engine(error @ EngineError::TooLong))) => {
                Err(Ended::with(Outcome::NotRun(not_run(&error))))
            }
            Ok(Err(_)) => Err(differs(whole, wrong)),
            Err(Ended::With(outcome)) if matches!(*outcome, Outcome::Differs { .. }) => {
                Err(differs(whole, wrong))
            }
            Err(ended) => Err(ended),
        }
    }
}

/// What was seen of whole models, if they were run, and of pieces, if these were compared.
type WholeAndPieces = (Option<Seen>, Option<Seen>);

fn mains<'g, 'o, 'n>(
    old: &'g [Graph<'o>],
    new: &'g [Graph<'n>],
) -> Result<(&'g Graph<'o>, &'g Graph<'n>), Invalid> {
    old.first().zip(new.first()).ok_or(Invalid::NoGraph)
}

fn differs(whole: &Seen, wrong: &ComparedTensor) -> Ended {
    let errors = whole.outputs.iter().map(|output| (output.name.clone(), output.error));
    Ended::with(Outcome::Differs {
        errors: errors.collect(),
        output: wrong.name.clone(),
        error: wrong.error,
        tolerance: wrong.tolerance,
    })
}

/// Returns why the old model was not run, from what the engine reported.
pub fn not_run(error: &EngineError) -> NotRun {
    NotRun { reason: error.to_string(), setting: error.setting() }
}
