//! The files that a report is about: how large they are, and their hashes.
//!
//! Data only.
//!
//! Knows names and numbers; opens no file.

use serde::Serialize;

/// A model file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct File {
    /// As it was given; `-` is a pipe.
    pub path: String,
    /// Bytes of the file; `None` if it could not be read.
    pub bytes: Option<usize>,
    /// SHA-256 of these, in hexadecimal digits; `None` unless details were asked for.
    pub sha256: Option<String>,
    /// The side files that it names.
    pub side_files: Vec<SideFile>,
    /// Of the output, what stood there before; `None` if nothing did.
    pub replaced: Option<Predecessor>,
}

/// A file beside the model that holds weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SideFile {
    /// As the model names it.
    pub location: String,
    /// As in [`File`].
    pub bytes: Option<usize>,
    /// As in [`File`].
    pub sha256: Option<String>,
}

/// What stood where the new model is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Predecessor {
    /// What it was.
    pub kind: PredecessorKind,
    /// Side files that it named and that the new model does not need, nor the one that was
    /// read: they may go, unless a further model names them.
    pub side_files: Vec<String>,
}

/// What a file was that the new model has taken the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PredecessorKind {
    /// The model that was read.
    Input,
    /// A model with its inputs and outputs, as an earlier result has them.
    Earlier,
    /// Another model, or none, which was to be replaced all the same.
    Other,
}

impl File {
    /// Bytes of the file and of its side files.
    pub fn all_bytes(&self) -> Option<usize> {
        let mut sizes = self.side_files.iter().map(|file| file.bytes);
        sizes.try_fold(self.bytes?, |sum, bytes| Some(sum.saturating_add(bytes?)))
    }
}
