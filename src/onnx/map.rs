//! Memory-mapped files: the one module with `unsafe` code.
//!
//! Pages of a map that were read count as memory of this process until they are released, so a
//! reader of a file of many gigabytes releases them on the way.
//!
//! Knows bytes, and no format.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use prost::bytes::Bytes;

use crate::onnx::place::FileStamp;

/// How the content of a file gets into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// Page by page, on access.
    Mapped,
    /// All at once; afterwards nothing keeps others from replacing the file.
    Read,
}

/// A file in memory. Clones share one map.
#[derive(Debug, Clone)]
pub struct MappedFile {
    /// The path that it was opened at, and its stamp then.
    found: Arc<(PathBuf, FileStamp)>,
    content: Bytes,
    /// `None` for a file that was read, and for an empty one, which cannot be mapped.
    map: Option<(Arc<File>, Arc<Mmap>)>,
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
    /// Returns an error if it cannot be opened, is not a regular file, or cannot be mapped.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::opened(path, FileAccess::Mapped)
    }

    /// Opens the file at `path`, mapping or reading it.
    ///
    /// # Errors
    /// Returns an error under the conditions of [`Self::of`], or if it cannot be read.
    pub fn opened(path: &Path, access: FileAccess) -> io::Result<Self> {
        let not_regular =
            || Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        if path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        // Opening a named pipe would block until another process writes to it.
        if !path.metadata()?.is_file() {
            return not_regular();
        }
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return not_regular();
        }
        let found = Arc::new((path.to_owned(), FileStamp::of(&metadata)));
        if metadata.len() == 0 || access == FileAccess::Read {
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            return Ok(MappedFile { found, content: content.into(), map: None });
        }
        // SAFETY: the map is only read. The one risk is that another process truncates the
        // file meanwhile; every reader of model files by mapping (ONNX Runtime, tract) takes
        // that risk, and we never write to a file in place: an output replaces its target
        // by rename.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file)? };
        let map = Arc::new(map);
        let content = Bytes::from_owner(Owner(Arc::clone(&map)));
        Ok(MappedFile { found, content, map: Some((Arc::new(file), map)) })
    }

    /// Returns the path if another file lies there now, or if the size or the modification time
    /// of this one has changed: pages that were loaded again since may be those of another
    /// file. `None` if nothing has changed.
    pub fn changed(&self) -> Option<&Path> {
        let (path, found) = &*self.found;
        (FileStamp::at(path).as_ref() != Some(found)).then_some(path)
    }

    /// Returns the path that it was opened at.
    pub fn path(&self) -> &Path {
        &self.found.0
    }

    /// Returns the bytes of the whole file.
    pub fn bytes(&self) -> Bytes {
        self.content.clone()
    }

    /// Whether `bytes` are this very memory, not just equal content.
    pub fn is(&self, bytes: &[u8]) -> bool {
        !bytes.is_empty() && std::ptr::eq::<[u8]>(&*self.content, bytes)
    }

    /// Copies a part of the file, within the system where it can do that, without reading pages
    /// into this process. One thread at a time may call it.
    ///
    /// # Errors
    /// Returns an error if the file system reports one, or if the file has become shorter.
    pub fn copy(&self, part: Range<usize>, out: &mut BufWriter<&File>) -> io::Result<()> {
        let Some((file, _)) = &self.map else {
            let part = self.content.get(part);
            return out.write_all(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        };
        let mut file = &**file;
        file.seek(SeekFrom::Start(part.start as u64))?;
        let copied = io::copy(&mut file.take(part.len() as u64), out)?;
        if copied == part.len() as u64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Releases the pages that were read; further reads load them from the file again.
    pub fn give_back(&self) {
        #[cfg(unix)]
        if let Some((_, map)) = &self.map {
            // SAFETY: the map is of a file, shared and never written to, so what is read after
            // this call is what was there before.
            #[allow(unsafe_code)]
            let advised = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // This is advice: if it is not taken, the pages stay.
            drop(advised);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mapped and read files look the same and are copied in the same way; a file that was read
    /// does not change when it is overwritten.
    #[test]
    fn a_file_that_was_read_is_like_one_that_is_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let [path, copy] = ["file", "copy"].map(|name| folder.path().join(name));
        for content in [&b""[..], b"some bytes"] {
            for access in [FileAccess::Mapped, FileAccess::Read] {
                std::fs::write(&path, content).unwrap();
                let file = MappedFile::opened(&path, access).unwrap();
                if access == FileAccess::Read {
                    std::fs::write(&path, b"others").unwrap();
                }
                let bytes = file.bytes();
                assert_eq!(bytes, content);
                assert_eq!(file.is(&bytes), !content.is_empty());
                assert!(!file.is(b"some bytes"));
                file.give_back();
                let out = File::create(&copy).unwrap();
                let mut out = BufWriter::new(&out);
                let end = content.len();
                file.copy(end.min(5)..end, &mut out).unwrap();
                assert!(file.copy(0..end + 1, &mut out).is_err());
                drop(out);
                let copied = std::fs::read(&copy).unwrap();
                assert!(copied.starts_with(content.get(5..).unwrap_or_default()));
            }
        }
    }
}
