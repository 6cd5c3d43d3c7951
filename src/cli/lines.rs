//! What is said of each of many models, and of all together.
//!
//! Knows reports and how they ended; not where a line goes.

use std::time::Duration;

use acb_fuse::report::words::{counted, nodes_change, nothing_fused};
use acb_fuse::report::{Ending, Mode, Report};

use super::exit::Exit;

/// What became of one `model`, in a line.
pub fn line(model: &str, report: &Report, result: &Result<(), Exit>) -> String {
    if let Err(Exit { message, code, .. }) = result {
        // A look that found something has not failed.
        let word = if report.outcome == Ending::Failed { "failed" } else { "found" };
        return format!("{word:<7} {message} (exit code {code})");
    }
    if report.is_unchanged() {
        let word = if report.mode == Mode::Look { "none" } else { "same" };
        return format!("{word:<7} {model}: {}{}", nothing_fused(report), why(report));
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
    let verdict = report.verdict.as_ref().map(|verdict| format!(", {verdict}"));
    let verdict = verdict.unwrap_or_default();
    format!("{word:<7} {model}: {blocks}{conditions}{converted}, {nodes}{verdict}")
}

/// Why nothing is fused where something was left alone: the first reason, and how many more
/// places there are.
fn why(report: &Report) -> String {
    let Some((first, others)) = report.near_misses.split_first() else { return String::new() };
    let more = match others.len() {
        0 => String::new(),
        others => format!("; and {}", counted(others, "more place")),
    };
    format!(" (left alone: {}: {}{more})", first.node, first.reason)
}

/// What became of all models.
#[derive(Default)]
pub struct Totals {
    models: usize,
    changed: usize,
    failed: usize,
    blocks: usize,
    nodes: [usize; 2],
}

impl Totals {
    /// Adds what became of one.
    pub fn add(&mut self, report: &Report) {
        let has_failed = report.outcome == Ending::Failed;
        let add = |sum: &mut usize, more: usize| *sum = sum.saturating_add(more);
        add(&mut self.models, 1);
        add(&mut self.failed, has_failed.into());
        if has_failed {
            return;
        }
        add(&mut self.changed, (!report.is_unchanged()).into());
        add(&mut self.blocks, report.blocks.len());
        let sizes = [report.sizes.before, report.sizes.after];
        for (sum, size) in self.nodes.iter_mut().zip(sizes) {
            add(sum, size.nodes.unwrap_or_default());
        }
    }

    /// In a line; nodes are of the models that did not fail.
    pub fn line(&self, took: Duration) -> String {
        let [before, after] = self.nodes;
        let unchanged = self.models.saturating_sub(self.changed).saturating_sub(self.failed);
        format!(
            "total   {}: {} with something to fuse or convert, {unchanged} without, {} failed; {}, \
             {before} → {after} nodes, {:.1} s",
            counted(self.models, "model"),
            self.changed,
            self.failed,
            counted(self.blocks, "block"),
            took.as_secs_f64()
        )
    }
}
