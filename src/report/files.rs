//! The files that a report is about: how large they are, and their hashes.
//!
//! Knows a model as bytes and the names of its side files; nothing of what is in its graph.

use prost::bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::onnx::external;
use crate::onnx::model::Model;
use crate::onnx::storage::Storage;

/// A model file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct File {
    /// As it was given; `-` is a pipe.
    pub path: String,
    /// Bytes of the file; `None` if it could not be read.
    pub bytes: Option<usize>,
    /// SHA-256 of these, in hexadecimal digits; `None` unless details were asked for.
    pub sha256: Option<String>,
    /// Of the input, the side files that it names; of the output, the one that was made
    /// for it.
    pub side_files: Vec<SideFile>,
}

/// A file beside the model that holds weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SideFile {
    /// As the model names it.
    pub location: String,
    /// As in [`File`].
    pub bytes: Option<usize>,
    /// As in [`File`].
    pub sha256: Option<String>,
}

impl File {
    /// Notes what is known of the file as soon as it is indexed; its hash if `details` are
    /// asked for.
    pub fn note(&mut self, model: &Model, details: bool) {
        self.bytes = Some(model.bytes().len());
        self.sha256 = details.then(|| sha256(model.bytes(), &model.storage));
    }

    /// Notes the side files that `model` names.
    pub fn note_side_files(&mut self, model: &Model) {
        self.side_files = side_files(model);
    }

    /// Bytes of the file and of its side files.
    pub fn all_bytes(&self) -> Option<usize> {
        let mut sizes = self.side_files.iter().map(|file| file.bytes);
        sizes.try_fold(self.bytes?, |sum, bytes| Some(sum.saturating_add(bytes?)))
    }
}

/// The side files that `model` names; those that cannot be read have no size.
fn side_files(model: &Model) -> Vec<SideFile> {
    let tensors = external::find(model).unwrap_or_default();
    let side_file = |location: String| {
        let map = model.storage.side_file(&location).ok();
        SideFile {
            bytes: map.as_ref().map(|map| map.bytes().len()),
            sha256: map.map(|map| sha256(&map.bytes(), &model.storage)),
            location,
        }
    };
    external::locations(&tensors).into_iter().map(side_file).collect()
}

/// The hash of `bytes`, which lie in `storage` if they are of a file.
fn sha256(bytes: &Bytes, storage: &Storage) -> String {
    /// So many bytes are read at a time.
    const PIECE: usize = 1 << 20;
    let mut hash = Sha256::new();
    for piece in bytes.chunks(PIECE) {
        hash.update(piece);
        storage.has_read(piece.len());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
