//! Tensors whose data lies outside the model file, and the side file of a new model.
//!
//! A model that changes gets a side file of its own beside it, which holds what the
//! tensors that stay name in old side files, and the new weights. What several of them name is
//! there once. Nothing is read into memory for that: data goes from map to file.
//!
//! Knows bytes and their places; not how new weights are computed.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use prost::bytes::Bytes;

use crate::onnx::data::TensorError;
use crate::onnx::map::MappedFile;
use crate::onnx::model::{Invalid, Model};
use crate::onnx::proto::tensor_proto::DataLocation;
use crate::onnx::proto::{StringStringEntryProto, TensorProto};
use crate::onnx::schema::{
    attribute_field, function_field, graph_field, model_field, node_field, sparse_field,
    tensor_field, training_field,
};
use crate::onnx::splice::{self, Container, Deferred, Edit, Hole, Sink};
use crate::onnx::storage::{DataPlace, Storage, StorageError};
use crate::onnx::wire;

/// A message that may hold tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageKind {
    Model,
    TrainingInfo,
    Graph,
    Function,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl MessageKind {
    /// What the field `number` of such a message holds, if it may hold tensors.
    fn of_field(self, number: u32) -> Option<MessageKind> {
        use MessageKind as Kind;
        match (self, number) {
            (Kind::Model, model_field::GRAPH) => Some(Kind::Graph),
            (Kind::Model, model_field::FUNCTIONS) => Some(Kind::Function),
            (Kind::Model, model_field::TRAINING_INFO) => Some(Kind::TrainingInfo),
            (Kind::TrainingInfo, training_field::INITIALIZATION | training_field::ALGORITHM) => {
                Some(Kind::Graph)
            }
            (Kind::Graph, graph_field::NODE) => Some(Kind::Node),
            (Kind::Graph, graph_field::INITIALIZER) => Some(Kind::Tensor),
            (Kind::Graph, graph_field::SPARSE_INITIALIZER) => Some(Kind::Sparse),
            (Kind::Function, function_field::NODE) => Some(Kind::Node),
            (Kind::Function, function_field::ATTRIBUTE_PROTO) => Some(Kind::Attribute),
            (Kind::Node, node_field::ATTRIBUTE) => Some(Kind::Attribute),
            (Kind::Attribute, attribute_field::GRAPH | attribute_field::GRAPHS) => {
                Some(Kind::Graph)
            }
            (Kind::Attribute, attribute_field::TENSOR | attribute_field::TENSORS) => {
                Some(Kind::Tensor)
            }
            (Kind::Attribute, attribute_field::SPARSE_TENSOR | attribute_field::SPARSE_TENSORS) => {
                Some(Kind::Sparse)
            }
            (Kind::Sparse, sparse_field::VALUES | sparse_field::INDICES) => Some(Kind::Tensor),
            _ => None,
        }
    }
}

/// One tensor that names a side file.
#[derive(Debug, Clone)]
pub struct External {
    /// Its name; empty if it is an attribute.
    pub name: String,
    /// Where its data lies.
    pub place: DataPlace,
    /// What names the place: its entries in the model.
    entries: Vec<Range<usize>>,
    /// The messages around these, the tensor itself included.
    pub containers: Vec<Container>,
}

/// Messages nest at most this deep: what lies deeper is a tensor to no reader of protobuf.
const MAX_NESTING: usize = 100;

/// All tensors of `model` that name a side file, in the order of the file: each message is left
/// before the next one is entered.
///
/// # Errors
/// If an entry cannot be decoded, or is external and does not say where.
pub fn find(model: &Model) -> Result<Vec<External>, Invalid> {
    let mut found = Vec::new();
    let whole = 0..model.bytes().len();
    find_in(model, MessageKind::Model, whole, &mut Vec::new(), &mut found)?;
    Ok(found)
}

/// Adds those in the message that fills `payload`, with the messages `around` it.
fn find_in(
    model: &Model,
    kind: MessageKind,
    payload: Range<usize>,
    around: &mut Vec<Container>,
    found: &mut Vec<External>,
) -> Result<(), Invalid> {
    if kind == MessageKind::Tensor {
        found.extend(external(model, payload, around)?);
        return Ok(());
    }
    for field in wire::fields(model.bytes(), payload) {
        let field = field?;
        let inner = kind.of_field(field.number).filter(|_| around.len() < MAX_NESTING);
        if let Some(inner) = inner {
            around.push(Container { length: field.length(), payload: field.payload.clone() });
            find_in(model, inner, field.payload, around, found)?;
            around.pop();
        }
    }
    Ok(())
}

/// The tensor at `payload`, if it is an external one.
fn external(
    model: &Model,
    payload: Range<usize>,
    around: &[Container],
) -> Result<Option<External>, Invalid> {
    let fields = || wire::fields(model.bytes(), payload.clone());
    let mut is_elsewhere = false;
    for field in fields() {
        is_elsewhere |= field?.number == tensor_field::DATA_LOCATION;
    }
    // Most are not: no need to decode these.
    if !is_elsewhere {
        return Ok(None);
    }
    let entries = fields().map_while(Result::ok);
    let entries = entries.filter(|field| field.number == tensor_field::EXTERNAL_DATA);
    let entries = entries.map(|field| field.entry()).collect();
    let tensor: TensorProto = model.decode_range(payload.clone(), "tensor")?;
    let invalid = |problem: StorageError| TensorError {
        name: tensor.name().to_owned(),
        problem: problem.into(),
    };
    let Some(place) = DataPlace::of(&tensor).map_err(invalid)? else { return Ok(None) };
    let (name, containers) = (tensor.name().to_owned(), around.to_vec());
    Ok(Some(External { name, place, entries, containers }))
}

/// Names of the side files that `tensors` lie in.
pub fn locations(tensors: &[External]) -> BTreeSet<String> {
    tensors.iter().map(|tensor| tensor.place.location().to_owned()).collect()
}

/// Those of `tensors` that lie in no range that one of `edits` replaces.
pub fn untouched(mut tensors: Vec<External>, edits: &[Edit]) -> Vec<External> {
    let mut replaced: Vec<&Range<usize>> =
        edits.iter().map(|edit| &edit.at).filter(|at| !at.is_empty()).collect();
    replaced.sort_by_key(|at| at.start);
    tensors.retain(|tensor| {
        let Some(entry) = tensor.entries.first() else { return false };
        let begun = replaced.partition_point(|at| at.start <= entry.start);
        let around = begun.checked_sub(1).and_then(|last| replaced.get(last));
        around.is_none_or(|at| at.end <= entry.start)
    });
    tensors
}

/// What the side file of a new model holds: data of tensors that stay, and new weights.
#[derive(Debug, Default)]
pub struct SideFileLayout {
    /// Offset and content.
    chunks: Vec<(usize, Content)>,
    end: usize,
    /// Whose side files the content lies in.
    storage: Storage,
    /// Offset and length of what lay elsewhere.
    moved: HashMap<DataPlace, (usize, usize)>,
    /// The same of new tensors, by name.
    new: HashMap<String, (usize, usize)>,
}

/// A part of an old side file that is copied as a whole.
#[derive(Debug)]
struct CopiedRange {
    range: Range<usize>,
    /// Whether tensors name different parts of it.
    is_shared: bool,
    /// Where it lies in the new side file, once it does.
    moved_to: Option<usize>,
}

/// By the side file, the parts of it that tensors name, in order. Those that overlap are one
/// range: a few bytes name the same gigabyte a thousand times, and it is written once.
#[derive(Debug)]
struct CopiedRanges(HashMap<PathBuf, Vec<CopiedRange>>);

impl CopiedRanges {
    fn of(located: &[(MappedFile, Range<usize>)]) -> Self {
        let mut sorted: Vec<(&Path, &Range<usize>)> =
            located.iter().map(|(of, range)| (of.path(), range)).collect();
        sorted.sort_unstable_by_key(|(path, range)| (*path, range.start, range.end));
        let mut by_file: HashMap<PathBuf, Vec<CopiedRange>> = HashMap::new();
        for (path, range) in sorted {
            let own = by_file.entry(path.to_owned()).or_default();
            let overlaps = |last: &&mut CopiedRange| {
                range.start < last.range.end || range.start == last.range.start
            };
            if let Some(last) = own.last_mut().filter(overlaps) {
                last.is_shared |= last.range != *range;
                last.range.end = last.range.end.max(range.end);
            } else {
                own.push(CopiedRange { range: range.clone(), is_shared: false, moved_to: None });
            }
        }
        CopiedRanges(by_file)
    }

    /// The one that holds this range of the file.
    fn around(&mut self, of: &MappedFile, range: &Range<usize>) -> Option<&mut CopiedRange> {
        let own = self.0.get_mut(of.path())?;
        let begun = own.partition_point(|copied| copied.range.start <= range.start);
        own.get_mut(begun.checked_sub(1)?)
    }
}

/// What lies in a side file.
#[derive(Debug)]
enum Content {
    /// It was in another one.
    Here(Bytes),
    /// It is computed later.
    Deferred(Deferred),
}

/// Smaller tensors stay in the model, as other writers do it.
const MIN_BYTES: usize = 1024;

/// Tensors of this size and more begin at a multiple of it, so that engines can map them.
const PAGE: usize = 1 << 16;

/// Others begin where a vector register can load them.
const ALIGNMENT: usize = 64;

impl SideFileLayout {
    /// The side file for `kept` tensors, whose data is in `storage`, and `new` ones, which
    /// have a name.
    ///
    /// # Errors
    /// If data of a tensor cannot be read.
    pub fn of<'t>(
        kept: &[External],
        storage: &Storage,
        new: impl Iterator<Item = (&'t str, Deferred)>,
    ) -> Result<Self, TensorError> {
        let mut file = SideFileLayout { storage: storage.clone(), ..SideFileLayout::default() };
        let located = |External { name, place, .. }: &External| {
            storage
                .located(place)
                .map_err(|problem| TensorError { name: name.clone(), problem: problem.into() })
        };
        let located = kept.iter().map(located).collect::<Result<Vec<_>, _>>()?;
        let mut copied = CopiedRanges::of(&located);
        for (External { place, .. }, (of, range)) in kept.iter().zip(&located) {
            if file.moved.contains_key(place) {
                continue;
            }
            let Some(whole) = copied.around(of, range) else { continue };
            let begin = *whole.moved_to.get_or_insert_with(|| {
                let data = of.bytes().slice(whole.range.clone());
                // What begins at a multiple of so many bytes still does.
                let shift = if whole.is_shared { whole.range.start } else { 0 };
                file.put(data.len(), shift, Content::Here(data)).0
            });
            let before = range.start.saturating_sub(whole.range.start);
            file.moved.insert(place.clone(), (begin.saturating_add(before), range.len()));
        }
        for (name, deferred) in new.filter(|(_, deferred)| deferred.length >= MIN_BYTES) {
            let put = file.put(deferred.length, 0, Content::Deferred(deferred));
            file.new.insert(name.to_owned(), put);
        }
        Ok(file)
    }

    /// Puts `content` behind what is there, off the alignment by as much as `shift` is.
    fn put(&mut self, length: usize, shift: usize, content: Content) -> (usize, usize) {
        let alignment = if length < PAGE { ALIGNMENT } else { PAGE };
        let offset = self.end.next_multiple_of(alignment).saturating_add(shift % ALIGNMENT);
        self.end = offset.saturating_add(length);
        self.chunks.push((offset, content));
        (offset, length)
    }

    /// The edits that make `kept` name this file, which will be called `location`.
    pub fn edits(&self, kept: &[External], location: &str) -> Vec<Edit> {
        let mut edits = Vec::new();
        for tensor in kept {
            let Some(&place) = self.moved.get(&tensor.place) else { continue };
            let entries = entries(location, place);
            let entries =
                entries.iter().flat_map(|entry| splice::entry(tensor_field::EXTERNAL_DATA, entry));
            // In the place of the first entry; the others go.
            let mut with: Bytes = entries.collect::<Vec<u8>>().into();
            let edit = |at: &Range<usize>| Edit::replace(at.clone(), std::mem::take(&mut with));
            edits.extend(tensor.entries.iter().map(edit));
        }
        edits
    }

    /// The new tensor with this header, if its data is in this file, which will be called
    /// `location`.
    pub fn naming(&self, header: &TensorProto, location: &str) -> Option<TensorProto> {
        let place = self.new.get(header.name())?;
        Some(TensorProto {
            external_data: entries(location, *place).into(),
            data_location: Some(DataLocation::External.into()),
            ..header.clone()
        })
    }

    /// Whether nothing lies in it.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether a file of this `content` is what this one would be; `is_same` says it of
    /// what is computed later.
    pub fn is(&self, content: &[u8], is_same: impl Fn(Deferred, &[u8]) -> bool) -> bool {
        let holds = |(offset, chunk): &(usize, Content)| {
            let rest = content.get(*offset..).unwrap_or_default();
            match chunk {
                Content::Here(data) => rest.starts_with(data),
                Content::Deferred(deferred) => {
                    rest.get(..deferred.length).is_some_and(|there| is_same(*deferred, there))
                }
            }
        };
        content.len() == self.end && self.chunks.iter().all(holds)
    }

    /// Writes it, with zeros between its tensors; what is left open then.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Sink) -> io::Result<Vec<Hole>> {
        let (mut at, mut holes) = (0, Vec::new());
        for (offset, content) in &self.chunks {
            out.leave(offset.saturating_sub(at))?;
            at = offset.saturating_add(match content {
                Content::Here(data) => {
                    out.write_all(data)?;
                    self.storage.has_read(data.len());
                    data.len()
                }
                Content::Deferred(deferred) => {
                    holes.push(Hole { at: *offset, deferred: *deferred });
                    out.leave(deferred.length)?;
                    deferred.length
                }
            });
        }
        Ok(holes)
    }
}

fn entries(location: &str, (offset, length): (usize, usize)) -> [StringStringEntryProto; 3] {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    [
        entry("location", location.to_owned()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ]
}
