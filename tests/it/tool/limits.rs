//! Limits on what is followed, tried or evaluated are on what can be counted; a limit that is met
//! is reported by its name, and never as something that "is not known" or "is not constant".
use std::fs;

use acb_fuse::Options;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::proto::tensor_shape_proto::dimension::Value as Size;
use acb_fuse::onnx::proto::type_proto::Value;
use acb_fuse::onnx::proto::{ModelProto, NodeProto, TensorProto};
use acb_fuse::onnx::tensor::{from_floats, from_integers};
use acb_fuse::onnx::write::{self, double_input, ints, node};
use ndarray::{ArrayD, IxDyn};
use prost::Message;

use crate::support::tool::looked;

fn kernel(name: &str) -> TensorProto {
    from_floats(name, &ArrayD::from_elem(IxDyn(&[4, 4, 1, 1]), 0.5), Float::F64)
}

fn op(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(op, output, inputs, output, vec![])
}

/// Returns two convolutions of x, one of which has the kernel `k` that `nodes` compute.
fn with_kernel(mut nodes: Vec<NodeProto>, mut stored: Vec<TensorProto>) -> ModelProto {
    nodes.push(op("Conv", &["x", "k"], "t"));
    nodes.push(op("Conv", &["x", "b"], "u"));
    nodes.push(op("Add", &["t", "u"], "y"));
    stored.push(kernel("b"));
    write::model(17, vec![double_input("x", 4)], nodes, stored, &["y"])
}

fn large_constant() -> ModelProto {
    let stored = vec![kernel("one"), from_integers("sizes", &[4096, 4, 64, 64])];
    with_kernel(vec![op("Tile", &["one", "sizes"], "k")], stored)
}

/// Returns a row of `count` operators, from `first` to `last`.
fn row(op_name: &str, first: &str, last: &str, count: usize) -> Vec<NodeProto> {
    let name = |at: usize| match at {
        0 => first.to_owned(),
        at if at == count => last.to_owned(),
        at => format!("{last}.{at}"),
    };
    (0..count).map(|at| op(op_name, &[&name(at)], &name(at + 1))).collect()
}

fn deep_constant() -> ModelProto {
    with_kernel(row("Neg", "stored", "k", 251), vec![kernel("stored")])
}

/// Convolutions in a row: two of them, multiplied out, would be larger.
fn deep_branch() -> ModelProto {
    let name = |at: usize| if at == 0 { "x".to_owned() } else { format!("c{at}") };
    let conv = |at: usize| op("Conv", &[&name(at), &format!("k{at}")], &name(at + 1));
    let kernel = |at: usize| {
        from_floats(&format!("k{at}"), &ArrayD::from_elem(IxDyn(&[4, 4, 5, 5]), 0.5), Float::F64)
    };
    let (nodes, kernels) = ((0..40).map(conv).collect(), (0..40).map(kernel).collect());
    write::model(17, vec![double_input("x", 4)], nodes, kernels, &["c40"])
}

/// A sum, term by term, of convolutions of different tensors.
fn long_sum() -> ModelProto {
    let inputs = (0..70).map(|at| double_input(&format!("x{at}"), 4)).collect();
    let mut nodes = vec![op("Conv", &["x0", "k"], "sum0")];
    for at in 1..70 {
        let [x, term, before, after] =
            [format!("x{at}"), format!("term{at}"), format!("sum{}", at - 1), format!("sum{at}")];
        nodes.push(op("Conv", &[&x, "k"], &term));
        nodes.push(op("Add", &[&before, &term], &after));
    }
    write::model(17, inputs, nodes, vec![kernel("k")], &["sum69"])
}

fn wide_sum() -> ModelProto {
    let convs = (0..300).map(|at| op("Conv", &["x", "k"], &format!("c{at}")));
    let mut nodes: Vec<NodeProto> = convs.collect();
    let terms: Vec<String> = (0..300).map(|at| format!("c{at}")).collect();
    let terms: Vec<&str> = terms.iter().map(String::as_str).collect();
    nodes.push(op("Sum", &terms, "y"));
    write::model(17, vec![double_input("x", 4)], nodes, vec![kernel("k")], &["y"])
}

fn large_border() -> ModelProto {
    let nodes = vec![
        op("Pad", &["x", "pads"], "padded"),
        op("ScatterND", &["padded", "place", "zero"], "y"),
    ];
    let zero = from_floats("zero", &ArrayD::zeros(IxDyn(&[1])), Float::F64);
    let mut place = from_integers("place", &[0, 0, 0, 0]);
    place.dims = vec![1, 4];
    let stored = vec![from_integers("pads", &[0, 0, 1, 1, 0, 0, 0, 0]), place, zero];
    let mut x = double_input("x", 4);
    if let Some(Value::TensorType(tensor)) = x.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        let sizes = [1, 1, 5000, 6000].into_iter();
        let dims = tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim);
        dims.zip(sizes).for_each(|(dim, size)| dim.value = Some(Size::DimValue(size)));
    }
    write::model(17, vec![x], nodes, stored, &["y"])
}

/// A Pad with what the convolution before it gives there, behind a row of Identities.
fn far_border() -> ModelProto {
    let bias = from_floats("bias", &ArrayD::from_elem(IxDyn(&[4]), 0.5), Float::F64);
    let half = from_floats("half", &ArrayD::from_elem(IxDyn(&[]), 0.5), Float::F64);
    let mut nodes = vec![op("Conv", &["x", "k", "bias"], "c")];
    nodes.extend(row("Identity", "c", "same", 70));
    nodes.push(op("Pad", &["same", "pads", "half"], "padded"));
    nodes.push(op("Conv", &["padded", "wide"], "y"));
    let wide = from_floats("wide", &ArrayD::from_elem(IxDyn(&[4, 4, 3, 3]), 0.5), Float::F64);
    let pads = from_integers("pads", &[0, 0, 1, 1, 0, 0, 1, 1]);
    let stored = vec![kernel("k"), bias, half, wide, pads];
    write::model(17, vec![double_input("x", 4)], nodes, stored, &["y"])
}

/// Partial sums of convolutions of one tensor, each of which is also an output.
fn shared_sums() -> ModelProto {
    let mut nodes = vec![op("Conv", &["x", "k0"], "sum0")];
    let (mut outputs, mut kernels) = (Vec::new(), vec![kernel("k0")]);
    for at in 1..200 {
        let [term, before, after] =
            [format!("term{at}"), format!("sum{}", at - 1), format!("sum{at}")];
        let how = vec![ints("pads", vec![0, 0, 0, 0])];
        nodes.push(node("Conv", &term, &["x", &format!("k{at}")], &term, how));
        nodes.push(op("Add", &[&before, &term], &after));
        kernels.push(kernel(&format!("k{at}")));
        outputs.push(after);
    }
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    write::model(17, vec![double_input("x", 4)], nodes, kernels, &outputs)
}

/// A row of sums: each adds the tensor before it to itself, or to the first one.
fn doubled_sums() -> ModelProto {
    let mut nodes = vec![op("Relu", &["x"], "y0")];
    for at in 1..=40 {
        let [before, after] = [format!("y{}", at - 1), format!("y{at}")];
        let other = if at % 2 == 0 { &before } else { "y0" };
        nodes.push(op("Add", &[&before, other], &after));
    }
    write::model(17, vec![double_input("x", 4)], nodes, vec![], &["y40"])
}

/// A convolution, doubled until its weights are not finite.
fn doubled_kernel() -> ModelProto {
    let mut nodes = vec![op("Conv", &["x", "k"], "y0")];
    for at in 1..=1100 {
        let [before, after] = [format!("y{}", at - 1), format!("y{at}")];
        nodes.push(op("Add", &[&before, &before], &after));
    }
    write::model(17, vec![double_input("x", 4)], nodes, vec![kernel("k")], &["y1100"])
}

/// A tensor of unknown rank, cut along its axis 16.
fn far_axis() -> ModelProto {
    let mut x = double_input("x", 4);
    if let Some(Value::TensorType(of)) = x.r#type.as_mut().and_then(|of| of.value.as_mut()) {
        of.shape = None;
    }
    let stored =
        [("from", 1), ("to", 9), ("axis", 16)].map(|(name, at)| from_integers(name, &[at]));
    let cut = op("Slice", &["x", "from", "to", "axis"], "y");
    write::model(17, vec![x], vec![cut], stored.to_vec(), &["y"])
}

type Row = (&'static str, fn() -> ModelProto, &'static str);

const CASES: &[Row] = &[
    (
        "large constant",
        large_constant,
        "`k` is computed from constants, and not evaluated: it takes more elements or \
         multiply-adds than constants of a file of this size may",
    ),
    ("deep constant", deep_constant, "not evaluated: 250 nodes in a row are the most"),
    ("deep branch", deep_branch, "at most 24 operations in a row are followed"),
    ("long sum", long_sum, "sums of more than 64 terms are not entered"),
    ("wide sum", wide_sum, "it adds more than 256 tensors"),
    ("large border", large_border, "where it puts its elements is not tried"),
    ("far border", far_border, "it stands behind more than 64 Identities"),
    ("far axis", far_axis, "axes of tensors of more than 16 dimensions are not followed"),
    ("doubled sums", doubled_sums, "no more than 4096 terms are looked at for one tensor"),
    ("doubled kernel", doubled_kernel, "smaller ones are searched for 8 times"),
    ("shared sums", shared_sums, "no more than 64 nodes are computed again"),
];

#[test]
fn limits_are_told_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let mut failures = Vec::new();
    for (case, model, said) in CASES {
        fs::write(&path, model().encode_to_vec()).unwrap();
        let report = looked(&path, &Options::default());
        let text = report.to_string();
        let is_told_once = text.matches(said).count() == 1;
        if !is_told_once || text.contains("not known") || text.contains("is not constant") {
            failures.push(format!("{case}: {text}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
