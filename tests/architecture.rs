//! Who may know whom: an arrow in the flow never points back.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

/// Module (a file or folder of `src`), and what of the crate, modules or parts of them, its
/// code may use.
const MAY_USE: [(&str, &[&str]); 18] = [
    ("onnx", &["numbers", "onnx"]),
    ("engine", &["numbers", "onnx"]),
    ("affine", &["affine", "numbers"]),
    ("facts", &["onnx"]),
    ("region", &["affine", "engine", "facts", "numbers", "onnx", "region"]),
    ("plan.rs", &["affine", "facts", "onnx", "region"]),
    ("fuse.rs", &["affine", "numbers", "onnx", "plan", "region"]),
    ("claim.rs", &["onnx", "plan", "region", "verify"]),
    // Of the fuser it knows nothing; of the file, what is stored and how large tensors are.
    (
        "verify",
        &["engine", "facts", "numbers", "onnx", "region::constant", "region::sizes", "verify"],
    ),
    ("verify/slices.rs", &["onnx"]),
    ("rewrite.rs", &["fuse", "onnx", "plan"]),
    ("deliver.rs", &["error", "fuse", "onnx", "rewrite"]),
    ("options.rs", &["engine", "onnx", "region", "verify"]),
    ("scope.rs", &["engine", "error", "onnx", "options", "plan", "region"]),
    (
        "look.rs",
        &["engine", "onnx", "options", "plan", "region", "report", "rewrite", "scope", "tally"],
    ),
    (
        "work.rs",
        &[
            "affine", "claim", "deliver", "engine", "error", "fuse", "look", "onnx", "options",
            "plan", "region", "report", "rewrite", "scope", "tally", "verify",
        ],
    ),
    ("tally.rs", &["affine", "onnx", "region", "scope"]),
    ("report", &["affine", "error", "onnx", "plan", "region", "report", "verify"]),
];

fn sources(path: &Path) -> Vec<(String, String)> {
    if path.is_file() {
        return vec![(path.display().to_string(), fs::read_to_string(path).unwrap())];
    }
    let entries = fs::read_dir(path).unwrap();
    entries.flat_map(|entry| sources(&entry.unwrap().path())).collect()
}

#[test]
fn modules_use_only_what_stands_before_them() {
    for (module, allowed) in MAY_USE {
        for (file, text) in sources(&Path::new("src").join(module)) {
            for after in text.split("crate::").skip(1) {
                let is_path = |c: &char| c.is_alphanumeric() || matches!(c, '_' | ':');
                let used: String = after.chars().take_while(is_path).collect();
                let is_within = |module: &&str| {
                    let rest = used.strip_prefix(*module);
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                };
                assert!(allowed.iter().any(is_within), "{file} uses crate::{used}");
            }
        }
    }
}

#[test]
fn tract_is_named_in_code_in_one_place() {
    for (file, text) in sources(Path::new("src")) {
        assert!(file.contains("engine/") || !text.contains("tract_onnx"), "{file} names tract");
    }
}
