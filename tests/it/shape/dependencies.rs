//! Dependencies of the tool: licences, sources, and crates that are there twice.
//! `deny.toml` says the same to cargo-deny.
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Licences that the product may contain.
const LICENCES: [&str; 9] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Zlib",
];

/// Crates that dependencies ask for in two versions. None is ours to choose; a new one should
/// be noticed.
const TWICE: [&str; 8] = [
    "foldhash",
    "hashbrown",
    "itertools",
    "syn",
    "thiserror",
    "thiserror-impl",
    "unicode-width",
    "windows-sys",
];

/// Returns every package that is compiled for this machine.
fn packages() -> Vec<Value> {
    let cargo = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let version = cargo("rustc", &["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let arguments =
        ["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform", host];
    let metadata: Value = serde_json::from_str(&cargo(env!("CARGO"), &arguments)).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn text<'v>(package: &'v Value, key: &str) -> &'v str {
    package[key].as_str().unwrap_or_default()
}

/// Returns whether one of the alternatives of an SPDX expression needs allowed licences only.
fn is_allowed(expression: &str) -> bool {
    let allowed = |licence: &str| {
        let licence = licence.trim_matches(|c: char| c.is_whitespace() || "()".contains(c));
        LICENCES.contains(&licence)
    };
    // `(A OR B) AND C` needs C and one of A and B.
    expression.split(" AND ").all(|part| part.replace('/', " OR ").split(" OR ").any(allowed))
}

#[test]
fn licences_are_those_that_are_allowed() {
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), expected, "{expression}");
    }
    let packages = packages();
    // How many there are depends on the machine; what the tool is built on is always there.
    let is_there = |name: &&str| packages.iter().any(|package| text(package, "name") == *name);
    let needed = ["acb-fuse", "clap", "ndarray", "prost", "rayon", "tract-onnx"];
    assert_eq!(needed.iter().find(|name| !is_there(name)), None);
    for package in &packages {
        let (name, licence) = (text(package, "name"), text(package, "license"));
        assert!(is_allowed(licence), "{name} is under {licence}");
    }
}

#[test]
fn all_come_from_the_registry() {
    for package in packages().iter().filter(|package| text(package, "name") != "acb-fuse") {
        let source = text(package, "source");
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        assert_eq!(source, registry, "{}", text(package, "name"));
    }
}

/// Reports name the version of the engine that is compiled in.
#[test]
fn the_engine_is_the_one_that_reports_name() {
    let packages = packages();
    let tract = packages.iter().find(|package| text(package, "name") == "tract-onnx").unwrap();
    assert_eq!(acb_fuse::engine::ENGINE, format!("tract {}", text(tract, "version")));
}

#[test]
fn no_crate_is_there_twice_but_those_that_are_known() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let (name, version) = (text(&package, "name"), text(&package, "version"));
        versions.entry(name.to_owned()).or_default().insert(version.to_owned());
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        assert!(TWICE.contains(&name.as_str()), "{name} is there in versions {versions:?}");
    }
}
