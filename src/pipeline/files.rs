//! What reports tell about a model's files: their sizes and hashes.
//!
//! Knows bytes and their places; does not know what a model computes.

use prost::bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::onnx::external;
use crate::onnx::model::Model;
use crate::onnx::storage::Storage;
use crate::options::Options;
use crate::report::SideFile;

/// The function that hashes a file; returns `None` if files are not hashed.
pub type Hashing = fn(&Bytes, &Storage) -> Option<String>;

/// Returns how files are hashed: not at all without details, since it takes a pass over all
/// bytes.
pub fn hashing(options: &Options) -> Hashing {
    if options.details { |bytes, storage| Some(sha256(bytes, storage)) } else { |_, _| None }
}

/// Returns the side files that `model` names; those that cannot be read have no size.
pub fn side_files(model: &Model, hashing: Hashing) -> Vec<SideFile> {
    let tensors = external::find(model).unwrap_or_default();
    let side_file = |location: String| {
        let map = model.storage.side_file(&location).ok();
        SideFile {
            bytes: map.as_ref().map(|map| map.bytes().len()),
            sha256: map.and_then(|map| hashing(&map.bytes(), &model.storage)),
            location,
        }
    };
    external::locations(&tensors).into_iter().map(side_file).collect()
}

/// Returns the SHA-256 of `bytes` in hexadecimal digits. If they are mapped from a file of
/// `storage`, their pages are given back while they are read.
fn sha256(bytes: &Bytes, storage: &Storage) -> String {
    /// Number of bytes that are read at a time.
    const PIECE: usize = 1 << 20;
    let mut hash = Sha256::new();
    for piece in bytes.chunks(PIECE) {
        hash.update(piece);
        storage.has_read(piece.len());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
