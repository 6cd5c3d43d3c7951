//! Where a report goes, and in which of its forms.
//!
//! Knows the three forms of a report, and how a file is put in its place in one step; not what
//! a report says.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::onnx::place::folder_of;
use crate::onnx::staged::{self, Clobber, Staged};
use crate::report::Report;
use crate::report::html::{self, Origin};
use crate::report::json::{json, json_line};

/// Standard output, or a file and what is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// JSON on standard output.
    Pipe,
    /// A file of JSON.
    Json(PathBuf),
    /// A file that browsers open.
    Html(PathBuf),
    /// A file with a line of JSON per model.
    Lines(PathBuf),
}

impl Target {
    /// Whether a report could be put there, before the work begins.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> io::Result<()> {
        let Some(path) = self.path() else { return Ok(()) };
        staged::check_target(path, Clobber::Force)?;
        folder_of(path).metadata().map(drop)
    }

    /// Writes the report there; a file that stands there is replaced in one step. Only a page
    /// names its `origin`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, report: &Report, origin: &Origin) -> io::Result<()> {
        let text = match self {
            Target::Pipe | Target::Json(_) => json(report),
            Target::Html(_) => html::page(report, Some(origin)),
            Target::Lines(_) => json_line(report),
        };
        self.write_lines(|out| out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }

    /// Has `work` write lines there; the file is put in its place when all are there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_lines<T>(
        &self,
        work: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    ) -> io::Result<T> {
        self.check()?;
        let Some(path) = self.path() else { return work(&mut io::stdout().lock()) };
        let mut result = None;
        let staged = Staged::write(path, |out| {
            result = Some(work(out)?);
            Ok::<(), io::Error>(())
        });
        let placed = staged.and_then(|staged| {
            staged.flush()?;
            staged.commit(path, Clobber::Force)?;
            // It is there: that the disk cannot say so of its name is no failure to write it.
            staged::sync_folder(path).or(Ok(()))
        });
        let result = result.ok_or_else(|| io::ErrorKind::Other.into());
        placed.and(result)
    }

    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Target::Pipe => None,
            Target::Json(path) | Target::Html(path) | Target::Lines(path) => Some(path),
        }
    }
}
