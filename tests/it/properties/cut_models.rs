//! However a model is cut into slices, it computes the same, and tensors that wait between slices
//! count towards the memory limit.

use std::time::Duration;

use acb_fuse::engine::tensors::{self, EngineTensor};
use acb_fuse::engine::{Array, Limits};
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::TensorProto;
use acb_fuse::onnx::proto::attribute_proto::AttributeType;
use acb_fuse::onnx::proto::tensor_proto::DataType;
use acb_fuse::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor::{from_floats, from_integers};
use acb_fuse::onnx::write;
use acb_fuse::onnx::write::{double_input, int, ints, node};
use acb_fuse::verify::float_types::FloatTypes;
use acb_fuse::verify::inputs::Random;
use acb_fuse::verify::sliced_run::{Bridges, SlicedRun};
use acb_fuse::verify::slices::SliceLimits;
use prost::Message;

const WHOLE: SliceLimits = SliceLimits { nodes: usize::MAX, bytes: usize::MAX };
const ONE_EACH: SliceLimits = SliceLimits { nodes: 1, ..WHOLE };

fn floats(name: &str, shape: &[usize]) -> TensorProto {
    match Random::new(5).floats(shape) {
        Array::Float(values) => from_floats(name, &values, Float::F64),
        Array::Int(_) => unreachable!(),
    }
}

fn named(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() }
}

fn body(name: &str, nodes: Vec<NodeProto>, output: &str) -> AttributeProto {
    let graph = GraphProto { node: nodes, output: vec![named(output)], ..GraphProto::default() };
    let (name, r#type) = (Some(name.to_owned()), Some(AttributeType::Graph.into()));
    AttributeProto { name, r#type, g: Some(Box::new(graph)), ..AttributeProto::default() }
}

/// Builds a model with the inputs `x`, of 2 × 3 × 4 × 5, and `unused`.
fn model(nodes: Vec<NodeProto>, stored: Vec<TensorProto>, outputs: &[&str]) -> ModelProto {
    let inputs = vec![double_input("x", 4), double_input("unused", 1)];
    write::model(17, inputs, nodes, stored, outputs)
}

fn outputs_of(
    model: &ModelProto,
    most: SliceLimits,
    samples: u64,
    bytes: usize,
) -> Result<Vec<Vec<Array>>, String> {
    let model = Model::index(model.encode_to_vec().into(), Storage::default()).unwrap();
    let graphs = Graph::read_all(&model).unwrap();
    let limits = Limits::new(Duration::from_secs(60), bytes);
    let samples = (0..samples).map(|seed| {
        let mut random = Random::new(seed);
        let shapes: [&[usize]; 2] = [&[2, 3, 4, 5], &[1]];
        let double = DataType::Double.into();
        tensors::from_arrays(shapes.map(|shape| (random.floats(shape), double)).to_vec(), limits)
            .unwrap()
    });
    let names = ["x".to_owned(), "unused".to_owned()];
    let samples: Vec<Vec<EngineTensor>> = samples.collect();
    let bridges = Bridges::default();
    let types = FloatTypes::of(&graphs).unwrap();
    let run = SlicedRun::of(&graphs, &types, &names, &samples, &bridges).unwrap();
    run.outputs(most, limits).map_err(|stopped| stopped.to_string())
}

fn cases() -> Vec<(&'static str, ModelProto)> {
    let relu = |from, to| node("Relu", "", &[from], to, vec![]);
    let constant = |name, tensor| node("Constant", "", &[], name, vec![tensor]);
    let value = |tensor| write::tensor("value", tensor);
    // A target shape of the first axis of x, and −1.
    let shape = || {
        vec![
            node("Shape", "", &["x"], "shape", vec![]),
            constant("zero", value(from_integers("", &[0]))),
            node("Gather", "", &["shape", "zero"], "batch", vec![int("axis", 0)]),
            constant("rest", write::ints("value_ints", vec![-1])),
            node("Concat", "", &["batch", "rest"], "target", vec![int("axis", 0)]),
            node("Reshape", "", &["x", "target"], "flat", vec![]),
        ]
    };
    let choice = |then| {
        vec![
            node("ReduceSum", "", &["x"], "sum", vec![int("keepdims", 0)]),
            node("Greater", "", &["sum", "limit"], "is_large", vec![]),
            relu("x", "seen"),
            node(
                "If",
                "",
                &["is_large"],
                "y",
                vec![
                    // Its bodies read a tensor and a constant of the graph around them.
                    body("then_branch", then, "t"),
                    body("else_branch", vec![node("Add", "", &["x", "c"], "e", vec![])], "e"),
                ],
            ),
        ]
    };
    let both = vec![
        node("Mul", "", &["seen", "c"], "t", vec![]),
        node("Relu", "", &["x"], "dead", vec![]),
    ];
    let split = NodeProto {
        output: vec!["a".into(), "b".into(), "dropped".into()],
        ..node("Split", "", &["x"], "", vec![int("axis", 1)])
    };
    let dropout = NodeProto {
        output: vec!["kept".into(), "mask".into()],
        ..node("Dropout", "", &["x", "ratio"], "", vec![])
    };
    let limit = |at: f64| from_floats("limit", &ndarray::arr0(at).into_dyn(), Float::F64);
    let scalar = |name| floats(name, &[]);
    let pads = from_integers("pads", &[0, 0, 1, -1, 0, 0, -1, 1]);
    let halves =
        from_floats("scales", &ndarray::arr1(&[1.0, 1.0, 2.0, 2.0]).into_dyn(), Float::F32);
    vec![
        ("chain", model(vec![relu("x", "a"), relu("a", "b"), relu("b", "y")], vec![], &["y"])),
        ("shape sub-graph", model(shape(), vec![], &["flat", "target"])),
        (
            "scales that are computed",
            model(
                vec![
                    node("Identity", "", &["scales"], "same", vec![]),
                    node(
                        "Resize",
                        "",
                        &["x", "", "same"],
                        "y",
                        vec![write::string("mode", "nearest")],
                    ),
                ],
                vec![halves],
                &["y"],
            ),
        ),
        (
            "bounds that are computed",
            model(
                vec![
                    node("Add", "", &["one", "one"], "two", vec![]),
                    node("Slice", "", &["x", "one", "two", "two"], "y", vec![]),
                ],
                vec![from_integers("one", &[1])],
                &["y"],
            ),
        ),
        (
            "kernel that is computed",
            model(
                vec![
                    node("Transpose", "", &["k"], "kernel", vec![ints("perm", vec![3, 2, 0, 1])]),
                    node("Conv", "", &["x", "kernel"], "y", vec![]),
                ],
                vec![floats("k", &[3, 3, 3, 2])],
                &["y"],
            ),
        ),
        (
            "several outputs",
            model(
                vec![split, relu("b", "c"), node("Add", "", &["a", "c"], "y", vec![])],
                vec![],
                &["y", "a", "c"],
            ),
        ),
        (
            "inputs, constants and repeats as outputs",
            model(
                vec![constant("one", value(floats("", &[1]))), relu("x", "y")],
                vec![floats("c", &[2, 2])],
                &["y", "c", "x", "one", "y", "unused", "c"],
            ),
        ),
        ("nothing but constants", model(vec![], vec![floats("c", &[2, 2])], &["c"])),
        (
            "constants read twice",
            model(
                vec![
                    node("Add", "", &["x", "c"], "a", vec![]),
                    node("Mul", "", &["a", "c"], "y", vec![]),
                ],
                vec![scalar("c")],
                &["y"],
            ),
        ),
        ("then", model(choice(both.clone()), vec![scalar("c"), limit(-1e9)], &["y"])),
        ("else", model(choice(both), vec![scalar("c"), limit(1e9)], &["y"])),
        ("a dropout", model(vec![dropout, relu("kept", "y")], vec![scalar("ratio")], &["y"])),
        (
            "more than one node for one",
            model(
                vec![node("Pad", "", &["x", "pads"], "p", vec![]), relu("p", "y")],
                vec![pads],
                &["y"],
            ),
        ),
    ]
}

/// However a model is cut, it computes the same, to the last bit.
#[test]
fn slices_give_what_the_whole_gives() {
    for (case, model) in cases() {
        let whole = outputs_of(&model, WHOLE, 3, 1 << 20);
        assert!(whole.as_ref().is_ok_and(|samples| samples.len() == 3), "{case}: {whole:?}");
        for nodes in [1, 2, 3] {
            assert_eq!(
                outputs_of(&model, SliceLimits { nodes, ..WHOLE }, 3, 1 << 20),
                whole,
                "{case}"
            );
        }
        assert_eq!(
            outputs_of(&model, SliceLimits { bytes: 0, ..WHOLE }, 3, 1 << 20),
            whole,
            "{case}"
        );
    }
}

/// At each Relu, four things are alive: what it reads and what it makes (2 × 960 bytes), the zero
/// that it compares with, and the input that nothing reads (16 bytes in all).
#[test]
fn tensors_between_slices_count() {
    let relu = |from, to| node("Relu", "", &[from], to, vec![]);
    let chain = model(vec![relu("x", "a"), relu("a", "b"), relu("b", "y")], vec![], &["y"]);
    let kept = model(vec![relu("x", "a"), relu("a", "b"), relu("b", "y")], vec![], &["y", "a"]);
    for (case, model, samples, needed) in
        [("chain", &chain, 1, 1936), ("an output is kept", &kept, 1, 2896)]
    {
        assert!(outputs_of(model, ONE_EACH, samples, needed).is_ok(), "{case}");
        let refused = outputs_of(model, ONE_EACH, samples, needed - 1);
        assert!(refused.is_err_and(|error| error.contains("MiB at a time")), "{case}");
    }
}
