//! Converts one model into another.
//!
//! A [`Conversion`] opens, plans, makes, checks and delivers. Each step returns a value that no
//! later step changes; from these values, as far as the conversion came, [`summary`] makes the
//! report, once, at the end.
//!
//! The steps: [`open`] reads a model and inlines the local functions that matter; [`occupied`]
//! examines the paths of all files; [`planned`] holds what was decided, graph by graph
//! ([`analysis`]). The rest leads from the plan to the [`new_model`]: [`make`] fuses each block
//! ([`fuse`]), has its [`claim`] proved, records its [`fate`], and checks what blocks read of
//! each other ([`byproducts`]); a graph with blocks that are not proved is [`replanned`]; [`edited`]
//! turns what was made into [`edits`], given what [`remains`] of each graph; [`deliver`] stages
//! the new model and finally has its files [`placed`]. In between, [`check`] compares the staged
//! model with the old one, [`equalized`] scales channels by the best of the [`candidates`], and
//! [`int8`] tells what rounding the weights would do. A conversion that ends early is a
//! [`failure`]. Only the report needs [`counts`], [`files`], the [`request`] and the [`layers`];
//! [`given`] reads a caller's tensors.
//!
//! Knows all rooms below, the planner beside the report; does not know flags, exit codes or
//! terminals.

pub mod analysis;
pub mod byproducts;
pub mod candidates;
pub mod check;
pub mod claim;
pub mod counts;
pub mod deliver;
pub mod edited;
pub mod edits;
pub mod equalized;
pub mod failure;
pub mod fate;
pub mod files;
pub mod fuse;
pub mod given;
pub mod int8;
pub mod layers;
pub mod make;
pub mod new_model;
pub mod occupied;
pub mod open;
pub mod placed;
pub mod planned;
pub mod remains;
pub mod replanned;
pub mod request;
pub mod summary;

use std::sync::Arc;
use std::time::Instant;

use prost::bytes::Bytes;

use counts::Counting;
use deliver::Destination;
use failure::{Failure, must_fuse};
use new_model::NewModel;
use occupied::Roles;
use open::{LocalFunctions, ModelSource};
use planned::Planned;
use summary::Reached;

use crate::engine::Limits;
use crate::error::Error;
use crate::facts::constants::Constants;
use crate::facts::dependence::Dependence;
use crate::onnx::graph::Graph;
use crate::onnx::model::{Invalid, Model};
use crate::options::{Options, Progress};
use crate::report::{Mode, Report};
use crate::verify::runnable::{self, MOST_FOR_A_HINT};

/// A model, what is to be done with it, and where the result goes.
#[derive(Debug, Clone, Copy)]
pub struct Conversion<'c> {
    /// Where the model comes from.
    pub source: ModelSource<'c>,
    /// Where the new model goes; `None` for a look, which writes nothing.
    pub destination: Option<Destination<'c>>,
    /// The caller's options.
    pub options: &'c Options,
}

/// The result of a conversion that came to its end.
#[derive(Debug)]
pub struct Converted {
    /// The report of what was done.
    pub report: Report,
    /// The bytes of the new model; `None` after a look.
    pub model: Option<Bytes>,
}

impl Conversion<'_> {
    /// Opens, plans, makes, checks and delivers.
    ///
    /// # Errors
    /// Returns an error if the model cannot be read or written, is malformed, or fails
    /// verification.
    pub fn carry_out(&self) -> Result<Converted, Failure> {
        let options = self.options;
        let mode = match self.destination {
            None => Mode::Look,
            Some(_) if options.verify => Mode::Verified,
            Some(_) => Mode::Unverified,
        };
        let label = self.source.label();
        let mut reached = Reached::begun(&label, mode, options);
        (options.progress)(Progress::Reading);
        let reading = Instant::now();
        let target = self.destination.and_then(|to| to.path());
        let opened = reached.or_failure(open::open(&self.source, target, options))?;
        reached.opened = Some(&opened);
        let (file, original) = (opened.file.as_str(), opened.model());
        let roles = Roles { model: original, input: self.source.path(), target };
        reached.or_failure(roles.check(options))?;
        let is_free = self.destination.iter().try_for_each(|to| to.check(options));
        reached.or_failure(is_free)?;
        let occupied = reached.or_failure(roles.occupied(options.clobber))?;
        let invalid = Error::invalid(file);
        let functions = reached.or_failure(LocalFunctions::of(&opened, options))?;
        let model = functions.inlined.as_ref().unwrap_or(original);
        let graphs = reached.or_failure(open::graphs(file, model, options))?;
        let constants = Constants::find_all(&graphs, options.keep_overridable);
        let constants = reached.or_failure(constants.map_err(invalid))?;
        reached.seconds.read = reading.elapsed().as_secs_f64();

        (options.progress)(Progress::Planning);
        let planning = Instant::now();
        let dependence = Dependence::find_all(&graphs, constants.iter().map(Arc::as_ref));
        let readers = analysis::readers(&graphs, &constants, &dependence, options);
        let counting = self.counting();
        let planned = Planned::of(&graphs, &readers, options, counting, &[]);
        let planned = reached.or_failure(planned.map_err(invalid))?;
        reached.planned = Some((&planned, &functions));
        reached.or_failure(planned.check_skipped(file, &options.skip))?;
        reached.or_failure(open::check_time(file, constants.iter().map(Arc::as_ref)))?;
        let open_sizes = planned.wants_sizes().then(|| open_sizes(model, &graphs, options));
        let open_sizes = open_sizes.transpose().map_err(invalid);
        let open_sizes = reached.or_failure(open_sizes)?.unwrap_or_default();
        reached.open_sizes = &open_sizes;
        reached.seconds.plan = planning.elapsed().as_secs_f64();

        // Measured only now, because the budget for evaluating constants depends on which side
        // files have been mapped so far.
        let measuring = Instant::now();
        let side_files = (counting != Counting::Nothing)
            .then(|| files::side_files(original, files::hashing(options)));
        reached.side_files = side_files.as_deref();
        reached.seconds.read += measuring.elapsed().as_secs_f64();
        let is_empty = planned.blocks().next().is_none();
        reached.or_failure(must_fuse(options, file, is_empty, 0))?;
        let (opened, planned, occupied) = (&opened, &planned, &occupied);
        match self.destination {
            Some(destination) => {
                NewModel { opened, planned, destination, occupied, options }.deliver(reached)
            }
            None => Ok(Converted { report: reached.report(), model: None }),
        }
    }

    /// How much is counted for the report: without details, a new model is described by what is
    /// already known, and a look by less.
    fn counting(&self) -> Counting {
        match (self.options.details, self.destination) {
            (true, _) => Counting::Everything,
            (false, Some(_)) => Counting::WhatIsKnown,
            (false, None) => Counting::Nothing,
        }
    }
}

/// Finds shapes for the open inputs at which the model runs; empty if none are found.
fn open_sizes(
    model: &Model,
    graphs: &[Graph],
    options: &Options,
) -> Result<Vec<(String, Vec<usize>)>, Invalid> {
    let Some(main) = graphs.first() else { return Ok(Vec::new()) };
    runnable::shapes(model, main, &options.run, MOST_FOR_A_HINT, Limits::of_reading())
}
