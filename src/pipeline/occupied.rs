//! Checks the paths of a conversion's files before the work begins: no file has two roles, and
//! the file that stands where the new model is to go may be replaced.
//!
//! An earlier result for the same model may be replaced, and so may the model itself: both have
//! its inputs and outputs. A model with other inputs or outputs must not be destroyed: a shell
//! pattern that matches two models names the second as the output.
//!
//! Knows paths and names; writes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::onnx::external;
use crate::onnx::map::MappedFile;
use crate::onnx::model::{Invalid, Model};
use crate::onnx::place::{self, FileStamp, folder_of};
use crate::onnx::schema::{graph_field, info_field, tensor_field};
use crate::onnx::staged::Clobber;
use crate::onnx::storage::{Links, Storage};
use crate::options::Options;
use crate::report::{Predecessor, PredecessorKind};

/// Returns the names of the side files of the model at `path`, relative to its folder; empty if
/// the model cannot be read, which whoever reads it reports.
pub fn side_file_names(path: &Path) -> Vec<String> {
    let model = MappedFile::of(path).ok();
    let model = model.and_then(|file| Model::index(file.bytes(), Storage::default()).ok());
    let tensors = model.map(|model| external::find(&model).unwrap_or_default());
    tensors.map(|tensors| external::locations(&tensors).into_iter().collect()).unwrap_or_default()
}

/// The target as it was before the work began.
#[derive(Debug, Default)]
pub struct Occupied {
    /// The stamp of the file that stood there.
    stamp: Option<FileStamp>,
    /// The kind of model it held, if that is worth reporting.
    kind: Option<PredecessorKind>,
    /// The existing side files that it named, each as its location in the model and its path.
    side_files: Vec<(String, PathBuf)>,
    /// The side files of the model that is read, if that model stays.
    still_read: Vec<PathBuf>,
}

/// The files of one conversion.
#[derive(Debug, Clone, Copy)]
pub struct Roles<'r> {
    /// The model that is read.
    pub model: &'r Model,
    /// The file it is read from, if any.
    pub input: Option<&'r Path>,
    /// The file that the new model goes to, if any.
    pub target: Option<&'r Path>,
}

impl Roles<'_> {
    /// Checks that each file has one role.
    ///
    /// # Errors
    /// Returns an error that names a file with two roles.
    pub fn check(&self, options: &Options) -> Result<(), Error> {
        let mut side_files = self.side_files();
        // Side files are also copied to the target's folder, or would be looked up there.
        side_files.extend(self.target.into_iter().flat_map(|to| self.side_files_in(folder_of(to))));
        let holds_weights =
            |path: &Path| side_files.iter().any(|file| place::is_same_file(path, file));
        let two_roles = |path: &Path, why: &str| {
            Err(Error::TwoRoles { file: path.display().to_string(), reason: why.to_owned() })
        };
        if let Some(target) = self.target.filter(|target| holds_weights(target)) {
            let why =
                "it holds weights of the model that is read, or is called like a file that does";
            return two_roles(target, why);
        }
        for written in &options.also_written {
            let is =
                |path: Option<&Path>| path.is_some_and(|path| place::is_same_file(path, written));
            if is(self.input) || is(self.target) {
                return two_roles(written, "it would take the place of a model");
            }
            if holds_weights(written) {
                return two_roles(written, "it would take the place of a model's weights");
            }
        }
        Ok(())
    }

    /// The side files of the model that is read.
    fn side_files(&self) -> Vec<PathBuf> {
        self.model.storage.folder().map(|own| self.side_files_in(own)).unwrap_or_default()
    }

    /// The side files that the model would have in `folder`.
    fn side_files_in(&self, folder: &Path) -> Vec<PathBuf> {
        // A malformed entry is refused by whoever needs it.
        let tensors = external::find(self.model).unwrap_or_default();
        external::locations(&tensors).iter().map(|location| folder.join(location)).collect()
    }

    /// Returns what stands at the target, if it may be replaced.
    ///
    /// # Errors
    /// Returns an error if it may not.
    pub fn occupied(&self, clobber: Clobber) -> Result<Occupied, Error> {
        // A dangling link holds nothing.
        let standing = self.target.and_then(|target| Some((target, FileStamp::at(target)?)));
        let Some((target, stamp)) = standing else { return Ok(Occupied::default()) };
        let is_input = self.input.is_some_and(|input| place::is_same_place(input, target));
        if is_input {
            let kind = Some(PredecessorKind::Input);
            let side_files = named_side_files(self.model, target);
            return Ok(Occupied { stamp: Some(stamp), kind, side_files, still_read: Vec::new() });
        }
        let there = MappedFile::of(target);
        if there.as_ref().is_ok_and(|there| there.bytes().is_empty()) {
            return Ok(Occupied { stamp: Some(stamp), ..Occupied::default() });
        }
        let there =
            there.ok().and_then(|there| Model::index(there.bytes(), Storage::default()).ok());
        let why_not = match &there {
            None => Some("it holds no ONNX model that can be read".to_owned()),
            Some(there) => self.another(there),
        };
        let kind = match why_not {
            None => PredecessorKind::Earlier,
            Some(_) if clobber == Clobber::Force => PredecessorKind::Other,
            Some(reason) => {
                return Err(Error::NotReplaced { file: target.display().to_string(), reason });
            }
        };
        let side_files = there.map(|there| named_side_files(&there, target)).unwrap_or_default();
        Ok(Occupied {
            stamp: Some(stamp),
            kind: Some(kind),
            side_files,
            still_read: self.side_files(),
        })
    }

    /// Returns why `there` is another model; `None` if it has the inputs and outputs of the one
    /// read.
    fn another(&self, there: &Model) -> Option<String> {
        let (Ok(own), Ok(its)) = (interface(self.model), interface(there)) else {
            return Some("it holds a model whose inputs and outputs cannot be read".to_owned());
        };
        let differs = |what: &str, own: &BTreeSet<&str>, its: &BTreeSet<&str>| {
            let (own, its) = (listed(own), listed(its));
            format!("it holds another model, with the {what} {its}, and not {own}")
        };
        if own.inputs != its.inputs {
            return Some(differs("inputs", &own.inputs, &its.inputs));
        }
        let is_other = own.outputs != its.outputs;
        is_other.then(|| differs("outputs", &own.outputs, &its.outputs))
    }
}

impl Occupied {
    /// Checks whether `target` still is what it was before the work began.
    pub fn is_as_it_was(&self, target: &Path) -> bool {
        FileStamp::at(target) == self.stamp
    }

    /// Describes what `new` replaced at `target`; `None` if nothing worth reporting stood there.
    pub fn replaced_by(&self, new: &Model, target: &Path) -> Option<Predecessor> {
        let named = named_side_files(new, target);
        let is_needed = |path: &Path| {
            let others = named.iter().map(|(_, path)| path).chain(&self.still_read);
            others.into_iter().any(|other| place::is_same_file(path, other))
        };
        let unneeded = self.side_files.iter().filter(|(_, path)| !is_needed(path));
        let side_files = unneeded.map(|(location, _)| location.clone()).collect();
        Some(Predecessor { kind: self.kind?, side_files })
    }
}

/// Returns the existing side files that `model`, at `target`, names.
fn named_side_files(model: &Model, target: &Path) -> Vec<(String, PathBuf)> {
    let storage = Storage::in_folder(folder_of(target), Links::Followed);
    let locations = external::locations(&external::find(model).unwrap_or_default());
    let there = locations.into_iter().filter_map(|location| {
        let path = storage.resolve(&location).ok()?;
        Some((location, path))
    });
    there.collect()
}

/// What a caller of a model has to know: the names of its inputs and outputs.
struct Interface<'m> {
    inputs: BTreeSet<&'m str>,
    outputs: BTreeSet<&'m str>,
}

/// Reads the interface of `model`. Inputs with a default value do not count: those that only
/// named folded weights disappear with these.
fn interface(model: &Model) -> Result<Interface<'_>, Invalid> {
    let names = |number, name| -> Result<BTreeSet<&str>, Invalid> {
        let fields = model.main.fields(number);
        fields.map(|field| model.str_within(&field.payload, name)).collect()
    };
    let inputs = names(graph_field::INPUT, info_field::NAME)?;
    let stored = names(graph_field::INITIALIZER, tensor_field::NAME)?;
    let outputs = names(graph_field::OUTPUT, info_field::NAME)?;
    Ok(Interface { inputs: inputs.difference(&stored).copied().collect(), outputs })
}

/// Formats names in backticks; of many, only the first.
fn listed(names: &BTreeSet<&str>) -> String {
    const MOST: usize = 4;
    let shown: Vec<String> = names.iter().take(MOST).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > MOST { ", …" } else { "" };
    if names.is_empty() { "(none)".to_owned() } else { format!("{}{more}", shown.join(", ")) }
}
