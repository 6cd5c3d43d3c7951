//! The report as one page that needs nothing else: no script, no font, no request.
//!
//! Names in a model are anybody's: each goes through [`shown`], and the page's own policy
//! forbids whatever might come through all the same. What could be very long is cut, and
//! the page says so; the JSON report has everything.

#![allow(clippy::arithmetic_side_effects, reason = "coordinates, and counts of what is in memory")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use crate::affine::{Comparison, Spread};
use crate::report::escape::is_unsafe;
use crate::report::{Average, BlockReport, Change, Ending, HARDER, Mode, Report, Shape, Size};
use crate::verify::run::Outcome;

/// So many blocks are shown in detail: first those that are harder to quantize.
const DETAILED: usize = 200;
/// So many blocks are rows of the table.
const ROWS: usize = 20_000;
/// So many near misses, outputs or side files are listed.
const LISTED: usize = 2_000;
/// So many names of nodes or tensors are listed per block.
const NAMES: usize = 40;
/// So many characters of a name are shown.
const CHARACTERS: usize = 160;
/// So many cells all heat maps together have, and one has.
const CELLS: usize = 60_000;
const CELLS_OF_ONE: usize = 1_024;
/// So many branches and steps of one are drawn.
const BRANCHES: usize = 8;
const STEPS: usize = 4;

/// The page.
pub fn page(report: &Report) -> String {
    let mut page = Page { html: String::new(), cells: CELLS };
    page.head(report);
    page.verdict(report);
    page.totals(&report.sizes);
    page.verification(report);
    page.quantization(report);
    page.averages(&report.averages());
    page.blocks(&report.blocks);
    page.converted(report);
    page.near_misses(report);
    page.files(report);
    page.html.push_str("</main></body></html>\n");
    page.html
}

struct Page {
    html: String,
    /// How many cells heat maps may still have.
    cells: usize,
}

/// Writing to a string cannot fail.
macro_rules! put {
    ($to:expr, $($argument:tt)*) => {{ let _ = write!($to, $($argument)*); }};
}

/// `text` as it may stand in the page: escaped, with what would steer a terminal or turn
/// the direction of the text spelled out, and not too long.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(CHARACTERS));
    for (count, c) in text.chars().enumerate() {
        if count == CHARACTERS {
            put!(shown, "… ({} more)", text.chars().count() - CHARACTERS);
            break;
        }
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '"' => shown.push_str("&quot;"),
            '\'' => shown.push_str("&#39;"),
            c if is_unsafe(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// A sentence, which may be longer than a name.
fn sentence(text: &str) -> String {
    let words: Vec<String> = text.split(' ').take(CHARACTERS).map(shown).collect();
    words.join(" ")
}

/// `1234567` as `1,234,567`.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn small(value: f64) -> String {
    match value == 0.0 || (1e-3..1e4).contains(&value.abs()) {
        true => format!("{value:.3}"),
        false => format!("{value:.1e}"),
    }
}

impl Page {
    fn head(&mut self, report: &Report) {
        put!(
            self.html,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <title>{0} – acb-fuse</title>\n<style>\n{1}</style></head>\n<body><main>\n<h1>{0}</h1>\n",
            shown(&report.input.path),
            include_str!("style.css")
        );
    }

    fn verdict(&mut self, report: &Report) {
        let (count, s) = (report.blocks.len(), if report.blocks.len() == 1 { "" } else { "s" });
        let (class, text) = match (report.outcome, report.mode, &report.run) {
            (Ending::Failed, ..) => ("bad", "Failed; nothing was written.".to_owned()),
            (Ending::Looked, ..) => ("", format!("Only looked: {count} block{s} would be fused.")),
            (_, Mode::Unverified, _) => {
                ("warn", format!("{count} block{s} fused and written; NOT VERIFIED."))
            }
            (_, _, Some(Outcome::NotRun(_))) => (
                "warn",
                format!("{count} block{s} fused, proved and written; the whole model was not run."),
            ),
            (_, _, None) => ("", "There was nothing to fuse; written as it was read.".to_owned()),
            _ if count == 0 => ("good", "No block; converted to inference and written.".to_owned()),
            _ => ("good", format!("{count} block{s} fused, verified and written.")),
        };
        put!(self.html, "<div class=\"verdict {class}\"><strong>{text}</strong>");
        if let Some(error) = &report.error {
            let (code, message) = (error.exit_code, sentence(&error.message));
            put!(self.html, "<p>Exit code {code}: {message}</p>");
        }
        let notes = &report.notes;
        if let Some(opset) = notes.newer_opset {
            put!(
                self.html,
                "<p>Operator set {opset} is newer than those that are known: operators are read as \
                 they were before.</p>"
            );
        }
        for (count, what) in [
            (notes.inferred_nodes, "nodes in training mode converted to inference"),
            (notes.removed_inputs, "graph inputs that only named folded weights went"),
        ] {
            if count > 0 {
                put!(self.html, "<p>{count} {what}.</p>");
            }
        }
        self.html.push_str("</div>\n");
    }

    fn totals(&mut self, sizes: &Change<Size>) {
        self.html.push_str(
            "<h2>Totals</h2>\n<div class=\"scroll\"><table><tr><th></th><th class=\"n\">before</th>\
             <th class=\"n\">after</th><th class=\"n\">change</th></tr>\n",
        );
        type Of = fn(&Size) -> Option<f64>;
        let rows: [(&str, Of); 4] = [
            ("bytes, side files included", |size| size.bytes.map(|bytes| bytes as f64)),
            ("nodes", |size| size.nodes.map(|nodes| nodes as f64)),
            ("parameters stored", |size| size.parameters.map(|count| count as f64)),
            ("multiply-adds", |size| size.multiply_adds),
        ];
        for (what, of) in rows {
            let (before, after) = (of(&sizes.before), of(&sizes.after));
            let number = |number: Option<f64>| number.map_or_else(|| "–".to_owned(), grouped);
            let change = match (before, after) {
                (Some(before), Some(after)) if before > 0.0 => {
                    format!("{:+.1} %", (after / before - 1.0) * 100.0).replace('-', "−")
                }
                _ => String::new(),
            };
            let (before, after) = (number(before), number(after));
            put!(
                self.html,
                "<tr><td>{what}</td><td class=\"n\">{before}</td><td class=\"n\">{after}</td>\
                 <td class=\"n\">{change}</td></tr>\n"
            );
        }
        self.html.push_str(
            "</table></div>\n<p class=\"soft\">Multiply-adds are for inputs of the known sizes and \
             one image where that is open. – is not known or was not made.</p>\n",
        );
    }

    fn verification(&mut self, report: &Report) {
        let errors = report.blocks.iter().filter_map(|block| block.proof);
        let worst = errors.map(|proof| proof.error).reduce(f64::max);
        if worst.is_none() && report.run.is_none() {
            return;
        }
        self.html.push_str("<h2>Verification</h2>\n");
        if let Some(worst) = worst {
            put!(
                self.html,
                "<p>Proof: old and new nodes of every block agree in float64 within \
                 <strong>{worst:.1e}</strong>.</p>\n"
            );
        }
        let errors: &[(String, f64)] = match &report.run {
            None => &[],
            Some(Outcome::NotRun(reason)) => {
                put!(self.html, "<p>The whole model was not run: {}</p>\n", sentence(reason));
                &[]
            }
            Some(Outcome::Broken(reason)) => {
                put!(self.html, "<p>The result does not run: {}</p>\n", sentence(reason));
                &[]
            }
            Some(Outcome::WithinRounding { errors, rounding }) => {
                put!(
                    self.html,
                    "<p>The last bit of the old model’s weights alone moves its outputs by \
                     {rounding:.1e}.</p>\n"
                );
                errors
            }
            Some(Outcome::Differs { errors, tolerance, .. }) => {
                put!(self.html, "<p>Allowed is a difference of {}.</p>\n", small(*tolerance));
                errors
            }
            Some(Outcome::Agreed(errors)) => errors,
        };
        if errors.is_empty() {
            return;
        }
        self.html.push_str(
            "<div class=\"scroll\"><table><tr><th>output of the whole model</th>\
             <th class=\"n\">largest difference, of its largest value</th></tr>\n",
        );
        for (name, error) in errors.iter().take(LISTED) {
            put!(
                self.html,
                "<tr><td><code>{}</code></td><td class=\"n\">{error:.1e}</td></tr>\n",
                shown(name)
            );
        }
        self.html.push_str("</table></div>\n");
        self.left_out(errors.len(), LISTED, "outputs");
    }

    fn left_out(&mut self, all: usize, listed: usize, what: &str) {
        if all > listed {
            put!(
                self.html,
                "<p class=\"soft\">{} further {what} are in the JSON report only.</p>\n",
                all - listed
            );
        }
    }

    fn quantization(&mut self, report: &Report) {
        if report.blocks.iter().all(|block| block.weights.is_none()) {
            return;
        }
        let (count, all) = (report.harder().count(), report.blocks.len());
        self.html.push_str("<h2>Before quantization</h2>\n");
        match count {
            0 => put!(
                self.html,
                "<p>In no block do channels differ more than {HARDER} times as much as before.</p>\n"
            ),
            _ => put!(
                self.html,
                "<p class=\"hint\">In {count} of {all} blocks channels differ more than {HARDER} \
                 times as much as before: quantize weights per channel, or equalize them across \
                 layers first. These blocks are marked below.</p>\n"
            ),
        }
        self.html.push_str(
            "<p class=\"soft\">Compared is max |w| of the largest output channel with that of the \
             median channel: with one scale for the whole tensor, a ratio of 2 costs the median \
             channel one bit. <em>Before</em> is the largest kernel of a block with the norms of its \
             own branch folded; <em>stored</em> is the same kernel as it is in the file.</p>\n",
        );
    }

    fn averages(&mut self, averages: &[Average]) {
        if averages.is_empty() {
            return;
        }
        self.html.push_str(
            "<h2>Average kernel magnitude</h2>\n<p class=\"soft\">Σ|w| over filters and channels at \
             each position, divided by its largest, averaged over all fused kernels of one size \
             (ACNet, Eq. 9 and 10, Fig. 6). The darker (on dark: the lighter), the larger.</p>\n",
        );
        for average in averages.iter().take(NAMES) {
            let size = times(&average.kernel);
            put!(self.html, "<h3>{size}</h3><div class=\"pair\">");
            if let Some((before, layers)) = &average.before {
                let caption = format!("before: the largest kernel, norms folded ({layers})");
                self.heat_map(&average.kernel, before, &caption);
            }
            let caption = format!("after: the fused kernel ({})", average.layers);
            self.heat_map(&average.kernel, &average.after, &caption);
            self.html.push_str("</div>\n");
        }
        self.left_out(averages.len(), NAMES, "kernel sizes");
    }

    fn blocks(&mut self, blocks: &[BlockReport]) {
        if blocks.is_empty() {
            return;
        }
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_by_key(|&at| blocks.get(at).is_none_or(|block| block.hint.is_none()));
        let detailed: BTreeSet<usize> = order.into_iter().take(DETAILED).collect();
        self.html.push_str(
            "<h2>Blocks</h2>\n<div class=\"scroll\"><table><tr><th>block</th><th>branches</th>\
             <th class=\"n\">nodes</th><th class=\"n\">parameters</th>\
             <th class=\"n\">multiply-adds per position</th><th class=\"n\">proof</th></tr>\n",
        );
        for (at, block) in blocks.iter().enumerate().take(ROWS) {
            let name = shown(&block.name);
            let name = match detailed.contains(&at) {
                true => format!("<a href=\"#b{at}\">{name}</a>"),
                false => name,
            };
            let mark = if block.hint.is_some() { " <span class=\"hint\">⚠</span>" } else { "" };
            let proof = block.proof.map(|proof| format!("{:.1e}", proof.error));
            let change =
                |before: f64, after: f64| format!("{} → {}", grouped(before), grouped(after));
            put!(
                self.html,
                "<tr><td>{name}{mark}</td><td>{}</td><td class=\"n\">{} → {}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
                shown(&block.found()),
                block.before.nodes,
                block.after.nodes,
                change(block.before.parameters as f64, block.after.parameters as f64),
                change(
                    block.before.multiply_adds_per_position,
                    block.after.multiply_adds_per_position
                ),
                proof.unwrap_or_else(|| "–".to_owned())
            );
        }
        self.html.push_str("</table></div>\n");
        self.left_out(blocks.len(), ROWS, "blocks");
        self.html.push_str("<h2>Details</h2>\n");
        if blocks.len() > detailed.len() {
            put!(
                self.html,
                "<p class=\"soft\">Of {} blocks: first those that are harder to quantize, then in the \
                 order of the model. All are in the JSON report.</p>\n",
                detailed.len()
            );
        }
        for (at, block) in blocks.iter().enumerate().filter(|(at, _)| detailed.contains(at)) {
            // Of a few, the first is opened, so that it is seen what is there.
            let open = if at == 0 { " open" } else { "" };
            put!(
                self.html,
                "<details id=\"b{at}\"{open}><summary><strong>{}</strong> {}</summary>\n",
                shown(&block.name),
                shown(&block.found())
            );
            self.block(block);
            self.html.push_str("</details>\n");
        }
    }

    fn block(&mut self, block: &BlockReport) {
        if let Some(hint) = &block.hint {
            put!(self.html, "<p class=\"hint\">⚠ {}</p>\n", sentence(hint));
        }
        put!(self.html, "<div class=\"scroll\">{}</div>\n", drawing(block));
        for compared in block.weights.iter().flatten() {
            self.weights(compared);
        }
        self.html.push_str("<dl>");
        for geometry in block.geometry.iter().take(NAMES) {
            self.fact("becomes", &shape(geometry));
        }
        if let Some(positions) = block.positions {
            self.fact("output positions", &grouped(positions));
        }
        for (what, names) in [
            ("right where", &block.conditions),
            ("reads", &block.reads),
            ("nodes removed", &block.removed_nodes),
            ("nodes made", &block.new_nodes),
            ("tensors made", &block.new_tensors),
        ] {
            self.names(what, names);
        }
        self.names("computes", std::slice::from_ref(&block.output));
        self.html.push_str("</dl>\n");
    }

    /// `value` is safe.
    fn fact(&mut self, what: &str, value: &str) {
        put!(self.html, "<dt>{what}</dt><dd>{value}</dd>");
    }

    fn names(&mut self, what: &str, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let list: Vec<String> =
            names.iter().take(NAMES).map(|name| format!("<code>{}</code>", shown(name))).collect();
        let mut list = list.join(", ");
        if names.len() > NAMES {
            put!(list, " and {} more", names.len() - NAMES);
        }
        self.fact(what, &list);
    }

    fn weights(&mut self, compared: &Comparison) {
        self.html.push_str("<div class=\"pair\">");
        if compared.after.kernel.iter().any(|&taps| taps > 1) {
            let (before, after) = (&compared.before, &compared.after);
            self.heat_map(&before.kernel, &before.by_position, "magnitude before");
            self.heat_map(&after.kernel, &after.by_position, "magnitude after");
        }
        self.html.push_str(&spreads(&[
            ("stored", &compared.stored),
            ("before", &compared.before.channels),
            ("after", &compared.after.channels),
        ]));
        self.html.push_str("</div>\n");
    }

    /// One square per tap; `caption` is safe.
    fn heat_map(&mut self, kernel: &[usize], values: &[f64], caption: &str) {
        put!(self.html, "<figure>");
        match values.len() <= CELLS_OF_ONE.min(self.cells) {
            true => {
                self.cells -= values.len();
                self.html.push_str(&heat_map(kernel, values, caption));
            }
            false => put!(
                self.html,
                "<p class=\"soft\">{} not drawn: see the JSON report</p>",
                times(kernel)
            ),
        }
        put!(self.html, "<figcaption>{caption}</figcaption></figure>");
    }

    fn converted(&mut self, report: &Report) {
        let converted = &report.notes.converted_nodes;
        if converted.is_empty() {
            return;
        }
        put!(
            self.html,
            "<h2>Converted to inference</h2>\n<p>In training mode, the file computed something \
             else.</p>\n<div class=\"scroll\"><table><tr><th>node</th><th>what changed</th></tr>\n"
        );
        for converted in converted.iter().take(LISTED) {
            put!(
                self.html,
                "<tr><td><code>{}</code></td><td>{}</td></tr>\n",
                shown(&converted.node),
                converted.change()
            );
        }
        self.html.push_str("</table></div>\n");
        self.left_out(converted.len(), LISTED, "nodes");
    }

    fn near_misses(&mut self, report: &Report) {
        let misses = &report.near_misses;
        if misses.is_empty() {
            return;
        }
        put!(
            self.html,
            "<h2>Left alone</h2>\n<div class=\"scroll\"><table><tr><th>node</th><th>why</th></tr>\n"
        );
        for miss in misses.iter().take(LISTED) {
            put!(
                self.html,
                "<tr><td><code>{}</code></td><td>{}</td></tr>\n",
                shown(&miss.node),
                sentence(&miss.reason.to_string())
            );
        }
        self.html.push_str("</table></div>\n");
        self.left_out(misses.len(), LISTED, "places");
    }

    fn files(&mut self, report: &Report) {
        self.html.push_str(
            "<h2>Files</h2>\n<div class=\"scroll\"><table><tr><th></th><th>file</th>\
             <th class=\"n\">bytes</th><th>SHA-256</th></tr>\n",
        );
        let files = [("read", Some(&report.input)), ("written", report.output.as_ref())];
        for (what, file) in files {
            let Some(file) = file else { continue };
            let sides = file.side_files.iter().take(LISTED);
            let sides = sides.map(|side| (&side.location, side.bytes, &side.sha256));
            for (path, bytes, sha256) in
                [(&file.path, file.bytes, &file.sha256)].into_iter().chain(sides)
            {
                put!(
                    self.html,
                    "<tr><td>{what}</td><td><code>{}</code></td><td class=\"n\">{}</td>\
                     <td><code>{}</code></td></tr>\n",
                    shown(path),
                    bytes.map_or_else(|| "–".to_owned(), |bytes| grouped(bytes as f64)),
                    sha256.as_deref().unwrap_or("–")
                );
            }
        }
        let seconds = &report.seconds;
        put!(
            self.html,
            "</table></div>\n<p class=\"soft\">{} {}. Seconds: read {:.2}, plan {:.2}, fuse and prove \
             {:.2}, write {:.2}, read back {:.2}, run {:.2}, total {:.2}.</p>\n",
            report.tool.name,
            report.tool.version,
            seconds.read,
            seconds.plan,
            seconds.fuse_and_prove,
            seconds.write,
            seconds.read_back,
            seconds.run,
            seconds.total
        );
    }
}

fn times(sizes: &[usize]) -> String {
    sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

/// A convolution in words.
fn shape(shape: &Shape) -> String {
    let list = |numbers: &[i64]| {
        let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
        numbers.join("×")
    };
    let mut text = match (shape.kernel.as_slice(), shape.transposed) {
        ([], _) => "matrix".to_owned(),
        (kernel, true) => format!("transposed {}", list(kernel)),
        (kernel, false) => list(kernel),
    };
    put!(text, ", {} → {} channels", shape.inputs, shape.outputs);
    if shape.groups > 1 {
        put!(text, " in {} groups", shape.groups);
    }
    for (what, numbers) in [("stride", &shape.strides), ("dilation", &shape.dilations)] {
        if numbers.iter().any(|&number| number != 1) {
            put!(text, ", {what} {}", list(numbers));
        }
    }
    let padded = shape.pads.iter().flatten().any(|&pad| pad != 0);
    if padded {
        let pads = shape.pads.iter().map(|[begin, end]| format!("{begin}…{end}"));
        put!(text, ", pads {}", pads.collect::<Vec<_>>().join(" × "));
        let other: BTreeSet<&str> =
            shape.borders.iter().copied().filter(|&border| border != "zero").collect();
        for border in other {
            put!(text, " ({border})");
        }
    }
    text
}

fn heat_map(kernel: &[usize], values: &[f64], caption: &str) -> String {
    let columns = kernel.last().copied().unwrap_or(1).max(1);
    let rows = values.len().div_ceil(columns);
    let side = match columns.max(rows) {
        ..=7 => 40.0,
        8..=15 => 18.0,
        _ => 9.0,
    };
    let (width, height) = (columns as f64 * side, rows as f64 * side);
    let mut svg = format!(
        "<svg class=\"heat\" role=\"img\" aria-label=\"{caption}\" width=\"{width}\" \
         height=\"{height}\" viewBox=\"0 0 {width} {height}\">"
    );
    for (at, &value) in values.iter().enumerate() {
        let (x, y) = ((at % columns) as f64 * side, (at / columns) as f64 * side);
        put!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" \
             fill-opacity=\"{value:.2}\"/>"
        );
        if columns.max(rows) <= 7 {
            let class = if value > 0.55 { " class=\"o\"" } else { "" };
            put!(
                svg,
                "<text x=\"{}\" y=\"{}\"{class}>{value:.3}</text>",
                x + side / 2.0,
                y + side / 2.0 + 4.0
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

/// Smallest to largest, quartiles and median per row, on one logarithmic scale.
fn spreads(rows: &[(&str, &Spread)]) -> String {
    const LEFT: f64 = 56.0;
    const WIDTH: f64 = 220.0;
    const ROW: f64 = 26.0;
    let spreads = || rows.iter().map(|(_, spread)| *spread).filter(|spread| spread.smallest > 0.0);
    let low = spreads().map(|spread| spread.smallest).fold(f64::INFINITY, f64::min).log10().floor();
    let high = spreads().map(|spread| spread.largest).fold(0.0, f64::max).log10().ceil();
    if !(low.is_finite() && high.is_finite()) {
        return String::new();
    }
    let decades = (high - low).max(1.0);
    let place = |value: f64| LEFT + (value.log10() - low) / decades * WIDTH;
    let height = rows.len() as f64 * ROW + 18.0;
    let mut svg = format!(
        "<figure><svg class=\"spread\" role=\"img\" aria-label=\"largest weight per output channel\" \
         width=\"350\" height=\"{height}\" viewBox=\"0 0 350 {height}\">"
    );
    let step = (decades / 5.0).ceil();
    let ticks = (0..=(decades / step) as i64).map(|tick| tick as f64 * step);
    for decade in ticks {
        let x = LEFT + decade / decades * WIDTH;
        let bottom = height - 16.0;
        put!(
            svg,
            "<line class=\"g\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{bottom}\"/>\
             <text class=\"s\" x=\"{x:.1}\" y=\"{}\">{}</text>",
            height - 4.0,
            power_of_ten(low + decade)
        );
    }
    for (row, (name, spread)) in (0..).zip(rows) {
        let middle = f64::from(row) * ROW + ROW / 2.0;
        put!(svg, "<text x=\"0\" y=\"{}\">{name}</text>", middle + 4.0);
        if spread.smallest <= 0.0 {
            continue;
        }
        let [a, b, c, d, e] = [
            spread.smallest,
            spread.lower_quartile,
            spread.median,
            spread.upper_quartile,
            spread.largest,
        ]
        .map(place);
        let ratio = spread.ratio.map_or_else(String::new, |ratio| format!("{ratio:.1}×"));
        put!(
            svg,
            "<line x1=\"{a:.1}\" x2=\"{e:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
             <rect x=\"{b:.1}\" y=\"{}\" width=\"{:.1}\" height=\"12\"/>\
             <line class=\"m\" x1=\"{c:.1}\" x2=\"{c:.1}\" y1=\"{}\" y2=\"{}\"/>\
             <text x=\"{}\" y=\"{}\">{ratio}</text>",
            middle - 6.0,
            (d - b).max(1.0),
            middle - 7.0,
            middle + 7.0,
            LEFT + WIDTH + 14.0,
            middle + 4.0
        );
    }
    svg.push_str("</svg>");
    put!(
        svg,
        "<figcaption>max |w| per output channel: smallest, quartiles, median, largest; at the right \
         largest ÷ median. The largest: {} → {}.</figcaption></figure>",
        rows.iter().rev().nth(1).map_or_else(String::new, |(_, before)| small(before.largest)),
        rows.last().map_or_else(String::new, |(_, after)| small(after.largest))
    );
    svg
}

fn power_of_ten(exponent: f64) -> String {
    match exponent {
        -3.0..=3.0 => format!("{}", 10f64.powf(exponent)),
        _ => format!("1e{exponent}"),
    }
}

const BOX: (f64, f64) = (84.0, 26.0);
const LANE: f64 = 38.0;
const STEP: f64 = 102.0;

/// What stands in a lane: a box or, at its end, nothing.
struct Lanes {
    svg: String,
    middle: f64,
}

impl Lanes {
    fn block(&mut self, x: f64, y: f64, width: f64, text: &str) {
        let is_kernel =
            !matches!(text, "norm" | "scale" | "identity" | "…") && !text.starts_with('`');
        let (shape, ink) = if is_kernel { (" class=\"k\"", " class=\"o\"") } else { ("", "") };
        let most = (width / 7.0) as usize;
        let short: String = match text.chars().count() > most {
            true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
            false => text.to_owned(),
        };
        put!(
            self.svg,
            "<rect{shape} x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"{}\" rx=\"3\"/>\
             <text{ink} x=\"{}\" y=\"{}\">{}</text>",
            y - BOX.1 / 2.0,
            BOX.1,
            x + width / 2.0,
            y + 4.0,
            shown(&short)
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64)) {
        let bend = from.0 + (to.0 - from.0) / 2.0;
        put!(
            self.svg,
            "<path d=\"M{} {}C{bend} {},{bend} {},{} {}\"/>",
            from.0,
            from.1,
            from.1,
            to.1,
            to.0,
            to.1
        );
    }

    /// Lanes from a dot at `x` to their sum, which is not drawn of one; returns its end.
    fn lanes(&mut self, x: f64, lanes: &[Vec<Arc<str>>], width: f64) -> f64 {
        let longest = lanes.iter().map(Vec::len).max().unwrap_or(0);
        let end = x + 24.0 + longest as f64 * (width + STEP - BOX.0);
        let top = self.middle - (lanes.len().max(1) - 1) as f64 * LANE / 2.0;
        for (lane, steps) in (0..).zip(lanes) {
            let y = top + f64::from(lane) * LANE;
            self.line((x, self.middle), (x + 24.0, y));
            let mut at = x + 24.0;
            for step in steps {
                self.block(at, y, width, step);
                self.line((at + width, y), (at + width + STEP - BOX.0, y));
                at += width + STEP - BOX.0;
            }
            self.line((at, y), (end, y));
            self.line((end, y), (end + 24.0, self.middle));
        }
        if lanes.len() > 1 {
            put!(
                self.svg,
                "<circle cx=\"{}\" cy=\"{}\" r=\"9\"/><text x=\"{}\" y=\"{}\">+</text>",
                end + 33.0,
                self.middle,
                end + 33.0,
                self.middle + 4.0
            );
            end + 42.0
        } else {
            end + 24.0
        }
    }
}

/// The block before and after.
fn drawing(block: &BlockReport) -> String {
    let cut = |steps: &Vec<Arc<str>>| -> Vec<Arc<str>> {
        let more = (steps.len() > STEPS).then(|| "…".into());
        steps.iter().take(STEPS).cloned().chain(more).collect()
    };
    let all = &block.drawing.branches;
    let mut before: Vec<Vec<Arc<str>>> = all.iter().take(BRANCHES).map(cut).collect();
    if all.len() > BRANCHES {
        before.push(vec![format!("{} more", all.len() - BRANCHES).into()]);
    }
    let convolution = |shape: &Shape| -> Vec<Arc<str>> {
        let words = self::shape(shape);
        vec![words.split_once(',').map_or(words.as_str(), |(size, _)| size).into()]
    };
    let mut after: Vec<Vec<Arc<str>>> =
        block.geometry.iter().take(BRANCHES).map(convolution).collect();
    let is_plain = |branch: &&Vec<Arc<str>>| branch.iter().any(|step| step.starts_with('`'));
    after.extend(all.iter().filter(is_plain).take(BRANCHES).cloned());
    let height = before.len().max(after.len()).max(1) as f64 * LANE + 6.0;
    let mut lanes = Lanes { svg: String::new(), middle: height / 2.0 };
    let mut x = lanes.lanes(8.0, &before, BOX.0);
    for step in block.drawing.after.iter().take(STEPS) {
        lanes.line((x, lanes.middle), (x + 16.0, lanes.middle));
        lanes.block(x + 16.0, lanes.middle, BOX.0, step);
        x += 16.0 + BOX.0;
    }
    lanes.line((x, lanes.middle), (x + 16.0, lanes.middle));
    put!(lanes.svg, "<text class=\"big\" x=\"{}\" y=\"{}\">⇒</text>", x + 48.0, lanes.middle + 7.0);
    let end = lanes.lanes(x + 80.0, &after, 110.0);
    lanes.line((end, lanes.middle), (end + 16.0, lanes.middle));
    let width = end + 24.0;
    format!(
        "<svg class=\"draw\" role=\"img\" aria-label=\"{} becomes one convolution\" width=\"{width}\" \
         height=\"{height}\" viewBox=\"0 0 {width} {height}\">{}</svg>",
        shown(&block.branches),
        lanes.svg
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affine::Magnitude;
    use crate::plan::Drawing;
    use crate::report::BlockCost;

    #[test]
    fn names_cannot_become_markup_nor_turn_the_page() {
        for (name, expected) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload='x'", "&quot; onload=&#39;x&#39;"),
            ("a\u{202e}b\u{1b}[2J", "a\\u{202e}b\\u{1b}[2J"),
            ("layer1.0", "layer1.0"),
        ] {
            assert_eq!(shown(name), expected);
        }
        let long = shown(&"x".repeat(CHARACTERS + 5));
        assert!(long.ends_with("… (5 more)") && long.len() < CHARACTERS + 20);
    }

    /// Many blocks, long names, large kernels: the page stays one that browsers open.
    #[test]
    fn a_large_report_is_cut_and_says_so() {
        let name = "<".repeat(10_000);
        let spread = Spread { smallest: 1.0, largest: 9.0, ratio: Some(9.0), ..Spread::default() };
        let magnitude = |taps: usize| Magnitude {
            kernel: vec![taps, taps],
            by_position: vec![0.5; taps * taps],
            channels: spread,
        };
        let block = |number: usize| BlockReport {
            name: format!("{number}{name}"),
            branches: "3×3 + 1×3".to_owned(),
            drawing: Arc::new(Drawing { branches: vec![vec!["a<b".into(); 9]; 99], after: vec![] }),
            norms: 0,
            removed_nodes: vec!["node".to_owned(); 1000],
            new_nodes: Vec::new(),
            new_tensors: Vec::new(),
            reads: Vec::new(),
            output: String::new(),
            geometry: Vec::new(),
            positions: None,
            conditions: Vec::new(),
            before: BlockCost { nodes: 2, parameters: 2, multiply_adds_per_position: 2.0 },
            after: BlockCost { nodes: 1, parameters: 1, multiply_adds_per_position: 1.0 },
            proof: None,
            weights: Some(vec![Comparison {
                stored: spread,
                before: magnitude(31),
                after: magnitude(if number == 0 { 99 } else { 31 }),
            }]),
            hint: (number == 300).then(|| "look at this".to_owned()),
        };
        let mut report = Report::new("model.onnx".to_owned(), Mode::Verified);
        report.blocks = (0..400).map(block).collect();
        let page = page(&report);
        assert!(page.len() < 8 << 20, "{} bytes", page.len());
        for part in [
            "look at this",
            "Of 200 blocks: first those",
            "99×99 not drawn",
            "31×31 not drawn",
            "91 more",
            "and 960 more",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(page.contains("<details id=\"b300\">") && !page.contains("<details id=\"b200\">"));
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, expected) in [(0.0, "0"), (999.0, "999"), (1234567.0, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
    }
}
