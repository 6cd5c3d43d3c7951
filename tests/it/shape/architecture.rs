//! The structure of the source code: rooms use only the floors below them, each type name occurs
//! once, and files stay short enough to be read.
//!
//! `docs/architecture.md` describes the rooms, their floors and what they must not know.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use acb_fuse::facts::operators::operator;
use acb_fuse::ops::table::TABLE;

/// A room, and the rooms or files of the library that its code may use besides itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("numbers", &[]),
    ("affine", &["numbers"]),
    ("onnx", &["numbers"]),
    ("engine", &["numbers", "onnx", "setting"]),
    ("options", &["engine::tensors", "onnx::staged", "onnx::storage"]),
    ("facts", &["engine", "numbers", "onnx", "refusal", "setting"]),
    ("setting", &[]),
    ("refusal", &["affine", "onnx", "setting"]),
    ("ops", &["affine", "engine", "facts", "numbers", "onnx", "options", "refusal"]),
    ("emit", &["affine", "numbers", "onnx", "ops"]),
    (
        "plan",
        &[
            "affine",
            "emit",
            "facts",
            "numbers",
            "onnx::float",
            "onnx::graph",
            "onnx::ids",
            "onnx::liveness",
            "onnx::model",
            "onnx::names",
            "onnx::node",
            "onnx::proto",
            "ops",
            "options",
            "refusal",
        ],
    ),
    ("verify", &["engine", "facts", "numbers", "onnx", "options", "setting"]),
    ("equalize", &["emit::weights", "engine", "facts", "numbers", "onnx", "ops::scaling"]),
    ("report", &["affine", "onnx::place", "onnx::staged", "refusal", "setting", "verify::outcome"]),
    ("error", &["onnx", "setting"]),
    (
        "pipeline",
        &[
            "affine", "emit", "engine", "equalize", "error", "facts", "numbers", "onnx", "ops",
            "options", "plan", "refusal", "report", "setting", "verify",
        ],
    ),
];

/// Names that occur in these rooms only; the reason is in `docs/architecture.md`.
const NAMED_ONLY_IN: &[(&str, &[&str])] = &[
    ("tract_onnx", &["engine"]),
    ("serde", &["report"]),
    ("rayon", &["cli", "emit", "plan", "pipeline", "onnx", "verify"]),
    ("clap", &["cli", "main"]),
    ("indicatif", &["cli"]),
    ("ctrlc", &["cli", "main"]),
];

/// Rooms and files in which operators are named, and why. All other code asks an operator's row
/// for what is known of it.
const OPERATORS_ARE_NAMED_IN: &[(&str, &str)] = &[
    ("facts/operators", "the table of what is known of them"),
    ("facts/roles", "what one operator alone does to the tensors around it"),
    ("facts/folding", "a CastLike is evaluated as the Cast that it is"),
    ("ops", "what they mean"),
    ("emit", "the nodes that are written"),
    ("equalize/gate", "the nodes that round to 8 bits"),
    ("engine", "what tract reads otherwise than ONNX says; it lies below the table"),
    ("onnx/write", "the nodes that are written"),
    ("onnx/node", "how arithmetic broadcast before operator set 7; it lies below the table"),
    ("onnx/callees", "the nodes that make a call a near miss"),
    ("onnx/inline", "nodes that a call becomes"),
    ("onnx/training", "the nodes that have a mode; it lies below the table"),
    ("verify/border", "what a claim says of a border, in nodes"),
    ("verify/decided", "the nodes that stand for an If"),
    ("verify/pieces", "the one whose kernels are too large to be read at a time"),
    ("verify/nature", "what an operator does to a small difference: nothing else asks for that"),
    ("verify/steps", "where an operator jumps"),
];

const MOST_LINES: usize = 450;

struct Source {
    /// `ops/reader` for `src/ops/reader.rs`, `ops` for `src/ops/mod.rs`.
    path: String,
    text: String,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split('/').next().unwrap()
    }

    /// Returns the code, without its tests and comments.
    fn code(&self) -> String {
        let code = self.text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Returns the paths in the library that the code names, such as `onnx::graph::Graph`.
    fn uses(&self) -> Vec<String> {
        let code = self.code();
        let own = self.path.replace('/', "::");
        let parent = own.rsplit_once("::").map_or("", |(parent, _)| parent);
        let mut uses = Vec::new();
        for (keyword, base) in [("crate::", ""), ("self::", own.as_str()), ("super::", parent)] {
            for (at, _) in code.match_indices(keyword) {
                // In `super::super::x` the first `super` is enough: it leads to another room.
                if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                let rest = &code[at + keyword.len()..];
                let base = if base.is_empty() { String::new() } else { format!("{base}::") };
                uses.extend(paths(rest).into_iter().map(|path| format!("{base}{path}")));
            }
        }
        uses
    }
}

/// Returns the paths of a use tree: `a::{b, c::d}` are `a::b` and `a::c::d`.
fn paths(text: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let path: String = text.chars().take_while(|&c| is_path(c)).collect();
    let Some(tree) = text[path.len()..].strip_prefix('{') else { return vec![path] };
    let mut depth = 1;
    let mut parts = vec![String::new()];
    for c in tree.chars() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        match (depth, c) {
            (0, _) => break,
            (1, ',') => parts.push(String::new()),
            _ => parts.last_mut().unwrap().push(c),
        }
    }
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(paths).map(|part| format!("{path}{part}")).collect()
}

fn sources() -> Vec<Source> {
    fn within(folder: &Path, sources: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                within(&path, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix("src").unwrap().with_extension("");
                let name = name.to_str().unwrap();
                let name = name.strip_suffix("/mod").unwrap_or(name).to_owned();
                sources.push(Source { path: name, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    let mut sources = Vec::new();
    within(Path::new("src"), &mut sources);
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn library() -> Vec<Source> {
    let outside = ["cli", "lib", "main"];
    sources().into_iter().filter(|source| !outside.contains(&source.room())).collect()
}

fn starts_with(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn rooms_use_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for source in library() {
        let Some((room, allowed)) = MAY_USE.iter().find(|(room, _)| *room == source.room()) else {
            wrong.push(format!("{} is in no room", source.path));
            continue;
        };
        for used in source.uses() {
            let is_allowed = allowed.iter().chain([room]).any(|module| starts_with(&used, module));
            if !is_allowed {
                wrong.push(format!("{} uses {used}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Inside a room a file names another one by its path, so that the arrows can be seen; the
/// room's `mod.rs` may name all of them, and is named by none.
#[test]
fn no_files_use_each_other_in_a_circle() {
    let sources = library();
    let files: BTreeSet<String> =
        sources.iter().map(|source| source.path.replace('/', "::")).collect();
    // Returns the longest file path with which a path begins.
    let file_of = |path: &str| {
        let files = files.iter().filter(|file| starts_with(path, file));
        files.max_by_key(|file| file.len()).cloned()
    };
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in &sources {
        let own = source.path.replace('/', "::");
        let used = source.uses();
        let used = used.iter().filter(|used| starts_with(used, source.room()));
        let used = used.filter_map(|used| file_of(used)).filter(|used| *used != own);
        arrows.insert(own.clone(), used.collect());
    }
    let mut left = arrows.clone();
    loop {
        let ends: Vec<String> = left
            .iter()
            .filter(|(_, used)| used.iter().all(|used| !left.contains_key(used)))
            .map(|(file, _)| file.clone())
            .collect();
        if ends.is_empty() {
            break;
        }
        ends.iter().for_each(|end| drop(left.remove(end)));
    }
    let all: BTreeSet<String> = left.keys().cloned().collect();
    left.values_mut().for_each(|used| used.retain(|used| all.contains(used)));
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn names_stand_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, rooms) in NAMED_ONLY_IN {
            let code = source.code();
            let mut found = code.match_indices(name).filter(|(at, _)| {
                let before = code[..*at].chars().next_back();
                let after = code[at + name.len()..].chars().next();
                let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                !is_word(before) && !is_word(after)
            });
            if !rooms.contains(&source.room()) && found.next().is_some() {
                wrong.push(format!("{} names {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The library names no flag, shows no colours, and knows an exit code only as a number of the
/// caller that its report carries.
#[test]
fn the_library_knows_no_command_line() {
    const OTHER_TOOLS: &str = "onnx/sniff";
    const CARRY_THE_CODE: &[&str] = &["report", "report/html/verdict"];
    // `--` and a letter, where a word may begin.
    let has_flag = |text: &str| {
        text.match_indices("--").any(|(at, dashes)| {
            let before = text[..at].chars().next_back();
            let after = text[at + dashes.len()..].chars().next();
            before != Some('-') && after.is_some_and(|c| c.is_ascii_lowercase())
        })
    };
    let mut wrong = Vec::new();
    for source in library() {
        let code = source.code();
        if source.path != OTHER_TOOLS && has_flag(&code) {
            wrong.push(format!("{} names a flag", source.path));
        }
        if ["\\x1b", "\\u{1b}", "\\u{001b}", "\u{1b}"].iter().any(|escape| code.contains(escape)) {
            wrong.push(format!("{} steers a terminal", source.path));
        }
        if code.contains("exit_code") && !CARRY_THE_CODE.contains(&source.path.as_str()) {
            wrong.push(format!("{} names an exit code", source.path));
        }
    }
    let schema = fs::read_to_string("src/report/schema.json").unwrap();
    if has_flag(&schema) {
        wrong.push("the schema names a flag".to_owned());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn operators_are_named_where_they_belong() {
    let literals = |code: &str| -> BTreeSet<String> {
        let quoted = code.split('"').skip(1).step_by(2);
        quoted.map(str::to_owned).collect()
    };
    let sources = sources();
    let table = sources.iter().find(|source| source.path == "facts/operators").unwrap();
    let operators = literals(&table.code());
    // The literals there are the operators, all of them and nothing else.
    assert_eq!(operators.iter().find(|name| operator(name).is_none()), None);
    assert_eq!(TABLE.iter().map(|row| row.name).find(|&name| !operators.contains(name)), None);
    let mut wrong = Vec::new();
    for source in &sources {
        let is_allowed = OPERATORS_ARE_NAMED_IN
            .iter()
            .any(|(place, _)| source.path == *place || source.room() == *place);
        for line in source.code().lines().filter(|_| !is_allowed) {
            for name in literals(line).intersection(&operators) {
                wrong.push(format!("{} names {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_type_name_stands_once() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for line in source.text.lines() {
            let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
            let keyword = words.next().unwrap_or_default();
            if !matches!(keyword, "struct" | "enum" | "trait" | "type") {
                continue;
            }
            let name = words.next().unwrap_or_default();
            let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
            // An associated type is named by its trait.
            if !matches!(name.as_str(), "Output" | "Error" | "Item" | "Target" | "Err")
                || keyword != "type"
            {
                places.entry(name).or_default().push(source.path.clone());
            }
        }
    }
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
}

#[test]
fn files_can_be_read_in_one_go() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// What SECURITY.md says of the code: what may panic is denied everywhere, every exception has a
/// reason, and `unsafe` is in one file.
#[test]
fn what_the_code_may_not_do_is_denied() {
    const LINTS: [&str; 6] = [
        "expect_used",
        "indexing_slicing",
        "panic",
        "unwrap_used",
        "arithmetic_side_effects",
        "string_slice",
    ];
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    for lint in &LINTS[..4] {
        assert!(manifest.contains(&format!("\n{lint} = \"deny\"\n")), "{lint}");
    }
    for root in ["src/lib.rs", "src/main.rs"] {
        let text = fs::read_to_string(root).unwrap();
        assert!(text.contains("deny(clippy::arithmetic_side_effects, clippy::string_slice)"));
    }
    let mut wrong = Vec::new();
    for source in sources() {
        let code = source.code();
        let lifted = code.split("allow(").skip(1).filter_map(|rest| rest.split(']').next());
        let is_one = |lift: &&str| LINTS.iter().any(|lint| lift.contains(lint));
        for lift in lifted.filter(is_one).filter(|lift| !lift.contains("reason = ")) {
            wrong.push(format!("{} lifts {lift} without a reason", source.path));
        }
        if source.path != "onnx/map" && (code.contains("unsafe {") || code.contains("unsafe_code"))
        {
            wrong.push(format!("{} is unsafe", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
