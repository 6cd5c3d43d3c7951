//! Wrong beliefs: the fuser takes the file for another model (of another size, rank, batch,
//! border, constant or broadcast), and is right for that one; or it claims more or less than
//! it knows. Verification reads the file itself. Everything must be caught before the models run.
use acb_fuse::engine::{Array, Engine, Limits, Source, dialect};
use acb_fuse::facts::validity::{Property, SizeSet};
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::tensor_proto::DataType;
use acb_fuse::onnx::proto::tensor_shape_proto::Dimension;
use acb_fuse::onnx::proto::tensor_shape_proto::dimension::Value;
use acb_fuse::onnx::proto::{
    AttributeProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use acb_fuse::onnx::write::{int, ints, model, node, string};
use acb_fuse::verify::claim::Unproved;
use acb_fuse::verify::compare::relative_error;
use acb_fuse::verify::inputs::Random;
use acb_fuse::verify::proof::prove;
use ndarray::{ArrayD, IxDyn};
use prost::Message;

use super::scene::{Beliefs, Rewritten, original, rewritten, with_model};

/// A file, and what the fuser takes it for.
pub struct Belief {
    pub file: ModelProto,
    pub believed: ModelProto,
    /// Turns the fuser's claim into the one that is made.
    pub claimed: fn(Beliefs) -> Beliefs,
    /// Shapes of the inputs at which the file and the rewrite differ; empty for a claim that is
    /// merely too narrow.
    pub differs_at: Vec<Vec<usize>>,
}

/// Whether, and by what, a wrong belief was caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caught {
    /// The claim does not cover what the file leaves open.
    ByClaim,
    /// Old and new nodes differ.
    ByProof,
    /// The proof could not be made, so the block is left alone.
    LeftAlone,
    /// The belief is not caught.
    Missed,
}

impl Belief {
    /// Returns what verification says, without a run.
    pub fn fate(&self) -> Caught {
        let rewrite = self.rewrite();
        with_model(self.file.encode_to_vec(), |reader, _| {
            let beliefs = (self.claimed)(rewrite.beliefs.clone());
            let Some(claim) = beliefs.claim(reader.graph, "y", rewrite.fused.side()) else {
                return Caught::ByClaim;
            };
            match prove(&original(reader), &claim, Limits::of_reading()) {
                Ok(_) => Caught::Missed,
                Err(Unproved::TooNarrow(_) | Unproved::ReadsElse(_)) => Caught::ByClaim,
                Err(unproved) if unproved.is_wrong() => Caught::ByProof,
                Err(_) => Caught::LeftAlone,
            }
        })
    }

    fn rewrite(&self) -> Rewritten {
        let nodes = || self.believed.graph.as_ref().unwrap().node.iter();
        let operators = || nodes().map(|node| node.op_type()).collect::<Vec<_>>();
        rewritten(&self.believed, "y").unwrap_or_else(|| panic!("no block: {:?}", operators()))
    }

    /// Returns whether the engine computes other outputs if the new nodes are put into the file, at
    /// inputs where it should.
    pub fn is_wrong(&self) -> bool {
        let rewrite = self.rewrite();
        let mut wrong = self.file.clone();
        let graph = wrong.graph.as_mut().unwrap();
        graph.node.retain(|node| node.output[0] != "y");
        graph.node.extend(rewrite.fused.nodes.iter().cloned());
        graph.initializer.extend(rewrite.fused.tensors.iter().cloned());
        let mut random = Random::new(3);
        let inputs: Vec<Array> = self.differs_at.iter().map(|shape| random.floats(shape)).collect();
        let old = run(&self.file, &inputs).unwrap_or_else(|error| {
            panic!("{:?}: the file does not run: {error}", self.differs_at)
        });
        match run(&wrong, &inputs) {
            Ok(new) => relative_error(&old, &new) > 1e-7,
            Err(_) => true,
        }
    }
}

fn run(model: &ModelProto, inputs: &[Array]) -> Result<Array, String> {
    let indexed = Model::index(model.encode_to_vec().into(), Storage::default()).unwrap();
    let bytes = dialect::model(&indexed).map_err(|error| error.to_string())?;
    let source = Source::small(bytes.to_vec(), Limits::of_reading());
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|input| input.shape().to_vec()).collect();
    let engine = Engine::load(source, &shapes).map_err(|error| error.to_string())?;
    let outputs = engine.run(inputs).map_err(|error| error.to_string())?;
    outputs.into_iter().next().ok_or_else(|| "no output".to_owned())
}

/// A declared size; `None` if it is open.
type Dim = Option<i64>;

const OPEN: Dim = None;

/// A model under construction; `y` is its output.
#[derive(Clone)]
struct Net {
    inputs: Vec<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    stored: Vec<TensorProto>,
}

impl Net {
    fn of(inputs: &[(&str, &[Dim])]) -> Self {
        let inputs = inputs.iter().map(|(name, dims)| declared(name, dims)).collect();
        Net { inputs, nodes: vec![], stored: vec![] }
    }

    fn node(self, op: &str, inputs: &[&str], output: &str) -> Self {
        self.with(op, inputs, output, vec![])
    }

    fn with(
        mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) -> Self {
        self.nodes.push(node(op, "", inputs, output, attributes));
        self
    }

    /// Adds random numbers, the same for the same name and shape.
    fn floats(self, name: &str, shape: &[usize]) -> Self {
        let values = numbers(name, shape);
        self.array(name, &values)
    }

    fn array(mut self, name: &str, values: &ArrayD<f64>) -> Self {
        self.stored.push(tensor::from_floats(name, values, Float::F32));
        self
    }

    fn integers(mut self, name: &str, values: &[i64]) -> Self {
        self.stored.push(tensor::from_integers(name, values));
        self
    }

    fn stored(mut self, tensor: TensorProto) -> Self {
        self.stored.push(tensor);
        self
    }

    fn model(self) -> ModelProto {
        model(17, self.inputs, self.nodes, self.stored, &["y"])
    }
}

fn numbers(name: &str, shape: &[usize]) -> ArrayD<f64> {
    let seed = name.bytes().fold(7u64, |seed, byte| seed * 31 + u64::from(byte));
    match Random::new(seed).floats(shape) {
        Array::Float(values) => values.mapv(|value| Float::F32.round(value)),
        Array::Int(_) => unreachable!(),
    }
}

fn declared(name: &str, dims: &[Dim]) -> ValueInfoProto {
    let dim = |size: &Dim| Dimension { value: size.map(Value::DimValue), ..Dimension::default() };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let elem_type = Some(DataType::Float.into());
    let tensor = type_proto::Tensor { elem_type, shape: Some(shape) };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value, ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

/// Kernel sizes, input channels and output channels of the blocks that are tried.
const GEOMETRIES: [(usize, usize, usize); 4] = [(3, 3, 4), (5, 2, 3), (3, 4, 4), (7, 1, 2)];

fn as_claimed(beliefs: Beliefs) -> Beliefs {
    beliefs
}

/// Claims that the rewrite is right without any condition.
fn everywhere(beliefs: Beliefs) -> Beliefs {
    Beliefs { conditions: vec![], ..beliefs }
}

fn also(mut beliefs: Beliefs, tensor: &str, property: Property) -> Beliefs {
    beliefs.conditions.push((tensor.to_owned(), property));
    beliefs
}

/// Returns beliefs about two models that differ only in the shape of their input, and an input
/// at which that shows: one claimed as by the fuser, one as right without condition.
fn shapes_of_x(
    make: impl Fn(Net) -> Net,
    file: &[Dim],
    believed: &[Dim],
    differs_at: &[usize],
) -> Vec<Belief> {
    let of = |dims: &[Dim]| make(Net::of(&[("x", dims)])).model();
    let belief = |claimed: fn(Beliefs) -> Beliefs| Belief {
        file: of(file),
        believed: of(believed),
        claimed,
        differs_at: vec![differs_at.to_vec()],
    };
    vec![belief(as_claimed), belief(everywhere)]
}

/// Returns the belief that `file` is the model `believed`.
fn pair(file: Net, believed: Net, differs_at: &[usize]) -> Belief {
    let differs_at = vec![differs_at.to_vec()];
    Belief { file: file.model(), believed: believed.model(), claimed: as_claimed, differs_at }
}

fn each(make: impl Fn(usize, usize, usize) -> Vec<Belief>) -> Vec<Belief> {
    GEOMETRIES.iter().flat_map(|&(d, inputs, outputs)| make(d, inputs, outputs)).collect()
}

/// Adds two convolutions whose padding follows from the size.
fn same_arms(
    net: Net,
    [d, other]: [usize; 2],
    [i, o]: [usize; 2],
    mode: &'static str,
    stride: i64,
) -> Net {
    let attributes = || vec![string("auto_pad", mode), ints("strides", vec![stride; 2])];
    net.floats("a", &[o, i, d, d])
        .floats("b", &[o, i, other, other])
        .with("Conv", &["x", "a"], "t", attributes())
        .with("Conv", &["x", "b"], "u", attributes())
        .node("Add", &["t", "u"], "y")
}

fn image(channels: usize, sizes: [Dim; 2]) -> [Dim; 4] {
    [Some(1), Some(channels as i64), sizes[0], sizes[1]]
}

fn same_kind(mode: &'static str, stride: i64, file: Dim, believed: i64, at: usize) -> Vec<Belief> {
    each(|d, i, o| {
        let make = |net| same_arms(net, [d, d - 1], [i, o], mode, stride);
        let (file, believed) = (image(i, [file; 2]), image(i, [Some(believed); 2]));
        shapes_of_x(make, &file, &believed, &[1, i, at, at])
    })
}

/// A border, then a crop with fixed bounds, then a convolution.
fn padded_and_cropped(start: i64, end: i64) -> Vec<Belief> {
    each(|d, i, o| {
        let make = |net: Net| {
            net.floats("a", &[o, i, d, d])
                .integers("pads", &[0, 0, 1, 1, 0, 0, 1, 1])
                .integers("starts", &[start])
                .integers("ends", &[end])
                .integers("axes", &[2])
                .node("Pad", &["x", "pads"], "p")
                .node("Slice", &["p", "starts", "ends", "axes"], "s")
                .node("Conv", &["s", "a"], "y")
        };
        let (file, believed) = (image(i, [OPEN; 2]), image(i, [Some(8), Some(8)]));
        shapes_of_x(make, &file, &believed, &[1, i, 12, 12])
    })
}

/// Pads that are computed from the height of the input, along both axes: (height − 6) − 1.
fn computed_pads() -> Vec<Belief> {
    each(|d, i, o| {
        let make = |net: Net| {
            net.floats("a", &[o, i, d, d])
                .integers("two", &[2])
                .integers("seven", &[7])
                .integers("none", &[0, 0])
                .node("Shape", &["x"], "shape")
                .node("Gather", &["shape", "two"], "height")
                .node("Sub", &["height", "seven"], "pad")
                .with(
                    "Concat",
                    &["none", "pad", "pad", "none", "pad", "pad"],
                    "pads",
                    vec![int("axis", 0)],
                )
                .node("Pad", &["x", "pads"], "p")
                .node("Conv", &["p", "a"], "y")
        };
        let (file, believed) = (image(i, [OPEN; 2]), image(i, [Some(8), Some(8)]));
        shapes_of_x(make, &file, &believed, &[1, i, 9, 9])
    })
}

/// With stride 2, windows of 2 and of 1 give equally many outputs for even sizes only.
fn unequal_counts() -> Vec<Belief> {
    each(|_, i, o| {
        let make = |net: Net| {
            let strides = || vec![ints("strides", vec![2, 2])];
            net.floats("a", &[o, i, 2, 2])
                .floats("b", &[o, i, 1, 1])
                .with("Conv", &["x", "a"], "t", strides())
                .with("Conv", &["x", "b"], "u", strides())
                .node("Add", &["t", "u"], "y")
        };
        let (file, believed) = (image(i, [OPEN; 2]), image(i, [Some(8); 2]));
        shapes_of_x(make, &file, &believed, &[1, i, 3, 3])
    })
}

/// A product of a tensor of two axes, scaled by a tensor of three axes.
fn rank_of_a_product() -> Vec<Belief> {
    each(|d, i, o| {
        let make = |net: Net| {
            net.floats("w", &[i, o]).floats("s", &[1, 1, o]).node("MatMul", &["x", "w"], "t").node(
                "Mul",
                &["t", "s"],
                "y",
            )
        };
        let believed = [Some(2), Some(d as i64), Some(i as i64)];
        shapes_of_x(make, &[Some(d as i64), Some(i as i64)], &believed, &[d, i])
    })
}

/// A `Shape` that starts at an axis, taken for the whole shape.
fn rank_of_a_shape() -> Vec<Belief> {
    each(|d, i, o| {
        let size = d as i64 + 2;
        let net = |start: Option<i64>| {
            let dims = [Some(1), Some(2), Some(size), Some(i as i64)];
            let start = start.into_iter().map(|start| int("start", start)).collect();
            Net::of(&[("x", &dims)])
                .floats("z", &[1, i])
                .floats("w", &[i, o])
                .floats("s", &[1, 1, 1, o])
                .with("Shape", &["x"], "shape", start)
                .node("Expand", &["x0", "shape"], "t")
                .node("MatMul", &["t", "w"], "u")
                .node("Mul", &["u", "s"], "y")
        };
        let with_input = |mut net: Net| {
            net.inputs.push(declared("x0", &[Some(1), Some(i as i64)]));
            net
        };
        let (file, believed) = (with_input(net(Some(2))), with_input(net(None)));
        let differs_at = vec![vec![1, 2, d + 2, i], vec![1, i]];
        let models = (file.model(), believed.model());
        let belief = |claimed| Belief {
            file: models.0.clone(),
            believed: models.1.clone(),
            claimed,
            differs_at: differs_at.clone(),
        };
        vec![belief(as_claimed), belief(everywhere)]
    })
}

/// Adds a convolution whose border is filled with its bias by assignment, and another convolution,
/// for one image of 5 × 5. `leave` is the number of elements that are not filled, `off` is added to
/// the values, and `turn` is the number of channels by which they are exchanged.
fn filled(net: Net, [d, i, o]: [usize; 3], leave: usize, off: f64, turn: usize) -> Net {
    let bias = numbers("bias", &[o]);
    let (mut at, mut values) = (vec![], vec![]);
    for channel in 0..o {
        for row in 0..7 {
            for column in 0..7 {
                if [row, column].iter().any(|&place| place == 0 || place == 6) {
                    at.extend([0, channel as i64, row, column]);
                    values.push(bias[[(channel + turn) % o]] + off);
                }
            }
        }
    }
    let count = values.len() - leave;
    at.truncate(4 * count);
    values.truncate(count);
    let at = TensorProto { dims: vec![count as i64, 4], ..tensor::from_integers("at", &at) };
    net.floats("a", &[o, i, 1, 1])
        .array("bias", &bias)
        .floats("k", &[2, o, d.min(5), d.min(5)])
        .integers("pads", &[0, 0, 1, 1, 0, 0, 1, 1])
        .stored(at)
        .array("values", &ArrayD::from_shape_vec(IxDyn(&[count]), values).unwrap())
        .node("Conv", &["x", "a", "bias"], "c")
        .node("Pad", &["c", "pads"], "p")
        .node("ScatterND", &["p", "at", "values"], "f")
        .node("Conv", &["f", "k"], "y")
}

/// The border, where the file's input has other dimensions than those of one 5 × 5 image.
fn border_of(file: fn(usize) -> [Dim; 4], at: fn(usize) -> [usize; 4]) -> Vec<Belief> {
    each(|d, i, o| {
        let make = |net| filled(net, [d, i, o], 0, 0.0, 0);
        shapes_of_x(make, &file(i), &image(i, [Some(5); 2]), &at(i))
    })
}

fn border_with(leave: usize, off: f64, turn: usize) -> Vec<Belief> {
    each(|d, i, o| {
        let net = || Net::of(&[("x", &image(i, [Some(5); 2]))]);
        let file = filled(net(), [d, i, o], leave, off, turn);
        vec![pair(file, filled(net(), [d, i, o], 0, 0.0, 0), &[1, i, 5, 5])]
    })
}

/// A border around the output of a Relu, taken for a border around all elements.
fn border_behind_a_relu() -> Vec<Belief> {
    each(|d, i, o| {
        let whole = || filled(Net::of(&[("x", &image(i, [Some(5); 2]))]), [d, i, o], 0, 0.0, 0);
        let mut file = whole();
        let fills = file.nodes.iter().position(|node| node.op_type() == "ScatterND").unwrap();
        let padded = std::mem::replace(&mut file.nodes[fills].input[0], "left".to_owned());
        file.nodes.insert(fills, node("Relu", "", &[&padded], "left", vec![]));
        vec![pair(file, whole(), &[1, i, 5, 5])]
    })
}

/// Returns a sum of a square kernel's and a thin one's convolution; `constants` adds the kernels.
fn arms(i: usize, [a, b]: [&str; 2], constants: impl Fn(Net) -> Net) -> Net {
    constants(Net::of(&[("x", &image(i, [OPEN; 2]))]))
        .with("Conv", &["x", a], "t", vec![ints("pads", vec![1; 4])])
        .with("Conv", &["x", b], "u", vec![ints("pads", vec![1, 0, 1, 0])])
        .node("Add", &["t", "u"], "y")
}

/// Returns beliefs where the file computes the square kernel in one way, and is taken to compute it
/// in another.
fn constants(
    file: impl Fn(Net, [usize; 4]) -> Net,
    believed: impl Fn(Net, [usize; 4]) -> Net,
) -> Vec<Belief> {
    each(|_, i, o| {
        let thin = |net: Net| net.floats("b", &[o, i, 3, 1]);
        let shape = [o, i, 3, 3];
        let file = arms(i, ["a", "b"], |net| file(thin(net), shape));
        let believed = arms(i, ["a", "b"], |net| believed(thin(net), shape));
        vec![pair(file, believed, &[1, i, 5, 6])]
    })
}

fn whole(name: &str, shape: [usize; 4], at: impl Fn(usize) -> i32) -> TensorProto {
    let count = shape.iter().product();
    TensorProto {
        name: Some(name.to_owned()),
        dims: shape.iter().map(|&size| size as i64).collect(),
        data_type: Some(DataType::Int32.into()),
        int32_data: (0..count).map(at).collect(),
        ..TensorProto::default()
    }
}

fn cast(net: Net, from: &str, to: &str, kind: DataType) -> Net {
    net.with("Cast", &[from], to, vec![int("to", i32::from(kind).into())])
}

fn indexed(shape: [usize; 4], at: impl Fn(usize) -> f64) -> ArrayD<f64> {
    let count = shape.iter().product();
    ArrayD::from_shape_vec(IxDyn(&shape), (0..count).map(at).collect()).unwrap()
}

/// Adds a kernel scaled by computed statistics of a norm: 1/√(v + ε).
fn scaled_by(net: Net, shape: [usize; 4], epsilon: f64) -> Net {
    let [o, ..] = shape;
    let variance = numbers("v", &[o, 1, 1, 1]).mapv(|value| value.abs() + 0.25);
    net.floats("w", &shape)
        .array("v", &variance)
        .array("e", &ArrayD::from_elem(IxDyn(&[]), epsilon))
        .node("Add", &["v", "e"], "ve")
        .node("Sqrt", &["ve"], "r")
        .node("Reciprocal", &["r"], "s")
        .node("Mul", &["w", "s"], "a")
}

/// Adds a kernel standardized by a batch norm, with its own statistics or with given ones.
fn standardized(net: Net, shape: [usize; 4], trains: i64) -> Net {
    let [o, i, ..] = shape;
    net.floats("w", &shape)
        .floats("g", &[i])
        .floats("h", &[i])
        .floats("m", &[i])
        .array("n", &numbers("n", &[i]).mapv(|value| value.abs() + 0.5))
        .with(
            "BatchNormalization",
            &["w", "g", "h", "m", "n"],
            "a",
            vec![int("training_mode", trains)],
        )
        .integers(&format!("unused{o}"), &[0])
}

/// A constant along another axis than the channels, where both have equally many elements.
fn per_axis(op: &'static str, file: [usize; 4], believed: [usize; 4]) -> Vec<Belief> {
    each(|_, i, _| {
        let net = |dims: [usize; 4]| {
            Net::of(&[("x", &image(i, [Some(4), Some(4)]))])
                .floats("a", &[4, i, 1, 1])
                .floats("b", &[4, i, 1, 1])
                .array("s", &numbers("s", &[4]).into_shape_with_order(IxDyn(&dims)).unwrap())
                .node("Conv", &["x", "a"], "t")
                .node("Conv", &["x", "b"], "u")
                .node("Add", &["t", "u"], "v")
                .node(op, &["v", "s"], "y")
        };
        vec![pair(net(file), net(believed), &[1, i, 4, 4])]
    })
}

fn narrow(claimed: fn(Beliefs) -> Beliefs) -> Vec<Belief> {
    each(|_, i, o| {
        let net = |net: Net| net.floats("a", &[o, i, 3, 3]).floats("b", &[o, i, 3, 1]);
        let dims = [OPEN, Some(i as i64), OPEN, OPEN];
        let made = |batch: &[Dim]| {
            net(Net::of(&[("x", batch)]))
                .with("Conv", &["x", "a"], "t", vec![ints("pads", vec![1; 4])])
                .with("Conv", &["x", "b"], "u", vec![ints("pads", vec![1, 0, 1, 0])])
                .node("Add", &["t", "u"], "y")
                .model()
        };
        vec![Belief { file: made(&dims), believed: made(&dims), claimed, differs_at: vec![] }]
    })
}

/// The rewrite reads another tensor than the nodes do.
fn another_root() -> Vec<Belief> {
    each(|_, i, o| {
        let dims = image(i, [OPEN; 2]);
        let net = |root: &str| {
            Net::of(&[("x", &dims), ("z", &dims)])
                .floats("a", &[o, i, 3, 3])
                .floats("b", &[o, i, 3, 1])
                .with("Conv", &[root, "a"], "t", vec![ints("pads", vec![1; 4])])
                .with("Conv", &[root, "b"], "u", vec![ints("pads", vec![1, 0, 1, 0])])
                .node("Add", &["t", "u"], "y")
        };
        let differs_at = vec![vec![1, i, 5, 6]; 2];
        vec![Belief {
            file: net("x").model(),
            believed: net("z").model(),
            claimed: as_claimed,
            differs_at,
        }]
    })
}

fn exactly(axis: usize, size: i64) -> Property {
    Property::Size(axis, SizeSet::Exactly(size))
}

/// The name of a kind of belief, and the beliefs.
type Believed = (&'static str, fn() -> Vec<Belief>);

/// The kinds of wrong beliefs.
pub const BELIEFS: [Believed; 32] = [
    ("an open size for an even one", || same_kind("SAME_UPPER", 2, OPEN, 8, 7)),
    ("an open size for an odd one", || same_kind("SAME_UPPER", 2, OPEN, 7, 8)),
    ("an open size, padded in front", || same_kind("SAME_LOWER", 2, OPEN, 8, 7)),
    ("an open size, of stride 3", || same_kind("SAME_UPPER", 3, OPEN, 9, 10)),
    ("another size than the file's", || same_kind("SAME_UPPER", 2, Some(8), 7, 8)),
    ("a crop's end for that from behind", || padded_and_cropped(0, 9)),
    ("a crop's start for that from in front", || padded_and_cropped(-9, i64::MAX)),
    ("pads that follow from a size", computed_pads),
    ("equal counts at every size", unequal_counts),
    ("the rank of a product", rank_of_a_product),
    ("the rank of an expanded tensor", rank_of_a_shape),
    ("a border that fills one image for all", || {
        border_of(|i| [OPEN, Some(i as i64), Some(5), Some(5)], |i| [2, i, 5, 5])
    }),
    ("a border that fills one of two images", || {
        border_of(|i| [Some(2), Some(i as i64), Some(5), Some(5)], |i| [2, i, 5, 5])
    }),
    ("a border that fills one size for all", || {
        border_of(|i| image(i, [OPEN; 2]), |i| [1, i, 8, 8])
    }),
    ("a border of other values", || border_with(0, 1e-4, 0)),
    ("a border with a hole", || border_with(1, 0.0, 0)),
    ("a border of another channel's values", || border_with(0, 0.0, 1)),
    ("a border behind a Relu", border_behind_a_relu),
    ("a constant by 10⁻⁶", || {
        constants(
            |net, shape| net.floats("a", &shape),
            |net, shape| net.array("a", &numbers("a", &shape).mapv(|value| value * 1.000_001)),
        )
    }),
    ("bytes that wrap for numbers that do not", || {
        constants(
            |net, shape| {
                let net = net.stored(whole("p", shape, |at| 250 + at as i32 % 9));
                cast(cast(net, "p", "q", DataType::Uint8), "q", "a", DataType::Float)
            },
            |net, shape| net.array("a", &indexed(shape, |at| (250 + at % 9) as f64)),
        )
    }),
    ("a cast that cuts off for one that does not", || {
        constants(
            |net, shape| {
                let net = net.array("p", &indexed(shape, |at| 300.0 + at as f64));
                cast(cast(net, "p", "q", DataType::Uint8), "q", "a", DataType::Float)
            },
            |net, shape| net.array("a", &indexed(shape, |at| 300.0 + at as f64)),
        )
    }),
    ("a constant that is rounded for one that is not", || {
        constants(
            |net, shape| {
                let net = net.floats("p", &shape);
                cast(cast(net, "p", "q", DataType::Float16), "q", "a", DataType::Float)
            },
            |net, shape| net.array("a", &numbers("p", &shape)),
        )
    }),
    ("a constant of integers for one of floats", || {
        constants(
            |net, shape| {
                let net = net.array("p", &indexed(shape, |at| 0.75 * at as f64));
                cast(cast(net, "p", "q", DataType::Int32), "q", "a", DataType::Float)
            },
            |net, shape| net.array("a", &indexed(shape, |at| 0.75 * at as f64)),
        )
    }),
    ("the ε of a statistic that is computed", || {
        constants(
            |net, shape| scaled_by(net, shape, 1e-3),
            |net, shape| scaled_by(net, shape, 1e-5),
        )
    }),
    ("given statistics of a constant for its own", || {
        constants(
            |net, shape| standardized(net, shape, 1),
            |net, shape| standardized(net, shape, 0),
        )
    }),
    ("a scale along the width for one per channel", || per_axis("Mul", [1, 1, 1, 4], [1, 4, 1, 1])),
    ("a shift along the height for one per channel", || {
        per_axis("Add", [1, 1, 4, 1], [1, 4, 1, 1])
    }),
    ("claimed for one size of those that are open", || narrow(|b| also(b, "x", exactly(2, 8)))),
    ("claimed for one batch", || narrow(|b| also(b, "x", exactly(0, 1)))),
    ("claimed for odd sizes", || {
        narrow(|b| {
            let sizes = SizeSet::Congruent { remainder: 1, modulus: 2 };
            also(b, "x", Property::Size(3, sizes))
        })
    }),
    ("claimed for another rank", || narrow(|b| also(b, "x", Property::Rank(5)))),
    ("another tensor of the same shape", another_root),
];
