//! Writing files such that at every moment either the old file or the complete new one is there.
//!
//! Knows files and their places; not what is written.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;

use crate::onnx::map::MappedFile;
use crate::onnx::place::{self, folder_of};
use crate::onnx::splice::Sink;

/// A complete new file beside its target, under a temporary name. It is removed on drop.
#[derive(Debug)]
pub struct Staged {
    file: NamedTempFile,
    listed: Listed,
}

/// Which existing files may be replaced; replacing is atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clobber {
    /// A model with the inputs and outputs of the input model, as an earlier result has them,
    /// or an empty file. Other models, and files that are not models, are kept.
    Replace,
    /// Any file, whatever its content.
    Force,
    /// No file; if one exists, nothing is written.
    Refuse,
}

/// Checks that a file can be put at `target`. This is called before the work begins, and again
/// when the file is put in place.
///
/// # Errors
/// Returns an error that says what stands there.
pub fn check_target(target: &Path, clobber: Clobber) -> io::Result<()> {
    if place::leads_to_open_file(target) {
        let why = "it leads to what a process has open; `-` is standard output";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let Ok(metadata) = target.metadata() else { return Ok(()) };
    let (kind, why) = match metadata.file_type() {
        there if there.is_dir() => (io::ErrorKind::IsADirectory, "it is a directory"),
        // A rename would replace a device by a file.
        there if !there.is_file() => {
            (io::ErrorKind::InvalidInput, "it is not a regular file; `-` is standard output")
        }
        _ if clobber == Clobber::Refuse => (io::ErrorKind::AlreadyExists, "it exists already"),
        _ => return Ok(()),
    };
    Err(io::Error::new(kind, why))
}

/// Copies the side file `location` to the model folder `folder`, unless it is there already;
/// returns the path if it was copied. An existing file is never changed, and a model, which may
/// come from anywhere, cannot have files written outside the folder or under hidden names.
///
/// # Errors
/// Returns an error if the file system reports one, or if the file must not be written there.
pub fn copy_side_file(
    file: &MappedFile,
    folder: &Path,
    location: &str,
) -> io::Result<Option<PathBuf>> {
    let refused = |kind, why| io::Error::new(kind, format!("side file `{location}` {why}"));
    let is_hidden = |part: Component| match part {
        Component::Normal(name) => name.as_encoded_bytes().starts_with(b"."),
        _ => false,
    };
    if Path::new(location).components().any(is_hidden) {
        let why = "has a hidden name, and is not copied; fuse the model in its own folder";
        return Err(refused(io::ErrorKind::InvalidInput, why));
    }
    let target = folder.join(location);
    if !place::is_inside(folder_of(&target), folder)? {
        let why = "would be written through a link that leads out of the new model's folder";
        return Err(refused(io::ErrorKind::InvalidInput, why));
    }
    let content = file.bytes();
    if let Ok(there) = target.symlink_metadata() {
        let is_same = || MappedFile::of(&target).is_ok_and(|there| there.bytes() == content);
        if there.is_file() && is_same() {
            return Ok(None);
        }
        let why = "would replace another file of that name";
        return Err(refused(io::ErrorKind::AlreadyExists, why));
    }
    fs::create_dir_all(folder_of(&target))?;
    let copied = Staged::write(&target, |out| file.copy(0..content.len(), out))?;
    copied.flush()?;
    copied.commit(&target, Clobber::Refuse)?;
    Ok(Some(target))
}

/// A new file, and the old file that parts of it are copied from.
#[derive(Debug)]
pub struct NewFile<'o, 'f> {
    /// The writer of the new file.
    pub out: &'o mut BufWriter<&'f File>,
    /// The old file, if the old model is one.
    pub old: Option<&'o MappedFile>,
}

impl Write for NewFile<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Sink for NewFile<'_, '_> {
    fn leave(&mut self, bytes: usize) -> io::Result<()> {
        // For a short gap, it is not worth flushing the buffer.
        if bytes < self.out.capacity() {
            return io::copy(&mut io::repeat(0).take(bytes as u64), self.out).map(drop);
        }
        let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
        let end = self.out.seek(io::SeekFrom::Current(bytes))?;
        // If nothing follows, the file would end before the gap.
        self.out.get_ref().set_len(end)
    }

    fn keep(&mut self, old: &[u8], part: Range<usize>) -> io::Result<()> {
        match self.old.filter(|map| map.is(old) && part.len() >= self.out.capacity()) {
            Some(map) => map.copy(part, self.out),
            None => self.out.write_all(old.get(part).unwrap_or_default()),
        }
    }
}

/// Writes all of `bytes` at offset `at` of a file, independent of other writes to it.
///
/// # Errors
/// Returns an error if the file system reports one.
pub fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
    }
    #[cfg(windows)]
    {
        let (mut rest, mut at) = (bytes, at);
        while !rest.is_empty() {
            let written = std::os::windows::fs::FileExt::seek_write(file, rest, at)?;
            rest = rest.get(written..).unwrap_or_default();
            at = at.saturating_add(written as u64);
        }
        Ok(())
    }
}

/// The paths of all files that are staged at present.
static STAGED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn staged() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    STAGED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An entry in [`STAGED`], which is removed on drop.
#[derive(Debug)]
struct Listed(PathBuf);

impl Listed {
    /// Creates a file by `create` and lists it. The lock is held in between, so that
    /// [`remove_staged`] cannot miss it.
    fn create(
        create: impl FnOnce() -> io::Result<NamedTempFile>,
    ) -> io::Result<(NamedTempFile, Self)> {
        let mut staged = staged();
        let file = create()?;
        staged.insert(file.path().to_owned());
        let listed = Listed(file.path().to_owned());
        Ok((file, listed))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        staged().remove(&self.0);
    }
}

/// Removes all staged files, for a process that is told to end and does so at once. Nothing is
/// staged after this: other threads that try wait until the process ends.
pub fn remove_staged() {
    let staged = staged();
    for path in staged.iter() {
        // The ending process can do nothing about a file that cannot be removed.
        let _ = fs::remove_file(path);
    }
    std::mem::forget(staged);
}

impl Staged {
    /// Creates a file in the folder of `target` and has `write` fill it.
    ///
    /// # Errors
    /// Returns the errors of `write`, and those that the file system reports.
    pub fn write<E: From<io::Error>>(
        target: &Path,
        write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".acb-fuse-").suffix(".tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The permissions of any new file, which the umask restricts.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let (file, listed) = Listed::create(|| builder.tempfile_in(folder_of(target)))?;
        // Whoever could read the old file can read the new one, and nobody else.
        if let Ok(old) = target.metadata() {
            file.as_file().set_permissions(old.permissions())?;
        }
        let mut out = BufWriter::with_capacity(1 << 20, file.as_file());
        write(&mut out)?;
        out.flush()?;
        drop(out);
        Ok(Staged { file, listed })
    }

    /// Returns the path of the temporary file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Flushes the content to disk. This must be done before the file is put in place, and may
    /// be done while it is checked.
    ///
    /// # Errors
    /// Returns an error if the file system reports one.
    pub fn flush(&self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    /// Replaces `target` by the file atomically; it must have been flushed. The name is flushed
    /// to disk by [`sync_folder`] only.
    ///
    /// # Errors
    /// Returns an error if the file system reports one, or if [`check_target`] does; `target`
    /// is then unchanged.
    pub fn commit(self, target: &Path, clobber: Clobber) -> io::Result<()> {
        check_target(target, clobber)?;
        let placed = match clobber {
            Clobber::Replace | Clobber::Force => self.file.persist(target),
            Clobber::Refuse => self.file.persist_noclobber(target),
        };
        drop(self.listed);
        placed.map(drop).map_err(|error| error.error)
    }
}

/// Flushes the name of `target`, which was put in place, to disk.
///
/// # Errors
/// Returns an error if the file system reports one. The file is in its place all the same.
pub fn sync_folder(target: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let synced = File::open(folder_of(target)).and_then(|folder| folder.sync_all());
        // Some file systems cannot flush folders; then their own guarantees for names hold.
        let is_unknown =
            |kind| matches!(kind, io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported);
        match synced {
            Err(error) if !is_unknown(error.kind()) => return Err(error),
            _ => {}
        }
    }
    #[cfg(not(unix))]
    let _ = target;
    Ok(())
}
