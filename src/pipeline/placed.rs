//! The last part of delivery: the files of a new model, staged beside their places, are put
//! there, the model last. Its rename completes everything; until then, nothing has changed.
//!
//! Knows files and their paths; does not know what is in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::onnx::external;
use crate::onnx::model::Model;
use crate::onnx::place::{self, folder_of};
use crate::onnx::staged::{self, Clobber, Staged};

/// The files of a new model, staged beside their places.
pub struct StagedFiles<'d> {
    /// The path that the model goes to.
    pub target: &'d Path,
    /// Whether a file that stands there is replaced.
    pub clobber: Clobber,
    /// The staged model.
    pub file: Staged,
    /// The side file that was made for it, if any.
    pub side: Option<StagedSide>,
    /// The old model, if it stays as it is and needs its side files in the target's folder.
    pub copied: Option<&'d Model>,
}

impl StagedFiles<'_> {
    /// Puts the files in their places. Returns why it is not known whether the names have
    /// reached the disk; `None` if they have.
    ///
    /// # Errors
    /// Returns the errors of the file system. In that case everything is as it was before.
    pub fn commit(self) -> io::Result<Option<String>> {
        let mut new = NewFiles::default();
        if let Some(old) = self.copied {
            new.copy_side_files(old, self.target)?;
        }
        if let Some(side) = self.side {
            new.0.extend(side.commit()?);
        }
        let synced = new.0.iter().try_for_each(|path| staged::sync_folder(path));
        self.file.commit(self.target, self.clobber)?;
        // The model names these files now, whatever happens.
        new.keep();
        // A failure to sync a name comes too late to call the model unwritten.
        let unsynced = synced.and_then(|()| staged::sync_folder(self.target)).err();
        Ok(unsynced.map(|error| error.to_string()))
    }
}

/// Files that were put in place for a model that is not in its own place yet. They are removed
/// when this is dropped; one that cannot be removed stays.
#[derive(Default)]
struct NewFiles(Vec<PathBuf>);

impl NewFiles {
    /// Copies the side files of a model that stays as it is to the folder it goes to.
    fn copy_side_files(&mut self, model: &Model, target: &Path) -> io::Result<()> {
        let folder = folder_of(target);
        let is_there = model.storage.folder().is_some_and(|own| place::is_same_file(own, folder));
        let tensors = external::find(model).map_err(io::Error::other)?;
        for location in external::locations(&tensors).iter().filter(|_| !is_there) {
            let content = model.storage.side_file(location).map_err(io::Error::other)?;
            self.0.extend(staged::copy_side_file(&content, folder, location)?);
        }
        Ok(())
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// A side file that a new model names.
pub struct StagedSide {
    /// Its location, as the model names it.
    pub location: String,
    /// The path that it goes to.
    pub path: PathBuf,
    /// The staged file; `None` if an earlier run has left the very same file.
    pub staged: Option<Staged>,
}

impl StagedSide {
    /// The path where its content lies now.
    pub fn path(&self) -> &Path {
        self.staged.as_ref().map_or(&self.path, Staged::path)
    }

    /// Flushes its content to disk.
    ///
    /// # Errors
    /// Returns the errors of the file system.
    pub fn flush(&self) -> io::Result<()> {
        self.staged.iter().try_for_each(Staged::flush)
    }

    /// Puts it in place. Returns the path if the file was not there before.
    fn commit(self) -> io::Result<Option<PathBuf>> {
        let Some(staged) = self.staged else { return Ok(None) };
        staged.commit(&self.path, Clobber::Refuse)?;
        Ok(Some(self.path))
    }
}
