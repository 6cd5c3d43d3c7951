//! The new model's way to its place: staged beside it, checked there, and only then
//! renamed, after its side file.
//!
//! Knows files and edits; what is checked, and against what, is for the caller to say.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::bytes::Bytes;

use crate::error::Error;
use crate::onnx::external::{self, External, SideFile};
use crate::onnx::model::{self, Invalid, Model};
use crate::onnx::output::{self, Clobber, Staged, folder_of};
use crate::onnx::splice::{self, Edit};
use crate::onnx::storage::Storage;
use crate::rewrite::Rewrite;

/// A new model: an old one, and what makes the new one of it.
#[derive(Debug)]
pub struct Delivery<'d> {
    /// What the old model is called in errors.
    pub file: &'d str,
    /// The model that the edits refer to.
    pub old: &'d Model,
    /// The edits.
    pub rewrite: Rewrite,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Bytes of the model file.
    pub bytes: usize,
    /// The side file that holds its weights, if one was made for it.
    pub side_file: Option<String>,
}

impl Delivery<'_> {
    /// Writes the model to standard output, if `check` agrees.
    ///
    /// # Errors
    /// Those of `check`; if there are side files, or the other end is closed.
    pub fn to_pipe(
        self,
        check: impl FnOnce(&Model) -> Result<(), Error>,
    ) -> Result<Delivered, Error> {
        let failed = |source| Error::Write { file: "-".to_owned(), source };
        let invalid = invalid(self.file);
        if !external::find(self.old).map_err(&invalid)?.is_empty() {
            let why = "weights in side files cannot go through a pipe; name an output file";
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
        let edits = self.rewrite.into_edits(vec![], vec![], |tensor| tensor);
        let mut new = Vec::with_capacity(self.old.bytes().len());
        splice::write(self.old.bytes(), &edits, &mut new).map_err(failed)?;
        let new = Bytes::from(new);
        check(&Model::index(new.clone(), Storage::default()).map_err(invalid)?)?;
        let mut out = io::stdout().lock();
        out.write_all(&new).and_then(|()| out.flush()).map_err(failed)?;
        Ok(Delivered { bytes: new.len(), side_file: None })
    }

    /// Writes the model to `target`, if `check` agrees. At every moment the old file or
    /// the new one is there, with the side file that it names.
    ///
    /// # Errors
    /// Those of `check`, and of the file system. Everything is as it was then, except that
    /// side files which were copied for a model that stays as it is may be there.
    pub fn to_file(
        self,
        target: &Path,
        clobber: Clobber,
        check: impl FnOnce(&Model) -> Result<(), Error>,
    ) -> Result<Delivered, Error> {
        let failed = |source| Error::Write { file: target.display().to_string(), source };
        let invalid = invalid(self.file);
        let old = self.old;
        let tensors = external::find(old).map_err(&invalid)?;
        spare_side_files(&old.storage, &tensors, target).map_err(failed)?;
        let (edits, side) = match (self.rewrite.is_empty(), tensors.is_empty()) {
            (true, _) => (Vec::new(), None),
            (false, true) => (self.rewrite.into_edits(vec![], vec![], |tensor| tensor), None),
            (false, false) => with_side_file(old, self.rewrite, tensors, target, &invalid)?,
        };
        let side = side.map(NewSide::staged).transpose().map_err(failed)?;
        let staged = Staged::write(target, |out| splice::write(old.bytes(), &edits, out));
        let staged = staged.map_err(failed)?;
        let new = model::map(staged.path()).map_err(failed)?;
        let bytes = new.len();
        let storage = match &side {
            Some(side) => old.storage.with_staged(&side.location, side.path()),
            None => old.storage.clone(),
        };
        check(&Model::index(new, storage).map_err(invalid)?)?;
        if edits.is_empty() {
            copy_side_files(old, target).map_err(failed)?;
        }
        let side_file = side.as_ref().map(|side| side.location.clone());
        let placed = side.map(StagedSide::commit).transpose().map_err(failed)?;
        staged.commit(target, clobber).map_err(|error| {
            // A new side file that nobody names goes again, or stays if that fails too.
            placed.flatten().map(fs::remove_file);
            failed(error)
        })?;
        Ok(Delivered { bytes, side_file })
    }
}

fn invalid(file: &str) -> impl Fn(Invalid) -> Error {
    move |source| Error::Invalid { file: file.to_owned(), source }
}

/// Whether `target` is none of the files that the old model's weights are read from, nor
/// called like one.
fn spare_side_files(storage: &Storage, tensors: &[External], target: &Path) -> io::Result<()> {
    let there = target.canonicalize();
    for location in external::locations(tensors) {
        let is_read =
            storage.resolve(&location).ok().is_some_and(|path| Some(&path) == there.as_ref().ok());
        if is_read || folder_of(target).join(&location) == target {
            let why =
                "it holds weights of the model that is read, or is called like a file that does";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    }
    Ok(())
}

/// A side file that the new model will name.
struct NewSide {
    location: String,
    path: PathBuf,
    file: SideFile,
}

/// The same, with its content on the disk.
struct StagedSide {
    location: String,
    path: PathBuf,
    /// `None` if an earlier run has left the very same file.
    staged: Option<Staged>,
}

/// The edits that move the weights of `old` that stay, and new ones, into a side file
/// beside `target`, and that file, if anything lies in it.
fn with_side_file(
    old: &Model,
    rewrite: Rewrite,
    tensors: Vec<External>,
    target: &Path,
    invalid: impl Fn(Invalid) -> Error,
) -> Result<(Vec<Edit>, Option<NewSide>), Error> {
    let kept = external::untouched(tensors, &rewrite.edits);
    let new = rewrite.tensors.iter().map(|new| &new.tensor);
    let file = SideFile::of(&kept, &old.storage, new).map_err(|error| invalid(error.into()))?;
    let (location, path) = free_place(target, &file)
        .map_err(|source| Error::Write { file: target.display().to_string(), source })?;
    let moves = file.edits(&kept, &location);
    let containers = kept.into_iter().flat_map(|tensor| tensor.containers).collect();
    let edits =
        rewrite.into_edits(moves, containers, |tensor| file.with_data_here(tensor, &location));
    let side = NewSide { location, path, file };
    Ok((edits, Some(side).filter(|side| !side.file.is_empty())))
}

/// A name beside `target` that no other file has, so that whoever reads an older side
/// file still finds what was there.
fn free_place(target: &Path, file: &SideFile) -> io::Result<(String, PathBuf)> {
    let name = target.file_name().and_then(|name| name.to_str());
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
    let name =
        name.ok_or_else(|| invalid("its name is not UTF-8, so no model can name its side file"))?;
    for number in 1..1000 {
        let location = match number {
            1 => format!("{name}.data"),
            _ => format!("{name}.{number}.data"),
        };
        let path = folder_of(target).join(&location);
        let is_same = |there: fs::Metadata| {
            there.is_file() && model::map(&path).is_ok_and(|content| file.is(&content))
        };
        if path.symlink_metadata().map_or(true, is_same) {
            return Ok((location, path));
        }
    }
    Err(invalid("too many side files stand beside it; remove those that no model names"))
}

impl NewSide {
    fn staged(self) -> io::Result<StagedSide> {
        let NewSide { location, path, file } = self;
        let staged = match path.exists() {
            true => None,
            false => Some(Staged::write(&path, |out| file.write(out))?),
        };
        Ok(StagedSide { location, path, staged })
    }
}

impl StagedSide {
    /// Where its content lies now.
    fn path(&self) -> &Path {
        self.staged.as_ref().map_or(&self.path, Staged::path)
    }

    /// Puts it in place; the path, if it was not there.
    fn commit(self) -> io::Result<Option<PathBuf>> {
        let Some(staged) = self.staged else { return Ok(None) };
        staged.commit(&self.path, Clobber::Refuse)?;
        Ok(Some(self.path))
    }
}

/// A model that stays as it is, but in another folder, needs its side files there.
fn copy_side_files(model: &Model, target: &Path) -> io::Result<()> {
    let folder = folder_of(target);
    let same = match (model.storage.folder().map(Path::canonicalize), folder.canonicalize()) {
        (Some(Ok(old)), Ok(new)) => old == new,
        _ => false,
    };
    let tensors = external::find(model).map_err(io::Error::other)?;
    for location in external::locations(&tensors).iter().filter(|_| !same) {
        let content = model.storage.side_file(location).map_err(io::Error::other)?;
        output::copy_side_file(&content, folder, location)?;
    }
    Ok(())
}
