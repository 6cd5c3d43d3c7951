//! Phrases that the summary, the page and the line for each model have in common.
//!
//! Knows the report's data; does not know where a phrase is shown or how it is escaped there.

use std::collections::BTreeSet;

use crate::affine::times;
use crate::report::json::UNPROVED;
use crate::report::{
    Agreement, BlockReport, Change, Mode, Notes, OperatorChange, Report, Shape, Size,
};

/// Upper bound on the number of places that are named in one line.
const NAMED: usize = 3;

/// Returns a count and its noun: `1 block`, `3 blocks`.
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Returns how near two things are: `within 2.1e-7`, or `exactly`.
pub(crate) fn within(error: f64) -> String {
    if error == 0.0 { "exactly".to_owned() } else { format!("within {error:.1e}") }
}

/// Joins several things: `a`, `a and b`, `a, b and c`.
pub(crate) fn in_a_row(things: &[String]) -> String {
    match things.split_last() {
        Some((last, before @ [_, ..])) => format!("{} and {last}", before.join(", ")),
        _ => things.concat(),
    }
}

/// Formats a large number with three digits and a prefix, `12.9 k`, and a small one in full.
pub fn amount(number: f64) -> String {
    /// Below this, numbers have at most four digits and need no prefix.
    const SMALL: f64 = 10_000.0;
    if number < SMALL {
        return number.round().to_string();
    }
    let mut scaled = number;
    let mut prefix = "";
    for next in ["k", "M", "G", "T", "P"] {
        // A number that would be rounded to 1000 takes the next prefix.
        if scaled < 999.5 {
            break;
        }
        (scaled, prefix) = (scaled / 1000.0, next);
    }
    let decimals = match scaled {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$} {prefix}")
}

/// Formats a number of bytes: `812 B`, `75.9 MB`.
pub(crate) fn bytes(count: usize) -> String {
    let amount = amount(count as f64);
    if amount.contains(' ') { format!("{amount}B") } else { format!("{amount} B") }
}

/// Returns by how much a quantity grew or shrank, in brackets: ` (−38 %)`; empty if it did
/// neither.
pub(crate) fn change_in_percent(before: f64, after: f64) -> String {
    let change = (after / before - 1.0) * 100.0;
    match format!("{change:+.0}").as_str() {
        "+0" | "-0" => String::new(),
        _ if !change.is_finite() => String::new(),
        percent => format!(" ({} %)", percent.replace('-', "−")),
    }
}

/// Returns `text` in at most `most` characters. What does not fit is left out in the middle,
/// since the two ends of a name say more.
pub fn cut_in_the_middle(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let kept = most.saturating_sub(1);
    let first = kept.div_ceil(2);
    let last = kept.saturating_sub(first);
    let beginning = text.chars().take(first);
    let end = text.chars().skip(count.saturating_sub(last));
    beginning.chain(['…']).chain(end).collect()
}

/// Returns how the numbers of nodes changed, `Conv 52 → 20, Add 40 → 8`; `None` if there are no
/// `changes`.
pub(crate) fn operators(changes: &[OperatorChange]) -> Option<String> {
    let said = |change: &OperatorChange| {
        format!("{} {} → {}", change.operator, change.before, change.after)
    };
    (!changes.is_empty()).then(|| changes.iter().map(said).collect::<Vec<_>>().join(", "))
}

/// Returns how many blocks were, or would be, fused: `3 blocks fused`.
pub(crate) fn blocks_fused(report: &Report) -> String {
    let blocks = counted(report.blocks.len(), "block");
    format!("{blocks} {}fused", would_be(report.mode))
}

/// Returns what is said of a model in which no block was, or would be, fused.
pub fn nothing_fused(report: &Report) -> String {
    let unproved = report.near_misses.iter().filter(|miss| miss.kind == UNPROVED).count();
    match unproved {
        // A file that changes in another way (nodes converted, channels scaled) only has no
        // block.
        0 if report.is_unchanged() => "nothing to fuse".to_owned(),
        0 => "no block to fuse".to_owned(),
        _ => format!("no block was fused, {} could not be proved", counted(unproved, "block")),
    }
}

/// Returns the words before a participle for something that is not done yet: `would be `.
pub(crate) fn would_be(mode: Mode) -> &'static str {
    if mode == Mode::Look { "would be " } else { "" }
}

/// Returns how the number of nodes of the whole model changes: `34 → 13 nodes`.
pub fn nodes_change(sizes: &Change<Size>) -> String {
    let [before, after] = [sizes.before, sizes.after].map(|size| size.nodes.unwrap_or_default());
    format!("{before} → {after} nodes")
}

/// Says how many graph inputs were removed; `None` if none were.
pub(crate) fn removed_inputs(notes: &Notes) -> Option<String> {
    let count = notes.removed_inputs;
    let inputs = counted(count, "graph input");
    (count > 0).then(|| format!("removed {inputs} that only named folded weights"))
}

/// Returns the first of several names, with an ellipsis if there are more.
pub(crate) fn first_names(names: &[&str]) -> String {
    let (first, others) = names.split_at(names.len().min(NAMED));
    let more = if others.is_empty() { "" } else { ", …" };
    format!("{}{more}", first.join(", "))
}

/// Says which fixed sizes may help where sizes are open; `None` if no such sizes are known.
pub(crate) fn open_sizes(notes: &Notes) -> Option<String> {
    let told: Vec<&str> = notes.open_sizes.iter().map(|shape| shape.told.as_str()).collect();
    (!told.is_empty()).then(|| format!("fixed sizes may help: {}", told.join(" and ")))
}

/// Warns that several nodes have the same name; `None` if none have.
pub(crate) fn repeated_names(notes: &Notes) -> Option<String> {
    let names: Vec<&str> = notes.repeated_names.iter().map(String::as_str).collect();
    let first = first_names(&names);
    let warning =
        || format!("several nodes share a name ({first}): ONNX Runtime refuses such a file");
    (!names.is_empty()).then(warning)
}

/// Says what the run of both models showed, as a sentence without its full stop: how near the
/// outputs are, on inputs of which shapes, and what else limits the comparison.
pub(crate) fn agreement(agreement: &Agreement) -> String {
    let (steps, bridges, flat) = (flipped(agreement), bridged(agreement), flat(agreement));
    let widened = agreement.widened.then(|| "bfloat16 was computed in float32".to_owned());
    let said = std::iter::once(outputs(agreement)).chain(steps).chain(bridges).chain(flat);
    let said = said.chain(widened);
    said.collect::<Vec<String>>().join("; ")
}

fn outputs(agreement: &Agreement) -> String {
    let worst = within(agreement.largest_error());
    let outputs = counted(agreement.errors.len(), "output");
    let said = match (agreement.errors.len(), agreement.in_pieces) {
        (0, _) => "both models make all outputs by the same nodes".to_owned(),
        (_, Some(_)) => format!(
            "{outputs} of the whole model: compared piece by piece from equal tensors, all changed \
             parts agree {worst}"
        ),
        (1, None) => format!("{outputs} of the whole model agrees {worst}"),
        (_, None) => format!("{outputs} of the whole model agree {worst}"),
    };
    let shapes = |run: &Vec<(String, Vec<usize>)>| {
        let shapes = run.iter().map(|(name, shape)| format!("`{name}` {}", sizes(shape)));
        shapes.collect::<Vec<String>>().join(", ")
    };
    let mut runs: Vec<String> = agreement.shapes.iter().map(shapes).collect();
    runs.dedup();
    runs.retain(|run| !run.is_empty());
    if runs.is_empty() { said } else { format!("{said} at {}", runs.join("; and at ")) }
}

fn flipped(agreement: &Agreement) -> Option<String> {
    let share = 100.0 * agreement.flipped;
    (share > 0.0).then(|| {
        format!("{share:.2} % of the elements behind steps fall on the other side of the step")
    })
}

fn bridged(agreement: &Agreement) -> Option<String> {
    let first = agreement.bridged.first()?;
    let (all, count) = (agreement.nodes, agreement.bridged.len());
    let (ran, nodes) = (all.saturating_sub(count), counted(count, "node"));
    Some(format!(
        "{ran} of {all} nodes ran: behind {nodes} that tract cannot run (`{first}`) both models go \
         on from equal tensors"
    ))
}

fn flat(agreement: &Agreement) -> Option<String> {
    let first = agreement.flat.first()?;
    let (outputs, before) = (counted(agreement.flat.len(), "output"), within(agreement.before));
    Some(format!(
        "the values of {outputs} (`{first}`) vary little or not at all; the tensors before agree \
         {before}"
    ))
}

/// Formats a shape, `1×3×64×64`, or says that it is a scalar's.
fn sizes(shape: &[usize]) -> String {
    if shape.is_empty() { "(a scalar)".to_owned() } else { times(shape) }
}

/// Returns the branches of a block and the number of its batch norms:
/// `3×3 + 1×3, 2 batch norms`.
pub(crate) fn branches_and_norms(block: &BlockReport) -> String {
    if block.norms == 0 {
        return block.branches.clone();
    }
    format!("{}, {}", block.branches, counted(block.norms, "batch norm"))
}

/// Names the kernel of a convolution: `3×3`, `transposed 4×4`, or `matrix` for a matrix product.
pub(crate) fn kernel(shape: &Shape) -> String {
    let sizes = times(&shape.kernel);
    if shape.kernel.is_empty() {
        "matrix".to_owned()
    } else if shape.transposed {
        format!("transposed {sizes}")
    } else {
        sizes
    }
}

/// Describes a convolution by its kernel, its channels, and each attribute that is not the
/// default.
pub(crate) fn convolution(shape: &Shape) -> String {
    let channels = format!("{} → {} channels", shape.inputs, shape.outputs);
    let groups =
        if shape.groups > 1 { format!(" in {} groups", shape.groups) } else { String::new() };
    let mut parts = vec![kernel(shape), format!("{channels}{groups}")];
    for (what, numbers) in [("stride", &shape.strides), ("dilation", &shape.dilations)] {
        if numbers.iter().any(|&number| number != 1) {
            parts.push(format!("{what} {}", times(numbers)));
        }
    }
    if shape.pads.iter().flatten().any(|&pad| pad != 0) {
        let pads = shape.pads.iter().map(|[begin, end]| format!("{begin}…{end}"));
        let pads = pads.collect::<Vec<_>>().join(" × ");
        let borders: BTreeSet<&str> =
            shape.borders.iter().copied().filter(|&border| border != "zero").collect();
        let borders: String = borders.iter().map(|border| format!(" ({border})")).collect();
        parts.push(format!("pads {pads}{borders}"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_several_things_follows_an_and() {
        for (things, expected) in [
            (&["1 sum"][..], "1 sum"),
            (&["1 sum", "2 norms"], "1 sum and 2 norms"),
            (&["1 node", "1 sum", "2 norms"], "1 node, 1 sum and 2 norms"),
        ] {
            let things: Vec<String> = things.iter().map(|&thing| thing.to_owned()).collect();
            assert_eq!(in_a_row(&things), expected);
        }
    }

    #[test]
    fn a_convolution_is_said_with_what_is_unusual() {
        let usual = Shape {
            kernel: vec![3, 3],
            strides: vec![1, 1],
            dilations: vec![1, 1],
            pads: vec![[0, 0], [0, 0]],
            borders: vec!["zero", "zero"],
            groups: 1,
            inputs: 8,
            outputs: 16,
            transposed: false,
        };
        let unusual = Shape {
            strides: vec![2, 1],
            dilations: vec![1, 3],
            pads: vec![[1, 1], [0, -2]],
            borders: vec!["reflect", "zero"],
            groups: 4,
            transposed: true,
            ..usual.clone()
        };
        let matrix = Shape {
            kernel: vec![],
            strides: vec![],
            dilations: vec![],
            pads: vec![],
            borders: vec![],
            ..usual.clone()
        };
        for (shape, expected) in [
            (usual, "3×3, 8 → 16 channels"),
            (matrix, "matrix, 8 → 16 channels"),
            (
                unusual,
                "transposed 3×3, 8 → 16 channels in 4 groups, stride 2×1, dilation 1×3, \
                 pads 1…1 × 0…-2 (reflect)",
            ),
        ] {
            assert_eq!(convolution(&shape), expected);
        }
    }

    #[test]
    fn amounts_have_three_digits() {
        for (number, expected) in [
            (0.0, "0"),
            (9_999.0, "9999"),
            (10_000.0, "10.0 k"),
            (12_914.0, "12.9 k"),
            (999_499.0, "999 k"),
            (999_500.0, "1.00 M"),
            (1.819e9, "1.82 G"),
        ] {
            assert_eq!(amount(number), expected);
        }
        assert_eq!([812, 75_900_000].map(bytes), ["812 B", "75.9 MB"]);
    }

    #[test]
    fn changes_are_in_percent() {
        for (before, after, expected) in [
            (100.0, 62.0, " (−38 %)"),
            (100.0, 103.0, " (+3 %)"),
            (100.0, 99.9, ""),
            (100.0, 100.1, ""),
            (0.0, 0.0, ""),
            (0.0, 1.0, ""),
        ] {
            assert_eq!(change_in_percent(before, after), expected, "{before} {after}");
        }
    }

    #[test]
    fn what_is_cut_is_in_the_middle() {
        for (text, most, expected) in [
            ("畳み込み", 4, "畳み込み"),
            ("layer1.0.conv1", 9, "laye…onv1"),
            ("layer1.0.conv1", 8, "laye…nv1"),
            ("layer1", 1, "…"),
        ] {
            assert_eq!(cut_in_the_middle(text, most), expected);
        }
    }

    #[test]
    fn one_has_no_plural() {
        for (count, expected) in [(0, "0 blocks"), (1, "1 block"), (2, "2 blocks")] {
            assert_eq!(counted(count, "block"), expected);
        }
    }
}
