//! Files as memory: the one place with `unsafe` code.
//!
//! Pages of a map that were read count as memory of this process until they are given
//! back, so that whoever reads a file of many gigabytes gives them back on the way.
//!
//! Knows bytes, and no format.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use prost::bytes::Bytes;

use crate::onnx::place::FileStamp;

/// A file, mapped. Clones are of one map.
#[derive(Debug, Clone)]
pub struct MappedFile {
    file: Arc<File>,
    /// Where it was found, and what it was then.
    found: Arc<(PathBuf, FileStamp)>,
    /// `None` of an empty file, which cannot be mapped.
    map: Option<Arc<Mmap>>,
}

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// If it cannot be opened, is not a regular file, or cannot be mapped.
    pub fn of(path: &Path) -> io::Result<Self> {
        let not_regular =
            || Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        if path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        // Opening a named pipe would wait for somebody to write to it.
        if !path.metadata()?.is_file() {
            return not_regular();
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return not_regular();
        }
        let found = Arc::new((path.to_owned(), FileStamp::of(&metadata)));
        if metadata.len() == 0 {
            return Ok(MappedFile { file: Arc::new(file), found, map: None });
        }
        // SAFETY: the map is only read. The one risk is that another process truncates the
        // file meanwhile; every reader of model files by mapping (ONNX Runtime, tract) takes
        // that risk, and we never write to a file in place: an output replaces its target
        // by rename.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file)? };
        Ok(MappedFile { file: Arc::new(file), found, map: Some(Arc::new(map)) })
    }

    /// The path at which another file lies now, or this one with another size or written to
    /// later: pages that were read again since may be those of another file. `None` if all is
    /// as it was.
    pub fn changed(&self) -> Option<&Path> {
        let (path, found) = &*self.found;
        (FileStamp::at(path).as_ref() != Some(found)).then_some(path)
    }

    /// The whole file.
    pub fn bytes(&self) -> Bytes {
        self.map.as_ref().map_or_else(Bytes::new, |map| Bytes::from_owner(Owner(Arc::clone(map))))
    }

    /// Whether `bytes` are this map.
    pub fn is(&self, bytes: &[u8]) -> bool {
        self.map.as_ref().is_some_and(|map| std::ptr::eq::<[u8]>(&***map, bytes))
    }

    /// Copies a part of the file: by the system, if it can, without a page of it coming here.
    /// One thread at a time may do that.
    ///
    /// # Errors
    /// What the file system says, and if the file has become shorter.
    pub fn copy(&self, part: Range<usize>, out: &mut BufWriter<&File>) -> io::Result<()> {
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(part.start as u64))?;
        let copied = io::copy(&mut file.take(part.len() as u64), out)?;
        if copied == part.len() as u64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Gives back the pages that were read; whoever reads on gets them from the file again.
    pub fn give_back(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // SAFETY: the map is of a file, shared and never written to, so what is read
            // after this call is what was there before.
            #[allow(unsafe_code)]
            let advised = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // It is advice: if it is not taken, the pages stay.
            drop(advised);
        }
    }
}
