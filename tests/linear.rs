//! The work grows with the model and no faster.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::time::{Duration, Instant};

use acb_fuse::onnx::build::{self, int, ints, node};
use acb_fuse::onnx::proto::{ModelProto, NodeProto, TensorProto, ValueInfoProto, AttributeProto};
use acb_fuse::{Options, Place, convert};
use prost::Message;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[derive(Default)]
struct Made {
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
    outputs: Vec<String>,
}

impl Made {
    fn weight(&mut self, name: &str, dims: &[i64]) {
        let count: i64 = dims.iter().product();
        let data = (0..count).map(|at| (0.25 + at as f32 / 8.0).to_le_bytes());
        self.weights.push(TensorProto {
            name: Some(name.to_owned()),
            dims: dims.to_vec(),
            data_type: Some(1),
            raw_data: Some(data.flatten().collect::<Vec<u8>>().into()),
            ..TensorProto::default()
        });
    }
    fn op(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> String {
        self.nodes.push(node(op, &format!("{output}/{op}"), inputs, output, attributes));
        output.to_owned()
    }
    fn model(self) -> ModelProto {
        let outputs: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let input = ValueInfoProto { ..build::double_input("x", 4) };
        let mut input = input;
        if let Some(t) = &mut input.r#type {
            if let Some(acb_fuse::onnx::proto::type_proto::Value::TensorType(t)) = &mut t.value { t.elem_type = Some(1); }
        }
        build::model(17, vec![input], self.nodes, self.weights, &outputs)
    }
    fn done(mut self, output: &str) -> ModelProto {
        self.outputs.push(output.to_owned());
        self.model()
    }
    fn arm(&mut self, x: &str, name: &str, k: [i64; 2]) -> String {
        self.weight(&format!("{name}.conv.weight"), &[2, 2, k[0], k[1]]);
        let pads = vec![k[0] / 2, k[1] / 2, k[0] / 2, k[1] / 2];
        let c = self.op("Conv", &[x, &format!("{name}.conv.weight")], &format!("{name}.c"),
            vec![ints("dilations", vec![1, 1]), int("group", 1), ints("kernel_shape", k.to_vec()), ints("pads", pads), ints("strides", vec![1, 1])]);
        self.norm(&c, name)
    }
    fn norm(&mut self, x: &str, name: &str) -> String {
        let mut inputs = vec![x.to_owned()];
        for part in ["weight", "bias", "mean", "var"] {
            let name = format!("{name}.bn.{part}");
            self.weight(&name, &[2]);
            inputs.push(name);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.op("BatchNormalization", &inputs, &format!("{name}.b"), vec![])
    }
    fn acb(&mut self, x: &str, name: &str) -> String {
        let a = self.arm(x, &format!("{name}.sq"), [3, 3]);
        let b = self.arm(x, &format!("{name}.hor"), [1, 3]);
        let c = self.arm(x, &format!("{name}.ver"), [3, 1]);
        let s = self.op("Add", &[&a, &b], &format!("{name}.s1"), vec![]);
        self.op("Add", &[&s, &c], &format!("{name}.s2"), vec![])
    }
}

fn blocks(n: usize) -> ModelProto {
    let mut m = Made::default();
    let mut x = "x".to_owned();
    for i in 0..n {
        let y = m.acb(&x, &format!("l{i}"));
        x = m.op("Relu", &[&y], &format!("l{i}.r"), vec![]);
    }
    m.done(&x)
}
fn one_kernel(n: usize) -> ModelProto {
    let mut m = Made::default();
    m.weight("k", &[2, 2, 1, 1]);
    let mut sum = m.op("Conv", &["x", "k"], "c", vec![]);
    for i in 0..n {
        let c = m.op("Conv", &["x", "k"], &format!("c{i}"), vec![]);
        sum = m.op("Add", &[&sum, &c], &format!("s{i}"), vec![]);
    }
    m.done(&sum)
}
fn own_kernels(n: usize) -> ModelProto {
    let mut m = Made::default();
    m.weight("k", &[2, 2, 1, 1]);
    let mut sum = m.op("Conv", &["x", "k"], "c", vec![]);
    for i in 0..n {
        m.weight(&format!("k{i}"), &[2, 2, 1, 1]);
        let c = m.op("Conv", &["x", &format!("k{i}")], &format!("c{i}"), vec![]);
        sum = m.op("Add", &[&sum, &c], &format!("s{i}"), vec![]);
    }
    m.done(&sum)
}
/// Every partial sum is needed.
fn partial_sums(n: usize) -> ModelProto {
    let mut m = Made::default();
    m.weight("k", &[2, 2, 1, 1]);
    let mut sum = m.op("Conv", &["x", "k"], "c", vec![]);
    for i in 0..n {
        m.weight(&format!("k{i}"), &[2, 2, 1, 1]);
        let c = m.op("Conv", &["x", &format!("k{i}")], &format!("c{i}"), vec![]);
        sum = m.op("Add", &[&sum, &c], &format!("s{i}"), vec![]);
        let r = m.op("Relu", &[&sum], &format!("r{i}"), vec![]);
        m.outputs.push(r);
    }
    m.done(&sum)
}
/// Convs of n tensors, so that the sum's terms stay apart.
fn apart(n: usize) -> ModelProto {
    let mut m = Made::default();
    m.weight("k", &[2, 2, 1, 1]);
    let mut sum = m.op("Conv", &["x", "k"], "c", vec![]);
    for i in 0..n {
        m.weight(&format!("k{i}"), &[2, 2, 1, 1]);
        let r = m.op("Relu", &["x"], &format!("r{i}"), vec![]);
        let c = m.op("Conv", &[&r, &format!("k{i}")], &format!("c{i}"), vec![]);
        sum = m.op("Add", &[&sum, &c], &format!("s{i}"), vec![]);
    }
    m.done(&sum)
}
fn adds(n: usize) -> ModelProto {
    let mut m = Made::default();
    let mut sum = "x".to_owned();
    for i in 0..n {
        sum = m.op("Add", &[&sum, "x"], &format!("s{i}"), vec![]);
    }
    m.done(&sum)
}
fn doubled(n: usize) -> ModelProto {
    let mut m = Made::default();
    let mut sum = "x".to_owned();
    for i in 0..n {
        sum = m.op("Add", &[&sum, &sum], &format!("s{i}"), vec![]);
    }
    m.done(&sum)
}
fn residuals(n: usize) -> ModelProto {
    let mut m = Made::default();
    let mut sum = "x".to_owned();
    for i in 0..n {
        m.weight(&format!("k{i}"), &[2, 2, 1, 1]);
        let c = m.op("Conv", &[&sum, &format!("k{i}")], &format!("c{i}"), vec![]);
        let r = m.op("Relu", &[&c], &format!("r{i}"), vec![]);
        sum = m.op("Add", &[&sum, &r], &format!("s{i}"), vec![]);
    }
    m.done(&sum)
}
fn row(op: &str, n: usize) -> ModelProto {
    let mut m = Made::default();
    let mut x = "x".to_owned();
    for i in 0..n {
        x = m.op(op, &[&x], &format!("v{i}"), vec![]);
    }
    m.done(&x)
}
fn norms(n: usize) -> ModelProto {
    let mut m = Made::default();
    let mut x = "x".to_owned();
    for i in 0..n {
        x = m.norm(&x, &format!("n{i}"));
    }
    m.done(&x)
}
fn convs(n: usize) -> ModelProto {
    let mut m = Made::default();
    let mut x = "x".to_owned();
    for i in 0..n {
        m.weight(&format!("k{i}"), &[2, 2, 1, 1]);
        x = m.op("Conv", &[&x, &format!("k{i}")], &format!("c{i}"), vec![]);
    }
    m.done(&x)
}
fn negs(n: usize) -> ModelProto {
    let mut m = Made::default();
    m.weight("k", &[2, 2, 1, 1]);
    let mut x = m.op("Conv", &["x", "k"], "c", vec![]);
    for i in 0..n {
        x = m.op("Neg", &[&x], &format!("v{i}"), vec![]);
    }
    m.done(&x)
}
fn unused_inputs(n: usize) -> ModelProto {
    let mut m = Made::default();
    let y = m.acb("x", "b");
    let mut m = m.done(&y);
    for i in 0..n {
        m.graph.as_mut().unwrap().input.push(ValueInfoProto { name: Some(format!("i{i}")), ..build::double_input("", 4) });
    }
    m
}
fn overridable(n: usize) -> ModelProto {
    let mut m = blocks(n);
    let g = m.graph.as_mut().unwrap();
    for t in &g.initializer {
        g.input.push(ValueInfoProto { name: t.name.clone(), ..build::double_input("", t.dims.len()) });
    }
    m
}
fn outputs(n: usize) -> ModelProto {
    let mut m = Made::default();
    let y = m.acb("x", "b");
    for i in 0..n {
        let r = m.op("Relu", &[&y], &format!("r{i}"), vec![]);
        m.outputs.push(r);
    }
    m.model()
}
fn readers(n: usize) -> ModelProto {
    let mut m = Made::default();
    let y = m.acb("x", "b");
    let mut names = vec![];
    for i in 0..n {
        names.push(m.op("Relu", &[&y], &format!("r{i}"), vec![]));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let z = m.op("Concat", &names, "z", vec![int("axis", 1)]);
    m.done(&z)
}
/// One tensor read by n blocks.
fn shared_input(n: usize) -> ModelProto {
    let mut m = Made::default();
    for i in 0..n {
        let y = m.acb("x", &format!("b{i}"));
        m.outputs.push(y);
    }
    m.model()
}
/// One convolution read by n blocks.
fn shared_conv(n: usize) -> ModelProto {
    let mut m = Made::default();
    m.weight("k", &[2, 2, 1, 1]);
    let c = m.op("Conv", &["x", "k"], "c", vec![]);
    for i in 0..n {
        let y = m.acb(&c, &format!("b{i}"));
        m.outputs.push(y);
    }
    m.model()
}
fn one_prefix(n: usize) -> ModelProto {
    let mut m = Made::default();
    m.weight("block.k", &[2, 2, 1, 1]);
    m.weight("block.j", &[2, 2, 1, 1]);
    let mut x = "x".to_owned();
    for i in 0..n {
        let a = m.op("Conv", &[&x, "block.k"], &format!("block.a{i}"), vec![]);
        let b = m.op("Conv", &[&x, "block.j"], &format!("block.b{i}"), vec![]);
        let s = m.op("Add", &[&a, &b], &format!("block.fused{i}"), vec![]);
        x = m.op("Relu", &[&s], &format!("block.fused.{i}"), vec![]);
    }
    m.done(&x)
}
/// n blocks with the same constants that differ in an attribute.
fn same_constants(n: usize) -> ModelProto {
    let mut m = Made::default();
    m.weight("k", &[2, 2, 1, 1]);
    m.weight("j", &[2, 2, 1, 1]);
    for i in 0..n {
        let pads = vec![0, 0, 0, i as i64];
        let a = m.op("Conv", &["x", "k"], &format!("a{i}"), vec![ints("pads", pads.clone())]);
        let b = m.op("Conv", &["x", "j"], &format!("b{i}"), vec![ints("pads", pads)]);
        let s = m.op("Add", &[&a, &b], &format!("s{i}"), vec![]);
        m.outputs.push(s);
    }
    m.model()
}
fn misses(n: usize) -> ModelProto {
    let mut m = Made::default();
    let mut x = "x".to_owned();
    for i in 0..n {
        let a = m.arm(&x, &format!("a{i}"), [3, 3]);
        let r = m.op("Relu", &[&x], &format!("r{i}"), vec![]);
        let b = m.arm(&r, &format!("b{i}"), [3, 3]);
        x = m.op("Mul", &[&a, &b], &format!("m{i}"), vec![]);
        let a = m.arm(&x, &format!("c{i}"), [3, 3]);
        let r = m.op("Relu", &[&x], &format!("q{i}"), vec![]);
        let b = m.arm(&r, &format!("d{i}"), [3, 3]);
        x = m.op("Add", &[&a, &b], &format!("n{i}"), vec![]);
    }
    m.done(&x)
}
fn wide_sum(n: usize) -> ModelProto {
    let mut m = Made::default();
    let mut names = vec![];
    for i in 0..n {
        m.weight(&format!("k{i}"), &[2, 2, 1, 1]);
        names.push(m.op("Conv", &["x", &format!("k{i}")], &format!("c{i}"), vec![]));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let z = m.op("Sum", &names, "z", vec![]);
    m.done(&z)
}
fn wide_concat(n: usize) -> ModelProto {
    let mut m = Made::default();
    m.weight("k", &[2, 2, 1, 1]);
    let mut names = vec![];
    for i in 0..n {
        names.push(m.op("Relu", &["x"], &format!("c{i}"), vec![]));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let z = m.op("Concat", &names, "z", vec![int("axis", 0)]);
    for i in 0..n {
        let c = m.op("Conv", &["x", "k"], &format!("d{i}"), vec![]);
        let o = m.op("Add", &[&c, &z], &format!("s{i}"), vec![]);
        m.outputs.push(o);
    }
    m.model()
}
fn ifs(n: usize) -> ModelProto {
    use acb_fuse::onnx::proto::{GraphProto, attribute_proto::AttributeType};
    let mut m = Made::default();
    let mut x = "x".to_owned();
    for i in 0..n {
        let mut inner = Made::default();
        let y = inner.acb(&x, &format!("b{i}"));
        m.weights.append(&mut inner.weights);
        let body = GraphProto { node: inner.nodes, output: vec![ValueInfoProto { name: Some(y), ..Default::default() }], ..Default::default() };
        let branch = AttributeProto { name: Some("then_branch".into()), r#type: Some(AttributeType::Graph.into()), g: Some(body), ..Default::default() };
        x = m.op("If", &["x"], &format!("v{i}"), vec![branch]);
    }
    m.done(&x)
}
fn slices(n: usize) -> ModelProto {
    let mut m = Made::default();
    m.weights.push(acb_fuse::onnx::tensor::from_integers("starts", &[0, 0]));
    m.weights.push(acb_fuse::onnx::tensor::from_integers("ends", &[-1, -1]));
    m.weights.push(acb_fuse::onnx::tensor::from_integers("axes", &[2, 3]));
    let mut x = "x".to_owned();
    for i in 0..n {
        x = m.op("Slice", &[&x, "starts", "ends", "axes"], &format!("v{i}"), vec![]);
    }
    m.done(&x)
}
fn constants(n: usize) -> ModelProto {
    let mut m = Made::default();
    let mut x = "x".to_owned();
    for i in 0..n {
        m.weight(&format!("k{i}"), &[2, 2, 1, 1]);
        let mut k = format!("k{i}");
        for j in 0..3 { k = m.op("Identity", &[&k], &format!("k{i}.{j}"), vec![]); }
        let a = m.op("Conv", &[&x, &k], &format!("a{i}"), vec![]);
        let b = m.op("Conv", &[&x, "k0"], &format!("b{i}"), vec![]);
        let s = m.op("Add", &[&a, &b], &format!("s{i}"), vec![]);
        x = m.op("Relu", &[&s], &format!("r{i}"), vec![]);
    }
    m.done(&x)
}
fn filled_borders(n: usize) -> ModelProto {
    let mut m = Made::default();
    m.weight("k", &[2, 2, 1, 1]);
    let mut x = m.op("Conv", &["x", "k"], "c", vec![]);
    for i in 0..n { x = m.op("Identity", &[&x], &format!("v{i}"), vec![]); }
    m.weight("value", &[]);
    m.weights.push(acb_fuse::onnx::tensor::from_integers("pads", &[0, 0, 1, 1, 0, 0, 1, 1]));
    for i in 0..n {
        let o = m.op("Pad", &[&x, "pads", "value"], &format!("p{i}"), vec![]);
        m.outputs.push(o);
    }
    m.model()
}
fn transposes(n: usize) -> ModelProto {
    let mut m = Made::default();
    let mut x = "x".to_owned();
    for i in 0..n { x = m.op("Transpose", &[&x], &format!("v{i}"), vec![ints("perm", vec![0, 2, 3, 1])]); }
    m.done(&x)
}
fn dead(n: usize) -> ModelProto {
    let mut m = Made::default();
    let y = m.acb("x", "b");
    for i in 0..n { m.op("Relu", &["x"], &format!("d{i}"), vec![]); }
    m.done(&y)
}

type Row = (&'static str, fn(usize) -> ModelProto, usize);
const MODELS: &[Row] = &[
    ("blocks", blocks, 100),
    ("one kernel", one_kernel, 200),
    ("own kernels", own_kernels, 200),
    ("partial sums", partial_sums, 200),
    ("apart", apart, 300),
    ("adds", adds, 1000),
    ("doubled", doubled, 1000),
    ("residuals", residuals, 500),
    ("relus", |n| row("Relu", n), 2000),
    ("identities", |n| row("Identity", n), 2000),
    ("norms", norms, 300),
    ("convs", convs, 300),
    ("negs", negs, 1000),
    ("unused inputs", unused_inputs, 2000),
    ("overridable", overridable, 100),
    ("outputs", outputs, 1000),
    ("readers", readers, 1000),
    ("shared input", shared_input, 100),
    ("shared conv", shared_conv, 100),
    ("one prefix", one_prefix, 200),
    ("same constants", same_constants, 200),
    ("misses", misses, 100),
    ("wide sum", wide_sum, 120),
    ("wide concat", wide_concat, 500),
    ("ifs", ifs, 100),
    ("slices", slices, 500),
    ("constants", constants, 200),
    ("filled borders", filled_borders, 500),
    ("transposes", transposes, 1000),
    ("dead", dead, 1000),
];

fn measured(model: &ModelProto, write: bool) -> (Duration, u64, u64, usize, usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    let out = Place::File(folder.path().join("out.onnx"));
    let options = Options { verify: false, ..Options::default() };
    let begin = Instant::now();
    let report = convert(&Place::File(path.clone()), write.then_some(&out), &options).unwrap();
    let time = begin.elapsed();
    let blocks = report.blocks.len();
    drop(report);
    let _profiler = if std::env::var_os("NODHAT").is_none() { Some(dhat::Profiler::builder().testing().trim_backtraces(Some(4)).build()) } else { None };
    if _profiler.is_none() { return (time, 0, 0, 0, blocks) }
    let _report = convert(&Place::File(path), write.then_some(&out), &options).unwrap();
    let stats = dhat::HeapStats::get();
    (time, stats.total_blocks, stats.total_bytes, stats.max_bytes, blocks)
}

#[test]
fn explore() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let scale: usize = std::env::var("SCALE").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for (name, make, n) in MODELS {
        if !name.contains(&only) { continue; }
        let n = n * scale;
        for write in [false, true] {
            let (a, b) = (measured(&make(n), write), measured(&make(2 * n), write));
            let r = |a: f64, b: f64| b / a;
            println!("{name:16} {n:6} {} time {:7.1} ms x{:4.1}  allocs {:8} x{:4.2}  bytes {:10} x{:4.2}  peak {:9} x{:4.2} blocks {} {}",
                if write { "rw" } else { "--" }, a.0.as_secs_f64() * 1e3, r(a.0.as_secs_f64(), b.0.as_secs_f64()),
                a.1, r(a.1 as f64, b.1 as f64), a.2, r(a.2 as f64, b.2 as f64), a.3, r(a.3 as f64, b.3 as f64), a.4, b.4);
        }
    }
}
