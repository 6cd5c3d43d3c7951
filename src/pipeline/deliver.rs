//! The last step: the new model is staged beside its place, checked there, and only then
//! renamed, after its side file.
//!
//! What stays is copied; new weights are computed on all processors at once, and each piece is
//! written where it belongs as soon as it is computed. Knows files and edits; the caller decides
//! what is checked, and against what.

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
use crate::onnx::model::Model;
use crate::onnx::place::{self, folder_of};
use crate::onnx::splice::{self, Deferred, Edit, Hole};
use crate::onnx::staged::{self, NewFile, Staged};
use crate::onnx::storage::Storage;
use crate::options::Options;
use crate::pipeline::edits::Rewrite;
use crate::pipeline::occupied::Occupied;
use crate::pipeline::placed::{StagedFiles, StagedSide};
use crate::report::Predecessor;

/// The destination of a new model.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'d> {
    /// A file.
    File(&'d Path),
    /// Standard output.
    Pipe,
    /// The caller.
    Memory,
}

impl<'d> Destination<'d> {
    /// The path of the file; `None` if the destination is no file.
    pub fn path(&self) -> Option<&'d Path> {
        match self {
            Destination::File(path) => Some(path),
            Destination::Pipe | Destination::Memory => None,
        }
    }

    /// The name of the destination in messages.
    pub fn label(&self) -> String {
        match self {
            Destination::File(path) => path.display().to_string(),
            Destination::Pipe => "-".to_owned(),
            Destination::Memory => "the new model".to_owned(),
        }
    }

    /// Returns why weights in side files cannot go there; `None` if they can.
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

    /// Checks, before the work begins, whether a new model could go there.
    ///
    /// # Errors
    /// Returns an error if what stands there may not be replaced, or its folder does not exist.
    pub fn check(&self, options: &Options) -> Result<(), Error> {
        let Destination::File(target) = self else { return Ok(()) };
        staged::check_target(target, options.clobber)
            .and_then(|()| folder_of(target).metadata().map(drop))
            .map_err(|source| Error::Write { file: self.label(), source })
    }
}

/// A new model as an old one and the edits that turn it into the new one.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'d> {
    /// The name of the old model in errors.
    pub file: &'d str,
    /// The caller's model, whose files must not change until the new one is in place.
    pub read: &'d Model,
    /// The model that the edits refer to.
    pub old: &'d Model,
    /// The edits, with the new weights.
    pub rewrite: &'d Rewrite,
    /// What stands where the new model goes.
    pub occupied: &'d Occupied,
}

/// A new model that is complete, but not yet in its place.
pub struct StagedModel<'d> {
    /// The model as it will be read in its place.
    pub model: Model,
    delivery: Delivery<'d>,
    destination: Destination<'d>,
    /// The files beside their places, if the destination is a file.
    files: Option<StagedFiles<'d>>,
}

/// A model that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The name of the destination.
    pub label: String,
    /// The bytes of the model.
    pub model: Bytes,
    /// What stood there before, if that is worth reporting.
    pub replaced: Option<Predecessor>,
    /// Why it is not known whether the new names would outlive a power failure.
    pub unsynced: Option<String>,
}

/// The reason why the new weights were not written.
#[derive(Debug, thiserror::Error)]
enum Unfilled {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
}

impl Unfilled {
    /// Returns the error that `written`, made from the model called `file`, was not written.
    fn of(self, written: &str, file: &str) -> Error {
        match self {
            Unfilled::Io(source) => Error::Write { file: written.to_owned(), source },
            // The plan made sure that the weights are finite.
            Unfilled::NotFinite(wrong) => Error::miswritten(file, &wrong),
        }
    }
}

impl<'d> Delivery<'d> {
    /// Makes the new model, under no name for which it could be mistaken.
    ///
    /// # Errors
    /// Returns an error if the model cannot be written, after which nothing is left of it, or if
    /// it has side files and does not go to a file.
    pub fn stage(
        &self,
        destination: Destination<'d>,
        options: &Options,
    ) -> Result<StagedModel<'d>, Error> {
        match destination {
            Destination::File(target) => self.stage_files(target, options),
            Destination::Pipe | Destination::Memory => self.in_memory(destination),
        }
    }

    fn in_memory(&self, destination: Destination<'d>) -> Result<StagedModel<'d>, Error> {
        let name = destination.label();
        let failed = |source| Error::Write { file: name.clone(), source };
        let invalid = Error::invalid(self.file);
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
            if let Some(place) = whole.get_mut(at..at.saturating_add(piece.len())) {
                place.copy_from_slice(piece);
            }
            Ok(())
        };
        self.fill(&holes, put).map_err(|unfilled| unfilled.of(&name, self.file))?;
        let model = Model::index(new.into(), Storage::default()).map_err(invalid)?;
        Ok(StagedModel { model, delivery: *self, destination, files: None })
    }

    fn stage_files(&self, target: &'d Path, options: &Options) -> Result<StagedModel<'d>, Error> {
        let name = target.display().to_string();
        let failed = |source| Error::Write { file: name.clone(), source };
        let unfilled = |unfilled: Unfilled| unfilled.of(&name, self.file);
        let invalid = Error::invalid(self.file);
        let old = self.old;
        let tensors = external::find(old).map_err(&invalid)?;
        let (edits, side) = match (self.rewrite.is_empty(), tensors.is_empty()) {
            (true, _) => (Vec::new(), None),
            (false, true) => (self.rewrite.edits(vec![], vec![], |_| None), None),
            (false, false) => self.with_side_file(tensors, target, options)?,
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
        let clobber = options.clobber;
        let files = Some(StagedFiles { target, clobber, file, side, copied });
        Ok(StagedModel { model, delivery: *self, destination: Destination::File(target), files })
    }

    /// Computes the weights for the `holes` of a new file; `put` writes each piece at its
    /// offset.
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
        // Otherwise zeros that are still buffered would later overwrite what is written now.
        out.flush()?;
        let file: &File = out.get_ref();
        self.fill(holes, |piece, at| staged::write_at(file, piece, at))
    }

    /// Returns the edits that move the weights that stay, and the new ones, into a side file
    /// beside `target`, and that side file unless it would be empty.
    fn with_side_file(
        &self,
        tensors: Vec<External>,
        target: &Path,
        options: &Options,
    ) -> Result<(Vec<Edit>, Option<NewSide>), Error> {
        let kept = external::untouched(tensors, &self.rewrite.edits);
        let new =
            self.rewrite.weights().map(|(deferred, weights)| (weights.name.as_str(), deferred));
        let file = SideFileLayout::of(&kept, &self.old.storage, new)
            .map_err(|error| Error::invalid(self.file)(error.into()))?;
        let (location, path) = self
            .free_place(target, &file, &options.also_written)
            .map_err(|source| Error::Write { file: target.display().to_string(), source })?;
        let moves = file.edits(&kept, &location);
        let containers = kept.into_iter().flat_map(|tensor| tensor.containers).collect();
        let edits = self.rewrite.edits(moves, containers, |header| file.naming(header, &location));
        let side = NewSide { location, path, file };
        Ok((edits, Some(side).filter(|side| !side.file.is_empty())))
    }

    /// Finds a side-file name beside `target` that no other file has, so that whoever reads an
    /// older side file still finds what was there. A file with the same content is reused.
    fn free_place(
        &self,
        target: &Path,
        file: &SideFileLayout,
        taken: &[PathBuf],
    ) -> io::Result<(String, PathBuf)> {
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
            let is_taken = taken.iter().any(|taken| place::is_same_file(taken, &path));
            if !is_taken && path.symlink_metadata().map_or(true, is_same) {
                return Ok((location, path));
            }
        }
        Err(invalid("too many side files stand beside it; remove those that no model names"))
    }

    /// Checks whether the `deferred` weights are the bytes that are already `there`.
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
    /// Does `work` on the model, and flushes the files to disk meanwhile: that is slow, and no
    /// part of checking needs it.
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

    /// Puts the model in its place. At every moment the old file or the new one is there, with
    /// the side file that it names.
    ///
    /// # Errors
    /// Returns the errors of the file system, and an error if a file that was read, or the one
    /// that is replaced, has changed since. In that case everything is as it was before.
    pub fn deliver(self) -> Result<Delivered, Error> {
        let label = self.destination.label();
        let Delivery { read, occupied, .. } = self.delivery;
        if let Some(changed) = read.storage.changed() {
            return Err(Error::Changed { file: changed.display().to_string() });
        }
        let target = self.destination.path();
        if target.is_some_and(|target| !occupied.is_as_it_was(target)) {
            return Err(Error::Changed { file: label });
        }
        let unwritten = |source| Error::Write { file: label.clone(), source };
        if let Destination::Pipe = self.destination {
            let mut out = io::stdout().lock();
            out.write_all(self.model.bytes()).and_then(|()| out.flush()).map_err(unwritten)?;
        }
        let unsynced = self.files.map(StagedFiles::commit).transpose().map_err(unwritten)?;
        let unsynced = unsynced.flatten();
        let replaced = target.and_then(|target| occupied.replaced_by(&self.model, target));
        let model = self.model.bytes().clone();
        Ok(Delivered { label, model, replaced, unsynced })
    }

    fn unwritten(&self, source: io::Error) -> Error {
        Error::Write { file: self.destination.label(), source }
    }
}

/// A side file that the new model will name.
struct NewSide {
    location: String,
    path: PathBuf,
    file: SideFileLayout,
}
