//! Blocks of many geometries: generated from a seed, and written by exporters.
use std::fs;

use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use acb_fuse::onnx::tensor;
use acb_fuse::onnx::write::{double_input, int, ints, node};
use acb_fuse::verify::inputs::Random;
use ndarray::{ArrayD, IxDyn};
use prost::Message;

use crate::support::fixtures;

/// A model with at least one block.
#[derive(Clone)]
pub struct Geometry {
    pub name: String,
    /// Whether it is a fixture, and not generated.
    pub is_file: bool,
    pub bytes: Vec<u8>,
}

/// What a generated block consists of besides its plain arms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// The block alone.
    Alone,
    /// Its second arm reads another tensor.
    TwoRoots,
    /// Its input is added: it merges into the kernel.
    Identity,
    /// Another tensor is added, or subtracted, between the arms: it stays an operand.
    Residual,
    /// The arms are transposed convolutions.
    Transposed,
}

/// An arm: the number of taps along each axis, and where in the square the first one falls.
#[derive(Debug, Clone, PartialEq)]
struct Arm {
    taps: Vec<i64>,
    offset: Vec<i64>,
}

/// A generated block, as it may stand in a network.
#[derive(Debug, Clone)]
pub struct Spec {
    arms: Vec<Arm>,
    groups: usize,
    channels: (usize, usize),
    dilation: i64,
    stride: i64,
    /// Pads of the square, per axis.
    pads: Vec<(i64, i64)>,
    bias: bool,
    norm: bool,
    float: Float,
    /// Bound on the means of norms; 10⁴ stands for inputs that nobody normalised.
    means: f64,
    kind: Kind,
}

/// Returns `count` blocks, always the same ones: each property takes its values in turn, with
/// periods that have little in common, and the rest is drawn.
pub fn generated(count: usize) -> Vec<Geometry> {
    let mut random = Random::new(5);
    (0..count)
        .map(|index| {
            let spec = Spec::number(index, &mut random);
            let mut network = Network::new(&spec, Random::new(index as u64));
            let output = network.block(&spec, "x", "block");
            Geometry {
                is_file: false,
                name: format!("{index}: {spec:?}"),
                bytes: network.finished(&[&output]).encode_to_vec(),
            }
        })
        .collect()
}

/// Returns networks, in which much can be wired wrongly: two blocks of one shape with a ReLU
/// between them, a residual around the second one, and two outputs.
pub fn networks() -> Vec<Geometry> {
    let floats = [Float::F32, Float::F16, Float::F64, Float::Bf16];
    let network = |(index, float): (usize, Float)| {
        let mut spec = Spec::number(3 * index + 1, &mut Random::new(index as u64));
        spec = Spec { channels: (4, 4), groups: 1 + index % 2, stride: 1, float, ..spec };
        spec.kind = Kind::Alone;
        spec.pads = spec.same();
        let mut network = Network::new(&spec, Random::new(40 + index as u64));
        let first = network.block(&spec, "x", "first");
        network.nodes.push(node("Relu", "relu", &[&first], "between", vec![]));
        let second = network.block(&spec, "between", "second");
        network.nodes.push(node("Relu", "relu2", &[&second], "after", vec![]));
        network.nodes.push(node("Mul", "mul", &["after", "between"], "joined", vec![]));
        network.nodes.push(node("Sigmoid", "sigmoid", &["joined"], "other", vec![]));
        let mut model = network.finished(&["joined", "other"]);
        small(&mut model);
        let bytes = model.encode_to_vec();
        Geometry { is_file: false, name: format!("network {index}: {spec:?}"), bytes }
    };
    floats.into_iter().enumerate().map(network).collect()
}

/// Gives sizes that the file leaves open values that are run quickly.
fn small(model: &mut ModelProto) {
    let inputs = &mut model.graph.as_mut().unwrap().input;
    for declared in inputs.iter_mut().filter_map(|info| info.r#type.as_mut()?.value.as_mut()) {
        if let type_proto::Value::TensorType(tensor) = declared {
            let open = tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim).skip(2);
            for (axis, dim) in open.enumerate() {
                *dim = known(9 + axis);
            }
        }
    }
}

/// Returns exporters' files with these parts in their paths; the main graph of each has a block.
pub fn exported(paths: &[&str]) -> Vec<Geometry> {
    let all: Vec<_> = ["cases", "blocks", "exporters", "relatives", "networks"]
        .into_iter()
        .flat_map(fixtures::models)
        .collect();
    let file = |path: &&str| {
        let found = all.iter().find(|model| model.to_str().is_some_and(|m| m.contains(*path)));
        let found = found.unwrap_or_else(|| panic!("there is no fixture {path}"));
        Geometry {
            is_file: true,
            name: found.display().to_string(),
            bytes: fs::read(found).unwrap(),
        }
    };
    paths.iter().map(file).collect()
}

fn pick<T: Clone>(random: &mut Random, values: &[T]) -> T {
    let at = (random.uniform() + 1.0) / 2.0 * values.len() as f64;
    values[at as usize].clone()
}

impl Spec {
    fn number(index: usize, random: &mut Random) -> Spec {
        let in_turn = |values: &[i64], period: usize| values[index / period % values.len()];
        let axes = in_turn(&[2, 2, 1, 2, 3], 1) as usize;
        let d = match axes {
            3 => in_turn(&[3, 2], 5),
            _ => in_turn(&[3, 5, 1, 7, 3, 2, 11], 1),
        };
        let kind = [
            Kind::Alone,
            Kind::Alone,
            Kind::Identity,
            Kind::TwoRoots,
            Kind::Alone,
            Kind::Residual,
            Kind::Transposed,
            Kind::Alone,
        ][index % 8];
        let same_size = matches!(kind, Kind::Identity | Kind::Residual);
        let (mut groups, mut channels) = pick(
            random,
            &[(1, (3, 4)), (1, (4, 2)), (2, (4, 6)), (4, (4, 4)), (2, (4, 4)), (3, (3, 6))],
        );
        if same_size {
            (groups, channels) = pick(random, &[(1, (3, 3)), (2, (4, 4)), (4, (4, 4))]);
        }
        // The large kernels of real networks are depthwise.
        if d > 7 && axes > 1 {
            (groups, channels) = (2, (2, 2));
        }
        let mut spec = Spec {
            // A shifted arm of a transposed block would be cropped behind, not in front.
            arms: arms(
                axes,
                d,
                if kind == Kind::Transposed { 0 } else { pick(random, &[0, 0, 1, -1]) },
            ),
            groups,
            channels,
            dilation: if d > 5 { 1 } else { pick(random, &[1, 1, 2]) },
            stride: if same_size { 1 } else { in_turn(&[1, 2, 1, 1, 3], 1) },
            pads: vec![],
            bias: !index.is_multiple_of(3),
            norm: index % 4 != 3,
            float: [Float::F32, Float::F32, Float::F16, Float::F32, Float::Bf16, Float::F64]
                [index % 6],
            means: 1.0,
            kind,
        };
        if index % 7 == 6 && matches!(spec.float, Float::F32 | Float::F64) {
            spec.means = 1e4;
        }
        spec.pads = match index / 2 % 4 {
            0 | 1 => spec.same(),
            _ if same_size => spec.same(),
            // One more in front, one less behind: not symmetric.
            2 => {
                spec.same().into_iter().map(|(begin, end)| (begin + 1, (end - 1).max(0))).collect()
            }
            // The arms read what a Slice leaves.
            _ => vec![(0, 0); axes],
        };
        if kind == Kind::Transposed {
            // Pads as large as the offset of the thin arms, which then have no negative pads.
            let inside = d / 2 * spec.dilation;
            spec.pads = vec![(inside, inside); axes];
        }
        spec
    }

    fn d(&self, axis: usize) -> i64 {
        self.arms[0].taps[axis]
    }

    /// Returns the pads that keep the size.
    fn same(&self) -> Vec<(i64, i64)> {
        let total = |axis: usize| (self.d(axis) - 1) * self.dilation;
        (0..self.arms[0].taps.len())
            .map(|axis| (total(axis) / 2, total(axis) - total(axis) / 2))
            .collect()
    }

    /// Returns the pads with which an arm sees what the square sees there; negative ones crop.
    fn pads_of(&self, arm: &Arm) -> Vec<(i64, i64)> {
        let pads = |axis: usize| {
            let behind = self.d(axis) - arm.offset[axis] - arm.taps[axis];
            let (begin, end) = self.pads[axis];
            (begin - arm.offset[axis] * self.dilation, end - behind * self.dilation)
        };
        (0..arm.taps.len()).map(pads).collect()
    }
}

/// Returns the square and, per axis, an arm with one tap along it, `shift` beside the centre.
fn arms(axes: usize, d: i64, shift: i64) -> Vec<Arm> {
    let square = Arm { taps: vec![d; axes], offset: vec![0; axes] };
    let centre = (d / 2 + shift).clamp(0, d - 1);
    let thin = |axis: usize| {
        let mut arm = square.clone();
        (arm.taps[axis], arm.offset[axis]) = (1, centre);
        arm
    };
    // The last axis gives the vertical arm.
    let mut all = vec![square.clone()];
    all.extend((0..axes).map(thin));
    if axes == 1 {
        all.push(square);
    }
    all
}

struct Network {
    float: Float,
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
    inputs: Vec<ValueInfoProto>,
    random: Random,
    axes: usize,
}

impl Network {
    fn new(spec: &Spec, random: Random) -> Self {
        let axes = spec.arms[0].taps.len();
        let mut network = Network {
            float: spec.float,
            nodes: vec![],
            weights: vec![],
            inputs: vec![],
            random,
            axes,
        };
        network.input("x", spec.channels.0);
        network
    }

    fn input(&mut self, name: &str, channels: usize) {
        self.inputs.push(declared(name, self.float, channels, self.axes));
    }

    fn draw(&mut self, shape: &[usize], low: f64, high: f64) -> ArrayD<f64> {
        ArrayD::from_shape_simple_fn(IxDyn(shape), || {
            let value = low + (high - low) * (self.random.uniform() + 1.0) / 2.0;
            self.float.round(value)
        })
    }

    fn store(&mut self, name: &str, values: &ArrayD<f64>) {
        self.weights.push(tensor::from_floats(name, values, self.float));
    }

    /// Appends a block; returns its output.
    fn block(&mut self, spec: &Spec, x: &str, name: &str) -> String {
        let width = match spec.kind {
            Kind::Transposed => spec.channels.1 / spec.groups,
            _ => spec.channels.0 / spec.groups,
        };
        let filters = match spec.kind {
            Kind::Transposed => spec.channels.0,
            _ => spec.channels.1,
        };
        let outputs = spec.channels.1;
        let kernels: Vec<ArrayD<f64>> = spec
            .arms
            .iter()
            .map(|arm| {
                let mut shape = vec![filters, width];
                shape.extend(arm.taps.iter().map(|&taps| taps as usize));
                self.draw(&shape, -1.0, 1.0)
            })
            .collect();
        let norms: Vec<[ArrayD<f64>; 4]> = spec
            .arms
            .iter()
            .map(|_| {
                [(0.5, 1.5), (-1.0, 1.0), (-spec.means, spec.means), (0.5, 1.5)]
                    .map(|(low, high)| self.draw(&[outputs], low, high))
            })
            .collect();
        let kernels = rounding_matters(spec, kernels, &norms, &mut self.random);
        let mut sum = String::new();
        for (index, arm) in spec.arms.iter().enumerate() {
            let stem = format!("{name}.arm{index}");
            let mut root = x.to_owned();
            if spec.kind == Kind::TwoRoots && index == 1 {
                root = format!("{name}.other");
                self.input(&root, spec.channels.0);
            }
            let mut result = self.convolution(spec, arm, &root, &stem, &kernels[index]);
            if spec.norm {
                let normed = format!("{stem}.normed");
                let names = ["gamma", "beta", "mean", "variance"].map(|n| format!("{stem}.{n}"));
                for (name, values) in names.iter().zip(&norms[index]) {
                    self.store(name, values);
                }
                let mut inputs = vec![result.as_str()];
                inputs.extend(names.iter().map(String::as_str));
                self.nodes.push(node(
                    "BatchNormalization",
                    &stem,
                    &inputs,
                    &normed,
                    vec![epsilon()],
                ));
                result = normed;
            }
            sum = if index == 0 { result } else { self.join("Add", &sum, &result, &stem) };
            if spec.kind == Kind::Residual && index == 0 {
                let operand = format!("{name}.z");
                self.input(&operand, spec.channels.1);
                let op = if spec.bias { "Sub" } else { "Add" };
                sum = self.join(op, &sum, &operand, &operand);
            }
        }
        match spec.kind {
            Kind::Identity => self.join("Add", &sum, x, name),
            _ => sum,
        }
    }

    fn join(&mut self, op: &str, a: &str, b: &str, stem: &str) -> String {
        let sum = format!("{stem}.sum");
        self.nodes.push(node(op, &sum, &[a, b], &sum, vec![]));
        sum
    }

    fn convolution(
        &mut self,
        spec: &Spec,
        arm: &Arm,
        root: &str,
        stem: &str,
        kernel: &ArrayD<f64>,
    ) -> String {
        let pads = spec.pads_of(arm);
        let mut input = root.to_owned();
        if pads.iter().any(|&(begin, end)| begin < 0 || end < 0) && spec.kind != Kind::Transposed {
            input = self.crop(root, stem, &pads);
        }
        let weight = format!("{stem}.weight");
        self.store(&weight, kernel);
        let bias = format!("{stem}.bias");
        let mut inputs = vec![input.as_str(), &weight];
        if spec.bias {
            let values = self.draw(&[spec.channels.1], -1.0, 1.0);
            self.store(&bias, &values);
            inputs.push(&bias);
        }
        let zeros = |pad: i64| pad.max(0);
        let begins = pads.iter().map(|pads| zeros(pads.0));
        let pads = begins.chain(pads.iter().map(|pads| zeros(pads.1))).collect();
        let attributes = vec![
            ints("dilations", vec![spec.dilation; self.axes]),
            int("group", spec.groups as i64),
            ints("kernel_shape", arm.taps.clone()),
            ints("pads", pads),
            ints("strides", vec![spec.stride; self.axes]),
        ];
        let op = if spec.kind == Kind::Transposed { "ConvTranspose" } else { "Conv" };
        self.nodes.push(node(op, stem, &inputs, stem, attributes));
        stem.to_owned()
    }

    fn crop(&mut self, root: &str, stem: &str, pads: &[(i64, i64)]) -> String {
        let name = format!("{stem}.cropped");
        let end = |end: i64| if end < 0 { end } else { i64::MAX };
        let lists = [
            ("starts", pads.iter().map(|pads| (-pads.0).max(0)).collect::<Vec<_>>()),
            ("ends", pads.iter().map(|pads| end(pads.1)).collect()),
            ("axes", (2..).take(pads.len()).collect()),
        ];
        let mut inputs = vec![root.to_owned()];
        for (list, values) in lists {
            inputs.push(format!("{name}.{list}"));
            self.weights.push(tensor::from_integers(&inputs[inputs.len() - 1], &values));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.nodes.push(node("Slice", &name, &inputs, &name, vec![]));
        name
    }

    fn finished(self, outputs: &[&str]) -> ModelProto {
        let output = |name: &&str| ValueInfoProto {
            r#type: double_input(name, self.axes + 2)
                .r#type
                .map(|declared| typed(declared, self.float)),
            name: Some((*name).to_owned()),
            ..ValueInfoProto::default()
        };
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { version: Some(17), ..Default::default() }],
            graph: Some(GraphProto {
                output: outputs.iter().map(output).collect(),
                input: self.inputs,
                node: self.nodes,
                initializer: self.weights,
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }
}

/// PyTorch's default.
const EPSILON: f32 = 1e-5;

fn epsilon() -> AttributeProto {
    AttributeProto { f: Some(EPSILON), r#type: Some(1), ..int("epsilon", 0) }
}

fn typed(mut declared: TypeProto, float: Float) -> TypeProto {
    if let Some(type_proto::Value::TensorType(tensor)) = declared.value.as_mut() {
        tensor.elem_type = Some(float.to_onnx());
    }
    declared
}

fn known(size: usize) -> tensor_shape_proto::Dimension {
    tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(size as i64)),
        ..Default::default()
    }
}

/// Declares a tensor with a batch of one, and spatial sizes that the file leaves open.
fn declared(name: &str, float: Float, channels: usize, axes: usize) -> ValueInfoProto {
    let mut dim = vec![known(1), known(channels)];
    dim.resize(axes + 2, tensor_shape_proto::Dimension::default());
    let tensor = type_proto::Tensor {
        elem_type: Some(float.to_onnx()),
        shape: Some(TensorShapeProto { dim }),
    };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value, ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

/// Rounds a number to `float`, and to float32 before that.
pub fn rounded_twice(float: Float, value: f64) -> f64 {
    float.round(f64::from(value as f32))
}

/// Returns the kernels; in the 16-bit types, with one weight per arm replaced such that their sum
/// is another number if it is rounded to float32 on the way. Weights are drawn until it is.
fn rounding_matters(
    spec: &Spec,
    mut kernels: Vec<ArrayD<f64>>,
    norms: &[[ArrayD<f64>; 4]],
    random: &mut Random,
) -> Vec<ArrayD<f64>> {
    let narrow = matches!(spec.float, Float::F16 | Float::Bf16);
    if !narrow || matches!(spec.kind, Kind::TwoRoots | Kind::Transposed | Kind::Identity) {
        return kernels;
    }
    let scale = |[gamma, _, _, variance]: &[ArrayD<f64>; 4]| {
        if spec.norm { gamma[[0]] / (variance[[0]] + f64::from(EPSILON)).sqrt() } else { 1.0 }
    };
    let scales: Vec<f64> = norms.iter().map(scale).collect();
    // Without norms, only sums of numbers of very different magnitude are inexact.
    let half = if spec.float == Float::F16 { -11 } else { -8 };
    let mut weights = vec![1.0, 2f64.powi(half), 2f64.powi(-24)];
    weights.resize(kernels.len(), 0.0);
    for _ in 0..4_000_000 {
        let sum: f64 = weights.iter().zip(&scales).map(|(weight, scale)| weight * scale).sum();
        if rounded_twice(spec.float, sum) != spec.float.round(sum) {
            break;
        }
        weights.iter_mut().for_each(|weight| *weight = spec.float.round(random.uniform()));
    }
    for (kernel, (arm, weight)) in kernels.iter_mut().zip(spec.arms.iter().zip(weights)) {
        // The tap at which all arms meet.
        let meeting = |axis: usize| spec.arms[(1 + axis).min(spec.arms.len() - 1)].offset[axis];
        let mut at = vec![0, 0];
        at.extend((0..arm.taps.len()).map(|axis| (meeting(axis) - arm.offset[axis]) as usize));
        kernel[IxDyn(&at)] = weight;
    }
    kernels
}
