//! Where a report goes: standard output or a file, of the kind that its name says.
//!
//! Knows the three forms of a report, and how a file is put in its place in one step; not what
//! a report says.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::error::Error;
use crate::onnx::staged::{self, Clobber, Staged};
use crate::report::json::{json, json_line};
use crate::report::{Report, html};

/// Standard output, or a file and what is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// By its name: `-` is standard output, all else ends with what it is.
    ///
    /// # Errors
    /// If it ends otherwise.
    pub fn of(name: &str) -> Result<Self, String> {
        let path = PathBuf::from(name);
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            _ if name == "-" => Ok(Target::Pipe),
            Some("json") => Ok(Target::Json(path)),
            Some("jsonl") => Ok(Target::Lines(path)),
            Some("html" | "htm") => Ok(Target::Html(path)),
            _ => Err("a report is `-`, or a file that ends with .json, .html or .jsonl".to_owned()),
        }
    }

    /// Whether it is this file, by name.
    pub fn is(&self, path: &str) -> bool {
        self.path().is_some_and(|own| own.as_os_str() == path)
    }

    /// Whether a report could be put there, before the work begins.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self) -> Result<(), Error> {
        let Some(path) = self.path() else { return Ok(()) };
        let check = || {
            staged::check_target(path, Clobber::Replace)?;
            staged::folder_of(path).metadata().map(drop)
        };
        check().map_err(|source| unwritten(path.display(), source))
    }

    /// Writes the report there; a file that stands there is replaced in one step.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, report: &Report) -> Result<(), Error> {
        let text = match self {
            Target::Pipe | Target::Json(_) => json(report),
            Target::Html(_) => html::page(report),
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
    ) -> Result<T, Error> {
        self.check()?;
        let Some(path) = self.path() else {
            return work(&mut io::stdout().lock()).map_err(|source| unwritten("-", source));
        };
        let mut result = None;
        let staged = Staged::write(path, |out| {
            result = Some(work(out)?);
            Ok::<(), io::Error>(())
        });
        let placed = staged.and_then(|staged| {
            staged.flush()?;
            staged.commit(path, Clobber::Replace)
        });
        let result = result.ok_or_else(|| io::ErrorKind::Other.into());
        placed.and(result).map_err(|source| unwritten(path.display(), source))
    }

    /// The file, if it is one.
    fn path(&self) -> Option<&PathBuf> {
        match self {
            Target::Pipe => None,
            Target::Json(path) | Target::Html(path) | Target::Lines(path) => Some(path),
        }
    }
}

/// That a report could not be written to `file`.
fn unwritten(file: impl Display, source: io::Error) -> Error {
    Error::Write { file: file.to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_written() {
        for (name, expected) in [
            ("-", Some(Target::Pipe)),
            ("a/b.json", Some(Target::Json("a/b.json".into()))),
            ("R.HTML", Some(Target::Html("R.HTML".into()))),
            ("r.htm", Some(Target::Html("r.htm".into()))),
            ("r.jsonl", Some(Target::Lines("r.jsonl".into()))),
            ("model.onnx", None),
            ("json", None),
        ] {
            assert_eq!(Target::of(name).ok(), expected, "{name}");
        }
    }
}
