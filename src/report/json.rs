//! Serialization to JSON of data whose own shape is not that of the schema.
//!
//! Stands below the report's data: knows what serde needs for a field, but no report.

use serde::Serialize;
use serde::ser::Serializer;

use crate::refusal::Reason;
use crate::report::escape::is_unsafe;
use crate::verify::outcome::Outcome;

/// The JSON schema of the report.
pub const JSON_SCHEMA: &str = include_str!("schema.json");

/// Returns the report as indented JSON.
pub fn json(report: &impl Serialize) -> String {
    // Serialization cannot fail: all keys of maps are strings, and no other type in a report can
    // fail.
    printable(&serde_json::to_string_pretty(report).unwrap_or_default())
}

/// Returns the report as one line of JSON.
pub fn json_line(report: &impl Serialize) -> String {
    printable(&serde_json::to_string(report).unwrap_or_default())
}

/// Returns `json` with a line end, and with characters that would control a terminal spelled
/// out.
fn printable(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        // A name may hold any character, and the JSON may go to a terminal; the line ends are
        // our own.
        if is_unsafe(c) && c != '\n' {
            safe.push_str(&format!("\\u{:04x}", c as u32));
        } else {
            safe.push(c);
        }
    }
    safe.push('\n');
    safe
}

/// The [`kind`] of the reason of a block whose weights could not be computed or proved.
pub const UNPROVED: &str = "unproved";

/// Returns the kind of a reason, as a word that programs may rely on.
pub fn kind(reason: &Reason) -> &'static str {
    match reason {
        Reason::DifferentInputs { .. } => "different_inputs",
        Reason::Geometry(_) => "geometry",
        Reason::NotLinear { .. } => "not_linear",
        Reason::Dearer { .. } => "dearer",
        Reason::OutOfRange(_) => "out_of_range",
        Reason::ReadElsewhere(_) => "read_elsewhere",
        Reason::SharedKernel { .. } => "shared_kernel",
        Reason::KeptApart { .. } => "kept_apart",
        Reason::Unfit(_) => "unfit",
        Reason::Limit(_) => "limit",
        Reason::Unproved { .. } => UNPROVED,
        Reason::Between { .. } => "between",
        Reason::Call(_) => "call",
        Reason::TrainingInfo => "training_info",
        Reason::Skipped => "skipped",
    }
}

/// The outcome of a run, as it is written.
#[derive(Serialize)]
struct Run<'r> {
    outcome: &'static str,
    outputs: Vec<OutputError<'r>>,
    shapes: Vec<Vec<InputShape<'r>>>,
    flat: &'r [String],
    flipped: f64,
    widened: bool,
    rounding: Option<f64>,
    reason: Option<&'r str>,
}

/// The shape of an input in one run.
#[derive(Serialize)]
struct InputShape<'r> {
    name: &'r str,
    shape: &'r [usize],
}

/// An output's largest relative difference, as it is written.
#[derive(Serialize)]
struct OutputError<'r> {
    name: &'r str,
    error: f64,
}

/// Writes the outcome of running both models; null if nothing was run.
///
/// # Errors
/// Returns the error of the serializer `to`.
pub fn run<S: Serializer>(outcome: &Option<Outcome>, to: S) -> Result<S::Ok, S::Error> {
    fn outputs(errors: &[(String, f64)]) -> Vec<OutputError<'_>> {
        errors.iter().map(|(name, error)| OutputError { name, error: *error }).collect()
    }
    fn shapes(run: &[(String, Vec<usize>)]) -> Vec<InputShape<'_>> {
        run.iter().map(|(name, shape)| InputShape { name, shape }).collect()
    }
    let nothing = |outcome| Run {
        outcome,
        outputs: Vec::new(),
        shapes: Vec::new(),
        flat: &[],
        flipped: 0.0,
        widened: false,
        rounding: None,
        reason: None,
    };
    let run = outcome.as_ref().map(|outcome| match outcome {
        Outcome::Agreed(agreement) => Run {
            outputs: outputs(&agreement.errors),
            shapes: agreement.shapes.iter().map(|run| shapes(run)).collect(),
            flat: &agreement.flat,
            flipped: agreement.flipped,
            widened: agreement.widened,
            rounding: agreement.in_pieces,
            ..nothing(agreement.in_pieces.map_or("agreed", |_| "within_rounding"))
        },
        Outcome::Differs { errors, .. } => Run { outputs: outputs(errors), ..nothing("differs") },
        Outcome::Broken(reason) => Run { reason: Some(reason), ..nothing("broken") },
        Outcome::NotRun(why) => Run { reason: Some(&why.reason), ..nothing("not_run") },
    });
    run.serialize(to)
}

/// Writes a count, which is `f64` because an integer could overflow; without a fraction if it is
/// whole.
///
/// # Errors
/// Returns the error of the serializer `to`.
pub fn whole_number<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
    /// 2^53: below it, `f64` represents every whole number exactly.
    const EXACT: f64 = (1u64 << 53) as f64;
    if number.fract() == 0.0 && (0.0..EXACT).contains(number) {
        to.serialize_u64(*number as u64)
    } else {
        to.serialize_f64(*number)
    }
}

/// Writes a count that may be unknown, as [`whole_number`] does; null if it is.
///
/// # Errors
/// Returns the error of the serializer `to`.
pub fn whole<S: Serializer>(number: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => whole_number(number, to),
        None => to.serialize_none(),
    }
}
