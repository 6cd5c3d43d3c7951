//! Checks the tables of `docs/limits.md`: every reason in the code's lists, what it means and what
//! helps. A new reason has no row, and the test says so; `UPDATE_EXPECT=1` writes the tables.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use acb_fuse::refusal::help::option;

use crate::support::results;

/// The enums of reasons, and the files that hold them.
const LISTS: &[(&str, &str)] = &[
    ("Reason", "src/refusal.rs"),
    ("NotLinear", "src/refusal.rs"),
    ("Refusal", "src/affine/refusal.rs"),
    ("Neighbour", "src/refusal.rs"),
    ("Unfit", "src/refusal.rs"),
];

/// Reasons that wrap one of another list, and have no row.
const CARRIERS: &[(&str, &str)] = &[
    ("Reason", "Geometry"),
    ("Reason", "NotLinear"),
    ("Reason", "Unfit"),
    ("NotLinear", "Refused"),
];

/// The list, the reason, and what it means; what helps is in the code.
const ROWS: &[(&str, &str, &str)] = &[
    (
        "Reason",
        "DifferentInputs",
        "Parallel branches are one convolution only if all read the same tensor.",
    ),
    (
        "Reason",
        "Dearer",
        "The rewrite would be right, but would make the model larger: a linear bottleneck, for example.",
    ),
    (
        "Reason",
        "OutOfRange",
        "The branches agree only for some input sizes, and the file allows others.",
    ),
    (
        "Reason",
        "ReadElsewhere",
        "Another node needs the branch's result, so the branch would have to stay beside the kernel.",
    ),
    (
        "Reason",
        "SharedKernel",
        "Several convolutions use one kernel, and each has a norm or scale of its own.",
    ),
    (
        "Reason",
        "KeptApart",
        "In one kernel, int8 weights would be less exact (`--keep-identity`, `--for int8`), and the branch cannot be written beside it.",
    ),
    ("Reason", "Limit", "A bound on how far regions are searched was met (second table)."),
    (
        "Reason",
        "Unproved",
        "The proof of the block could not be made: the engine cannot run it, or a limit of verification was met.",
    ),
    (
        "Reason",
        "Between",
        "A norm, scale or shift has no convolution beside it that can take it; each side is named (see below).",
    ),
    ("Reason", "Call", "A local function holds convolutions or norms and cannot be inlined."),
    (
        "Reason",
        "TrainingInfo",
        "The file describes how the model is trained, and refers to its tensors by their names, so the whole model stays as it is.",
    ),
    ("Reason", "Skipped", "The caller asked for it."),
    (
        "NotLinear",
        "Operator",
        "The operator is not linear: a ReLU, a product of two tensors, a maximum.",
    ),
    (
        "NotLinear",
        "Foreign",
        "The operator is of another domain, so its name says nothing of what it does.",
    ),
    (
        "NotLinear",
        "Malformed",
        "The node contradicts the definition of its operator (second table).",
    ),
    ("NotLinear", "Unrepresentable", "The node is affine, but is no convolution (second table)."),
    (
        "NotLinear",
        "Training",
        "The node computes statistics of its batch, or drops at random, and is not converted (second table).",
    ),
    ("NotLinear", "KeptTraining", "The caller asked for it."),
    ("NotLinear", "Untrained", "The stored statistics look like placeholders."),
    ("NotLinear", "Limit", "A bound on what is followed or tried was met (second table)."),
    (
        "NotLinear",
        "Beyond",
        "A weight is the result of a computation on constants that is too large to carry out.",
    ),
    (
        "NotLinear",
        "NotEvaluated",
        "A weight is the result of an operator that is not evaluated here.",
    ),
    ("NotLinear", "NotConstant", "A weight or statistic is computed at run time."),
    (
        "NotLinear",
        "Quantized",
        "A weight is stored in few bits, and its rounding is part of the model.",
    ),
    (
        "NotLinear",
        "Overridable",
        "A weight is also a graph input, and the caller asked to keep such weights.",
    ),
    ("NotLinear", "Open", "Where a window lies depends on a size that the file leaves open."),
    (
        "NotLinear",
        "NotInferable",
        "A size on which the node depends cannot be inferred from the file.",
    ),
    (
        "NotLinear",
        "NotInferred",
        "A size on which the node depends is not inferred, because a limit was met.",
    ),
    (
        "NotLinear",
        "NotPerChannel",
        "A constant varies along other axes than the channels, such as one of shape [C] in NCHW, which lies along the width.",
    ),
    (
        "NotLinear",
        "WrongLength",
        "A vector of a norm or bias does not have one number per channel.",
    ),
    ("Refusal", "Strides", "The branches have different strides."),
    ("Refusal", "Counts", "The branches make different numbers of outputs from one input."),
    (
        "Refusal",
        "Unplaced",
        "With SAME padding and a stride, windows are in other places for odd sizes than for even ones.",
    ),
    ("Refusal", "Channels", "One branch has a single channel that is broadcast onto the others."),
    (
        "Refusal",
        "Border",
        "A padded convolution sees zeros where the operation before it gives something else.",
    ),
    (
        "Refusal",
        "BiasAtBorder",
        "The same, where the operation before it gives its bias: `Conv 1×1 + bias → Conv 3×3, pad 1`.",
    ),
    (
        "Refusal",
        "Borders",
        "One branch pads with zeros, the other with reflections or repeated edges.",
    ),
    (
        "Refusal",
        "Axes",
        "One branch runs along other axes: NHWC against NCHW, or height and width exchanged.",
    ),
    (
        "Refusal",
        "Ranks",
        "The summands have different numbers of dimensions, so their channels are on different axes.",
    ),
    (
        "Refusal",
        "View",
        "A Reshape, Flatten or Transpose between the two mixes channels with other axes.",
    ),
    ("Refusal", "Kinds", "A convolution and a transposed one are added."),
    (
        "Refusal",
        "Outgrown",
        "output_padding or output_shape lets the output of a transposed convolution end beyond its windows.",
    ),
    (
        "Refusal",
        "Vanishes",
        "A scale and a shift stand before a padded kernel, and the scale of a channel is zero, so that the shift cannot be divided by it.",
    ),
    (
        "Refusal",
        "Repeated",
        "Channels are picked and shifted before a padded kernel, one of them twice and by two numbers.",
    ),
    ("Refusal", "Weights", "Kernels in a row would be multiplied out into one that is too large."),
    ("Refusal", "Products", "Multiplying kernels in a row out would take too long."),
    ("Refusal", "TooLarge", "A window has sizes that no network has."),
    (
        "Neighbour",
        "Input",
        "The norm reads an input of the graph, and no convolution reads the norm.",
    ),
    (
        "Neighbour",
        "Output",
        "The norm makes an output of the graph, and no convolution stands before it.",
    ),
    ("Neighbour", "Operator", "Another operator stands beside the norm."),
    (
        "Neighbour",
        "Sum",
        "A sum stands before the norm, and not all of its summands come from convolutions.",
    ),
    (
        "Neighbour",
        "SharedSum",
        "A sum stands before the norm, and another node needs that sum without the norm.",
    ),
    ("Neighbour", "Summand", "The norm is one summand of a sum that is no block."),
    ("Neighbour", "Readers", "Several nodes read the norm, and each would need a copy."),
    (
        "Neighbour",
        "Refusing",
        "A convolution stands there and cannot take the norm, for a reason of the list above, given in brackets.",
    ),
    (
        "Neighbour",
        "Shared",
        "A convolution stands there, and another node needs its result without the norm.",
    ),
    ("Neighbour", "Dear", "A convolution could take the norm, but would not be cheaper with it."),
    ("Unfit", "NotFinite", "A fused weight overflows the model's type."),
    (
        "Unfit",
        "Imprecise",
        "All fused weights of a filter are below the type's smallest normal number and would be rounded away.",
    ),
    (
        "Unfit",
        "Disproportionate",
        "A scale and a shift stand before a padded kernel; divided by the scale, the shift would be larger than 1024, or too small for the type.",
    ),
    (
        "Unfit",
        "Border",
        "The border of a tensor is filled with values that are close to what the nodes inside it compute, but not the same.",
    ),
];

/// Returns the names of an enum's variants, and their messages.
fn variants(list: &str, path: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let begin = text.find(&format!("pub enum {list} {{")).unwrap();
    let body = &text[begin..];
    let body = &body[..body.find("\n}\n").unwrap()];
    let mut found = Vec::new();
    for part in body.split("#[error(").skip(1) {
        let (error, rest) = part.split_once(")]").unwrap();
        // A `)]` in the message ends it too early, which leaves a quote open.
        let (error, rest) = match error.matches('"').count() % 2 {
            0 => (error.to_owned(), rest),
            _ => {
                let (more, rest) = rest.split_once(")]").unwrap();
                (format!("{error})]{more}"), rest)
            }
        };
        let name = rest.trim_start();
        let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
        found.push((name, message(&error)));
    }
    found
}

/// Returns the text of a literal, with dots for its placeholders and its lines joined.
fn message(literal: &str) -> String {
    let Some((_, rest)) = literal.split_once('"') else { return String::new() };
    let text = rest.rsplit_once('"').map_or(rest, |(text, _)| text);
    // The arguments follow the message.
    let text = text.split("\",\n").next().unwrap();
    let text: Vec<&str> = text.split("\\\n").map(str::trim_start).collect();
    let mut shown = String::new();
    let mut depth = 0;
    for c in text.concat().chars() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                shown.push('…');
            }
            _ if depth == 0 => shown.push(c),
            _ => {}
        }
    }
    shown.replace('|', "\\|")
}

/// Returns what helps against a reason, in the flags of the command line.
fn helps(list: &str, variant: &str) -> String {
    let text = fs::read_to_string("src/refusal/help.rs").unwrap();
    let name = format!("{list}::{variant}");
    let is_longer = |rest: &str| rest.starts_with(char::is_alphanumeric);
    let arms = text.match_indices(&name).map(|(at, name)| &text[at + name.len()..]);
    let mut arms = arms.filter(|rest| !is_longer(rest));
    let arm = arms.next().unwrap_or_else(|| panic!("nothing is said of what helps {name}"));
    let (_, arm) = arm.split_once("=>").unwrap();
    let arm = arm.trim_start();
    if arm.starts_with("of_") {
        return "See that reason.".to_owned();
    }
    let said = arm.split('"').nth(1).unwrap().to_owned();
    match option(&said) {
        Some(option) => {
            said.replace(&format!("`{option}"), &format!("`--{}", option.replace('_', "-")))
        }
        None => said,
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Returns the texts that are given to `constructor` where reasons are made: as literals, or by
/// a name that was bound to one before.
fn texts(constructor: &str) -> BTreeSet<String> {
    let mut paths = Vec::new();
    for folder in ["src/ops", "src/plan", "src/facts"] {
        sources(Path::new(folder), &mut paths);
    }
    let mut found = BTreeSet::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices(constructor) {
            let argument = text[at + constructor.len()..].trim_start();
            if let Some(rest) = argument.strip_prefix('"') {
                found.insert(message(&format!("\"{}\"", rest.split('"').next().unwrap())));
                continue;
            }
            let name: String =
                argument.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name == "_" || name.is_empty() {
                continue;
            }
            let binding = format!("let {name} =");
            // A name may be rebound to what is made of it: the last literal counts.
            let bindings = text[..at].rmatch_indices(&binding);
            let literal =
                bindings.filter_map(|(bound, _)| text[bound..at].split('"').nth(1)).next();
            let literal = literal.unwrap_or_else(|| panic!("{}: what is {name}?", path.display()));
            found.insert(message(&format!("\"{literal}\"")));
        }
    }
    found
}

/// Returns a kind of reason in a reader's words.
fn word(kind: &str) -> &'static str {
    match kind {
        "Malformed" => "against the operator's definition",
        "Unrepresentable" => "no convolution",
        "Training" => "training mode",
        "Limit" => "a limit",
        other => panic!("what is {other}?"),
    }
}

#[test]
fn every_reason_is_explained() {
    let mut tables = String::new();
    let mut missing = Vec::new();
    let mut explained = BTreeSet::new();
    writeln!(tables, "| the report says | it means | what helps |\n| --- | --- | --- |").unwrap();
    for (list, path) in LISTS {
        for (variant, says) in variants(list, path) {
            let key = (*list, variant.as_str());
            if CARRIERS.contains(&key) {
                continue;
            }
            let row = ROWS.iter().find(|row| (row.0, row.1) == key);
            let Some((of, name, means)) = row else {
                missing.push(format!("{list}::{variant}: {says}"));
                continue;
            };
            explained.insert((*of, *name));
            let helps = helps(list, &variant);
            // The texts of these are given where they are made.
            let says = match (says.as_str(), variant.as_str()) {
                ("…", "Unproved" | "Call") => "(the words of the engine or the file)".to_owned(),
                ("…", "Operator") => "another operator".to_owned(),
                ("…", kind) => format!("({}: see below)", word(kind)),
                _ => says,
            };
            let says = if *list == "Neighbour" {
                format!("cannot be folded into a convolution: {says} precedes or follows it")
            } else {
                says
            };
            writeln!(tables, "| {says} | {means} | {helps} |").unwrap();
        }
    }
    assert!(missing.is_empty(), "docs/limits.md explains no\n{}", missing.join("\n"));
    let stale: Vec<_> =
        ROWS.iter().filter(|row| !explained.contains(&(row.0, row.1))).map(|row| row.1).collect();
    assert!(stale.is_empty(), "there is no such reason any more: {stale:?}");

    writeln!(tables, "\n| the report says | kind |\n| --- | --- |").unwrap();
    for (constructor, kind) in [
        ("NotLinear::Malformed(", "Malformed"),
        ("NotLinear::Unrepresentable(", "Unrepresentable"),
        ("NotLinear::Training(", "Training"),
        ("NotLinear::Limit(", "Limit"),
        ("Reason::Limit(", "Limit"),
    ] {
        let texts = texts(constructor);
        assert!(!texts.is_empty(), "{constructor}");
        for text in texts {
            writeln!(tables, "| {text} | {} |", word(kind)).unwrap();
        }
    }
    results::hold_in("docs/limits.md", &tables);
}
