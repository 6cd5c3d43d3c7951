//! Models that are named by a folder that holds them.
//!
//! Knows names of files; does not know what the files hold.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use acb_fuse::Error;

use super::exit::Exit;

/// The ending of a model's file name.
const ENDING: &str = "onnx";

/// Returns `file` itself, or, if it is a folder, all models in it and below it, sorted by path.
/// Links to folders below it are not followed, because they might lead in circles.
///
/// # Errors
/// Returns an error if a folder cannot be read, or holds no model.
pub fn models(file: &Path) -> Result<Vec<PathBuf>, Exit> {
    if !file.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let mut found = Vec::new();
    let unread = |source| Error::Read { file: file.display().to_string(), source };
    collect(file, &mut found).map_err(unread)?;
    if found.is_empty() {
        let none = format!("{}: there is no .{ENDING} file in this folder", file.display());
        return Err(Exit::of_usage(none));
    }
    found.sort_unstable();
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(ENDING)) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_the_models_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("b/none")).unwrap();
        for name in ["c.onnx", "a.ONNX", "b/d.onnx", "b/d.onnx.data", "b/read.me"] {
            fs::write(path(name), b"").unwrap();
        }
        let names = ["a.ONNX", "b/d.onnx", "c.onnx"].map(path);
        assert_eq!(models(folder.path()).unwrap(), names);
        // A file stands for itself; whoever reads it reports whether it exists.
        assert_eq!(models(&path("x")).unwrap(), [path("x")]);
        assert_eq!(models(&path("b/none")).unwrap_err().code, 2);
    }
}
