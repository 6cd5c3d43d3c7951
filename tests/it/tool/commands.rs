//! Runs the commands of the documents, as a reader would type them.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::parallel;

const PLAIN: &str = "fixtures/networks/cifar_quick/plain.onnx";
const KEPT: &str = "fixtures/networks/cifar_quick/torchscript_kept_static.onnx";

/// Commands whose exit code is not 0.
const ENDS: [(&str, i32); 1] = [("acb-fuse --check models/", 5)];

/// Returns a folder with the files of the documents, under the names that these give them.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let own = |name: &str| folder.path().join(name);
    symlink(std::env::current_dir().unwrap().join("fixtures"), own("fixtures")).unwrap();
    fs::create_dir(own("models")).unwrap();
    for (name, model) in [
        ("IN", KEPT),
        ("model.onnx", KEPT),
        ("other.onnx", PLAIN),
        ("models/a.onnx", KEPT),
        ("models/b.onnx", PLAIN),
    ] {
        fs::copy(model, own(name)).unwrap();
    }
    let job = r#"{"input": "models/a.onnx", "output": "a.onnx"}"#;
    fs::write(own("models.jsonl"), job).unwrap();
    // Two images, all grey.
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 28, 28), }";
    let header = format!("{header:117}\n");
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header.as_bytes());
    array.extend(0.5f32.to_le_bytes().repeat(2 * 3 * 28 * 28));
    fs::write(own("calibration.npy"), array).unwrap();
    folder
}

fn documents() -> Vec<PathBuf> {
    let all = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "md");
    all.filter(is_page).chain(["README.md".into()]).collect()
}

/// Returns the lines in a page's shell blocks that call the tool.
fn commands(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let lines = blocks.flat_map(|(block, _)| block.lines());
    lines.filter(|line| line.starts_with("acb-fuse ")).map(str::to_owned).collect()
}

#[test]
fn commands_of_documents_end_as_they_say() {
    let tool = Path::new(env!("CARGO_BIN_EXE_acb-fuse")).parent().unwrap();
    let path = format!("{}:{}", tool.display(), std::env::var("PATH").unwrap());
    let all: Vec<String> = documents().iter().flat_map(|page| commands(page)).collect();
    assert!(all.len() >= 12, "{all:?}");
    parallel::each(&all, |line| {
        let folder = folder();
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(folder.path()).env("PATH", &path);
        let result = shell.output().unwrap();
        let expected = ENDS.iter().find(|(begin, _)| line.starts_with(begin));
        let expected = expected.map_or(0, |(_, code)| *code);
        let said = String::from_utf8_lossy(&result.stderr);
        assert_eq!(result.status.code(), Some(expected), "{line}: {said}");
    });
}
