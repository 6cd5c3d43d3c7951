//! Fuzzing of side files: whatever a model calls them, nothing outside its folder is read, and
//! nothing outside the folder of the output is written.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use acb_fuse::onnx::proto::tensor_proto::{DataLocation, DataType};
use acb_fuse::onnx::proto::{StringStringEntryProto, TensorProto};
use acb_fuse::onnx::storage::{DataPlace, Links, Storage};
use acb_fuse::onnx::tensor;
use acb_fuse::onnx::write;
use acb_fuse::{Options, convert};
use prost::Message;

use super::choices::Choices;

/// Fills every file outside the model's folder, and occurs in no file inside it.
const SECRET: u8 = 0xee;

/// Pieces of locations: names that exist, and paths that lead elsewhere.
const PARTS: &[&str] = &[
    "weights.bin",
    "inside",
    "inside/more.bin",
    "..",
    "../",
    "/",
    "//",
    ".",
    "./",
    "\\",
    "\\..",
    "secret.bin",
    "../secret.bin",
    "../outside/secret.bin",
    "link_to_secret",
    "link_to_outside",
    "link_to_outside/secret.bin",
    "link_inside",
    "link_to_root",
    "loop",
    "dangling",
    "{root}",
    "{root}/model/weights.bin",
    "{root}/secret.bin",
    "{root}/model/../secret.bin",
    "model.onnx",
    "inside/../..",
    "inside/link_up",
    "inside/link_up/secret.bin",
    "\0",
    "~",
    "%2e%2e/",
    "file://",
    "C:",
    "weights.bin\0",
    " ",
    "weights.bin/",
    "weights.bin/..",
    "out",
    "/etc/hostname",
    "/dev/stdin",
    "/proc/self/environ",
    "…",
];

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "4",
    "16",
    "63",
    "64",
    "65",
    "4096",
    "-1",
    "-64",
    "+4",
    " 4",
    "4 ",
    "1e1",
    "0x10",
    "4.0",
    "٤",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "18446744073709551552",
    "99999999999999999999999999",
    "",
];

/// See the module's documentation.
pub fn external_data(data: &[u8]) {
    let choices = &mut Choices::Bytes(data);
    let root = super::scratch();
    lay_out(root.path());
    let tensors: Vec<TensorProto> =
        (0..choices.below(4) + 1).map(|index| tensor(choices, root.path(), index)).collect();
    let model = root.path().join("model");
    let storage = if choices.once_in(8) {
        Storage::default()
    } else {
        Storage::in_folder(&model, Links::Confined)
    };
    for tensor in &tensors {
        check_read(tensor, &storage, &model);
    }
    check_copied(&tensors, root.path());
}

/// Creates `model/` with files that may be read, and around it files that may not.
fn lay_out(root: &Path) {
    let model = root.join("model");
    for folder in ["model/inside", "outside", "out"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let allowed: Vec<u8> = (1..=64).collect();
    fs::write(model.join("weights.bin"), &allowed).unwrap();
    fs::write(model.join("inside/more.bin"), &allowed[..16]).unwrap();
    fs::write(root.join("secret.bin"), [SECRET; 64]).unwrap();
    fs::write(root.join("outside/secret.bin"), [SECRET; 64]).unwrap();
    for (link, to) in [
        ("link_to_secret", "../secret.bin"),
        ("link_to_outside", "../outside"),
        ("link_to_root", "/"),
        ("link_inside", "weights.bin"),
        ("inside/link_up", "../.."),
        ("loop", "loop"),
        ("dangling", "nothing"),
    ] {
        symlink(to, model.join(link)).unwrap();
    }
}

fn tensor(choices: &mut Choices, root: &Path, index: usize) -> TensorProto {
    let mut entries = Vec::new();
    let mut entry = |key: &str, value: String| {
        entries.push(StringStringEntryProto { key: Some(key.into()), value: Some(value) });
    };
    if !choices.once_in(8) {
        let location =
            if choices.once_in(3) { choices.pick(PARTS).to_owned() } else { choices.text(PARTS) };
        entry("location", location.replace("{root}", root.to_str().unwrap()));
    }
    for key in ["offset", "length", "checksum"] {
        if choices.once_in(2) {
            let number = if choices.once_in(4) {
                choices.text(NUMBERS)
            } else {
                choices.pick(NUMBERS).to_owned()
            };
            entry(key, number);
        }
    }
    if choices.once_in(8) {
        let twin = choices.pick(PARTS).to_owned();
        entry("location", twin);
    }
    TensorProto {
        name: Some(format!("w{index}")),
        dims: vec![choices.pick(&[1, 4, 16, 0, -1, i64::MAX])],
        data_type: Some(choices.pick(&[DataType::Float, DataType::Int64, DataType::Bool]).into()),
        data_location: Some(DataLocation::External.into()),
        external_data: entries,
        raw_data: choices.once_in(8).then(|| vec![1; 4].into()),
        ..TensorProto::default()
    }
}

/// Writes a model that adds up one float of each of these side files; `|` separates several
/// locations of one tensor.
pub fn write_model(path: &Path, locations: &[&str]) {
    let entry = |location: &str| StringStringEntryProto {
        key: Some("location".into()),
        value: Some(location.into()),
    };
    let tensor = |(index, places): (usize, &&str)| TensorProto {
        name: Some(format!("w{index}")),
        dims: vec![1],
        data_type: Some(DataType::Float.into()),
        data_location: Some(DataLocation::External.into()),
        external_data: places.split('|').map(entry).collect(),
        ..TensorProto::default()
    };
    let tensors: Vec<TensorProto> = locations.iter().enumerate().map(tensor).collect();
    fs::write(path, sum_of(&tensors)).unwrap();
}

fn sum_of(tensors: &[TensorProto]) -> Vec<u8> {
    let names: Vec<&str> = tensors.iter().map(TensorProto::name).collect();
    let sum = write::node("Sum", "sum", &names, "y", vec![]);
    write::model(17, vec![], vec![sum], tensors.to_vec(), &["y"]).encode_to_vec()
}

fn check_read(tensor: &TensorProto, storage: &Storage, model: &Path) {
    let Ok(Some(place)) = DataPlace::of(tensor) else { return };
    let allowed = || [fs::read(model.join("weights.bin")), fs::read(model.join("inside/more.bin"))];
    if let Ok(bytes) = storage.data(&place) {
        let holds = |file: &[u8]| bytes.is_empty() || file.windows(bytes.len()).any(|w| w == bytes);
        let found = allowed().into_iter().flatten().any(|file| holds(&file));
        assert!(found, "{:?} gave {bytes:?}", tensor.external_data);
    }
    if let Ok(file) = storage.side_file(place.location()) {
        assert!(!file.bytes().contains(&SECRET), "{:?}", place.location());
    }
    if let Ok(inlined) = tensor::inlined(tensor, storage) {
        assert!(!inlined.raw_data().contains(&SECRET), "{:?}", tensor.external_data);
    }
    let _ = (tensor::floats(tensor, storage), tensor::integers(tensor, storage));
}

/// Converts a model of these tensors into another folder, then within its own folder, and
/// checks that no other file changes and that only readable files are copied.
fn check_copied(tensors: &[TensorProto], root: &Path) {
    let input = root.join("model/model.onnx");
    fs::write(&input, sum_of(tensors)).unwrap();
    let before = files(root);
    let mut options = Options::default();
    options.verify = false;
    for output in ["out/converted.onnx", "model/converted.onnx"] {
        let place = |path| acb_fuse::Endpoint::File(path);
        let done = convert(&place(input.clone()), Some(&place(root.join(output))), &options);
        let mut after = files(root);
        let written = after.remove(&root.join(output));
        assert_eq!(written.is_some(), done.is_ok(), "{output}");
        after.retain(|path, content| {
            let copied = path.starts_with(root.join("out")) && !before.contains_key(path);
            let allowed = |file| fs::read(root.join("model").join(file)).unwrap() == *content;
            let content_is_allowed =
                || ["weights.bin", "inside/more.bin", "model.onnx"].into_iter().any(allowed);
            assert!(!copied || content_is_allowed(), "{path:?} was copied");
            !copied
        });
        let mut expected = before.clone();
        expected.retain(|path, _| path != &root.join(output));
        assert_eq!(after.len(), expected.len(), "files came or went");
        assert!(after == expected, "another file was changed");
        let _ = fs::remove_file(root.join(output));
    }
}

/// Returns all files below `folder` with their content; links are not followed.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    found
}
