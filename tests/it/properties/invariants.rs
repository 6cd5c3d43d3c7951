//! Properties of every conversion, checked on every fixture and on generated models;
//! `random_regions` checks them on random ones.
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use acb_fuse::engine::Array;

use super::table::Converted;
use crate::support::fixtures::{self, data};
use crate::support::tool::tool;
use crate::support::{geometries, parallel};

/// Files for which a property does not hold, that property, and why.
const EXCEPTIONS: [(&str, &str, &str); 3] = [
    ("cases/ir3_if/", "parameters never grow", "what both branches read is counted in each"),
    (
        "training_mode/statistics_are_shared/",
        "parameters never grow",
        "statistics that a norm shares with others are counted as its own",
    ),
    ("cases/nested_ifs/", "parameters never grow", "what four branches read is counted in each"),
];

fn checked(path: &Path, shapes: Vec<Vec<usize>>) -> Converted {
    let converted = Converted::of(path, shapes);
    let converted = converted.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let here = |(file, _, _): &&(&str, &str, &str)| path.to_str().is_some_and(|p| p.contains(file));
    let except: Vec<&str> = EXCEPTIONS.iter().filter(here).map(|exception| exception.1).collect();
    let failing = converted.failing();
    let names: Vec<&str> = failing.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, except, "{}: {failing:?}", path.display());
    converted
}

/// Runs the tool as a process, from standard input to standard output.
fn piped(path: &Path) -> Vec<u8> {
    let mut child = tool()
        .args(["-", "-", "--no-verify"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes = fs::read(path).unwrap();
    let mut input = child.stdin.take().unwrap();
    // The tool reads everything before it writes anything.
    input.write_all(&bytes).unwrap();
    drop(input);
    let result = child.wait_with_output().unwrap();
    let says = String::from_utf8_lossy(&result.stderr).into_owned();
    assert!(result.status.success(), "{}: {says}", path.display());
    result.stdout
}

/// Returns whether a model has a side file, which cannot go through a pipe.
fn has_side_file(path: &Path) -> bool {
    let mut beside = fs::read_dir(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    beside.any(|entry| {
        let entry = entry.unwrap().file_name();
        entry.to_str().is_some_and(|entry| entry.starts_with(name) && entry.ends_with(".data"))
    })
}

#[test]
fn properties_hold_of_every_fixture() {
    let all = fixtures::of(|_| true);
    let (blocks, through_pipes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    parallel::each(&all, |path| {
        let shapes = data(path, "input").iter().map(Array::shape).map(<[usize]>::to_vec).collect();
        let converted = checked(path, shapes);
        blocks.fetch_add(converted.report.blocks.len(), Ordering::Relaxed);
        if !has_side_file(path) {
            assert!(piped(path) == converted.new_bytes(), "{}: through a pipe", path.display());
            through_pipes.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (blocks, through_pipes) = (blocks.into_inner(), through_pipes.into_inner());
    println!(
        "{} files, {blocks} blocks proved, none refused; {through_pipes} through a pipe",
        all.len()
    );
    // Only the two models with side files are left out.
    assert_eq!(through_pipes, all.len() - 2);
    let told = format!("({} files, {blocks} blocks)", all.len());
    let page = "docs/results/mistakes.md";
    assert!(fs::read_to_string(page).unwrap().contains(&told), "{page}: {told}");
}

#[test]
fn properties_hold_of_generated_models() {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<_> =
        geometries::generated(60).into_iter().chain(geometries::networks()).enumerate().collect();
    parallel::each(&all, |(index, geometry)| {
        let path = folder.path().join(index.to_string()).with_extension("onnx");
        fs::write(&path, &geometry.bytes).unwrap();
        let converted = checked(&path, vec![]);
        assert!(!converted.report.blocks.is_empty(), "{}", geometry.name);
        assert!(piped(&path) == converted.new_bytes(), "{}", geometry.name);
    });
}
