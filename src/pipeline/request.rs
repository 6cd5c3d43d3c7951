//! The caller's request as the report tells it: the options in words, and what checks allow.
//!
//! Knows the options and the report's data; carries out nothing of what is asked for.

use crate::engine::ENGINE;
use crate::onnx::float::Float;
use crate::onnx::model::Model;
use crate::ops::table::NEWEST_OPSET;
use crate::options::{Equalize, KeepIdentity, Options, TrainingMode};
use crate::report::{AllowedDifferences, RequestedOptions, RequestedShape, Seeds, Versions};
use crate::verify::claim;
use crate::verify::compare::Tolerances;
use crate::verify::proof;

/// Returns the caller's options in the report's form.
pub fn options(options: &Options) -> RequestedOptions {
    let run = &options.run;
    RequestedOptions {
        equalize: options.equalize.map(|how| match how {
            Equalize::Best => "best",
            Equalize::Exact => "exact",
        }),
        keep_identity: match options.keep_identity {
            KeepIdentity::Auto => "auto",
            KeepIdentity::Always => "always",
            KeepIdentity::Never => "never",
        },
        keep_overridable: options.keep_overridable,
        growth: options.growth,
        training_mode: match options.training_mode {
            TrainingMode::Auto => "auto",
            TrainingMode::Convert => "convert",
            TrainingMode::Keep => "keep",
        },
        skip: options.skip.clone(),
        input_shapes: run.shapes.iter().map(RequestedShape::of).collect(),
        given_inputs: run.given.iter().map(|(which, _)| which.to_string()).collect(),
        samples: run.samples,
        require_run: options.require_run,
        require_fusion: options.require_fusion,
        verify_seconds: options.verify_timeout.as_secs(),
        verify_bytes: options.verify_memory,
    }
}

/// Returns the seeds from which random inputs are made.
pub fn seeds(options: &Options) -> Seeds {
    Seeds { proof: proof::SEED, run: options.run.seed }
}

/// Returns the differences that verification allows.
pub fn tolerances(options: &Options) -> AllowedDifferences {
    let outputs = Tolerances { given: options.run.tolerance };
    let of = |float| outputs.of(Some(float));
    AllowedDifferences {
        proof: claim::TOLERANCE,
        float64: of(Float::F64),
        float32: of(Float::F32),
        float16: of(Float::F16),
    }
}

/// Returns the versions of the engine, and of `model` if it was read.
pub fn versions(model: Option<&Model>) -> Versions {
    Versions {
        engine: ENGINE,
        ir: model.map(|model| model.ir_version),
        opset: model.map(|model| model.opset),
        newest_opset: NEWEST_OPSET,
    }
}
