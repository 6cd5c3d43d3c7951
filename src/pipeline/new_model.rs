//! From a plan to a new model in its place: it is made, staged beside its place, examined there,
//! equalized if the caller asks for that, and delivered.
//!
//! Knows these steps, and what each of them adds to the report; does none of them itself.

use std::time::Instant;

use crate::engine::Limits;
use crate::error::Error;
use crate::onnx::model::Model;
use crate::options::{Options, Progress};
use crate::pipeline::Converted;
use crate::pipeline::check::{Checked, Examined, Measured, Reference};
use crate::pipeline::deliver::{Delivery, Destination, StagedModel};
use crate::pipeline::edited::Edited;
use crate::pipeline::equalized::Equalized;
use crate::pipeline::failure::{Failure, must_fuse};
use crate::pipeline::int8;
use crate::pipeline::occupied::Occupied;
use crate::pipeline::open::{self, Opened};
use crate::pipeline::planned::Planned;
use crate::pipeline::replanned;
use crate::pipeline::summary::Reached;

/// Everything that a new model is made from.
#[derive(Clone, Copy)]
pub struct NewModel<'s, 'r, 'g, 'm> {
    /// The model that was read.
    pub opened: &'s Opened,
    /// The plan for it.
    pub planned: &'s Planned<'r, 'g, 'm>,
    /// Where the new model goes.
    pub destination: Destination<'s>,
    /// What stands there now.
    pub occupied: &'s Occupied,
    /// The caller's options.
    pub options: &'s Options,
}

/// Checks a new model; the error says what is wrong with it.
type NewModelCheck<'c> = &'c dyn Fn(&Model) -> Result<Checked, Error>;

impl<'s, 'm> NewModel<'s, '_, '_, 'm> {
    /// Makes the new model, and puts it in its place.
    ///
    /// # Errors
    /// Returns an error if a step fails. In that case everything is as it was before.
    pub fn deliver(&self, reached: Reached<'_, '_, '_, 'm>) -> Result<Converted, Failure> {
        let mut reached = reached;
        let NewModel { opened, planned, options, occupied, .. } = *self;
        let (file, read) = (opened.file.as_str(), opened.model());
        let limits = Limits::new(options.verify_timeout, options.verify_memory);
        let making = Instant::now();
        let made = replanned::made(planned, file, options, limits);
        let (again, made) = reached.or_failure(made)?;
        let planned = again.as_ref().unwrap_or(planned);
        reached.planned = reached.planned.map(|(_, functions)| (planned, functions));
        reached.made = Some(&made);
        reached.seconds.fuse_and_prove = making.elapsed().as_secs_f64();
        let readers = planned.analyses.iter().map(|analysis| analysis.reader);
        let in_time = open::check_time(file, readers.map(|reader| reader.constants));
        reached.or_failure(in_time)?;
        let unproved = planned.unproved().saturating_add(made.left_alone(planned).count());
        reached.or_failure(must_fuse(options, file, made.is_empty(), unproved))?;
        let edited = Edited::of(opened, planned.graphs, planned, &made);
        let edited = reached.or_failure(edited.map_err(Error::invalid(file)))?;
        reached.edited = Some(&edited);

        let (old, rewrite) = (edited.old, &edited.rewrite);
        let delivery = Delivery { file, read, old, rewrite, occupied };
        let reference = Reference { file, original: read, planned, made: &made, options, limits };
        let check: NewModelCheck = &|new| reference.check(new);
        let check = Some(check).filter(|_| options.verify && !rewrite.is_empty());
        let (fused, examined) = self.staged(delivery, check, reached)?;
        reached.fused = Some(&examined);
        reached.or_failure(examined.verdict(file, options))?;

        let equalized = options.equalize.map(|how| {
            (options.progress)(Progress::Equalizing);
            Equalized::of(&fused.model, file, how, options, limits)
        });
        let equalized = reached.or_failure(equalized.transpose())?;
        reached.equalized = equalized.as_ref();
        let changed = equalized.as_ref().and_then(|own| Some((own, own.rewrite.as_ref()?)));
        let scaled = changed.map(|(own, rewrite)| {
            let delivery = Delivery { old: &fused.model, rewrite, ..delivery };
            let check: NewModelCheck = &|new| own.check(&fused.model, new, file, options, limits);
            self.staged(delivery, Some(check).filter(|_| options.verify), reached)
        });
        let (scaled, examined) = scaled.transpose()?.unzip();
        reached.scaled = examined.as_ref();
        let verdict = examined.iter().try_for_each(|own| own.verdict(file, options));
        reached.or_failure(verdict)?;

        let judging = Instant::now();
        let is_asked = options.int8_outputs && options.verify;
        let last = scaled.as_ref().map_or(&fused.model, |scaled| &scaled.model);
        let told = is_asked.then(|| int8::outputs(last, options, limits)).transpose();
        let told = reached.or_failure(told.map_err(Error::invalid(file)))?;
        reached.int8_outputs = told.flatten();
        reached.seconds.int8 = judging.elapsed().as_secs_f64();
        (options.progress)(Progress::Writing);
        let placing = Instant::now();
        let delivered = match scaled {
            Some(scaled) => scaled.deliver(),
            None => fused.deliver(),
        };
        reached.seconds.write = placing.elapsed().as_secs_f64();
        let delivered = reached.or_failure(delivered)?;
        reached.delivered = Some(&delivered);
        Ok(Converted { report: reached.report(), model: Some(delivered.model.clone()) })
    }

    /// Stages `delivery` completely, beside its place, and examines the staged model.
    ///
    /// # Errors
    /// Returns an error, with the report of all that was `reached`, if the model cannot be
    /// written or is not what it should be. The report includes the time of this attempt, which
    /// no value of a step holds.
    fn staged<'d>(
        &self,
        delivery: Delivery<'d>,
        check: Option<NewModelCheck>,
        reached: Reached<'_, '_, '_, 'm>,
    ) -> Result<(StagedModel<'d>, Examined), Failure>
    where
        's: 'd,
    {
        let options = self.options;
        (options.progress)(Progress::Writing);
        let writing = Instant::now();
        let staged = delivery.stage(self.destination, options);
        let attempt = reached.having_written(writing.elapsed().as_secs_f64());
        let staged = attempt.or_failure(staged)?;
        let (seen, flushed) = staged.flushed_during(|new| {
            let measured = Measured::of(new, delivery.file, delivery.rewrite, options)?;
            let checked = check.map(|check| check(new)).transpose()?;
            Ok((measured, checked))
        });
        let (measured, checked) = attempt.or_failure(seen)?;
        let examined = Examined::of(measured, checked, writing.elapsed().as_secs_f64());
        reached.having_written(examined.write_seconds).or_failure(flushed)?;
        Ok((staged, examined))
    }
}
