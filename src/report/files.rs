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
    /// Of the input, the side files that it names; of the output, the one that was made
    /// for it.
    pub side_files: Vec<SideFile>,
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

impl File {
    /// Bytes of the file and of its side files.
    pub fn all_bytes(&self) -> Option<usize> {
        let mut sizes = self.side_files.iter().map(|file| file.bytes);
        sizes.try_fold(self.bytes?, |sum, bytes| Some(sum.saturating_add(bytes?)))
    }
}
