//! Tensors that the models are run on instead of random ones.

use std::fs;
use std::path::Path;

use acb_fuse::engine::Array;
use acb_fuse::onnx::proto::TensorProto;
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor::{self, Float};
use ndarray::ArrayD;
use prost::Message;

use super::npy;

/// Named tensors of one `--input`.
pub type Given = Vec<(String, Array)>;

/// `NAME=FILE.npy`, `NAME=FILE.pb`, `FILE.npz` with an array per input, or a folder with
/// `input_0.pb`, `input_1.pb`, …, as ONNX's test data has it.
pub fn given(argument: &str) -> Result<Given, String> {
    let whole = Path::new(argument);
    if whole.is_dir() {
        return folder(whole);
    }
    if whole.extension().is_some_and(|end| end == "npz") {
        let bytes = fs::read(whole).map_err(|error| format!("{argument}: {error}"))?;
        return npy::read_archive(&bytes).map_err(|why| format!("{argument}: {why}"));
    }
    let (name, file) = argument
        .rsplit_once('=')
        .ok_or("expected NAME=FILE.npy, NAME=FILE.pb, FILE.npz, or a folder")?;
    let bytes = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let array = match Path::new(file).extension().and_then(|end| end.to_str()) {
        Some("pb") => stored(&bytes).map(|(_, array)| array),
        _ => npy::read(&bytes),
    };
    Ok(vec![(name.to_owned(), array.map_err(|why| format!("{file}: {why}"))?)])
}

fn folder(folder: &Path) -> Result<Given, String> {
    let mut given = Vec::new();
    while let Ok(bytes) = fs::read(folder.join(format!("input_{}.pb", given.len()))) {
        let wrong = |why| format!("{}/input_{}.pb: {why}", folder.display(), given.len());
        let (name, array) = stored(&bytes).map_err(wrong)?;
        if name.is_empty() {
            return Err(wrong("it does not say which input it is".to_owned()));
        }
        given.push((name, array));
    }
    match given.is_empty() {
        true => Err(format!("{}: there is no input_0.pb in it", folder.display())),
        false => Ok(given),
    }
}

/// A tensor as ONNX writes it.
fn stored(bytes: &[u8]) -> Result<(String, Array), String> {
    let stored = TensorProto::decode(bytes).map_err(|error| error.to_string())?;
    let array = match Float::from_onnx(stored.data_type()) {
        Some(_) => tensor::floats(&stored, &Storage::default()).map(Array::Float),
        None => integers(&stored),
    };
    Ok((stored.name().to_owned(), array.map_err(|error| error.to_string())?))
}

fn integers(stored: &TensorProto) -> Result<Array, tensor::TensorError> {
    let (values, dims) = (tensor::integers(stored, &Storage::default())?, tensor::dims(stored)?);
    // Both were checked against each other.
    Ok(Array::Int(ArrayD::from_shape_vec(dims, values).unwrap_or_default()))
}
