//! How the conversion ended, at the top of the page.
//!
//! Knows the report's data and how text is marked up; does not judge anything itself.

use crate::report::html::markup::{put, sentence};
use crate::report::verdict::{self, Finding, Standing};
use crate::report::words;
use crate::report::{Ending, Report};

/// Returns the section that says how the conversion ended, and what else a user should know.
pub fn verdict(report: &Report) -> String {
    let (class, text) = ending(report);
    let mut html = format!("<div class=\"verdict {class}\"><strong>{text}</strong>");
    if let Some(error) = &report.error {
        let code = error.exit_code.map(|code| format!("Exit code {code}: ")).unwrap_or_default();
        put!(html, "<p>{code}{}</p>", sentence(&error.message));
    }
    let notes = &report.notes;
    if let Some(opset) = notes.newer_opset {
        put!(
            html,
            "<p>Operator set {} is newer than the newest known one, {}: operators are read as they \
             are defined there.</p>",
            opset.model,
            opset.known
        );
    }
    let inferred = notes.inferred_nodes;
    if inferred > 0 {
        let nodes = words::counted(inferred, "node");
        put!(html, "<p>{nodes} in training mode converted to inference.</p>");
    }
    if let Some(removed) = words::removed_inputs(notes) {
        put!(html, "<p>{}.</p>", sentence(&removed));
    }
    for said in words::repeated_names(notes).into_iter().chain(words::open_sizes(notes)) {
        put!(html, "<p>{}.</p>", sentence(&said));
    }
    html.push_str("</div>\n");
    html
}

/// Returns how the conversion ended: the class in the style sheet, and a sentence.
pub fn ending(report: &Report) -> (&'static str, String) {
    let fused = words::blocks_fused(report);
    let found = verdict::verdict(report).filter(|_| report.outcome != Ending::Failed);
    let Some(Finding { standing, text }) = found else {
        return match report.outcome {
            Ending::Failed => ("bad", "Failed; nothing was written.".to_owned()),
            Ending::Looked => ("", format!("Only looked: {fused}.")),
            Ending::Written => {
                ("", format!("Written as it was read: {}.", words::nothing_fused(report)))
            }
        };
    };
    let class = match standing {
        Standing::Good => "good",
        Standing::NotRun | Standing::NotVerified => "warn",
        Standing::Bad => "bad",
    };
    let done = if report.blocks.is_empty() {
        let is_equalized = report.equalization.as_ref().is_some_and(|own| own.applied);
        let scaled = is_equalized.then_some("channels scaled for 8 bits");
        let converted = (report.notes.inferred_nodes > 0).then_some("nodes converted to inference");
        let done: Vec<&str> = converted.into_iter().chain(scaled).collect();
        format!("No block fused; {}", done.join(" and "))
    } else {
        fused
    };
    (class, format!("{done} and written: {text}."))
}
