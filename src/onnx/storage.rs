//! The location of the bytes of weights: in the model, or in side files next to it.
//!
//! External data is confined to the model's folder, and every offset and length is checked
//! before it is used.
//!
//! Knows folders, files and places in them; not what the bytes say.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::bytes::Bytes;

use crate::onnx::map::MappedFile;
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataLocation;

/// Access to the data of tensors that are stored outside the model file. Clones share their
/// memory maps.
#[derive(Debug, Default, Clone)]
pub struct Storage {
    home: Home,
    links: Links,
    /// The paths of side files that do not yet have the name by which the model refers to them.
    staged: HashMap<String, PathBuf>,
    maps: Arc<Maps>,
}

/// The location of the model itself.
#[derive(Debug, Default, Clone)]
enum Home {
    /// In memory, so there are no files beside it.
    #[default]
    Memory,
    /// It came through a pipe, so there are no files beside it.
    Pipe,
    /// A file in this folder, where its side files are looked up.
    Folder(PathBuf),
}

/// The mapped files, and the number of bytes read since their pages were last released.
#[derive(Debug, Default)]
struct Maps {
    /// The model itself, if it is a file.
    model: Option<MappedFile>,
    side_files: Mutex<HashMap<String, MappedFile>>,
    read: AtomicUsize,
}

/// The number of bytes that are read before pages are released.
const WINDOW: usize = 16 << 20;

impl Maps {
    fn side_files(&self) -> MutexGuard<'_, HashMap<String, MappedFile>> {
        self.side_files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether side files may be links.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Symbolic links that stay inside the model's folder are allowed, hard links are not.
    #[default]
    Confined,
    /// All links are followed, as caches need whose files are links to their content.
    Followed,
}

/// The error that external data cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The model came through a pipe.
    #[error("its data is in side file `{0}`, but the model was read from a pipe")]
    Piped(String),
    /// The model was given as bytes.
    #[error(
        "its data is in side file `{0}`, and a model in bytes has none beside it; give the path of \
         its file"
    )]
    InMemory(String),
    /// There is no `location` entry.
    #[error("its external data has no location")]
    NoLocation,
    /// A key occurs twice.
    #[error("it says in two ways where its external data lies")]
    Ambiguous,
    /// The location would leave the model's folder.
    #[error("its external data `{0}` is not a plain relative path inside the model's folder")]
    Outside(String),
    /// A symbolic link leads out of the model's folder.
    #[error("its external data `{0}` is a link that leads out of the model's folder")]
    LeadsOut(String),
    /// The file has further names, which may be in any folder.
    #[error("its external data `{0}` has a hard link, which may lead out of the model's folder")]
    HardLink(String),
    /// `offset` or `length` is not a number, or the range does not lie in the side file.
    #[error(
        "its external data runs past the end of `{location}` (offset {offset}, length {length})"
    )]
    Range {
        /// The name of the side file.
        location: String,
        /// The offset as written in the model.
        offset: String,
        /// The length as written in the model.
        length: String,
    },
    /// The side file cannot be read.
    #[error("its external data `{location}` cannot be read: {source}")]
    Read {
        /// The name of the side file.
        location: String,
        /// The reason given by the system.
        source: io::Error,
    },
}

/// The place of one tensor's external data, as the model states it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DataPlace {
    location: String,
    offset: Option<String>,
    length: Option<String>,
}

impl DataPlace {
    /// Returns the place of the data of `tensor`; `None` if it is inside the model.
    ///
    /// # Errors
    /// Returns an error if the data is external and no file is named, or a key occurs twice.
    pub fn of(tensor: &TensorProto) -> Result<Option<Self>, StorageError> {
        if tensor.data_location() != DataLocation::External {
            return Ok(None);
        }
        let entry = |key: &str| {
            let found = tensor.external_data.iter().find(|entry| entry.key() == key);
            found.map(|entry| entry.value().to_owned())
        };
        // If a key occurs twice, some readers take the first entry and others the last.
        let mut keys = HashSet::new();
        if !tensor.external_data.iter().all(|entry| keys.insert(entry.key())) {
            return Err(StorageError::Ambiguous);
        }
        let location = entry("location").ok_or(StorageError::NoLocation)?;
        Ok(Some(DataPlace { location, offset: entry("offset"), length: entry("length") }))
    }
}

impl DataPlace {
    /// Returns the name of the side file, relative to the model.
    pub fn location(&self) -> &str {
        &self.location
    }
}

/// Whether the bytes of two models are equal. Both are read side by side, and their pages are
/// released on the way.
pub fn same_bytes((one, of_one): (&[u8], &Storage), (other, of_other): (&[u8], &Storage)) -> bool {
    let pieces = || one.chunks(WINDOW).zip(other.chunks(WINDOW));
    one.len() == other.len()
        && pieces().all(|(one, other)| {
            let same = one == other;
            of_one.has_read(one.len());
            of_other.has_read(other.len());
            same
        })
}

impl Storage {
    /// Creates the storage of a model that lies in `folder`.
    pub fn in_folder(folder: &Path, links: Links) -> Self {
        Storage { home: Home::Folder(folder.to_owned()), links, ..Storage::default() }
    }

    /// Creates the storage of a model that came through a pipe.
    pub fn of_pipe() -> Self {
        Storage { home: Home::Pipe, ..Storage::default() }
    }

    /// Returns the same storage for a model that is mapped as `map`.
    #[must_use]
    pub fn of_model(&self, map: &MappedFile) -> Self {
        let maps = Maps { model: Some(map.clone()), ..Maps::default() };
        Storage { maps: Arc::new(maps), ..self.clone() }
    }

    /// Returns the same storage, except that the side file `location` is still at `path`.
    #[must_use]
    pub fn with_staged(&self, location: &str, path: &Path) -> Self {
        let mut staged = self.staged.clone();
        staged.insert(location.to_owned(), path.to_owned());
        Storage { staged, maps: Arc::default(), ..self.clone() }
    }

    /// Registers that this many bytes of tensors were read and are unlikely to be read again
    /// soon. From time to time, the pages of all maps are released.
    pub fn has_read(&self, bytes: usize) {
        let maps = &self.maps;
        if maps.read.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) < WINDOW {
            return;
        }
        maps.read.store(0, Ordering::Relaxed);
        maps.model.iter().for_each(MappedFile::give_back);
        maps.side_files().values().for_each(MappedFile::give_back);
    }

    /// Returns the folder in which side files are looked up.
    pub fn folder(&self) -> Option<&Path> {
        match &self.home {
            Home::Folder(folder) => Some(folder),
            Home::Memory | Home::Pipe => None,
        }
    }

    /// Returns the bytes at `place`, a view into the mapped side file.
    ///
    /// # Errors
    /// Same as [`Self::located`].
    pub fn data(&self, place: &DataPlace) -> Result<Bytes, StorageError> {
        let (file, range) = self.located(place)?;
        Ok(file.bytes().slice(range))
    }

    /// Returns the side file of `place`, and the range of the data in it.
    ///
    /// # Errors
    /// Returns an error if the place is outside the folder, unreadable or out of range.
    pub fn located(&self, place: &DataPlace) -> Result<(MappedFile, Range<usize>), StorageError> {
        let DataPlace { location, offset, length } = place;
        let map = self.side_file(location)?;
        let whole = map.bytes().len();
        let number = |text: &Option<String>, default: usize| match text {
            None => Some(default),
            Some(text) => text.parse().ok(),
        };
        let range = number(offset, 0).and_then(|offset| {
            let rest = whole.checked_sub(offset)?;
            let end = offset.checked_add(number(length, rest)?)?;
            (end <= whole).then_some(offset..end)
        });
        range.map(|range| (map, range)).ok_or_else(|| StorageError::Range {
            location: location.clone(),
            offset: offset.clone().unwrap_or_else(|| "0".into()),
            length: length.clone().unwrap_or_else(|| "to the end".into()),
        })
    }

    /// Returns the whole side file called `location`.
    ///
    /// # Errors
    /// Returns an error if it lies outside the folder or cannot be read.
    pub fn side_file(&self, location: &str) -> Result<MappedFile, StorageError> {
        let mut maps = self.maps.side_files();
        if let Some(map) = maps.get(location) {
            return Ok(map.clone());
        }
        let read = |source| StorageError::Read { location: location.into(), source };
        let map = MappedFile::of(&self.resolve(location)?).map_err(read)?;
        maps.insert(location.into(), map.clone());
        Ok(map)
    }

    /// Returns the path of a file of the model that has changed since it was mapped; `None` if
    /// no change is found.
    pub fn changed(&self) -> Option<PathBuf> {
        let side_files = self.maps.side_files();
        let mut files = self.maps.model.iter().chain(side_files.values());
        files.find_map(MappedFile::changed).map(Path::to_owned)
    }

    /// Returns the model's own file, if it is a file.
    pub fn model(&self) -> Option<&MappedFile> {
        self.maps.model.as_ref()
    }

    /// Returns the size in bytes of the side files that have been opened so far.
    pub fn mapped(&self) -> usize {
        self.maps.side_files().values().fold(0, |all, map| all.saturating_add(map.bytes().len()))
    }

    /// Returns the path of a side file with all links resolved, if it stays in the model's
    /// folder. All reading of side files, the engine's too, goes through here.
    ///
    /// # Errors
    /// Returns an error if it lies outside, or does not exist.
    pub fn resolve(&self, location: &str) -> Result<PathBuf, StorageError> {
        if let Some(path) = self.staged.get(location) {
            return Ok(path.clone());
        }
        let folder = match &self.home {
            Home::Folder(folder) => folder,
            Home::Pipe => return Err(StorageError::Piped(location.into())),
            Home::Memory => return Err(StorageError::InMemory(location.into())),
        };
        let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        let is_plain = Path::new(location).components().all(plain) && !location.is_empty();
        // On other systems a backslash is a separator, and NUL ends a name.
        if location.contains(['\\', '\0']) || !is_plain {
            return Err(StorageError::Outside(location.into()));
        }
        let read = |source| StorageError::Read { location: location.into(), source };
        let folder = folder.canonicalize().map_err(read)?;
        // A symbolic link may lead anywhere, so the resolved path counts.
        let path = folder.join(location).canonicalize().map_err(read)?;
        if self.links == Links::Confined {
            if !path.starts_with(&folder) {
                return Err(StorageError::LeadsOut(location.into()));
            }
            if names(&path).map_err(read)? > 1 {
                return Err(StorageError::HardLink(location.into()));
            }
        }
        Ok(path)
    }
}

/// Returns the number of hard links of the file at `path`; a folder counts as one.
fn names(path: &Path) -> io::Result<u64> {
    let metadata = path.metadata()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Ok(if metadata.is_file() { metadata.nlink() } else { 1 })
    }
    #[cfg(not(unix))]
    {
        Ok(u64::from(metadata.is_file()).max(1))
    }
}
