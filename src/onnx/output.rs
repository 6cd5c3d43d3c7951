//! Writing a model so that at every moment the old file or the new one is there.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use super::splice::{self, Edit};

/// A complete new file beside its target, under a temporary name. It disappears if
/// it is dropped.
#[derive(Debug)]
pub struct Staged(NamedTempFile);

/// Copies side file `location` from one model folder to another, unless it is there
/// already. An existing file is never changed.
///
/// # Errors
/// What the file system says, and if another file has that name.
pub fn copy_side_file(content: &[u8], folder: &Path, location: &str) -> io::Result<()> {
    let target = folder.join(location);
    if let Ok(there) = super::model::map(&target) {
        return match there == content {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("side file `{location}` would replace another file of that name"),
            )),
        };
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    Staged::write(&target, content, &[])?.commit(&target)
}

impl Staged {
    /// Writes `bytes` with `edits` into the folder of `target`, and flushes to disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(target: &Path, bytes: &[u8], edits: &[Edit]) -> io::Result<Self> {
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix(".acb-fuse-").suffix(".tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As for any new file: what the umask leaves.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(folder.unwrap_or(Path::new(".")))?;
        let mut out = BufWriter::with_capacity(1 << 20, file.as_file());
        splice::write(bytes, edits, &mut out)?;
        out.flush()?;
        drop(out);
        file.as_file().sync_all()?;
        Ok(Staged(file))
    }

    /// The temporary file.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts the file in the place of `target`, in one step.
    ///
    /// # Errors
    /// What the file system says; `target` is as it was then.
    pub fn commit(self, target: &Path) -> io::Result<()> {
        if target.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        self.0.persist(target).map(drop).map_err(|error| error.error)
    }
}
