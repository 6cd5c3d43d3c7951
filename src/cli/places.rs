//! Where models and reports come from and go to, as arguments name them.
//!
//! Knows `-` and the endings of reports, which no other module of the command line interprets.

use std::io;
use std::path::{Path, PathBuf};

use acb_fuse::report::target::Target;
use acb_fuse::{Endpoint, Error, is_same_file};

/// The argument for standard input or output.
const PIPE: &str = "-";

/// Returns the source or destination of a model.
pub fn endpoint(argument: &Path) -> Endpoint {
    if is_pipe(argument) { Endpoint::Pipe } else { Endpoint::File(argument.to_owned()) }
}

/// Returns the destination of a report; the ending of the file name decides what is written
/// there.
///
/// # Errors
/// Returns an error if no kind of report has this ending.
pub fn target(path: PathBuf) -> Result<Target, String> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        _ if is_pipe(&path) => Ok(Target::Pipe),
        Some("json") => Ok(Target::Json(path)),
        Some("jsonl") => Ok(Target::Lines(path)),
        Some("html" | "htm") => Ok(Target::Html(path)),
        _ => Err("a report is `-`, or a file that ends with .json, .html or .jsonl".to_owned()),
    }
}

/// Whether `target` is the file that `argument` names, by whatever path.
pub fn is(target: &Target, argument: &Path) -> bool {
    target.path().is_some_and(|path| !is_pipe(argument) && is_same_file(path, argument))
}

/// Whether two of the reports would go to the same file.
pub fn are_alike(reports: &[Target]) -> bool {
    let mut paths = (1..).zip(reports.iter().filter_map(Target::path));
    paths.any(|(next, path)| {
        let others = reports.iter().filter_map(Target::path).skip(next);
        others.into_iter().any(|other| is_same_file(path, other))
    })
}

/// Whether `argument` stands for standard input or output.
pub fn is_pipe(argument: &Path) -> bool {
    argument.as_os_str() == PIPE
}

/// The error of a report that could not be written to `target`.
pub fn unwritten(target: &Target, source: io::Error) -> Error {
    let file = target.path().map_or_else(|| PIPE.to_owned(), |path| path.display().to_string());
    Error::Write { file, source }
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
            assert_eq!(target(name.into()).ok(), expected, "{name}");
        }
    }
}
