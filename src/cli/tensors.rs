//! Given tensors, on which the models are run instead of random ones.
//!
//! Knows files and their names; the library decides whether a tensor fits a model.

use std::fs;
use std::io;
use std::path::Path;

use acb_fuse::{Array, Error, Which, tensor_from_onnx};

use super::exit::Exit;
use super::npy;

/// The tensors of one `--input`, each with the model input that it is for.
pub type Given = Vec<(Which, Array)>;

/// Reads the tensors of an argument: `NAME=FILE.npy`, `NAME=FILE.pb`, `FILE.npz` with an array
/// for each input, or a folder with `input_0.pb`, `input_1.pb`, …, as in ONNX's test data.
///
/// # Errors
/// Returns an error if a file cannot be read, or holds no tensor.
pub fn given(argument: &str) -> Result<Given, Exit> {
    let whole = Path::new(argument);
    if whole.is_dir() {
        return folder(whole);
    }
    if whole.extension().is_some_and(|end| end == "npz") {
        let arrays = npy::read_archive(&read(whole)?).map_err(|why| wrong(whole, &why))?;
        return Ok(arrays.into_iter().map(|(name, array)| (Which::Named(name), array)).collect());
    }
    // Both names and paths may contain `=`.
    let part = |at: usize| {
        let (name, file) = argument.split_at(at);
        Some((name, Path::new(file.strip_prefix('=')?)))
    };
    let parts = || argument.match_indices('=').filter_map(|(at, _)| part(at));
    let Some((name, file)) =
        parts().find(|(_, file)| file.is_file()).or_else(|| parts().next_back())
    else {
        return Err(wrong(whole, "expected NAME=FILE.npy, NAME=FILE.pb, FILE.npz, or a folder"));
    };
    let bytes = read(file)?;
    let array = match file.extension().and_then(|end| end.to_str()) {
        Some("pb") => tensor_from_onnx(&bytes),
        _ => npy::read(&bytes),
    };
    Ok(vec![(Which::Named(name.to_owned()), array.map_err(|why| wrong(file, &why))?)])
}

/// Reads a folder of ONNX's test data, in which the number in a file name is that of the input.
fn folder(folder: &Path) -> Result<Given, Exit> {
    let mut given = Vec::new();
    loop {
        let file = folder.join(format!("input_{}.pb", given.len()));
        if matches!(file.metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
        let array = tensor_from_onnx(&read(&file)?).map_err(|why| wrong(&file, &why))?;
        given.push((Which::Numbered(given.len()), array));
    }
    if given.is_empty() {
        return Err(wrong(folder, "there is no input_0.pb in it"));
    }
    Ok(given)
}

fn read(file: &Path) -> Result<Vec<u8>, Exit> {
    let unread = |source| Error::Read { file: file.display().to_string(), source }.into();
    fs::read(file).map_err(unread)
}

/// The error of a `file` that holds no tensor.
fn wrong(file: &Path, why: &str) -> Exit {
    Exit::of_usage(format!("--input {}: {why}", file.display()))
}
