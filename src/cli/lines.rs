//! The line about each of many models, and the line about all of them.
//!
//! Knows reports and how they ended; does not know where a line goes.

use std::time::Duration;

use acb_fuse::report::text::Tone;
use acb_fuse::report::verdict::{Standing, verdict};
use acb_fuse::report::words::{counted, nodes_change, nothing_fused};
use acb_fuse::report::{Ending, Mode, Outcome, Report};

use super::exit::Exit;

/// The line about one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLine {
    /// How the conversion ended, which decides the colour of the line.
    pub tone: Tone,
    /// How the conversion ended, in one word.
    pub word: &'static str,
    /// The model, and what was done with it.
    pub text: String,
}

/// Returns the line about the model called `model`.
pub fn line(model: &str, report: &Report, result: &Result<(), Exit>) -> ModelLine {
    if let Err(exit) = result {
        // A look that found something to fuse did not fail.
        let word = if report.outcome == Ending::Failed { "failed" } else { "found" };
        let text = format!("{} (exit code {})", exit.message, exit.code);
        return ModelLine { tone: exit.tone(), word, text };
    }
    if report.is_unchanged() {
        let word = if report.mode == Mode::Look { "none" } else { "same" };
        let text = format!("{model}: {}{}", nothing_fused(report), why(report));
        return ModelLine { tone: Tone::Plain, word, text };
    }
    let blocks = match report.blocks.len() {
        0 => "no block".to_owned(),
        blocks => counted(blocks, "block"),
    };
    let converted = match report.notes.inferred_nodes {
        0 => String::new(),
        inferred => format!(", nodes in training mode converted: {inferred}"),
    };
    let conditional = report.blocks.iter().filter(|block| !block.conditions.is_empty()).count();
    let conditions = match conditional {
        0 => String::new(),
        _ => format!(", for some sizes only: {conditional}"),
    };
    let nodes = nodes_change(&report.sizes);
    let word = if report.mode == Mode::Look { "found" } else { "fused" };
    let found = verdict(report);
    let tone = found.as_ref().map_or(Tone::Plain, |found| found.standing.into());
    let verdict = found.map(|found| format!(", {}", found.text)).unwrap_or_default();
    let verdict = match &report.run {
        Some(Outcome::NotRun(reason)) => format!("{verdict}: {reason}"),
        _ => verdict,
    };
    let text = format!("{model}: {blocks}{conditions}{converted}, {nodes}{verdict}");
    ModelLine { tone, word, text }
}

/// Says why nothing is fused if something was left alone: the first reason, and the number of
/// other places.
fn why(report: &Report) -> String {
    let Some((first, others)) = report.near_misses.split_first() else { return String::new() };
    let more = match others.len() {
        0 => String::new(),
        others => format!("; and {}", counted(others, "more place")),
    };
    format!(" (left alone: {}: {}{more})", first.node, first.reason)
}

/// The sums over all models.
#[derive(Default)]
pub struct Totals {
    models: usize,
    changed: usize,
    failed: usize,
    not_run: usize,
    not_verified: usize,
    blocks: usize,
    nodes: [usize; 2],
}

impl Totals {
    /// Adds the report of one model.
    pub fn add(&mut self, report: &Report) {
        let has_failed = report.outcome == Ending::Failed;
        let add = |sum: &mut usize, more: usize| *sum = sum.saturating_add(more);
        add(&mut self.models, 1);
        add(&mut self.failed, has_failed.into());
        if has_failed {
            return;
        }
        add(&mut self.changed, (!report.is_unchanged()).into());
        let standing = verdict(report).map(|found| found.standing);
        add(&mut self.not_run, (standing == Some(Standing::NotRun)).into());
        add(&mut self.not_verified, (standing == Some(Standing::NotVerified)).into());
        add(&mut self.blocks, report.blocks.len());
        let sizes = [report.sizes.before, report.sizes.after];
        for (sum, size) in self.nodes.iter_mut().zip(sizes) {
            add(sum, size.nodes.unwrap_or_default());
        }
    }

    /// Returns the line about all models; its nodes are those of the models that did not fail.
    pub fn line(&self, took: Duration) -> ModelLine {
        let [before, after] = self.nodes;
        let unchanged = self.models.saturating_sub(self.changed).saturating_sub(self.failed);
        let tone = match self {
            Totals { failed: 1.., .. } => Tone::Bad,
            Totals { not_verified: 1.., .. } => Tone::NotVerified,
            Totals { not_run: 1.., .. } => Tone::NotRun,
            _ => Tone::Plain,
        };
        let text = format!(
            "{}: {} with something to fuse or convert, {unchanged} without, {} failed; {}, \
             {before} → {after} nodes, {:.1} s{}",
            counted(self.models, "model"),
            self.changed,
            self.failed,
            counted(self.blocks, "block"),
            took.as_secs_f64(),
            self.unchecked(),
        );
        ModelLine { tone, word: "total", text }
    }

    /// Says how many models were not checked, and what to do about it; empty if all were.
    fn unchecked(&self) -> String {
        let counts = [(self.not_run, "NOT RUN"), (self.not_verified, "NOT VERIFIED")];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        if counts.is_empty() {
            return String::new();
        }
        let help =
            "compare the outputs of old and new models on your own data before you use these";
        format!("; {}: {help}", counts.join(", "))
    }
}
