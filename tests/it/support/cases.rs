//! Cases that are written as text: `fixtures/cases/<name>.onnxtxt`, with what the tool says of
//! each in `<name>.txt` beside it. Adding one needs no code.
//!
//! Remarks in a text say what is asked besides a run without flags:
//!
//! ```text
//! # sizes: N = 2, H = 9          the open sizes of inputs; by default, N = 2, H = 10, W = 10
//! # run: --input-shape x=1,4,9,9 once more, with flags
//! ```
//!
//! Each case becomes a fixture like any other, in a folder of the build: `model.onnx`, inputs, and
//! the outputs that the interpreter computes in float64.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use acb_fuse::engine::Array;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::proto::tensor_shape_proto::dimension::Value;
use acb_fuse::onnx::proto::{ModelProto, TensorProto, ValueInfoProto, type_proto};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor::{from_floats, from_integers};
use ndarray::ArrayD;
use prost::Message;

use super::engine::at_inference;
use super::fixtures::{has_extension, sorted};
use super::naive::{self, Stop};
use super::text;
use super::text::weights::normal;

pub struct Case {
    /// The path of the text.
    pub text: PathBuf,
    /// The path of the model that is made of it.
    pub model: PathBuf,
    /// Flags of each run; the first one has none.
    pub runs: Vec<Vec<String>>,
    /// What the interpreter does not know, if it cannot judge.
    pub unknown: Option<String>,
}

/// Returns all cases, made once in a process; under `CASE=word cargo test`, those with the word in
/// their names.
pub fn all() -> &'static [Case] {
    static ALL: LazyLock<Vec<Case>> = LazyLock::new(|| {
        let texts = sorted(Path::new("fixtures/cases"));
        let word = std::env::var("CASE").unwrap_or_default();
        let is_asked = |path: &&PathBuf| {
            has_extension(path, "onnxtxt") && path.to_string_lossy().contains(&word)
        };
        texts.iter().filter(is_asked).map(|text| made(text)).collect()
    });
    &ALL
}

/// Returns the path of the model of the case `name`.
pub fn model(name: &str) -> String {
    let found = all().iter().find(|case| case.text.file_stem().is_some_and(|stem| stem == name));
    let case = found.unwrap_or_else(|| panic!("there is no case {name}"));
    case.model.to_str().unwrap().to_owned()
}

fn made(path: &Path) -> Case {
    let text = fs::read_to_string(path).unwrap();
    let model = text::model(&text).unwrap_or_else(|what| panic!("{}, {what}", path.display()));
    let name = path.file_stem().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cases").join(name);
    fs::create_dir_all(&folder).unwrap();
    for old in sorted(&folder) {
        fs::remove_file(old).unwrap();
    }
    let save = |name: String, bytes: Vec<u8>| fs::write(folder.join(name), bytes).unwrap();
    save("model.onnx".to_owned(), model.encode_to_vec());

    let inputs = inputs(&model, &sizes(&text));
    let unknown = match naive::outputs(&at_inference(model), &Storage::default(), &inputs) {
        Ok(outputs) => {
            for (kind, arrays) in [("input", &inputs), ("output", &outputs)] {
                for (index, array) in arrays.iter().enumerate() {
                    save(format!("{kind}_{index}.pb"), stored(array).encode_to_vec());
                }
            }
            None
        }
        Err(Stop::Unknown(what)) => Some(what),
        Err(Stop::Wrong(why)) => panic!("{}: {why}", path.display()),
    };
    let flags =
        remarks(&text, "run").map(|run| run.split_whitespace().map(str::to_owned).collect());
    let runs = std::iter::once(vec![]).chain(flags).collect();
    Case { text: path.to_owned(), model: folder.join("model.onnx"), runs, unknown }
}

fn remarks<'t>(text: &'t str, key: &str) -> impl Iterator<Item = &'t str> {
    let remarks = text.lines().filter_map(|line| line.trim_start().strip_prefix("# "));
    remarks.filter_map(move |remark| remark.strip_prefix(key)?.strip_prefix(": "))
}

fn sizes(text: &str) -> HashMap<String, usize> {
    let usual = [("N", 2), ("H", 10), ("W", 10)].map(|(name, size)| (name.to_owned(), size));
    let said = remarks(text, "sizes").flat_map(|sizes| sizes.split(',')).map(|entry| {
        let (name, size) = entry.split_once('=').unwrap_or_else(|| panic!("no size: {entry}"));
        (name.trim().to_owned(), size.trim().parse().unwrap())
    });
    usual.into_iter().chain(said).collect()
}

/// Returns all inputs without a default: floats that follow from the name, or ones for integers.
fn inputs(model: &ModelProto, sizes: &HashMap<String, usize>) -> Vec<Array> {
    let graph = model.graph.as_ref().unwrap();
    let is_stored =
        |input: &&ValueInfoProto| graph.initializer.iter().any(|t| t.name() == input.name());
    let given = graph.input.iter().filter(|input| !is_stored(input));
    let array = |input: &ValueInfoProto| {
        let declared = input.r#type.as_ref().and_then(|declared| declared.value.as_ref());
        let Some(type_proto::Value::TensorType(tensor)) = declared else {
            panic!("`{}` is no tensor", input.name());
        };
        let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
        let size = dims.map(|dim| match &dim.value {
            Some(Value::DimValue(size)) => *size as usize,
            Some(Value::DimParam(name)) => {
                *sizes.get(name).unwrap_or_else(|| panic!("how large is `{name}`?"))
            }
            None => panic!("a size of `{}` has no name", input.name()),
        });
        let shape: Vec<usize> = size.collect();
        match Float::from_onnx(tensor.elem_type()) {
            Some(float) => {
                Array::Float(normal(input.name(), &shape).mapv(|value| float.round(value)))
            }
            None => Array::Int(ArrayD::from_elem(shape, 1)),
        }
    };
    given.map(array).collect()
}

fn stored(array: &Array) -> TensorProto {
    match array {
        Array::Float(values) => from_floats("", values, Float::F64),
        Array::Int(values) => {
            let flat: Vec<i64> = values.iter().copied().collect();
            let dims = values.shape().iter().map(|&size| size as i64).collect();
            TensorProto { dims, ..from_integers("", &flat) }
        }
    }
}
