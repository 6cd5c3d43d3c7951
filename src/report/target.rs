//! Where a report is written, and in which form.
//!
//! Knows the forms of a report, and how a file is replaced atomically; does not know what a
//! report says.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::onnx::place::folder_of;
use crate::onnx::staged::{self, Clobber, Staged};
use crate::report::Report;
use crate::report::html::{self, Origin};
use crate::report::json::{json, json_line};

/// The destination of a report, with the form in which it is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// JSON on standard output.
    Pipe,
    /// A JSON file.
    Json(PathBuf),
    /// An HTML file.
    Html(PathBuf),
    /// A file with one line of JSON for each model.
    Lines(PathBuf),
}

impl Target {
    /// Checks, before the work begins, that a report can be written to this destination.
    ///
    /// # Errors
    /// Returns an error that says why it cannot.
    pub fn check(&self) -> io::Result<()> {
        let Some(path) = self.path() else { return Ok(()) };
        staged::check_target(path, Clobber::Force)?;
        folder_of(path).metadata().map(drop)
    }

    /// Writes the report; an existing file is replaced atomically. Only a page names the
    /// `origin`.
    ///
    /// # Errors
    /// Returns the error of the file system.
    pub fn write(&self, report: &Report, origin: &Origin) -> io::Result<()> {
        let text = match self {
            Target::Pipe | Target::Json(_) => json(report),
            Target::Html(_) => html::page(report, Some(origin)),
            Target::Lines(_) => json_line(report),
        };
        self.write_lines(|out| out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }

    /// Lets `work` write lines; a file is put in its place when all lines are written.
    ///
    /// # Errors
    /// Returns the error of the file system, or of `work`.
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
            // The file is written even if the system cannot tell whether its name has reached
            // the disk.
            staged::sync_folder(path).or(Ok(()))
        });
        let result = result.ok_or_else(|| io::ErrorKind::Other.into());
        placed.and(result)
    }

    /// Returns the path of the file; `None` for standard output.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Target::Pipe => None,
            Target::Json(path) | Target::Html(path) | Target::Lines(path) => Some(path),
        }
    }
}
