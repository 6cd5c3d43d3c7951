//! Tensors whose data lies outside the model file, and the side file of a new model.
//!
//! A new model gets a side file of its own beside it. It holds the data that the remaining
//! tensors name in old side files, and the new weights. Data that several tensors name is
//! stored once. Nothing is read into memory for that: data is copied from map to file.
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

/// The kind of a message that may hold tensors.
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
    /// Returns the kind of message in field `number` of such a message, if it may hold tensors.
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

/// A tensor whose data is in a side file.
#[derive(Debug, Clone)]
pub struct External {
    /// The name of the tensor; empty if it is in an attribute.
    pub name: String,
    /// The place of its data.
    pub place: DataPlace,
    /// Its `external_data` entries in the model, which state the place.
    entries: Vec<Range<usize>>,
    /// The messages around these entries, including the tensor itself.
    pub containers: Vec<Container>,
}

/// The maximum nesting of messages that is followed: protobuf readers decode no tensor that
/// lies deeper.
const MAX_NESTING: usize = 100;

/// Returns all tensors of `model` whose data is in a side file, in file order: each message is
/// left before the next one is entered.
///
/// # Errors
/// Returns an error if an entry cannot be decoded, or is external without a location.
pub fn find(model: &Model) -> Result<Vec<External>, Invalid> {
    let mut found = Vec::new();
    let whole = 0..model.bytes().len();
    find_in(model, MessageKind::Model, whole, &mut Vec::new(), &mut found)?;
    Ok(found)
}

/// Appends the external tensors in the message that fills `payload` and lies in the messages
/// `around`.
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

/// Returns the tensor at `payload` if its data is external.
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
    // Most tensors have no such field and need not be decoded.
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

/// Returns the names of the side files of `tensors`.
pub fn locations(tensors: &[External]) -> BTreeSet<String> {
    tensors.iter().map(|tensor| tensor.place.location().to_owned()).collect()
}

/// Returns those of `tensors` that do not lie in a range that one of `edits` replaces.
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

/// The content of the side file of a new model: data of tensors that remain, and new weights.
#[derive(Debug, Default)]
pub struct SideFileLayout {
    /// Offset and content of each chunk, in order.
    chunks: Vec<(usize, Content)>,
    end: usize,
    /// The storage of the old model, whose side files hold the copied content.
    storage: Storage,
    /// New offset and length of copied data, by its old place.
    moved: HashMap<DataPlace, (usize, usize)>,
    /// Offset and length of new tensors, by name.
    new: HashMap<String, (usize, usize)>,
}

/// A range of an old side file that is copied as a whole.
#[derive(Debug)]
struct CopiedRange {
    range: Range<usize>,
    /// Whether tensors name different parts of it.
    is_shared: bool,
    /// The offset of the copy in the new side file, once it is placed.
    moved_to: Option<usize>,
}

/// For each side file, the ranges that tensors name, sorted. Overlapping ranges are joined: a
/// few bytes of a model can name the same gigabyte a thousand times, and it is written once.
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

    /// Returns the copied range that contains `range` of the file `of`.
    fn around(&mut self, of: &MappedFile, range: &Range<usize>) -> Option<&mut CopiedRange> {
        let own = self.0.get_mut(of.path())?;
        let begun = own.partition_point(|copied| copied.range.start <= range.start);
        own.get_mut(begun.checked_sub(1)?)
    }
}

/// The content of one chunk of a side file.
#[derive(Debug)]
enum Content {
    /// Data that is copied from an old side file.
    Here(Bytes),
    /// Data that is computed later.
    Deferred(Deferred),
}

/// The minimum size of a tensor in a side file, in bytes; smaller ones stay in the model, as
/// with other writers.
const MIN_BYTES: usize = 1024;

/// Tensors of at least this many bytes are aligned to it, so that engines can map them.
const PAGE: usize = 1 << 16;

/// The alignment of smaller tensors, for loads into vector registers.
const ALIGNMENT: usize = 64;

impl SideFileLayout {
    /// Lays out the side file for `kept` tensors, whose data is in `storage`, and for the `new`
    /// ones, each with its name.
    ///
    /// # Errors
    /// Returns an error if the data of a tensor cannot be read.
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
                // What was aligned in the old file, by up to ALIGNMENT, still is.
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

    /// Appends `content`, off its alignment by `shift` modulo [`ALIGNMENT`]; returns its offset
    /// and length.
    fn put(&mut self, length: usize, shift: usize, content: Content) -> (usize, usize) {
        let alignment = if length < PAGE { ALIGNMENT } else { PAGE };
        let offset = self.end.next_multiple_of(alignment).saturating_add(shift % ALIGNMENT);
        self.end = offset.saturating_add(length);
        self.chunks.push((offset, content));
        (offset, length)
    }

    /// Returns the edits that make `kept` name this file, which will be called `location`.
    pub fn edits(&self, kept: &[External], location: &str) -> Vec<Edit> {
        let mut edits = Vec::new();
        for tensor in kept {
            let Some(&place) = self.moved.get(&tensor.place) else { continue };
            let entries = entries(location, place);
            let entries =
                entries.iter().flat_map(|entry| splice::entry(tensor_field::EXTERNAL_DATA, entry));
            // The new entries replace the first old one; the others are removed.
            let mut with: Bytes = entries.collect::<Vec<u8>>().into();
            let edit = |at: &Range<usize>| Edit::replace(at.clone(), std::mem::take(&mut with));
            edits.extend(tensor.entries.iter().map(edit));
        }
        edits
    }

    /// Returns the new tensor with this header if its data is in this file, which will be
    /// called `location`; `None` if it stays in the model.
    pub fn naming(&self, header: &TensorProto, location: &str) -> Option<TensorProto> {
        let place = self.new.get(header.name())?;
        Some(TensorProto {
            external_data: entries(location, *place).into(),
            data_location: Some(DataLocation::External.into()),
            ..header.clone()
        })
    }

    /// Whether the file has no content.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether a file with this `content` equals the one to be written; `is_same` compares data
    /// that is computed later.
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

    /// Writes the file, with zeros between its tensors; returns the holes that are left.
    ///
    /// # Errors
    /// Returns an error if writing to `out` fails.
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
