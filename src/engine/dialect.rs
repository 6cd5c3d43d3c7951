//! Models in words that tract knows: what it refuses or panics on, written otherwise.

use prost::Message;
use prost::bytes::Bytes;

use crate::onnx::edit;
use crate::onnx::float::Float;
use crate::onnx::graph::{Graph, Initializer};
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::inline::inline;
use crate::onnx::model::{Invalid, Model, is_default_domain};
use crate::onnx::node::Node;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::onnx::schema::graph_field;
use crate::onnx::splice::{self, Edit};
use crate::onnx::tensor;
use crate::onnx::training::{self, NodeMode};
use crate::onnx::write;

/// The model without dead nodes, with local functions inlined, and with every node, those
/// of bodies included, as [`node`] has it. A norm or dropout keeps its mode.
///
/// # Errors
/// If an entry cannot be decoded.
pub fn model(model: &Model) -> Result<Bytes, Invalid> {
    let inlined = inlined(model)?;
    let model = inlined.as_ref().unwrap_or(model);
    let graphs = Graph::read_all(model)?;
    let edits = graphs.iter().flat_map(|graph| edits(&graphs, graph));
    Ok(edit::edited(model, &graphs, edits.collect()))
}

/// The model with local functions inlined; `None` if it calls none.
///
/// # Errors
/// If an entry cannot be decoded.
pub fn inlined(model: &Model) -> Result<Option<Model>, Invalid> {
    let bytes = inline(model, &|_| true)?;
    bytes.map(|bytes| Model::index(bytes, model.storage.clone())).transpose()
}

/// What [`model`] has in the place of one node of `graph`, which is the main one of
/// `graphs`.
///
/// # Errors
/// If it cannot be decoded.
pub fn nodes(graphs: &[Graph], graph: &Graph, id: NodeId) -> Result<Vec<NodeProto>, Invalid> {
    let node = graph.node(id);
    if !node.has_bodies() {
        return Ok(forms(graphs, graph, node));
    }
    let payload = &node.field.payload;
    let is_inside = |inner: &&Graph| {
        let inner = inner.scope.container().payload;
        payload.start < inner.start && inner.end <= payload.end
    };
    let inner: Vec<&Graph> = graphs.iter().filter(is_inside).collect();
    let edits: Vec<Edit> = inner.iter().flat_map(|inner| edits(graphs, inner)).collect();
    if edits.is_empty() {
        return Ok(vec![node.proto.clone()]);
    }
    let bytes = edit::edited_message(graph.model, payload, &inner, edits);
    let node = NodeProto::decode(bytes).map_err(|error| Invalid::Decode {
        entry: "node",
        at: payload.start,
        reason: error.to_string(),
    })?;
    Ok(vec![node])
}

/// Makes the nodes of one graph what the engine knows, but for those with bodies, whose
/// nodes are those of other graphs.
fn edits(graphs: &[Graph], graph: &Graph) -> Vec<Edit> {
    let mut edits = Vec::new();
    for (id, node) in graph.nodes() {
        // A dead node may read what a norm at inference does not make.
        if !graph.is_live(id) {
            edits.push(Edit::remove(node.field.entry.clone()));
            continue;
        }
        if node.has_bodies() {
            continue;
        }
        let nodes = forms(graphs, graph, node);
        if nodes != [node.proto.clone()] {
            let entries = nodes.iter().map(|node| splice::entry(graph_field::NODE, node));
            let with: Vec<u8> = entries.flatten().collect();
            edits.push(Edit::replace(node.field.entry.clone(), with.into()));
        }
    }
    edits
}

/// A node without bodies as [`node`] has it, and without the outputs and mode that nothing
/// needs at inference.
fn forms(graphs: &[Graph], graph: &Graph, old: &Node) -> Vec<NodeProto> {
    if old.standard_op().is_none() {
        return vec![old.proto.clone()];
    }
    let (opset, mut proto) = (graph.model.opset, old.proto.clone());
    let lookup = |name: &str| integers(graphs, graph, name);
    let is_used = |id: &ValueId| {
        let value = graph.value(*id);
        value.is_output || !value.readers.is_empty()
    };
    let yields_more = old.outputs.iter().skip(1).flatten().any(is_used);
    if !yields_more && evaluates(&proto, opset, &lookup) {
        match proto.op_type() {
            "BatchNormalization" => {
                proto.output.truncate(1);
                proto.attribute.retain(|attribute| attribute.name() != "training_mode");
            }
            "Dropout" => {
                proto.op_type = Some("Identity".into());
                proto.output.truncate(1);
                proto.input.truncate(1);
                proto.attribute.clear();
            }
            _ => {}
        }
    }
    node(proto, opset, &lookup)
}

/// Whether `node` is known to be at inference, or has no mode. `integers` looks constants up.
pub fn evaluates(
    node: &NodeProto,
    opset: i64,
    integers: &dyn Fn(&str) -> Option<Vec<i64>>,
) -> bool {
    match training::mode(node, opset) {
        NodeMode::Evaluates => true,
        NodeMode::Trains => false,
        NodeMode::GivenBy(name) => integers(name).as_deref() == Some(&[0]),
    }
}

/// What tract would read wrongly, decided from the file.
pub fn misread(graph: &Graph) -> Option<String> {
    graph.nodes().filter(|&(id, _)| graph.is_live(id)).find_map(|(_, node)| {
        let why = match node.proto.domain() {
            domain if !is_default_domain(domain) => {
                format!("is of domain `{domain}`, which tract ignores")
            }
            _ if node.aligns_by_axis() => {
                "broadcasts as before operator set 7, which tract ignores".to_owned()
            }
            _ => return None,
        };
        Some(format!("node `{}` {why}", node.label()))
    })
}

/// The integers that are stored as `name`, or that a Constant node of that name holds, in
/// `graph` or around it.
fn integers(graphs: &[Graph], graph: &Graph, name: &str) -> Option<Vec<i64>> {
    let id = graph.find(name)?;
    if let (Some(_), Some((outer, _))) = (graph.value(id).outer, graph.outer) {
        return integers(graphs, graphs.get(outer)?, name)
            .filter(|_| !graph.value(id).is_ambiguous);
    }
    match graph.initializer(id).ok()? {
        Some(Initializer::Dense(stored)) => {
            return tensor::integers(&stored, &graph.model.storage).ok();
        }
        Some(Initializer::Sparse(_)) => return None,
        None => {}
    }
    let constant = graph.node(graph.value(id).producer?);
    match (constant.attribute("value"), constant.ints("value_ints")) {
        (Some(value), _) => tensor::integers(value.t.as_ref()?, &graph.model.storage).ok(),
        (None, Some(values)) => Some(values.to_vec()),
        (None, None) => None,
    }
}

/// `node` without empty names at the end of its inputs (tract panics), a bias in a Gemm
/// (it has one in float32 only), negative pads (it panics), circular padding (it has
/// none), without a value to pad with where none is used (it takes the wrong mode), and
/// without pads beside `auto_pad` (it takes these), with the zeros of a ConstantOfShape in
/// float32 (it has them in float64), and without training mode (it never
/// reads that): norms are written out, dropouts are of an operator that it does not know.
/// `integers` looks constants up.
pub fn node(
    mut node: NodeProto,
    opset: i64,
    integers: &dyn Fn(&str) -> Option<Vec<i64>>,
) -> Vec<NodeProto> {
    while node.input.last().is_some_and(String::is_empty) {
        node.input.pop();
    }
    let pads_itself = |attribute: &AttributeProto| {
        attribute.name() == "auto_pad" && !matches!(attribute.s(), b"" | b"NOTSET")
    };
    if node.attribute.iter().any(pads_itself) {
        node.attribute.retain(|attribute| attribute.name() != "pads");
    }
    match node.op_type() {
        "Pad" => pad(node, opset, integers),
        "Gemm" => gemm(node, opset),
        "ConstantOfShape" if node.attribute.is_empty() => {
            let zero = ndarray::ArrayD::zeros(vec![1]);
            let zero = tensor::from_floats("", &zero, Float::F32);
            node.attribute.push(write::tensor("value", zero));
            vec![node]
        }
        "BatchNormalization" if training::mode(&node, opset) == NodeMode::Trains => {
            norm_by_batch(node, opset)
        }
        // Of an operator that it does not know, tract says so where it matters.
        "Dropout" if training::mode(&node, opset) == NodeMode::Trains => {
            node.op_type = Some("Dropout in training mode".into());
            vec![node]
        }
        _ => vec![node],
    }
}

/// A batch norm in training mode, which tract takes for one at inference, with the
/// statistics of its own batch: over all axes but the channels', for every rank at once,
///
/// ```text
/// μ = mean(x),  v = mean((x − μ)²),  y = (x − μ)/sqrt(v + ε)·γ + β
/// ```
///
/// and the running statistics `r·m + μ·(1 − m)`, `r·m + v·(1 − m)` with momentum m. All in
/// float64. What else a norm gave before operator set 14 no standard defines, and nothing
/// makes it here.
fn norm_by_batch(norm: NodeProto, opset: i64) -> Vec<NodeProto> {
    let number = |name: &str, default: f32| {
        let attribute = norm.attribute.iter().find(|attribute| attribute.name() == name);
        attribute.map_or(default, AttributeProto::f)
    };
    let per_position = norm.attribute.iter().find(|attribute| attribute.name() == "spatial");
    if norm.input.len() != 5 || per_position.is_some_and(|spatial| spatial.i() == 0) {
        let op_type = Some("BatchNormalization in training mode".into());
        return vec![NodeProto { op_type, ..norm }];
    }
    let output = norm.output.first().map_or("", String::as_str);
    let mut steps = NormSteps { prefix: format!("{output}.batch"), opset, nodes: Vec::new() };
    let [x, scale, bias, mean, variance] =
        [0, 1, 2, 3, 4].map(|index| norm.input.get(index).map_or("", String::as_str));
    let wide = steps.wide(x);
    // [N, C, the rest], whatever the rest is.
    let shape = steps.integers(&[0, 0, -1]);
    let flat = steps.step("Reshape", &[&wide, &shape]);
    let batch_mean = steps.mean(&flat);
    let centred = steps.step("Sub", &[&flat, &batch_mean]);
    let squares = steps.step("Mul", &[&centred, &centred]);
    let batch_variance = steps.mean(&squares);
    let epsilon = steps.float(number("epsilon", 1e-5).into());
    let sum = steps.step("Add", &[&batch_variance, &epsilon]);
    let deviation = steps.step("Sqrt", &[&sum]);
    let column = steps.integers(&[-1, 1]);
    let [scale, bias] = [scale, bias].map(|vector| {
        let wide = steps.wide(vector);
        steps.step("Reshape", &[&wide, &column])
    });
    // With its axes in reverse, x meets [C, 1] in its channels, whatever its rank.
    let mut value = steps.step("Transpose", &[&wide]);
    for (op, column) in [("Sub", &batch_mean), ("Div", &deviation), ("Mul", &scale), ("Add", &bias)]
    {
        value = steps.step(op, &[&value, column]);
    }
    let value = steps.step("Transpose", &[&value]);
    steps.nodes.push(write::node("CastLike", "", &[&value, x], output, Vec::new()));
    let momentum = f64::from(number("momentum", 0.9));
    let running = [(1, mean, &batch_mean), (2, variance, &batch_variance)];
    for (index, old, new) in running {
        let Some(name) = norm.output.get(index).filter(|name| !name.is_empty()) else { continue };
        let row = steps.integers(&[-1]);
        let new = steps.step("Reshape", &[new, &row]);
        let (wide, kept, taken) =
            (steps.wide(old), steps.float(momentum), steps.float(1.0 - momentum));
        let (kept, taken) =
            (steps.step("Mul", &[&wide, &kept]), steps.step("Mul", &[&new, &taken]));
        let sum = steps.step("Add", &[&kept, &taken]);
        steps.nodes.push(write::node("CastLike", "", &[&sum, old], name, Vec::new()));
    }
    steps.nodes
}

/// Nodes that are appended one by one, each with a name of its own.
struct NormSteps {
    prefix: String,
    opset: i64,
    nodes: Vec<NodeProto>,
}

impl NormSteps {
    fn name(&self) -> String {
        format!("{}.{}", self.prefix, self.nodes.len())
    }

    fn push(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let name = self.name();
        self.nodes.push(write::node(op, "", inputs, &name, attributes));
        name
    }

    fn step(&mut self, op: &str, inputs: &[&str]) -> String {
        self.push(op, inputs, Vec::new())
    }

    /// In float64.
    fn wide(&mut self, input: &str) -> String {
        let to = write::int("to", i64::from(i32::from(DataType::Double)));
        self.push("Cast", &[input], vec![to])
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let name = self.name();
        self.nodes.push(constant(name.clone(), values.to_vec()));
        name
    }

    fn float(&mut self, value: f64) -> String {
        let number = tensor::from_floats("", &ndarray::arr0(value).into_dyn(), Float::F64);
        self.push("Constant", &[], vec![write::tensor("value", number)])
    }

    /// `[C, 1]`, the means of `[N, C, L]`.
    fn mean(&mut self, of: &str) -> String {
        let rows = self.mean_along(of, 2, 1);
        self.mean_along(&rows, 0, 0)
    }

    fn mean_along(&mut self, of: &str, axis: i64, keepdims: i64) -> String {
        let mut attributes = vec![write::int("keepdims", keepdims)];
        // ReduceMean's axes are an input since operator set 18.
        if self.opset < 18 {
            attributes.push(write::ints("axes", vec![axis]));
            return self.push("ReduceMean", &[of], attributes);
        }
        let axes = self.integers(&[axis]);
        self.push("ReduceMean", &[of, &axes], attributes)
    }
}

/// `Gemm`, and its bias as an `Add`.
fn gemm(mut node: NodeProto, opset: i64) -> Vec<NodeProto> {
    let beta = node.attribute.iter().find(|attribute| attribute.name() == "beta");
    let is_scaled = beta.is_some_and(|beta| beta.f() != 1.0);
    let output = node.output.first().cloned().unwrap_or_default();
    // Before operator set 7 it is said elsewhere how the bias is broadcast.
    if node.input.len() != 3 || is_scaled || opset < 7 {
        return vec![node];
    }
    let (product, bias) = (format!("{output}.product"), node.input.remove(2));
    node.output = vec![product.clone()];
    vec![node, write::node("Add", "", &[&product, &bias], &output, Vec::new())]
}

fn pad(
    mut node: NodeProto,
    opset: i64,
    integers: &dyn Fn(&str) -> Option<Vec<i64>>,
) -> Vec<NodeProto> {
    let mode = node.attribute.iter().find(|attribute| attribute.name() == "mode");
    let mode = mode.map_or(Vec::new(), |mode| mode.s().to_vec());
    if !matches!(&mode[..], b"" | b"constant") {
        match node.input.len() {
            3 => node.input.truncate(2),
            _ => node.input.iter_mut().skip(2).take(1).for_each(String::clear),
        }
    }
    let list = |index: usize, name: &str| {
        let attribute = node.attribute.iter().find(|attribute| attribute.name() == name);
        let given = || integers(node.input.get(index)?);
        attribute.map(|attribute| attribute.ints.clone()).or_else(given)
    };
    let Some(pads) = list(1, "pads") else {
        // Of an operator that it does not know, tract says so where it matters.
        if mode == b"wrap" {
            node.op_type = Some("Pad (wrap)".into());
        }
        return vec![node];
    };
    let axes = list(3, "axes").unwrap_or_else(|| (0..pads.len() as i64 / 2).collect());
    let (begins, ends) = pads.split_at(pads.len() / 2);
    let sides = begins.iter().copied().zip(ends.iter().copied());
    let frame: Vec<(i64, (i64, i64))> = axes.into_iter().zip(sides).collect();
    let wraps = mode == b"wrap";
    if !wraps && pads.iter().all(|&pad| pad >= 0) {
        return vec![node];
    }
    // First what is added, then what is cut.
    let output = node.output.first().cloned().unwrap_or_default();
    let padded = format!("{output}.padded");
    let mut nodes = match wraps {
        true => wrapped(opset, node.input.first().map_or("", String::as_str), &padded, &frame),
        false => padded_by(node, &output, &padded, &pads),
    };
    let cuts = frame.iter().filter(|(_, (begin, end))| *begin < 0 || *end < 0);
    let cuts = cuts.map(|&(axis, (begin, end))| {
        (axis, begin.saturating_neg().max(0), if end < 0 { end } else { i64::MAX })
    });
    let cuts: Vec<(i64, i64, i64)> = cuts.collect();
    nodes.extend(match cuts.is_empty() {
        true => vec![identity(&padded, &output)],
        false => slice(opset, &padded, &output, &cuts),
    });
    nodes
}

/// `Pad` without its negative pads.
fn padded_by(mut pad: NodeProto, name: &str, padded: &str, pads: &[i64]) -> Vec<NodeProto> {
    let positive: Vec<i64> = pads.iter().map(|&pad| pad.max(0)).collect();
    pad.output = vec![padded.to_owned()];
    if let Some(attribute) = pad.attribute.iter_mut().find(|attribute| attribute.name() == "pads") {
        attribute.ints = positive;
        return vec![pad];
    }
    let name = format!("{name}.pads");
    pad.input.iter_mut().skip(1).take(1).for_each(|input| input.clone_from(&name));
    vec![constant(name, positive), pad]
}

/// Circular padding as `Slice` and `Concat`.
fn wrapped(opset: i64, input: &str, output: &str, frame: &[(i64, (i64, i64))]) -> Vec<NodeProto> {
    let mut input = input.to_owned();
    let mut nodes = Vec::new();
    for &(axis, (begin, end)) in frame.iter().filter(|(_, (begin, end))| *begin > 0 || *end > 0) {
        let (last, first) = (format!("{output}.{axis}.last"), format!("{output}.{axis}.first"));
        let padded = format!("{output}.{axis}");
        let mut parts = vec![input.clone()];
        if begin > 0 {
            nodes.extend(slice(opset, &input, &last, &[(axis, begin.saturating_neg(), i64::MAX)]));
            parts.insert(0, last);
        }
        if end > 0 {
            nodes.extend(slice(opset, &input, &first, &[(axis, 0, end)]));
            parts.push(first);
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        nodes.push(write::node("Concat", "", &parts, &padded, vec![write::int("axis", axis)]));
        input = padded;
    }
    nodes.push(identity(&input, output));
    nodes
}

fn identity(input: &str, output: &str) -> NodeProto {
    write::node("Identity", "", &[input], output, Vec::new())
}

/// `Slice` of `input`, by (axis, start, end).
fn slice(opset: i64, input: &str, output: &str, cuts: &[(i64, i64, i64)]) -> Vec<NodeProto> {
    let lists = [
        ("starts", cuts.iter().map(|cut| cut.1).collect::<Vec<_>>()),
        ("ends", cuts.iter().map(|cut| cut.2).collect()),
        ("axes", cuts.iter().map(|cut| cut.0).collect()),
    ];
    let mut slice = write::node("Slice", "", &[input], output, Vec::new());
    let mut nodes = Vec::new();
    for (list, values) in lists {
        // Attributes before opset 10, inputs since.
        if opset < 10 {
            slice.attribute.push(write::ints(list, values));
        } else {
            let name = format!("{output}.{list}");
            slice.input.push(name.clone());
            nodes.push(constant(name, values));
        }
    }
    nodes.push(slice);
    nodes
}

fn constant(name: String, values: Vec<i64>) -> NodeProto {
    let value = write::tensor("value", tensor::from_integers(&name, &values));
    write::node("Constant", "", &[], &name, vec![value])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::AttributeProto;

    fn pad(mode: &'static str, pads: &[i64]) -> Vec<String> {
        let attributes = vec![write::string("mode", mode), write::ints("pads", pads.to_vec())];
        let pad = write::node("Pad", "", &["x"], "y", attributes);
        let nodes = node(pad, 10, &|_| None).into_iter();
        nodes.map(|node| node.op_type().to_owned()).filter(|op| op != "Constant").collect()
    }

    /// Whether the bias of a Gemm becomes an Add; only if that is the same.
    #[test]
    fn gemms_lose_their_bias() {
        let cases: [(&[&str], f32, i64, usize); 4] = [
            (&["x", "w", "b"], 1.0, 7, 2),
            (&["x", "w", "b"], 0.5, 7, 1),
            (&["x", "w", "b"], 1.0, 6, 1),
            (&["x", "w"], 1.0, 11, 1),
        ];
        for (inputs, beta, opset, expected) in cases {
            let beta = AttributeProto { f: Some(beta), ..write::int("beta", 0) };
            let gemm = write::node("Gemm", "", inputs, "y", vec![beta]);
            let nodes = node(gemm, opset, &|_| None);
            assert_eq!(nodes.len(), expected, "{inputs:?} of opset {opset}");
            assert_eq!(nodes.last().map(|node| node.output.clone()), Some(vec!["y".to_owned()]));
        }
    }

    #[test]
    fn pads_become_what_tract_knows() {
        for (mode, pads, expected) in [
            ("reflect", [0, 1, 0, 1], &["Pad"][..]),
            ("constant", [0, -1, 0, 1], &["Pad", "Slice"]),
            ("constant", [0, i64::MIN, 0, i64::MIN], &["Pad", "Slice"]),
            ("wrap", [0, 1, 0, 0], &["Slice", "Concat", "Identity", "Identity"]),
            ("wrap", [0, 1, 0, -1], &["Slice", "Concat", "Identity", "Slice"]),
        ] {
            assert_eq!(pad(mode, &pads), expected, "{mode} {pads:?}");
        }
    }
}
