//! Reads back what will be written: it must be the old file, except for what was proved.
//!
//! Together with the proofs of the blocks this shows, by induction over the nodes, that every
//! tensor which both files have is the same in both: whatever stayed is the old entry byte for
//! byte, whatever is new was proved, and each name is made once and before it is read. No
//! tolerance is involved, so a single wrong bit shows, and so does a wire to a wrong tensor of
//! the same shape, even in a model that cannot be run.
//!
//! Knows both files and what was proved; does not know how it was made.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use prost::Message;

use crate::onnx::external;
use crate::onnx::graph::Graph;
use crate::onnx::ids::NodeId;
use crate::onnx::model::{GraphFields, Invalid, Model};
use crate::onnx::node::bodies;
use crate::onnx::notes;
use crate::onnx::proto::{
    FunctionProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto,
};
use crate::onnx::schema::{graph_field, model_field, tensor_field};
use crate::onnx::storage::same_bytes;
use crate::onnx::wire::{self, Field};
use crate::verify::entries::{
    HoldsTensors, declares, fill, first_output, input_names, label, payload, stored_names,
    without_notes,
};
use crate::verify::fingerprint::Fingerprint;
use crate::verify::same_data::DataComparison;

/// What was decided and proved for one graph.
#[derive(Debug, Default)]
pub struct Expected<'e> {
    /// Per block, its new nodes and new initializers.
    pub blocks: Vec<(&'e [NodeProto], &'e [Fingerprint])>,
    /// Nodes that are replaced by their eval form.
    pub eval_forms: Vec<(NodeId, &'e NodeProto)>,
    /// Value infos of new tensors.
    pub infos: Vec<&'e ValueInfoProto>,
}

impl Expected<'_> {
    fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.eval_forms.is_empty()
    }
}

/// How the file that would be written differs from what was proved.
#[derive(Debug, thiserror::Error)]
pub enum Miswritten {
    /// The file is not a valid model: a name is made twice, or not before it is read.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// An entry is neither an old one nor a proved one; it may be an old one that was changed.
    #[error("{0} was neither read nor proved")]
    Unknown(String),
    /// A node that was needed is not needed any more, but was not removed.
    #[error("node `{0}` is left over: nothing needs it any more")]
    Unneeded(String),
    /// An entry was lost, or a change was not made.
    #[error("{0} is missing")]
    Missing(String),
}

impl From<wire::WireError> for Miswritten {
    fn from(error: wire::WireError) -> Self {
        Miswritten::Invalid(error.into())
    }
}

/// Checks that the model of the graphs `new` (see [`Graph::read_all`]) is the model of the
/// graphs `old` with the changes that are `expected` for each graph, and nothing else.
///
/// # Errors
/// Returns an error that names the first wrong entry.
pub fn check(old: &[Graph], expected: &[Expected], new: &[Graph]) -> Result<(), Miswritten> {
    let (Some(main), Some(new_main)) = (old.first(), new.first()) else {
        return Err(Invalid::NoGraph.into());
    };
    let new = new_main.model;
    if let Some(left) = leftover(main, new_main) {
        return Err(Miswritten::Unneeded(left.to_owned()));
    }
    let mut tensors: HashMap<&str, &Fingerprint> = HashMap::new();
    for tensor in expected.iter().flat_map(|graph| &graph.blocks).flat_map(|block| block.1) {
        if tensors.insert(tensor.name(), tensor).is_some_and(|other| other != tensor) {
            return Err(Invalid::DefinedTwice(tensor.name().to_owned()).into());
        }
    }
    let old_model = main.model;
    let external = !(external::find(old_model)?.is_empty() && external::find(new)?.is_empty());
    let eval_forms = old.iter().zip(expected).flat_map(|(graph, expected)| {
        expected.eval_forms.iter().map(|(id, _)| graph.node(*id).field.entry().start)
    });
    let eval_forms = eval_forms.collect();
    let begin = |graph: &Graph| payload(&graph.fields).start;
    let by_place = old.iter().map(begin).zip(expected).collect();
    let changed = old.iter().zip(expected).filter(|(_, expected)| !expected.is_empty());
    let changed = changed.map(|(graph, _)| begin(graph)).collect();
    let expected = ExpectedAt { by_place, changed, eval_forms };
    let data = DataComparison::of(&old_model.storage, &new.storage);
    let files = Files { old: old_model, new, main, expected, tensors, external, data };
    files.compare_surroundings()?;
    let mut tensors = AddedTensors::default();
    files.compare(&main.fields, &new.main, &mut tensors)?;
    // The tensors of a body may stand in the graph around it, so they are counted at the end.
    match tensors.wanted.iter().find(|&&name| !tensors.written.contains(name)) {
        Some(lost) => Err(Miswritten::Missing(format!("tensor `{lost}`"))),
        None => Ok(()),
    }
}

/// Names of new initializers: those that must be there, and those that are.
#[derive(Default)]
struct AddedTensors<'f> {
    wanted: Vec<&'f str>,
    written: HashSet<String>,
}

/// What was decided, by positions in the old file.
struct ExpectedAt<'f> {
    /// Keyed by where the content of the graph begins.
    by_place: HashMap<usize, &'f Expected<'f>>,
    /// Where the contents of the graphs that change begin.
    changed: BTreeSet<usize>,
    /// Where the nodes that become their eval form begin.
    eval_forms: HashSet<usize>,
}

/// Both files, and what was decided and proved.
struct Files<'f, 'm> {
    old: &'f Model,
    new: &'f Model,
    /// The main graph of the old file.
    main: &'f Graph<'m>,
    expected: ExpectedAt<'f>,
    /// New initializers by name; those of a body may stand in the main graph.
    tensors: HashMap<&'f str, &'f Fingerprint>,
    /// Whether data lies in side files. The new model has a side file of its own, so entries
    /// name other places, and the data in these places is compared.
    external: bool,
    /// Compares entries whose data lies in side files.
    data: DataComparison<'f>,
}

impl<'f> Files<'f, '_> {
    /// Compares what stands beside the graph in the model.
    fn compare_surroundings(&self) -> Result<(), Miswritten> {
        let around = |model: &Model| -> Result<Vec<Field>, wire::WireError> {
            let fields = wire::fields(model.bytes(), 0..model.bytes().len());
            fields
                .filter(|field| field.as_ref().map_or(true, |f| f.number != model_field::GRAPH))
                .collect()
        };
        let (before, after) = (around(self.old)?, around(self.new)?);
        let mut same = before.len() == after.len();
        for (before, after) in before.iter().zip(&after) {
            same = same && self.same_beside_graph(before, after)?;
        }
        if !same {
            return Err(Miswritten::Unknown("something around the graph".into()));
        }
        Ok(())
    }

    fn same_beside_graph(&self, before: &Field, after: &Field) -> Result<bool, Invalid> {
        let is_function = |field: &Field| field.number == model_field::FUNCTIONS;
        if !self.external || !is_function(before) || !is_function(after) {
            return Ok(self.same_bytes(before, after));
        }
        self.same_message::<FunctionProto>(before, after, "function")
    }

    fn same_bytes(&self, before: &Field, after: &Field) -> bool {
        let entry = |model: &'f Model, field: &Field| {
            (model.bytes().get(field.entry()).unwrap_or_default(), &model.storage)
        };
        same_bytes(entry(self.old, before), entry(self.new, after))
    }

    /// Returns whether two graph entries are the same, wherever their data lies.
    fn same_entry(&self, before: &Field, after: &Field) -> Result<bool, Invalid> {
        if !self.external || before.number != after.number {
            return Ok(self.same_bytes(before, after));
        }
        match before.number {
            graph_field::NODE => self.same_message::<NodeProto>(before, after, "node"),
            graph_field::INITIALIZER => {
                self.same_message::<TensorProto>(before, after, "initializer")
            }
            graph_field::SPARSE_INITIALIZER => {
                self.same_message::<SparseTensorProto>(before, after, "sparse tensor")
            }
            _ => Ok(self.same_bytes(before, after)),
        }
    }

    fn same_message<M: Message + Default + PartialEq + HoldsTensors>(
        &self,
        before: &Field,
        after: &Field,
        entry: &'static str,
    ) -> Result<bool, Invalid> {
        let (before, after): (M, M) =
            (self.old.decode(before, entry)?, self.new.decode(after, entry)?);
        self.data.are_same(before, after)
    }

    /// Returns what was decided for the old graph with these `fields`.
    fn expected_of(&self, fields: &GraphFields) -> Option<&'f Expected<'f>> {
        self.expected.by_place.get(&payload(fields).start).copied()
    }

    fn blocks_of(&self, fields: &GraphFields) -> &'f [(&'f [NodeProto], &'f [Fingerprint])] {
        self.expected_of(fields).map_or(&[], |expected| &expected.blocks)
    }

    /// Compares the old graph with the new one, entry by entry.
    fn compare(
        &self,
        old: &GraphFields,
        new: &GraphFields,
        tensors: &mut AddedTensors<'f>,
    ) -> Result<(), Miswritten> {
        let blocks = self.blocks_of(old);
        tensors.wanted.extend(blocks.iter().flat_map(|block| block.1).map(Fingerprint::name));
        let expected = blocks.iter().flat_map(|block| block.0);
        let mut missing: HashMap<&'f str, &'f NodeProto> =
            expected.map(|node| (first_output(node), node)).collect();
        let mut eval_forms = self.eval_forms_in(old);
        let infos = self.expected_of(old).into_iter().flat_map(|expected| &expected.infos);
        let mut infos: HashMap<&str, &ValueInfoProto> =
            infos.map(|info| (info.name(), *info)).collect();
        let mut before = wire::fields(self.old.bytes(), payload(old)).peekable();
        for field in wire::fields(self.new.bytes(), payload(new)) {
            let field = field?;
            if self.is_new(&field, &mut missing, &mut eval_forms, tensors)?
                || self.is_new_info(&field, &mut infos)?
            {
                continue;
            }
            loop {
                let Some(candidate) = before.next().transpose()? else {
                    return Err(Miswritten::Unknown(label(self.new, &field)));
                };
                if self.is_kept(old, &candidate, new, &field, tensors)? {
                    break;
                }
                self.may_go(&candidate)?;
            }
        }
        before.try_for_each(|left| self.may_go(&left?))?;
        if let Some(name) = missing.keys().next() {
            return Err(Miswritten::Missing(format!("the node that makes `{name}`")));
        }
        if let Some(name) = infos.keys().next() {
            return Err(Miswritten::Missing(format!("the description of `{name}`")));
        }
        self.compare_inputs(old, new)
    }

    /// Returns the expected eval forms of a graph, by the first tensor that they make.
    fn eval_forms_in(&self, fields: &GraphFields) -> HashMap<&'f str, &'f NodeProto> {
        let expected = self.expected_of(fields);
        let eval_forms = expected.iter().flat_map(|expected| &expected.eval_forms);
        eval_forms.map(|(_, form)| (first_output(form), *form)).collect()
    }

    /// Returns whether `field` is an entry that was proved, and notes that it was written.
    fn is_new(
        &self,
        field: &Field,
        missing: &mut HashMap<&'f str, &'f NodeProto>,
        eval_forms: &mut HashMap<&'f str, &'f NodeProto>,
        tensors: &mut AddedTensors<'f>,
    ) -> Result<bool, Miswritten> {
        match field.number {
            graph_field::NODE => {
                let node: NodeProto = self.new.decode(field, "node")?;
                let output = first_output(&node);
                for expected in [missing, eval_forms] {
                    if expected.get(output).is_some_and(|&expected| *expected == node) {
                        expected.remove(output);
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            graph_field::INITIALIZER => {
                let name = self.new.string_within(&field.payload, tensor_field::NAME)?;
                let Some(&expected) = self.tensors.get(name.as_str()) else { return Ok(false) };
                let mut written: TensorProto = self.new.decode(field, "initializer")?;
                fill(self.new, &mut written)?;
                let written = without_notes(written);
                let same = Fingerprint::of(&written) == *expected;
                self.new.storage.has_read(written.raw_data().len());
                // Notes on an old tensor of that name must be kept.
                let old = self.main.find(&name);
                let noted = old.map(|id| notes::of_stored(self.main, id)).transpose()?;
                let is_noted = notes::within(self.new, field.payload.clone())?;
                let same = same && is_noted == noted.unwrap_or_default();
                if same {
                    tensors.written.insert(name);
                }
                Ok(same)
            }
            // Up to IR version 3, initializers are listed as inputs.
            graph_field::INPUT if self.new.ir_version < 4 => {
                let info: ValueInfoProto = self.new.decode(field, "graph input")?;
                Ok(self
                    .tensors
                    .get(info.name())
                    .is_some_and(|known| declares(&info, known.header())))
            }
            _ => Ok(false),
        }
    }

    /// Returns whether `field` is an expected value info that is still missing, and removes it
    /// from `infos`.
    fn is_new_info(
        &self,
        field: &Field,
        infos: &mut HashMap<&str, &ValueInfoProto>,
    ) -> Result<bool, Miswritten> {
        if field.number != graph_field::VALUE_INFO || infos.is_empty() {
            return Ok(false);
        }
        let info: ValueInfoProto = self.new.decode(field, "value info")?;
        let is_expected = infos.get(info.name()).is_some_and(|expected| **expected == info);
        Ok(is_expected && infos.remove(info.name()).is_some())
    }

    /// Returns whether `field` of the new graph is the entry `candidate` of the old one: the
    /// same bytes, or the same node around bodies that differ only as they may.
    fn is_kept(
        &self,
        old: &GraphFields,
        candidate: &Field,
        new: &GraphFields,
        field: &Field,
        tensors: &mut AddedTensors<'f>,
    ) -> Result<bool, Miswritten> {
        if self.same_entry(candidate, field)? {
            return self.may_stay(candidate).map(|()| true);
        }
        if candidate.number != graph_field::NODE || field.number != graph_field::NODE {
            return Ok(false);
        }
        let shell = |model: &Model, field: &Field| -> Result<Option<NodeProto>, Invalid> {
            let mut node: NodeProto = model.decode(field, "node")?;
            let holds = bodies(&node).next().is_some();
            for attribute in &mut node.attribute {
                attribute.g = None;
                attribute.graphs.clear();
            }
            Ok(holds.then_some(node))
        };
        let shells = shell(self.old, candidate)?.zip(shell(self.new, field)?);
        let Some((before, after)) = shells else { return Ok(false) };
        if !self.data.are_same(before, after)? {
            return Ok(false);
        }
        let (before, after) = (self.old.bodies(old, candidate)?, self.new.bodies(new, field)?);
        if before.len() != after.len() {
            return Ok(false);
        }
        for (before, after) in before.iter().zip(&after) {
            self.compare(before, after, tensors)?;
        }
        Ok(true)
    }

    /// Checks that an entry may stay as it is: nothing else was decided for it or inside it.
    fn may_stay(&self, entry: &Field) -> Result<(), Miswritten> {
        let ExpectedAt { changed, eval_forms, .. } = &self.expected;
        let entry_range = entry.entry();
        // A graph that begins inside an entry, or is empty and ends it, lies inside.
        let within = (Bound::Excluded(entry_range.start), Bound::Included(entry_range.end));
        let undone = changed.range(within).next().is_some();
        if undone || eval_forms.contains(&entry_range.start) {
            return Err(Miswritten::Missing(format!("a change of {}", label(self.old, entry))));
        }
        Ok(())
    }

    /// Checks that an old entry may be gone: if nothing reads it, which was checked, it is no loss.
    fn may_go(&self, entry: &Field) -> Result<(), Miswritten> {
        match entry.number {
            graph_field::NODE
            | graph_field::INITIALIZER
            | graph_field::SPARSE_INITIALIZER
            | graph_field::INPUT
            | graph_field::VALUE_INFO
            | graph_field::QUANTIZATION_ANNOTATION => Ok(()),
            _ => Err(Miswritten::Missing(label(self.old, entry))),
        }
    }

    /// Checks that an input is removed exactly if the initializer that was its default is removed.
    fn compare_inputs(&self, old: &GraphFields, new: &GraphFields) -> Result<(), Miswritten> {
        let (inputs, defaults) = (input_names(self.old, old)?, stored_names(self.old, old)?);
        let (kept, kept_defaults) = (input_names(self.new, new)?, stored_names(self.new, new)?);
        let is_right = |name: &&String| {
            let stays = !defaults.contains(*name) || kept_defaults.contains(*name);
            kept.contains(*name) == stays
        };
        match inputs.iter().find(|name| !is_right(name)) {
            Some(name) => Err(Miswritten::Missing(format!("input `{name}`, or its default,"))),
            None => Ok(()),
        }
    }
}

/// Returns the label of a node of the new graph whose output was needed in the old graph and is
/// not any more; `None` if there is no such node.
fn leftover<'g>(old: &Graph, new: &'g Graph) -> Option<&'g str> {
    let was_needed = |name: &String| {
        let producer = old.find(name).and_then(|id| old.value(id).producer);
        producer.is_some_and(|producer| old.is_live(producer))
    };
    let mut dead = new.nodes().filter(|&(id, _)| !new.is_live(id));
    let left = dead.find(|(_, node)| node.proto.output.iter().any(was_needed));
    left.map(|(_, node)| node.label())
}
