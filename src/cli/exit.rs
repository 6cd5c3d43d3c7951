//! The end of the process: its exit codes, and its messages with the flags that help.
//!
//! Knows the exit codes, whose numbers stand here alone; the texts of the flags are in
//! [`arguments`](super::arguments).

use std::process::ExitCode;

use acb_fuse::report::text::Tone;
use acb_fuse::report::{Report, ReportedError};
use acb_fuse::{Endpoint, Error, Options, Setting, convert, told};

use super::show::{GOES_ON, Screen, printable};

/// All exit codes, with their meanings.
pub const CODES: [(i32, &str); 10] = [
    (0, "success: the model was written, or inspected if no OUT was given"),
    (1, "the model is invalid, or no ONNX model"),
    (2, "the command is wrong, does not fit the model, or would replace a file"),
    (3, "verification failed: old and new model differ"),
    (4, "no block was fused (--require-fusion)"),
    (5, "there is something to fuse or to convert (--check)"),
    (6, "reading or writing failed; trying again may help"),
    (7, "not run (--require-run), or out of time or memory"),
    (8, "a file cannot be found, opened, or created"),
    (INTERRUPTED, "interrupted"),
];

/// The exit code that shells use for a process that was interrupted.
pub const INTERRUPTED: i32 = 130;

/// How many new models the process may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// At most one.
    One,
    /// One for each model.
    Many,
}

/// The message and the exit code of a process that does not end with 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The line on standard error.
    pub message: String,
    /// The exit code.
    pub code: u8,
    /// Whether reports must not be written, because one would replace a file that has another
    /// role.
    pub spares_reports: bool,
}

impl Exit {
    /// The exit for arguments that make no sense.
    pub fn of_usage(message: String) -> Self {
        Exit { message, code: 2, spares_reports: false }
    }

    /// The exit for `--check` if `blocks` of the model can be fused, and `converted` nodes in
    /// training mode can be converted to inference.
    fn of_check(file: &str, blocks: usize, converted: usize) -> Self {
        let count = |count: usize, what: &str| {
            let s = if count == 1 { "" } else { "s" };
            (count > 0).then(|| format!("{count} {what}{s}"))
        };
        let (blocks, nodes) = (count(blocks, "block"), count(converted, "node"));
        let fused = blocks.map(|blocks| format!("{blocks} can be fused"));
        let converted = nodes.map(|nodes| format!("{nodes} in training mode can be converted"));
        let possible: Vec<String> = fused.into_iter().chain(converted).collect();
        let message = format!("{file}: {}", possible.join(", "));
        Exit { message, code: 5, spares_reports: false }
    }

    /// The exit for `--timeout` when the time is over in this stage.
    pub fn of_time(seconds: u64, stage: &str, targets: Targets) -> Self {
        let left = match (targets, stage) {
            (Targets::Many, _) => "every target holds its old file or the complete new one",
            (Targets::One, "writing") => {
                "the target is either the old file or the complete new one"
            }
            (Targets::One, _) => "nothing was written",
        };
        let message = format!(
            "it took longer than {seconds} s and was stopped while {stage}: {left} (--timeout \
             allows more)"
        );
        Exit { message, code: 7, spares_reports: false }
    }

    /// Returns the tone of the message: what `--check` has found is no failure.
    pub fn tone(&self) -> Tone {
        if self.code == 5 { Tone::Warning } else { Tone::Bad }
    }

    /// Writes the message to standard error.
    pub fn say(self, screen: &Screen) -> ExitCode {
        let message = printable(&self.message, |_| false);
        eprintln!("{}", screen.headed(self.tone(), "acb-fuse:", &message, GOES_ON));
        ExitCode::from(self.code)
    }

    /// Returns the error for a report.
    pub fn reported(&self) -> ReportedError {
        ReportedError::of_process(self.message.clone(), self.code)
    }
}

impl From<Error> for Exit {
    fn from(error: Error) -> Self {
        let remedy = remedy(&error).map(|remedy| format!(" ({remedy})")).unwrap_or_default();
        let message = match error.setting() {
            Some(setting) => told(&error.to_string(), setting, &flag),
            None => error.to_string(),
        };
        let spares_reports = matches!(error, Error::TwoRoles { .. });
        Exit { message: format!("{message}{remedy}"), code: code(&error), spares_reports }
    }
}

/// Returns the exit code of an error.
fn code(error: &Error) -> u8 {
    match error {
        Error::Input { .. }
        | Error::NotReplaced { .. }
        | Error::TwoRoles { .. }
        | Error::NoSuchBlock { .. } => 2,
        Error::BlockDiffers { .. }
        | Error::Miswritten { .. }
        | Error::OutputDiffers { .. }
        | Error::Broken { .. } => 3,
        Error::NothingFused { .. } => 4,
        error if error.may_pass() => 6,
        error if error.io().is_some() => 8,
        Error::NotRun { .. } | Error::TooLong { .. } | Error::NoMemory { .. } => 7,
        // Errors of an invalid model, and errors that are not known here.
        _ => 1,
    }
}

/// Returns the flag of a setting.
fn flag(setting: &Setting) -> String {
    match setting {
        Setting::InputShape { input, example } => format!("--input-shape {input}={example}"),
        Setting::KeepOverridable => "--keep-overridable".to_owned(),
        Setting::Growth { thousandths } => format!("--growth {}", *thousandths as f64 / 1000.0),
        Setting::KeepIdentity => "--keep-identity".to_owned(),
        Setting::KeepDominant => "--keep-identity auto".to_owned(),
        Setting::KeepTraining => "--training-mode keep".to_owned(),
        Setting::ConvertTraining => "--training-mode convert".to_owned(),
        Setting::Skip => "--skip".to_owned(),
        Setting::TimeLimit => "--verify-timeout".to_owned(),
        Setting::MemoryLimit => "--verify-memory".to_owned(),
        Setting::Option(name) => format!("--{}", name.replace('_', "-")),
        other => other.to_string(),
    }
}

/// Returns what helps against errors whose message names no setting.
fn remedy(error: &Error) -> Option<&'static str> {
    match error {
        Error::NoMemory { .. } => Some("a higher `ulimit -v` allows more"),
        Error::NotReplaced { .. } => Some("--force replaces it"),
        error if error.is_link() => Some("--follow-links allows that"),
        _ => None,
    }
}

/// Converts a model. The report also describes a conversion that failed, as far as it came.
pub fn converted(
    input: &Endpoint,
    output: Option<&Endpoint>,
    options: &Options,
) -> (Report, Result<(), Exit>) {
    let (mut report, result) = match convert(input, output, options) {
        Ok(report) => (report, Ok(())),
        Err(failure) => {
            let (mut report, exit) = (*failure.report, Exit::from(*failure.error));
            report.error = Some(exit.reported());
            (report, Err(exit))
        }
    };
    report.put_settings_in(&flag);
    (report, result)
}

/// Returns the result of `--check` from that of a look: an error if something can be fused or
/// converted.
pub fn checked(looked: (Report, Result<(), Exit>)) -> (Report, Result<(), Exit>) {
    let (mut report, result) = looked;
    let (blocks, nodes) = (report.blocks.len(), report.notes.converted_nodes.len());
    if result.is_err() || (blocks == 0 && nodes == 0) {
        return (report, result);
    }
    let exit = Exit::of_check(&report.input.path, blocks, nodes);
    report.error = Some(exit.reported());
    (report, Err(exit))
}

#[cfg(test)]
mod tests {
    use acb_fuse::engine::EngineError;
    use acb_fuse::refusal::{NotLinear, Reason};

    use super::*;

    #[test]
    fn a_setting_is_told_as_its_flag() {
        let in_flags = |reason: &Reason| match reason.setting() {
            Some(setting) => told(&reason.to_string(), &setting, &flag),
            None => reason.to_string(),
        };
        for (why, expected) in [
            (
                NotLinear::Overridable("w as asked for".into()),
                "`w as asked for` is a graph input too, so a caller may override it \
                 (kept because of --keep-overridable)",
            ),
            (NotLinear::KeptTraining, "it stays in training mode because of --training-mode keep"),
            (
                NotLinear::Untrained,
                "it stays in training mode: its stored means are all 0 and its variances all 1, \
                 as before any training (--training-mode convert uses them all the same)",
            ),
            (NotLinear::NotConstant("w".into()), "`w` is not constant"),
        ] {
            let reason = Reason::NotLinear { node: "n".into(), why };
            assert_eq!(in_flags(&reason), format!("node `n`: {expected}"));
        }
        assert_eq!(in_flags(&Reason::Skipped), "left alone because of --skip");
        for (error, expected) in [
            (EngineError::TooLong, "tract did not end in time (--verify-timeout allows more)"),
            (
                EngineError::TooLarge { bytes: 3 << 20 },
                "its tensors would take 3 MiB at a time (--verify-memory allows more)",
            ),
        ] {
            let why = error.to_string();
            assert_eq!(in_flags(&Reason::Unproved { why, setting: error.setting() }), expected);
        }
    }
}
