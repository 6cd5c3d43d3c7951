//! Files that are each broken in one way: what the tool says of each is stored beside it, and
//! the tool never writes what it should not. `UPDATE_EXPECT=1 cargo test` updates what it says.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::storage::Storage;
use expect_test::expect_file;
use prost::bytes::Bytes;

use crate::support::cases;
use crate::support::fixtures;
use crate::support::tool::tool;

/// The exit code, standard output, standard error, and the files that are left in the folder.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    left: Vec<String>,
}

fn run(model: &Path) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let began = Instant::now();
    let output = tool().arg(model).arg(&out).output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(60), "{model:?} took too long");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    Run {
        code: output.status.code(),
        stdout: without_place(&text(output.stdout)),
        stderr: text(output.stderr),
        left: names.map(|name| name.into_string().unwrap()).collect(),
    }
}

/// Returns a summary without the line that says where the new model is, and how long that took.
fn without_place(summary: &str) -> String {
    let lines = summary.split_inclusive('\n').filter(|line| !line.starts_with("written: "));
    lines.collect()
}

fn broken(group: &str) -> Vec<PathBuf> {
    let folder = Path::new("fixtures/bad_input").join(group);
    let mut cases: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| fixtures::has_extension(path, "onnx"));
    cases.sort();
    cases
}

fn expect(model: &Path, said: &str) {
    let path = std::env::current_dir().unwrap().join(model.with_extension("txt"));
    expect_file![path].assert_eq(said);
}

#[test]
fn malformed_files_are_errors_of_one_line() {
    let models = broken("errors");
    assert_eq!(models.len(), 65);
    for model in models {
        let Run { code, stdout, stderr, left } = run(&model);
        expect(&model, &stderr);
        // That a side file is missing is not the model's fault.
        let expected = if model.ends_with("external_missing.onnx") { 8 } else { 1 };
        assert_eq!((code, stdout.as_str()), (Some(expected), ""), "{model:?}: {stderr}");
        let named = format!("acb-fuse: {}: ", model.display());
        assert!(stderr.starts_with(&named) && stderr.lines().count() == 1, "{model:?}: {stderr}");
        assert!(left.is_empty(), "{model:?} left {left:?}");
    }
}

/// However little is missing at its end, a file is no model.
#[test]
fn a_file_that_is_cut_anywhere_is_an_error() {
    for model in ["fixtures/blocks/k3/torchscript_kept.onnx", &cases::model("if_branches")] {
        let whole = Bytes::from(fs::read(model).unwrap());
        let read = |bytes: Bytes| {
            let model = Model::index(bytes, Storage::default())?;
            Graph::read_all(&model)?.iter().take(1).try_for_each(Graph::check_tensors)
        };
        read(whole.clone()).unwrap();
        for end in 0..whole.len() {
            assert!(read(whole.slice(..end)).is_err(), "{model}, cut at byte {end}");
        }
    }
}

/// In each model, the first block is broken; the second one must be fused and verified all the
/// same.
#[test]
fn blocks_that_are_of_no_use_do_not_keep_the_others() {
    let models = broken("near_misses");
    assert_eq!(models.len(), 68);
    for model in models {
        let Run { code, stdout, stderr, left } = run(&model);
        expect(&model, &stdout);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{model:?}");
        assert!(stdout.lines().any(|line| line.starts_with("second ")), "{model:?}: {stdout}");
        assert!(stdout.contains("\nproof: every block"), "{model:?}: {stdout}");
        let (_, alone) =
            stdout.split_once("left alone:\n").unwrap_or_else(|| panic!("{model:?}: {stdout}"));
        let first = alone.lines().next().unwrap_or_default();
        assert!(first.contains("first"), "{model:?}: {stdout}");
        assert_eq!(left, ["out.onnx"], "{model:?}");
    }
}
