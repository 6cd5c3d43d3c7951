//! The fourth step: reads the new model back, as it will be delivered, and runs it against the
//! old one.
//!
//! Knows what was planned and made, and says what is wrong; writes nothing.

use std::time::Instant;

use crate::engine::{InputShapes, Limits};
use crate::error::Error;
use crate::facts::shapes::Sizes;
use crate::onnx::graph::Graph;
use crate::onnx::model::{Invalid, Model};
use crate::options::{Options, Progress};
use crate::pipeline::counts::{self, Operators};
use crate::pipeline::edits::{self, Rewrite};
use crate::pipeline::fate::made_blocks;
use crate::pipeline::files;
use crate::pipeline::make::Made;
use crate::pipeline::planned::{Planned, is_met_where_it_runs};
use crate::report::SideFile;
use crate::verify::outcome::{NotRun, Outcome};
use crate::verify::readback::{self, Expected, Miswritten};
use crate::verify::run::{RunClaim, SameTensors, run_graphs};

/// The measurements of a new model that only reports need.
pub struct Measured {
    /// The SHA-256 of its bytes; `None` unless details are asked for.
    pub sha256: Option<String>,
    /// The side files that it names.
    pub side_files: Vec<SideFile>,
    /// What it holds; `None` if that is the same as in the old model.
    pub held: Option<Held>,
    /// How long measuring took, in seconds.
    pub seconds: f64,
}

/// The parameters and operators of a model.
pub struct Held {
    /// Number of elements of its stored floating-point tensors.
    pub parameters: u64,
    /// Number of its nodes by operator.
    pub operators: Operators,
}

impl Held {
    fn of(new: &Model) -> Result<Self, Invalid> {
        let graphs = Graph::read_all(new)?;
        let parameters = counts::parameters(&graphs)?;
        Ok(Held { parameters, operators: counts::operators(&graphs) })
    }
}

impl Measured {
    /// Counts, and hashes if asked to, the new model made from the one called `file`. A model
    /// that stays as it is may have its nodes in any order, and its graphs are not read.
    ///
    /// # Errors
    /// Returns an error if an entry cannot be decoded.
    pub fn of(
        new: &Model,
        file: &str,
        rewrite: &Rewrite,
        options: &Options,
    ) -> Result<Self, Error> {
        let started = Instant::now();
        let wrong = |invalid: Invalid| Error::miswritten(file, &Miswritten::from(invalid));
        let hashing = files::hashing(options);
        let sha256 = hashing(new.bytes(), &new.storage);
        let side_files = files::side_files(new, hashing);
        let held = (!rewrite.is_empty()).then(|| Held::of(new)).transpose().map_err(wrong)?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Measured { sha256, side_files, held, seconds })
    }
}

/// The reference that a new model is checked against.
pub struct Reference<'c, 'r, 'g, 'm> {
    /// The name of the old model in errors.
    pub file: &'c str,
    /// The old model as it was read, with its functions not inlined.
    pub original: &'c Model,
    /// The plan.
    pub planned: &'c Planned<'r, 'g, 'm>,
    /// The blocks that were made and proved.
    pub made: &'c Made,
    /// The caller's options.
    pub options: &'c Options,
    /// The time and memory that verification may take.
    pub limits: Limits,
}

/// The result of the checks of a new model that holds what was proved.
pub struct Checked {
    /// The outcome of running both models.
    pub outcome: Outcome,
    /// How long reading the new model back took, in seconds.
    pub read_back_seconds: f64,
    /// How long running both models took, in seconds.
    pub run_seconds: f64,
}

/// Everything observed of a new model before it takes its place.
pub struct Examined {
    /// The measurements that only reports need.
    pub measured: Measured,
    /// The result of the checks; `None` if the model is not verified.
    pub checked: Option<Checked>,
    /// How long writing took, in seconds, without measuring and checking.
    pub write_seconds: f64,
}

impl Examined {
    /// Joins what was `measured` and `checked` during writing, which took `seconds` with both.
    pub fn of(measured: Measured, checked: Option<Checked>, seconds: f64) -> Self {
        let seen = checked.as_ref();
        let checks = seen.map_or(0.0, |seen| seen.read_back_seconds + seen.run_seconds);
        let write_seconds = (seconds - measured.seconds - checks).max(0.0);
        Examined { measured, checked, write_seconds }
    }

    /// Checks the verdict, as [`Checked::verdict`]; a model that is not verified passes.
    ///
    /// # Errors
    /// Returns an error that says why the model may not take its place.
    pub fn verdict(&self, file: &str, options: &Options) -> Result<(), Error> {
        self.checked.iter().try_for_each(|checked| checked.verdict(file, options))
    }
}

impl Reference<'_, '_, '_, '_> {
    /// Reads the new model back, and runs it against the old one.
    ///
    /// # Errors
    /// Returns an error if the new model is not the old one with what was made, or malformed.
    pub fn check(&self, new: &Model) -> Result<Checked, Error> {
        Checked::of(
            (self.file, self.options),
            || self.read_back(new),
            |graphs| self.run(new, graphs),
        )
    }

    fn read_back<'n>(&self, new: &'n Model) -> Result<Vec<Graph<'n>>, Miswritten> {
        let graphs = Graph::read_all(new)?;
        let expected = self.planned.analyses.iter().zip(&self.made.fates);
        let expected = expected.map(|(analysis, fates)| {
            let made = || made_blocks(analysis, fates).map(|(_, made)| made);
            let blocks =
                made().map(|made| (made.fused.nodes.as_slice(), made.fingerprints.as_slice()));
            let eval_forms = analysis.training.forms.iter().map(|(id, form)| (*id, form));
            let infos = made().flat_map(|made| &made.fused.infos);
            Expected {
                blocks: blocks.collect(),
                eval_forms: eval_forms.collect(),
                infos: infos.collect(),
            }
        });
        readback::check(self.planned.graphs, &expected.collect::<Vec<_>>(), &graphs)?;
        Ok(graphs)
    }

    /// Checks whether the conditions that are reported for the blocks of the main graph hold for
    /// inputs of these `shapes`, as far as sizes follow from them. A condition that is not
    /// reported does not prevent a run: the old model should not run where it is violated.
    fn holds_at(&self, shapes: &InputShapes) -> bool {
        let main = self.planned.analyses.first().zip(self.made.fates.first());
        let Some((analysis, fates)) = main else { return true };
        let reader = analysis.reader;
        let sizes = Sizes::new(reader.graph, reader.constants, shapes);
        made_blocks(analysis, fates).all(|(block, _)| {
            let mut conditions = block.valid.conditions().iter();
            conditions.all(|condition| {
                !sizes.contradict(condition) || is_met_where_it_runs(reader, block, condition)
            })
        })
    }

    /// Runs the new model against the old one. The old one is run as it stands if no node was
    /// converted from training mode; otherwise as it is with these nodes converted to inference,
    /// and nothing else changed. A norm that stays in training mode is run with the statistics
    /// of its batch, in both models.
    fn run(&self, new: &Model, new_graphs: &[Graph]) -> Result<Outcome, Invalid> {
        let analyses = &self.planned.analyses;
        let mut oversized = analyses.iter().map(|analysis| analysis.reader.constants.oversized());
        if let Some(oversized) = oversized.find_map(Result::transpose) {
            let node = oversized?;
            let why = format!("node `{node}` computes a constant beyond all reason");
            return Ok(Outcome::NotRun(why.into()));
        }
        let new = (new, new_graphs);
        let holds_at = |shapes: &InputShapes| self.holds_at(shapes);
        let claim = RunClaim { same: SameTensors::All, holds_at: &holds_at };
        let run = |old| run_graphs(old, new, claim, &self.options.run, self.limits);
        let forms = analyses.iter().map(|analysis| analysis.training.forms.clone());
        match edits::converted(self.planned.graphs, forms)? {
            Some(converted) => run((&converted, &Graph::read_all(&converted)?)),
            None => run((self.original, self.planned.graphs)),
        }
    }
}

impl Checked {
    /// Reads back, runs and times a new model made from the one called `file`.
    ///
    /// # Errors
    /// Returns an error if the new model is not what it should be, or malformed.
    pub fn of<'n>(
        (file, options): (&str, &Options),
        read_back: impl FnOnce() -> Result<Vec<Graph<'n>>, Miswritten>,
        run: impl FnOnce(&[Graph<'n>]) -> Result<Outcome, Invalid>,
    ) -> Result<Self, Error> {
        let started = Instant::now();
        let graphs = read_back().map_err(|wrong| Error::miswritten(file, &wrong))?;
        let read_back_seconds = started.elapsed().as_secs_f64();
        (options.progress)(Progress::Running);
        let running = Instant::now();
        let outcome = run(&graphs).map_err(Error::invalid(file))?;
        let run_seconds = running.elapsed().as_secs_f64();
        Ok(Checked { outcome, read_back_seconds, run_seconds })
    }

    /// Checks whether the new model may take its place: not if the models differ, nor if they
    /// were not run although the caller requires it.
    ///
    /// # Errors
    /// Returns an error that says why it may not.
    pub fn verdict(&self, file: &str, options: &Options) -> Result<(), Error> {
        let file = file.to_owned();
        match &self.outcome {
            Outcome::Differs { output, error, tolerance, .. } => Err(Error::OutputDiffers {
                file,
                output: output.clone(),
                error: *error,
                tolerance: *tolerance,
            }),
            Outcome::Broken(reason) => Err(Error::Broken { file, reason: reason.clone() }),
            Outcome::NotRun(NotRun { reason, setting }) if options.require_run => {
                Err(Error::NotRun { file, reason: reason.clone(), setting: setting.clone() })
            }
            _ => Ok(()),
        }
    }
}
