//! The last step, the new model's way to its place: staged beside it, checked there, and
//! only then renamed, after its side file.
//!
//! What stays is copied; new weights are computed, all processors at once, and each piece
//! is written where it belongs as soon as it is there. Knows files and edits; what is
//! checked, and against what, is for the caller to say.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use prost::bytes::Bytes;
use rayon::prelude::*;

use crate::emit::weights::{FusedWeights, NotFinite};
use crate::error::Error;
use crate::onnx::external::{self, External, SideFileLayout};
use crate::onnx::map::MappedFile;
use crate::onnx::model::{Invalid, Model};
use crate::onnx::splice::{self, Deferred, Edit, Hole};
use crate::onnx::staged::{self, Clobber, NewFile, Staged, folder_of};
use crate::onnx::storage::Storage;
use crate::options::Options;
use crate::pipeline::edits::Rewrite;

/// Where a new model goes.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'d> {
    /// To a file.
    File(&'d Path),
    /// To standard output.
    Pipe,
    /// To the caller.
    Memory,
}

impl Destination<'_> {
    /// What it is called in messages.
    pub fn label(&self) -> String {
        match self {
            Destination::File(path) => path.display().to_string(),
            Destination::Pipe => "-".to_owned(),
            Destination::Memory => "the new model".to_owned(),
        }
    }

    /// Why weights in side files do not go there; `None` if they do.
    fn takes_no_side_files(&self) -> Option<&'static str> {
        match self {
            Destination::File(_) => None,
            Destination::Pipe => {
                Some("weights in side files cannot go through a pipe; name an output file")
            }
            Destination::Memory => {
                Some("weights in side files are not in bytes; fuse the model from file to file")
            }
        }
    }

    /// Whether a new model could go there, before the work begins.
    ///
    /// # Errors
    /// What stands there.
    pub fn check(&self, options: &Options) -> Result<(), Error> {
        let Destination::File(target) = self else { return Ok(()) };
        staged::check_target(target, options.clobber)
            .map_err(|source| Error::Write { file: self.label(), source })
    }
}

/// A new model: an old one, and what makes the new one of it.
#[derive(Debug)]
pub struct Delivery<'d> {
    /// What the old model is called in errors.
    pub file: &'d str,
    /// The model that the edits refer to.
    pub old: &'d Model,
    /// The edits.
    pub rewrite: &'d Rewrite,
}

/// A new model that is complete, and not yet in its place.
pub struct StagedModel<'d> {
    /// As it would be read there.
    pub model: Model,
    destination: Destination<'d>,
    /// Beside its place, if that is a file.
    files: Option<StagedFiles<'d>>,
}

/// The files of a new model, beside their places.
struct StagedFiles<'d> {
    target: &'d Path,
    clobber: Clobber,
    file: Staged,
    side: Option<StagedSide>,
    /// The old model, if it stays as it is, and its side files have to be where it goes.
    copied: Option<&'d Model>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Where.
    pub label: String,
    /// The model itself.
    pub model: Bytes,
    /// The side file that holds its weights, if one was made for it.
    pub side_file: Option<String>,
}

/// Why a file was not filled.
enum Unfilled {
    Io(io::Error),
    NotFinite(NotFinite),
}

impl From<io::Error> for Unfilled {
    fn from(error: io::Error) -> Self {
        Unfilled::Io(error)
    }
}

impl From<NotFinite> for Unfilled {
    fn from(tensor: NotFinite) -> Self {
        Unfilled::NotFinite(tensor)
    }
}

impl Unfilled {
    /// That `written`, made of the model `file`, is not there.
    fn of(self, written: &str, file: &str) -> Error {
        match self {
            Unfilled::Io(source) => Error::Write { file: written.to_owned(), source },
            // That they are finite was planned.
            Unfilled::NotFinite(wrong) => {
                Error::Miswritten { file: file.to_owned(), reason: wrong.to_string() }
            }
        }
    }
}

impl<'d> Delivery<'d> {
    /// Makes the new model, and nothing that it could be mistaken for.
    ///
    /// # Errors
    /// If it cannot be written; nothing is left of it then. If it has side files, and does not
    /// go to a file.
    pub fn stage(
        &self,
        destination: Destination<'d>,
        options: &Options,
    ) -> Result<StagedModel<'d>, Error> {
        match destination {
            Destination::File(target) => self.stage_files(target, options.clobber),
            Destination::Pipe | Destination::Memory => self.in_memory(destination),
        }
    }

    fn in_memory(&self, destination: Destination<'d>) -> Result<StagedModel<'d>, Error> {
        let name = destination.label();
        let failed = |source| Error::Write { file: name.clone(), source };
        let invalid = invalid(self.file);
        if let Some(why) = destination.takes_no_side_files()
            && !external::find(self.old).map_err(&invalid)?.is_empty()
        {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
        let edits = self.rewrite.edits(vec![], vec![], |_| None);
        let mut new = Vec::with_capacity(self.old.bytes().len());
        let holes = splice::write(self.old.bytes(), &edits, &mut new).map_err(failed)?;
        let whole = Mutex::new(new.as_mut_slice());
        let put = |piece: &[u8], at: u64| {
            let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
            let at = usize::try_from(at).map_err(io::Error::other)?;
            let place = whole.get_mut(at..at.saturating_add(piece.len()));
            place.into_iter().for_each(|place| place.copy_from_slice(piece));
            Ok(())
        };
        self.fill(&holes, put).map_err(|unfilled| unfilled.of(&name, self.file))?;
        let model = Model::index(new.into(), Storage::default()).map_err(invalid)?;
        Ok(StagedModel { model, destination, files: None })
    }

    fn stage_files(&self, target: &'d Path, clobber: Clobber) -> Result<StagedModel<'d>, Error> {
        let name = target.display().to_string();
        let failed = |source| Error::Write { file: name.clone(), source };
        let unfilled = |unfilled: Unfilled| unfilled.of(&name, self.file);
        let invalid = invalid(self.file);
        let old = self.old;
        let tensors = external::find(old).map_err(&invalid)?;
        spare_side_files(&old.storage, &tensors, target).map_err(failed)?;
        let (edits, side) = match (self.rewrite.is_empty(), tensors.is_empty()) {
            (true, _) => (Vec::new(), None),
            (false, true) => (self.rewrite.edits(vec![], vec![], |_| None), None),
            (false, false) => self.with_side_file(tensors, target)?,
        };
        let side = side.map(|side| self.staged(side)).transpose().map_err(unfilled)?;
        let file = Staged::write(target, |out| {
            let mut new = NewFile { out, old: old.storage.model() };
            let holes = splice::write(old.bytes(), &edits, &mut new)?;
            self.fill_file(out, &holes)
        });
        let file = file.map_err(unfilled)?;
        let new = MappedFile::of(file.path()).map_err(failed)?;
        let storage = match &side {
            Some(side) => old.storage.with_staged(&side.location, side.path()),
            None => old.storage.clone(),
        };
        let storage = storage.of_model(&new);
        let model = Model::index(new.bytes(), storage).map_err(invalid)?;
        let copied = Some(old).filter(|_| edits.is_empty());
        let files = Some(StagedFiles { target, clobber, file, side, copied });
        Ok(StagedModel { model, destination: Destination::File(target), files })
    }

    /// Computes what is still open in a new file, and has `put` write it there.
    fn fill(
        &self,
        holes: &[Hole],
        put: impl Fn(&[u8], u64) -> io::Result<()> + Sync,
    ) -> Result<(), Unfilled> {
        let pieces =
            holes.iter().filter_map(|hole| Some((hole.at, self.rewrite.weight(hole.deferred)?)));
        let pieces = pieces.flat_map(|(at, weights)| {
            weights.pieces().map(move |piece| {
                let before = piece.start.saturating_mul(weights.float.size());
                (at.saturating_add(before) as u64, weights, piece)
            })
        });
        let pieces: Vec<(u64, &FusedWeights, Range<usize>)> = pieces.collect();
        pieces.into_par_iter().try_for_each(|(at, weights, piece)| {
            put(&weights.rounded(piece)?, at).map_err(Unfilled::from)
        })
    }

    fn fill_file(&self, out: &mut BufWriter<&File>, holes: &[Hole]) -> Result<(), Unfilled> {
        // Else zeros that are still buffered would be written over what is there.
        out.flush()?;
        let file: &File = out.get_ref();
        self.fill(holes, |piece, at| staged::write_at(file, piece, at))
    }

    /// The edits that move the weights that stay, and new ones, into a side file beside
    /// `target`, and that file, if anything lies in it.
    fn with_side_file(
        &self,
        tensors: Vec<External>,
        target: &Path,
    ) -> Result<(Vec<Edit>, Option<NewSide>), Error> {
        let kept = external::untouched(tensors, &self.rewrite.edits);
        let new =
            self.rewrite.weights().map(|(deferred, weights)| (weights.name.as_str(), deferred));
        let file = SideFileLayout::of(&kept, &self.old.storage, new)
            .map_err(|error| invalid(self.file)(error.into()))?;
        let (location, path) = self
            .free_place(target, &file)
            .map_err(|source| Error::Write { file: target.display().to_string(), source })?;
        let moves = file.edits(&kept, &location);
        let containers = kept.into_iter().flat_map(|tensor| tensor.containers).collect();
        let edits = self.rewrite.edits(moves, containers, |header| file.naming(header, &location));
        let side = NewSide { location, path, file };
        Ok((edits, Some(side).filter(|side| !side.file.is_empty())))
    }

    /// A name beside `target` that no other file has, so that whoever reads an older side
    /// file still finds what was there.
    fn free_place(&self, target: &Path, file: &SideFileLayout) -> io::Result<(String, PathBuf)> {
        let name = target.file_name().and_then(|name| name.to_str());
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        let name = name
            .ok_or_else(|| invalid("its name is not UTF-8, so no model can name its side file"))?;
        for number in 1..1000 {
            let location = match number {
                1 => format!("{name}.data"),
                _ => format!("{name}.{number}.data"),
            };
            let path = folder_of(target).join(&location);
            let is_same = |there: fs::Metadata| {
                there.is_file()
                    && MappedFile::of(&path).is_ok_and(|map| {
                        file.is(&map.bytes(), |deferred, there| {
                            let same = self.is(deferred, there);
                            map.give_back();
                            same
                        })
                    })
            };
            if path.symlink_metadata().map_or(true, is_same) {
                return Ok((location, path));
            }
        }
        Err(invalid("too many side files stand beside it; remove those that no model names"))
    }

    /// Whether the weights that are `deferred` are the bytes that are `there`.
    fn is(&self, deferred: Deferred, there: &[u8]) -> bool {
        let Some(weights) = self.rewrite.weight(deferred) else { return false };
        let same = |piece: Range<usize>| {
            let size = weights.float.size();
            let place = piece.start.saturating_mul(size)..piece.end.saturating_mul(size);
            weights.rounded(piece).is_ok_and(|bytes| there.get(place) == Some(&bytes))
        };
        weights.pieces().collect::<Vec<_>>().into_par_iter().all(same)
    }

    fn staged(&self, side: NewSide) -> Result<StagedSide, Unfilled> {
        let NewSide { location, path, file } = side;
        let staged = if path.exists() {
            None
        } else {
            Some(Staged::write(&path, |out| {
                let holes = file.write(&mut NewFile { out, old: None })?;
                self.fill_file(out, &holes)
            })?)
        };
        Ok(StagedSide { location, path, staged })
    }
}

impl StagedModel<'_> {
    /// Does `work`, and has the files reach the disk meanwhile: it is slow, and has no part in
    /// checking.
    pub fn flushed_during<T>(&self, work: impl FnOnce(&Model) -> T) -> (T, Result<(), Error>) {
        let Some(files) = &self.files else { return (work(&self.model), Ok(())) };
        thread::scope(|scope| {
            let flushed = scope.spawn(|| {
                files.side.iter().try_for_each(StagedSide::flush)?;
                files.file.flush()
            });
            let done = work(&self.model);
            let flushed = flushed.join();
            let flushed = flushed.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
            (done, flushed.map_err(|source| self.unwritten(source)))
        })
    }

    /// Puts the model in its place. At every moment the old file or the new one is there,
    /// with the side file that it names.
    ///
    /// # Errors
    /// Those of the file system. Everything is as it was then, except that side files which
    /// were copied for a model that stays as it is may be there.
    pub fn deliver(self) -> Result<Delivered, Error> {
        let label = self.destination.label();
        let unwritten = |source| Error::Write { file: label.clone(), source };
        if let Destination::Pipe = self.destination {
            let mut out = io::stdout().lock();
            out.write_all(self.model.bytes()).and_then(|()| out.flush()).map_err(unwritten)?;
        }
        let side_file = self.files.map(StagedFiles::commit).transpose().map_err(unwritten)?;
        let model = self.model.bytes().clone();
        Ok(Delivered { label, model, side_file: side_file.flatten() })
    }

    fn unwritten(&self, source: io::Error) -> Error {
        Error::Write { file: self.destination.label(), source }
    }
}

impl StagedFiles<'_> {
    /// Puts the files in their places; the name of the side file, if there is one.
    fn commit(self) -> io::Result<Option<String>> {
        if let Some(old) = self.copied {
            copy_side_files(old, self.target)?;
        }
        let side_file = self.side.as_ref().map(|side| side.location.clone());
        let placed = self.side.map(StagedSide::commit).transpose()?;
        self.file.commit(self.target, self.clobber).inspect_err(|_| {
            // A new side file that nobody names goes again, or stays if that fails too.
            placed.flatten().map(fs::remove_file);
        })?;
        Ok(side_file)
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
    file: SideFileLayout,
}

/// The same, written.
struct StagedSide {
    location: String,
    path: PathBuf,
    /// `None` if an earlier run has left the very same file.
    staged: Option<Staged>,
}

impl StagedSide {
    /// Where its content lies now.
    fn path(&self) -> &Path {
        self.staged.as_ref().map_or(&self.path, Staged::path)
    }

    fn flush(&self) -> io::Result<()> {
        self.staged.iter().try_for_each(Staged::flush)
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
        staged::copy_side_file(&content, folder, location)?;
    }
    Ok(())
}
