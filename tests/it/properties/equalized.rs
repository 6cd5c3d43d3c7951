//! Factors of channels: where they are free, that wrong ones are caught, and what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use acb_fuse::emit::weights::FusedWeights;
use acb_fuse::engine::{Array, Limits};
use acb_fuse::equalize::channels::ChannelClasses;
use acb_fuse::equalize::observed::{self, RunnableModel};
use acb_fuse::equalize::placed::SeenShapes;
use acb_fuse::equalize::scaled::scaled;
use acb_fuse::facts::constants::Constants;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::ids::ValueId;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::tensor_proto::DataLocation;
use acb_fuse::onnx::proto::{ModelProto, StringStringEntryProto, TensorAnnotation};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use acb_fuse::ops::reader::Reader;
use acb_fuse::pipeline::claim::scaled_node;
use acb_fuse::verify::claim::Unproved;
use acb_fuse::verify::inputs::Random;
use acb_fuse::verify::original::Original;
use acb_fuse::verify::outcome::Outcome;
use acb_fuse::verify::proof::prove;
use acb_fuse::verify::run::run;
use acb_fuse::{Equalize, KeepIdentity, RunOptions, Which};
use ndarray::Axis;
use prost::Message;

use super::in_constant_nodes;
use super::mutants::with_model;
use crate::support::text;
use crate::support::tool::{converted, options};

/// Returns a model of two convolutions with `nodes` between them, which compute `b`, the input of
/// the second, from `a`, the output of the first.
fn between(nodes: &str) -> ModelProto {
    let text = format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,4,8,8] x) => (float[1,6,?,?] y)
        <float[8,4,3,3] first, float[8] bias, float[6,8,1,1] second, float[8] shift,
         float[8,1,1] each, int64[4] flat = {{1, 8, 2, 32}}, float six = {{6.0}}, float nought = {{0.0}}>
        {{ a = Conv <pads = [1,1,1,1]> (x, first, bias)
           {nodes}
           y = Conv (b, second) }}"#
    );
    text::model(&text).unwrap()
}

fn limits() -> Limits {
    Limits::new(Duration::from_secs(60), 1 << 30)
}

fn indexed(model: &ModelProto) -> Model {
    Model::index(model.encode_to_vec().into(), Storage::default()).unwrap()
}

/// Runs `check` on a model and the classes of its channels.
fn with_classes<T>(model: &ModelProto, check: impl FnOnce(&Reader, ChannelClasses) -> T) -> T {
    with_model(model.encode_to_vec(), |reader, _| {
        let (graph, constants) = (reader.graph, reader.constants);
        let runnable = RunnableModel::of(graph.model, limits()).unwrap();
        let tensors = observed::tensors(graph, |id| constants.contains(id));
        let samples = vec![vec![Random::new(3).noise(&[1, 4, 8, 8])]];
        let shapes = observed::shapes(&runnable, graph, &tensors, &samples).unwrap();
        let classes = classes_of(graph, constants, &shapes);
        check(reader, classes)
    })
}

fn classes_of(graph: &Graph, constants: &Constants, shapes: &SeenShapes) -> ChannelClasses {
    ChannelClasses::of(graph, constants, shapes, &BTreeSet::new()).unwrap()
}

/// Nodes between both convolutions, and the number of factors that are free there.
const BETWEEN: &[(&str, usize)] = &[
    ("b = Relu (a)", 8),
    ("b = LeakyRelu <alpha = 0.1> (a)", 8),
    ("b = LeakyRelu (a)", 8),
    ("b = PRelu (a, each)", 8),
    ("b = MaxPool <kernel_shape = [2,2]> (a)", 8),
    ("b = AveragePool <kernel_shape = [2,2]> (a)", 8),
    ("b = GlobalAveragePool (a)", 8),
    ("b = ReduceMean <axes = [2,3], keepdims = 1> (a)", 8),
    ("t = Transpose <perm = [0,2,3,1]> (a) r = Relu (t) b = Transpose <perm = [0,3,1,2]> (r)", 8),
    ("b = Reshape (a, flat)", 8),
    ("c = Cast <to = 1> (a) r = Relu (c) b = Cast <to = 1> (r)", 8),
    ("c = Relu (a) b = Add (a, c)", 8),
    ("p, q = Split <axis = 1> (a) r = Relu (q) b = Concat <axis = 1> (r, p)", 8),
    // A gate is pinned, but what it multiplies is not.
    (
        "g = GlobalAveragePool (x) h = Sigmoid (g) k = ReduceMean <axes = [1], keepdims = 1> (h) b = Mul (a, k)",
        8,
    ),
    // In a product of a tensor with itself, its factors would be squared.
    ("b = Mul (a, a)", 0),
    ("b = Sigmoid (a)", 0),
    ("b = Clip (a, nought, six)", 0),
    ("s = Sigmoid (a) b = Mul (a, s)", 0),
    ("s = Sigmoid (a) b = Add (a, s)", 0),
    ("b = Softmax <axis = 1> (a)", 0),
];

#[test]
fn factors_are_free_where_nodes_pass_them() {
    for (nodes, free) in BETWEEN {
        let model = between(nodes);
        for model in [&model, &in_constant_nodes(&model)] {
            with_classes(model, |_, classes| {
                assert_eq!(classes.count - 1, *free, "{nodes}: {:?}", classes.pinned);
            });
        }
    }
}

/// Outputs that are the same for all inputs do not measure what 8 bits leave of them.
#[test]
fn outputs_that_do_not_vary_judge_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.onnx", "out.onnx"].map(|name| folder.path().join(name));
    for last in ["r = Relu (c) y = Sub (r, r)", "s = Div (nought, nought) y = Add (c, s)"] {
        let text = format!(
            r#"<ir_version: 8, opset_import: ["" : 17]> net (float[1,2,5,5] x) => (float[1,2,5,5] y)
            <float[4,2,1,1] first, float[2,4,1,1] second, float nought = {{0}}>
            {{ a = Conv (x, first) b = Relu (a) c = Conv (b, second) {last} }}"#
        );
        std::fs::write(&input, text::model(&text).unwrap().encode_to_vec()).unwrap();
        let options = options(|options| {
            options.equalize = Some(Equalize::Best);
            let noise: Array = Random::new(11).noise(&[1, 2, 5, 5]);
            options.run.given = vec![(Which::Numbered(0), noise)];
        });
        let told = converted(&input, &output, &options).equalization.unwrap();
        let reason = "rounding to 8 bits does not show in the outputs on these inputs";
        assert_eq!(told.reason.as_deref(), Some(reason), "{last}: {told:?}");
        assert_eq!((told.applied, told.before), (false, None), "{last}");
    }
}

/// A weight that two nodes read, one of them elsewhere, has no free factors, nor has a tensor that
/// a body reads.
#[test]
fn shared_weights_and_what_bodies_read_are_pinned() {
    for nodes in [
        "r = Relu (a) b = Conv <group = 8> (r, each4) c = Conv <group = 8> (b, each4)",
        r#"k = Constant <value = bool {1}> () m = If (k) <then_branch = one () => (float z) { z = Relu (a) }, else_branch = two () => (float z) { z = Neg (a) }> b = Add (a, m)"#,
    ] {
        let is_shared = nodes.contains("each4");
        let mut text = format!(
            r#"<ir_version: 8, opset_import: ["" : 17]>
            net (float[1,4,8,8] x) => (float[1,6,?,?] y)
            <float[8,4,3,3] first, float[6,8,1,1] second, float[8,1,1,1] each4>
            {{ a = Conv <pads = [1,1,1,1]> (x, first) {nodes} y = Conv (b, second) }}"#
        );
        if is_shared {
            text = text.replace("y = Conv (b", "y = Conv (c");
        }
        let model = text::model(&text).unwrap();
        with_classes(&model, |reader, classes| {
            let is_free = |name: &str| classes.is_free(reader.graph.find(name).unwrap());
            assert!(!is_free("a") && !is_free("b"), "{nodes}: {:?}", classes.pinned);
        });
    }
}

/// Scales and zero points that the file states for a tensor would no longer be right for it.
#[test]
fn what_is_annotated_is_pinned() {
    for (annotated, free) in [("a", 0), ("first", 0), ("bias", 0), ("x", 8)] {
        let mut model = between("b = Relu (a)");
        model.graph.as_mut().unwrap().quantization_annotation.push(TensorAnnotation {
            tensor_name: Some(annotated.into()),
            ..TensorAnnotation::default()
        });
        with_classes(&model, |_, classes| {
            assert_eq!(classes.count - 1, free, "{annotated}: {:?}", classes.pinned);
        });
    }
}

/// Returns random factors, all different; the first, of the pinned class, is 1.
fn factors(count: usize) -> Vec<f64> {
    let mut random = Random::new(5);
    let mut factors: Vec<f64> =
        (0..count).map(|_| (random.uniform() * 24.0 - 12.0).exp2()).collect();
    factors[0] = 1.0;
    factors
}

fn new_tensors(
    reader: &Reader,
    classes: &ChannelClasses,
    factors: &[f64],
) -> BTreeMap<ValueId, FusedWeights> {
    let new = classes.scaled.iter().map(|one| {
        let new = scaled(reader.graph, reader.constants, classes, one, factors).unwrap();
        (one.value, new)
    });
    new.collect()
}

/// Returns the largest difference in the proofs of all nodes that factors touch.
fn proof(
    reader: &Reader,
    classes: &ChannelClasses,
    factors: &[f64],
    new: &BTreeMap<ValueId, FusedWeights>,
) -> Result<f64, Unproved> {
    let (graph, constants) = (reader.graph, reader.constants);
    let original = Original::new(graph, constants, &reader.sizes, None, Default::default());
    let scaled = classes.scaled.iter().map(|scaled| scaled.node);
    let nodes: BTreeSet<_> = scaled.chain(classes.passing.iter().copied()).collect();
    let mut largest = 0.0f64;
    for id in nodes {
        for claim in scaled_node(&original, id, classes, factors, new)? {
            largest = largest.max(prove(&original, &claim, limits())?);
        }
    }
    Ok(largest)
}

#[test]
fn right_factors_are_proved() {
    for (nodes, _) in BETWEEN {
        with_classes(&between(nodes), |reader, classes| {
            let factors = factors(classes.count);
            let new = new_tensors(reader, &classes, &factors);
            let proof = proof(reader, &classes, &factors, &new);
            assert!(proof.as_ref().is_ok_and(|error| *error < 1e-12), "{nodes}: {proof:?}");
        });
    }
}

/// New tensors, as a right or a mistaken equalizer makes them, by the value they replace.
type Tensors = BTreeMap<ValueId, FusedWeights>;

fn refactored(
    new: &Tensors,
    reader: &Reader,
    name: &str,
    change: impl Fn(usize, f64) -> f64,
) -> Tensors {
    let id = reader.graph.find(name).unwrap();
    let mut wrong = new.clone();
    let own = wrong.get_mut(&id).unwrap();
    let all = acb_fuse::numbers::all(own.numbers.as_ref());
    let changed: Vec<f64> = all.iter().enumerate().map(|(at, &own)| change(at, own)).collect();
    own.numbers = Arc::new(changed);
    wrong
}

/// A factor is forgotten, inverted, taken from another channel, or applied along another axis.
#[test]
fn wrong_tensors_are_caught_by_the_proof() {
    with_classes(&between("b = Relu (a)"), |reader, classes| {
        let factors = factors(classes.count);
        let new = new_tensors(reader, &classes, &factors);
        let of = |name: &str| {
            let id = reader.graph.find(name).unwrap();
            classes.factors(id, &factors).unwrap()
        };
        let a = of("a");
        let rows = |at: usize| at / 36;
        type Change<'c> = (&'c str, &'c str, &'c dyn Fn(usize, f64) -> f64);
        let mistakes: [Change; 6] = [
            ("forgotten in a filter", "first", &|at, w| if rows(at) == 3 { w / a[3] } else { w }),
            ("forgotten in the bias", "bias", &|at, w| w / a[at]),
            ("inverted", "first", &|at, w| w / a[rows(at)].powi(2)),
            ("forgotten by the reader", "second", &|at, w| w * a[at % 8]),
            ("inverted by the reader", "second", &|at, w| w * a[at % 8].powi(2)),
            ("along the other axis", "second", &|at, w| w * a[at % 8] / a[(at / 8) % 8]),
        ];
        for (name, tensor, change) in mistakes {
            let wrong = refactored(&new, reader, tensor, change);
            let found = proof(reader, &classes, &factors, &wrong);
            assert!(matches!(found, Err(Unproved::Differs { .. })), "{name}: {found:?}");
        }
    });
}

/// Factors pass a node through which they cannot pass: a clip, an exponential, one side of a sum.
#[test]
fn wrong_classes_are_caught_by_the_proof() {
    for nodes in ["b = Clip (a, nought, six)", "b = Exp (a)", "s = Exp (a) b = Add (a, s)"] {
        with_classes(&between(nodes), |reader, mut classes| {
            let [a, b] = ["a", "b"].map(|name| reader.graph.find(name).unwrap());
            for id in [a, b] {
                let own = classes.tensors.entry(id).or_insert_with(|| unreachable!("{nodes}"));
                own.classes = (1..=8).collect();
            }
            let node = reader.graph.value(b).producer.unwrap();
            classes.passing.push(node);
            let factors = factors(9);
            let found = proof(reader, &classes, &factors, &BTreeMap::new());
            assert!(matches!(found, Err(Unproved::Differs { .. })), "{nodes}: {found:?}");
        });
    }
}

/// Multiplies each slice of a stored tensor along an axis by its factor.
fn times(model: &mut ModelProto, name: &str, axis: usize, factors: &[f64]) {
    let graph = model.graph.as_mut().unwrap();
    let stored = graph.initializer.iter_mut().find(|stored| stored.name() == name).unwrap();
    let mut values = tensor::floats(stored, &Storage::default()).unwrap();
    for (mut slice, factor) in values.axis_iter_mut(Axis(axis)).zip(factors) {
        slice.mapv_inplace(|value| value * factor);
    }
    *stored = tensor::from_floats(name, &values, Float::F32);
}

/// Returns [`between`] with a Relu, whose channels differ by powers of two.
fn unbalanced() -> ModelProto {
    let mut unbalanced = between("b = Relu (a)");
    let powers: Vec<f64> = (0..8).map(|at| f64::from(at % 4 * 2).exp2()).collect();
    let inverse: Vec<f64> = powers.iter().map(|own| own.recip()).collect();
    times(&mut unbalanced, "first", 0, &powers);
    times(&mut unbalanced, "bias", 0, &powers);
    times(&mut unbalanced, "second", 1, &inverse);
    unbalanced
}

/// What no proof of a single node sees, the run does: a factor at an output, on a weight that
/// another node reads, on a tensor that a body reads.
#[test]
fn wrong_places_are_caught_by_the_run() {
    let powers: Vec<f64> = (0..8).map(|at| f64::from(at % 4 - 1).exp2()).collect();
    let inverse: Vec<f64> = powers.iter().map(|own| own.recip()).collect();
    let right = |model: &mut ModelProto| {
        times(model, "first", 0, &powers);
        times(model, "bias", 0, &powers);
        times(model, "second", 1, &inverse);
    };
    let at_output = |model: &mut ModelProto| times(model, "second", 0, &powers);
    let relu = between("b = Relu (a)");
    let read_elsewhere = between(
        "c = Relu (a) d = Conv (c, second) e = Conv <pads=[1,1,1,1]> (x, first) f = Sigmoid (e) b = Add (c, f)",
    );
    let in_a_body = between(
        r#"k = Constant <value = bool {1}> () m = If (k) <then_branch = one () => (float z) { z = Sigmoid (a) }, else_branch = two () => (float z) { z = Neg (a) }> c = Relu (a) b = Add (c, m)"#,
    );
    type Change<'c> = (&'c str, &'c ModelProto, &'c dyn Fn(&mut ModelProto), bool);
    let cases: [Change; 4] = [
        ("right", &relu, &right, true),
        ("at an output", &relu, &at_output, false),
        ("on a shared weight", &read_elsewhere, &right, false),
        ("in a body", &in_a_body, &right, false),
    ];
    for (name, old, change, is_right) in cases {
        let mut new = old.clone();
        change(&mut new);
        let outcome = run(&indexed(old), &indexed(&new), &RunOptions::default(), limits()).unwrap();
        let is_as_expected = match outcome {
            Outcome::Agreed(_) => is_right,
            Outcome::Differs { .. } => !is_right,
            _ => false,
        };
        assert!(is_as_expected, "{name}: {outcome:?}");
    }
}

/// Channels that differ by powers of two are found and made equal; with factors that are powers
/// of two the outputs stay the same bit for bit. A model that is balanced, be it by an earlier
/// conversion, stays as it is, byte for byte.
#[test]
fn unbalanced_channels_are_balanced() {
    let folder = tempfile::tempdir().unwrap();
    let balanced = between("b = Relu (a)");
    let unbalanced = unbalanced();
    for (model, how, is_given, is_applied) in [
        (&unbalanced, Equalize::Best, true, true),
        (&unbalanced, Equalize::Exact, true, true),
        (&unbalanced, Equalize::Best, false, true),
        (&unbalanced, Equalize::Exact, false, true),
        (&balanced, Equalize::Exact, true, false),
    ] {
        let [input, output] = ["in.onnx", "out.onnx"].map(|name| folder.path().join(name));
        let bytes = model.encode_to_vec();
        std::fs::write(&input, &bytes).unwrap();
        let options = options(|options| {
            options.equalize = Some(how);
            if is_given {
                let noise: Array = Random::new(11).noise(&[1, 4, 8, 8]);
                options.run.given = vec![(Which::Numbered(0), noise)];
            }
        });
        let report = converted(&input, &output, &options);
        let told = report.equalization.unwrap();
        assert_eq!(told.applied, is_applied, "{how:?}: {told:?}");
        let written = std::fs::read(&output).unwrap();
        assert_eq!(written != bytes, is_applied);
        if !is_applied {
            continue;
        }
        assert!(told.proof.unwrap() < 1e-12 && told.tensors == 3, "{told:?}");
        assert_eq!(told.before.is_some(), is_given);
        let error = told.run.unwrap().largest_error().unwrap();
        assert_eq!(error == 0.0, how == Equalize::Exact, "{how:?}: {error}");
        // Nothing but the three tensors changes.
        let (old, new) = (model, ModelProto::decode(written.as_slice()).unwrap());
        let (old, new) = (old.graph.as_ref().unwrap(), new.graph.unwrap());
        assert_eq!((&old.node, &old.input, &old.output), (&new.node, &new.input, &new.output));
        let names = |graph: &acb_fuse::onnx::proto::GraphProto| -> Vec<String> {
            graph.initializer.iter().map(|stored| stored.name().to_owned()).collect()
        };
        assert_eq!(names(old), names(&new));
        converted(&output, &input, &options);
        assert!(std::fs::read(&input).unwrap() == written, "{how:?}: a second conversion");
    }
}

/// Kernels in Constant nodes get factors, too; they become initializers, listed as inputs where the
/// file's IR version demands that. The gate rounds them as it does others.
#[test]
fn kernels_in_constant_nodes_are_balanced() {
    let folder = tempfile::tempdir().unwrap();
    let mut unbalanced = unbalanced();
    for (ir_version, inputs) in [(8, 1), (3, 4)] {
        unbalanced.ir_version = Some(ir_version);
        let stored = unbalanced.clone();
        let held = in_constant_nodes(&unbalanced);
        let told = [stored, held].map(|model| {
            let [input, output] = ["in.onnx", "out.onnx"].map(|name| folder.path().join(name));
            std::fs::write(&input, model.encode_to_vec()).unwrap();
            let options = options(|options| {
                options.equalize = Some(Equalize::Best);
                let noise: Array = Random::new(11).noise(&[1, 4, 8, 8]);
                options.run.given = vec![(Which::Numbered(0), noise)];
            });
            let report = converted(&input, &output, &options);
            let new = ModelProto::decode(std::fs::read(&output).unwrap().as_slice()).unwrap();
            let new = new.graph.unwrap();
            assert_eq!(report.sizes.after.nodes, Some(new.node.len()), "IR version {ir_version}");
            (report.equalization.unwrap(), new)
        });
        let [(stored, _), (held, new)] = told;
        assert!(held.applied && held.proof.unwrap() < 1e-12 && held.tensors == 3, "{held:?}");
        assert_eq!((held.before, held.after), (stored.before, stored.after));
        let names: Vec<&str> = new.initializer.iter().map(|stored| stored.name()).collect();
        assert_eq!(names, ["first", "bias", "second"]);
        let ops: Vec<&str> = new.node.iter().map(|node| node.op_type()).collect();
        assert_eq!(ops.iter().filter(|op| **op != "Constant").count(), 3);
        assert_eq!(new.input.len(), inputs, "IR version {ir_version}");
    }
}

/// Trained networks are equalized once; a second conversion changes nothing.
#[test]
fn a_second_conversion_equalizes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [once, twice] = ["once.onnx", "twice.onnx"].map(|name| folder.path().join(name));
    // The last one is `--for int8`.
    let ways = [
        (Equalize::Best, KeepIdentity::Never),
        (Equalize::Exact, KeepIdentity::Never),
        (Equalize::Best, KeepIdentity::Auto),
    ];
    for network in ["acnet_quick", "acnet_resnet", "mobileone", "repvgg"] {
        for (how, keep) in ways {
            let file = format!("fixtures/trained/{network}/kept.onnx");
            let options = options(|options| {
                (options.equalize, options.keep_identity) = (Some(how), keep);
            });
            let told = converted(Path::new(&file), &once, &options).equalization.unwrap();
            let gains = (how, keep) == (Equalize::Best, KeepIdentity::Never);
            assert!(told.applied || !gains, "{file} {how:?} {keep:?}: {told:?}");
            converted(&once, &twice, &options);
            let [once, twice] = [&once, &twice].map(|file| std::fs::read(file).unwrap());
            assert!(once == twice, "{file} {how:?} {keep:?}");
        }
    }
}

/// A description, the inputs and weights of a model, its nodes, the number of free factors, and the
/// reason why it gets none.
const CONVERTED: &[(&str, &str, &str, usize, Option<&str>)] = &[
    (
        "a weight that a caller may override",
        "(float[1,4,5,5] x, float[6,8,1,1] second) => (float[1,6,5,5] y) <float[8,4,1,1] first, float[6,8,1,1] second>",
        "a = Conv (x, first) b = Relu (a) y = Conv (b, second)",
        0,
        Some("no channel of a kernel is free"),
    ),
    (
        "factors of a Gemm",
        "(float[4,4] x) => (float[4,4] y) <float[4,4] first = {1, 8, 0.1, 2, 1, 9, 0.2, 3, 1, 7, 0.3, 1, 1, 8, 0.1, 2}, float[4] bias, float[4,4] second = {1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 9, 8, 9, 8, 0.5, 0.5, 0.5, 0.5}>",
        "a = Gemm <alpha = 0.3, beta = 0.7> (x, first, bias) b = LeakyRelu (a) y = Gemm (b, second)",
        4,
        None,
    ),
    (
        "float16 between inputs and outputs of float32",
        "(float[1,4] x) => (float[1,4] y) <float16[4,4] first = {1, 8, 0.1, 2, 1, 9, 0.2, 3, 1, 7, 0.3, 1, 1, 8, 0.1, 2}, float16[4,4] second = {1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 9, 8, 9, 8, 0.5, 0.5, 0.5, 0.5}>",
        "c = Cast <to = 10> (x) a = MatMul (c, first) b = Relu (a) d = MatMul (b, second) y = Cast <to = 1> (d)",
        4,
        None,
    ),
    (
        "a layer that is dead at every input",
        "(float[1,2,5,5] x) => (float[1,2,5,5] y) <float[3,2,1,1] first = {1, 1, 8, 8, 0.1, 0.1}, float[3] bias = {-1000, -1000, -1000}, float[2,3,1,1] second = {0.2, 0.05, 9, 0.2, 0.05, 9}>",
        "a = Conv (x, first, bias) b = Relu (a) y = Conv (b, second)",
        3,
        None,
    ),
    (
        "an input that no memory holds",
        "(float[1,2,65536,65536] x) => (float[a,b,c,d] y) <float[4,2,1,1] first, float[2,4,1,1] second>",
        "a = Conv (x, first) b = Relu (a) y = Conv (b, second)",
        0,
        Some("input `x`: its inputs, all samples together, are too large to be fed"),
    ),
];

/// A model that cannot have factors, or whose run says nothing, is no error.
#[test]
fn what_has_no_factors_is_converted_without() {
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.onnx", "out.onnx"].map(|name| folder.path().join(name));
    for (what, signature, nodes, channels, reason) in CONVERTED {
        let text =
            format!(r#"<ir_version: 8, opset_import: ["" : 17]> net {signature} {{ {nodes} }}"#);
        std::fs::write(&input, text::model(&text).unwrap().encode_to_vec()).unwrap();
        for how in [Equalize::Best, Equalize::Exact] {
            let options = options(|options| options.equalize = Some(how));
            let told = converted(&input, &output, &options).equalization.unwrap();
            assert_eq!(told.channels, *channels, "{what}: {told:?}");
            assert_eq!(told.reason.as_deref(), *reason, "{what}: {told:?}");
            let is_same = std::fs::read(&input).unwrap() == std::fs::read(&output).unwrap();
            assert_eq!(is_same, !told.applied, "{what}");
        }
    }
}

/// Adds remarks to each tensor, in `doc_string` and in a field of a later version of the schema.
fn said_of_each(model: &mut ModelProto) {
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        tensor.doc_string = Some(format!("said of {}", tensor.name()));
        let (key, value) = (Some("trained".to_owned()), Some(tensor.name().to_owned()));
        tensor.metadata_props = vec![StringStringEntryProto { key, value }];
    }
}

/// Returns the bytes of a TensorProto's field `number` that holds `text`.
fn field(number: u8, text: &str) -> Vec<u8> {
    [&[number << 3 | 2, text.len() as u8], text.as_bytes()].concat()
}

/// Moves the remarks on these tensors into a field that the schema does not have.
fn in_unknown_fields(mut model: Vec<u8>, names: &[&str]) -> Vec<u8> {
    for name in names {
        let [known, unknown] = [12, 15].map(|number| field(number, &format!("said of {name}")));
        let at = model.windows(known.len()).position(|part| part == known).unwrap();
        model[at..at + known.len()].copy_from_slice(&unknown);
    }
    model
}

/// Moves the data of all initializers to `w.data` in the folder.
fn in_side_file(model: &ModelProto, folder: &Path) -> ModelProto {
    let (mut model, mut data) = (model.clone(), Vec::new());
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        let Some(raw) = tensor.raw_data.take() else { continue };
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        tensor.external_data = vec![
            entry("location", "w.data".to_owned()),
            entry("offset", data.len().to_string()),
            entry("length", raw.len().to_string()),
        ];
        tensor.data_location = Some(DataLocation::External.into());
        data.extend(raw);
    }
    std::fs::write(folder.join("w.data"), data).unwrap();
    model
}

/// Only the numbers of a tensor change: all remarks on it stay, wherever it is stored.
#[test]
fn what_is_said_of_a_scaled_tensor_stays() {
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.onnx", "out.onnx"].map(|name| folder.path().join(name));
    let mut model = unbalanced();
    said_of_each(&mut model);
    let names = ["first", "bias", "second"];
    let forms = [
        ("inside", model.clone()),
        ("in nodes", in_constant_nodes(&model)),
        ("beside", in_side_file(&model, folder.path())),
    ];
    for (form, model) in forms {
        let known = model.encode_to_vec();
        let unknown = in_unknown_fields(known.clone(), &names);
        for (number, bytes) in [(12, known), (15, unknown)] {
            std::fs::write(&input, bytes).unwrap();
            let options = options(|options| options.equalize = Some(Equalize::Best));
            let told = converted(&input, &output, &options).equalization.unwrap();
            assert_eq!((told.applied, told.tensors), (true, 3), "{form}: {told:?}");
            let written = std::fs::read(&output).unwrap();
            let new = ModelProto::decode(written.as_slice()).unwrap().graph.unwrap();
            for name in names {
                let said = field(number, &format!("said of {name}"));
                let count = written.windows(said.len()).filter(|part| *part == said).count();
                assert_eq!(count, 1, "{form}, field {number}: {name}");
                let tensor = new.initializer.iter().find(|tensor| tensor.name() == name).unwrap();
                assert_eq!(tensor.metadata_props[0].value(), name, "{form}");
            }
        }
    }
}
