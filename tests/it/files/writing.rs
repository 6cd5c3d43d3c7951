//! Files on disk are in the old state or in the new one, never between, and no others are left.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use acb_fuse::onnx::proto::tensor_proto::DataLocation;
use acb_fuse::onnx::proto::{ModelProto, StringStringEntryProto};
use prost::Message;

use crate::support::counts;
use crate::support::engine;
use crate::support::fixtures;
use crate::support::tool::tool;

const NETWORK: &str = "fixtures/networks/resnet18/torchscript_kept_static.onnx";
/// A model whose weights lie in a side file.
const BESIDE: &str = "fixtures/networks/resnet18/dynamo_kept_static.onnx";

fn run(arguments: &[&Path]) -> Output {
    tool().args(arguments).output().unwrap()
}

/// Returns the files in a folder by name, with or without temporary ones.
fn files(folder: &Path, with_temporary: bool) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    let wanted = named.filter(|(name, _)| with_temporary || !is_temporary(name));
    wanted.map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

fn is_temporary(name: &str) -> bool {
    name.starts_with(".acb-fuse-") && name.ends_with(".tmp")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Copies a model into a folder of its own, with its side file, if any, as `model.onnx.data`.
fn copied(model: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let side_file = format!("{model}.data");
    if !Path::new(&side_file).exists() {
        fs::copy(model, &path).unwrap();
        return (folder, path);
    }
    fs::copy(side_file, folder.path().join("model.onnx.data")).unwrap();
    renamed_side_file(Path::new(model), &path, "model.onnx.data");
    (folder, path)
}

/// Writes `model` to `to`, with the side file of its weights called `location`.
fn renamed_side_file(model: &Path, to: &Path, location: &str) {
    let mut model = counts::decoded(model);
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        for entry in tensor.external_data.iter_mut().filter(|entry| entry.key() == "location") {
            entry.value = Some(location.to_owned());
        }
    }
    fs::write(to, model.encode_to_vec()).unwrap();
}

/// After a kill at any moment, the target and its side file are in the old state or in the new
/// one, and what the run leaves behind does not disturb the next run.
#[test]
fn killed_at_any_moment_there_is_the_old_state_or_the_new_one() {
    for model in [NETWORK, BESIDE] {
        let (folder, path) = copied(model);
        let began = Instant::now();
        let old = files(folder.path(), true);
        assert!(run(&[&path, &path]).status.success());
        let whole = began.elapsed();
        let new = files(folder.path(), true);
        assert_ne!(old, new);
        // The side file is in its place first, when no model names it yet.
        let mut between = new.clone();
        between.insert("model.onnx".into(), old["model.onnx"].clone());
        let (mut unchanged, mut finished) = (0, 0);
        for step in 0..40 {
            let (folder, path) = copied(model);
            let mut child = started(&path);
            thread::sleep(whole * step / 30);
            // However slow the machine is now, some runs come to their end.
            if step < 38 {
                child.kill().unwrap();
            }
            child.wait().unwrap();
            let found = files(folder.path(), false);
            unchanged += usize::from(found == old);
            finished += usize::from(found == new);
            assert!(found == old || found == new || found == between, "{model} at step {step}");
            assert!(run(&[&path, &path]).status.success(), "{model} after step {step}");
            let again = files(folder.path(), false);
            assert_eq!(again["model.onnx"], new["model.onnx"], "{model} after step {step}");
        }
        assert!(unchanged > 0 && finished > 0, "{unchanged} unchanged, {finished} finished");
    }
}

/// Starts the tool to replace the model at `path`.
fn started(path: &Path) -> Child {
    let mut tool = tool();
    tool.args([path, path]).stdout(Stdio::null()).stderr(Stdio::null());
    tool.spawn().unwrap()
}

/// When told to end, the tool removes its temporary files.
#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_nothing() {
    let mut interrupted = 0;
    for step in 0..12 {
        let (folder, path) = copied(NETWORK);
        let old = files(folder.path(), true);
        let mut child = started(&path);
        thread::sleep(Duration::from_millis(20 * step));
        let signal = ["-TERM", "-INT", "-HUP"][step as usize % 3];
        let killed = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let status = child.wait().unwrap();
        let found = files(folder.path(), true);
        assert!(found.keys().eq(["model.onnx"]), "{:?} at step {step}", found.keys());
        interrupted += usize::from(!status.success() && found == old);
    }
    assert!(interrupted > 0);
}

/// A full disk: here a limit on the size of files that a process may write.
#[cfg(unix)]
#[test]
fn a_write_that_fails_leaves_the_old_file() {
    let (folder, path) = copied(NETWORK);
    let old = files(folder.path(), true);
    // `ulimit -f` counts blocks of 512 bytes; without the trap the signal would end the process.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(tool().get_program())
        .args([&path, &path])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot be written"), "{}", stderr(&output));
    assert_eq!(files(folder.path(), true), old);
}

/// Each row: a target that no file can replace, the exit code, and what is said.
#[cfg(unix)]
#[test]
fn targets_that_cannot_be_written_stay_as_they_are() {
    let (folder, path) = copied(BESIDE);
    let inside = |name: &str| folder.path().join(name);
    fs::create_dir(inside("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(inside("fifo")).status().unwrap().success());
    std::os::unix::fs::symlink("folder", inside("link_to_a_folder")).unwrap();
    for (target, code, said) in [
        (inside("folder"), 8, "it is a directory"),
        (inside("link_to_a_folder"), 8, "it is a directory"),
        (inside("fifo"), 8, "it is not a regular file"),
        (PathBuf::from("/dev/null"), 8, "it is not a regular file"),
        (PathBuf::from("/proc/out.onnx"), 8, "cannot be written"),
        (inside("no/such/folder.onnx"), 8, "No such file or directory"),
        (inside("model.onnx.data"), 2, "it holds weights of the model that is read"),
    ] {
        let old = |path: &Path| path.symlink_metadata().map(|there| there.file_type()).ok();
        let before = (old(&target), files_only(folder.path()));
        for asked in [&[][..], &["--force"], &["--no-verify", "--force"]] {
            let output = tool().args([&path, &target]).args(asked).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{target:?}: {}", stderr(&output));
            assert!(stderr(&output).contains(said), "{target:?}: {}", stderr(&output));
            assert_eq!((old(&target), files_only(folder.path())), before, "{target:?}");
        }
    }
}

fn files_only(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let regular = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let file = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    regular.map(file).collect()
}

#[test]
fn an_existing_target_is_replaced_unless_that_is_forbidden() {
    let (folder, path) = copied(NETWORK);
    let out = folder.path().join("out.onnx");
    fs::copy(&path, &out).unwrap();
    let old = fs::read(&out).unwrap();
    let refused = tool().arg(&path).arg(&out).arg("--no-clobber").output().unwrap();
    assert_eq!(refused.status.code(), Some(8));
    assert!(stderr(&refused).contains("it exists already"), "{}", stderr(&refused));
    assert_eq!(fs::read(&out).unwrap(), old);
    assert!(run(&[&path, &out]).status.success());
    assert_ne!(fs::read(&out).unwrap(), old);
    fs::remove_file(&out).unwrap();
    assert!(tool().arg(&path).arg(&out).arg("--no-clobber").status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn who_could_read_the_old_file_can_read_the_new_one() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let (folder, path) = copied(NETWORK);
    let out = folder.path().join("out.onnx");
    for wanted in [0o640, 0o600, 0o444] {
        fs::write(&out, b"").unwrap();
        fs::set_permissions(&out, fs::Permissions::from_mode(wanted)).unwrap();
        assert!(run(&[&path, &out]).status.success());
        assert_eq!(mode(&out), wanted);
        fs::remove_file(&out).unwrap();
    }
}

/// A link is replaced by the file; what the link leads to, perhaps in a cache, stays.
#[cfg(unix)]
#[test]
fn a_target_that_is_a_link_is_replaced_itself() {
    let (folder, path) = copied(NETWORK);
    let (out, blob) = (folder.path().join("out.onnx"), folder.path().join("blob"));
    fs::copy(&path, &blob).unwrap();
    for content in [&blob, &folder.path().join("nowhere")] {
        std::os::unix::fs::symlink(content, &out).unwrap();
        assert!(run(&[&path, &out]).status.success());
        assert_eq!(fs::read(&blob).unwrap(), fs::read(&path).unwrap());
        assert!(!out.is_symlink());
        fs::remove_file(&out).unwrap();
    }
}

/// A model that changes gets a new side file; no older one is touched.
#[test]
fn side_files_are_new_and_never_replace_others() {
    let (folder, path) = copied(BESIDE);
    let old = files(folder.path(), true);
    assert!(run(&[&path, &path]).status.success());
    let once = files(folder.path(), true);
    assert!(once.keys().eq(["model.onnx", "model.onnx.2.data", "model.onnx.data"]));
    assert_eq!(once["model.onnx.data"], old["model.onnx.data"]);
    // The new model needs only the new side file.
    fs::remove_file(folder.path().join("model.onnx.data")).unwrap();
    let (inputs, expected) =
        (fixtures::data(Path::new(BESIDE), "input"), fixtures::data(Path::new(BESIDE), "output"));
    let found = engine::run(&path, folder.path(), &inputs).unwrap();
    assert!(acb_fuse::verify::compare::relative_error(&expected[0], &found[0]) < 1e-5);
    // The same again from the old files: the side file finds its place taken by itself.
    for (name, content) in &old {
        fs::write(folder.path().join(name), content).unwrap();
    }
    assert!(run(&[&path, &path]).status.success());
    assert_eq!(files(folder.path(), true), once);
}

/// The side files of a model that does not change never replace another file either.
#[test]
fn a_side_file_is_not_copied_over_another_one() {
    let (folder, path) = copied(BESIDE);
    assert!(run(&[&path, &path]).status.success());
    let elsewhere = tempfile::tempdir().unwrap();
    let side_file = elsewhere.path().join("model.onnx.2.data");
    fs::write(&side_file, b"of another model").unwrap();
    let output = run(&[&path, &elsewhere.path().join("out.onnx")]);
    assert_eq!(output.status.code(), Some(8), "{}", stderr(&output));
    assert!(stderr(&output).contains("would replace another file"), "{}", stderr(&output));
    assert_eq!(fs::read(&side_file).unwrap(), b"of another model");
    assert_eq!(files(elsewhere.path(), true).len(), 1);
    drop(folder);
}

/// Each row: a case, the location, what is put there, and whether it is read without and with
/// `--follow-links`.
#[cfg(unix)]
#[test]
fn side_files_are_confined_to_the_models_folder() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.data");
    fs::copy(format!("{BESIDE}.data"), &secret).unwrap();
    type Arrange = fn(&Path, &Path);
    let cases: [(&str, &str, Arrange, bool, bool); 14] = [
        (
            "beside",
            "w.data",
            |folder, secret| drop(fs::copy(secret, folder.join("w.data"))),
            true,
            true,
        ),
        (
            "in a folder",
            "sub/w.data",
            |folder, secret| {
                fs::create_dir(folder.join("sub")).unwrap();
                fs::copy(secret, folder.join("sub/w.data")).unwrap();
            },
            true,
            true,
        ),
        (
            "by a dot",
            "./w.data",
            |folder, secret| drop(fs::copy(secret, folder.join("w.data"))),
            true,
            true,
        ),
        (
            "a link inside",
            "w.data",
            |folder, secret| {
                fs::copy(secret, folder.join("real.data")).unwrap();
                symlink("real.data", folder.join("w.data")).unwrap();
            },
            true,
            true,
        ),
        (
            "a link outside",
            "w.data",
            |folder, secret| symlink(secret, folder.join("w.data")).unwrap(),
            false,
            true,
        ),
        (
            "a linked folder",
            "sub/secret.data",
            |folder, secret| {
                symlink(secret.parent().unwrap(), folder.join("sub")).unwrap();
            },
            false,
            true,
        ),
        (
            "a hard link",
            "w.data",
            |folder, secret| fs::hard_link(secret, folder.join("w.data")).unwrap(),
            false,
            true,
        ),
        (
            "a named pipe",
            "w.data",
            |folder, _| {
                assert!(
                    Command::new("mkfifo").arg(folder.join("w.data")).status().unwrap().success()
                );
            },
            false,
            false,
        ),
        (
            "a device",
            "w.data",
            |folder, _| symlink("/dev/zero", folder.join("w.data")).unwrap(),
            false,
            false,
        ),
        (
            "a loop of links",
            "w.data",
            |folder, _| symlink("w.data", folder.join("w.data")).unwrap(),
            false,
            false,
        ),
        (
            "the parent",
            "../secret.data",
            |folder, secret| {
                fs::copy(secret, folder.parent().unwrap().join("secret.data")).unwrap();
            },
            false,
            false,
        ),
        (
            "the root",
            "/dev/shm/w.data",
            |folder, secret| drop(fs::copy(secret, folder.join("w.data"))),
            false,
            false,
        ),
        (
            "a NUL",
            "w.data\0",
            |folder, secret| drop(fs::copy(secret, folder.join("w.data"))),
            false,
            false,
        ),
        (
            "backslashes",
            "sub\\w.data",
            |folder, secret| drop(fs::copy(secret, folder.join("sub\\w.data"))),
            false,
            false,
        ),
    ];
    for (case, location, arrange, read, with_flag) in cases {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("model");
        fs::create_dir(&folder).unwrap();
        arrange(&folder, &secret);
        let path = folder.join("model.onnx");
        renamed_side_file(Path::new(BESIDE), &path, location);
        for (flags, expected) in [(&[][..], read), (&["--follow-links"], with_flag)] {
            let out = around.path().join("out.onnx");
            let output = tool().arg(&path).arg(&out).args(flags).output().unwrap();
            let code = if expected { 0 } else { 1 };
            assert_eq!(output.status.code(), Some(code), "{case} {flags:?}: {}", stderr(&output));
            assert_eq!(out.exists(), expected, "{case} {flags:?}");
            if expected {
                let said = String::from_utf8(output.stdout).unwrap();
                assert!(said.contains("run: 1 output of"), "{case} {flags:?}: {said}");
                fs::remove_file(out).unwrap();
            }
        }
    }
}

/// A model that comes through a pipe cannot say where its side file lies.
#[test]
fn side_files_do_not_go_through_pipes() {
    let from = |path: &str| Stdio::from(fs::File::open(path).unwrap());
    let piped = tool().args(["-", "-"]).stdin(from(BESIDE)).output().unwrap();
    assert_eq!(piped.status.code(), Some(1));
    assert!(stderr(&piped).contains("the model was read from a pipe"), "{}", stderr(&piped));
    let out = tool().args([BESIDE, "-"]).output().unwrap();
    assert_eq!((out.status.code(), out.stdout.len()), (Some(8), 0));
    assert!(stderr(&out).contains("cannot go through a pipe"), "{}", stderr(&out));
    // The report holds what the attempt took.
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let out = tool().args([BESIDE, "-", "--report"]).arg(&report).output().unwrap();
    assert_eq!(out.status.code(), Some(8));
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert!(report["seconds"]["write"].as_f64().unwrap() > 0.0, "{}", report["seconds"]);
    let bytes = acb_fuse::fuse(&fs::read(BESIDE).unwrap(), &acb_fuse::Options::default());
    let error = bytes.unwrap_err().to_string();
    assert!(error.contains("a model in bytes has none beside it"), "{error}");
    // Standard output to which nothing can be written.
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    if let Ok(full) = full {
        let output = tool().args([NETWORK, "-"]).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    }
}

/// Tensors of one model that share a place in a side file still share one afterwards.
#[test]
fn shared_places_stay_shared() {
    let (folder, path) = copied(BESIDE);
    let mut model = counts::decoded(&path);
    let graph = model.graph.as_mut().unwrap();
    let last = graph
        .initializer
        .iter()
        .rposition(|tensor| tensor.data_location() == DataLocation::External);
    let mut twin = graph.initializer[last.unwrap()].clone();
    twin.name = Some("twin".into());
    graph.initializer.push(twin);
    graph.node.push(acb_fuse::onnx::write::node("Identity", "", &["twin"], "copy", vec![]));
    let mut output = graph.output[0].clone();
    output.name = Some("copy".into());
    output.r#type = None;
    graph.output.push(output);
    fs::write(&path, model.encode_to_vec()).unwrap();
    let out = folder.path().join("out.onnx");
    let output = run(&[&path, &out]);
    assert!(output.status.success(), "{}", stderr(&output));
    let new = ModelProto::decode(&fs::read(&out).unwrap()[..]).unwrap();
    let mut places: BTreeMap<Vec<StringStringEntryPlace>, Vec<String>> = BTreeMap::new();
    for tensor in new.graph.unwrap().initializer {
        if tensor.data_location() == DataLocation::External {
            let place = tensor.external_data.iter().map(place_of).collect();
            places.entry(place).or_default().push(tensor.name().to_owned());
        }
    }
    assert!(places.values().any(|names| names.len() == 2), "{places:?}");
}

type StringStringEntryPlace = (String, String);

fn place_of(entry: &StringStringEntryProto) -> StringStringEntryPlace {
    (entry.key().to_owned(), entry.value().to_owned())
}
