//! The files that a report is about, with their sizes and hashes.
//!
//! Knows names and numbers; opens no file.

use serde::Serialize;

/// A model file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct File {
    /// The path as the caller gave it; `-` is standard input or output.
    pub path: String,
    /// Size in bytes; `None` if the file could not be read.
    pub bytes: Option<usize>,
    /// SHA-256 of the file in hexadecimal digits; `None` unless details were asked for.
    pub sha256: Option<String>,
    /// The side files that the model names.
    pub side_files: Vec<SideFile>,
    /// What stood in the place of the output before; `None` if nothing did, and for an input.
    pub replaced: Option<Predecessor>,
}

/// A file beside the model that holds weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SideFile {
    /// The path as the model names it.
    pub location: String,
    /// Size in bytes, as in [`File`].
    pub bytes: Option<usize>,
    /// SHA-256, as in [`File`].
    pub sha256: Option<String>,
}

/// The file that the new model has replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Predecessor {
    /// What kind of file it was.
    pub kind: PredecessorKind,
    /// Side files that only the replaced model named, and neither the new one nor the one that
    /// was read: they can be deleted unless another model names them.
    pub side_files: Vec<String>,
}

/// The kind of a file that the new model has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PredecessorKind {
    /// The model that was read.
    Input,
    /// A model with the inputs and outputs of the new one, such as an earlier result.
    Earlier,
    /// Another model, or no model, which the caller wanted replaced anyway.
    Other,
}

impl File {
    /// Returns the bytes of the file and its side files together; `None` if any of them is not
    /// known.
    pub fn all_bytes(&self) -> Option<usize> {
        let mut sizes = self.side_files.iter().map(|file| file.bytes);
        sizes.try_fold(self.bytes?, |sum, bytes| Some(sum.saturating_add(bytes?)))
    }
}
