//! One model file: mapped, and indexed entry by entry.
//!
//! Opening a model reads tags and lengths only. Messages are decoded on demand, and weights are
//! then views into the memory map.
//!
//! Knows where each entry lies; resolving the names in it is left to `graph`.

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;

use crate::onnx::data::TensorError;
use crate::onnx::proto::OperatorSetIdProto;
use crate::onnx::schema::{attribute_field, graph_field, model_field, node_field};
use crate::onnx::splice::Container;
use crate::onnx::storage::Storage;
use crate::onnx::wire::{self, Field, WireError};

/// The reason why a file is not a valid ONNX model, and its place in the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// The bytes are not a protobuf message.
    #[error("this is not an ONNX file: {0}")]
    Wire(#[from] WireError),
    /// The content of an entry contradicts the schema.
    #[error("the {entry} at byte {at} cannot be decoded: {reason}")]
    Decode {
        /// The kind of entry.
        entry: &'static str,
        /// Its offset in the file, in bytes.
        at: usize,
        /// The reason given by prost.
        reason: String,
    },
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The file has no `graph` field.
    #[error("the file holds no graph; is it an ONNX model?")]
    NoGraph,
    /// The file has more than one `graph` field.
    #[error("the file holds more than one graph")]
    ManyGraphs,
    /// The model imports no operator set at all.
    #[error("the model imports no operator set, so its operators have no meaning")]
    NoOpset,
    /// The imported version of the default operator set does not exist: it is less than 1.
    #[error("the model imports version {0} of the ONNX operators; they begin with 1")]
    Opset(i64),
    /// A graph has no outputs.
    #[error("the graph has no outputs")]
    NoOutputs,
    /// Two definitions have the same tensor name.
    #[error("tensor `{0}` is defined twice")]
    DefinedTwice(String),
    /// A node reads a tensor that nothing defines.
    #[error("{node} reads tensor `{tensor}`, which nothing defines")]
    Undefined {
        /// The node that reads it.
        node: String,
        /// The name of the tensor.
        tensor: String,
    },
    /// The nodes form a cycle, so no order sorts them.
    #[error("nodes read each other in a circle: {}", around(.0))]
    Circle(Vec<String>),
    /// A node reads a tensor that only a later node produces.
    #[error("{node} reads tensor `{tensor}`, which a later node makes: the nodes are not sorted")]
    Unsorted {
        /// The node that reads it.
        node: String,
        /// The name of the tensor.
        tensor: String,
    },
    /// A stored tensor contradicts its own description.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Functions call each other in a cycle, or their calls nest too deep.
    #[error("function `{0}` calls itself, or calls nest too deep")]
    RecursiveFunction(String),
    /// Calls of local functions expand to too many nodes or bytes.
    #[error("inlined, the calls of local functions have more nodes or bytes than are followed")]
    ManyCalls,
    /// An attribute that holds one graph occurs with two.
    #[error("node `{0}` has two graphs in an attribute that holds one")]
    ManyBodies(String),
    /// Nothing defines a tensor that is listed as a graph output.
    #[error("graph output `{0}` is computed by no node")]
    UndefinedOutput(String),
}

/// The position in the file of one graph: the main graph, or the body of an If, Loop or Scan.
#[derive(Debug, Clone)]
pub struct GraphFields {
    payload: Range<usize>,
    fields: Vec<Field>,
    /// The messages around the entries of the graph, outermost first, the graph message itself
    /// last; edits may grow or shrink them.
    pub containers: Vec<Container>,
}

impl GraphFields {
    /// Returns the entries with field number `number` (see [`graph_field`]), in file order.
    pub fn fields(&self, number: u32) -> impl DoubleEndedIterator<Item = &Field> {
        self.fields.iter().filter(move |field| field.number == number)
    }

    /// Returns the graph message itself.
    pub fn container(&self) -> Container {
        let none = Container { length: 0..0, payload: self.payload.clone() };
        self.containers.last().cloned().unwrap_or(none)
    }

    /// Returns the offset where a new initializer goes: after the existing ones, or first in
    /// the graph if it has none.
    pub fn end_of_initializers(&self) -> usize {
        self.fields(graph_field::INITIALIZER)
            .next_back()
            .map_or(self.payload.start, |field| field.entry().end)
    }

    fn index(bytes: &Bytes, graph: &Field, around: &[Container]) -> Result<Self, WireError> {
        use graph_field::{INITIALIZER, INPUT, NODE, OUTPUT, SPARSE_INITIALIZER, VALUE_INFO};
        let messages = [NODE, INITIALIZER, INPUT, OUTPUT, VALUE_INFO, SPARSE_INITIALIZER];
        let checked = |field: Result<Field, WireError>| match field {
            Ok(field) if messages.contains(&field.number) => field.delimited(),
            other => other,
        };
        let fields = wire::fields(bytes, graph.payload.clone()).map(checked);
        let fields = fields.collect::<Result<Vec<_>, _>>()?;
        let containers = around.iter().cloned().chain([container(graph)]).collect();
        Ok(GraphFields { payload: graph.payload.clone(), fields, containers })
    }
}

fn container(field: &Field) -> Container {
    Container { length: field.length(), payload: field.payload.clone() }
}

/// A mapped and indexed model.
#[derive(Debug)]
pub struct Model {
    bytes: Bytes,
    /// The main graph.
    pub main: Arc<GraphFields>,
    /// The local functions.
    pub functions: Vec<Field>,
    /// Whether the file has training graphs, which read tensors of the main graph and set its
    /// initializers, both by name.
    pub has_training_info: bool,
    /// `ModelProto.ir_version`; 0 if it is missing.
    pub ir_version: u64,
    /// Version of the default operator set, `ai.onnx`; 0 if it is not imported, and so not used.
    pub opset: i64,
    /// Versions of the other operator sets, by domain.
    pub imports: HashMap<String, i64>,
    /// Access to the bytes of the weights.
    pub storage: Storage,
}

/// Reads the bytes of a model from a pipe.
pub fn read(mut input: impl Read) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

impl Model {
    /// Indexes a model. Its external data, if any, is found through `storage`.
    ///
    /// # Errors
    /// Returns an error if the bytes are not a `ModelProto` with one graph and an operator set.
    pub fn index(bytes: Bytes, storage: Storage) -> Result<Self, Invalid> {
        if bytes.is_empty() {
            return Err(Invalid::Empty);
        }
        let mut ir_version = 0;
        let mut opset = None;
        let mut imports = HashMap::new();
        let mut graph = None;
        let mut functions = Vec::new();
        let mut has_training_info = false;
        for field in wire::fields(&bytes, 0..bytes.len()) {
            let field = field?;
            match field.number {
                model_field::IR_VERSION => {
                    ir_version = wire::varint_value(bytes.get(field.payload).unwrap_or_default());
                }
                model_field::OPSET_IMPORT => {
                    let field = field.delimited()?;
                    let import: OperatorSetIdProto = decode(&bytes, &field, "operator set")?;
                    if is_default_domain(import.domain()) {
                        opset = Some(import.version());
                    } else {
                        imports.insert(import.domain().to_owned(), import.version());
                    }
                }
                model_field::GRAPH if graph.is_some() => {
                    field.delimited()?;
                    return Err(Invalid::ManyGraphs);
                }
                model_field::GRAPH => graph = Some(field.delimited()?),
                model_field::TRAINING_INFO => {
                    has_training_info |= !field.delimited()?.payload.is_empty();
                }
                model_field::FUNCTIONS => functions.push(field.delimited()?),
                _ => {}
            }
        }
        let graph = graph.ok_or(Invalid::NoGraph)?;
        let opset = match opset {
            Some(opset @ ..1) => return Err(Invalid::Opset(opset)),
            Some(opset) => opset,
            // A model with only foreign operators needs none; if it has others, reading the
            // graph fails.
            None if !imports.is_empty() => 0,
            None => return Err(Invalid::NoOpset),
        };
        let main = Arc::new(GraphFields::index(&bytes, &graph, &[])?);
        Ok(Model { bytes, main, functions, has_training_info, ir_version, opset, imports, storage })
    }

    /// The bytes of the whole file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the size in bytes of the file and of the side files that have been opened so far.
    pub fn bytes_with_side_files(&self) -> usize {
        self.bytes.len().saturating_add(self.storage.mapped())
    }

    /// Returns the bodies in the node at `node`, an entry of the graph with these `fields`.
    ///
    /// # Errors
    /// Returns an error if the bytes are not a protobuf message.
    pub fn bodies(
        &self,
        fields: &GraphFields,
        node: &Field,
    ) -> Result<Vec<GraphFields>, WireError> {
        let mut bodies = Vec::new();
        for attribute in wire::fields(&self.bytes, node.payload.clone()) {
            let attribute = attribute?;
            if attribute.number != node_field::ATTRIBUTE {
                continue;
            }
            let mut around = fields.containers.clone();
            around.extend([container(node), container(&attribute)]);
            for graph in wire::fields(&self.bytes, attribute.payload.clone()) {
                let graph = graph?;
                if matches!(graph.number, attribute_field::GRAPH | attribute_field::GRAPHS) {
                    bodies.push(GraphFields::index(&self.bytes, &graph, &around)?);
                }
            }
        }
        Ok(bodies)
    }

    /// Decodes one entry; `entry` names its kind in error messages.
    ///
    /// # Errors
    /// Returns an error if its content contradicts the schema.
    pub fn decode<M: Message + Default>(
        &self,
        field: &Field,
        entry: &'static str,
    ) -> Result<M, Invalid> {
        decode(&self.bytes, field, entry)
    }

    /// Decodes the message that fills `payload`.
    ///
    /// # Errors
    /// Same as [`Self::decode`].
    pub fn decode_range<M: Message + Default>(
        &self,
        payload: Range<usize>,
        entry: &'static str,
    ) -> Result<M, Invalid> {
        decode_range(&self.bytes, payload, entry)
    }

    /// Decodes as [`Self::decode`] does, into a `message` that may have capacity reserved.
    ///
    /// # Errors
    /// Same as [`Self::decode`].
    pub fn decode_into<M: Message>(
        &self,
        message: &mut M,
        field: &Field,
        entry: &'static str,
    ) -> Result<(), Invalid> {
        let at = field.payload.start;
        let merged = message.merge(self.bytes.slice(field.payload.clone()));
        merged.map_err(|error| Invalid::undecodable(entry, at, &error))
    }

    /// Returns the string in field `number` of the message that fills `payload`, without
    /// decoding the rest; empty if the field is missing. If it is repeated, the last one
    /// counts, as in protobuf.
    pub fn string_within(&self, payload: &Range<usize>, number: u32) -> Result<String, Invalid> {
        self.str_within(payload, number).map(str::to_owned)
    }

    /// Returns the same as [`Self::string_within`], borrowed from the file.
    pub fn str_within(&self, payload: &Range<usize>, number: u32) -> Result<&str, Invalid> {
        let mut text = payload.start..payload.start;
        for field in wire::fields(&self.bytes, payload.clone()) {
            let field = field?;
            if field.number == number {
                text = field.payload;
            }
        }
        self.str_at(text)
            .ok_or_else(|| WireError { at: payload.start, what: "a name is not UTF-8" }.into())
    }

    /// Returns the string that fills `payload`; `None` if the bytes are not UTF-8.
    pub fn str_at(&self, payload: Range<usize>) -> Option<&str> {
        std::str::from_utf8(self.bytes.get(payload)?).ok()
    }
}

/// Whether `domain` is that of the operators of the ONNX standard.
pub fn is_default_domain(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn decode<M: Message + Default>(
    bytes: &Bytes,
    field: &Field,
    entry: &'static str,
) -> Result<M, Invalid> {
    decode_range(bytes, field.payload.clone(), entry)
}

fn decode_range<M: Message + Default>(
    bytes: &Bytes,
    payload: Range<usize>,
    entry: &'static str,
) -> Result<M, Invalid> {
    let at = payload.start;
    M::decode(bytes.slice(payload)).map_err(|error| Invalid::undecodable(entry, at, &error))
}

/// Formats a cycle of nodes for one line of an error message.
fn around(circle: &[String]) -> String {
    const MOST: usize = 8;
    let named = circle.iter().take(MOST).map(|node| format!("`{node}`"));
    let named = named.collect::<Vec<_>>().join(", ");
    if circle.len() > MOST { format!("{named}, …") } else { named }
}

impl Invalid {
    fn undecodable(entry: &'static str, at: usize, error: &prost::DecodeError) -> Self {
        Invalid::Decode { entry, at, reason: innermost(&error.to_string()) }
    }
}

/// Returns the end of prost's reason, which lists every enclosing message first.
fn innermost(reason: &str) -> String {
    const MOST: usize = 120;
    match reason.char_indices().rev().nth(MOST) {
        None => reason.to_owned(),
        Some((begin, _)) => format!("…{}", reason.get(begin..).unwrap_or_default()),
    }
}
