//! From model to model.
//!
//! A [`Conversion`] opens, plans, makes, checks and delivers. Each step returns a value that
//! no later step changes, and from these values, as far as they came, the report is made: at
//! the end, once, by [`summary`].
//!
//! The steps: [`open`] reads a model and inlines the local functions that matter; [`occupied`]
//! looks at the places of all files; [`planned`] holds what was decided, graph by graph
//! ([`analysis`]); [`make`] fuses each block ([`fuse`]), has it proved by its [`claim`], says
//! what became of it, its [`fate`], and looks what blocks read of each other ([`byproducts`]);
//! [`edited`] turns what was made into [`edits`], with what [`remains`] of each graph;
//! [`deliver`] writes, has [`check`] look at the new file, [`int8`] tell what rounding its
//! weights would do, [`equalized`] scale channels by the best of [`candidates`], and then its
//! files [`placed`]. A conversion that ends before is a [`failure`]. For the report alone there
//! are [`counts`], [`files`], the [`request`] and the [`layers`]; [`given`] reads a caller's
//! tensors.
//!
//! Knows all rooms below, the planner beside the report; neither flags, exit codes nor
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
pub mod occupied;
pub mod open;
pub mod placed;
pub mod planned;
pub mod remains;
pub mod request;
pub mod summary;

use std::sync::Arc;
use std::time::Instant;

use prost::bytes::Bytes;

use check::{Measured, Reference};
use counts::Counting;
use deliver::{Delivery, Destination};
use edited::Edited;
use equalized::Equalized;
use failure::Failure;
use make::Made;
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

/// One model, what is to be done with it, and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Conversion<'c> {
    /// Where the model comes from.
    pub source: ModelSource<'c>,
    /// Where the new one goes; `None` only looks.
    pub destination: Option<Destination<'c>>,
    /// What is asked for.
    pub options: &'c Options,
}

/// A conversion that came to its end.
#[derive(Debug)]
pub struct Converted {
    /// What was done.
    pub report: Report,
    /// The new model; `None` if there is none because it was only looked.
    pub model: Option<Bytes>,
}

impl Conversion<'_> {
    /// Opens, plans, makes, checks and delivers.
    ///
    /// # Errors
    /// If the model cannot be read, is malformed, fails verification, or cannot be written.
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
        let planned = Planned::of(model, &graphs, &readers, options, counting);
        let planned = reached.or_failure(planned.map_err(invalid))?;
        reached.planned = Some((&planned, &functions));
        reached.or_failure(planned.check_skipped(file, &options.skip))?;
        reached.or_failure(open::check_time(file, &constants))?;
        let open_sizes = planned.wants_sizes().then(|| open_sizes(model, &graphs, options));
        let open_sizes = open_sizes.transpose().map_err(invalid);
        let open_sizes = reached.or_failure(open_sizes)?.unwrap_or_default();
        reached.open_sizes = &open_sizes;
        reached.seconds.plan = planning.elapsed().as_secs_f64();

        // Only now: what constants may cost depends on the side files that were looked at.
        let measuring = Instant::now();
        let side_files = (counting != Counting::Nothing)
            .then(|| files::side_files(original, files::hashing(options)));
        reached.side_files = side_files.as_deref();
        reached.seconds.read += measuring.elapsed().as_secs_f64();
        reached.or_failure(self.must_fuse(file, planned.blocks().next().is_none(), 0))?;
        let Some(destination) = self.destination else {
            return Ok(Converted { report: reached.report(), model: None });
        };

        let making = Instant::now();
        let limits = Limits::new(options.verify_timeout, options.verify_memory);
        let made = reached.or_failure(Made::of(&planned, file, options, limits))?;
        reached.made = Some(&made);
        reached.seconds.fuse_and_prove = making.elapsed().as_secs_f64();
        reached.or_failure(open::check_time(file, &constants))?;
        let unproved = made.left_alone(&planned).count();
        reached.or_failure(self.must_fuse(file, made.is_empty(), unproved))?;

        let edited = Edited::of(&opened, &graphs, &planned, &made);
        let edited = reached.or_failure(edited.map_err(invalid))?;
        reached.edited = Some(&edited);

        (options.progress)(Progress::Writing);
        let writing = Instant::now();
        let (old, rewrite) = (edited.old, &edited.rewrite);
        let delivery = Delivery { file, old, rewrite, occupied: &occupied };
        let staged = reached.or_failure(delivery.stage(destination, options))?;
        let reference = Reference {
            file,
            original,
            graphs: &graphs,
            planned: &planned,
            made: &made,
            options,
            limits,
        };
        let is_verified = options.verify && !edited.rewrite.is_empty();
        let (seen, flushed) = staged.flushed_during(|new| {
            let measured = Measured::of(new, file, rewrite, options);
            let checked = is_verified.then(|| reference.check(new)).transpose();
            (measured, checked)
        });
        let (measured, checked) = seen;
        let measured = reached.or_failure(measured)?;
        reached.measured = Some(&measured);
        let checked = reached.or_failure(checked)?;
        reached.checked = checked.as_ref();
        let verdict = checked.iter().try_for_each(|checked| checked.verdict(file, options));
        reached.or_failure(verdict)?;
        reached.or_failure(flushed)?;
        let equalized = options
            .equalize
            .map(|how| Equalized::of(&staged.model, file, how, options, limits))
            .transpose();
        let equalized = reached.or_failure(equalized)?;
        reached.equalized = equalized.as_ref();
        let changed = equalized.as_ref().and_then(|own| Some((own, own.rewrite.as_ref()?)));
        let again = changed.map(|(own, rewrite)| {
            let delivery = Delivery { file, old: &staged.model, rewrite, occupied: &occupied };
            delivery.stage(destination, options).map(|staged| (own, rewrite, staged))
        });
        let again = reached.or_failure(again.transpose())?;
        let (mut of_again, mut run_again) = (None, None);
        if let Some((own, rewrite, again)) = &again {
            let (seen, flushed) = again.flushed_during(|new| {
                let measured = Measured::of(new, file, rewrite, options);
                let checked = options
                    .verify
                    .then(|| own.check(&staged.model, new, file, options, limits))
                    .transpose();
                (measured, checked)
            });
            of_again = Some(reached.or_failure(seen.0)?);
            run_again = reached.or_failure(seen.1)?;
            reached.or_failure(flushed)?;
        }
        reached.measured = of_again.as_ref().or(Some(&measured));
        reached.checked_again = run_again.as_ref();
        let verdict = run_again.iter().try_for_each(|checked| checked.verdict(file, options));
        reached.or_failure(verdict)?;
        let last = again.as_ref().map_or(&staged.model, |(.., again)| &again.model);
        let is_asked = options.int8_outputs && options.verify;
        let told = is_asked.then(|| int8::outputs(last, options, limits)).transpose();
        reached.int8_outputs = reached.or_failure(told.map_err(invalid))?.flatten();
        (options.progress)(Progress::Writing);
        let last = match again {
            Some((.., again)) => again.deliver(),
            None => staged.deliver(),
        };
        let delivered = reached.or_failure(last)?;
        reached.delivered = Some(&delivered);
        reached.seconds.write = writing.elapsed().as_secs_f64();
        Ok(Converted { report: reached.report(), model: Some(delivered.model.clone()) })
    }

    /// What is told of a new model needs no more than what is known; a look tells less.
    fn counting(&self) -> Counting {
        match (self.options.details, self.destination) {
            (true, _) => Counting::Everything,
            (false, Some(_)) => Counting::WhatIsKnown,
            (false, None) => Counting::Nothing,
        }
    }

    /// Whether a block is fused, if one must be.
    fn must_fuse(&self, file: &str, nothing_is: bool, unproved: usize) -> Result<(), Error> {
        if nothing_is && self.options.require_fusion {
            return Err(Error::NothingFused { file: file.to_owned(), unproved });
        }
        Ok(())
    }
}

/// Shapes for the inputs that are open, at which the model runs; empty if none are found.
fn open_sizes(
    model: &Model,
    graphs: &[Graph],
    options: &Options,
) -> Result<Vec<(String, Vec<usize>)>, Invalid> {
    let Some(main) = graphs.first() else { return Ok(Vec::new()) };
    runnable::shapes(model, main, &options.run, MOST_FOR_A_HINT, Limits::of_reading())
}
