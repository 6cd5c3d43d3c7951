//! Checks that what the documents link to, and the files that they name, are there, and that the
//! numbers that SECURITY.md promises are those of the code.

use std::fs;
use std::path::{Path, PathBuf};

fn documents() -> Vec<PathBuf> {
    let in_folder = |folder: &str| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "md"))
    };
    [".", "docs", "fixtures", "fuzz", "examples"].into_iter().flat_map(in_folder).collect()
}

/// Returns the targets of links, relative to the document.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.filter_map(|target| target.split('#').next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// Returns the files that are named in code, relative to the top folder.
fn files(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || "/_.-".contains(c);
    let words = text.split(move |c: char| !is_part(c)).map(|word| word.trim_end_matches('.'));
    let rooms = ["src/", "tests/", "benches/", "docs/", "examples/", "fuzz/", "fixtures/"];
    words.filter(move |word| {
        let is_file = [".rs", ".py", ".sh", ".md", ".toml", ".json", ".onnx", ".onnxtxt"];
        rooms.iter().any(|room| word.starts_with(room))
            && is_file.iter().any(|end| word.ends_with(end))
    })
}

#[test]
fn what_documents_name_is_there() {
    let mut dead = Vec::new();
    let (mut linked, mut named) = (0, 0);
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        for link in links(&text) {
            linked += 1;
            if !folder.join(link).exists() {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
        for file in files(&text) {
            named += 1;
            if !Path::new(file).exists() && !folder.join(file).exists() {
                dead.push(format!("{}: {file}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
    // Both counts change with every sentence; zero would mean that the search is broken.
    assert!(linked > 0 && named > 0);
}

/// Words of SECURITY.md with a number, and the file and the code that say the same.
const LIMITS: &[(&str, &str, &str)] = &[
    ("2²² elements, ", "src/facts/budget.rs", "MOST_FROM_NOTHING: i64 = 1 << 22;"),
    ("at most 2²⁶ each", "src/facts/budget.rs", "Estimate { elements: 1 << 26,"),
    ("four times that together", "src/facts/budget.rs", "TIMES: i64 = 4;"),
    (
        "assigned borders do (2³⁰, of one 2²⁷)",
        "src/facts/budget.rs",
        "MOST_MOVES: usize = 1 << 30;",
    ),
    ("sizes are inferred (2¹⁶)", "src/facts/shapes.rs", "MAX_NODES: usize = 1 << 16;"),
    ("the inputs of a run (2²⁸ elements", "src/verify/feeding.rs", "MOST: usize = 1 << 28;"),
    (
        "kernels that are multiplied out (2²⁵ weights each)",
        "src/affine/limits.rs",
        "MOST_WEIGHTS: f64 = (1 << 25) as f64;",
    ),
    ("sizes are followed (16)", "src/facts/shape_rules/asked.rs", "MAX_RANK: usize = 16;"),
    ("given to the engine (64)", "src/engine/dialect/ranks.rs", "MAX_RANK: usize = 64;"),
    ("a proof (2²⁵ elements", "src/verify/cone_shapes.rs", "MAX_ELEMENTS: usize = 1 << 25;"),
    ("8,192 nodes", "src/verify/cone.rs", "MAX_NODES: usize = 8192;"),
    ("32 remainders", "src/verify/small_trials.rs", "MOST_TRIALS: usize = 32;"),
    ("`ulimit -v` of 2.5 GB", "tests/it/tool/resources.rs", "LIMIT: &str = \"2621440\";"),
    ("with a quarter for what", "src/engine/memory.rs", "(bytes / 4).saturating_add(bytes)"),
    ("given up after 15 minutes", "src/engine/limits.rs", "Duration::from_secs(900)"),
    ("the second that its message", "src/cli/watchdog.rs", "Duration = Duration::from_secs(1);"),
    ("kills it at 40", "tests/it/files/writing.rs", "for step in 0..40 {"),
    ("31 kinds of wrong beliefs", "docs/results/hostile_input.md", "31 kinds of wrong beliefs"),
    ("the exit code is 6", "src/cli/exit.rs", "error if error.may_pass() => 6,"),
    ("may help is 6", "src/cli/exit.rs", "error if error.may_pass() => 6,"),
    ("or taken, is 8", "src/cli/exit.rs", "error if error.io().is_some() => 8,"),
    ("a name of no block) is 2", "src/cli/exit.rs", "| Error::NoSuchBlock { .. } => 2,"),
    ("exit code 7 and nothing", "src/cli/exit.rs", "| Error::NoMemory { .. } => 7,"),
    ("exit code 7, no temporary", "src/cli/exit.rs", "Exit { message, code: 7, "),
];

/// Returns exit codes and their meanings in a Rust list: lines such as `    (1, "a meaning"),`.
fn exit_codes(source: &str) -> Vec<(String, String)> {
    let list = source.split("pub const CODES").nth(1).unwrap().split("];").next().unwrap();
    let entries = list.lines().filter_map(|line| {
        let (code, meaning) =
            line.trim().strip_prefix('(')?.strip_suffix("),")?.split_once(", ")?;
        Some((code.replace("INTERRUPTED", "130"), meaning.trim_matches('"').to_owned()))
    });
    entries.collect()
}

/// `docs/command_line.md` has a row for every exit code, in the words of `--help`, and the tool
/// ends with no other code.
#[test]
fn exit_codes_are_those_of_the_code() {
    let source = fs::read_to_string("src/cli/exit.rs").unwrap();
    assert!(source.contains("INTERRUPTED: i32 = 130;"));
    let codes = exit_codes(&source);
    let page = fs::read_to_string("docs/command_line.md").unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| exit code |")).skip(2);
    let rows: Vec<(String, String)> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[1].to_owned(), cells[2].replace('`', ""))
        })
        .collect();
    assert_eq!(rows, codes);
    let product = source.split("#[cfg(test)]").next().unwrap();
    let ends = product.lines().filter_map(|line| {
        let (_, code) = line.split_once("=> ").or_else(|| line.split_once("code: "))?;
        let code: String = code.chars().take_while(char::is_ascii_digit).collect();
        (!code.is_empty()).then_some(code)
    });
    let mut ends: Vec<String> = ends.chain(["0", "1", "130"].map(str::to_owned)).collect();
    ends.sort_by_key(|code| code.parse::<u8>().unwrap());
    ends.dedup();
    assert_eq!(ends, codes.into_iter().map(|(code, _)| code).collect::<Vec<_>>());
}

/// Counts the numbers in a text, code left out: digits with what belongs to them.
fn numbers(text: &str) -> usize {
    let prose: String = text.split('`').step_by(2).collect();
    let is_number = |c: char| c.is_ascii_digit() || "⁰¹²³⁴⁵⁶⁷⁸⁹,.".contains(c);
    let words = prose.split(|c: char| !is_number(c) && !c.is_alphabetic());
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).count()
}

/// Every number in SECURITY.md is one of the code.
#[test]
fn limits_that_are_promised_are_those_of_the_code() {
    let page = fs::read_to_string("SECURITY.md").unwrap();
    let mut wrong = Vec::new();
    for (said, file, code) in LIMITS {
        if page.matches(said).count() != 1 {
            wrong.push(format!("SECURITY.md does not say once: {said}"));
        }
        if !fs::read_to_string(file).unwrap().contains(code) {
            wrong.push(format!("{file} does not say: {code}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let held: usize = LIMITS.iter().map(|(said, ..)| numbers(&said.replace('`', ""))).sum();
    assert_eq!(numbers(&page), held, "a number of SECURITY.md is in no row, or one went");
}
