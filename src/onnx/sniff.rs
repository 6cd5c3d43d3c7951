//! Recognizing files that are mistaken for ONNX models, with advice on how to get a model from
//! them.
//!
//! Knows how other formats begin, and of ONNX only that it is protobuf.

use std::path::Path;

use crate::onnx::wire;

/// A format that is mistaken for an ONNX model.
#[derive(Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What the file is, for messages.
    pub what: &'static str,
    /// Advice on how to get an ONNX model.
    pub remedy: &'static str,
}

/// A test whether bytes are of a format.
type Is = fn(&[u8]) -> bool;

/// The known formats; the first that matches counts.
const KINDS: &[(Is, Foreign)] = &[
    (
        |bytes| is_zip_with(bytes, "/data.pkl"),
        Foreign {
            what: "a PyTorch checkpoint or TorchScript archive",
            remedy: "build the model in Python, load it there, and write it with \
                     torch.onnx.export(model.eval(), (example_input,), \"model.onnx\")",
        },
    ),
    (
        |bytes| is_zip_with(bytes, "model.weights.h5"),
        Foreign {
            what: "a Keras model",
            remedy: "write it with keras.saving.load_model(…).export(\"model.onnx\", \
                     format=\"onnx\")",
        },
    ),
    (
        |bytes| is_zip_with(bytes, ".npy"),
        Foreign { what: "a NumPy archive", remedy: "it holds arrays and no graph" },
    ),
    (
        |bytes| bytes.starts_with(b"PK\x03\x04"),
        Foreign { what: "a zip archive", remedy: "unpack it" },
    ),
    (
        |bytes| bytes.starts_with(b"\x1f\x8b"),
        Foreign { what: "a gzip archive", remedy: "unpack it" },
    ),
    (
        |bytes| matches!(bytes, [0x80, 2..=5, ..]),
        Foreign {
            what: "a Python pickle, as old PyTorch checkpoints are",
            remedy: "build the model in Python, load it there, and write it with \
                     torch.onnx.export(model.eval(), (example_input,), \"model.onnx\")",
        },
    ),
    (
        |bytes| bytes.starts_with(b"\x89HDF\r\n"),
        Foreign {
            what: "an HDF5 file, as Keras writes it",
            remedy: "load the model in Python and write it with model.export(\"model.onnx\", \
                     format=\"onnx\") or tf2onnx",
        },
    ),
    (
        |bytes| bytes.get(4..8) == Some(b"TFL3"),
        Foreign {
            what: "a TensorFlow Lite model",
            remedy: "convert it with python -m tf2onnx.convert --tflite model.tflite --output \
                     model.onnx",
        },
    ),
    (
        |bytes| bytes.get(4..8) == Some(b"ORTM"),
        Foreign {
            what: "a model in ONNX Runtime's own format",
            remedy: "give the ONNX file that it was made of",
        },
    ),
    (
        |bytes| bytes.get(8..10) == Some(b"{\"") && bytes.get(4..8) == Some(&[0; 4]),
        Foreign {
            what: "a safetensors file",
            remedy: "it holds weights and no graph; build the model, load them, and export it to \
                     ONNX",
        },
    ),
    (
        |bytes| bytes.starts_with(b"GGUF"),
        Foreign { what: "a GGUF file", remedy: "export the model it was made of to ONNX" },
    ),
    (
        |bytes| bytes.starts_with(b"version https://git-lfs"),
        Foreign {
            what: "a pointer of Git LFS in the place of the file",
            remedy: "fetch it with git lfs pull",
        },
    ),
    (
        |bytes| begins_with_any(bytes, &["<!doctype html", "<html"]),
        Foreign { what: "a web page", remedy: "the download went wrong; look at it in a browser" },
    ),
    (
        |bytes| begins_with_any(bytes, &["<?xml", "<net"]),
        Foreign {
            what: "an XML file, as OpenVINO writes it",
            remedy: "give the ONNX file that it was made of",
        },
    ),
    (
        |bytes| begins_with_any(bytes, &["{", "ir_version:", "<"]),
        Foreign {
            what: "a text",
            remedy: "if it is an ONNX model, make the binary form with onnx.parser or \
                     google.protobuf",
        },
    ),
    (is_saved_model, SAVED_MODEL),
    (
        |bytes| is_list_of_messages(bytes) && holds(bytes, b"fetch") && holds(bytes, b"feed"),
        Foreign {
            what: "a PaddlePaddle program",
            remedy: "convert it with paddle2onnx --model_dir FOLDER --model_filename FILE \
                     --save_file model.onnx",
        },
    ),
    (
        |bytes| is_list_of_messages(bytes) && holds(bytes, b"Placeholder"),
        Foreign {
            what: "a frozen TensorFlow graph",
            remedy: "convert it with python -m tf2onnx.convert --graphdef model.pb --inputs … \
                     --outputs … --output model.onnx",
        },
    ),
];

/// The format of a folder with a `saved_model.pb`.
const SAVED_MODEL: Foreign = Foreign {
    what: "a TensorFlow SavedModel",
    remedy: "convert its folder with python -m tf2onnx.convert --saved-model FOLDER --output \
             model.onnx",
};

/// Returns the format of the folder at `path`, if it is recognized.
pub fn recognise_folder(path: &Path) -> Option<&'static Foreign> {
    path.join("saved_model.pb").is_file().then_some(&SAVED_MODEL)
}

/// Returns the format of `bytes`, which are not an ONNX model, if it is recognized.
pub fn recognise(bytes: &[u8]) -> Option<&'static Foreign> {
    KINDS.iter().find(|(is, _)| is(bytes)).map(|(_, foreign)| foreign)
}

/// The number of bytes that are searched at each end: names in archives, and operators in
/// graphs, occur early or at the end.
const ENOUGH: usize = 1 << 20;

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    let begin = bytes.get(..ENOUGH).unwrap_or(bytes);
    let end = bytes.get(bytes.len().saturating_sub(ENOUGH)..).unwrap_or(bytes);
    [begin, end].iter().any(|part| part.windows(text.len()).any(|window| window == text))
}

/// Whether a zip archive lists a file whose name ends with `end`.
fn is_zip_with(bytes: &[u8], end: &str) -> bool {
    bytes.starts_with(b"PK\x03\x04") && holds(bytes, end.as_bytes())
}

fn begins_with_any(bytes: &[u8], beginnings: &[&str]) -> bool {
    let text = bytes.trim_ascii_start();
    let begins = |beginning: &&str| {
        let first = text.get(..beginning.len());
        first.is_some_and(|first| first.eq_ignore_ascii_case(beginning.as_bytes()))
    };
    beginnings.iter().any(begins)
}

/// Whether the message has a version in field 1, followed by one graph in field 2.
fn is_saved_model(bytes: &[u8]) -> bool {
    let fields = wire::fields(bytes, 0..bytes.len()).map(|field| field.map(|field| field.number));
    fields.collect::<Result<Vec<_>, _>>().is_ok_and(|numbers| numbers == [1, 2])
}

/// Whether the bytes begin with a message in field 1, where an ONNX model has a number.
fn is_list_of_messages(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x0a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_told_apart() {
        for (what, bytes) in [
            ("PyTorch", &b"PK\x03\x04....archive/data.pkl...."[..]),
            ("Keras", b"PK\x03\x04....model.weights.h5"),
            ("NumPy", b"PK\x03\x04....x.npy"),
            ("zip", b"PK\x03\x04....readme"),
            ("gzip", b"\x1f\x8b\x08"),
            ("pickle", b"\x80\x02\x8a"),
            ("HDF5", b"\x89HDF\r\n\x1a\n"),
            ("Lite", b"\x1c\0\0\0TFL3"),
            ("Runtime", b"\x08\0\0\0ORTM"),
            ("safetensors", b"\x40\0\0\0\0\0\0\0{\"w\":"),
            ("GGUF", b"GGUF\x03"),
            ("LFS", b"version https://git-lfs.github.com/spec/v1\n"),
            ("web page", b"\n<!DOCTYPE HTML><html>"),
            ("OpenVINO", b"<?xml version=\"1.0\"?>"),
            ("text", b"<\n  ir_version: 8"),
            ("text", b"{\"irVersion\": 8}"),
            ("SavedModel", b"\x08\x01\x12\x02\x0a\0"),
            ("Paddle", b"\x0a\x0b\x1a\x04feed\x1a\x05fetch"),
            ("frozen", b"\x0a\x0b\x12\x0bPlaceholder"),
        ] {
            let found = recognise(bytes).map_or("nothing", |foreign| foreign.what);
            assert!(found.contains(what), "{what}: {found}");
        }
        for bytes in [&b""[..], b"\x08\x08", b"\x00\x01\x02\x03", b"PK"] {
            assert_eq!(recognise(bytes), None, "{bytes:?}");
        }
    }
}
