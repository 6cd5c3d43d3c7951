//! Places of files: no file is lost by the spelling of a name, nor because something is there.
//!
//! Rows are text: the contents of a folder, the arguments of the tool there, its exit code, and
//! a part of its output. Whatever it says, all that was there is unchanged unless the row names it.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use acb_fuse::onnx::proto::tensor_proto::DataLocation;
use prost::Message;

use crate::support::counts;
use crate::support::tool::tool;

const NETWORK: &str = "fixtures/networks/cifar_quick/torchscript_kept_static.onnx";
/// Another model, with another output.
const BLOCK: &str = "fixtures/blocks/k3/torchscript_kept.onnx";
const PLAIN: &str = "fixtures/networks/cifar_quick/plain.onnx";
/// A model whose weights lie in a side file.
const BESIDE: &str = "fixtures/networks/resnet18/dynamo_kept_static.onnx";
/// The same network without a block: it is written as it is.
const BESIDE_PLAIN: &str = "fixtures/networks/resnet18/plain.onnx";

/// Creates the contents of a row's folder: entries `name = what`, separated by commas.
fn arranged(folder: &Path, setup: &str) {
    for entry in setup.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, what) = entry.split_once(" = ").unwrap_or_else(|| panic!("{entry}"));
        let path = folder.join(name);
        let (kind, of) = what.split_once(' ').unwrap_or((what, ""));
        match kind {
            "network" => drop(fs::copy(NETWORK, path).unwrap()),
            "block" => drop(fs::copy(BLOCK, path).unwrap()),
            "plain" => drop(fs::copy(PLAIN, path).unwrap()),
            "fused" => {
                let fused = tool().arg(NETWORK).arg(&path).output().unwrap();
                assert!(fused.status.success(), "{fused:?}");
            }
            // With its weights in the side file that is named next.
            "beside" => beside(BESIDE, &path, of),
            "beside_plain" => beside(BESIDE_PLAIN, &path, of),
            // A manifest of one line.
            "pair" => {
                let (input, output) = of.split_once(' ').unwrap();
                let line = serde_json::json!({"input": input, "output": output});
                fs::write(path, line.to_string()).unwrap();
            }
            "text" => fs::write(path, format!("{of}\n")).unwrap(),
            "empty" => fs::write(path, "").unwrap(),
            "folder" => fs::create_dir(path).unwrap(),
            "link" => symlink(of, path).unwrap(),
            "second" => fs::hard_link(folder.join(of), path).unwrap(),
            other => panic!("{other}"),
        }
    }
}

/// Writes `model` to `path`, with its larger initializers in the side file `location`.
fn beside(model: &str, path: &Path, location: &str) {
    let (mut data, old) = (Vec::new(), fs::read(format!("{model}.data")).unwrap_or_default());
    let mut model = counts::decoded(Path::new(model));
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        let number = |key: &str| {
            let found = tensor.external_data.iter().find(|entry| entry.key() == key);
            found.map(|entry| entry.value().parse::<usize>().unwrap())
        };
        let raw = match (tensor.data_location(), tensor.raw_data.take()) {
            (DataLocation::External, _) => {
                let (at, length) = (number("offset").unwrap_or(0), number("length").unwrap());
                old[at..at + length].to_vec()
            }
            (_, Some(raw)) if raw.len() >= 64 => raw.to_vec(),
            (_, raw) => {
                tensor.raw_data = raw;
                continue;
            }
        };
        let entry = |key: &str, value: String| acb_fuse::onnx::proto::StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        tensor.external_data = vec![
            entry("location", location.to_owned()),
            entry("offset", data.len().to_string()),
            entry("length", raw.len().to_string()),
        ];
        tensor.set_data_location(DataLocation::External);
        data.extend(raw);
    }
    fs::write(path, model.encode_to_vec()).unwrap();
    let side_file = path.parent().unwrap().join(location);
    fs::create_dir_all(side_file.parent().unwrap()).unwrap();
    fs::write(side_file, data).unwrap();
}

/// Returns all that is below a folder, by path: the content of files, and where links lead.
fn below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn add(folder: &Path, at: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let kind = path.symlink_metadata().unwrap();
            if kind.is_symlink() {
                found.insert(
                    name,
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                );
            } else if kind.is_dir() {
                found.insert(name, b"a folder".to_vec());
                add(folder, &path, found);
            } else {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    add(folder, folder, &mut found);
    found
}

fn run(folder: &Path, words: &str) -> Output {
    tool().args(words.split_whitespace()).current_dir(folder).output().unwrap()
}

/// The contents of a folder, the arguments, the exit code, a part of the output, and the names
/// that are changed or created (all others are as they were).
type Row<'r> = (&'r str, &'r str, i32, &'r str, &'r str);

fn check(rows: &[Row]) {
    for &(setup, words, code, said, written) in rows {
        let folder = tempfile::tempdir().unwrap();
        arranged(folder.path(), setup);
        let before = below(folder.path());
        let output = run(folder.path(), words);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let row = format!("{setup} | {words}");
        assert_eq!(output.status.code(), Some(code), "{row}: {text}");
        assert!(text.contains(said), "{row}: {text}");
        let after = below(folder.path());
        let names = before.keys().chain(after.keys());
        let mut changed: Vec<&str> = names
            .filter(|name| before.get(*name) != after.get(*name))
            .map(String::as_str)
            .collect();
        changed.sort_unstable();
        changed.dedup();
        assert_eq!(changed.join(" "), written, "{row}: {text}");
    }
}

/// Whether an output is replaced depends on whose model it holds.
#[test]
fn another_model_is_not_replaced() {
    let not = "it is not replaced: it holds another model, with the outputs `26`, and not `92`";
    let none = "it is not replaced: it holds no ONNX model that can be read (--force replaces it)";
    let network = "in = network,";
    check(&[
        ("in = network, out = block", "in out", 2, not, ""),
        ("in = network, out = block", "in out --force", 0, "another file, as asked for", "out"),
        ("a.onnx = network, b.onnx = block", "a.onnx b.onnx", 2, "(--force replaces it)", ""),
        ("in = network, l = link out, out = block", "in l", 2, not, ""),
        ("in = network, out = fused", "in out", 0, "with the same inputs and outputs", ""),
        ("in = network, out = fused", "in out --no-verify", 0, "with the same inputs", ""),
        ("in = network, out = network", "in out", 0, "with the same inputs and outputs", "out"),
        ("in = network", "in in", 0, "in replaced the model that was read", "in"),
        ("in = network", "in ./in", 0, "replaced the model that was read", "in"),
        ("in = network, out = empty", "in out", 0, "blocks fused", "out"),
        ("in = network, out = text precious", "in out", 2, none, ""),
        ("in = network, out = text precious", "in out --force", 0, "blocks fused", "out"),
        ("in = network, out = fused", "in out --no-clobber", 8, "it exists already", ""),
        ("in = network, out = empty", "in out --no-clobber", 8, "it exists already", ""),
        ("in = network, out = link nowhere", "in out --no-clobber", 8, "File exists", ""),
        ("in = network, out = fused", "in out --no-clobber --force", 2, "cannot be used with", ""),
        ("in = network", "in --force", 2, "--force without OUT has no effect", ""),
        (&format!("{network} d = folder"), "in d --force", 8, "it is a directory", ""),
        // Several models: each is decided by itself.
        (
            "n = network, b = block, out = folder, out/n = block",
            "--out-dir out n b",
            2,
            "it is not replaced",
            "out/b",
        ),
        (
            "n = network, out = folder, out/n = block",
            "--out-dir out n --force",
            0,
            "fused",
            "out/n",
        ),
    ]);
}

/// Two spellings of one name are one file.
#[test]
fn files_are_compared_and_not_spellings() {
    let of_model = "the report would take the place of a model";
    let collision = "two models would go to";
    check(&[
        ("in = network", "in out.json --report ./out.json", 2, of_model, ""),
        ("in.json = network", "in.json out --report sub/../in.json", 2, of_model, ""),
        ("in.json = network", "in.json --report /proc/self/cwd/in.json", 2, of_model, ""),
        ("in = network, r.json = link in", "in out --report r.json", 2, of_model, ""),
        ("in = network, r.json = second in", "in out --report r.json", 2, of_model, ""),
        (
            "d = folder, l = link d, in = network",
            "in d/out.json --report l/out.json",
            2,
            of_model,
            "",
        ),
        ("in = network", "in out --report r.html --report ./r.html", 2, "two reports", ""),
        (
            "in = beside w.json",
            "in out --report w.json",
            2,
            "it would take the place of a model's weights",
            "",
        ),
        ("in = beside w.json", "in --report ./w.json", 2, "of a model's weights", ""),
        (
            "in = beside_plain w.json, d = folder",
            "in d/out --report d/w.json",
            2,
            "of a model's weights",
            "",
        ),
        ("in = beside w, l = link w", "in l --force", 2, "it holds weights of the model", ""),
        ("in = beside w", "in ./w --force", 2, "it holds weights of the model", ""),
        ("in = beside w, d = folder", "in d/w --force", 2, "called like a file that does", ""),
        // Many models.
        (
            "n = network, d = folder, l = link d, m = pair n d/o",
            "--manifest m --report m.jsonl",
            0,
            "fused",
            "d/o m.jsonl",
        ),
        (
            "n = network, m.jsonl = pair n o",
            "--manifest m.jsonl --report ./m.jsonl",
            2,
            "the report would take the place of the manifest",
            "",
        ),
        (
            "a.jsonl = network, m = pair a.jsonl o",
            "--manifest m --report ./a.jsonl",
            2,
            of_model,
            "",
        ),
        (
            "n = network, e = beside w.jsonl, d = folder",
            "--out-dir d n e --report w.jsonl",
            2,
            "a report would replace w.jsonl, which holds weights of e",
            "",
        ),
        (
            "n = network, e = beside w.jsonl, d = folder",
            "--out-dir d n e --report ./d/w.jsonl",
            2,
            "a report would replace d/w.jsonl, which holds weights of e",
            "",
        ),
        // A side file of one model does not take the place of another model.
        (
            "e = beside w, e.data = network, d = folder",
            "--out-dir d e e.data --force",
            0,
            "fused",
            "d/e d/e.2.data d/e.data",
        ),
        (
            "e = beside w, e.data = network, d = folder",
            "--out-dir d e.data e --force",
            0,
            "fused",
            "d/e d/e.2.data d/e.data",
        ),
        ("n = network, o = folder", "--out-dir o n ./n", 2, collision, ""),
        ("n = network, d = folder, d/n = block", "--out-dir o n d/n", 2, collision, ""),
        ("a = network, b = block", "--out-dir . a b", 0, "fused", "a b"),
    ]);
}

/// Each row has two lines of a manifest. The folder holds `a`, a network, `b`, a block, `e`, a
/// model with its weights in `w`, `h`, another name of `e`, `d`, a folder, and `l`, a link to
/// `d`. Neither line is written, with `--force` or without.
#[test]
fn lines_of_a_manifest_do_not_meet() {
    for (lines, said) in [
        ([("a", "d/o"), ("b", "d/o")], "two models would go to d/o"),
        ([("a", "d/o"), ("b", "./d/o")], "two models would go to ./d/o"),
        ([("a", "d/o"), ("b", "l/o")], "two models would go to l/o"),
        ([("a", "h"), ("b", "e")], "two models would go to e"),
        ([("a", "o"), ("b", "/proc/self/cwd/o")], "two models would go to"),
        ([("a", "b"), ("b", "o")], "the new model of a would replace b, which is read"),
        ([("b", "o"), ("a", "./b")], "the new model of a would replace b, which is read"),
        ([("a", "a"), ("a", "o")], "the new model of a would replace a, which is read"),
        ([("e", "o"), ("a", "h")], "the new model of a would replace e, which is read"),
        (
            [("a", "w"), ("e", "d/o")],
            "the new model of a would replace w, which holds weights of e",
        ),
        (
            [("e", "d/o"), ("a", "./w")],
            "the new model of a would replace w, which holds weights of e",
        ),
        (
            [("e", "d/o"), ("a", "l/w")],
            "the new model of a would replace d/w, which holds weights of e",
        ),
        ([("a", "o"), ("b", "m")], "the new model of b would replace the manifest m"),
        ([("a", "o"), ("b", "d/../m")], "the new model of b would replace the manifest m"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        arranged(folder.path(), "a = network, b = block, d = folder, l = link d, e = beside w");
        arranged(folder.path(), "h = second e");
        let line = |(input, output)| serde_json::json!({"input": input, "output": output});
        let text: Vec<String> = lines.iter().map(|&pair| line(pair).to_string()).collect();
        fs::write(folder.path().join("m"), text.join("\n")).unwrap();
        let before = below(folder.path());
        for words in ["--manifest m", "--manifest m --force"] {
            let output = run(folder.path(), words);
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{lines:?}: {text}");
            assert!(text.contains(said), "{lines:?}: {text}");
            assert_eq!(below(folder.path()), before, "{lines:?}");
        }
    }
}

/// A model may come from anywhere: it must not decide where files are written.
#[test]
fn side_files_go_nowhere_but_beside_the_model() {
    check(&[
        (
            "in = beside_plain sub/w, d = folder",
            "in d/out",
            0,
            "nothing to fuse",
            "d/out d/sub d/sub/w",
        ),
        (
            "in = beside_plain sub/w, d = folder, away = folder, d/sub = link ../away",
            "in d/out",
            8,
            "would be written through a link that leads out of the new model's folder",
            "",
        ),
        (
            "in = beside_plain sub/w, d = folder, d/real = folder, d/sub = link real",
            "in d/out",
            0,
            "nothing to fuse",
            "d/out d/real/w",
        ),
        ("in = beside_plain .w, d = folder", "in d/out", 8, "has a hidden name", ""),
        ("in = beside_plain .ssh/w, d = folder", "in d/out", 8, "has a hidden name", ""),
        (
            "in = beside_plain w, d = folder, d/w = text precious",
            "in d/out",
            8,
            "would replace another file of that name",
            "",
        ),
        (
            "in = beside_plain w, d = folder, d/w = link nowhere",
            "in d/out",
            8,
            "would replace another file of that name",
            "",
        ),
        // What was copied is removed if the rest cannot be: here, a file takes the folder's place.
        (
            "in = beside_plain a/w, d = folder, d/a = text precious",
            "in d/out",
            8,
            "cannot be written",
            "",
        ),
        // The new model's own side file takes no place that something has.
        (
            "in = beside w, out.data = link nowhere",
            "in out",
            0,
            "weights are in `out.2.data`",
            "out out.2.data",
        ),
        (
            "in = beside w, out.data = text precious",
            "in out",
            0,
            "weights are in `out.2.data`",
            "out out.2.data",
        ),
    ]);
}

/// The summary says which side files no model needs any more.
#[test]
fn old_side_files_are_named() {
    let may_go = "`w`, a side file of the old model, can be deleted if no other model uses it";
    let folder = tempfile::tempdir().unwrap();
    arranged(folder.path(), "in = beside w");
    let said = |words: &str| {
        let output = run(folder.path(), words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // `in` still names it.
    let first = said("in out");
    assert!(!first.contains("may go"), "{first}");
    // `out` becomes a model with the same side file, and is replaced while `in` stays.
    fs::copy(folder.path().join("in"), folder.path().join("out")).unwrap();
    let second = said("in out");
    assert!(second.contains("same inputs and outputs") && !second.contains("may go"), "{second}");
    let in_place = said("in in");
    assert!(in_place.contains(may_go), "{in_place}");
    let report = said("in in --report -");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["output"]["replaced"]["kind"], "input");
}

/// A path that leads to what a process has open is not replaced, whatever that is redirected to.
#[cfg(target_os = "linux")]
#[test]
fn what_is_open_is_not_replaced() {
    let said = "it leads to what a process has open";
    for (setup, target) in [
        ("in = network", "/dev/stdout"),
        ("in = network", "/dev/fd/1"),
        ("in = network", "/proc/self/fd/1"),
        ("in = network, out = link /dev/stdout", "out"),
        ("in = network, out = link /proc/self/fd/1, further = link out", "further"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        arranged(folder.path(), setup);
        let redirected = fs::File::create(folder.path().join("redirected")).unwrap();
        let mut tool = tool();
        tool.args(["in", target, "--force"]).current_dir(folder.path()).stdout(redirected);
        let output = tool.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(8), "{target}: {text}");
        assert!(text.contains(said), "{target}: {text}");
        assert!(Path::new("/dev/stdout").is_symlink());
    }
}

/// After the rename, the model and its side file are in place: that the folder could not be
/// flushed to disk is reported, and is no failure.
#[test]
fn what_fails_after_the_rename_is_no_failure_to_write() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("acb-fuse");
    fs::copy(tool().get_program(), &binary).unwrap();
    let models = folder.path().join("models");
    fs::create_dir(&models).unwrap();
    arranged(&models, "in = beside w");
    let allow = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // A process that may not read a folder cannot flush it to disk.
    allow(folder.path(), 0o755);
    allow(&models, 0o333);
    let mut command = std::process::Command::new(&binary);
    command.args(["in", "out"]).current_dir(&models);
    // The superuser may read every folder: the tool runs as nobody.
    let is_root = fs::read_dir(&models).is_ok();
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    allow(&models, 0o755);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("out is written, but after a power failure the old file"), "{text}");
    assert!(models.join("out").exists() && models.join("out.data").exists());
}

/// A file that is written to while it is read is noticed, so that nothing is made of it.
#[test]
fn a_file_that_changes_while_it_is_read_is_no_model_any_more() {
    use acb_fuse::onnx::map::MappedFile;
    use acb_fuse::onnx::storage::{Links, Storage};
    type Spoil = fn(&Path);
    let append = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes.push(0);
        fs::write(path, bytes).unwrap();
    };
    let replace = |path: &Path| {
        let other = path.with_extension("other");
        fs::copy(path, &other).unwrap();
        fs::rename(other, path).unwrap();
    };
    let later = |path: &Path| {
        let time = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    };
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    let cases: [(&str, Spoil, bool); 5] = [
        ("nothing", |_| (), false),
        ("longer", append, true),
        ("another file", replace, true),
        ("written to", later, true),
        ("gone", remove, true),
    ];
    for (case, spoil, expected) in cases {
        for of_model in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            arranged(folder.path(), "in = beside w");
            let path = folder.path().join("in");
            let map = MappedFile::of(&path).unwrap();
            let storage = Storage::in_folder(folder.path(), Links::Confined).of_model(&map);
            storage.side_file("w").unwrap();
            spoil(&if of_model { path } else { folder.path().join("w") });
            assert_eq!(storage.changed().is_some(), expected, "{case}, the model: {of_model}");
        }
    }
}

/// The same through the tool: a model or side file that is written to while it is verified, and
/// a target that somebody else creates meanwhile.
#[test]
fn what_changes_meanwhile_is_neither_read_on_nor_replaced() {
    use acb_fuse::{Endpoint, Options, Progress, convert};
    use std::sync::Mutex;
    /// The file that changes when both models begin to run.
    static SPOILED: Mutex<Option<std::path::PathBuf>> = Mutex::new(None);
    for (spoiled, said) in
        [("in", "in: it changed"), ("out", "out: it changed"), ("w", "w: it changed")]
    {
        let folder = tempfile::tempdir().unwrap();
        arranged(folder.path(), "in = beside w");
        *SPOILED.lock().unwrap() = Some(folder.path().join(spoiled));
        let mut options = Options::default();
        options.progress = |progress| {
            let spoiled = SPOILED.lock().unwrap().take_if(|_| progress == Progress::Running);
            if let Some(spoiled) = spoiled {
                let mut bytes = fs::read(&spoiled).unwrap_or_default();
                bytes.push(0);
                fs::write(&spoiled, bytes).unwrap();
            }
        };
        let [input, output] = ["in", "out"].map(|name| Endpoint::File(folder.path().join(name)));
        let error = convert(&input, Some(&output), &options).unwrap_err().error;
        assert!(error.to_string().contains(said) && error.may_pass(), "{error}");
        let left: Vec<String> = below(folder.path()).into_keys().collect();
        let expected: &[&str] = if spoiled == "out" { &["in", "out", "w"] } else { &["in", "w"] };
        assert_eq!(left, expected, "{spoiled}");
    }
}
