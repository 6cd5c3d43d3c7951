//! The errors that end a conversion without a result.
//!
//! Knows what can be wrong with a file; nothing of a process, its flags and its exit codes.

use std::fmt::Display;
use std::io;

pub use crate::onnx::data::{Problem, TensorError};
pub use crate::onnx::model::Invalid;
pub use crate::onnx::sniff::Foreign;
pub use crate::onnx::storage::StorageError;
pub use crate::onnx::wire::WireError;
use crate::setting::Setting;

/// An error that ends a conversion; its message names the file, what is wrong, and what can be
/// done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The output cannot be written; what was in its place is unchanged.
    #[error("{file}: cannot be written: {source}")]
    Write {
        /// The file.
        file: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that was read has changed since then, or another file has appeared in the place of
    /// the new model.
    #[error("{file}: it changed while the model was converted; nothing was written")]
    Changed {
        /// The file.
        file: String,
    },
    /// What is in the place of the new model is not replaced: the caller might not want to lose
    /// it.
    #[error("{file}: it is not replaced: {reason}")]
    NotReplaced {
        /// The file.
        file: String,
        /// What it holds.
        reason: String,
    },
    /// A file that is to be written is also a file that is read, or that is written as something
    /// else.
    #[error("{file}: {reason}")]
    TwoRoles {
        /// The file.
        file: String,
        /// What it is already.
        reason: String,
    },
    /// Blocks that are to be left alone do not exist.
    #[error("{file}: {}", unknown_blocks(.names, .blocks))]
    NoSuchBlock {
        /// The file.
        file: String,
        /// The names.
        names: Vec<String>,
        /// The names of all blocks.
        blocks: Vec<String>,
    },
    /// The input is not a valid model.
    #[error("{file}: {source}")]
    Invalid {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: Invalid,
    },
    /// The input is a file of another format.
    #[error("{file}: this is not an ONNX model but {}; {}", .kind.what, .kind.remedy)]
    Foreign {
        /// The file.
        file: String,
        /// The format.
        kind: &'static Foreign,
    },
    /// A shape or tensor was given for a name that is no input, or does not fit the input's
    /// dimensions.
    #[error("{file}: what was given for input `{input}` does not fit: {reason}")]
    Input {
        /// The file.
        file: String,
        /// The name that was given.
        input: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A new block computes something other than the old one; nothing was written.
    #[error(
        "{file}: verification failed, nothing was written: block `{block}` (output `{output}`): {reason}"
    )]
    BlockDiffers {
        /// The file.
        file: String,
        /// The block.
        block: String,
        /// The tensor it computes.
        output: String,
        /// The difference.
        reason: String,
    },
    /// The new file, read back, differs from the old file with the proved changes; it was not put
    /// in place.
    #[error("{file}: verification failed, nothing was written: in the new file {reason}")]
    Miswritten {
        /// The file.
        file: String,
        /// The first entry that is wrong.
        reason: String,
    },
    /// A model output differs from that of the old model; nothing was written.
    #[error(
        "{file}: verification failed, nothing was written: output `{output}` differs by \
         {error:.1e} of its largest value (allowed: {tolerance:.0e})"
    )]
    OutputDiffers {
        /// The file.
        file: String,
        /// The output.
        output: String,
        /// The relative difference.
        error: f64,
        /// The allowed relative difference.
        tolerance: f64,
    },
    /// The engine runs the original model but not the new one; nothing was written.
    #[error(
        "{file}: verification failed, nothing was written: the original model runs and the \
         new one does not: {reason}"
    )]
    Broken {
        /// The file.
        file: String,
        /// The engine's reason.
        reason: String,
    },
    /// The model could not be run, although a run is required.
    #[error("{file}: the whole model could not be run, nothing was written: {reason}")]
    NotRun {
        /// The file.
        file: String,
        /// Why not.
        reason: String,
        /// The choice of the caller that the reason names.
        setting: Option<Setting>,
    },
    /// The engine did not finish in time a computation on which other results depend. No decision
    /// may depend on time, so there is no result.
    #[error(
        "{file}: nothing was written: tract did not finish {what} in time{}",
        allowing_more(.setting.as_ref())
    )]
    TooLong {
        /// The file.
        file: String,
        /// What did not finish.
        what: String,
        /// The choice of the caller that allows more time, if there is one.
        setting: Option<Setting>,
    },
    /// The system does not give this process the memory for a computation on which other results
    /// depend. No decision may depend on available memory, so there is no result.
    #[error("{file}: nothing was written: not enough memory for {what}")]
    NoMemory {
        /// The file.
        file: String,
        /// What it was needed for.
        what: String,
    },
    /// Nothing was fused, although fusion is required.
    #[error("{file}: nothing was fused{}", could_not_be_proved(*.unproved))]
    NothingFused {
        /// The file.
        file: String,
        /// Number of blocks that could not be proved and so were left alone.
        unproved: usize,
    },
}

fn allowing_more(setting: Option<&Setting>) -> String {
    setting.map(|setting| format!(" ({setting} allows more)")).unwrap_or_default()
}

fn could_not_be_proved(blocks: usize) -> String {
    match blocks {
        0 => String::new(),
        1 => ": 1 block could not be proved".to_owned(),
        _ => format!(": {blocks} blocks could not be proved"),
    }
}

/// The message on `names` that are the names of no block. It lists the names of `blocks`, the most
/// similar ones first.
pub fn unknown_blocks(names: &[String], blocks: &[String]) -> String {
    /// Upper bound on the number of names that are listed.
    const MOST: usize = 8;
    let quoted = |name: &String| format!("`{name}`");
    let unknown: Vec<String> = names.iter().map(quoted).collect();
    let unknown = unknown.join(", ");
    if blocks.is_empty() {
        return format!("no block is called {unknown}: there are none");
    }
    let unlikeness = |block: &&String| names.iter().map(|name| distance(name, block)).min();
    let mut alike: Vec<&String> = blocks.iter().collect();
    alike.sort_by_key(unlikeness);
    let known: Vec<String> = alike.into_iter().take(MOST).map(quoted).collect();
    let more = if blocks.len() > MOST { ", …" } else { "" };
    format!("no block is called {unknown}; the blocks are {}{more}", known.join(", "))
}

/// The edit distance of two names: the number of characters that must be changed, inserted or
/// removed to turn one into the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    // The distance from the part of `one` read so far to each prefix of `other`.
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (read, c) in (1..).zip(one.chars()) {
        let mut diagonal = std::mem::replace(row.first_mut().unwrap_or(&mut 0), read);
        let mut left = read;
        for (place, &its) in row.iter_mut().skip(1).zip(&other) {
            let changed = diagonal.saturating_add(usize::from(c != its));
            diagonal = *place;
            left = changed.min(left.saturating_add(1)).min(diagonal.saturating_add(1));
            *place = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// The system's error code for too many symbolic links, for which there is no stable `ErrorKind`.
#[cfg(any(target_os = "linux", target_os = "android"))]
const TOO_MANY_LINKS: i32 = 40;
#[cfg(windows)]
const TOO_MANY_LINKS: i32 = 1921;
#[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
const TOO_MANY_LINKS: i32 = 62;

/// Whether the reason for the system's error lies in a path and what is there, so that another
/// attempt will fail, too. All other reasons may pass: a full disk, a failing device, too many
/// open files.
fn is_of_path(source: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let is_loop = source.raw_os_error() == Some(TOO_MANY_LINKS);
    is_loop
        || matches!(
            source.kind(),
            Kind::NotFound
                | Kind::PermissionDenied
                | Kind::AlreadyExists
                | Kind::InvalidInput
                | Kind::InvalidFilename
                | Kind::IsADirectory
                | Kind::NotADirectory
                | Kind::ReadOnlyFilesystem
                | Kind::CrossesDevices
                | Kind::Unsupported
        )
}

impl Error {
    /// Returns a function that makes the error of an invalid model called `file`.
    pub(crate) fn invalid(file: &str) -> impl Fn(Invalid) -> Error + Copy {
        move |source| Error::Invalid { file: file.to_owned(), source }
    }

    /// The error that what was written of the model called `file` is not what was proved.
    pub(crate) fn miswritten(file: &str, wrong: &impl Display) -> Error {
        Error::Miswritten { file: file.to_owned(), reason: wrong.to_string() }
    }

    /// The system's error, if it was the system that could not read or write a file.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Error::Read { source, .. } | Error::Write { source, .. } => Some(source),
            Error::Invalid { source: Invalid::Tensor(TensorError { problem, .. }), .. } => {
                let Problem::External(StorageError::Read { source, .. }) = problem else {
                    return None;
                };
                // If the path exists but is no file, the model that names it is to blame.
                let is_file = matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                );
                Some(source).filter(|source| is_file || !is_of_path(source))
            }
            _ => None,
        }
    }

    /// Whether the same call may succeed another time.
    pub fn may_pass(&self) -> bool {
        matches!(self, Error::Changed { .. }) || self.io().is_some_and(|why| !is_of_path(why))
    }

    /// The choice of the caller that the message names.
    pub fn setting(&self) -> Option<&Setting> {
        match self {
            Error::NotRun { setting, .. } | Error::TooLong { setting, .. } => setting.as_ref(),
            _ => None,
        }
    }

    /// Whether the model's weights lie in files that only
    /// [`Links::Followed`](crate::Links::Followed) allows.
    pub fn is_link(&self) -> bool {
        let Error::Invalid { source: Invalid::Tensor(TensorError { problem, .. }), .. } = self
        else {
            return false;
        };
        matches!(problem, Problem::External(StorageError::LeadsOut(_) | StorageError::HardLink(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the system reports, and whether another try may help.
    #[test]
    fn what_lies_in_a_path_does_not_pass() {
        use io::ErrorKind as Kind;
        for (kind, may_pass) in [
            (Kind::NotFound, false),
            (Kind::PermissionDenied, false),
            (Kind::AlreadyExists, false),
            (Kind::IsADirectory, false),
            (Kind::NotADirectory, false),
            (Kind::ReadOnlyFilesystem, false),
            (Kind::StorageFull, true),
            (Kind::QuotaExceeded, true),
            (Kind::Interrupted, true),
            (Kind::UnexpectedEof, true),
            (Kind::BrokenPipe, true),
            (Kind::OutOfMemory, true),
            (Kind::Other, true),
        ] {
            let error = Error::Read { file: "f".to_owned(), source: kind.into() };
            assert_eq!(error.may_pass(), may_pass, "{kind}");
        }
        let source = io::Error::from_raw_os_error(TOO_MANY_LINKS);
        assert!(!Error::Write { file: "f".to_owned(), source }.may_pass());
    }

    #[test]
    fn names_that_are_most_alike_come_first() {
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (names, blocks, said) in [
            (
                &["stem"][..],
                &["body", "stemm", "s"][..],
                "`stem`; the blocks are `stemm`, `s`, `body`",
            ),
            (&["a", "b"], &["c"], "`a`, `b`; the blocks are `c`"),
            (&["a"], &[], "`a`: there are none"),
            (&["layer1.0"], &["layer2.1", "layer1.1"], "the blocks are `layer1.1`, `layer2.1`"),
            (
                &["x"],
                &["1", "2", "3", "4", "5", "6", "7", "8", "9"],
                "`1`, `2`, `3`, `4`, `5`, `6`, `7`, `8`, …",
            ),
        ] {
            let found = unknown_blocks(&of(names), &of(blocks));
            assert!(found.ends_with(said), "{found}");
        }
        for (one, other, expected) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }
}
