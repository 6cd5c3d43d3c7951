//! A model, opened and understood: its graphs, what each computes, and what is to be
//! done with it. Reads everything and changes nothing.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use crate::error::Error;
use crate::facts::constants::Constants;
use crate::facts::dependence::Dependence;
use crate::onnx::graph::Graph;
use crate::onnx::inline::inline;
use crate::onnx::map::MappedFile;
use crate::onnx::model::{self, Invalid, Model};
use crate::onnx::sniff;
use crate::onnx::staged::folder_of;
use crate::onnx::storage::{Links, Storage};
use crate::ops::meanings::Meanings;
use crate::ops::reader::{Reader, Training};
use crate::ops::training::TrainingNodes;
use crate::options::{Endpoint, Options};
use crate::plan::{self, BlockNames, Plan};
use crate::refusal::NearMiss;

/// One graph of the model, as it is understood, and what is to be done with it.
pub struct GraphAnalysis<'r, 'g, 'm> {
    /// Its nodes and tensors.
    pub reader: &'r Reader<'g, 'm>,
    /// What each node computes.
    pub meanings: Meanings,
    /// Its blocks.
    pub plan: Plan,
    /// Its nodes in training mode.
    pub inferred: TrainingNodes,
}

impl<'r, 'g, 'm> GraphAnalysis<'r, 'g, 'm> {
    /// One per reader; `skip` names blocks to leave alone.
    ///
    /// # Errors
    /// If a stored tensor is malformed.
    pub fn of_all(readers: &'r [Reader<'g, 'm>], skip: &[String]) -> Result<Vec<Self>, Invalid> {
        let Some(main) = readers.first() else { return Ok(Vec::new()) };
        let mut names = BlockNames::of(main.graph);
        let scope = |reader| {
            let meanings = Meanings::of(reader)?;
            let plan = plan::plan(reader, &meanings, &mut names, skip);
            Ok(GraphAnalysis { reader, plan, inferred: TrainingNodes::find(reader)?, meanings })
        };
        readers.iter().map(scope).collect()
    }
}

/// Opens a model and indexes it.
///
/// # Errors
/// If it cannot be read, or is no model.
pub fn open(input: &Endpoint, links: Links) -> Result<Model, Error> {
    let file = input.label();
    let read = |source| Error::Read { file: file.clone(), source };
    let (bytes, storage) = match input {
        Endpoint::Pipe => (model::read(io::stdin().lock()).map_err(read)?, Storage::default()),
        Endpoint::File(path) => {
            if let Some(kind) = sniff::recognise_folder(path) {
                return Err(Error::Foreign { file, kind });
            }
            let map = MappedFile::of(path).map_err(read)?;
            (map.bytes(), Storage::in_folder(folder_of(path), links).of_model(&map))
        }
    };
    Model::index(bytes.clone(), storage).map_err(|source| match sniff::recognise(&bytes) {
        Some(kind) => Error::Foreign { file, kind },
        None => Error::Invalid { file, source },
    })
}

/// Whether the shapes and tensors that the user gave are those of graph inputs.
///
/// # Errors
/// BlockNames the first that is not.
pub fn check_inputs(file: &str, graphs: &[Graph], options: &Options) -> Result<(), Error> {
    let Some(main) = graphs.first() else { return Ok(()) };
    type Input = (String, Option<Vec<Option<i64>>>);
    let inputs: Vec<Input> = main.inputs();
    let fits = |label: String, shape: &[usize], input: Option<&Input>| {
        let differs = |dims: &[Option<i64>]| {
            let mut axes = dims.iter().zip(shape).enumerate();
            let (axis, (size, given)) = axes.find(|(_, (size, given))| {
                size.is_some_and(|size| usize::try_from(size) != Ok(**given))
            })?;
            Some(format!("the file says that axis {axis} has {}, not {given}", (*size)?))
        };
        let reason = match input {
            None => {
                let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
                format!("the model has no such input; it has {}", names.join(", "))
            }
            Some((_, Some(dims))) if dims.len() != shape.len() => {
                format!("the input has {} dimensions, not {}", dims.len(), shape.len())
            }
            Some((_, Some(dims))) => match differs(dims) {
                Some(reason) => reason,
                None => return Ok(()),
            },
            Some((_, None)) => return Ok(()),
        };
        Err(Error::Input { file: file.to_owned(), input: label, reason })
    };
    for (name, shape) in &options.run.shapes {
        fits(name.clone(), shape, inputs.iter().find(|(input, _)| input == name))?;
    }
    for (which, array) in &options.run.given {
        let mut numbered = inputs.iter().enumerate();
        let input = numbered.find(|(number, (name, _))| which.is(*number, name));
        fits(which.to_string(), array.shape(), input.map(|(_, input)| input))?;
    }
    Ok(())
}

/// Whether the engine ended with all that it was asked for; what depends on time is no
/// result.
///
/// # Errors
/// BlockNames what it did not end with.
pub fn check_time(file: &str, constants: &[Arc<Constants>]) -> Result<(), Error> {
    match constants.iter().find_map(|constants| constants.overrun()) {
        Some(what) => Err(Error::TooLong { file: file.to_owned(), what: what.to_owned() }),
        None => Ok(()),
    }
}

/// What is inside the local functions of a model.
#[derive(Default)]
pub struct LocalFunctions {
    /// The model with those of them inlined that take part in a block, or hold nodes in
    /// training mode which are converted; `None` if there are none.
    pub inlined: Option<Model>,
    /// Nodes of the others that stay in training mode.
    pub near_misses: Vec<NearMiss>,
}

impl LocalFunctions {
    /// Looks into those that `model` calls.
    ///
    /// # Errors
    /// If the model is malformed, or the engine does not end.
    pub fn of(file: &str, model: &Model, options: &Options) -> Result<Self, Error> {
        let invalid = |source| Error::Invalid { file: file.to_owned(), source };
        let index = |bytes| Model::index(bytes, model.storage.clone());
        let Some(bytes) = inline(model, &|_| true).map_err(invalid)? else {
            return Ok(Self::default());
        };
        let inlined = index(bytes).map_err(invalid)?;
        let graphs = Graph::read_all(&inlined).map_err(invalid)?;
        let constants = Constants::find_all(&graphs, options.keep_overridable).map_err(invalid)?;
        let dependence = Dependence::find_all(&graphs, constants.iter().map(Arc::as_ref));
        let readers = readers(&graphs, &constants, &dependence, options);
        let scopes = GraphAnalysis::of_all(&readers, &options.skip).map_err(invalid)?;
        check_time(file, &constants)?;
        let nodes = scopes.iter().flat_map(|scope| {
            let nodes = scope.plan.blocks.iter().flat_map(|block| &block.region.nodes);
            let inferred = scope.inferred.forms.iter().map(|(id, _)| id);
            nodes.chain(inferred).map(|&id| scope.reader.graph.node(id).proto.name())
        });
        // A call's nodes have names that begin with the call's.
        let mut callers: HashSet<&str> = HashSet::new();
        for name in nodes {
            callers.extend(name.match_indices('/').filter_map(|(end, _)| name.get(..end)));
        }
        let takes_part = |call: &str| callers.contains(call);
        let part = inline(model, &takes_part).map_err(invalid)?;
        let part = part.map(index).transpose().map_err(invalid)?;
        let known = Graph::read_all(part.as_ref().unwrap_or(model)).map_err(invalid)?;
        let known = known.iter().flat_map(Graph::nodes).map(|(_, node)| node.label());
        let known: HashSet<&str> = known.collect();
        let near_misses = scopes.iter().flat_map(|scope| &scope.inferred.near_misses);
        let near_misses = near_misses.filter(|miss| !known.contains(miss.node.as_str()));
        let near_misses = near_misses.cloned().collect();
        Ok(LocalFunctions { inlined: part, near_misses })
    }
}

/// Readers of all graphs of a model.
pub fn readers<'g, 'm>(
    graphs: &'g [Graph<'m>],
    constants: &'g [Arc<Constants<'g, 'm>>],
    dependence: &'g [Dependence],
    options: &'g Options,
) -> Vec<Reader<'g, 'm>> {
    let (shapes, asked) = (&options.run.shapes, options.training_mode);
    let all = graphs.iter().zip(constants).zip(dependence);
    let reader = |((graph, constants), dependence): ((_, &'g Arc<Constants<'g, 'm>>), _)| {
        Reader::new(graph, constants, shapes, Training { asked, dependence })
    };
    all.map(reader).collect()
}
