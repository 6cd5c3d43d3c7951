//! Runs of the tool as a process: exit codes, what is printed, what is left behind.
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use prost::Message;

use crate::support::cases;
use crate::support::counts::decoded;
use crate::support::tool::tool;

const BLOCK: &str = "fixtures/blocks/k3/torchscript_kept.onnx";
const PLAIN: &str = "fixtures/networks/cifar_quick/plain.onnx";
const NETWORK: &str = "fixtures/networks/cifar_quick/torchscript_kept_static.onnx";

fn output(arguments: &[&str]) -> Output {
    tool().args(arguments).output().unwrap()
}

/// Returns a folder, and the path of a file in it that does not exist yet.
fn target() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.onnx");
    (folder, path)
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// Each row: arguments (OUT is the target), exit code, what stderr says, whether OUT is written.
#[test]
fn exit_codes() {
    let broken = tempfile::NamedTempFile::new().unwrap();
    fs::write(broken.path(), b"not a model at all").unwrap();
    let broken = broken.path().to_str().unwrap();
    let [sizes, unrunnable] = ["same_upper_unknown_sizes", "loop_body"].map(cases::model);
    let (sizes, unrunnable) = (sizes.as_str(), unrunnable.as_str());
    for (arguments, code, message, written) in [
        (&[BLOCK, "OUT"][..], 0, "", true),
        (&[BLOCK, "OUT", "--no-verify"], 0, "", true),
        (&[BLOCK], 0, "", false),
        (&[PLAIN, "OUT"], 0, "", true),
        (&[broken, "OUT"], 1, "this is not an ONNX file", false),
        (&[BLOCK, "OUT", "--no-such-flag"], 2, "unexpected argument", false),
        (&[BLOCK, "OUT", "--tolerance", "nan"], 2, "a tolerance is a number", false),
        (&[BLOCK, "OUT", "--input-shape", "y=1,4,6,7"], 2, "the model has no such input", false),
        (&[BLOCK, "OUT", "extra"], 2, "--out-dir", false),
        (&[BLOCK, "-o", "OUT"], 0, "", true),
        (&["--output", "OUT", BLOCK], 0, "", true),
        (&[BLOCK, PLAIN, "-o", "OUT"], 2, "--output takes exactly one model as IN", false),
        (&[BLOCK, "-o", "OUT", "--check"], 2, "cannot be used with", false),
        (&[BLOCK, "-o", "OUT", "--look"], 2, "cannot be used with", false),
        (&[PLAIN, "OUT", "--check"], 8, "cannot be read", false),
        (&[BLOCK, PLAIN, "--look", "--verbose"], 2, "--verbose is for one model", false),
        (&["fixtures/bad_input/none_here", "--look"], 8, "cannot be read", false),
        (&["docs", "--look"], 2, "there is no .onnx file in this folder", false),
        (&[BLOCK, "--look"], 0, "", false),
        (&[BLOCK, "OUT", "--input", "x=no/such.npy"], 8, "no/such.npy", false),
        (&[BLOCK, "OUT", "--input", "x=Cargo.toml"], 2, "it is not a .npy file", false),
        (&[BLOCK, "OUT", "--input", "x"], 2, "expected NAME=FILE", false),
        (&[BLOCK, "OUT", "--threads", "0"], 2, "a number from 1 to 1024", false),
        (&[BLOCK, "OUT", "--threads", "1000000"], 2, "a number from 1 to 1024", false),
        (&[BLOCK, "OUT", "--samples", "0"], 2, "a number from 1 to 1000", false),
        (&[BLOCK, "OUT", "--samples", "1000000"], 2, "a number from 1 to 1000", false),
        (&[BLOCK, "OUT", "--jobs", "4"], 2, "--jobs is for many models", false),
        (&[BLOCK, "--jobs", "1"], 2, "--jobs is for many models", false),
        (
            &[BLOCK, "OUT", "--skip", "none"],
            2,
            "no block is called `none`; the blocks are `",
            false,
        ),
        (&[PLAIN, "OUT", "--skip", "none"], 2, "no block is called `none`: there are none", false),
        (&[NETWORK, "--skip", "0", "--skip", "33"], 2, "`33`; the blocks are `3`, `", false),
        (&[NETWORK, "OUT", "--skip", "0", "--skip", "3"], 0, "", true),
        (&[BLOCK, "OUT", "--input-shape", "x=1,8,6,7"], 2, "the file says that axis 1 has", false),
        (&[BLOCK, "OUT", "--input-shape", "x:1,8,6,7"], 2, "the file says that axis 1 has", false),
        (&[BLOCK, "OUT", "--input-shape", "x=1,4,6"], 2, "has 4 dimensions, not 3", false),
        (&[sizes, "OUT", "--input-shape", "x=1,4,9,12", "--require-fusion"], 0, "", true),
        (&[sizes, "OUT", "--require-fusion"], 4, "nothing was fused", false),
        (&[BLOCK, "OUT", "--tolerance", "0"], 3, "verification failed", false),
        (&[PLAIN, "OUT", "--require-fusion"], 4, "nothing was fused", false),
        (&[BLOCK, "--check"], 5, "1 block can be fused", false),
        (&[PLAIN, "--check"], 0, "", false),
        (&["no/such/file.onnx", "OUT"], 8, "cannot be read", false),
        (&["Cargo.toml/file.onnx", "OUT"], 8, "cannot be read", false),
        (&["src", "OUT"], 2, "IN is a folder", false),
        (&[BLOCK, "no/such/folder/out.onnx"], 8, "cannot be written", false),
        (&[BLOCK, "src"], 8, "it is a directory", false),
        (&["--manifest", "no/such.jsonl"], 8, "cannot be read", false),
        (&["--out-dir", "Cargo.toml/out", BLOCK], 8, "cannot be written", false),
        (
            &[BLOCK, "OUT", "--verify-memory", "0", "--require-fusion"],
            4,
            "nothing was fused: 1 block could not be proved",
            false,
        ),
        (&[BLOCK, "OUT", "--verify-timeout", "0"], 7, "did not finish the proof of block", false),
        (&[unrunnable, "OUT", "--require-run"], 7, "could not be run", false),
        (&[unrunnable, "OUT"], 0, "", true),
    ] {
        let (folder, out) = target();
        let named = |&argument: &&str| {
            if argument == "OUT" { out.to_str().unwrap().into() } else { argument.to_owned() }
        };
        let arguments: Vec<String> = arguments.iter().map(named).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let result = output(&arguments);
        let stderr = String::from_utf8(result.stderr).unwrap();
        assert_eq!(result.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
        if ![0, 2].contains(&code) {
            assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
        }
        let expected: &[&str] = if written { &["out.onnx"] } else { &[] };
        assert_eq!(files(folder.path()), expected, "{arguments:?}");
    }
    assert!(!files(Path::new(".")).iter().any(|name| name.starts_with(".acb-fuse")));
}

#[test]
fn a_failed_check_leaves_the_target_as_it_was() {
    let (_folder, out) = target();
    fs::copy(BLOCK, &out).unwrap();
    let result = output(&[BLOCK, out.to_str().unwrap(), "--tolerance", "0"]);
    assert_eq!(result.status.code(), Some(3));
    assert!(String::from_utf8(result.stderr).unwrap().contains("output `"));
    assert_eq!(fs::read(&out).unwrap(), fs::read(BLOCK).unwrap());
}

#[test]
fn in_place_and_through_a_pipe_are_the_same() {
    let (folder, out) = target();
    let from_file = out.to_str().unwrap();
    assert!(output(&[NETWORK, from_file]).status.success());
    let expected = fs::read(&out).unwrap();

    let in_place = folder.path().join("in_place.onnx");
    fs::copy(NETWORK, &in_place).unwrap();
    let path = in_place.to_str().unwrap();
    assert!(output(&[path, path]).status.success());
    assert!(fs::read(&in_place).unwrap() == expected);

    let mut piped = tool()
        .args(["-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(&fs::read(NETWORK).unwrap()).unwrap();
    let result = piped.wait_with_output().unwrap();
    assert!(result.status.success());
    assert!(result.stdout == expected);
    assert!(String::from_utf8(result.stderr).unwrap().contains("blocks fused"));
}

#[test]
fn nothing_to_change_is_byte_identical() {
    let (_folder, out) = target();
    assert!(output(&[PLAIN, out.to_str().unwrap()]).status.success());
    assert!(fs::read(&out).unwrap() == fs::read(PLAIN).unwrap());
}

#[test]
fn the_summary_says_what_was_done_and_what_was_not_checked() {
    let (_folder, out) = target();
    let out = out.to_str().unwrap();
    let said = |arguments: &[&str]| String::from_utf8(output(arguments).stdout).unwrap();
    let verified = said(&[NETWORK, out]);
    for part in [
        "5×5 + 1×5 + 5×1, 3 batch norms",
        "proof: every block",
        "run: 1 output of",
        "3 blocks fused",
    ] {
        assert!(verified.contains(part), "{verified}");
    }
    assert!(said(&[NETWORK, out, "--no-verify"]).contains("NOT VERIFIED"));
    assert_eq!(said(&[NETWORK, out, "--quiet"]), "");
    let block = verified.lines().nth(1).unwrap().split_whitespace().next().unwrap();
    let skipped = said(&[NETWORK, out, "--skip", block]);
    assert!(
        skipped.contains("left alone because of --skip") && skipped.contains("2 blocks fused"),
        "{skipped}"
    );
}

/// Stages of several steps count them up.
#[test]
fn progress_is_told_in_lines() {
    let (_folder, out) = target();
    let result = output(&[NETWORK, out.to_str().unwrap(), "--quiet", "--progress"]);
    let told = String::from_utf8(result.stderr).unwrap();
    let stages = |line: &str| {
        let stage = line.strip_prefix("progress: ").unwrap();
        stage.split(' ').next().unwrap().to_owned()
    };
    let mut stages: Vec<String> = told.lines().map(stages).collect();
    stages.dedup();
    assert_eq!(
        stages,
        ["reading", "planning", "proving", "writing", "running", "writing"],
        "{told}"
    );
    let proved = told.lines().filter(|line| line.ends_with("/3")).count();
    assert!(proved >= 3 && told.contains("progress: proving 3/3"), "{told}");
}

/// A path is bytes, and may have an `=`, which separates a name from a file.
#[cfg(unix)]
#[test]
fn paths_may_have_any_name() {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(OsStr::from_bytes(b"\xff=\xfe"));
    fs::create_dir(&odd).unwrap();
    let [input, out, page] = ["in.onnx", "out.onnx", "page.html"].map(|name| odd.join(name));
    fs::copy(BLOCK, &input).unwrap();
    let mut report = OsString::from("--report=");
    report.push(&page);
    let result = tool().arg(&input).arg(&out).arg(report).output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    assert!(out.exists() && page.exists());

    let given = folder.path().join("a=b");
    fs::create_dir(&given).unwrap();
    let given = given.join("x=1.pb");
    fs::copy("fixtures/blocks/k3/input_0.pb", &given).unwrap();
    let named = format!("x={}", given.display());
    let result = output(&[BLOCK, "--input", &named]);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
}

/// The summary says what was read and written, and what changed; that of a look does not.
#[test]
fn the_summary_says_what_changed_in_the_whole_model() {
    let (_folder, out) = target();
    let out = out.to_str().unwrap();
    let said = |arguments: &[&str]| String::from_utf8(output(arguments).stdout).unwrap();
    let written = said(&[NETWORK, out]);
    let lines: Vec<&str> = written.lines().collect();
    let blocks = [
        "block  branches                        nodes  parameters   multiply-adds    saves",
        "3      5×5 + 1×5 + 5×1, 3 batch norms  8 → 1  2336 → 1608  4.08 M → 2.88 M",
    ];
    let found = [lines[0], lines.iter().find(|line| line.starts_with("3 ")).unwrap()];
    assert!(found.iter().zip(blocks).all(|(found, block)| found.starts_with(block)), "{written}");
    let sizes = [NETWORK, out].map(|file| fs::metadata(file).unwrap().len());
    for line in [
        "3 blocks fused, 34 → 13 nodes".to_owned(),
        "operators: BatchNormalization 9 → 0, Add 6 → 0, Conv 9 → 3".to_owned(),
        "parameters: 12.9 k → 10.4 k (−19 %)".to_owned(),
        "multiply-adds: 13.0 M → 9.13 M (−30 %)".to_owned(),
        format!("read: {NETWORK}, {:.1} kB", sizes[0] as f64 / 1e3),
    ] {
        assert!(lines.contains(&line.as_str()), "{line}: {written}");
    }
    let place = format!("written: {out}, {:.1} kB (−", sizes[1] as f64 / 1e3);
    assert!(lines.iter().any(|line| line.starts_with(&place) && line.ends_with(" s")), "{written}");
    let same = said(&[PLAIN, out, "--force"]);
    assert!(same.contains(", byte for byte the model that was read\n"), "{same}");
    let look = said(&[NETWORK]);
    assert!(!look.contains("operators:") && !look.contains("read:"), "{look}");
    let scaled = |arguments: &[&str]| said(arguments).contains("channels are scaled only when");
    for (flags, expected) in [(&[][..], false), (&["--for", "int8"], true), (&["--equalize"], true)]
    {
        assert_eq!(scaled(&[&[NETWORK], flags].concat()), expected, "{flags:?}");
    }
}

/// A line on what was not checked is followed by what to do.
#[test]
fn what_was_not_checked_says_what_to_do() {
    let unrunnable = &*cases::model("loop_body");
    for (arguments, said) in [
        (&[BLOCK, "OUT", "--no-verify"][..], "NOT VERIFIED: --no-verify was given"),
        (&[unrunnable, "OUT"], "run: NOT RUN: "),
    ] {
        let (_folder, out) = target();
        let named = |&word: &&str| {
            if word == "OUT" { out.to_str().unwrap().to_owned() } else { word.to_owned() }
        };
        let words: Vec<String> = arguments.iter().map(named).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let text = String::from_utf8(output(&words).stdout).unwrap();
        let mut lines = text.lines().skip_while(|line| !line.starts_with(said));
        assert!(lines.next().is_some(), "{text}");
        assert!(lines.next().unwrap_or_default().starts_with("  what to do: "), "{text}");
    }
}

/// With many models, the reason stands in the line of the model, and what to do in that of the total.
#[test]
fn what_was_not_checked_is_said_of_many_models() {
    let unrunnable = &*cases::model("loop_body");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    for (arguments, of_model, of_all) in [
        (&[NETWORK, unrunnable][..], ", proved, NOT RUN: ", "; 1 NOT RUN: compare the outputs of "),
        (&[NETWORK, BLOCK, "--no-verify"], ", NOT VERIFIED\n", "; 2 NOT VERIFIED: compare the "),
        (&[NETWORK, BLOCK], ", proved, outputs agree within ", " s\n"),
    ] {
        let result = output(&[arguments, &["--out-dir", out]].concat());
        let text = String::from_utf8(result.stdout).unwrap();
        let (models, total) = text.split_once("total ").unwrap();
        assert!(models.contains(of_model) && total.contains(of_all), "{text}");
    }
}

/// Names in a model may be anything: characters that would control a terminal are not printed.
#[test]
fn control_characters_of_names_are_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.onnx");
    let text = String::from_utf8_lossy(&fs::read(BLOCK).unwrap()).into_owned();
    assert!(text.contains("square"));
    let bytes = fs::read(BLOCK).unwrap();
    let evil: Vec<u8> = bytes.windows(6).enumerate().fold(bytes.clone(), |mut evil, (at, word)| {
        if word == b"square" {
            evil[at..at + 6].copy_from_slice(b"\x1b[2J\n\r");
        }
        evil
    });
    fs::write(&path, evil).unwrap();
    for arguments in
        [&[path.to_str().unwrap()][..], &[path.to_str().unwrap(), "--input-shape", "\x1b=1"]]
    {
        let result = output(arguments);
        let said = [result.stdout, result.stderr].concat();
        assert!(!said.is_empty());
        let control = |byte: &&u8| byte.is_ascii_control() && **byte != b'\n';
        assert_eq!(said.iter().find(control), None, "{}", String::from_utf8_lossy(&said));
    }
}

/// With the flag that a near miss names, the block is fused.
#[test]
fn a_near_miss_names_the_flag_that_helps() {
    let model = &*cases::model("same_upper_unknown_sizes");
    let said = |arguments: &[&str]| String::from_utf8(output(arguments).stdout).unwrap();
    let before = said(&[model]);
    let flag = before.split_whitespace().find(|word| word.starts_with("x=")).unwrap().to_owned();
    assert!(before.contains("on axis 2") && before.contains("--input-shape"), "{before}");
    let after = said(&[model, "--input-shape", &flag]);
    assert!(after.contains("would be fused"), "{after}");
    let condition = "is right where axis 2 of `x` has an even number of elements";
    assert!(after.contains(condition), "{after}");
}

#[test]
fn overridable_weights_are_folded_unless_they_are_to_be_kept() {
    let model = &*cases::model("weights_as_inputs");
    let said = |arguments: &[&str]| String::from_utf8(output(arguments).stdout).unwrap();
    let (_folder, out) = target();
    let out = out.to_str().unwrap();
    assert!(said(&[model, out]).contains("graph inputs that only named folded weights"));
    let kept = said(&[model, out, "--keep-overridable"]);
    assert!(kept.contains("nothing to fuse") && kept.contains("may override it"), "{kept}");
}

/// Many models have a line each; the tool goes on after a failure, and ends with the exit code of
/// the first one.
#[test]
fn many_models_have_a_line_each() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let broken = path("broken.onnx");
    fs::write(&broken, b"not a model at all").unwrap();
    let manifest = path("manifest.jsonl");
    let pair = |input: &str, output: &str| {
        // Paths are relative to the manifest, not to the folder in which the tool runs.
        format!("{{\"input\": \"{input}\", \"output\": \"{output}\"}}\n")
    };
    let network = fs::canonicalize(NETWORK).unwrap();
    let network = network.to_str().unwrap();
    let lines = [pair(network, "a.onnx"), pair("no/such.onnx", "b.onnx"), pair(&broken, "c.onnx")];
    fs::write(&manifest, lines.concat()).unwrap();
    let (out, training) = (path("out"), cases::model("training_function"));
    let (all, fused, same) = (path("all"), path("all/fused"), &["same", "same", "total"][..]);
    fs::create_dir_all(path("all/below")).unwrap();
    fs::copy(PLAIN, path("all/a.onnx")).unwrap();
    fs::copy(PLAIN, path("all/below/b.onnx")).unwrap();
    for (arguments, code, said, written) in [
        (
            &["--out-dir", &out, NETWORK, &broken, PLAIN, "--jobs", "2"][..],
            1,
            &["failed", "fused", "same", "total"][..],
            &["out/plain.onnx", "out/torchscript_kept_static.onnx"][..],
        ),
        (&["--manifest", &manifest], 8, &["failed", "failed", "fused", "total"], &["a.onnx"]),
        (&["--out-dir", &out, NETWORK, "--quiet"], 0, &[], &[]),
        // The folder holds its results, too: these are no models to be fused again.
        (&["--out-dir", &fused, &all], 0, same, &["all/fused/a.onnx", "all/fused/below/b.onnx"]),
        (&["--out-dir", &fused, &all], 0, same, &[]),
        (&["--out-dir", &path("all/below/../fused"), &all], 0, same, &[]),
        // There is nothing to fuse, but the file is not the same either.
        (&["--out-dir", &out, &training], 0, &["fused"], &["out/model.onnx"]),
    ] {
        let result = output(arguments);
        assert_eq!(result.status.code(), Some(code), "{arguments:?}");
        let [text, failures] =
            [result.stdout, result.stderr].map(|said| String::from_utf8(said).unwrap());
        assert!(!text.contains("failed  ") && failures.lines().all(|l| l.starts_with("failed  ")));
        let text = text + &failures;
        let mut kinds: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, said, "{text}");
        assert!(written.iter().all(|name| Path::new(&path(name)).exists()), "{arguments:?}");
    }
}

/// Models and folders that are only looked at: arguments, exit code, and parts of what is said.
#[test]
fn many_models_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir_all(path("models/below")).unwrap();
    fs::copy(NETWORK, path("models/below/net.onnx")).unwrap();
    fs::copy(PLAIN, path("models/plain.onnx")).unwrap();
    let (models, strides) = (path("models"), cases::model("different_strides"));
    let before = files(folder.path());
    for (arguments, code, said) in [
        (
            &["--look", &models][..],
            0,
            &["net.onnx: 3 blocks, 34 → 13 nodes\n", "none    ", "2 models: 1 with something"][..],
        ),
        (&["--look", BLOCK, PLAIN], 0, &["found   fixtures/blocks", "none    fixtures/networks"]),
        (&["--look", &strides, &models], 0, &["nothing to fuse (left alone: "]),
        (
            &["--check", &models],
            5,
            &[
                "net.onnx: 3 blocks can be fused (exit code 5)",
                "2 models: 1 with something to fuse or convert, 1 without, 0 failed; 3 blocks",
            ],
        ),
        (
            &["--check", PLAIN, PLAIN],
            0,
            &["2 models: 0 with something to fuse or convert, 2 without"],
        ),
        (&["--look", PLAIN, "no/such.onnx"], 8, &["none    ", "failed  no/such.onnx"]),
        (&["--look", BLOCK, PLAIN, "--quiet"], 0, &[]),
    ] {
        let result = output(arguments);
        let text = String::from_utf8([result.stdout, result.stderr].concat()).unwrap();
        assert_eq!(result.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(said.iter().all(|part| text.contains(part)), "{arguments:?}: {text}");
        assert_eq!(text.is_empty(), said.is_empty(), "{arguments:?}: {text}");
    }
    // Nothing was written.
    assert_eq!(files(folder.path()), before);
}

/// Given tensors are fed: the model runs on what fits it, and on nothing else.
#[test]
fn tensors_of_the_user_are_fed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let flag = format!("x={}", path.display());
    let said = |size: usize| {
        let header = format!(
            "{{'descr': '<f4', 'fortran_order': False, 'shape': (8, 3, {size}, {size}), }}\n"
        );
        let length = (header.len() as u16).to_le_bytes();
        let data = 0.5f32.to_le_bytes().repeat(24 * size * size);
        let file = [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), &data].concat();
        fs::write(&path, file).unwrap();
        let (_folder, out) = target();
        let result = output(&[NETWORK, out.to_str().unwrap(), "--input", &flag]);
        String::from_utf8([result.stdout, result.stderr].concat()).unwrap()
    };
    let (fits, small) = (said(32), said(2));
    assert!(fits.contains("of the whole model agree"), "{fits}");
    assert!(small.contains("the file says that axis 2 has 32, not 2"), "{small}");
}

/// ONNX's test data: files of tensors, by name, or in a folder by number.
#[test]
fn test_data_of_onnx_is_fed() {
    let folder = "fixtures/networks/cifar_quick";
    let named = format!("x={folder}/input_0.pb");
    for (input, code, said) in [
        (folder, 0, "of the whole model agree"),
        (&named, 0, "of the whole model agree"),
        ("fixtures/blocks/k3", 2, "the file says that axis 0 has"),
        ("fixtures/networks", 2, "no input_0.pb"),
    ] {
        let (_folder, out) = target();
        let result = output(&[NETWORK, out.to_str().unwrap(), "--input", input]);
        let text = String::from_utf8([result.stdout, result.stderr].concat()).unwrap();
        assert_eq!(result.status.code(), Some(code), "{input}: {text}");
        assert!(text.contains(said), "{input}: {text}");
    }
}

/// Shells and `man` can read what is printed for them.
#[test]
fn completions_and_the_manual_are_printed() {
    for (arguments, said) in [
        (&["--completions", "bash"][..], "_acb"),
        (&["--completions", "zsh"], "#compdef acb-fuse\n"),
        (&["--man"], ".TH acb-fuse 1 "),
        (&["--man"], "\n.SH \"EXIT STATUS\"\n.TP\n\\fB0\\fR\n"),
        (&["--man"], "\n.TP\n\\fBacb\\-fuse resnet.onnx\\fR\n\\&what would be fused, "),
    ] {
        let result = output(arguments);
        assert!(result.status.success());
        let text = String::from_utf8(result.stdout).unwrap();
        assert!(text.contains(said) && text.contains("verify"), "{arguments:?}");
    }
}

/// Among many models, each leaves its own block of the given name alone; a name that no model
/// has is an error, and nothing is written.
#[test]
fn a_name_to_skip_is_of_a_block_of_one_of_many() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    let skip = |name| output(&["--out-dir", out, NETWORK, BLOCK, PLAIN, "--skip", name]);
    let unknown = skip("33");
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert_eq!(unknown.status.code(), Some(2), "{said}");
    assert!(said.contains("--skip: no block is called `33`; the blocks are `3`, `"), "{said}");
    assert_eq!(files(Path::new(out)), [] as [String; 0]);
    let known = skip("3");
    let said = String::from_utf8(known.stdout).unwrap();
    assert!(known.status.success() && said.contains("onnx: 2 blocks, "), "{said}");
}

/// Each row: a type of NumPy's and the bytes of an element, which are given to NETWORK's input of
/// float32; the exit code, and what is said.
#[test]
fn tensors_that_no_input_takes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let given = |descr: &str, shape: &str, element: &[u8], count: usize| {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = (header.len() as u16).to_le_bytes();
        let data = element.repeat(count);
        fs::write(&path, [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), &data].concat())
            .unwrap();
    };
    let (image, flag) = ("(8, 3, 32, 32)", format!("x={}", path.display()));
    let count = 8 * 3 * 32 * 32;
    for (descr, element, code, said) in [
        ("<f4", &0.5f32.to_le_bytes()[..], 0, "of the whole model agree"),
        ("<f4", &f32::NAN.to_le_bytes(), 2, "an element is NaN in float32"),
        ("<f4", &f32::INFINITY.to_le_bytes(), 2, "an element is inf in float32"),
        ("<f8", &1e300f64.to_le_bytes(), 2, "an element is 1e300 in float32"),
        ("|u1", &[7], 2, "the input is of float32, and not of integers"),
        ("|b1", &[1], 2, "the input is of float32, and not of integers"),
    ] {
        given(descr, image, element, count);
        let (_folder, out) = target();
        let result = output(&[NETWORK, out.to_str().unwrap(), "--input", &flag]);
        let text = String::from_utf8([result.stdout, result.stderr].concat()).unwrap();
        assert_eq!(result.status.code(), Some(code), "{descr}: {text}");
        assert!(text.contains(said), "{descr}: {text}");
    }
}

/// Blocks that could not be proved are reported all the same.
#[test]
fn what_could_not_be_proved_is_not_nothing_to_fuse() {
    let (folder, out) = target();
    let out = out.to_str().unwrap();
    let many = folder.path().join("many");
    let many = many.to_str().unwrap();
    let no_memory = ["--verify-memory", "0"];
    for arguments in [&[BLOCK, out][..], &["--out-dir", many, BLOCK]] {
        let result = output(&[arguments, &no_memory].concat());
        let said = String::from_utf8(result.stdout).unwrap();
        assert!(said.contains("no block was fused, 1 block could not be proved"), "{said}");
        assert!(!said.contains("nothing to fuse"), "{said}");
    }
}

/// Bounds on flags hold for environment variables, too.
#[test]
fn a_million_threads_of_the_environment_are_refused() {
    let mut tool = tool();
    let result = tool.arg(BLOCK).env("RAYON_NUM_THREADS", "1000000").output().unwrap();
    let said = String::from_utf8(result.stderr).unwrap();
    assert_eq!(result.status.code(), Some(2), "{said}");
    assert!(said.contains("RAYON_NUM_THREADS: a number from 1 to 1024"), "{said}");
}

/// A name can neither break a line nor turn text around: on a terminal, in JSON, in a page.
#[test]
fn names_are_one_line_wherever_they_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let bytes = fs::read(BLOCK).unwrap();
    let mut evil = bytes.clone();
    for at in 0..bytes.len() - 6 {
        if &bytes[at..at + 6] == b"square" {
            evil[at..at + 6].copy_from_slice("a\u{202e}\n\n".as_bytes());
        }
    }
    let [plain, named] = ["plain.onnx", "named.onnx"].map(path);
    fs::write(&plain, &bytes).unwrap();
    fs::write(&named, &evil).unwrap();
    let [json, page, out, many] = ["r.json", "r.html", "out.onnx", "many"].map(path);
    let told = |model: &str| {
        let _ = (fs::remove_file(&out), fs::remove_dir_all(&many));
        let one =
            output(&[model, &out, "--force", "--verbose", "--report", &json, "--report", &page]);
        let refused = output(&[model, "--skip", "none"]);
        let lines = output(&["--out-dir", &many, "--force", model, "--tolerance", "0"]);
        let piped = output(&[model, "--report", "-"]);
        let said = [one, refused, lines, piped].map(|of| [of.stdout, of.stderr].concat());
        let files = [&json, &page].map(|file| fs::read(file).unwrap());
        let all = said.into_iter().chain(files);
        all.map(|text| String::from_utf8(text).unwrap()).collect::<Vec<String>>()
    };
    for (expected, found) in told(&plain).iter().zip(told(&named)) {
        assert!(!expected.is_empty() && !found.contains('\u{202e}'), "{found}");
        assert_eq!(found.lines().count(), expected.lines().count(), "{found}");
    }
}

/// ONNX Runtime refuses a file in which two nodes of one graph have one name.
#[test]
fn a_name_of_two_nodes_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let mut model = decoded(Path::new(&*cases::model("product")));
    model
        .graph
        .as_mut()
        .unwrap()
        .node
        .iter_mut()
        .for_each(|node| node.name = Some("one".to_owned()));
    fs::write(&path, model.encode_to_vec()).unwrap();
    let said = String::from_utf8(output(&[path.to_str().unwrap()]).stdout).unwrap();
    let expected = "\nseveral nodes share a name (one): ONNX Runtime refuses such a file\n";
    assert!(said.ends_with(expected), "{said}");
}
