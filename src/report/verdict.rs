//! What verification showed, put into words in this place alone: the summary, the page, the line
//! for each of many models and the JSON report, which the Python package reads, all show these
//! words.
//!
//! Knows the report's data; does not know colours or markup.

use crate::report::words;
use crate::report::{Agreement, Ending, Mode, Outcome, Report};

/// How far a new model can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Everything that was asked for was shown.
    Good,
    /// The whole model was not run.
    NotRun,
    /// Nothing was verified.
    NotVerified,
    /// The new model does not do what the old one did.
    Bad,
}

/// One result of verification.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What the result means for the new model.
    pub standing: Standing,
    /// The result in words, without a full stop.
    pub text: String,
}

impl Finding {
    fn of(standing: Standing, text: impl Into<String>) -> Self {
        Finding { standing, text: text.into() }
    }
}

/// Returns the verdict in a few words: `proved, outputs agree within 2.1e-7`; `None` if there is
/// no new model to verify, or the conversion did not get that far.
pub fn verdict(report: &Report) -> Option<Finding> {
    let is_new = report.outcome != Ending::Looked && !report.is_unchanged();
    // Without a block, there is no proof.
    let is_proved = report.largest_proof_error().is_some();
    let proved = |text: &str| format!("{}{text}", if is_proved { "proved, " } else { "" });
    let found = match &report.run {
        _ if !is_new => return None,
        Some(Outcome::Agreed(agreement)) => {
            Finding::of(Standing::Good, proved(&agreement_in_short(agreement)))
        }
        Some(Outcome::NotRun(_)) => Finding::of(Standing::NotRun, proved("NOT RUN")),
        Some(Outcome::Differs { error, .. }) => {
            Finding::of(Standing::Bad, format!("outputs DIFFER by {error:.1e}"))
        }
        Some(Outcome::Broken(_)) => Finding::of(Standing::Bad, "the new model DOES NOT RUN"),
        None if report.outcome == Ending::Failed => return None,
        None => Finding::of(Standing::NotVerified, NOT_VERIFIED),
    };
    Some(found)
}

/// Returns the results one by one, with numbers, places and reasons.
pub fn findings(report: &Report) -> Vec<Finding> {
    if report.mode == Mode::Unverified {
        return vec![Finding::of(Standing::NotVerified, NOT_VERIFIED)];
    }
    let proof = report.largest_proof_error().map(|error| {
        let agrees = format!("proof: every block agrees in float64 {}", words::within(error));
        Finding::of(Standing::Good, agrees)
    });
    let run = report.run.as_ref().map(|run| match run {
        Outcome::Agreed(agreement) => {
            Finding::of(Standing::Good, format!("run: {}", words::agreement(agreement)))
        }
        Outcome::NotRun(reason) => Finding::of(Standing::NotRun, format!("run: NOT RUN: {reason}")),
        Outcome::Broken(reason) => {
            Finding::of(Standing::Bad, format!("run: the new model does not run: {reason}"))
        }
        Outcome::Differs { output, error, .. } => {
            Finding::of(Standing::Bad, format!("run: output `{output}` differs by {error:.1e}"))
        }
    });
    proof.into_iter().chain(run).collect()
}

const NOT_VERIFIED: &str = "NOT VERIFIED";

fn agreement_in_short(agreement: &Agreement) -> String {
    let within = words::within(agreement.largest_error());
    match (agreement.errors.is_empty(), agreement.in_pieces) {
        (true, _) => "outputs are made by the same nodes".to_owned(),
        (_, Some(_)) => format!("all changed parts agree {within}"),
        (_, None) => format!("outputs agree {within}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_words() {
        let agreed = |in_pieces, errors: &[f64]| {
            let errors = errors.iter().map(|&error| ("y".to_owned(), error)).collect();
            Some(Outcome::Agreed(Agreement { in_pieces, errors, ..Agreement::default() }))
        };
        let differs =
            Outcome::Differs { errors: vec![], output: "y".into(), error: 0.5, tolerance: 1e-4 };
        let not_run = Outcome::NotRun("too large".to_owned().into());
        let broken = Outcome::Broken("no kernel".to_owned());
        let (verified, written, failed) = (Mode::Verified, Ending::Written, Ending::Failed);
        for (mode, outcome, run, expected) in [
            (Mode::Look, Ending::Looked, None, None),
            (Mode::Unverified, written, None, Some("NOT VERIFIED")),
            (Mode::Unverified, failed, None, None),
            (verified, written, agreed(None, &[1e-7]), Some("outputs agree within 1.0e-7")),
            (verified, written, agreed(None, &[0.0]), Some("outputs agree exactly")),
            (verified, written, agreed(None, &[]), Some("outputs are made by the same nodes")),
            (
                verified,
                written,
                agreed(Some(2e-7), &[0.1]),
                Some("all changed parts agree within 2.0e-7"),
            ),
            (verified, written, Some(not_run.clone()), Some("NOT RUN")),
            (verified, failed, Some(not_run), Some("NOT RUN")),
            (verified, failed, Some(differs), Some("outputs DIFFER by 5.0e-1")),
            (verified, failed, Some(broken), Some("the new model DOES NOT RUN")),
            (verified, failed, None, None),
        ] {
            let mut report = Report::new("model.onnx".to_owned(), mode);
            (report.outcome, report.run) = (outcome, run);
            assert_eq!(verdict(&report), None, "nothing is new");
            report.notes.inferred_nodes = 1;
            let said = verdict(&report).map(|found| found.text);
            assert_eq!(said.as_deref(), expected, "{:?}", report.run);
        }
    }
}
