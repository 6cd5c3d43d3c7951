//! Properties of every conversion, whatever the model: a table of them by name. The files are
//! read by another protobuf implementation, which keeps unknown fields.
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::schema::graph_field;
use acb_fuse::onnx::storage::Storage;
use acb_fuse::report::Report;
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

use crate::support::counts;
use crate::support::tool::{converts, options};

/// A model before and after its conversion, in a folder of its own.
pub struct Converted {
    pub report: Report,
    /// Shapes of its inputs, where they are known.
    shapes: Vec<Vec<usize>>,
    source: PathBuf,
    folder: tempfile::TempDir,
    old: ModelProto,
    new: ModelProto,
}

const NAME: &str = "model.onnx";

/// Folders of the conversion, of the same once more, and of the conversion of its result.
const ONCE: &str = "once";
const AGAIN: &str = "again";
const TWICE: &str = "twice";

type Answer = Result<(), String>;

/// The name of a property, and the check that it holds.
type Property = (&'static str, fn(&Converted) -> Answer);

pub const IDEMPOTENT: &str = "idempotent";

pub const PROPERTIES: [Property; 15] = [
    ("verification refuses nothing", refuses_nothing),
    ("nothing to change is byte-identical", unchanged_is_identical),
    (IDEMPOTENT, idempotent),
    ("deterministic, verified or not", deterministic),
    ("outputs keep names, types, shapes and order", outputs_kept),
    ("inputs that must be given keep names, types, shapes and order", inputs_kept),
    ("what is not rewritten keeps its bytes and order", bytes_kept),
    ("all around the graph stays", surroundings_kept),
    ("topologically sorted, no name dangles or is made twice", well_formed),
    ("nodes never grow", nodes_never_grow),
    ("parameters never grow", parameters_never_grow),
    ("multiply-adds never grow", multiply_adds_never_grow),
    ("the report counts the nodes", report_counts),
    ("no form comes that engines lack", no_rare_form_comes),
    ("docs/pipelines.md tells the operators that are written", written_is_told),
];

impl Converted {
    /// Converts the model at `path`.
    ///
    /// # Errors
    /// Returns an error if the conversion fails.
    pub fn of(path: &Path, shapes: Vec<Vec<usize>>) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        // The name of a side file follows from the model's name, which is the same in each folder.
        for run in [ONCE, AGAIN, TWICE] {
            fs::create_dir(folder.path().join(run)).unwrap();
        }
        let converted = folder.path().join(ONCE).join(NAME);
        let report = convert_to(path, &converted, true)?;
        let read = |path: &Path| ModelProto::parse_from_bytes(&fs::read(path).unwrap()).unwrap();
        let (old, new) = (read(path), read(&converted));
        Ok(Converted { report, shapes, source: path.to_owned(), folder, old, new })
    }

    /// Returns the properties that do not hold, and why.
    pub fn failing(&self) -> Vec<(&'static str, String)> {
        let failed = |(name, property): &Property| Some((*name, property(self).err()?));
        PROPERTIES.iter().filter_map(failed).collect()
    }

    fn converted(&self, run: &str) -> PathBuf {
        self.folder.path().join(run).join(NAME)
    }

    pub fn new_bytes(&self) -> Vec<u8> {
        fs::read(self.converted(ONCE)).unwrap()
    }

    fn old_bytes(&self) -> Vec<u8> {
        fs::read(&self.source).unwrap()
    }

    /// Returns the names and contents of all files that a run left.
    fn files(&self, run: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.folder.path().join(run)).unwrap();
        let file = |entry: fs::DirEntry| {
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        };
        entries.map(|entry| file(entry.unwrap())).collect()
    }

    fn changes_nothing(&self) -> bool {
        self.report.blocks.is_empty() && self.report.notes.inferred_nodes == 0
    }

    /// Returns whether the old model has functions, whose calls may be inlined.
    fn has_functions(&self) -> bool {
        !self.old.functions.is_empty()
    }
}

fn convert_to(from: &Path, to: &Path, verify: bool) -> Result<Report, String> {
    let options = options(|options| options.verify = verify);
    converts(from, to, &options).map_err(|error| error.to_string())
}

fn holds(condition: bool, why: impl FnOnce() -> String) -> Answer {
    if condition { Ok(()) } else { Err(why()) }
}

/// The conversion did not fail, but may have left a block alone.
fn refuses_nothing(c: &Converted) -> Answer {
    let miss = c.report.near_misses.iter().find(|miss| miss.kind == "unproved");
    holds(miss.is_none(), || format!("{miss:?}"))
}

fn unchanged_is_identical(c: &Converted) -> Answer {
    let identical = c.old_bytes() == c.new_bytes();
    holds(identical == c.changes_nothing(), || format!("identical: {identical}"))
}

fn idempotent(c: &Converted) -> Answer {
    let report = convert_to(&c.converted(ONCE), &c.converted(TWICE), true)?;
    holds(c.files(TWICE) == c.files(ONCE), || report.to_string())
}

fn deterministic(c: &Converted) -> Answer {
    convert_to(&c.source, &c.converted(AGAIN), false)?;
    holds(c.files(AGAIN) == c.files(ONCE), || "other bytes".into())
}

fn outputs_kept(c: &Converted) -> Answer {
    let (old, new) = (&c.old.graph.output, &c.new.graph.output);
    holds(old == new, || format!("{old:?} became {new:?}"))
}

/// Checks the inputs without a default.
fn inputs_kept(c: &Converted) -> Answer {
    let given = |model: &ModelProto| -> Vec<ValueInfoProto> {
        let defaults: HashSet<&str> = stored(&model.graph).collect();
        let inputs = model.graph.input.iter();
        inputs.filter(|input| !defaults.contains(input.name.as_str())).cloned().collect()
    };
    let (old, new) = (given(&c.old), given(&c.new));
    holds(old == new, || format!("{old:?} became {new:?}"))
}

/// Every entry stood in the old file, byte for byte and in that order, unless it is new, belongs
/// to an inlined call, holds a rewritten body, or was in training mode.
fn bytes_kept(c: &Converted) -> Answer {
    let index = |bytes: Vec<u8>| Model::index(bytes.into(), Storage::default()).unwrap();
    let (old, new) = (index(c.old_bytes()), index(c.new_bytes()));
    let may_be_new = |entry: &[u8]| {
        let node = NodeProto::parse_from_bytes(&entry[payload_at(entry)..]).unwrap_or_default();
        let trained = ["BatchNormalization", "Dropout"].contains(&node.op_type.as_str());
        let around = ["If", "Loop", "Scan"].contains(&node.op_type.as_str());
        // Names stand in the first bytes of an entry, or behind the weights of a tensor.
        let text = String::from_utf8_lossy(entry);
        let named = text.contains(".fused") || text.contains(".inlined");
        around || (trained && c.report.notes.inferred_nodes > 0) || named
    };
    for number in [
        graph_field::NODE,
        graph_field::INITIALIZER,
        graph_field::SPARSE_INITIALIZER,
        graph_field::INPUT,
        graph_field::OUTPUT,
        graph_field::VALUE_INFO,
    ] {
        let mut before = entries(&old, number).into_iter().map(bare);
        for entry in entries(&new, number).into_iter().map(bare) {
            match before.clone().position(|old| old == entry) {
                Some(skipped) => drop(before.nth(skipped)),
                None if may_be_new(&entry) => {}
                None => return Err(String::from_utf8_lossy(&entry).into_owned()),
            }
        }
    }
    Ok(())
}

/// Returns the bytes of all entries of one kind, in the main graph and in bodies.
fn entries(model: &Model, number: u32) -> Vec<&[u8]> {
    let graphs = Graph::read_all(model).unwrap();
    let fields: Vec<_> = graphs
        .iter()
        .flat_map(|graph| graph.fields.fields(number))
        .map(|field| field.entry())
        .collect();
    fields.into_iter().map(|entry| &model.bytes()[entry]).collect()
}

/// Returns where the message in an entry begins: behind the tag and the length.
fn payload_at(entry: &[u8]) -> usize {
    2 + entry[1..].iter().take_while(|&&byte| byte >= 0x80).count()
}

/// Returns an entry without the place of its data in a side file: the new model has its own.
fn bare(entry: &[u8]) -> Vec<u8> {
    let at = payload_at(entry);
    match TensorProto::parse_from_bytes(&entry[at..]) {
        Ok(mut tensor) if !tensor.external_data.is_empty() => {
            tensor.external_data.clear();
            [&entry[..1], &tensor.write_to_bytes().unwrap()].concat()
        }
        _ => entry.to_vec(),
    }
}

/// Checks versions, metadata, docs and unknown fields, and all of the graph but what it computes
/// with.
fn surroundings_kept(c: &Converted) -> Answer {
    let around = |model: &ModelProto| {
        let mut model = model.clone();
        model.functions.clear();
        let graph = model.graph.as_mut().unwrap();
        graph.node.clear();
        graph.initializer.clear();
        graph.sparse_initializer.clear();
        graph.input.clear();
        graph.value_info.clear();
        graph.quantization_annotation.clear();
        model
    };
    let (old, mut new) = (around(&c.old), around(&c.new));
    // Functions import foreign domains for themselves; inlined, their nodes need an import.
    let of_function =
        |import: &str| c.old.functions.iter().any(|function| function.domain == import);
    let is_known = |domain: &str| old.opset_import.iter().any(|import| import.domain == domain);
    let stays = |domain: &str| is_known(domain) || !of_function(domain);
    new.opset_import.retain(|import| stays(&import.domain));
    holds(old == new, || format!("{old:?} became {new:?}"))?;
    let functions = c.has_functions() || c.new.functions.is_empty();
    holds(functions, || "there are functions now".into())
}

fn well_formed(c: &Converted) -> Answer {
    let mut names = HashSet::new();
    well_formed_graph(&c.new.graph, &mut names)
}

/// Checks that every name is made once, and before it is read, in this graph or around it.
fn well_formed_graph(graph: &GraphProto, around: &mut HashSet<String>) -> Answer {
    let mut known = around.clone();
    let mut made = HashSet::new();
    let mut make = |name: &str, known: &mut HashSet<String>| {
        known.insert(name.to_owned());
        holds(made.insert(name.to_owned()), || format!("`{name}` is made twice"))
    };
    let defaults: HashSet<&str> = stored(graph).collect();
    for name in stored(graph) {
        make(name, &mut known)?;
    }
    let inputs = graph.input.iter().map(|input| input.name.as_str());
    for name in inputs.filter(|name| !defaults.contains(name)) {
        make(name, &mut known)?;
    }
    for node in &graph.node {
        if let Some(name) =
            node.input.iter().find(|name| !name.is_empty() && !known.contains(*name))
        {
            return Err(format!("`{name}` is read by `{}` before it is made", node.name));
        }
        for body in node.attribute.iter().flat_map(bodies) {
            well_formed_graph(body, &mut known)?;
        }
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            make(name, &mut known)?;
        }
    }
    let dangles = graph.output.iter().find(|output| !known.contains(&output.name));
    holds(dangles.is_none(), || format!("output {dangles:?} is not made"))
}

/// Returns the names of initializers, sparse ones included.
fn stored(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let sparse = graph.sparse_initializer.iter().map(|sparse| sparse.values.name.as_str());
    graph.initializer.iter().map(|tensor| tensor.name.as_str()).chain(sparse)
}

fn bodies(attribute: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    attribute.g.iter().chain(&attribute.graphs)
}

/// Returns the number of nodes, those in bodies included.
fn count(graph: &GraphProto) -> usize {
    let inside = graph.node.iter().flat_map(|node| &node.attribute).flat_map(bodies).map(count);
    graph.node.len() + inside.sum::<usize>()
}

/// Functions are exempt: a call is one node and stands for those of its function.
fn nodes_never_grow(c: &Converted) -> Answer {
    let (old, new) = (count(&c.old.graph), count(&c.new.graph));
    holds(new <= old || c.has_functions(), || format!("{old} became {new}"))
}

/// Forms that many engines refuse or read wrongly (`docs/pipelines.md`) are written only where the
/// file has them.
fn no_rare_form_comes(c: &Converted) -> Answer {
    let old = c.old.functions.iter().map(|function| rare_forms(&function.node));
    let old: BTreeSet<&str> = old.chain([rare_forms(&c.old.graph.node)]).flatten().collect();
    let new = rare_forms(&c.new.graph.node);
    holds(new.is_subset(&old), || format!("{old:?} became {new:?}"))
}

fn written_is_told(c: &Converted) -> Answer {
    let document = fs::read_to_string("docs/pipelines.md").unwrap();
    let (forms, _) = document.split_once("## What engines read").unwrap();
    let mut written = c.new.graph.node.iter().filter(|node| node.name.contains(".fused"));
    let untold = written.find(|node| !forms.contains(&format!("`{}`", node.op_type)));
    holds(untold.is_none(), || format!("{untold:?}"))
}

fn rare_forms(nodes: &[NodeProto]) -> BTreeSet<&'static str> {
    let inside = nodes.iter().flat_map(|node| &node.attribute).flat_map(bodies);
    let inside = inside.flat_map(|body| rare_forms(&body.node));
    nodes.iter().filter_map(rare_form).chain(inside).collect()
}

fn rare_form(node: &NodeProto) -> Option<&'static str> {
    let attribute = |name| node.attribute.iter().find(|attribute| attribute.name == name);
    match node.op_type.as_str() {
        "Pad" => (attribute("mode")?.s == b"wrap").then_some("a Pad that wraps"),
        "ConvTranspose" => {
            let pads = &attribute("pads")?.ints;
            let (before, behind) = pads.split_at(pads.len() / 2);
            (before != behind).then_some("a ConvTranspose with uneven pads")
        }
        _ => None,
    }
}

fn report_counts(c: &Converted) -> Answer {
    let new = count(&c.new.graph);
    holds(c.report.sizes.after.nodes == Some(new) || c.has_functions(), || {
        format!("the report says {:?}, there are {new}", c.report.sizes.after.nodes)
    })
}

/// Returns how many numbers floating-point tensors have, wherever these are stored.
fn parameters(graph: &GraphProto) -> i64 {
    const FLOATS: [i32; 4] = [1, 10, 11, 16];
    let elements = |tensor: &TensorProto| {
        if FLOATS.contains(&tensor.data_type) { tensor.dims.iter().product() } else { 0 }
    };
    let attributes = || graph.node.iter().flat_map(|node| &node.attribute);
    let here: i64 = graph.initializer.iter().map(elements).sum();
    let sparse: i64 = graph.sparse_initializer.iter().map(|s| s.dims.iter().product::<i64>()).sum();
    let constants: i64 =
        attributes().flat_map(|a| a.t.iter().chain(&a.tensors)).map(elements).sum();
    here + sparse + constants + attributes().flat_map(bodies).map(parameters).sum::<i64>()
}

/// Exempt are functions, whose weights are stored once however often they are called, and a number
/// that is added to a whole tensor: it is a parameter of each of its channels.
fn parameters_never_grow(c: &Converted) -> Answer {
    let (old, new) = (parameters(&c.old.graph), parameters(&c.new.graph));
    let spread = || counts::spread_shifts(&c.source, &c.shapes);
    holds(new <= old || c.has_functions() || new <= old + spread(), || {
        format!("{old} became {new}")
    })
}

/// The share by which the result may cost more on a small feature map: the plan compares borders
/// to the first order of the map's size, and both sides may cost the same by that.
const SECOND_ORDER: f64 = 1e-3;

/// Checked if tract infers the shapes of both models (it infers none behind norms in training
/// mode), and nothing is hidden in functions.
fn multiply_adds_never_grow(c: &Converted) -> Answer {
    if c.has_functions() || c.report.notes.inferred_nodes > 0 {
        return Ok(());
    }
    let count = |path: &Path| counts::multiply_adds(path, &c.shapes);
    match (count(&c.source), count(&c.converted(ONCE))) {
        (Some(old), Some(new)) => {
            holds(new <= old * (1.0 + SECOND_ORDER), || format!("{old} became {new}"))
        }
        _ => Ok(()),
    }
}
