//! The pages of many models: one for each, in a folder beside the index of all.
//!
//! Knows names of files; does not know what a page says.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use acb_fuse::Error;
use acb_fuse::report::Report;
use acb_fuse::report::html::{IndexRow, Origin, index};
use acb_fuse::report::target::Target;

use super::places::unwritten;

/// Upper bound on the characters of a model's name in the name of its page.
const CHARACTERS: usize = 80;

/// The index, with the rows of the models that are done.
pub struct Pages {
    target: Target,
    /// The folder of the models' pages.
    folder: PathBuf,
    /// The rows by the numbers of the models.
    rows: BTreeMap<usize, IndexRow>,
    origin: Origin,
}

/// Returns the folder of the pages that belong to the index `path`: `all.pages` beside
/// `all.html`.
pub fn folder_of_pages(path: &Path) -> PathBuf {
    path.with_extension("pages")
}

impl Pages {
    /// Begins the pages that belong to the index `path`, and creates their folder.
    ///
    /// # Errors
    /// Returns an error if the index or a page could not be written.
    pub fn begin(path: &Path, origin: Origin) -> Result<Self, Error> {
        let (target, folder) = (Target::Html(path.to_owned()), folder_of_pages(path));
        target.check().map_err(|source| unwritten(&target, source))?;
        let unmade = |source| Error::Write { file: folder.display().to_string(), source };
        fs::create_dir_all(&folder).map_err(unmade)?;
        Ok(Pages { target, folder, rows: BTreeMap::new(), origin })
    }

    /// Writes the page of the model with this `number`.
    ///
    /// # Errors
    /// Returns the error of the file system.
    pub fn add(&mut self, number: usize, report: &Report) -> io::Result<()> {
        let name = page_name(number, &report.input.path);
        Target::Html(self.folder.join(&name)).write(report, &self.origin)?;
        let folder = self.folder.file_name().unwrap_or_default().to_string_lossy();
        self.rows.insert(number, IndexRow::of(report, format!("{}/{name}", encoded(&folder))));
        Ok(())
    }

    /// Writes the index of the models that are done.
    ///
    /// # Errors
    /// Returns the error of the file system.
    pub fn finish(self) -> Result<(), Error> {
        let rows: Vec<IndexRow> = self.rows.into_values().collect();
        let page = index(&rows, &self.origin);
        let written = self.target.write_lines(|out| out.write_all(page.as_bytes()));
        written.map_err(|source| unwritten(&self.target, source))
    }
}

/// Returns the name of a page: `0007-resnet18.onnx.html` for a `model` with the `number` 6.
fn page_name(number: usize, model: &str) -> String {
    let name = Path::new(model).file_name().unwrap_or_default().to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let plain = |c: char| if is_plain(c) { c } else { '_' };
    let name: String = name.chars().take(CHARACTERS).map(plain).collect();
    format!("{:04}-{name}.html", number.saturating_add(1))
}

/// Returns a name in percent-encoding, as part of a link.
fn encoded(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    name.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_in_files_and_links() {
        for (number, model, expected) in [
            (0, "models/resnet18.onnx", "0001-resnet18.onnx.html"),
            (9999, "a b<script>.onnx", "10000-a_b_script_.onnx.html"),
            (6, "-", "0007--.html"),
            (6, "..", "0007-.html"),
        ] {
            assert_eq!(page_name(number, model), expected);
        }
        for (name, expected) in [("all.pages", "all.pages"), ("a b\"é", "a%20b%22%C3%A9")] {
            assert_eq!(encoded(name), expected);
        }
    }
}
