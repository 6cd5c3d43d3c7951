//! Models of some hundred kilobytes up to ten megabytes that ask for far more, in time or memory,
//! than their size suggests. Each was a finding, or would be one if a limit were lifted.

use acb_fuse::onnx::proto::attribute_proto::AttributeType;
use acb_fuse::onnx::proto::tensor_shape_proto::dimension::Value as Size;
use acb_fuse::onnx::proto::type_proto::Value;
use acb_fuse::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, TensorProto, ValueInfoProto,
};
use acb_fuse::onnx::tensor::from_integers;
use acb_fuse::onnx::write;
use prost::Message;

/// The description of a model, and the function that makes it.
pub type Row = (&'static str, fn() -> ModelProto);

/// See the module's documentation.
pub const MODELS: &[Row] = &[
    ("one sum of 30,000 operands", wide_sum),
    ("one tensor added 30,000 times", same_operand),
    ("a sum of 5,000 sums", deep_sum),
    ("6,000 convolutions of one tensor", convolutions),
    ("20,000 calls without names", calls),
    ("20,000 calls of 20,000 nodes that nobody knows", foreign_calls),
    ("2,000 calls of a function with a long comment", long_comment),
    ("bodies in functions in bodies, 31 times 25 deep", functions_in_bodies),
    ("a long list in a function that is called 3,000 times", heavy_calls),
    ("long names in functions that call each other", long_names),
    ("8,000 blocks whose kernels have one name", one_name),
    ("one constant joined 3,000 times", joined),
    ("a constant that is negated 240 times", negated),
    ("10,000 transpositions", transpositions),
    ("bodies in bodies, 30 deep", nested),
    ("sizes called 100,000 parentheses", parentheses),
    ("tensors, nodes and sizes with names of 200 kB", names_that_are_long),
];

/// Findings that stayed open longer than the others; each comment says what made it expensive.
pub const OPEN: &[Row] = &[
    // Each constant is within the limits; all of them together are not.
    ("a constant that is doubled 60 times", doubled),
    ("200 sparse weights of 256 MB each", sparse),
    // Every output was computed by running the whole node again.
    ("5,000 outputs of one Split", split),
    // A name that none of n names contains was looked for among all of them, n times.
    ("30,000 tensors called as new ones would be", taken_names),
];

fn info(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() }
}

fn model(nodes: Vec<NodeProto>, weights: Vec<TensorProto>, output: &str) -> ModelProto {
    write::model(17, vec![write::double_input("x", 4)], nodes, weights, &[output])
}

fn weights(name: &str, dims: &[i64]) -> TensorProto {
    let count: i64 = dims.iter().product();
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(11),
        double_data: (0..count).map(|at| 0.25 + at as f64 / 8.0).collect(),
        ..TensorProto::default()
    }
}

fn wide_sum() -> ModelProto {
    let names: Vec<String> = (0..30_000).map(|n| format!("r{n}")).collect();
    let relus = names.iter().map(|name| write::node("Relu", "", &["x"], name, vec![]));
    let mut nodes: Vec<NodeProto> = relus.collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    nodes.push(write::node("Sum", "", &names, "y", vec![]));
    model(nodes, vec![], "y")
}

fn same_operand() -> ModelProto {
    model(vec![write::node("Sum", "", &["x"; 30_000], "y", vec![])], vec![], "y")
}

fn deep_sum() -> ModelProto {
    let mut nodes = Vec::new();
    let mut sum = "x".to_owned();
    for step in 0..5_000 {
        let (term, next) = (format!("r{step}"), format!("s{step}"));
        nodes.push(write::node("Relu", "", &["x"], &term, vec![]));
        nodes.push(write::node("Add", "", &[&sum, &term], &next, vec![]));
        sum = next;
    }
    model(nodes, vec![], &sum)
}

fn convolutions() -> ModelProto {
    let mut nodes = Vec::new();
    let mut sum = "x".to_owned();
    for step in 0..6_000 {
        let (term, next) = (format!("c{step}"), format!("s{step}"));
        nodes.push(write::node("Conv", "", &["x", "k"], &term, vec![]));
        nodes.push(write::node("Add", "", &[&sum, &term], &next, vec![]));
        sum = next;
    }
    model(nodes, vec![weights("k", &[1, 1, 1, 1])], &sum)
}

fn function(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("local".into()),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: nodes,
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        ..FunctionProto::default()
    }
}

fn call(name: &str, input: &str, output: &str) -> NodeProto {
    NodeProto {
        domain: Some("local".into()),
        name: None,
        ..write::node(name, "", &[input], output, vec![])
    }
}

fn with_functions(calls: usize, name: &str, functions: Vec<FunctionProto>) -> ModelProto {
    let value = |step: usize| if step == 0 { "x".to_owned() } else { format!("v{step}") };
    let nodes = (0..calls).map(|step| call(name, &value(step), &value(step + 1))).collect();
    ModelProto { functions, ..model(nodes, vec![], &value(calls)) }
}

fn calls() -> ModelProto {
    let inner = vec![write::node("Relu", "", &["a"], "b", vec![])];
    with_functions(20_000, "F", vec![function("F", inner)])
}

fn foreign_calls() -> ModelProto {
    let foreign = |step: usize| {
        let node = write::node("Relu", "", &["a"], &format!("f{step}"), vec![]);
        NodeProto { domain: Some("theirs".into()), ..node }
    };
    let mut inner: Vec<NodeProto> = (0..20_000).map(foreign).collect();
    inner.push(write::node("Relu", "", &["a"], "b", vec![]));
    let mut known = function("F", inner);
    let theirs = |version| OperatorSetIdProto { domain: Some("theirs".into()), version };
    known.opset_import.push(theirs(Some(2)));
    let mut model = with_functions(20_000, "F", vec![known]);
    model.opset_import.push(theirs(Some(1)));
    model
}

fn long_comment() -> ModelProto {
    let inner = vec![write::node("Relu", "", &["a"], "b", vec![])];
    let doc_string = Some("c".repeat(10_000_000));
    let known = FunctionProto { doc_string, ..function("F", inner) };
    with_functions(2_000, "F", vec![known])
}

fn functions_in_bodies() -> ModelProto {
    let relu = write::node("Relu", "", &["a"], "b", vec![]);
    let mut functions = vec![function("F0", vec![in_bodies(relu, "a", 25)])];
    for level in 1..31 {
        let inner = call(&format!("F{}", level - 1), "a", "b");
        functions.push(function(&format!("F{level}"), vec![in_bodies(inner, "a", 25)]));
    }
    with_functions(1, "F30", functions)
}

/// Puts `node` into the bodies of `depth` nested Ifs.
fn in_bodies(mut node: NodeProto, condition: &str, depth: usize) -> NodeProto {
    let output = node.output.first().cloned().unwrap_or_default();
    for _ in 0..depth {
        let body =
            GraphProto { node: vec![node], output: vec![info(&output)], ..GraphProto::default() };
        let branch = AttributeProto {
            name: Some("then_branch".to_owned()),
            r#type: Some(AttributeType::Graph.into()),
            g: Some(Box::new(body)),
            ..AttributeProto::default()
        };
        node = write::node("If", "", &[condition], &output, vec![branch]);
    }
    node
}

fn heavy_calls() -> ModelProto {
    let list = write::ints("value_ints", vec![7; 100_000]);
    let inner = vec![
        write::node("Constant", "", &[], "c", vec![list]),
        write::node("Relu", "", &["a"], "b", vec![]),
    ];
    with_functions(3_000, "F", vec![function("F", inner)])
}

fn long_names() -> ModelProto {
    let long = "n".repeat(20_000);
    let mut functions = vec![function("F0", vec![write::node("Relu", &long, &["a"], "b", vec![])])];
    for level in 1..12 {
        let below = format!("F{}", level - 1);
        let name = |call: NodeProto| NodeProto { name: Some(long.clone()), ..call };
        let inner = vec![name(call(&below, "a", "m")), name(call(&below, "m", "b"))];
        functions.push(function(&format!("F{level}"), inner));
    }
    with_functions(1, "F11", functions)
}

fn one_name() -> ModelProto {
    let mut nodes = Vec::new();
    let mut value = "x".to_owned();
    for step in 0..8_000 {
        let names: Vec<String> = ["l", "r", "s", "v"].map(|part| format!("{part}{step}")).into();
        nodes.push(write::node("Conv", "", &[&value, "block.k"], &names[0], vec![]));
        nodes.push(write::node("Conv", "", &[&value, "block.j"], &names[1], vec![]));
        nodes.push(write::node("Add", "", &[&names[0], &names[1]], &names[2], vec![]));
        nodes.push(write::node("Relu", "", &[&names[2]], &names[3], vec![]));
        value.clone_from(&names[3]);
    }
    let kernels = vec![weights("block.k", &[1, 1, 1, 1]), weights("block.j", &[1, 1, 1, 1])];
    model(nodes, kernels, &value)
}

/// Returns a model whose `kernel` is computed by `nodes`, from `k0` or `lists`, and is used.
fn with_kernel(mut nodes: Vec<NodeProto>, lists: Vec<TensorProto>, kernel: &str) -> ModelProto {
    nodes.push(write::node("Conv", "", &["x", kernel], "l", vec![]));
    nodes.push(write::node("Conv", "", &["x", "k0"], "r", vec![]));
    nodes.push(write::node("Add", "", &["l", "r"], "y", vec![]));
    let lists = lists.into_iter().chain([weights("k0", &[1, 1, 1, 1])]).collect();
    model(nodes, lists, "y")
}

fn doubled() -> ModelProto {
    let axis = || vec![write::int("axis", 0)];
    let join = |step: usize| {
        let before = format!("k{step}");
        write::node("Concat", "", &[&before, &before], &format!("k{}", step + 1), axis())
    };
    with_kernel((0..60).map(join).collect(), vec![], "k60")
}

fn negated() -> ModelProto {
    let negate = |step: usize| {
        write::node("Neg", "", &[&format!("k{step}")], &format!("k{}", step + 1), vec![])
    };
    with_kernel((0..240).map(negate).collect(), vec![], "k240")
}

fn joined() -> ModelProto {
    let shape = from_integers("shape", &[1 << 20, 1, 1, 1]);
    let nodes = vec![
        write::node("ConstantOfShape", "", &["shape"], "large", vec![]),
        write::node("Concat", "", &["large"; 3_000], "k", vec![write::int("axis", 0)]),
    ];
    with_kernel(nodes, vec![shape], "k")
}

fn transpositions() -> ModelProto {
    let value = |step: usize| if step == 0 { "x".to_owned() } else { format!("v{step}") };
    let turn = |step: usize| {
        let perm = vec![write::ints("perm", vec![0, 2, 3, 1])];
        write::node("Transpose", "", &[&value(step)], &value(step + 1), perm)
    };
    model((0..10_000).map(turn).collect(), vec![], &value(10_000))
}

fn nested() -> ModelProto {
    let inner = write::node("Relu", "", &["x"], "y", vec![]);
    model(vec![in_bodies(inner, "x", 30)], vec![], "y")
}

/// Returns a model of two convolutions whose windows depend on input sizes called `name`.
fn with_sizes_called(name: &str) -> ModelProto {
    let mut nodes: Vec<NodeProto> = ["l", "r"]
        .map(|arm| {
            let how =
                vec![write::string("auto_pad", "SAME_UPPER"), write::ints("strides", vec![2, 2])];
            write::node("Conv", "", &["x", &format!("{arm}.k")], arm, how)
        })
        .into();
    nodes.push(write::node("Add", "", &["l", "r"], "y", vec![]));
    let kernels = vec![weights("l.k", &[1, 1, 3, 3]), weights("r.k", &[1, 1, 1, 1])];
    let mut model = model(nodes, kernels, "y");
    let graph = model.graph.as_mut().expect("it was made with one");
    for value in
        graph.input.iter_mut().flat_map(|input| &mut input.r#type).flat_map(|t| &mut t.value)
    {
        if let Value::TensorType(tensor) = value {
            let dims = tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim);
            dims.for_each(|dim| dim.value = Some(Size::DimParam(name.to_owned())));
        }
    }
    model
}

fn parentheses() -> ModelProto {
    with_sizes_called(&format!("{}n{}", "(".repeat(100_000), ")".repeat(100_000)))
}

fn names_that_are_long() -> ModelProto {
    let long = |name: &str| format!("{name}{}", "(-".repeat(100_000));
    let mut model = with_sizes_called(&long("n"));
    let graph = model.graph.as_mut().expect("it was made with one");
    for node in &mut graph.node {
        node.name = Some(long("node"));
        node.input.iter_mut().chain(&mut node.output).for_each(|name| *name = long(name));
    }
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        info.name = info.name.as_deref().map(long);
    }
    for weight in &mut graph.initializer {
        weight.name = weight.name.as_deref().map(long);
    }
    model
}

fn split() -> ModelProto {
    let outputs: Vec<String> = (0..5_000).map(|n| format!("p{n}")).collect();
    let mut part = write::node("Split", "", &["list"], "p", vec![write::int("axis", 0)]);
    part.output.clone_from(&outputs);
    let mut nodes = vec![part];
    let mut value = "x".to_owned();
    for (step, output) in outputs.iter().enumerate() {
        let next = format!("v{step}");
        nodes.push(write::node("Mul", "", &[&value, output], &next, vec![]));
        value = next;
    }
    let list = weights("list", &[5_000]);
    write::model(12, vec![write::double_input("x", 4)], nodes, vec![list], &[&value])
}

fn sparse() -> ModelProto {
    let one = |number: usize| SparseTensorProto {
        values: Some(weights(&format!("s{number}"), &[1]).into()),
        indices: Some(from_integers("", &[0]).into()),
        dims: vec![1 << 25],
    };
    let mut model = model(vec![write::node("Relu", "", &["x"], "y", vec![])], vec![], "y");
    let graph = model.graph.as_mut().expect("it was made with one");
    graph.sparse_initializer = (0..200).map(one).collect();
    model
}

fn taken_names() -> ModelProto {
    let mut names = vec!["x".to_owned(), "x.fused".to_owned()];
    names.extend((2..30_000).map(|number| format!("x.fused{number}")));
    let pairs = names.windows(2);
    let nodes = pairs.map(|pair| write::node("Relu", "", &[&pair[0]], &pair[1], vec![]));
    model(nodes.collect(), vec![], names.last().map_or("x", String::as_str))
}

/// Returns the model's bytes.
pub fn bytes(make: fn() -> ModelProto) -> Vec<u8> {
    make().encode_to_vec()
}
