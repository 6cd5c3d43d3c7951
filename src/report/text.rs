//! The report as text, line by line.
//!
//! Knows the report's data. Each line is escaped as it is written: whatever the names in it
//! are, it stays one line, and shows what it holds.

use std::fmt;

use crate::report::escape::escaped;
use crate::report::groups::groups;
use crate::report::quantization::{self, sqnr};
use crate::report::words::{self, counted};
use crate::report::{
    BlockCost, BlockReport, LeftAlone, Mode, NewerOpset, Predecessor, PredecessorKind, Report,
};
use crate::verify::outcome::Outcome;

/// The last line of the summary of a conversion that was not verified. A caller may add to it
/// how that was asked for.
pub const NOT_VERIFIED: &str = "NOT VERIFIED\n";

/// The summary; its alternate form, `{:#}`, names all that is left alone, one by one.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_blocks(f)?;
        self.write_converted(f)?;
        self.write_near_misses(f)?;
        if let Some(help) = words::open_sizes(&self.notes) {
            line(f, &help)?;
        }
        if let Some(NewerOpset { model, known }) = self.notes.newer_opset {
            writeln!(
                f,
                "\noperator set {model} is newer than {known}: operators are read as they \
                 were then"
            )?;
        }
        if let Some(warning) = words::repeated_names(&self.notes) {
            writeln!(f)?;
            line(f, &warning)?;
        }
        self.write_totals(f)
    }
}

impl Report {
    fn write_blocks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.blocks.is_empty() {
            let what = words::nothing_fused(self);
            return line(f, &format!("{}: {what}", self.input.path));
        }
        let rows: Vec<[String; 5]> = self.blocks.iter().map(row).collect();
        let head = ["block", "branches", "nodes", "parameters", "multiply-adds/position"];
        let width = |column: usize| {
            let cells =
                rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(head.get(column).map(|head| head.len())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut line = |cells: &[String; 5]| {
            let padded: Vec<String> =
                cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", padded.join("  ").trim_end())
        };
        line(&head.map(str::to_owned))?;
        rows.iter().try_for_each(line)
    }

    /// The nodes that no longer compute what the file said.
    fn write_converted(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.notes.converted_nodes.is_empty() {
            let title = match self.mode {
                Mode::Look => {
                    "would be converted to inference; the file computes something else now"
                }
                Mode::Verified | Mode::Unverified => {
                    "converted to inference; the file computed something else before"
                }
            };
            writeln!(f, "\n{title}:")?;
        }
        for converted in &self.notes.converted_nodes {
            line(f, &format!("  {}: {}", converted.node, converted.change))?;
        }
        Ok(())
    }

    /// A line per reason; of the alternate form, one per place.
    fn write_near_misses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.near_misses.is_empty() {
            writeln!(f, "\nleft alone:")?;
        }
        if f.alternate() {
            return self.near_misses.iter().try_for_each(|place| left_alone(f, place));
        }
        for group in groups(&self.near_misses) {
            match group.places.as_slice() {
                [place] => left_alone(f, place)?,
                places => {
                    let counts = group.counts().into_iter();
                    let counts = counts.map(|(what, count)| counted(count, &what.to_string()));
                    let counts = counts.collect::<Vec<String>>().join(" and ");
                    let names: Vec<&str> = places.iter().map(|place| place.node.as_str()).collect();
                    let names = words::first_names(&names);
                    line(f, &format!("  {counts} stay ({names}): {}", group.reason()))?;
                }
            }
        }
        Ok(())
    }

    /// What changes in the whole model, and how that was verified.
    fn write_totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unchanged() {
            self.write_equalization(f)?;
            return self.write_places(f);
        }
        writeln!(f)?;
        if !self.blocks.is_empty() {
            writeln!(f, "{}, {}", words::blocks_fused(self), words::nodes_change(&self.sizes))?;
        }
        for block in self.blocks.iter().filter(|block| !block.conditions.is_empty()) {
            let conditions = block.conditions.join(" and ");
            line(f, &format!("block {} is right where {conditions}", block.name))?;
        }
        if self.notes.inferred_nodes > 0 {
            let nodes = counted(self.notes.inferred_nodes, "node");
            let would = words::would_be(self.mode);
            writeln!(f, "{nodes} in training mode {would}converted to inference")?;
        }
        if let Some(removed) = words::removed_inputs(&self.notes) {
            writeln!(f, "{removed}")?;
        }
        for side_file in self.output.iter().flat_map(|output| &output.side_files) {
            let location = &side_file.location;
            line(f, &format!("weights are in `{location}`, which belongs beside the model"))?;
        }
        self.write_places(f)?;
        self.write_kept(f)?;
        self.write_hint(f)?;
        self.write_equalization(f)?;
        self.write_verification(f)
    }

    fn write_equalization(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.equalization.iter().try_for_each(|own| line(f, &own.in_words()))
    }

    /// What the new model has taken the place of, and what may go with that.
    fn write_places(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(output) = &self.output else { return Ok(()) };
        // A file that is written as it was read changes nothing in its own place.
        let is_itself =
            |old: &&Predecessor| old.kind == PredecessorKind::Input && self.is_unchanged();
        let replaced = output.replaced.as_ref().filter(|old| !is_itself(old));
        if let Some(Predecessor { kind, side_files, .. }) = replaced {
            let what = match kind {
                PredecessorKind::Input => "the model that was read",
                PredecessorKind::Earlier => "a model with the same inputs and outputs",
                PredecessorKind::Other => "another file, as asked for",
            };
            line(f, &format!("{} took the place of {what}", output.path))?;
            for location in side_files {
                let may_go = "which the old model named, may go if no other model names it";
                line(f, &format!("`{location}`, {may_go}"))?;
            }
        }
        if let Some(why) = &self.notes.unsynced {
            let warning = "is written, but may be the old one again after a power failure";
            line(f, &format!("{} {warning}: {why}", output.path))?;
        }
        Ok(())
    }

    /// Branches that stay apart, in one line; of the alternate form, one per branch.
    fn write_kept(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = || self.blocks.iter().filter(|block| !block.kept_apart.is_empty());
        let names: Vec<&str> = kept().map(|block| block.name.as_str()).collect();
        if names.len() < 2 || f.alternate() {
            return kept().try_for_each(|block| {
                let mut told = block.kept_apart.iter().map(|kept| kept.told());
                told.try_for_each(|told| line(f, &format!("block {}: {told}", block.name)))
            });
        }
        let blocks = counted(names.len(), "block");
        let names = words::first_names(&names);
        let lost = kept().flat_map(|block| &block.kept_apart);
        let lost = lost.filter_map(|kept| Some(kept.sqnr_apart? - kept.sqnr_merged?));
        let most = lost.fold(0.0, f64::max);
        let why = format!("in one kernel, int8 weights would be up to {most:.1} dB less exact");
        line(f, &format!("in {blocks} ({names}) a branch stays apart: {why}"))
    }

    /// Blocks whose int8 weights are poor, in one line; of the alternate form, those of all.
    fn write_hint(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            for block in &self.blocks {
                for compared in block.weights.iter().flatten() {
                    let change = quantization::change(compared);
                    line(f, &format!("int8 weights of {}: {change}", block.name))?;
                }
            }
        }
        let worst =
            self.poor().filter_map(|block| Some((block, sqnr(&block.poorest()?.after.int8))));
        let worst = worst.min_by(|(_, a), (_, b)| a.total_cmp(b));
        let Some((block, hint)) = worst.and_then(|(block, _)| Some((block, block.hint.as_ref()?)))
        else {
            return Ok(());
        };
        let (count, all, name) = (self.poor().count(), self.blocks.len(), &block.name);
        line(
            f,
            &format!("quantization: poor weights in {count} of {all} blocks; in `{name}`, {hint}"),
        )
    }

    fn write_verification(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mode == Mode::Unverified {
            return f.write_str(NOT_VERIFIED);
        }
        if let Some(error) = self.largest_proof_error() {
            writeln!(f, "proof: every block agrees in float64 within {error:.1e}")?;
        }
        if let Some(outcome) = &self.run {
            line(f, &format!("run: {}", run(outcome)))?;
        }
        Ok(())
    }
}

fn left_alone(f: &mut fmt::Formatter<'_>, place: &LeftAlone) -> fmt::Result {
    line(f, &format!("  {}: {}", place.node, place.reason))
}

/// One line, whatever the names in it are.
fn line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    writeln!(f, "{}", escaped(text, |_| false))
}

/// What the run of both models showed, in a line.
fn run(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Agreed(agreement) => words::agreement(agreement),
        Outcome::NotRun(reason) => format!("not run: {reason}"),
        Outcome::Broken(reason) => format!("the result does not run: {reason}"),
        Outcome::Differs { output, error, .. } => {
            format!("output `{output}` differs by {error:.1e}")
        }
    }
}

/// A block as a row of the table.
fn row(block: &BlockReport) -> [String; 5] {
    let change = |cost: fn(&BlockCost) -> String| {
        let [before, after] = [&block.before, &block.after].map(cost);
        format!("{before} → {after}")
    };
    [
        escaped(&block.name, |_| false).into_owned(),
        escaped(&words::branches_and_norms(block), |_| false).into_owned(),
        change(|cost| cost.nodes.to_string()),
        change(|cost| cost.parameters.to_string()),
        change(|cost| cost.multiply_adds_per_position.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Subject;
    use crate::report::LeftAlone;

    /// A name is anybody's: it adds no line of its own.
    #[test]
    fn a_name_is_no_line() {
        let mut report = Report::new("model.onnx".to_owned(), Mode::Look);
        report.near_misses.push(LeftAlone {
            node: "evil\nNOT VERIFIED".to_owned(),
            kind: "limit",
            reason: "`a\u{202e}b` is met".to_owned(),
            setting: None,
            subject: Subject::Node,
            in_common: String::new(),
        });
        let expected = "model.onnx: nothing to fuse\n\nleft alone:\n  \
                        evil\\u{a}NOT VERIFIED: `a\\u{202e}b` is met\n";
        assert_eq!(report.to_string(), expected);
    }
}
