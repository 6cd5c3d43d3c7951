//! Where the bytes of weights lie: in the model, or in side files next to it.
//!
//! External data is confined to the model's folder, and every offset and length
//! is checked before it is used.

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use prost::bytes::Bytes;

use super::model::map;
use super::proto::TensorProto;
use super::proto::tensor_proto::DataLocation;

/// Finds the data of tensors that are stored outside the model file. Clones share what
/// is mapped.
#[derive(Debug, Default, Clone)]
pub struct Storage {
    folder: Option<PathBuf>,
    maps: Arc<Mutex<HashMap<String, Bytes>>>,
}

/// External data that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The model did not come from a folder.
    #[error("its data is in side file `{0}`, but the model was read from a pipe")]
    NoFolder(String),
    /// No `location` entry.
    #[error("its external data has no location")]
    NoLocation,
    /// The location would leave the model's folder.
    #[error("its external data `{0}` is not a plain relative path inside the model's folder")]
    Outside(String),
    /// `offset` or `length` is not a number, or they do not lie in the side file.
    #[error(
        "its external data runs past the end of `{location}` (offset {offset}, length {length})"
    )]
    Range {
        /// The side file.
        location: String,
        /// As written in the model.
        offset: String,
        /// As written in the model.
        length: String,
    },
    /// The side file cannot be read.
    #[error("its external data `{location}` cannot be read: {source}")]
    Read {
        /// The side file.
        location: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Where one tensor's external data lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Side file, relative to the model.
    pub location: String,
    offset: Option<String>,
    length: Option<String>,
}

impl Place {
    /// Where `tensor` says that its data lies, if that is outside the model.
    ///
    /// # Errors
    /// If it says so and names no file.
    pub fn of(tensor: &TensorProto) -> Result<Option<Self>, StorageError> {
        if tensor.data_location() != DataLocation::External {
            return Ok(None);
        }
        let entry = |key: &str| {
            let found = tensor.external_data.iter().find(|entry| entry.key() == key);
            found.map(|entry| entry.value().to_owned())
        };
        let location = entry("location").ok_or(StorageError::NoLocation)?;
        Ok(Some(Place { location, offset: entry("offset"), length: entry("length") }))
    }
}

impl Storage {
    /// For a model that lies in `folder`.
    pub fn in_folder(folder: &Path) -> Self {
        Storage { folder: Some(folder.to_owned()), maps: Arc::default() }
    }

    /// The folder that side files are looked up in.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The bytes at `place`, a view into the mapped side file.
    ///
    /// # Errors
    /// If the place is outside the folder, unreadable or out of range.
    pub fn data(&self, place: &Place) -> Result<Bytes, StorageError> {
        let Place { location, offset, length } = place;
        let file = self.side_file(location)?;
        let number = |text: &Option<String>, default: usize| match text {
            None => Some(default),
            Some(text) => text.parse().ok(),
        };
        let range = number(offset, 0).and_then(|offset| {
            let rest = file.len().checked_sub(offset)?;
            let length = number(length, rest)?;
            (length <= rest).then(|| offset..offset + length)
        });
        range.map(|range| file.slice(range)).ok_or_else(|| StorageError::Range {
            location: location.clone(),
            offset: offset.clone().unwrap_or_else(|| "0".into()),
            length: length.clone().unwrap_or_else(|| "to the end".into()),
        })
    }

    /// The whole side file called `location`.
    ///
    /// # Errors
    /// If it lies outside the folder or cannot be read.
    pub fn side_file(&self, location: &str) -> Result<Bytes, StorageError> {
        let mut maps = self.maps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bytes) = maps.get(location) {
            return Ok(bytes.clone());
        }
        let read = |source| StorageError::Read { location: location.into(), source };
        let bytes = map(&self.resolve(location)?).map_err(read)?;
        maps.insert(location.into(), bytes.clone());
        Ok(bytes)
    }

    /// The path of a side file, if it stays in the model's folder.
    fn resolve(&self, location: &str) -> Result<PathBuf, StorageError> {
        let folder = self.folder.as_ref().ok_or_else(|| StorageError::NoFolder(location.into()))?;
        let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if location.contains('\\') || !Path::new(location).components().all(plain) {
            return Err(StorageError::Outside(location.into()));
        }
        let read = |source| StorageError::Read { location: location.into(), source };
        let folder = folder.canonicalize().map_err(read)?;
        // A symbolic link may lead anywhere, so the resolved path counts.
        let path = folder.join(location).canonicalize().map_err(read)?;
        if path.starts_with(&folder) {
            Ok(path)
        } else {
            Err(StorageError::Outside(location.into()))
        }
    }
}
