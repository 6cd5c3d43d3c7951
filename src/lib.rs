//! Folds the training-time convolution blocks of an ONNX model into single
//! convolutions, and proves that nothing changed.
//!
//! ```
//! use acb_fuse::{Options, Endpoint, convert};
//!
//! let model = Endpoint::of("fixtures/networks/cifar_quick/torchscript_kept_static.onnx");
//! let folder = tempfile::tempdir()?;
//! let deploy = Endpoint::File(folder.path().join("deploy.onnx"));
//! let report = convert(&model, Some(&deploy), &Options::default())?;
//! assert_eq!(report.blocks.len(), 3);
//! assert!(report.blocks.iter().all(|block| block.proof.is_some()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`convert`] is the whole pipeline; the modules stand in the order in which a
//! model flows through them:
//!
//! ```text
//! file ─▶ graph ─▶ regions ─▶ plan ─▶ fused tensors ─▶ proofs ─▶ file
//! ```

// With the lints in `Cargo.toml`: nothing that a file says can make the product panic.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::string_slice))]

pub mod affine;
pub mod emit;
pub mod engine;
pub mod facts;
pub mod numbers;
pub mod onnx;
pub mod ops;
pub mod pipeline;
pub mod plan;
pub mod refusal;
pub mod report;
pub mod verify;

mod error;
mod options;

use std::sync::Arc;
use std::time::Instant;

use engine::Limits;
pub use error::Error;
use facts::constants::Constants;
use facts::dependence::Dependence;
use onnx::graph::Graph;
use onnx::staged;
pub use options::{Endpoint, Options, TrainingMode};
use pipeline::make::Conversion;
use pipeline::open::{GraphAnalysis, LocalFunctions};
use pipeline::{make, open, summary};
use report::{Mode, Report, timed};

/// Converts `input`; without `output` it only looks.
///
/// # Errors
/// If the model cannot be read, is malformed, fails verification, or cannot be
/// written. Nothing is written then.
pub fn convert(
    input: &Endpoint,
    output: Option<&Endpoint>,
    options: &Options,
) -> Result<Report, Error> {
    let (report, result) = reported(input, output, options);
    result.map(|()| report)
}

/// As [`convert`]; the report tells also of a conversion that failed, as far as it came.
pub fn reported(
    input: &Endpoint,
    output: Option<&Endpoint>,
    options: &Options,
) -> (Report, Result<(), Error>) {
    let mode = match output {
        None => Mode::Look,
        Some(_) if options.verify => Mode::Verified,
        Some(_) => Mode::Unverified,
    };
    let mut report = Report::new(input.label(), mode);
    let mut total = 0.0;
    let result = timed(&mut total, || carry_out(input, output, options, &mut report));
    report.seconds.total = total;
    report.end(&result);
    (report, result)
}

fn carry_out(
    input: &Endpoint,
    output: Option<&Endpoint>,
    options: &Options,
    report: &mut Report,
) -> Result<(), Error> {
    let started = Instant::now();
    let file = input.label();
    let invalid = |source| Error::Invalid { file: file.clone(), source };
    if let Some(Endpoint::File(target)) = output {
        staged::check_target(target, options.clobber)
            .map_err(|source| Error::Write { file: target.display().to_string(), source })?;
    }
    let original = open::open(input, options.links)?;
    report.input.note(&original, options.details);
    let functions = LocalFunctions::of(&file, &original, options)?;
    let model = functions.inlined.as_ref().unwrap_or(&original);
    let graphs = Graph::read_all(model).map_err(invalid)?;
    graphs.iter().take(1).try_for_each(Graph::check_tensors).map_err(invalid)?;
    open::check_inputs(&file, &graphs, options)?;
    let constants = Constants::find_all(&graphs, options.keep_overridable).map_err(invalid)?;
    report.seconds.read = started.elapsed().as_secs_f64();
    let planning = Instant::now();
    let dependence = Dependence::find_all(&graphs, constants.iter().map(Arc::as_ref));
    let readers = open::readers(&graphs, &constants, &dependence, options);
    let mut scopes = GraphAnalysis::of_all(&readers, &options.skip).map_err(invalid)?;
    summary::look(report, model, &graphs, &scopes, options).map_err(invalid)?;
    report.near_misses.extend(functions.near_misses);
    open::check_time(&file, &constants)?;
    report.seconds.plan = planning.elapsed().as_secs_f64();
    if options.details {
        // Only now: what constants may cost depends on the side files that were looked at.
        timed(&mut report.seconds.read, || report.input.note_side_files(&original));
    }
    report.sizes.before.bytes = report.input.all_bytes().filter(|_| options.details);
    make::must_fuse(&file, report, options)?;
    if let Some(output) = output {
        let limits = Limits::new(options.verify_timeout, options.verify_memory);
        let (file, original) = (&file, &original);
        let work =
            Conversion { file, original, graphs: &graphs, constants: &constants, options, limits };
        work.carry_out(output, &mut scopes, report)?;
    }
    Ok(())
}
