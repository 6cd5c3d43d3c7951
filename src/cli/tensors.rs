//! Tensors that the models are run on instead of random ones.
//!
//! Knows files and what their names say; whether a tensor fits a model is for the library to
//! say.

use std::fs;
use std::path::Path;

use acb_fuse::{Array, Which, tensor_from_onnx};

use super::npy;

/// Tensors of one `--input`, and what they are for.
pub type Given = Vec<(Which, Array)>;

/// `NAME=FILE.npy`, `NAME=FILE.pb`, `FILE.npz` with an array per input, or a folder with
/// `input_0.pb`, `input_1.pb`, …, as ONNX's test data has it.
pub fn given(argument: &str) -> Result<Given, String> {
    let whole = Path::new(argument);
    if whole.is_dir() {
        return folder(whole);
    }
    if whole.extension().is_some_and(|end| end == "npz") {
        let bytes = fs::read(whole).map_err(|error| format!("{argument}: {error}"))?;
        let arrays = npy::read_archive(&bytes).map_err(|why| format!("{argument}: {why}"))?;
        return Ok(arrays.into_iter().map(|(name, array)| (Which::Named(name), array)).collect());
    }
    let (name, file) = argument
        .rsplit_once('=')
        .ok_or("expected NAME=FILE.npy, NAME=FILE.pb, FILE.npz, or a folder")?;
    let bytes = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let array = match Path::new(file).extension().and_then(|end| end.to_str()) {
        Some("pb") => tensor_from_onnx(&bytes),
        _ => npy::read(&bytes),
    };
    Ok(vec![(Which::Named(name.to_owned()), array.map_err(|why| format!("{file}: {why}"))?)])
}

/// As ONNX has it, the number in a file's name is that of the input.
fn folder(folder: &Path) -> Result<Given, String> {
    let mut given = Vec::new();
    while let Ok(bytes) = fs::read(folder.join(format!("input_{}.pb", given.len()))) {
        let wrong = |why| format!("{}/input_{}.pb: {why}", folder.display(), given.len());
        given.push((Which::Numbered(given.len()), tensor_from_onnx(&bytes).map_err(wrong)?));
    }
    if given.is_empty() {
        return Err(format!("{}: there is no input_0.pb in it", folder.display()));
    }
    Ok(given)
}
