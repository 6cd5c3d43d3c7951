//! The report as lines of text.
//!
//! Knows the report's data, and what each line is about, so that a front end can give it a
//! colour; does not know where the lines are shown. Each line is escaped as it is made: whatever
//! names it holds, it stays one line and shows all its characters.

use std::fmt;

use crate::report::escape::escaped;
use crate::report::groups::groups;
use crate::report::quantization;
use crate::report::table::table;
use crate::report::verdict::{self, Standing};
use crate::report::words::{self, amount, counted};
use crate::report::{LeftAlone, Mode, NewerOpset, Predecessor, PredecessorKind, Report};

/// A line of the summary.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// What the line is about.
    pub tone: Tone,
    /// The text, without a line end.
    pub text: String,
}

/// What a line is about, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tone {
    /// A fact, or something that would be done.
    Plain,
    /// Something that was done or verified.
    Good,
    /// Something that a user should know.
    Warning,
    /// The whole model was not run.
    NotRun,
    /// Nothing was verified.
    NotVerified,
    /// The new model does not do what the old one did.
    Bad,
}

impl From<Standing> for Tone {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Good => Tone::Good,
            Standing::NotRun => Tone::NotRun,
            Standing::NotVerified => Tone::NotVerified,
            Standing::Bad => Tone::Bad,
        }
    }
}

/// The layout of the summary.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SummaryLayout {
    /// The number of columns; `None` if lines may be of any length.
    pub width: Option<usize>,
    /// Whether each place that is left alone has a line of its own.
    pub every_place: bool,
}

impl SummaryLayout {
    /// Creates a layout with `width` columns.
    pub fn of(width: Option<usize>, every_place: bool) -> Self {
        SummaryLayout { width, every_place }
    }
}

/// The summary. Its alternate form, `{:#}`, has a line for each place that is left alone.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = SummaryLayout::of(None, f.alternate());
        self.lines(layout).iter().try_for_each(|line| writeln!(f, "{}", line.text))
    }
}

impl Report {
    /// Returns the lines of the summary.
    pub fn lines(&self, layout: SummaryLayout) -> Vec<Line> {
        let mut lines = Lines::default();
        self.put_blocks(&mut lines, layout);
        self.put_converted(&mut lines);
        self.put_near_misses(&mut lines, layout);
        if let Some(help) = words::open_sizes(&self.notes) {
            lines.put(Tone::Warning, &help);
        }
        if let Some(NewerOpset { model, known }) = self.notes.newer_opset {
            lines.put(Tone::Plain, "");
            let warning = format!(
                "operator set {model} is newer than {known}, the newest that is known: operators are \
                 read as they are defined there"
            );
            lines.put(Tone::Warning, &warning);
        }
        if let Some(warning) = words::repeated_names(&self.notes) {
            lines.put(Tone::Plain, "");
            lines.put(Tone::Warning, &warning);
        }
        self.put_totals(&mut lines, layout);
        lines.lines
    }

    fn put_blocks(&self, lines: &mut Lines, layout: SummaryLayout) {
        if self.blocks.is_empty() {
            let what = words::nothing_fused(self);
            return lines.put(Tone::Plain, &format!("{}: {what}", self.input.path));
        }
        for row in table(self, layout.width) {
            lines.put(Tone::Plain, &row);
        }
    }

    /// Adds the nodes that no longer compute what the file said.
    fn put_converted(&self, lines: &mut Lines) {
        if self.notes.converted_nodes.is_empty() {
            return;
        }
        let title = match self.mode {
            Mode::Look => "would be converted to inference; the file computes something else now:",
            Mode::Verified | Mode::Unverified => {
                "converted to inference; the file computed something else before:"
            }
        };
        lines.put(Tone::Plain, "");
        lines.put(Tone::Warning, title);
        for converted in &self.notes.converted_nodes {
            lines.put(Tone::Plain, &format!("  {}: {}", converted.node, converted.change));
        }
    }

    /// Adds a line for each reason, and one for what helps against it; or a line for each place.
    fn put_near_misses(&self, lines: &mut Lines, layout: SummaryLayout) {
        if self.near_misses.is_empty() {
            return;
        }
        lines.put(Tone::Plain, "");
        lines.put(Tone::Plain, "left alone:");
        if layout.every_place {
            return self.near_misses.iter().for_each(|place| lines.put_left_alone(place));
        }
        for group in groups(&self.near_misses) {
            let helps = group.places.first().filter(|place| place.is_helped());
            // The sizes that may help are listed once for all reasons.
            let is_said = !self.notes.open_sizes.is_empty();
            let helps = helps.filter(|place| !(is_said && place.is_helped_by_sizes()));
            match group.places.as_slice() {
                [place] => lines.put_left_alone(place),
                places => {
                    let names: Vec<&str> = places.iter().map(|place| place.node.as_str()).collect();
                    let names = words::first_names(&names);
                    let stay = format!("  {} stay ({names}): {}", group.counted(), group.reason());
                    lines.put(Tone::Plain, &stay);
                }
            }
            if let Some(place) = helps {
                lines.put(Tone::Plain, &format!("    what helps: {}", place.help));
            }
        }
    }

    /// Adds what changes in the whole model, and how that was verified.
    fn put_totals(&self, lines: &mut Lines, layout: SummaryLayout) {
        if self.is_unchanged() {
            self.put_equalization(lines);
            return self.put_places(lines);
        }
        lines.put(Tone::Plain, "");
        if !self.blocks.is_empty() {
            let fused = words::blocks_fused(self);
            lines.put(self.done(), &format!("{fused}, {}", words::nodes_change(&self.sizes)));
        }
        self.put_sizes(lines);
        for block in self.blocks.iter().filter(|block| !block.conditions.is_empty()) {
            let conditions = block.conditions.join(" and ");
            lines.put(Tone::Warning, &format!("block {} is right where {conditions}", block.name));
        }
        if self.notes.inferred_nodes > 0 {
            let nodes = counted(self.notes.inferred_nodes, "node");
            let would = words::would_be(self.mode);
            let converted = format!("{nodes} in training mode {would}converted to inference");
            lines.put(Tone::Warning, &converted);
        }
        if let Some(removed) = words::removed_inputs(&self.notes) {
            lines.put(Tone::Plain, &removed);
        }
        self.put_places(lines);
        self.put_kept(lines, layout);
        self.put_hint(lines, layout);
        self.put_equalization(lines);
        self.put_verification(lines);
    }

    fn put_equalization(&self, lines: &mut Lines) {
        if let Some(own) = &self.equalization {
            lines.put(Tone::Plain, &own.in_words());
        }
        if let Some(own) = &self.int8_outputs {
            lines.put(Tone::Plain, &own.in_words());
        }
    }

    /// The tone of something that was done, or, after a mere look, would be done.
    fn done(&self) -> Tone {
        if self.mode == Mode::Look { Tone::Plain } else { Tone::Good }
    }

    /// Adds how large the whole model was and is; nothing after a mere look.
    fn put_sizes(&self, lines: &mut Lines) {
        if self.output.is_none() {
            return;
        }
        if let Some(operators) = words::operators(&self.operators) {
            lines.put(Tone::Plain, &format!("operators: {operators}"));
        }
        let sizes = [self.sizes.before, self.sizes.after];
        let change = |what: &str, [before, after]: [f64; 2]| {
            let percent = words::change_in_percent(before, after);
            format!("{what}: {} → {}{percent}", amount(before), amount(after))
        };
        if let [Some(before), Some(after)] = sizes.map(|size| size.parameters) {
            lines.put(Tone::Plain, &change("parameters", [before, after].map(|of| of as f64)));
        }
        if let [Some(before), Some(after)] = sizes.map(|size| size.multiply_adds) {
            lines.put(Tone::Plain, &change("multiply-adds", [before, after]));
        }
    }

    /// Adds which files were read, written and replaced, and which may be deleted now.
    fn put_places(&self, lines: &mut Lines) {
        let Some(output) = &self.output else { return };
        let [before, after] = [self.sizes.before, self.sizes.after].map(|size| size.bytes);
        let size = |bytes: Option<usize>| {
            bytes.map(|bytes| format!(", {}", words::bytes(bytes))).unwrap_or_default()
        };
        let seconds = self.seconds.total;
        if self.is_unchanged() {
            let same = "byte for byte the model that was read";
            lines.put(Tone::Plain, "");
            lines.put(self.done(), &format!("written: {}{}, {same}", output.path, size(after)));
        } else {
            let change = before
                .zip(after)
                .map(|(before, after)| words::change_in_percent(before as f64, after as f64));
            let change = change.unwrap_or_default();
            lines.put(Tone::Plain, &format!("read: {}{}", self.input.path, size(before)));
            let written = format!("written: {}{}{change}", output.path, size(after));
            lines.put(Tone::Plain, &format!("{written}, in {seconds:.2} s"));
        }
        for side_file in &output.side_files {
            let location = &side_file.location;
            let beside = "which belongs beside the model";
            lines.put(Tone::Warning, &format!("weights are in `{location}`, {beside}"));
        }
        // A file that is written back to its own place unchanged replaces nothing.
        let is_itself =
            |old: &&Predecessor| old.kind == PredecessorKind::Input && self.is_unchanged();
        let replaced = output.replaced.as_ref().filter(|old| !is_itself(old));
        if let Some(Predecessor { kind, side_files, .. }) = replaced {
            let what = match kind {
                PredecessorKind::Input => "the model that was read",
                PredecessorKind::Earlier => "a model with the same inputs and outputs",
                PredecessorKind::Other => "another file, as asked for",
            };
            lines.put(Tone::Plain, &format!("{} replaced {what}", output.path));
            for location in side_files {
                let may_go =
                    "a side file of the old model, can be deleted if no other model uses it";
                lines.put(Tone::Plain, &format!("`{location}`, {may_go}"));
            }
        }
        if let Some(why) = &self.notes.unsynced {
            let warning = "is written, but after a power failure the old file may be back";
            lines.put(Tone::Warning, &format!("{} {warning}: {why}", output.path));
        }
    }

    /// Adds the branches that stay apart: in one line, or in one line each if every place has a
    /// line.
    fn put_kept(&self, lines: &mut Lines, layout: SummaryLayout) {
        let kept = || self.blocks.iter().filter(|block| !block.kept_apart.is_empty());
        let names: Vec<&str> = kept().map(|block| block.name.as_str()).collect();
        if names.len() < 2 || layout.every_place {
            for block in kept() {
                for kept in &block.kept_apart {
                    lines.put(Tone::Plain, &format!("block {}: {}", block.name, kept.told()));
                }
            }
            return;
        }
        let blocks = counted(names.len(), "block");
        let names = words::first_names(&names);
        let lost = kept().flat_map(|block| &block.kept_apart);
        let lost = lost.filter_map(|kept| Some(kept.sqnr_apart? - kept.sqnr_merged?));
        let most = lost.fold(0.0, f64::max);
        let why = format!("in one kernel, int8 weights would be up to {most:.1} dB less exact");
        lines.put(Tone::Plain, &format!("in {blocks} ({names}) a branch stays apart: {why}"));
    }

    /// Adds the blocks whose int8 weights are poor: the worst one in a line; if every place has
    /// a line, the weights of all blocks before it.
    fn put_hint(&self, lines: &mut Lines, layout: SummaryLayout) {
        for block in self.blocks.iter().filter(|_| layout.every_place) {
            for compared in block.weights.iter().flatten() {
                let change = quantization::change(compared);
                lines.put(Tone::Plain, &format!("int8 weights of {}: {change}", block.name));
            }
        }
        let worst =
            self.poor().filter_map(|block| Some((block, block.poorest()?.after.int8.per_tensor())));
        let worst = worst.min_by(|(_, a), (_, b)| a.total_cmp(b));
        let Some((block, hint)) = worst.and_then(|(block, _)| Some((block, block.hint.as_ref()?)))
        else {
            return;
        };
        let (count, all, name) = (self.poor().count(), self.blocks.len(), &block.name);
        let hint =
            format!("quantization: poor weights in {count} of {all} blocks; in `{name}`, {hint}");
        lines.put(Tone::Warning, &hint);
    }

    fn put_verification(&self, lines: &mut Lines) {
        for found in verdict::findings(self) {
            lines.put(found.standing.into(), &found.text);
        }
    }
}

/// The lines of a summary that is being made.
#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
}

impl Lines {
    /// Adds one line, whatever names `text` holds.
    fn put(&mut self, tone: Tone, text: &str) {
        self.lines.push(Line { tone, text: escaped(text, |_| false).into_owned() });
    }

    fn put_left_alone(&mut self, place: &LeftAlone) {
        self.put(Tone::Plain, &format!("  {}: {}", place.node, place.reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Subject;
    use crate::report::LeftAlone;

    /// A name from a file cannot add a line of its own.
    #[test]
    fn a_name_is_no_line() {
        let mut report = Report::new("model.onnx".to_owned(), Mode::Look);
        report.near_misses.push(LeftAlone {
            node: "evil\nNOT VERIFIED".to_owned(),
            kind: "limit",
            reason: "`a\u{202e}b` is met".to_owned(),
            help: "".into(),
            setting: None,
            option: None,
            subject: Subject::Node,
            in_common: String::new(),
        });
        let expected = "model.onnx: nothing to fuse\n\nleft alone:\n  \
                        evil\\u{a}NOT VERIFIED: `a\\u{202e}b` is met\n";
        assert_eq!(report.to_string(), expected);
    }
}
