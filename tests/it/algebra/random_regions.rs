//! Random linear regions: the converted model computes the same at every size, and never
//! costs more.
//!
//! A region is a list of steps, each of which appends an operator that reads tensors
//! made before. Both models are judged by tract and by `properties::table`, not by what
//! the tool says of itself.
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use acb_fuse::Options;
use acb_fuse::engine::Array;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use acb_fuse::onnx::tensor;
use acb_fuse::onnx::write::{int, ints, node};
use acb_fuse::report::LeftAlone;
use acb_fuse::report::Report;
use acb_fuse::verify::inputs::Random;
use acb_fuse::verify::outcome::Outcome;
use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;
use prost::Message;

use crate::properties::table::Converted;
use crate::support::engine;
use crate::support::tool::converts;

const CHANNELS: usize = 4;
/// Heights and widths of the inputs: odd and even, and not square.
const SIZES: [[usize; 2]; 4] = [[17, 22], [18, 21], [25, 24], [20, 19]];
/// Height and width at which costs are compared: a feature map as in the middle of a network.
const TYPICAL: [usize; 2] = [56, 57];

/// An operator to append. Its numbers are reduced to what is possible at its place.
#[derive(Debug, Clone)]
enum Step {
    Conv {
        of: usize,
        channels: usize,
        groups: usize,
        taps: [i64; 2],
        pads: [i64; 4],
        stride: i64,
        dilation: i64,
        bias: bool,
    },
    Norm {
        of: usize,
    },
    Scale {
        of: usize,
        op: usize,
        per_channel: bool,
    },
    Negated {
        of: usize,
    },
    Frame {
        of: usize,
        pads: [i64; 4],
    },
    Pool {
        of: usize,
        taps: i64,
        pad: i64,
    },
    Sum {
        of: usize,
        with: usize,
        minus: bool,
    },
    Product {
        of: usize,
        channels: usize,
        bias: bool,
    },
    Identity {
        of: usize,
    },
    Relu {
        of: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    // `of` counts back from the newest tensor, so that recent ones are read more often.
    let of = || prop_oneof![3 => 0..1usize, 2 => 0..4usize, 1 => 0..16usize];
    let taps = || prop_oneof![Just(1i64), Just(1), Just(3), Just(3), Just(2), Just(5)];
    let pads = || prop_oneof![2 => Just(0i64), 2 => Just(1), 1 => Just(2)];
    let frame = || [-2..3i64, -2..3i64, -2..3i64, -2..3i64];
    let stride = || prop_oneof![6 => Just(1i64), 1 => Just(2)];
    prop_oneof![
        7 => (of(), 0..3usize, 0..3usize, [taps(), taps()], [pads(), pads(), pads(), pads()], stride(), 1..3i64, any::<bool>())
            .prop_map(|(of, channels, groups, taps, pads, stride, dilation, bias)| {
                Step::Conv { of, channels, groups, taps, pads, stride, dilation, bias }
            }),
        4 => of().prop_map(|of| Step::Norm { of }),
        2 => (of(), 0..4usize, any::<bool>()).prop_map(|(of, op, per_channel)| Step::Scale { of, op, per_channel }),
        1 => of().prop_map(|of| Step::Negated { of }),
        2 => (of(), frame()).prop_map(|(of, pads)| Step::Frame { of, pads }),
        1 => (of(), 2..4i64, 0..2i64).prop_map(|(of, taps, pad)| Step::Pool { of, taps, pad }),
        7 => (of(), 0..8usize, any::<bool>()).prop_map(|(of, with, minus)| Step::Sum { of, with, minus }),
        1 => (of(), 0..3usize, any::<bool>())
            .prop_map(|(of, channels, bias)| Step::Product { of, channels, bias }),
        1 => of().prop_map(|of| Step::Identity { of }),
        1 => of().prop_map(|of| Step::Relu { of }),
    ]
}

/// The size of a tensor along an axis: ⌊(n + slack) / stride⌋ + 1 if the input has size n.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Extent {
    slack: i64,
    stride: i64,
}

impl Extent {
    fn after(self, stride: i64, slack: i64) -> Self {
        Extent { slack: self.slack + self.stride * (1 + slack), stride: self.stride * stride }
    }

    fn of(self, size: usize) -> i64 {
        (size as i64 + self.slack).div_euclid(self.stride) + 1
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Feature {
    name: String,
    channels: usize,
    extents: [Extent; 2],
}

/// A model under construction.
struct Network {
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
    features: Vec<Feature>,
    random: Random,
}

impl Network {
    fn of(steps: &[Step]) -> ModelProto {
        let extents = [Extent { slack: -1, stride: 1 }; 2];
        let input = |name: &str| Feature { name: name.into(), channels: CHANNELS, extents };
        let features = vec![input("y"), input("x")];
        let mut network =
            Network { nodes: vec![], weights: vec![], features, random: Random::new(7) };
        for step in steps {
            network.append(step);
        }
        network.finished()
    }

    /// Returns the tensor that was made `back` steps ago.
    fn feature(&self, back: usize) -> Feature {
        self.features[self.features.len() - 1 - back % self.features.len()].clone()
    }

    fn weight(&mut self, shape: &[usize], low: f64, high: f64) -> String {
        let name = format!("w{}", self.weights.len());
        let values = ArrayD::from_shape_simple_fn(IxDyn(shape), || {
            low + (high - low) * (self.random.uniform() + 1.0) / 2.0
        });
        self.weights.push(tensor::from_floats(&name, &values, Float::F64));
        name
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let name = format!("w{}", self.weights.len());
        self.weights.push(tensor::from_integers(&name, values));
        name
    }

    /// Appends a node, unless it would leave fewer than two elements along an axis of the smallest
    /// input.
    fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<acb_fuse::onnx::proto::AttributeProto>,
        channels: usize,
        extents: [Extent; 2],
    ) {
        let smallest = |axis: usize| SIZES.iter().map(|size| size[axis]).min().unwrap();
        if (0..2).any(|axis| extents[axis].of(smallest(axis)) < 2) {
            return;
        }
        let name = format!("t{}", self.nodes.len());
        self.nodes.push(node(op, &name, inputs, &name, attributes));
        self.features.push(Feature { name, channels, extents });
    }

    fn append(&mut self, step: &Step) {
        match *step {
            Step::Conv { of, channels, groups, taps, pads, stride, dilation, bias } => {
                let input = self.feature(of);
                let groups = [1, 2, input.channels][groups];
                let outputs = [CHANNELS, input.channels, 2 * CHANNELS][channels];
                let (groups, width) = match outputs % groups {
                    0 => (groups, input.channels / groups),
                    _ => (1, input.channels),
                };
                let fan_in = (width as i64 * taps[0] * taps[1]) as f64;
                let bound = (3.0 / fan_in).sqrt();
                let kernel = self.weight(
                    &[outputs, width, taps[0] as usize, taps[1] as usize],
                    -bound,
                    bound,
                );
                let bias = bias.then(|| self.weight(&[outputs], -1.0, 1.0));
                let mut inputs = vec![input.name.as_str(), &kernel];
                inputs.extend(bias.as_deref());
                let extents = [0, 1].map(|axis| {
                    let slack = pads[axis] + pads[axis + 2] - (taps[axis] - 1) * dilation - 1;
                    input.extents[axis].after(stride, slack)
                });
                let attributes = vec![
                    ints("pads", pads.to_vec()),
                    ints("strides", vec![stride; 2]),
                    ints("dilations", vec![dilation; 2]),
                    int("group", groups as i64),
                ];
                self.node("Conv", &inputs, attributes, outputs, extents);
            }
            Step::Norm { of } => {
                let input = self.feature(of);
                let statistics = [(0.5, 1.5), (-1.0, 1.0), (-1.0, 1.0), (0.5, 1.5)];
                let vectors =
                    statistics.map(|(low, high)| self.weight(&[input.channels], low, high));
                let mut inputs = vec![input.name.as_str()];
                inputs.extend(vectors.iter().map(String::as_str));
                self.node("BatchNormalization", &inputs, vec![], input.channels, input.extents);
            }
            Step::Scale { of, op, per_channel } => {
                let input = self.feature(of);
                let shape = if per_channel { vec![input.channels, 1, 1] } else { vec![1] };
                let constant = self.weight(&shape, 0.5, 1.5);
                self.node(
                    ["Add", "Sub", "Mul", "Div"][op],
                    &[&input.name, &constant],
                    vec![],
                    input.channels,
                    input.extents,
                );
            }
            Step::Product { of, channels, bias } => {
                let input = self.feature(of);
                let outputs = [CHANNELS, input.channels, 2 * CHANNELS][channels];
                let bound = (3.0 / input.channels as f64).sqrt();
                let weights = self.weight(&[input.channels, outputs], -bound, bound);
                let mut value = input.name.clone();
                let mut step = |op: &str, constant: Option<&str>, attributes| {
                    let name = format!("t{}", self.nodes.len());
                    let inputs: Vec<&str> = [value.as_str()].into_iter().chain(constant).collect();
                    self.nodes.push(node(op, &name, &inputs, &name, attributes));
                    value = name;
                };
                step("Transpose", None, vec![ints("perm", vec![0, 2, 3, 1])]);
                step("MatMul", Some(&weights), vec![]);
                step("Transpose", None, vec![ints("perm", vec![0, 3, 1, 2])]);
                if bias {
                    let bias = self.weight(&[outputs, 1, 1], -1.0, 1.0);
                    let name = format!("t{}", self.nodes.len());
                    self.nodes.push(node("Add", &name, &[&value, &bias], &name, vec![]));
                    value = name;
                }
                let extents = input.extents;
                self.features.push(Feature { name: value, channels: outputs, extents });
            }
            Step::Negated { of } => self.alone("Neg", of),
            Step::Identity { of } => self.alone("Identity", of),
            Step::Relu { of } => self.alone("Relu", of),
            Step::Frame { of, pads } => {
                let input = self.feature(of);
                self.frame(&input, pads);
            }
            Step::Pool { of, taps, pad } => {
                let input = self.feature(of);
                let extents = input.extents.map(|extent| extent.after(1, 2 * pad - taps));
                let attributes = vec![
                    ints("kernel_shape", vec![taps; 2]),
                    ints("pads", vec![pad; 4]),
                    int("count_include_pad", 1),
                ];
                self.node("AveragePool", &[&input.name], attributes, input.channels, extents);
            }
            Step::Sum { of, with, minus } => {
                let left = self.feature(of);
                let Some(right) = self.partner(&left, with) else { return };
                let op = if minus { "Sub" } else { "Add" };
                self.node(op, &[&left.name, &right.name], vec![], left.channels, left.extents);
            }
        }
    }

    fn alone(&mut self, op: &str, of: usize) {
        let input = self.feature(of);
        self.node(op, &[&input.name], vec![], input.channels, input.extents);
    }

    /// Pads, if no pad is negative; otherwise crops by the negative ones alone.
    fn frame(&mut self, input: &Feature, pads: [i64; 4]) {
        let extents = |pads: [i64; 4]| {
            [0, 1].map(|axis| input.extents[axis].after(1, pads[axis] + pads[axis + 2] - 1))
        };
        if pads.iter().all(|&pad| pad >= 0) {
            let list = self.integers(&[0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]]);
            self.node("Pad", &[&input.name, &list], vec![], input.channels, extents(pads));
            return;
        }
        let crops = pads.map(|pad| pad.min(0));
        let starts = self.integers(&[-crops[0], -crops[1]]);
        let ends =
            self.integers(&[crops[2], crops[3]].map(|end| if end == 0 { i64::MAX } else { end }));
        let axes = self.integers(&[2, 3]);
        self.node(
            "Slice",
            &[&input.name, &starts, &ends, &axes],
            vec![],
            input.channels,
            extents(crops),
        );
    }

    /// Returns another tensor that can be added to `left`: one that fits, or one that a crop or
    /// pad and a 1×1 convolution make fit. Returns `None` if there is none.
    fn partner(&mut self, left: &Feature, with: usize) -> Option<Feature> {
        let strides = |feature: &Feature| feature.extents.map(|extent| extent.stride);
        let others = self.features.iter().rev().filter(|other| other.name != left.name);
        let candidates: Vec<Feature> =
            others.filter(|other| strides(other) == strides(left)).cloned().collect();
        let fitting = candidates
            .iter()
            .find(|other| other.channels == left.channels && other.extents == left.extents);
        let mut right = match fitting {
            Some(fitting) if with.is_multiple_of(2) => fitting.clone(),
            _ => candidates.get(with % candidates.len().max(1))?.clone(),
        };
        if right.extents != left.extents {
            let missing = [0, 1].map(|axis| {
                (left.extents[axis].slack - right.extents[axis].slack) / left.extents[axis].stride
            });
            self.frame(
                &right,
                [
                    missing[0] / 2,
                    missing[1] / 2,
                    missing[0] - missing[0] / 2,
                    missing[1] - missing[1] / 2,
                ],
            );
            right = self.feature(0);
        }
        if right.channels != left.channels && right.extents == left.extents {
            let kernel = self.weight(&[left.channels, right.channels, 1, 1], -0.5, 0.5);
            self.node("Conv", &[&right.name, &kernel], vec![], left.channels, right.extents);
            right = self.feature(0);
        }
        (right.channels == left.channels && right.extents == left.extents).then_some(right)
    }

    /// Returns the model; its output is the last tensor.
    fn finished(self) -> ModelProto {
        let last = self.features.last().unwrap();
        let inputs: Vec<&Feature> = self.features.iter().take(2).collect();
        let info = |feature: &Feature| {
            let dim = |value: usize| tensor_shape_proto::Dimension {
                value: Some(tensor_shape_proto::dimension::Value::DimValue(value as i64)),
                ..Default::default()
            };
            let open = |name: &str| tensor_shape_proto::Dimension {
                value: Some(tensor_shape_proto::dimension::Value::DimParam(name.into())),
                ..Default::default()
            };
            let dims = vec![
                dim(1),
                dim(feature.channels),
                open(&format!("{} rows", feature.name)),
                open(&format!("{} columns", feature.name)),
            ];
            let tensor = type_proto::Tensor {
                elem_type: Some(11),
                shape: Some(TensorShapeProto { dim: dims }),
            };
            ValueInfoProto {
                name: Some(feature.name.clone()),
                r#type: Some(TypeProto {
                    value: Some(type_proto::Value::TensorType(tensor)),
                    ..Default::default()
                }),
                ..Default::default()
            }
        };
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { version: Some(17), ..Default::default() }],
            graph: Some(GraphProto {
                input: inputs.into_iter().map(info).collect(),
                output: vec![info(last)],
                node: self.nodes,
                initializer: self.weights,
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// Keeps only the nodes and weights that the output depends on: nobody pays for the rest.
fn without_dead_nodes(mut model: ModelProto) -> ModelProto {
    let graph = model.graph.as_mut().unwrap();
    let mut needed: Vec<String> =
        graph.output.iter().map(|output| output.name().to_owned()).collect();
    let mut live = Vec::new();
    for node in graph.node.drain(..).rev() {
        if needed.contains(&node.output[0]) {
            needed.extend(node.input.iter().cloned());
            live.push(node);
        }
    }
    live.reverse();
    graph.node = live;
    graph.initializer.retain(|weight| needed.contains(&weight.name.clone().unwrap()));
    model
}

/// The seed of the regions that every ordinary test run checks.
const ORDINARY_SEED: u64 = 1;

static FUSED: AtomicUsize = AtomicUsize::new(0);
static BLOCKS: AtomicUsize = AtomicUsize::new(0);

/// Returns whether verification refused a region, or could not judge it: every region is valid.
fn is_a_false_alarm(report: &Report) -> bool {
    let unproved = |miss: &LeftAlone| miss.kind == "unproved";
    let agreed = matches!(report.run, Some(Outcome::Agreed(_)));
    report.near_misses.iter().any(unproved) || agreed == report.blocks.is_empty()
}

fn check(steps: &[Step]) -> Result<(), TestCaseError> {
    let model = without_dead_nodes(Network::of(steps));
    if model.graph.as_ref().unwrap().node.is_empty() {
        return Ok(());
    }
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    fs::write(&input, model.encode_to_vec()).unwrap();
    let results = |path: &Path| -> Vec<Array> {
        let result = |(seed, size): (u64, [usize; 2])| {
            let mut random = Random::new(seed);
            let inputs = [0, 1].map(|_| random.floats(&[1, CHANNELS, size[0], size[1]]));
            engine::run(path, folder.path(), &inputs).unwrap().remove(0)
        };
        (1..).zip(SIZES).map(result).collect()
    };
    let expected = results(&input);
    // Where everything cancels, or everything but a shift, only rounding is left.
    prop_assume!(expected.iter().all(|array| spread(array) > 1e-6));
    let report = converts(&input, &output, &Options::default());
    let text = described(&model);
    let report = report.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
    let converted = Converted::of(&input, vec![vec![1, CHANNELS, TYPICAL[0], TYPICAL[1]]; 2]);
    let failing = converted.map_err(TestCaseError::fail)?.failing();
    prop_assert!(failing.is_empty(), "{failing:?}\n{text}{report}");
    prop_assert!(!is_a_false_alarm(&report), "{:?}\n{text}{report}", report.run);
    FUSED.fetch_add(usize::from(!report.blocks.is_empty()), Ordering::Relaxed);
    BLOCKS.fetch_add(report.blocks.len(), Ordering::Relaxed);
    for (size, (expected, found)) in SIZES.iter().zip(expected.iter().zip(&results(&output))) {
        let error = largest_difference(expected, found);
        prop_assert!(error <= 1e-9, "{size:?}: off by {error:e}\n{text}{report}");
    }
    Ok(())
}

/// Returns one line per node, to find out what went wrong.
fn described(model: &ModelProto) -> String {
    let line = |node: &NodeProto| {
        let attributes: Vec<String> =
            node.attribute.iter().map(|a| format!("{}={:?}{}", a.name(), a.ints, a.i())).collect();
        let (inputs, attributes) = (node.input.join(", "), attributes.join(" "));
        format!("{} = {}({inputs}) {attributes}\n", node.output[0], node.op_type())
    };
    model.graph.iter().flat_map(|graph| &graph.node).map(line).collect()
}

/// Returns the largest difference, relative to the largest expected value or to 1 if that is
/// larger: inputs and weights are of magnitude 1, the measure where the terms of an output cancel.
fn largest_difference(expected: &Array, found: &Array) -> f64 {
    let (Array::Float(expected), Array::Float(found)) = (expected, found) else {
        panic!("outputs are floats")
    };
    if expected.shape() != found.shape() {
        return f64::INFINITY;
    }
    let differences = expected.iter().zip(found).map(|(a, b)| (a - b).abs());
    let error = differences
        .fold(0.0, |most, next| if next.is_nan() { f64::INFINITY } else { most.max(next) });
    error / expected.iter().fold(1.0f64, |most, value| most.max(value.abs()))
}

/// Returns the difference of the largest and the smallest element.
fn spread(array: &Array) -> f64 {
    match array {
        Array::Float(values) => {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least
        }
        Array::Int(_) => panic!("outputs are floats"),
    }
}

#[test]
fn random_linear_regions_agree_at_every_size_and_are_never_dearer() {
    let mut config = ProptestConfig::with_source_file(file!());
    // The same regions in every run, unless more are asked for: what was green stays green.
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.rng_seed = proptest::test_runner::RngSeed::Fixed(ORDINARY_SEED);
    }
    let cases = config.cases as usize;
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let steps = proptest::collection::vec(step(), 2..16);
    runner.run(&steps, |steps| check(&steps)).unwrap_or_else(|failure| panic!("{failure}"));
    let (fused, blocks) = (FUSED.load(Ordering::Relaxed), BLOCKS.load(Ordering::Relaxed));
    println!("{cases} regions, {fused} with something to fuse, {blocks} blocks, no false alarm");
    assert!(fused > cases / 3, "only {fused} of {cases} regions had anything to fuse");
}
