//! Mutations of decoded models: flipping bytes rarely yields another model, these do.
//!
//! Half of them keep the model valid, so that it gets deep into the tool; the others
//! contradict the standard in one place, as hostile files and broken exporters do.

use acb_fuse::onnx::proto::attribute_proto::AttributeType;
use acb_fuse::onnx::proto::tensor_proto::DataLocation;
use acb_fuse::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use acb_fuse::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use acb_fuse::onnx::tensor::from_integers;
use acb_fuse::onnx::write;
use prost::Message;

use super::choices::Choices;

const INTEGERS: &[i64] = &[
    0,
    1,
    1,
    2,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    64,
    255,
    -1,
    -1,
    -2,
    -3,
    -8,
    1 << 12,
    1 << 16,
    1 << 24,
    (1 << 24) + 1,
    1 << 26,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 31,
    1 << 32,
    1 << 40,
    1 << 62,
    i64::MAX,
    i64::MAX - 1,
    i64::MIN,
    i64::MIN + 1,
    4_294_967_297,
    3_037_000_500,
];

const FLOATS: &[f64] = &[
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.0,
    0.5,
    1e-5,
    -1e-5,
    1e-30,
    1e30,
    3.4e38,
    -3.4e38,
    1e-45,
    65504.0,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
];

/// Operators, each with the number of inputs that are wired to it.
const OPERATORS: &[(&str, usize)] = &[
    ("Add", 2),
    ("Sub", 2),
    ("Mul", 2),
    ("Div", 2),
    ("Sum", 1),
    ("Sum", 3),
    ("Neg", 1),
    ("Identity", 1),
    ("Relu", 1),
    ("Conv", 2),
    ("Conv", 3),
    ("ConvTranspose", 2),
    ("Gemm", 3),
    ("MatMul", 2),
    ("BatchNormalization", 5),
    ("Pad", 1),
    ("Pad", 2),
    ("Pad", 4),
    ("Slice", 3),
    ("Slice", 5),
    ("Concat", 2),
    ("Concat", 3),
    ("Transpose", 1),
    ("AveragePool", 1),
    ("Dropout", 1),
    ("Dropout", 3),
    ("Cast", 1),
    ("CastLike", 2),
    ("ReduceSum", 2),
    ("Unsqueeze", 2),
    ("Squeeze", 2),
    ("Reshape", 2),
    ("Expand", 2),
    ("Tile", 2),
    ("Range", 3),
    ("ConstantOfShape", 1),
    ("Einsum", 2),
    ("Shape", 1),
    ("Size", 1),
    ("Gather", 2),
    ("ScatterND", 3),
    ("Split", 1),
    ("Where", 3),
    ("Constant", 0),
    ("If", 1),
    ("Loop", 2),
    ("Scan", 1),
    ("Trilu", 1),
    ("CumSum", 2),
    ("Resize", 2),
    ("GlobalAveragePool", 1),
    ("Flatten", 1),
    ("Pow", 2),
    ("Sqrt", 1),
    ("Reciprocal", 1),
    ("DepthToSpace", 1),
    ("Max", 2),
    ("SequenceAt", 2),
    ("SplitToSequence", 1),
    ("ScatterElements", 3),
    ("ReduceMean", 1),
];

const ATTRIBUTES: &[&str] = &[
    "pads",
    "strides",
    "dilations",
    "kernel_shape",
    "group",
    "axis",
    "axes",
    "perm",
    "auto_pad",
    "mode",
    "epsilon",
    "alpha",
    "beta",
    "transA",
    "transB",
    "broadcast",
    "to",
    "keepdims",
    "value",
    "training_mode",
    "is_test",
    "count_include_pad",
    "ceil_mode",
    "output_padding",
    "output_shape",
    "equation",
    "value_int",
    "value_ints",
    "value_floats",
    "sparse_value",
    "starts",
    "ends",
    "steps",
    "num_outputs",
    "split",
    "blocksize",
    "num_scan_inputs",
];

const STRINGS: &[&str] = &[
    "",
    "SAME_UPPER",
    "SAME_LOWER",
    "VALID",
    "NOTSET",
    "constant",
    "reflect",
    "edge",
    "wrap",
    "ab,bc->ac",
    "a,b->ab",
    "ab->ba",
    "...a,b->",
    "->",
    "ab,ab,ab->ab",
    "é",
];

/// Returns the model in `bytes` after a few mutations, some or all of which may be harmless,
/// or `None` if `bytes` is no model. `other` is a model that lends nodes.
pub fn mutated(bytes: &[u8], other: &[u8], choices: &mut Choices) -> Option<Vec<u8>> {
    let mut model = ModelProto::decode(bytes).ok()?;
    let mut changes = 1 + choices.below(3);
    if choices.once_in(4) {
        changes += choices.below(12);
    }
    for _ in 0..changes {
        mutate(&mut model, other, choices);
    }
    Some(model.encode_to_vec())
}

fn mutate(model: &mut ModelProto, other: &[u8], choices: &mut Choices) {
    match choices.below(24) {
        0 => versions(model, choices),
        1 => functions(model, choices),
        2 => {
            if let Ok(other) = ModelProto::decode(other) {
                cross(model, &other, choices);
            }
        }
        3 => nest(model, choices),
        _ => {
            let opset = model.opset_import.first().map_or(17, OperatorSetIdProto::version);
            if let Some(graph) = some_graph(model, choices) {
                mutate_graph(graph, opset, choices);
            }
        }
    }
}

/// Returns the main graph or, now and then, a body in it.
fn some_graph<'m>(model: &'m mut ModelProto, choices: &mut Choices) -> Option<&'m mut GraphProto> {
    let mut graph = model.graph.as_mut()?;
    while choices.once_in(3) {
        let has_body = |node: &NodeProto| node.attribute.iter().any(|a| a.g.is_some());
        if !graph.node.iter().any(has_body) {
            break;
        }
        let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
        let mut bodies: Vec<&mut GraphProto> =
            attributes.flat_map(|a| a.g.as_deref_mut()).collect();
        let at = choices.below(bodies.len());
        graph = bodies.swap_remove(at);
    }
    Some(graph)
}

fn mutate_graph(graph: &mut GraphProto, opset: i64, choices: &mut Choices) {
    match choices.below(24) {
        0 | 1 => {
            let slot = choices.one_of_mut(&mut graph.initializer);
            slot.into_iter().for_each(|tensor| mutate_tensor(tensor, choices));
        }
        2 => {
            let slot = choices.one_of_mut(&mut graph.initializer);
            slot.into_iter().for_each(|tensor| weights(tensor, choices));
        }
        3..6 => {
            let slot = choices.one_of_mut(&mut graph.node);
            slot.into_iter().for_each(|node| attribute(node, choices));
        }
        6 => operator(graph, choices),
        7 => wires(graph, choices),
        8..11 => insert(graph, opset, choices),
        11..14 => arm(graph, choices),
        14 => order(graph, choices),
        15 => interface(graph, choices),
        16 => shapes(graph, choices),
        17 => names(graph, choices),
        18 => stored_otherwise(graph, choices),
        19 => computed(graph, opset, choices),
        20 => duplicates(graph, choices),
        21 => chain(graph, choices),
        22 => valid_window(graph, choices),
        _ => scaled(graph, choices),
    }
}

fn integer(choices: &mut Choices) -> i64 {
    if choices.once_in(8) { choices.number() as i64 } else { choices.pick(INTEGERS) }
}

fn integers(choices: &mut Choices, length: usize) -> Vec<i64> {
    let small = choices.once_in(2);
    let one =
        |choices: &mut Choices| if small { choices.below(4) as i64 - 1 } else { integer(choices) };
    (0..length).map(|_| one(choices)).collect()
}

// The model.

fn versions(model: &mut ModelProto, choices: &mut Choices) {
    let import = |version: i64| OperatorSetIdProto { domain: None, version: Some(version) };
    match choices.below(7) {
        0 => model.ir_version = Some(choices.pick(&[0, 1, 3, 4, 7, 9, 14, 99, -1, i64::MAX])),
        1 => {
            let version = choices.pick(&[1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 17, 18, 19, 21, 28]);
            model.opset_import = vec![import(version)];
        }
        2 => model.opset_import = vec![import(choices.pick(&[0, -1, 99, i64::MAX, i64::MIN]))],
        3 => model.opset_import.clear(),
        4 => model.opset_import.extend([import(choices.pick(&[1, 9, 17, 21]))]),
        5 => model.opset_import.iter_mut().for_each(|i| i.domain = Some("com.example".into())),
        _ => model.graph = model.graph.take().filter(|_| !choices.once_in(4)),
    }
}

/// Turns a node into a call of a new local function, or changes an existing function, for
/// example by a call of another one.
fn functions(model: &mut ModelProto, choices: &mut Choices) {
    let opset_import = model.opset_import.clone();
    let Some(graph) = model.graph.as_mut() else { return };
    if choices.once_in(3) && !model.functions.is_empty() {
        let names: Vec<(String, String)> =
            model.functions.iter().map(|f| (f.domain().into(), f.name().into())).collect();
        let (domain, name) = choices.one_of(&names).cloned().unwrap_or_default();
        if let Some(function) = choices.one_of_mut(&mut model.functions) {
            match choices.below(4) {
                0 => function.input.truncate(choices.below(3)),
                1 => function.output.reverse(),
                2 => function.opset_import.clear(),
                _ => {
                    let inputs: Vec<&str> = function.input.iter().map(String::as_str).collect();
                    let mut call = write::node(&name, "", &inputs, "called", vec![]);
                    call.domain = Some(domain);
                    function.node.insert(choices.below(function.node.len() + 1), call);
                }
            }
        }
        return;
    }
    let Some(node) = choices.one_of_mut(&mut graph.node) else { return };
    let (name, domain) = (format!("F{}", choices.below(3)), "local".to_owned());
    let inner = node.clone();
    let mut attribute_proto = Vec::new();
    if choices.once_in(2) {
        attribute_proto.clone_from(&inner.attribute);
    }
    let function = FunctionProto {
        name: Some(name.clone()),
        domain: Some(domain.clone()),
        input: inner.input.iter().filter(|input| !input.is_empty()).cloned().collect(),
        output: inner.output.clone(),
        node: vec![inner],
        opset_import,
        attribute_proto,
        ..FunctionProto::default()
    };
    node.input = function.input.clone();
    node.op_type = Some(name);
    node.domain = Some(domain.clone());
    node.attribute.retain(|_| choices.once_in(2));
    model.functions.push(function);
    if choices.once_in(2) {
        let import = OperatorSetIdProto { domain: Some(domain), version: Some(1) };
        model.opset_import.push(import);
    }
}

/// Adds the nodes and weights of another model, fed with a tensor of this one.
fn cross(model: &mut ModelProto, other: &ModelProto, choices: &mut Choices) {
    let (Some(graph), Some(other)) = (model.graph.as_mut(), other.graph.as_ref()) else { return };
    let prefix = format!("x{}.", choices.below(1000));
    let feed = some_tensor(graph, choices);
    let given: Vec<&str> = other.input.iter().map(ValueInfoProto::name).collect();
    let stored: Vec<&str> = other.initializer.iter().map(TensorProto::name).collect();
    let renamed = |name: &str| match name {
        "" => String::new(),
        name if given.contains(&name) && !stored.contains(&name) => feed.clone(),
        name => format!("{prefix}{name}"),
    };
    for tensor in &other.initializer {
        graph
            .initializer
            .push(TensorProto { name: Some(renamed(tensor.name())), ..tensor.clone() });
    }
    for node in &other.node {
        let mut node = node.clone();
        let names = node.input.iter_mut().chain(&mut node.output);
        names.for_each(|name| *name = renamed(name));
        graph.node.push(node);
    }
    let outputs: Vec<String> = other.output.iter().map(|o| renamed(o.name())).collect();
    match choices.below(2) {
        0 => graph.output.extend(outputs.iter().map(|name| info(name))),
        _ => {
            if let Some((output, own)) = outputs.iter().zip(&mut graph.output).next() {
                let sum = format!("{prefix}sum");
                graph.node.push(write::node("Add", "", &[output, own.name()], &sum, vec![]));
                own.name = Some(sum);
            }
        }
    }
}

/// Moves the last nodes into the bodies of nested Ifs, up to 60 deep.
fn nest(model: &mut ModelProto, choices: &mut Choices) {
    let Some(graph) = model.graph.as_mut() else { return };
    let Some(output) = graph.output.first().map(|output| output.name().to_owned()) else { return };
    let at = choices.below(graph.node.len() + 1);
    let inner = graph.node.split_off(at);
    let mut body = GraphProto { node: inner, output: vec![info(&output)], ..GraphProto::default() };
    if choices.once_in(2) {
        let taken = choices.below(graph.initializer.len() + 1);
        body.initializer = graph.initializer.split_off(taken);
    }
    let condition = TensorProto {
        data_type: Some(9),
        int32_data: vec![1],
        name: Some("condition".into()),
        ..TensorProto::default()
    };
    graph.initializer.push(condition);
    for _ in 0..choices.pick(&[1, 1, 1, 2, 3, 12, 24, 31, 33, 60]) {
        let branch = |name: &str, body: &GraphProto| AttributeProto {
            name: Some(name.into()),
            r#type: Some(AttributeType::Graph.into()),
            g: Some(Box::new(body.clone())),
            ..AttributeProto::default()
        };
        let mut attributes = vec![branch("then_branch", &body)];
        if choices.once_in(2) {
            attributes.push(branch("else_branch", &GraphProto::default()));
        }
        let node = write::node("If", "", &["condition"], &output, attributes);
        body =
            GraphProto { node: vec![node], output: vec![info(&output)], ..GraphProto::default() };
    }
    graph.node.append(&mut body.node);
}

// Tensors.

fn mutate_tensor(tensor: &mut TensorProto, choices: &mut Choices) {
    match choices.below(12) {
        0 | 1 => {
            let value = integer(choices);
            choices.one_of_mut(&mut tensor.dims).into_iter().for_each(|dim| *dim = value);
        }
        2 => {
            let at = choices.below(tensor.dims.len() + 1);
            tensor.dims.insert(at, choices.pick(&[0, 1, 1, 1, 2, -1]));
        }
        3 => drop(tensor.dims.pop()),
        4 => tensor.dims.reverse(),
        5 => {
            let rank = choices.pick(&[0, 1, 2, 5, 8, 20, 300]);
            tensor.dims = integers(choices, rank);
        }
        6 => {
            tensor.data_type =
                Some(choices.pick(&[0, 1, 2, 6, 7, 8, 9, 10, 11, 14, 16, 17, 23, 99, -1]))
        }
        7 => {
            let mut raw = tensor.raw_data().to_vec();
            match choices.below(3) {
                0 => raw.truncate(choices.below(raw.len() + 1)),
                1 => raw.extend([0; 4]),
                _ => raw.clear(),
            }
            tensor.raw_data = Some(raw.into());
        }
        8 => tensor.float_data = vec![1.0; choices.below(9)],
        9 => tensor.int64_data = integers(choices, 3),
        10 => external(tensor, choices),
        _ => tensor.raw_data = None,
    }
}

fn external(tensor: &mut TensorProto, choices: &mut Choices) {
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    };
    tensor.data_location = Some(DataLocation::External.into());
    let location =
        choices.pick(&["in.onnx", "out.onnx", "../x", "", ".", "/etc/hostname", "sub/x"]);
    tensor.external_data = vec![entry("location", location)];
    if choices.once_in(2) {
        let offset = choices.pick(&["0", "16", "-1", "18446744073709551615"]);
        tensor.external_data.push(entry("offset", offset));
    }
    if choices.once_in(2) {
        let length = choices.pick(&["0", "4", "64", "18446744073709551615"]);
        tensor.external_data.push(entry("length", length));
    }
}

/// Overwrites one weight or all of them: with values that are not finite, with negative
/// numbers (also in variances), or with zeros.
fn weights(tensor: &mut TensorProto, choices: &mut Choices) {
    if tensor.data_type() != 1 {
        return;
    }
    let mut raw = tensor.raw_data().to_vec();
    let all = choices.once_in(3);
    let value = choices.pick(FLOATS) as f32;
    let at = choices.below(raw.len() / 4);
    for (index, chunk) in raw.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        if all || index == at {
            *chunk = value.to_le_bytes();
        }
    }
    tensor.raw_data = Some(raw.into());
}

// Nodes.

fn attribute(node: &mut NodeProto, choices: &mut Choices) {
    if node.attribute.is_empty() || choices.once_in(4) {
        let name = choices.pick(ATTRIBUTES);
        let length = choices.pick(&[0, 1, 2, 4, 8]);
        let attribute = match choices.below(5) {
            0 => write::int(name, integer(choices)),
            1 | 2 => write::ints(name, integers(choices, length)),
            3 => write::string(name, choices.pick(STRINGS)),
            _ => AttributeProto {
                f: Some(choices.pick(FLOATS) as f32),
                r#type: Some(AttributeType::Float.into()),
                ..write::int(name, 0)
            },
        };
        node.attribute.push(attribute);
        return;
    }
    let at = choices.below(node.attribute.len());
    let attribute = &mut node.attribute[at];
    match choices.below(12) {
        0..4 if !attribute.ints.is_empty() => {
            let value = if choices.once_in(2) { choices.below(4) as i64 } else { integer(choices) };
            choices.one_of_mut(&mut attribute.ints).into_iter().for_each(|i| *i = value);
        }
        0..4 => attribute.i = Some(integer(choices)),
        4 => attribute.ints.extend([choices.pick(INTEGERS)]),
        5 => drop(attribute.ints.pop()),
        6 => attribute.ints.clear(),
        7 => attribute.f = Some(choices.pick(FLOATS) as f32),
        8 => attribute.s = Some(choices.pick(STRINGS).as_bytes().into()),
        9 => drop(node.attribute.remove(at)),
        10 => {
            let twin = node.attribute[at].clone();
            node.attribute.push(twin);
        }
        _ => {
            attribute.name = Some(choices.pick(ATTRIBUTES).into());
            attribute.r#type = Some(choices.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 11, 99]));
        }
    }
    if choices.once_in(16)
        && let Some(tensor) =
            node.attribute.iter_mut().find_map(|attribute| attribute.t.as_deref_mut())
    {
        mutate_tensor(tensor, choices);
    }
}

fn operator(graph: &mut GraphProto, choices: &mut Choices) {
    let Some(node) = choices.one_of_mut(&mut graph.node) else { return };
    match choices.below(4) {
        0 => node.domain = Some(choices.pick(&["", "ai.onnx", "my.domain", "ai.onnx.ml"]).into()),
        1 => node.op_type = None,
        _ => node.op_type = Some(choices.pick(OPERATORS).0.into()),
    }
}

/// Returns the name of any tensor of the graph or, rarely, of one that does not exist.
fn some_tensor(graph: &GraphProto, choices: &mut Choices) -> String {
    let made = graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str));
    let all: Vec<&str> = made
        .chain(graph.input.iter().map(ValueInfoProto::name))
        .chain(graph.initializer.iter().map(TensorProto::name))
        .collect();
    if choices.once_in(40) {
        "nowhere".to_owned()
    } else {
        choices.one_of(&all).map_or(String::new(), |name| (*name).to_owned())
    }
}

/// Returns a tensor that exists before node `at`: a node's output, a graph input or an
/// initializer.
fn tensor_before(graph: &GraphProto, at: usize, choices: &mut Choices) -> String {
    let made: Vec<&String> = graph.node.iter().take(at).flat_map(|node| &node.output).collect();
    let stored: Vec<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    let given: Vec<&str> = graph.input.iter().map(ValueInfoProto::name).collect();
    let found = match choices.below(6) {
        0..3 => choices.one_of(&made).map(|name| name.as_str()),
        3 => choices.one_of(&given).copied(),
        _ => choices.one_of(&stored).copied(),
    };
    found.unwrap_or_default().to_owned()
}

fn wires(graph: &mut GraphProto, choices: &mut Choices) {
    let at = choices.below(graph.node.len());
    let tensor = if choices.once_in(3) {
        some_tensor(graph, choices)
    } else {
        tensor_before(graph, at, choices)
    };
    let Some(node) = graph.node.get_mut(at) else { return };
    match choices.below(9) {
        0..4 => choices.one_of_mut(&mut node.input).into_iter().for_each(|i| *i = tensor.clone()),
        4 => node.input.push(tensor),
        5 => drop(node.input.pop()),
        6 => choices.one_of_mut(&mut node.input).into_iter().for_each(String::clear),
        7 => node.input.reverse(),
        _ => {
            let output = format!("extra{}", choices.below(1 << 16));
            match choices.below(4) {
                0 => node.output.clear(),
                1 => node.output.iter_mut().for_each(String::clear),
                2 => node.output.push(output),
                _ => node.output.insert(0, output),
            }
        }
    }
}

/// Inserts one more operator between a tensor and its readers.
fn insert(graph: &mut GraphProto, opset: i64, choices: &mut Choices) {
    let at = choices.below(graph.node.len());
    let Some(node) = graph.node.get_mut(at) else { return };
    let Some(output) = choices.one_of_mut(&mut node.output) else { return };
    let wanted = output.clone();
    let before = format!("{output}.before{}", choices.below(1 << 16));
    output.clone_from(&before);
    let (op, inputs) = choices.pick(OPERATORS);
    let mut names = vec![before.clone()];
    for _ in 1..inputs.max(1) {
        names.push(match choices.below(3) {
            0 => before.clone(),
            1 => tensor_before(graph, at, choices),
            _ => {
                let length = choices.pick(&[1, 2, 4, 8]);
                let values = integers(choices, length);
                let name = format!("{before}.list{}", names.len());
                graph.initializer.push(from_integers(&name, &values));
                name
            }
        });
    }
    names.rotate_right(choices.pick(&[0, 0, 0, 1]));
    names.truncate(inputs.max(usize::from(!choices.once_in(8))));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut new = write::node(op, "", &names, &wanted, attributes_of(op, opset, choices));
    if choices.once_in(8) {
        attribute(&mut new, choices);
    }
    graph.node.insert(at + 1, new);
}

/// Returns attributes that the operator `op` may have, with values that mostly make sense.
fn attributes_of(op: &str, opset: i64, choices: &mut Choices) -> Vec<AttributeProto> {
    let taps = choices.pick(&[1, 2, 3, 3]);
    let pad = choices.pick(&[0, 0, 1, 1, 2, 3]);
    let perm = |choices: &mut Choices| match choices.below(4) {
        0 => vec![0, 3, 1, 2],
        1 => vec![0, 2, 3, 1],
        2 => vec![0, 1, 3, 2],
        _ => vec![0, 1, 2, 3],
    };
    match op {
        "AveragePool" => vec![
            write::ints("kernel_shape", vec![taps; 2]),
            write::ints("pads", vec![pad; 4]),
            write::int("count_include_pad", choices.below(2) as i64),
        ],
        "Transpose" => vec![write::ints("perm", perm(choices))],
        "Concat" | "Split" | "Gather" => vec![write::int("axis", choices.below(4) as i64)],
        "Pad" if opset < 11 || choices.once_in(8) => {
            let side = integers(choices, 2);
            let pads = [&[0, 0][..], &side, &[0, 0], &side].concat();
            vec![
                write::string("mode", choices.pick(&["constant", "reflect", "edge", "wrap"])),
                write::ints("pads", pads),
            ]
        }
        "Pad" => {
            vec![write::string("mode", choices.pick(&["constant", "reflect", "edge", "wrap"]))]
        }
        "Slice" if opset < 10 => {
            let axes = vec![choices.below(4) as i64];
            vec![
                write::ints("starts", integers(choices, 1)),
                write::ints("ends", integers(choices, 1)),
                write::ints("axes", axes),
            ]
        }
        "Einsum" => vec![write::string("equation", choices.pick(STRINGS))],
        "Cast" => vec![write::int("to", choices.pick(&[1, 1, 1, 7, 10, 11, 16, 99]))],
        "Conv" | "ConvTranspose" => {
            let pads = vec![write::ints("pads", vec![pad; 4])];
            pads.into_iter().chain([write::int("group", choices.pick(&[1, 1, 2, 4]))]).collect()
        }
        "Constant" => vec![write::ints("value_ints", integers(choices, 3))],
        "ReduceSum" => vec![write::int("keepdims", choices.below(2) as i64)],
        "BatchNormalization" => vec![write::int("training_mode", choices.below(2) as i64)],
        _ => Vec::new(),
    }
}

/// Adds a twin of an existing node, and a node that joins both: a sum, difference, product or
/// concatenation.
fn arm(graph: &mut GraphProto, choices: &mut Choices) {
    let at = choices.below(graph.node.len());
    let Some(node) = graph.node.get_mut(at) else { return };
    let [output] = node.output.as_mut_slice() else { return };
    let wanted = output.clone();
    let number = choices.below(1 << 16);
    let (left, right) = (format!("{wanted}.left{number}"), format!("{wanted}.right{number}"));
    output.clone_from(&left);
    let mut twin = node.clone();
    twin.output = vec![right.clone()];
    if choices.once_in(2) {
        twin.name = twin.name.map(|name| format!("{name}.twin"));
    }
    if choices.once_in(2) {
        attribute(&mut twin, choices);
    }
    if choices.once_in(4) {
        let other = tensor_before(graph, at, choices);
        choices.one_of_mut(&mut twin.input).into_iter().for_each(|input| *input = other.clone());
    }
    let op = choices.pick(&["Add", "Add", "Add", "Sub", "Sum", "Mul", "Concat"]);
    let attributes = attributes_of(op, 17, choices);
    let order = if choices.once_in(2) { [&left[..], &right] } else { [&right[..], &left] };
    let mut sum = write::node(op, "", &order, &wanted, attributes);
    if op == "Sum" && choices.once_in(2) {
        sum.input.extend([tensor_before(graph, at, choices)]);
    }
    let place = if choices.once_in(4) { at + 1 } else { at };
    graph.node.insert(place, twin);
    graph.node.insert(at + 2, sum);
}

fn order(graph: &mut GraphProto, choices: &mut Choices) {
    let count = graph.node.len();
    if count == 0 {
        return;
    }
    let (at, other) = (choices.below(count), choices.below(count));
    match choices.below(5) {
        0 => graph.node.swap(at, other),
        1 => drop(graph.node.remove(at)),
        2 => {
            let twin = graph.node[at].clone();
            graph.node.insert(other, twin);
        }
        3 => graph.node.reverse(),
        _ => {
            let node = graph.node.remove(at);
            graph.node.push(node);
        }
    }
}

// The interface.

fn info(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() }
}

fn interface(graph: &mut GraphProto, choices: &mut Choices) {
    let tensor = some_tensor(graph, choices);
    let list = match choices.below(3) {
        0 => &mut graph.input,
        _ => &mut graph.output,
    };
    match choices.below(6) {
        0 => drop(list.pop()),
        1 => list.clear(),
        2 => list.extend(list.first().cloned()),
        3 | 4 => list.push(info(&tensor)),
        _ => list.reverse(),
    }
}

/// Declares wrong shapes for inputs, outputs and tensors between.
fn shapes(graph: &mut GraphProto, choices: &mut Choices) {
    if choices.once_in(3) {
        let name = some_tensor(graph, choices);
        graph.value_info.push(info(&name));
    }
    let list = match choices.below(4) {
        0 | 1 => &mut graph.input,
        2 => &mut graph.output,
        _ => &mut graph.value_info,
    };
    let Some(declared) = choices.one_of_mut(list) else { return };
    let dim = |choices: &mut Choices| {
        let value = match choices.below(3) {
            0 => dimension::Value::DimParam("n".into()),
            1 => dimension::Value::DimValue(choices.pick(&[1, 2, 4, 5, 7, 16])),
            _ => dimension::Value::DimValue(integer(choices)),
        };
        Dimension { value: Some(value), ..Dimension::default() }
    };
    if let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) =
        &mut declared.r#type
        && let Some(shape) = &mut tensor.shape
        && choices.once_in(2)
    {
        let new = dim(choices);
        choices.one_of_mut(&mut shape.dim).into_iter().for_each(|dim| *dim = new.clone());
        return;
    }
    let rank = choices.pick(&[0, 1, 2, 3, 4, 4, 5, 40]);
    let shape = (!choices.once_in(4))
        .then(|| TensorShapeProto { dim: (0..rank).map(|_| dim(choices)).collect() });
    let elem_type = Some(choices.pick(&[1, 1, 1, 0, 7, 10, 11, 16, 99]));
    let value = type_proto::Value::TensorType(type_proto::Tensor { elem_type, shape });
    declared.r#type = Some(TypeProto { value: Some(value), ..TypeProto::default() });
}

fn names(graph: &mut GraphProto, choices: &mut Choices) {
    let taken = some_tensor(graph, choices);
    let new = match choices.below(7) {
        0 => String::new(),
        1 => taken,
        2 => ".fused".to_owned(),
        3 => "a/b.inlined/c".to_owned(),
        4 => "é\u{0}\n".to_owned(),
        5 => "n".repeat(3000),
        _ => "y.fused.weight".to_owned(),
    };
    match choices.below(3) {
        0 => {
            let slot = choices.one_of_mut(&mut graph.node);
            slot.into_iter().for_each(|node| node.name = Some(new.clone()));
        }
        1 => {
            let old = some_tensor(graph, choices);
            rename(graph, &old, &new);
        }
        _ => {
            let slot = choices.one_of_mut(&mut graph.initializer);
            slot.into_iter().for_each(|tensor| tensor.name = Some(new.clone()));
        }
    }
}

fn rename(graph: &mut GraphProto, old: &str, new: &str) {
    let names =
        graph.node.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output));
    names.filter(|name| *name == old).for_each(|name| *name = new.to_owned());
    let stored = graph.initializer.iter_mut().filter(|tensor| tensor.name() == old);
    stored.for_each(|tensor| tensor.name = Some(new.to_owned()));
    let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    infos.filter(|info| info.name() == old).for_each(|info| info.name = Some(new.to_owned()));
}

// Other ways to write the same.

/// Turns an initializer into a Constant node, a sparse initializer, or a graph input's default
/// value; or breaks a sparse initializer.
fn stored_otherwise(graph: &mut GraphProto, choices: &mut Choices) {
    if graph.initializer.is_empty() {
        return;
    }
    let at = choices.below(graph.initializer.len());
    match choices.below(4) {
        0 => {
            let tensor = graph.initializer.remove(at);
            let name = tensor.name().to_owned();
            let constant =
                write::node("Constant", "", &[], &name, vec![write::tensor("value", tensor)]);
            graph.node.insert(0, constant);
        }
        1 => {
            let values = graph.initializer.remove(at);
            let count = values.dims.iter().fold(1i64, |all, &dim| all.saturating_mul(dim.max(0)));
            let places: Vec<i64> = (0..count.min(1 << 12)).collect();
            let dims = values.dims.clone();
            let flat = TensorProto { dims: vec![count], ..values };
            graph.sparse_initializer.push(SparseTensorProto {
                values: Some(flat.into()),
                indices: Some(from_integers("", &places).into()),
                dims,
            });
        }
        2 => {
            let name = graph.initializer[at].name().to_owned();
            graph.input.push(info(&name));
        }
        _ => {
            let Some(sparse) = choices.one_of_mut(&mut graph.sparse_initializer) else { return };
            let value = integer(choices);
            match choices.below(3) {
                0 => choices.one_of_mut(&mut sparse.dims).into_iter().for_each(|d| *d = value),
                1 => sparse.indices = Some(from_integers("", &integers(choices, 2)).into()),
                _ => sparse.values.iter_mut().for_each(|values| mutate_tensor(values, choices)),
            }
        }
    }
}

/// Replaces an initializer by the result of an operator on constants, sometimes an enormous one.
fn computed(graph: &mut GraphProto, opset: i64, choices: &mut Choices) {
    if graph.initializer.is_empty() {
        return;
    }
    let at = choices.below(graph.initializer.len());
    let name = graph.initializer[at].name().to_owned();
    let source = format!("{name}.source{}", choices.below(1 << 16));
    graph.initializer[at].name = Some(source.clone());
    let ops = [
        "Identity",
        "Neg",
        "Cast",
        "Transpose",
        "Expand",
        "Tile",
        "Reshape",
        "Concat",
        "Add",
        "Mul",
        "ConstantOfShape",
        "Pad",
        "Slice",
        "Gather",
        "MatMul",
        "Conv",
        "Einsum",
        "Range",
    ];
    let op = choices.pick(&ops);
    let list = format!("{source}.list");
    let length = if choices.once_in(2) {
        graph.initializer[at].dims.len()
    } else {
        choices.pick(&[1, 2, 4, 8])
    };
    let values = if choices.once_in(3) {
        graph.initializer[at].dims.clone()
    } else {
        integers(choices, length)
    };
    graph.initializer.push(from_integers(&list, &values));
    let inputs: Vec<&str> = match op {
        "Identity" | "Neg" | "Cast" | "Transpose" => vec![&source],
        "ConstantOfShape" => vec![&list],
        "Concat" | "Add" | "Mul" | "MatMul" | "Conv" | "Einsum" => vec![&source, &source],
        "Slice" | "Range" => vec![&source, &list, &list],
        _ => vec![&source, &list],
    };
    let node = write::node(op, "", &inputs, &name, attributes_of(op, opset, choices));
    graph.node.insert(0, node);
}

fn duplicates(graph: &mut GraphProto, choices: &mut Choices) {
    match choices.below(3) {
        0 => {
            let twin = choices.one_of(&graph.initializer).cloned();
            graph.initializer.extend(twin);
        }
        1 => {
            // A copy of all nodes, whose outputs get other names.
            let made: Vec<String> = graph.node.iter().flat_map(|n| n.output.clone()).collect();
            let twins: Vec<NodeProto> = graph.node.clone();
            let renamed = |name: &mut String| {
                if made.contains(name) && !name.is_empty() {
                    name.push_str(".copy");
                }
            };
            for mut node in twins {
                node.input.iter_mut().chain(&mut node.output).for_each(renamed);
                graph.node.push(node);
            }
        }
        _ => {
            let twin = choices.one_of(&graph.value_info).cloned();
            graph.value_info.extend(twin);
        }
    }
}

/// Inserts the same operator many times in a row.
fn chain(graph: &mut GraphProto, choices: &mut Choices) {
    let at = choices.below(graph.node.len());
    let Some(node) = graph.node.get_mut(at) else { return };
    let Some(output) = node.output.first_mut() else { return };
    let wanted = output.clone();
    let length = choices.pick(&[2, 3, 20, 40, 300]);
    let (op, inputs) = choices.pick(&[
        ("Identity", 1),
        ("Add", 2),
        ("Neg", 1),
        ("Concat", 2),
        ("Mul", 2),
        ("Sub", 2),
        ("Transpose", 1),
        ("Sum", 1),
    ]);
    let number = choices.below(1 << 16);
    let name = |step: usize| {
        if step == length { wanted.clone() } else { format!("{wanted}.chain{number}.{step}") }
    };
    *output = name(0);
    let first = name(0);
    for step in 0..length {
        let before = name(step);
        let mut operands = vec![before.as_str(); inputs];
        if inputs == 2 && choices.once_in(2) {
            operands[1] = &first;
        }
        let attributes = attributes_of(op, 17, choices);
        graph
            .node
            .insert(at + 1 + step, write::node(op, "", &operands, &name(step + 1), attributes));
    }
}

/// Sets a stride, dilation or pad to another value that a convolution can have.
fn valid_window(graph: &mut GraphProto, choices: &mut Choices) {
    let is_window =
        |node: &NodeProto| ["Conv", "ConvTranspose", "AveragePool"].contains(&node.op_type());
    let mut nodes: Vec<&mut NodeProto> =
        graph.node.iter_mut().filter(|node| is_window(node)).collect();
    let Some(node) = choices.one_of_mut(&mut nodes) else { return };
    let names = ["strides", "dilations", "pads"];
    let name = choices.pick(&names);
    let value = choices.below(3) as i64 + i64::from(name != "pads");
    let found = node.attribute.iter_mut().find(|attribute| attribute.name() == name);
    match found {
        Some(attribute) => {
            choices.one_of_mut(&mut attribute.ints).into_iter().for_each(|i| *i = value);
        }
        None => {
            let length = if name == "pads" { 4 } else { 2 };
            node.attribute.push(write::ints(name, vec![value; length]));
        }
    }
}

/// Scales or shifts a tensor by a constant: a scalar, one value per channel, or values along
/// another axis.
fn scaled(graph: &mut GraphProto, choices: &mut Choices) {
    let at = choices.below(graph.node.len());
    let Some(node) = graph.node.get_mut(at) else { return };
    let Some(output) = node.output.first_mut() else { return };
    let wanted = output.clone();
    let before = format!("{wanted}.unscaled{}", choices.below(1 << 16));
    output.clone_from(&before);
    let channels = choices.pick(&[1, 2, 4, 8]);
    let dims: Vec<i64> = choices
        .one_of(&[
            vec![],
            vec![1],
            vec![channels],
            vec![channels, 1, 1],
            vec![1, channels, 1, 1],
            vec![1, 1, 1, channels],
            vec![channels, 1, 1, 1],
            vec![1, 1, 1, 1, 1],
            vec![0],
        ])
        .cloned()
        .unwrap_or_default();
    let count: i64 = dims.iter().product();
    let values = (0..count).map(|_| {
        if choices.once_in(10) {
            choices.pick(FLOATS) as f32
        } else {
            choices.below(64) as f32 / 16.0 - 1.5
        }
    });
    let constant = TensorProto {
        float_data: values.collect(),
        dims,
        data_type: Some(1),
        name: Some(format!("{before}.constant")),
        ..TensorProto::default()
    };
    let name = constant.name().to_owned();
    graph.initializer.push(constant);
    let op = choices.pick(&["Add", "Sub", "Mul", "Div", "Mul", "Add"]);
    let operands = if choices.once_in(3) { [&name[..], &before] } else { [&before[..], &name] };
    graph.node.insert(at + 1, write::node(op, "", &operands, &wanted, vec![]));
}
