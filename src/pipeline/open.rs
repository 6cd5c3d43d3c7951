//! The first step: opens and reads a model, and inlines those of its local functions that take
//! part in a block. To find out which ones do, all are inlined and planned for.
//!
//! Knows the sources of models, the caller's options, and the planner; edits nothing but calls.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use prost::bytes::Bytes;

use crate::error::Error;
use crate::facts::constants::Constants;
use crate::facts::dependence::Dependence;
use crate::onnx::graph::{Graph, InputDims};
use crate::onnx::inline::inline;
use crate::onnx::map::{FileAccess, MappedFile};
use crate::onnx::model::{self, Invalid, Model};
use crate::onnx::place::{folder_of, is_same_file};
use crate::onnx::sniff;
use crate::onnx::sort;
use crate::onnx::storage::{Links, Storage};
use crate::options::Options;
use crate::pipeline::analysis::{self, GraphAnalysis};
use crate::pipeline::failure;
use crate::pipeline::files;
use crate::pipeline::given;
use crate::refusal::NearMiss;

/// Where a model comes from.
#[derive(Debug, Clone, Copy)]
pub enum ModelSource<'s> {
    /// A file.
    File(&'s Path),
    /// Standard input.
    Pipe,
    /// The caller.
    Memory(&'s [u8]),
}

impl<'s> ModelSource<'s> {
    /// The path of the file; `None` if the source is no file.
    pub fn path(&self) -> Option<&'s Path> {
        match self {
            ModelSource::File(path) => Some(path),
            ModelSource::Pipe | ModelSource::Memory(_) => None,
        }
    }

    /// The name of the source in messages.
    pub fn label(&self) -> String {
        match self {
            ModelSource::File(path) => path.display().to_string(),
            ModelSource::Pipe => "-".to_owned(),
            ModelSource::Memory(_) => "the given model".to_owned(),
        }
    }
}

/// A model as it was read.
pub struct Opened {
    /// The name of the model in errors.
    pub file: String,
    /// The model with its functions not inlined.
    pub original: Model,
    /// The same model with its nodes in topological order; `None` if they already are.
    sorted: Option<Model>,
    /// The SHA-256 of its bytes; `None` unless details are asked for.
    pub sha256: Option<String>,
}

impl Opened {
    /// The model with its nodes in topological order, which all later steps read.
    pub fn model(&self) -> &Model {
        self.sorted.as_ref().unwrap_or(&self.original)
    }
}

/// Opens and indexes a model. `target` is the file that the new model will go to, if any.
///
/// # Errors
/// Returns an error if the source cannot be read, or is no model.
pub fn open(
    source: &ModelSource,
    target: Option<&Path>,
    options: &Options,
) -> Result<Opened, Error> {
    let file = source.label();
    let replaced = source.path().zip(target).is_some_and(|(path, to)| is_same_file(path, to));
    // Windows cannot replace a file that is mapped. Side files are never replaced.
    let access = if cfg!(windows) && replaced { FileAccess::Read } else { FileAccess::Mapped };
    let original = index(source, &file, options.links, access)?;
    let sha256 = files::hashing(options)(original.bytes(), &original.storage);
    let invalid = Error::invalid(&file);
    let sorted = sort::sorted(&original).map_err(|error| invalid(error.into()))?;
    let reindexed = |bytes| Model::index(bytes, original.storage.clone());
    let sorted = sorted.map(reindexed).transpose().map_err(invalid)?;
    Ok(Opened { file, original, sorted, sha256 })
}

fn index(
    source: &ModelSource,
    file: &str,
    links: Links,
    access: FileAccess,
) -> Result<Model, Error> {
    let foreign = |kind| Error::Foreign { file: file.to_owned(), kind };
    let read = |source| Error::Read { file: file.to_owned(), source };
    let (bytes, storage) = match source {
        ModelSource::Pipe => (model::read(io::stdin().lock()).map_err(read)?, Storage::of_pipe()),
        ModelSource::Memory(bytes) => (Bytes::copy_from_slice(bytes), Storage::default()),
        ModelSource::File(path) => {
            if let Some(kind) = sniff::recognise_folder(path) {
                return Err(foreign(kind));
            }
            let map = MappedFile::opened(path, access).map_err(read)?;
            (map.bytes(), Storage::in_folder(folder_of(path), links).of_model(&map))
        }
    };
    Model::index(bytes.clone(), storage).map_err(|source| match sniff::recognise(&bytes) {
        Some(kind) => foreign(kind),
        None => Error::invalid(file)(source),
    })
}

/// The analysis of the local functions that a model calls.
#[derive(Default)]
pub struct LocalFunctions {
    /// The model with those functions inlined that take part in a block, or hold training-mode
    /// nodes which are converted; `None` if there are none.
    pub inlined: Option<Model>,
    /// The nodes of all other functions that stay in training mode.
    pub near_misses: Vec<NearMiss>,
}

impl LocalFunctions {
    /// Looks into the functions that the model calls.
    ///
    /// # Errors
    /// Returns an error if the model is malformed, or the engine did not finish.
    pub fn of(opened: &Opened, options: &Options) -> Result<Self, Error> {
        let model = opened.model();
        let invalid = Error::invalid(&opened.file);
        let reindexed = |bytes| Model::index(bytes, model.storage.clone());
        let Some(bytes) = inline(model, &|_| true).map_err(invalid)? else {
            return Ok(Self::default());
        };
        let inlined = reindexed(bytes).map_err(invalid)?;
        let graphs = Graph::read_all(&inlined).map_err(invalid)?;
        let constants = Constants::find_all(&graphs, options.keep_overridable).map_err(invalid)?;
        let dependence = Dependence::find_all(&graphs, constants.iter().map(Arc::as_ref));
        let readers = analysis::readers(&graphs, &constants, &dependence, options);
        let analyses = GraphAnalysis::of_all(&readers, options, &[]).map_err(invalid)?;
        check_time(&opened.file, constants.iter().map(Arc::as_ref))?;
        let callers = callers(&analyses);
        let takes_part = |call: &str| callers.contains(call);
        let part = inline(model, &takes_part).map_err(invalid)?;
        let part = part.map(reindexed).transpose().map_err(invalid)?;
        let near_misses = inside_calls(&analyses, part.as_ref().unwrap_or(model));
        Ok(LocalFunctions { near_misses: near_misses.map_err(invalid)?, inlined: part })
    }
}

/// Returns the calls whose nodes take part in a block, or are converted from training mode.
fn callers<'a>(analyses: &'a [GraphAnalysis]) -> HashSet<&'a str> {
    let mut callers: HashSet<&str> = HashSet::new();
    for analysis in analyses {
        let fused = analysis.plan.blocks.iter().flat_map(|block| &block.region.nodes);
        let converted = analysis.training.forms.iter().map(|(id, _)| id);
        for &id in fused.chain(converted) {
            // The names of inlined nodes begin with the name of their call.
            let name = analysis.reader.graph.node(id).proto.name();
            callers.extend(name.match_indices('/').filter_map(|(end, _)| name.get(..end)));
        }
    }
    callers
}

/// Returns the nodes that stay in training mode and are not in `model`, but in calls that it
/// keeps.
fn inside_calls(analyses: &[GraphAnalysis], model: &Model) -> Result<Vec<NearMiss>, Invalid> {
    let graphs = Graph::read_all(model)?;
    let nodes = graphs.iter().flat_map(Graph::nodes);
    let known: HashSet<&str> = nodes.map(|(_, node)| node.label()).collect();
    let near_misses = analyses.iter().flat_map(|analysis| &analysis.training.near_misses);
    Ok(near_misses.filter(|miss| !known.contains(miss.node.as_str())).cloned().collect())
}

/// Reads the graphs of `model`, which was derived from the file called `file`. Checks that every
/// tensor is what it claims to be, and that the caller's shapes and tensors are for inputs that
/// the model has.
///
/// # Errors
/// Returns an error if the model is malformed, or what the caller gave does not fit.
pub fn graphs<'m>(
    file: &str,
    model: &'m Model,
    options: &Options,
) -> Result<Vec<Graph<'m>>, Error> {
    let invalid = Error::invalid(file);
    let graphs = Graph::read_all(model).map_err(invalid)?;
    graphs.iter().take(1).try_for_each(Graph::check_tensors).map_err(invalid)?;
    check_inputs(file, &graphs, options)?;
    Ok(graphs)
}

/// Checks that the shapes and tensors that the caller gave fit graph inputs.
fn check_inputs(file: &str, graphs: &[Graph], options: &Options) -> Result<(), Error> {
    let Some(main) = graphs.first() else { return Ok(()) };
    let inputs = main.inputs();
    let fits = |label: String, shape: &[usize], input: Option<&InputDims>| {
        let reason = match input {
            None => {
                let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
                Some(format!("the model has no such input; it has {}", names.join(", ")))
            }
            Some((_, dims)) => dims.as_ref().and_then(|dims| difference(dims, shape)),
        };
        let misfit = |reason| Error::Input { file: file.to_owned(), input: label, reason };
        reason.map_or(Ok(()), |reason| Err(misfit(reason)))
    };
    for (name, shape) in &options.run.shapes {
        fits(name.clone(), shape, inputs.iter().find(|(input, _)| input == name))?;
    }
    for (which, array) in &options.run.given {
        let mut numbered = inputs.iter().enumerate();
        let input = numbered.find(|(number, (name, _))| which.is(*number, name));
        let input = input.map(|(_, input)| input);
        fits(which.to_string(), array.shape(), input)?;
        let id = input.and_then(|(name, _)| main.find(name));
        let element_type = id.and_then(|id| main.input_type(id));
        if let Some(reason) = element_type.and_then(|of_input| given::misfit(array, of_input)) {
            let (file, input) = (file.to_owned(), which.to_string());
            return Err(Error::Input { file, input, reason });
        }
    }
    Ok(())
}

/// Says how a given shape differs from the declared one; `None` if it does not.
fn difference(dims: &[Option<i64>], shape: &[usize]) -> Option<String> {
    if dims.len() != shape.len() {
        return Some(format!("the input has {} dimensions, not {}", dims.len(), shape.len()));
    }
    let mut axes = dims.iter().zip(shape).enumerate();
    let (axis, (size, given)) = axes
        .find(|(_, (size, given))| size.is_some_and(|size| usize::try_from(size) != Ok(**given)))?;
    Some(format!("the file says that axis {axis} has {}, not {given}", (*size)?))
}

/// Checks that the engine finished whatever it was asked to evaluate: an outcome that depends on
/// time, or on what the system allows this process, is no result.
///
/// # Errors
/// Returns an error that names what the engine did not finish.
pub fn check_time<'c, 'g: 'c, 'm: 'g>(
    file: &str,
    constants: impl IntoIterator<Item = &'c Constants<'g, 'm>>,
) -> Result<(), Error> {
    let overrun = constants.into_iter().find_map(|constants| constants.overrun());
    match overrun.and_then(|(what, why)| failure::stopped(file, what, why, None)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
