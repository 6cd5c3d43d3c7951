//! From plan to tensors and nodes: the arithmetic is decided here, once per block.
//!
//! What is written is known as soon as the shapes are. The numbers are computed in float64,
//! and rounded once to the model's type, when they are read: piece by piece, so that a
//! model of any size needs little memory.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayD, Axis};

use crate::affine::{
    Affine, AxisOrder, Comparison, ConvKind, Geometry, Linear, PadMode, Refusal, Window,
};
use crate::emit::layout::order_of_product;
use crate::numbers::LazyWeights;
use crate::onnx::graph::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::proto::tensor_shape_proto::Dimension;
use crate::onnx::proto::tensor_shape_proto::dimension::Value as Size;
use crate::onnx::proto::{
    AttributeProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use crate::onnx::tensor::{self, Float};
use crate::onnx::write::WRAP_SINCE;
use crate::onnx::write::{int, ints, node, string};
use crate::ops::meaning::LinearOp;
use crate::ops::meaning::Sign;
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::Block;
use crate::plan::region::{Term, TermKind};

/// What takes a block's place.
#[derive(Debug, Clone)]
pub struct FusedNodes {
    /// New nodes; the last one computes the block's output.
    pub nodes: Vec<NodeProto>,
    /// New initializers of the model's type.
    pub weights: Vec<FusedWeights>,
    /// New initializers of integers.
    pub integers: Vec<TensorProto>,
    /// Descriptions of new tensors that engines would describe wrongly.
    pub infos: Vec<ValueInfoProto>,
    /// Tensors that the new nodes read.
    pub roots: Vec<ValueId>,
}

/// A new initializer, whose numbers are computed when they are asked for.
#[derive(Debug, Clone)]
pub struct FusedWeights {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<i64>,
    /// Its type.
    pub float: Float,
    /// What it holds, before rounding.
    pub numbers: Arc<dyn LazyWeights>,
}

/// Why a planned block could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum FuseError {
    /// The model is malformed.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The weights refuse what the shapes allowed.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// A kernel is computed by a sub-graph that the engine cannot run.
    #[error("a kernel is computed by constant nodes that could not be evaluated")]
    NotEvaluated,
    /// A fused weight does not exist in the model's type.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
}

/// A fused weight is too large for the model's type, or no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a weight of `{tensor}` is not finite in the model's type")]
pub struct NotFinite {
    /// The tensor that would hold it.
    pub tensor: String,
}

/// FusedWeights up to this many are computed at once: they are cheaper than what it takes to
/// put them off.
const SMALL: usize = 1 << 12;

/// How many numbers are computed at a time, about: they fit a processor's cache.
const PIECE: usize = 1 << 16;

impl FusedWeights {
    /// `numbers` as the tensor `name`.
    ///
    /// # Errors
    /// If it is seen already that one of them is not finite in type `float`.
    pub fn new(
        name: &str,
        dims: &[usize],
        float: Float,
        numbers: Arc<dyn LazyWeights>,
    ) -> Result<Self, NotFinite> {
        let dims = dims.iter().map(|&dim| dim as i64).collect();
        let mut weights = FusedWeights { name: name.to_owned(), dims, float, numbers };
        if weights.numbers.count() <= SMALL {
            weights.numbers = Arc::new(weights.read(0..weights.numbers.count())?);
        }
        Ok(weights)
    }

    /// The tensor without its data.
    pub fn header(&self) -> TensorProto {
        tensor::header(&self.name, &self.dims, self.float.to_onnx())
    }

    /// Bytes of its data.
    pub fn length(&self) -> usize {
        self.numbers.count().saturating_mul(self.float.size())
    }

    /// Ranges of its numbers that are best computed at a time.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (count, rows) = (self.numbers.count(), self.dims.first().copied().unwrap_or(1));
        let row = count.checked_div(rows.unsigned_abs() as usize).unwrap_or(0).max(1);
        // Whole rows, or nearly all of one would be computed twice.
        let piece = PIECE.checked_div(row).unwrap_or(0).max(1).saturating_mul(row);
        (0..count).step_by(piece).map(move |at| at..at.saturating_add(piece).min(count))
    }

    /// The numbers of one piece before rounding.
    ///
    /// # Errors
    /// If one of them is not finite when it is rounded.
    pub fn read(&self, piece: Range<usize>) -> Result<Vec<f64>, NotFinite> {
        let mut exact = vec![0.0; piece.len()];
        self.numbers.read(piece.start, &mut exact);
        match self.float.holds(&exact) {
            true => Ok(exact),
            false => Err(NotFinite { tensor: self.name.clone() }),
        }
    }

    /// The data of one piece, rounded.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn rounded(&self, piece: Range<usize>) -> Result<Vec<u8>, NotFinite> {
        Ok(tensor::rounded(&self.read(piece)?, self.float))
    }
}

/// Computes what takes the place of `block`.
///
/// # Errors
/// If a weight cannot be read, or it is seen already that a fused one is not finite.
pub fn fuse(reader: &Reader, meanings: &Meanings, block: &Block) -> Result<FusedNodes, FuseError> {
    fused(reader, block, &parts(reader, meanings, block)?)
}

/// As [`fuse`], and what became of the weights: one comparison per convolution. That takes
/// a pass over the old and the new ones.
///
/// # Errors
/// As [`fuse`].
pub fn fuse_and_compare(
    reader: &Reader,
    meanings: &Meanings,
    block: &Block,
) -> Result<(FusedNodes, Vec<Comparison>), FuseError> {
    let parts = parts(reader, meanings, block)?;
    let weighted = parts.iter().filter(|part| part.kind == TermKind::Conv);
    let compared = weighted.filter_map(|part| part.map.compared()).collect();
    Ok((fused(reader, block, &parts)?, compared))
}

/// The block's normal form with its weights.
fn parts(
    reader: &Reader,
    meanings: &Meanings,
    block: &Block,
) -> Result<Vec<Term<Affine>>, FuseError> {
    let weights = |map: &LinearOp| map.affine(reader.constants)?.ok_or(FuseError::NotEvaluated);
    let (mut parts, _) = block.region.evaluate(meanings, reader, &Affine::identity(), weights)?;
    // A convolution first, so that what is subtracted has something to be subtracted from.
    parts.sort_by_key(|part| part.kind != TermKind::Conv);
    Ok(parts)
}

fn fused(reader: &Reader, block: &Block, parts: &[Term<Affine>]) -> Result<FusedNodes, FuseError> {
    let mut fused = FusedNodes {
        nodes: vec![],
        weights: vec![],
        integers: vec![],
        infos: vec![],
        roots: parts.iter().map(|p| p.root).collect(),
    };
    let output = &reader.graph.value(block.region.output).name;
    let last = parts.len().saturating_sub(1);
    let mut sum = String::new();
    for (index, part) in parts.iter().enumerate() {
        // Only the last node makes the block's output.
        let stem = if last == 0 { block.stem.clone() } else { format!("{}.{index}", block.stem) };
        let root = &reader.graph.value(part.root).name;
        let term = match part.kind {
            TermKind::Identity(_) => root.clone(),
            _ if last == 0 => fused.convolution(reader, block, part, &stem, root, output)?,
            _ => fused.convolution(reader, block, part, &stem, root, &stem)?,
        };
        sum = match index {
            0 => term,
            _ => {
                let op = if part.kind == TermKind::Identity(Sign::Minus) { "Sub" } else { "Add" };
                let result = if index == last { output.clone() } else { format!("{stem}.sum") };
                let node_name = format!("{stem}.add");
                fused.nodes.push(node(op, &node_name, &[&sum, &term], &result, vec![]));
                result
            }
        };
    }
    Ok(fused)
}

impl FusedNodes {
    /// Appends the convolution of `part`, between Transposes where its tensors are not
    /// NCHW, behind a Pad where its border is not zero, and behind a Slice where its
    /// windows start inside the input: engines refuse negative pads. Returns its
    /// output's name.
    fn convolution(
        &mut self,
        reader: &Reader,
        block: &Block,
        part: &Term<Affine>,
        stem: &str,
        root: &str,
        output: &str,
    ) -> Result<String, FuseError> {
        let geometry = part.map.geometry();
        if let Some(order) = order_of_product(geometry) {
            return self.product(block, part, stem, &order, root, output);
        }
        let rank = geometry.rank();
        let channels = geometry.channels.map(|channels| channels.inputs);
        let opset = reader.graph.model.opset;
        let features = Features { opset, float: block.float, rank, channels };
        let mut input = root.to_owned();
        if !geometry.input.is_canonical() {
            let name = format!("{stem}.input");
            self.transpose(&name, &input, &name, geometry.input.axes(rank));
            input = name;
        }
        let frame = |border: PadMode| -> Vec<(i64, i64)> {
            let pads = |window: &Window| match window.border == border {
                true => pair(window.pads(), |pad| pad.max(0)),
                false => (0, 0),
            };
            geometry.windows.iter().map(pads).collect()
        };
        // What is mirrored is all of the input, so it is padded before it is cropped.
        for (border, name) in
            [(PadMode::Reflect, "reflect"), (PadMode::Edge, "edge"), (PadMode::Wrap, "wrap")]
        {
            let pads = frame(border);
            if pads.iter().any(|&pads| pads != (0, 0)) {
                input = self.pad(&features, &format!("{stem}.{name}"), &input, &pads, border);
            }
        }
        let windows = geometry.windows.iter();
        let crops: Vec<_> = windows.map(|window| pair(window.pads(), |pad| pad.min(0))).collect();
        if geometry.kind != ConvKind::ConvTranspose && crops.iter().any(|&crop| crop != (0, 0)) {
            input = self.crop(&features, &format!("{stem}.crop"), &input, &crops);
        }
        let groups = geometry.channels.map_or(1, |channels| channels.groups);
        let [weight, bias] = tensor_names(block, stem);
        let kernel = part.map.clone().stored_kernel();
        self.weights.push(FusedWeights::new(
            &weight,
            &part.map.stored_shape(),
            block.float,
            kernel,
        )?);
        let mut inputs = vec![input.as_str(), weight.as_str()];
        if geometry.shifted {
            self.bias(&bias, part, block)?;
            inputs.push(&bias);
        }
        let axis = |value: fn(&Window) -> i64| -> Vec<i64> {
            geometry.windows.iter().map(value).collect()
        };
        let mut attributes = vec![
            ints("dilations", axis(|window| window.dilation)),
            int("group", groups as i64),
            ints("kernel_shape", axis(|window| window.taps)),
            ints("strides", axis(|window| window.stride)),
        ];
        let op = match geometry.kind {
            ConvKind::Conv | ConvKind::MatMul => {
                attributes.push(ints("pads", pads_of(&frame(PadMode::Zero))));
                "Conv"
            }
            ConvKind::ConvTranspose => {
                let windows = geometry.windows.iter();
                let (pads, growth): (Vec<_>, Vec<_>) = windows.map(Window::scattered_pads).unzip();
                attributes.push(ints("pads", pads_of(&pads)));
                attributes.push(ints("output_padding", growth));
                "ConvTranspose"
            }
        };
        attributes.sort_by(|a, b| a.name().cmp(b.name()));
        if geometry.output.is_canonical() {
            self.nodes.push(node(op, stem, &inputs, output, attributes));
        } else {
            let canonical = format!("{stem}.nchw");
            self.nodes.push(node(op, stem, &inputs, &canonical, attributes));
            let roles = geometry.output.roles(rank);
            self.transpose(&format!("{stem}.output"), &canonical, output, roles);
        }
        Ok(output.to_owned())
    }

    /// Appends the matrix product of `part`: Gemm on `[N, C]`, MatMul and Add where there
    /// are further axes, in `order`; between Transposes where its tensors have another.
    fn product(
        &mut self,
        block: &Block,
        part: &Term<Affine>,
        stem: &str,
        order: &AxisOrder,
        root: &str,
        output: &str,
    ) -> Result<String, FuseError> {
        let geometry = part.map.geometry();
        let [weight, bias] = tensor_names(block, stem);
        if geometry.shifted {
            self.bias(&bias, part, block)?;
        }
        if geometry.windows.is_empty() && geometry.shifted {
            let kernel = part.map.clone().stored_kernel();
            let shape = part.map.stored_shape();
            self.weights.push(FusedWeights::new(&weight, &shape, block.float, kernel)?);
            let inputs = [root, &weight, &bias];
            self.nodes.push(node("Gemm", stem, &inputs, output, vec![int("transB", 1)]));
        } else {
            let matrix = transposed(part.map.kernel());
            let shape = matrix.shape().to_vec();
            let numbers = Arc::new(matrix.into_iter().collect::<Vec<f64>>());
            self.weights.push(FusedWeights::new(&weight, &shape, block.float, numbers)?);
            self.matmul(geometry, stem, [&weight, &bias], order, [root, output]);
        }
        Ok(output.to_owned())
    }

    /// Appends MatMul with `weight`, Add with `bias`, and Transposes.
    fn matmul(
        &mut self,
        geometry: &Geometry,
        stem: &str,
        [weight, bias]: [&String; 2],
        order: &AxisOrder,
        [root, output]: [&str; 2],
    ) {
        let rank = geometry.rank();
        let mut steps = vec![];
        if geometry.input != *order {
            steps.push(("input", turn(&geometry.input, order, rank)));
        }
        steps.push(("product", ("MatMul", Some(weight), vec![])));
        if geometry.shifted {
            steps.push(("shift", ("Add", Some(bias), vec![])));
        }
        if geometry.output != *order {
            steps.push(("output", turn(order, &geometry.output, rank)));
        }
        let mut value = root.to_owned();
        let count = steps.len();
        for (number, (name, (op, constant, attributes))) in (1..).zip(steps) {
            let name = format!("{stem}.{name}");
            let result = if number == count { output.to_owned() } else { name.clone() };
            let inputs: Vec<&str> =
                [value.as_str()].into_iter().chain(constant.map(String::as_str)).collect();
            self.nodes.push(node(op, &name, &inputs, &result, attributes));
            value = result;
        }
    }

    fn bias(&mut self, name: &str, part: &Term<Affine>, block: &Block) -> Result<(), FuseError> {
        let bias = part.map.bias().to_vec();
        self.weights.push(FusedWeights::new(name, &[bias.len()], block.float, Arc::new(bias))?);
        Ok(())
    }

    fn transpose(&mut self, name: &str, input: &str, output: &str, axes: Vec<usize>) {
        let perm = axes.into_iter().map(|axis| axis as i64).collect();
        self.nodes.push(node("Transpose", name, &[input], output, vec![ints("perm", perm)]));
    }

    /// Appends what cuts `−pads` off each spatial axis.
    fn crop(
        &mut self,
        features: &Features,
        name: &str,
        input: &str,
        pads: &[(i64, i64)],
    ) -> String {
        let end = |&(_, end): &(i64, i64)| if end < 0 { end } else { i64::MAX };
        let cut = (2..).zip(pads).filter(|&(_, &pads)| pads != (0, 0));
        let cuts: Vec<AxisSlice> = cut
            .map(|(axis, pads)| AxisSlice { axis, start: pads.0.saturating_neg(), end: end(pads) })
            .collect();
        self.slice(features, name, input, &cuts)
    }

    /// Slice, by attributes before opset 10 and by inputs since.
    fn slice(
        &mut self,
        features: &Features,
        name: &str,
        input: &str,
        cuts: &[AxisSlice],
    ) -> String {
        self.infos.extend(features.description(name, cuts));
        let list = |value: fn(&AxisSlice) -> i64| -> Vec<i64> { cuts.iter().map(value).collect() };
        let lists = [
            ("starts", list(|cut| cut.start)),
            ("ends", list(|cut| cut.end)),
            ("axes", list(|cut| cut.axis)),
        ];
        if features.opset < 10 {
            let attributes = lists.into_iter().map(|(list, values)| ints(list, values)).collect();
            self.nodes.push(node("Slice", name, &[input], name, attributes));
            return name.to_owned();
        }
        let lists =
            lists.map(|(list, values)| tensor::from_integers(&format!("{name}.{list}"), &values));
        let mut inputs = vec![input];
        inputs.extend(lists.iter().map(TensorProto::name));
        self.nodes.push(node("Slice", name, &inputs, name, vec![]));
        self.integers.extend(lists);
        name.to_owned()
    }

    /// Appends what puts `border` around the spatial axes.
    fn pad(
        &mut self,
        features: &Features,
        name: &str,
        input: &str,
        pads: &[(i64, i64)],
        border: PadMode,
    ) -> String {
        let mode = match border {
            PadMode::Zero => "constant",
            PadMode::Reflect => "reflect",
            PadMode::Edge => "edge",
            PadMode::Wrap if features.opset < WRAP_SINCE => {
                return self.wrap(features, name, input, pads);
            }
            PadMode::Wrap => "wrap",
        };
        let begins = [0, 0].into_iter().chain(pads.iter().map(|pads| pads.0));
        let ends = [0, 0].into_iter().chain(pads.iter().map(|pads| pads.1));
        let pads: Vec<i64> = begins.chain(ends).collect();
        let mode = string("mode", mode);
        // Pad's pads are an input since opset 11.
        if features.opset < 11 {
            let attributes = vec![mode, ints("pads", pads)];
            self.nodes.push(node("Pad", name, &[input], name, attributes));
        } else {
            let pads = tensor::from_integers(&format!("{name}.pads"), &pads);
            self.nodes.push(node("Pad", name, &[input, pads.name()], name, vec![mode]));
            self.integers.push(pads);
        }
        name.to_owned()
    }

    /// Per axis: the last elements, the input, the first elements.
    fn wrap(
        &mut self,
        features: &Features,
        name: &str,
        input: &str,
        pads: &[(i64, i64)],
    ) -> String {
        let mut input = input.to_owned();
        for (axis, &(begin, end)) in (2..).zip(pads).filter(|&(_, &pads)| pads != (0, 0)) {
            let last = AxisSlice { axis, start: begin.saturating_neg(), end: i64::MAX };
            let first = AxisSlice { axis, start: 0, end };
            let mut parts = vec![input.clone()];
            if begin > 0 {
                let name = format!("{name}.{axis}.last");
                parts.insert(0, self.slice(features, &name, &input, &[last]));
            }
            if end > 0 {
                let name = format!("{name}.{axis}.first");
                parts.push(self.slice(features, &name, &input, &[first]));
            }
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let padded = format!("{name}.{axis}");
            self.nodes.push(node("Concat", &padded, &parts, &padded, vec![int("axis", axis)]));
            input = padded;
        }
        input
    }
}

/// The tensors that a new convolution reads.
struct Features {
    opset: i64,
    float: Float,
    rank: usize,
    channels: Option<usize>,
}

/// In this operator set, the inference of shapes says of what Slice makes that it is as large
/// as what it reads, if that has a name: of x [1, 3, h, w], x[:, :, 1:] would be [1, 3, h, w]
/// too. Engines that reuse memory by such names then take one tensor's for another's.
const SLICE_KEEPS_NAMES: i64 = 10;

impl Features {
    /// What is to be said of the tensor `name`, which `cuts` make of them: on the axes that
    /// are cut, its sizes have names of their own.
    fn description(&self, name: &str, cuts: &[AxisSlice]) -> Option<ValueInfoProto> {
        if self.opset != SLICE_KEEPS_NAMES {
            return None;
        }
        let dim = |axis: usize| {
            let is_cut = cuts.iter().any(|cut| usize::try_from(cut.axis) == Ok(axis));
            let channels = self.channels.filter(|_| axis == 1);
            let value = match channels {
                Some(channels) => Some(Size::DimValue(channels as i64)),
                None => is_cut.then(|| Size::DimParam(format!("{name}.{axis}"))),
            };
            Dimension { value, ..Dimension::default() }
        };
        let shape = TensorShapeProto { dim: (0..self.rank).map(dim).collect() };
        let elem_type = Some(self.float.to_onnx());
        let tensor = type_proto::Tensor { elem_type, shape: Some(shape) };
        let value = Some(type_proto::Value::TensorType(tensor));
        let r#type = Some(TypeProto { value, ..TypeProto::default() });
        Some(ValueInfoProto { name: Some(name.to_owned()), r#type, ..ValueInfoProto::default() })
    }
}

/// `[O, C, 1, …]` as `[C, O]`.
fn transposed(mut kernel: ArrayD<f64>) -> ArrayD<f64> {
    while kernel.ndim() > 2 {
        kernel.index_axis_inplace(Axis(2), 0);
    }
    kernel.reversed_axes()
}

/// Names of the weights and the bias of the convolution called `stem`, which begins with
/// the block's.
fn tensor_names(block: &Block, stem: &str) -> [String; 2] {
    let part = stem.strip_prefix(&block.stem).unwrap_or_default();
    ["weight", "bias"].map(|tensor| format!("{}{part}.{tensor}", block.tensors))
}

/// A Transpose from one order of axes to another: its operator and attributes.
fn turn<'c>(
    from: &AxisOrder,
    to: &AxisOrder,
    rank: usize,
) -> (&'static str, Option<&'c String>, Vec<AttributeProto>) {
    let axes = to.roles(rank).into_iter().map(|role| from.axis(role) as i64);
    ("Transpose", None, vec![ints("perm", axes.collect())])
}

/// All beginnings, then all ends.
fn pads_of(pads: &[(i64, i64)]) -> Vec<i64> {
    pads.iter().map(|pads| pads.0).chain(pads.iter().map(|pads| pads.1)).collect()
}

fn pair(pads: (i64, i64), each: fn(i64) -> i64) -> (i64, i64) {
    (each(pads.0), each(pads.1))
}

/// What Slice leaves of one axis.
struct AxisSlice {
    axis: i64,
    start: i64,
    end: i64,
}
