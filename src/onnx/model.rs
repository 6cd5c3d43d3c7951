//! One model file: mapped, and indexed entry by entry.
//!
//! Opening a model reads tags and lengths only. Messages are decoded when
//! somebody asks, and weights then are views into the map.
//!
//! Knows where each entry lies; which names it holds is for `graph` to say.

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

/// The file is not a valid ONNX model: what is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// The bytes are not a protobuf message.
    #[error("this is not an ONNX file: {0}")]
    Wire(#[from] WireError),
    /// An entry's content contradicts the schema.
    #[error("the {entry} at byte {at} cannot be decoded: {reason}")]
    Decode {
        /// Kind of entry.
        entry: &'static str,
        /// Offset in the file.
        at: usize,
        /// prost's reason.
        reason: String,
    },
    /// A file without a byte.
    #[error("the file is empty")]
    Empty,
    /// There is no `graph` field.
    #[error("the file holds no graph; is it an ONNX model?")]
    NoGraph,
    /// There is more than one `graph` field.
    #[error("the file holds more than one graph")]
    ManyGraphs,
    /// No operator set of the default domain is imported.
    #[error("the model imports no operator set, so its operators have no meaning")]
    NoOpset,
    /// A version that no operator set has.
    #[error("the model imports version {0} of the ONNX operators; they begin with 1")]
    Opset(i64),
    /// The graph computes nothing.
    #[error("the graph has no outputs")]
    NoOutputs,
    /// Two things have one name.
    #[error("tensor `{0}` is defined twice")]
    DefinedTwice(String),
    /// A node reads something that nothing defines.
    #[error("{node} reads tensor `{tensor}`, which nothing defines")]
    Undefined {
        /// The reader.
        node: String,
        /// What it reads.
        tensor: String,
    },
    /// Nodes that cannot be sorted.
    #[error("nodes read each other in a circle: {}", around(.0))]
    Circle(Vec<String>),
    /// A node reads what a later one makes.
    #[error("{node} reads tensor `{tensor}`, which a later node makes: the nodes are not sorted")]
    Unsorted {
        /// The reader.
        node: String,
        /// What it reads.
        tensor: String,
    },
    /// A stored tensor is not what it says.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Functions that call each other in a circle.
    #[error("function `{0}` calls itself, or calls nest too deep")]
    RecursiveFunction(String),
    /// Functions that call others again and again.
    #[error("inlined, the calls of local functions have more nodes or bytes than are followed")]
    ManyCalls,
    /// An attribute that holds one graph is there with two.
    #[error("node `{0}` has two graphs in an attribute that holds one")]
    ManyBodies(String),
    /// A graph output that nothing computes.
    #[error("graph output `{0}` is computed by no node")]
    UndefinedOutput(String),
}

/// Where one graph lies: the model's own, or the body of an If, Loop or Scan.
#[derive(Debug, Clone)]
pub struct GraphFields {
    payload: Range<usize>,
    fields: Vec<Field>,
    /// The graph message and all messages around it, which edits may grow or shrink.
    pub containers: Vec<Container>,
}

impl GraphFields {
    /// Entries with field number `number` (see [`graph_field`]), in file order.
    pub fn fields(&self, number: u32) -> impl DoubleEndedIterator<Item = &Field> {
        self.fields.iter().filter(move |field| field.number == number)
    }

    /// The graph message itself.
    pub fn container(&self) -> Container {
        let none = Container { length: 0..0, payload: self.payload.clone() };
        self.containers.last().cloned().unwrap_or(none)
    }

    /// Where a new initializer goes: after those that are there, else first.
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
    /// Local functions.
    pub functions: Vec<Field>,
    /// Whether the file says how the model is trained: by graphs that read what the main one
    /// makes, and set its initializers, by their names.
    pub has_training_info: bool,
    /// `ModelProto.ir_version`; 0 if it is missing.
    pub ir_version: u64,
    /// Version of the default operator set, `ai.onnx`; 0 if no node is of it.
    pub opset: i64,
    /// Versions of the other operator sets, by domain.
    pub imports: HashMap<String, i64>,
    /// Where the weights' bytes lie.
    pub storage: Storage,
}

/// Reads a model from a pipe.
pub fn read(mut input: impl Read) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

impl Model {
    /// Indexes a model. Its external data, if any, is found through `storage`.
    ///
    /// # Errors
    /// If the bytes are not a `ModelProto` with one graph and an operator set.
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
            // Operators of others need none; where there is another, reading the graph fails.
            None if !imports.is_empty() => 0,
            None => return Err(Invalid::NoOpset),
        };
        let main = Arc::new(GraphFields::index(&bytes, &graph, &[])?);
        Ok(Model { bytes, main, functions, has_training_info, ir_version, opset, imports, storage })
    }

    /// The whole file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How large the file is, with the side files that were looked at so far.
    pub fn bytes_with_side_files(&self) -> usize {
        self.bytes.len().saturating_add(self.storage.mapped())
    }

    /// The bodies in the node that stands at `node` in the graph with these `fields`.
    ///
    /// # Errors
    /// If the bytes are no protobuf message.
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

    /// Decodes one entry; `entry` is its kind, for the error.
    ///
    /// # Errors
    /// If its content contradicts the schema.
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
    /// As [`Self::decode`].
    pub fn decode_range<M: Message + Default>(
        &self,
        payload: Range<usize>,
        entry: &'static str,
    ) -> Result<M, Invalid> {
        decode_range(&self.bytes, payload, entry)
    }

    /// As [`Self::decode`], into a message with room for what it holds.
    ///
    /// # Errors
    /// As [`Self::decode`].
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

    /// The string in field `number` of the message that fills `payload`, without
    /// decoding the rest; empty if there is none. The last one counts, as in protobuf.
    pub fn string_within(&self, payload: &Range<usize>, number: u32) -> Result<String, Invalid> {
        self.str_within(payload, number).map(str::to_owned)
    }

    /// As [`Self::string_within`], where it stands in the file.
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

    /// The string that fills `payload`; `None` if it is none.
    pub fn str_at(&self, payload: Range<usize>) -> Option<&str> {
        std::str::from_utf8(self.bytes.get(payload)?).ok()
    }
}

/// Whether `domain` names the operators of the ONNX standard itself.
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

/// A circle of nodes, as far as it is worth a line.
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

/// The end of prost's reason: it begins with every message around the place.
fn innermost(reason: &str) -> String {
    const MOST: usize = 120;
    match reason.char_indices().rev().nth(MOST) {
        None => reason.to_owned(),
        Some((begin, _)) => format!("…{}", reason.get(begin..).unwrap_or_default()),
    }
}
