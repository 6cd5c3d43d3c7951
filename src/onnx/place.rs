//! Whether two paths are the same file, where links lead, and whether a file has changed.
//!
//! A file has many spellings: `a` and `./a`, a path through a link, a second hard link. Code
//! that writes one file and reads another asks here whether they are the same.
//!
//! Knows paths, and the metadata of the file system; opens no file.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// A key that two paths share if they are the same file: the file there, or the place where it
/// would be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FileKey {
    /// A name in a folder with resolved links: what a rename would replace.
    Place(PathBuf),
    /// The file that is found there, whatever its name: device and inode number.
    Content(u64, u64),
}

/// Returns the keys of `path`, which need not exist. Two paths are the same file if they share
/// a key.
pub fn file_keys(path: &Path) -> Vec<FileKey> {
    let place = FileKey::Place(without_case(place(path)));
    [Some(place), path.metadata().ok().and_then(|there| content(&there))]
        .into_iter()
        .flatten()
        .collect()
}

/// Whether two paths are the same file.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    let keys = file_keys(one);
    file_keys(other).iter().any(|key| keys.contains(key))
}

/// Whether both are the same name in the same folder, so that a file written to one replaces
/// the other. A link to a file, or another hard link, is another place.
pub fn is_same_place(one: &Path, other: &Path) -> bool {
    without_case(place(one)) == without_case(place(other))
}

/// Returns the name of `path` in its folder, with the links of the folder resolved as far as it
/// exists.
fn place(path: &Path) -> PathBuf {
    let Some(name) = path.file_name() else {
        return path.canonicalize().unwrap_or_else(|_| path.to_owned());
    };
    resolved(folder_of(path)).join(name)
}

/// Returns `folder` with links resolved; parts that do not exist stay as they are spelled.
fn resolved(folder: &Path) -> PathBuf {
    if let Ok(folder) = folder.canonicalize() {
        return folder;
    }
    let around = if folder.parent().is_some() { folder_of(folder) } else { return folder.into() };
    let around = resolved(around);
    match folder.components().next_back() {
        Some(Component::Normal(name)) => around.join(name),
        Some(Component::ParentDir) => around.parent().map(Path::to_owned).unwrap_or(around),
        _ => around,
    }
}

/// On these systems, names that differ in case only are usually the same.
#[cfg(any(windows, target_os = "macos"))]
fn without_case(path: PathBuf) -> PathBuf {
    path.to_string_lossy().to_lowercase().into()
}

/// On other systems, case distinguishes names.
#[cfg(not(any(windows, target_os = "macos")))]
fn without_case(path: PathBuf) -> PathBuf {
    path
}

#[cfg(unix)]
fn content(there: &Metadata) -> Option<FileKey> {
    use std::os::unix::fs::MetadataExt;
    Some(FileKey::Content(there.dev(), there.ino()))
}

#[cfg(not(unix))]
fn content(_: &Metadata) -> Option<FileKey> {
    None
}

/// The maximum number of consecutive links that are followed; systems follow no more.
const MOST_LINKS: usize = 40;

/// Whether `path` is a link to something that a process has open, as `/dev/stdout` and `/dev/fd/1`
/// are. Renaming a file to such a name would replace the link itself, for every process.
pub fn leads_to_open_file(path: &Path) -> bool {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let (Ok(next), Ok(folder)) = (fs::read_link(&path), folder_of(&path).canonicalize()) else {
            return false;
        };
        if folder.starts_with("/proc") || folder == Path::new("/dev") {
            return true;
        }
        path = folder.join(next);
    }
    false
}

/// Whether `place`, whose last components need not exist, lies in `folder` once all links on
/// the way to it are resolved.
///
/// # Errors
/// Returns an error if `folder` does not exist.
pub fn is_inside(place: &Path, folder: &Path) -> io::Result<bool> {
    let folder = folder.canonicalize()?;
    Ok(resolved(place).starts_with(folder))
}

/// What identifies the state of a file: which file it is, its size, and its modification time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    content: Option<FileKey>,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl FileStamp {
    /// Returns the stamp of the file at `path`, with links followed; `None` if there is none.
    pub fn at(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|there| FileStamp::of(&there))
    }

    /// Returns the stamp of the file with this metadata.
    pub fn of(there: &Metadata) -> Self {
        FileStamp { content: content(there), bytes: there.len(), modified: there.modified().ok() }
    }
}

/// Returns the folder that `path` lies in, `.` if it names none.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two spellings in a folder, and whether they are the same file.
    #[cfg(unix)]
    #[test]
    fn spellings_of_one_file_share_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        for name in ["a", "b", "sub/a"] {
            fs::write(at(name), name).unwrap();
        }
        fs::hard_link(at("a"), at("second_name")).unwrap();
        for (link, to) in [("link", "a"), ("sub_link", "sub"), ("dangling", "nowhere")] {
            std::os::unix::fs::symlink(to, at(link)).unwrap();
        }
        for (one, other, expected) in [
            ("a", "./a", true),
            ("a", "sub/../a", true),
            ("a", "link", true),
            ("a", "second_name", true),
            ("a", "b", false),
            ("a", "sub/a", false),
            ("sub/a", "sub_link/a", true),
            ("new", "./new", true),
            ("new", "sub/../new", true),
            ("sub/new", "sub_link/new", true),
            ("no/folder/new", "sub/../no/folder/new", true),
            ("no/folder/new", "no/folder/x/../new", true),
            ("new", "sub/new", false),
            ("dangling", "./dangling", true),
        ] {
            assert_eq!(is_same_file(&at(one), &at(other)), expected, "{one} and {other}");
        }
        for (place, expected) in [("new", true), ("no/new", true), ("../new", false)] {
            let place = at("sub").join(place);
            assert_eq!(is_inside(&place, &at("sub")).unwrap(), expected, "{place:?}");
        }
        std::os::unix::fs::symlink("..", at("sub/out")).unwrap();
        assert!(!is_inside(&at("sub/out/new"), &at("sub")).unwrap());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn links_to_open_files_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "a").unwrap();
        let links = [("plain", "a"), ("out", "/proc/self/fd/1"), ("further", "out"), ("x", "x")];
        for (link, to) in links {
            std::os::unix::fs::symlink(to, at(link)).unwrap();
        }
        for (path, expected) in [
            (at("a"), false),
            (at("plain"), false),
            (at("none"), false),
            (at("x"), false),
            (at("out"), true),
            (at("further"), true),
            ("/dev/stdout".into(), true),
            ("/dev/fd/1".into(), true),
            ("/proc/self/fd/0".into(), true),
        ] {
            assert_eq!(leads_to_open_file(&path), expected, "{path:?}");
        }
    }
}
