//! What the documents link to, and the files that they name, are there.

use std::fs;
use std::path::{Path, PathBuf};

fn documents() -> Vec<PathBuf> {
    let in_folder = |folder: &str| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "md"))
    };
    [".", "docs", "fixtures", "fuzz", "examples"].into_iter().flat_map(in_folder).collect()
}

/// Targets of links, seen from the document.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.filter_map(|target| target.split('#').next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// Files that are named in code, seen from the top folder.
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
    // Their numbers change with every sentence; none at all would mean that none is found.
    assert!(linked > 0 && named > 0);
}
