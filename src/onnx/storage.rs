//! Where the bytes of weights lie: in the model, or in side files next to it.
//!
//! External data is confined to the model's folder, and every offset and length
//! is checked before it is used.
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

/// Finds the data of tensors that are stored outside the model file. Clones share what
/// is mapped.
#[derive(Debug, Default, Clone)]
pub struct Storage {
    home: Home,
    links: Links,
    /// Files that stand under another name than the model has for them.
    staged: HashMap<String, PathBuf>,
    maps: Arc<Maps>,
}

/// Where a model lies itself.
#[derive(Debug, Default, Clone)]
enum Home {
    /// In memory, so nothing lies beside it.
    #[default]
    Memory,
    /// It came through a pipe, so nothing lies beside it.
    Pipe,
    /// Side files are looked up in this folder.
    Folder(PathBuf),
}

/// What is mapped, and how much of it was read since its pages were last given back.
#[derive(Debug, Default)]
struct Maps {
    /// The model itself, if it is a file.
    model: Option<MappedFile>,
    side_files: Mutex<HashMap<String, MappedFile>>,
    read: AtomicUsize,
}

/// So many bytes are read before their pages are given back.
const WINDOW: usize = 16 << 20;

impl Maps {
    fn side_files(&self) -> MutexGuard<'_, HashMap<String, MappedFile>> {
        self.side_files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether side files may be links.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Symbolic links inside the model's folder only, and no hard links.
    #[default]
    Confined,
    /// As in caches whose files are links to where their content lies.
    Followed,
}

/// External data that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The model came through a pipe.
    #[error("its data is in side file `{0}`, but the model was read from a pipe")]
    Piped(String),
    /// The model came as bytes.
    #[error(
        "its data is in side file `{0}`, and a model in bytes has none beside it; give the path of \
         its file"
    )]
    InMemory(String),
    /// No `location` entry.
    #[error("its external data has no location")]
    NoLocation,
    /// A key that is there twice.
    #[error("it says in two ways where its external data lies")]
    Ambiguous,
    /// The location would leave the model's folder.
    #[error("its external data `{0}` is not a plain relative path inside the model's folder")]
    Outside(String),
    /// A symbolic link leads out of the model's folder.
    #[error("its external data `{0}` is a link that leads out of the model's folder")]
    LeadsOut(String),
    /// The file has further names, which may be anywhere.
    #[error("its external data `{0}` has a hard link, which may lead out of the model's folder")]
    HardLink(String),
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DataPlace {
    location: String,
    offset: Option<String>,
    length: Option<String>,
}

impl DataPlace {
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
        // Of two, some readers take the first and others the last.
        let mut keys = HashSet::new();
        if !tensor.external_data.iter().all(|entry| keys.insert(entry.key())) {
            return Err(StorageError::Ambiguous);
        }
        let location = entry("location").ok_or(StorageError::NoLocation)?;
        Ok(Some(DataPlace { location, offset: entry("offset"), length: entry("length") }))
    }
}

impl DataPlace {
    /// The side file, relative to the model.
    pub fn location(&self) -> &str {
        &self.location
    }
}

/// Whether bytes of two models are the same. They are read side by side, and their pages given
/// back on the way.
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
    /// For a model that lies in `folder`.
    pub fn in_folder(folder: &Path, links: Links) -> Self {
        Storage { home: Home::Folder(folder.to_owned()), links, ..Storage::default() }
    }

    /// For a model that came through a pipe.
    pub fn of_pipe() -> Self {
        Storage { home: Home::Pipe, ..Storage::default() }
    }

    /// The same for a model that is `map`.
    #[must_use]
    pub fn of_model(&self, map: &MappedFile) -> Self {
        let maps = Maps { model: Some(map.clone()), ..Maps::default() };
        Storage { maps: Arc::new(maps), ..self.clone() }
    }

    /// The same, but for the side file `location`, which still lies at `path`.
    #[must_use]
    pub fn with_staged(&self, location: &str, path: &Path) -> Self {
        let mut staged = self.staged.clone();
        staged.insert(location.to_owned(), path.to_owned());
        Storage { staged, maps: Arc::default(), ..self.clone() }
    }

    /// Notes that so many bytes of tensors were read and will hardly be again soon. From
    /// time to time, their pages are given back.
    pub fn has_read(&self, bytes: usize) {
        let maps = &self.maps;
        if maps.read.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) < WINDOW {
            return;
        }
        maps.read.store(0, Ordering::Relaxed);
        maps.model.iter().for_each(MappedFile::give_back);
        maps.side_files().values().for_each(MappedFile::give_back);
    }

    /// The folder that side files are looked up in.
    pub fn folder(&self) -> Option<&Path> {
        match &self.home {
            Home::Folder(folder) => Some(folder),
            Home::Memory | Home::Pipe => None,
        }
    }

    /// The bytes at `place`, a view into the mapped side file.
    ///
    /// # Errors
    /// As [`Self::located`].
    pub fn data(&self, place: &DataPlace) -> Result<Bytes, StorageError> {
        let (file, range) = self.located(place)?;
        Ok(file.bytes().slice(range))
    }

    /// The side file of `place`, and where in it that is.
    ///
    /// # Errors
    /// If the place is outside the folder, unreadable or out of range.
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

    /// The whole side file called `location`.
    ///
    /// # Errors
    /// If it lies outside the folder or cannot be read.
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

    /// A file of the model that is not what it was when it was mapped; `None` if none is
    /// known to have changed.
    pub fn changed(&self) -> Option<PathBuf> {
        let side_files = self.maps.side_files();
        let mut files = self.maps.model.iter().chain(side_files.values());
        files.find_map(MappedFile::changed).map(Path::to_owned)
    }

    /// The model's own file, if it is one.
    pub fn model(&self) -> Option<&MappedFile> {
        self.maps.model.as_ref()
    }

    /// Bytes of the side files that were looked at so far.
    pub fn mapped(&self) -> usize {
        self.maps.side_files().values().fold(0, |all, map| all.saturating_add(map.bytes().len()))
    }

    /// The path of a side file, without links, if it stays in the model's folder. All
    /// reading of side files, the engine's too, goes through here.
    ///
    /// # Errors
    /// If it lies outside, or does not exist.
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
        // A backslash is a separator to others, and a NUL the end of a name.
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

/// How many names the file at `path` has; a folder counts as one.
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
