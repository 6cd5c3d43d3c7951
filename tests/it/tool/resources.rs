//! What a model may take of the machine: under a limit of memory, the tool ends on every hostile
//! file with a message and a documented code, and `--timeout` ends whatever does not end by itself.

#![cfg(unix)]
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::proto::tensor_shape_proto::Dimension;
use acb_fuse::onnx::proto::tensor_shape_proto::dimension::Value as Size;
use acb_fuse::onnx::proto::type_proto::Value;
use acb_fuse::onnx::proto::{ModelProto, NodeProto, TensorProto, ValueInfoProto};
use acb_fuse::onnx::tensor::{from_floats, from_integers};
use acb_fuse::onnx::write::{self, double_input, int, ints, node};
use ndarray::{ArrayD, IxDyn};
use prost::Message;

use crate::support::fixtures;
use crate::support::parallel;
use crate::support::tool::tool;

/// The limit of the address space in KiB: 2.5 GB.
const LIMIT: &str = "2621440";

/// The highest documented exit code.
const LAST_CODE: i32 = 8;

fn op(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(op, output, inputs, output, vec![])
}

fn filled(name: &str, dims: &[usize], value: f64) -> TensorProto {
    from_floats(name, &ArrayD::from_elem(IxDyn(dims), value), Float::F64)
}

fn sized(name: &str, sizes: &[i64]) -> ValueInfoProto {
    let mut info = double_input(name, 1);
    if let Some(Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        let dim =
            |&size: &i64| Dimension { value: Some(Size::DimValue(size)), ..Dimension::default() };
        tensor.shape.as_mut().unwrap().dim = sizes.iter().map(dim).collect();
    }
    info
}

/// Returns a model of a block, `c = Conv(x) + Conv(x)`, and of `nodes` behind it.
fn behind_a_block(nodes: Vec<NodeProto>, stored: Vec<TensorProto>) -> ModelProto {
    beside(vec![], nodes, stored)
}

fn beside(
    inputs: Vec<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    mut stored: Vec<TensorProto>,
) -> ModelProto {
    let conv = |kernel: &str, pad: i64, out: &str| {
        node("Conv", out, &["x", kernel], out, vec![ints("pads", vec![pad; 4])])
    };
    let mut all = vec![conv("k", 0, "a"), conv("k3", 1, "b"), op("Add", &["a", "b"], "c")];
    all.extend(nodes);
    stored.extend([filled("k", &[4, 4, 1, 1], 0.5), filled("k3", &[4, 4, 3, 3], 0.5)]);
    let inputs = [vec![sized("x", &[1, 4, 8, 8])], inputs].concat();
    write::model(17, inputs, all, stored, &["y"])
}

/// One operator on what the block makes, with a list of integers as its second input.
fn asked(name: &str, list: &[i64]) -> ModelProto {
    behind_a_block(vec![op(name, &["c", "list"], "y")], vec![from_integers("list", list)])
}

/// A constant of these sizes, whose sum is added to what the block makes.
fn constant(name: &str, first: Option<&str>, sizes: &[i64]) -> ModelProto {
    let inputs: Vec<&str> = first.into_iter().chain(["sizes"]).collect();
    let nodes = vec![op(name, &inputs, "z"), summed(), op("Add", &["c", "r"], "y")];
    let stored = vec![from_integers("sizes", sizes), filled("one", &[1, 1], 1.0)];
    behind_a_block(nodes, stored)
}

fn summed() -> NodeProto {
    node("ReduceSum", "r", &["z"], "r", vec![write::int("keepdims", 0)])
}

/// A constant of 2³³ elements, whose sum is added to what the block reads.
fn before_the_block(name: &str, sizes: &[i64]) -> ModelProto {
    let inputs: &[&str] = if name == "ConstantOfShape" { &["sizes"] } else { &["one", "sizes"] };
    let mut model = behind_a_block(vec![op("Relu", &["c"], "y")], vec![]);
    let graph = model.graph.as_mut().unwrap();
    for node in &mut graph.node {
        node.input.iter_mut().filter(|input| *input == "x").for_each(|input| *input = "u".into());
    }
    graph.node.splice(0..0, [op(name, inputs, "z"), summed(), op("Add", &["x", "r"], "u")]);
    graph.initializer.extend([from_integers("sizes", sizes), filled("one", &[1, 1], 1.0)]);
    model
}

/// The same as [`constant`], with the sizes of a graph input.
fn of_measured(name: &str, sizes: &[i64]) -> ModelProto {
    let made = op(name, &["one", "sizes"], "z");
    let shape = op("Shape", &["w"], "sizes");
    let nodes = vec![shape, made, summed(), op("Add", &["c", "r"], "y")];
    beside(vec![sized("w", sizes)], nodes, vec![filled("one", &[1, 1], 1.0)])
}

fn pool(taps: i64) -> ModelProto {
    let how = vec![
        ints("kernel_shape", vec![taps; 2]),
        ints("pads", vec![taps / 2; 4]),
        write::int("count_include_pad", 1),
    ];
    behind_a_block(vec![node("AveragePool", "y", &["c"], "y", how)], vec![])
}

/// A row of `count` sums (or differences) of a tensor and itself.
fn doubled(name: &str, terms: usize, count: usize) -> ModelProto {
    let mut nodes = Vec::new();
    let mut last = "c".to_owned();
    for at in 1..=count {
        let next = if at == count { "y".to_owned() } else { format!("d{at}") };
        nodes.push(op(name, &vec![last.as_str(); terms], &next));
        last = next;
    }
    behind_a_block(nodes, vec![])
}

/// Each Concat joins one more kernel to those before it, which are one kernel by then.
fn joined_one_by_one(count: usize) -> ModelProto {
    let (mut nodes, mut stored, mut last) = (Vec::new(), Vec::new(), "c".to_owned());
    for at in 0..count {
        let [kernel, made, next] = ["kernel", "made", "joined"].map(|name| format!("{name}{at}"));
        nodes.push(op("Conv", &["x", &kernel], &made));
        stored.push(filled(&kernel, &[1, 4, 1, 1], at as f64));
        let next = if at + 1 == count { "y".to_owned() } else { next };
        nodes.push(node("Concat", &next, &[&last, &made], &next, vec![int("axis", 1)]));
        last = next;
    }
    behind_a_block(nodes, stored)
}

/// A row of sums, each of the two tensors before it.
fn fibonacci(count: usize) -> ModelProto {
    let mut nodes = Vec::new();
    let (mut one, mut other) = ("c".to_owned(), "n".to_owned());
    nodes.push(op("Neg", &["c"], "n"));
    for at in 1..=count {
        let next = if at == count { "y".to_owned() } else { format!("f{at}") };
        nodes.push(op("Add", &[&one, &other], &next));
        (one, other) = (other, next);
    }
    behind_a_block(nodes, vec![])
}

const AXES: i64 = 100_000;

fn turned(rank: i64) -> ModelProto {
    let turn = |from: &str, to: &str| {
        node("Transpose", to, &[from], to, vec![ints("perm", (0..rank).rev().collect())])
    };
    let nodes = vec![turn("x", "t"), op("Mul", &["t", "half"], "u"), turn("u", "y")];
    let stored = vec![filled("half", &[1], 0.5)];
    write::model(17, vec![sized("x", &vec![1; rank as usize])], nodes, stored, &["y"])
}

fn convolved(rank: i64) -> ModelProto {
    let nodes = vec![
        op("Conv", &["x", "k"], "a"),
        node("Conv", "b", &["x", "k"], "b", vec![write::int("group", 1)]),
        op("Add", &["a", "b"], "y"),
    ];
    let ones = vec![1; rank as usize];
    let kernel = TensorProto { dims: ones.clone(), ..filled("k", &[1], 0.5) };
    write::model(17, vec![sized("x", &ones)], nodes, vec![kernel], &["y"])
}

fn sliced(rank: i64) -> ModelProto {
    let list = |name: &str, number: fn(i64) -> i64| {
        from_integers(name, &(0..rank).map(number).collect::<Vec<_>>())
    };
    let stored = vec![list("from", |_| 0), list("to", |_| 1), list("axes", |axis| axis)];
    let nodes = vec![op("Slice", &["x", "from", "to", "axes"], "y")];
    write::model(17, vec![sized("x", &vec![1; rank as usize])], nodes, stored, &["y"])
}

type Made = Box<dyn Fn() -> ModelProto + Sync>;

/// Returns what each model asks for, the model, and what is said of it; empty if any message will
/// do.
fn cases() -> Vec<(String, Made, &'static str)> {
    let mut cases: Vec<(String, Made, &'static str)> = Vec::new();
    let mut add = |name: String, made: Made, said| cases.push((name, made, said));
    for (size, sizes) in
        [("1g", [1 << 13, 1 << 14]), ("8g", [1 << 14, 1 << 16]), ("all", [1 << 31; 2])]
    {
        for name in ["Expand", "Tile"] {
            add(
                format!("{name} {size}"),
                Box::new(move || constant(name, Some("one"), &sizes)),
                "",
            );
            add(
                format!("{name} of measured {size}"),
                Box::new(move || of_measured(name, &sizes)),
                "",
            );
        }
        add(
            format!("ConstantOfShape {size}"),
            Box::new(move || constant("ConstantOfShape", None, &sizes)),
            "",
        );
        add(
            format!("Pad {size}"),
            Box::new(move || asked("Pad", &[0, 0, 0, 0, 0, 0, sizes[0], sizes[1]])),
            "",
        );
        add(
            format!("Tile c {size}"),
            Box::new(move || asked("Tile", &[1, 1, sizes[0], sizes[1]])),
            "",
        );
    }
    for name in ["ConstantOfShape", "Expand", "Tile"] {
        add(
            format!("{name} before the block"),
            Box::new(move || before_the_block(name, &[1 << 16, 1 << 17])),
            "computes a constant beyond all reason",
        );
    }
    add("pool".into(), Box::new(|| pool((1 << 13) + 1)), "");
    add("doubled 24 times".into(), Box::new(|| doubled("Add", 2, 24)), "1 block fused");
    add("tripled 24 times".into(), Box::new(|| doubled("Sum", 3, 24)), "1 block fused");
    add("cancelled 24 times".into(), Box::new(|| doubled("Sub", 2, 24)), "");
    add(
        "doubled 2000 times".into(),
        Box::new(|| doubled("Add", 2, 2000)),
        "a fused weight would not be finite in",
    );
    add("kernels joined one by one".into(), Box::new(|| joined_one_by_one(1000)), "");
    add("fibonacci".into(), Box::new(|| fibonacci(60)), "");
    add("permutation of 100,000".into(), Box::new(|| turned(AXES)), "");
    add("kernel of 100,000 axes".into(), Box::new(|| convolved(AXES)), "");
    add("slice of 100,000 axes".into(), Box::new(|| sliced(AXES)), "");
    cases
}

/// Returns the exit code of the tool under the limit of memory, and all that it says.
fn limited(model: &Path, output: &Path) -> (Option<i32>, String) {
    let program = tool().get_program().to_owned();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v $0 && exec \"$@\"", LIMIT]).arg(program).arg(model).arg(output);
    let ended = shell.args(["--timeout", "300"]).stdin(Stdio::null()).output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    (ended.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn broken_files() -> Vec<PathBuf> {
    let folder = Path::new("fixtures/bad_input");
    let folders = ["", "errors", "near_misses", "resources"].map(|inside| folder.join(inside));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = files.map(|entry| entry.unwrap().path());
    files.filter(|path| fixtures::has_extension(path, "onnx")).collect()
}

#[test]
fn in_little_memory_every_hostile_file_ends_with_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let mut models: Vec<(PathBuf, &str)> =
        broken_files().into_iter().map(|path| (path, "")).collect();
    for (name, model, said) in cases() {
        let path = folder.path().join(format!("{name}.onnx"));
        fs::write(&path, model().encode_to_vec()).unwrap();
        models.push((path, said));
    }
    let sparse = with_sparse_kernel(folder.path());
    models.push((sparse, "no more than 2²⁵ are multiplied out"));
    parallel::each(&models, |(model, expected)| {
        let out = tempfile::tempdir().unwrap();
        let (code, said) = limited(model, &out.path().join("out.onnx"));
        let name = model.display();
        assert!(code.is_some_and(|code| code <= LAST_CODE), "{name}: {code:?}: {said}");
        assert!(!said.is_empty() && !said.contains("memory allocation of"), "{name}: {said}");
        assert!(!said.contains("--timeout"), "{name}: {said}");
        assert!(said.contains(expected), "{name}: {said}");
        for left in fs::read_dir(out.path()).unwrap() {
            let left = left.unwrap().file_name();
            assert!(!left.to_string_lossy().ends_with(".tmp"), "{name} left {left:?}");
        }
    });
}

/// Writes two convolutions in a row with one kernel of a GiB, in a side file that takes no room.
fn with_sparse_kernel(folder: &Path) -> PathBuf {
    use acb_fuse::onnx::proto::StringStringEntryProto;
    let side = 1i64 << 14;
    let bytes = side * side * 4;
    fs::File::create(folder.join("w.bin")).unwrap().set_len(bytes as u64).unwrap();
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    };
    let kernel = TensorProto {
        name: Some("k".into()),
        dims: vec![side, side, 1, 1],
        data_type: Some(1),
        data_location: Some(1),
        external_data: vec![entry("location", "w.bin"), entry("length", &bytes.to_string())],
        ..TensorProto::default()
    };
    let mut x = sized("x", &[1, side, 1, 1]);
    if let Some(Value::TensorType(tensor)) = x.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        tensor.elem_type = Some(1);
    }
    let nodes = vec![op("Conv", &["x", "k"], "t"), op("Conv", &["t", "k"], "y")];
    let path = folder.join("sparse.onnx");
    fs::write(&path, write::model(17, vec![x], nodes, vec![kernel], &["y"]).encode_to_vec())
        .unwrap();
    path
}

const NETWORK: &str = "fixtures/networks/cifar_quick/torchscript_kept_static.onnx";

/// A model of more bytes than a pipe holds.
const LARGE: &str = "fixtures/networks/densenet121/plain.onnx";

/// The tool waits for a model that never comes, or for a reader of its result.
#[test]
fn what_does_not_end_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    fs::write(&out, "old").unwrap();
    let to_file = out.to_str().unwrap();
    for (arguments, stage) in [(["-", to_file], "reading"), ([LARGE, "-"], "writing")] {
        let mut tool = tool();
        tool.args(arguments).args(["--no-verify", "--timeout", "10"]);
        let pipes = tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let _waits = (child.stdin.take(), child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7), "{said}");
        assert!(said.contains(&format!("stopped while {stage}")), "{said}");
        assert!(said.contains("--timeout allows more") && said.lines().count() == 1, "{said}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read(&out).unwrap(), b"old");
    }
}

/// A row of `blocks` blocks and `convs` single convolutions, each with a Relu behind it, on an
/// image of `pixels` × `pixels`.
fn row_of(blocks: usize, convs: usize, pixels: i64) -> ModelProto {
    let conv = |from: &str, kernel: &str, pad: i64, to: &str| {
        node("Conv", to, &[from, kernel], to, vec![ints("pads", vec![pad; 4])])
    };
    let (mut nodes, mut stored, mut last) = (Vec::new(), Vec::new(), "x".to_owned());
    for at in 0..blocks + convs {
        let [a, b, c, wide] = ["a", "b", "c", "wide"].map(|name| format!("{name}{at}"));
        nodes.push(conv(&last, "own", 1, &a));
        if at < blocks {
            stored.push(filled(&wide, &[4, 4, 3, 3], 0.02));
            nodes.push(conv(&last, &wide, 1, &b));
            nodes.push(op("Add", &[&a, &b], &c));
        }
        last = if at + 1 == blocks + convs { "y".to_owned() } else { format!("r{at}") };
        nodes.push(op("Relu", &[if at < blocks { &c } else { &a }], &last));
    }
    stored.push(filled("own", &[4, 4, 3, 3], 0.02));
    write::model(17, vec![sized("x", &[1, 4, pixels, pixels])], nodes, stored, &["y"])
}

/// A sum, term by term, of a block and of two other tensors in turn.
fn row_of_additions(count: usize) -> ModelProto {
    let name = |at: usize| if at == count { "y".to_owned() } else { format!("s{at}") };
    let of = |at: usize| if at == 0 { "c".to_owned() } else { name(at) };
    let term = |at: usize| if at.is_multiple_of(2) { "x" } else { "a" };
    let nodes = (0..count).map(|at| op("Add", &[&of(at), term(at)], &name(at + 1)));
    behind_a_block(nodes.collect(), vec![])
}

/// Whatever the tool is doing when its time is over, and in whichever thread, it ends with one
/// line, and leaves the old OUT.
#[test]
fn it_is_ended_in_every_stage() {
    const STAGES: [&str; 4] = ["reading", "planning", "proving", "running"];
    let cases: Vec<(&str, Made)> = vec![
        ("planning", Box::new(|| row_of_additions(20_000))),
        ("proving", Box::new(|| row_of(2_000, 0, 16))),
        ("running", Box::new(|| row_of(1, 100, 1024))),
    ];
    let place = |stage: &str| STAGES.iter().position(|other| *other == stage).unwrap();
    parallel::each(&cases, |(stage, model)| {
        let folder = tempfile::tempdir().unwrap();
        let [model_path, out] = ["in.onnx", "out.onnx"].map(|name| folder.path().join(name));
        fs::write(&model_path, model().encode_to_vec()).unwrap();
        fs::write(&out, "").unwrap();
        // On a slow machine, the tool reaches the stage a little later.
        for seconds in [1u64, 2, 4, 8, 16] {
            let began = Instant::now();
            let mut tool = tool();
            let tool = tool.arg(&model_path).arg(&out).arg(format!("--timeout={seconds}"));
            let ended = tool.output().unwrap();
            let said = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(7), "{stage}: {said}");
            assert!(said.contains("nothing was written (--timeout allows more)"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(ended.stdout.is_empty() && fs::read(&out).unwrap().is_empty());
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "{stage}");
            // `--timeout` goes by the clock of the process, which a busy machine makes slow.
            assert!(began.elapsed() < Duration::from_secs(10 * seconds), "{stage}: {said}");
            let found = said.split(" while ").nth(1).and_then(|rest| rest.split(':').next());
            let found = found.unwrap_or_else(|| panic!("{said}"));
            assert!(place(found) <= place(stage), "{stage}: {said}");
            if found == *stage {
                return;
            }
        }
        panic!("it never came so far as {stage}");
    });
}

#[test]
fn what_ends_in_time_is_not_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let ended = tool().arg(NETWORK).arg(&out).args(["--timeout", "300"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert!(out.exists());
    for wrong in ["0", "-1", "soon", "1.5"] {
        let ended = tool().args([NETWORK, &format!("--timeout={wrong}")]).output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{wrong}");
    }
}
