//! One node, read as linear algebra.
//!
//! This is the only place that knows what an operator means. To add a linear
//! operator, add an arm to [`Reader::read`]; nothing else has to change.

use crate::affine::{AxisOrder, Channels, ConvKind, Geometry, Linear, PadMode, Window, batch_norm};
use crate::engine::InputShapes;
use crate::facts::constants::Constants;
use crate::facts::shapes::{MAX_RANK, Sizes, transposition};
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::ops::filled::{Bordered, bordered};
use crate::ops::meaning::Sign;
use crate::ops::meaning::{KernelLayout, LinearOp, Meaning};
use crate::ops::training::{Training, eval_form};
use crate::refusal::NotLinear;

/// Reads the nodes of one graph.
pub struct Reader<'g, 'm> {
    /// The graph.
    pub graph: &'g Graph<'m>,
    /// What is constant in it.
    pub constants: &'g Constants<'g, 'm>,
    /// The sizes of its tensors.
    pub sizes: Sizes<'g, 'm>,
    /// What its nodes in training mode are read as.
    pub training: Training<'g>,
}

pub(super) type Read<T> = Result<Result<T, NotLinear>, Invalid>;

/// `let value = known!(expression)`: the value, or back out with the reason.
macro_rules! known {
    ($read:expr) => {
        match $read {
            Ok(value) => value,
            Err(reason) => return Ok(Err(reason)),
        }
    };
}

impl<'g, 'm> Reader<'g, 'm> {
    /// `inputs` are the shapes that the user gave.
    pub fn new(
        graph: &'g Graph<'m>,
        constants: &'g Constants<'g, 'm>,
        inputs: &'g InputShapes,
        training: Training<'g>,
    ) -> Self {
        Reader { graph, constants, sizes: Sizes::new(graph, constants, inputs), training }
    }

    /// Reads one node, and tells for which inputs the reading is right.
    ///
    /// # Errors
    /// If a stored tensor that it needs is malformed.
    pub fn read(&self, node: &Node) -> Result<(Meaning, Validity), Invalid> {
        let mut valid = Validity::default();
        let reading = self.reading(node, &mut valid)?;
        Ok((reading, valid))
    }

    fn reading(&self, node: &Node, valid: &mut Validity) -> Result<Meaning, Invalid> {
        let opaque = || NotLinear::Operator(node.proto.op_type().to_owned());
        let Some(op) = node.standard_op() else {
            return Ok(Meaning::Opaque(NotLinear::Foreign(format!(
                "{}::{}",
                node.proto.domain(),
                node.proto.op_type()
            ))));
        };
        if most_inputs(op).is_some_and(|most| node.inputs.len() > most) {
            return Ok(Meaning::Opaque(NotLinear::Malformed(
                "it has inputs that its operator does not have",
            )));
        }
        // Arithmetic on sizes and indices.
        let first = node.input(0).and_then(|input| self.constants.element_type(input));
        if op != "Cast" && first.is_some_and(|first| Float::from_onnx(first).is_none()) {
            return Ok(Meaning::Opaque(opaque()));
        }
        let reading = match op {
            "Conv" => self.conv(node, ConvKind::Conv, valid)?,
            "ConvTranspose" => self.conv(node, ConvKind::ConvTranspose, valid)?,
            "Gemm" => self.gemm(node)?,
            "MatMul" => self.matmul(node, valid)?,
            "BatchNormalization" => self.norm(node)?,
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node, op, valid)?,
            // With a constant that is no shift, it is a sum all the same.
            "Sum" => match self.same_types(node, &(0..node.inputs.len()).collect::<Vec<_>>()) {
                Err(why) => Err(why),
                Ok(()) if node.inputs.len() == 2 => match self.arithmetic(node, "Add", valid)? {
                    Err(_) => sum(node),
                    shift => shift,
                },
                Ok(()) => sum(node),
            },
            "Neg" => of_input(node, uniform(-1.0, 0.0)),
            "Pad" => self.pad(node, valid)?,
            "Slice" => self.slice(node, valid)?,
            "AveragePool" => self.average_pool(node, valid)?,
            "Concat" => self.concat(node, valid)?,
            "ScatterND" | "Transpose" => match bordered(self, node, valid)? {
                Ok(Some(border)) => self.bordered(border, valid)?,
                Ok(None) if op == "Transpose" => self.transpose(node, valid),
                Ok(None) => Err(opaque()),
                Err(reason) => Err(reason),
            },
            "ReduceSum" => self.stacked(node, valid)?,
            "Identity" => alias(node),
            "Dropout" if self.yields_more(node) => {
                Err(NotLinear::Unrepresentable("its mask is used"))
            }
            "Dropout" => match eval_form(self, node)? {
                Some(Err(reason)) => Err(reason),
                _ => alias(node),
            },
            "Cast" if self.keeps_type(node) => alias(node),
            _ => Err(opaque()),
        };
        // y of `_, y = Add(a, b)` would go with its node.
        let reading = reading.and_then(|reading| match self.yields_more(node) {
            true => Err(NotLinear::Malformed("it has outputs that its operator does not have")),
            false => Ok(reading),
        });
        Ok(reading.unwrap_or_else(Meaning::Opaque))
    }

    /// Conv and ConvTranspose (opset 1 to 22).
    fn conv(&self, node: &Node, kind: ConvKind, valid: &mut Validity) -> Read<Meaning> {
        let (Some(input), Some(kernel)) = (node.input(0), node.input(1)) else {
            return Ok(Err(NotLinear::Malformed("its input or kernel is missing")));
        };
        let Some(dims) = self.constants.dims(kernel)? else {
            return Ok(Err(self.not_constant(kernel)));
        };
        let float = self.constants.element_type(kernel).and_then(Float::from_onnx);
        let (Some(float), [first, width, taps @ ..]) = (float, dims.as_slice()) else {
            return Ok(Err(NotLinear::Malformed("its kernel is not a float tensor [O, C, k…]")));
        };
        known!(self.same_types(node, &[0, 1, 2]));
        let groups = usize::try_from(node.int("group", 1)).unwrap_or(0);
        if first.checked_rem(groups) != Some(0) || dims.contains(&0) {
            return Ok(Err(NotLinear::Malformed("its groups do not divide its channels")));
        }
        if self.sizes.declared_rank(input).is_some_and(|rank| rank != dims.len()) {
            return Ok(Err(NotLinear::Malformed("its input has other axes than its kernel")));
        }
        let taps: Vec<i64> = taps.iter().map(|&taps| taps as i64).collect();
        if node.ints("kernel_shape").is_some_and(|shape| shape != taps) {
            return Ok(Err(NotLinear::Malformed("kernel_shape is not its kernel's shape")));
        }
        let Some(second) = width.checked_mul(groups) else {
            return Ok(Err(NotLinear::Malformed("its channels overflow")));
        };
        let (windows, outputs, inputs, layout) = match kind {
            ConvKind::ConvTranspose => {
                (scattered_windows(node, &taps), second, *first, KernelLayout::InputsFirst)
            }
            ConvKind::Conv | ConvKind::MatMul => (
                self.windows(node, input, &taps, valid),
                *first,
                second,
                KernelLayout::OutputsFirst,
            ),
        };
        let windows = known!(windows);
        let bias = match node.input(2) {
            None => Vec::new(),
            Some(bias) => known!(self.vector(bias, outputs)?),
        };
        let geometry = Geometry {
            channels: Some(Channels { inputs, outputs, groups }),
            windows,
            kind,
            shifted: bias.iter().any(|&value| value != 0.0),
            ..Geometry::identity()
        };
        Ok(Ok(Meaning::Linear(input, LinearOp::Conv { kernel, layout, float, bias, geometry })))
    }

    /// Gemm (opset 1 to 13) of a tensor `[N, C]` with a constant.
    fn gemm(&self, node: &Node) -> Read<Meaning> {
        let (Some(input), Some(weights)) = (node.input(0), node.input(1)) else {
            return Ok(Err(NotLinear::Malformed("its input or weights are missing")));
        };
        let factor = |name| node.attribute(name).map_or(1.0, |attribute| attribute.f());
        let scales = factor("alpha") != 1.0 || factor("beta") != 1.0;
        // Before operator set 7 a bias was broadcast only where that was asked for.
        if scales || node.int("transA", 0) != 0 || self.graph.model.opset < 7 {
            return Ok(Err(NotLinear::Operator("Gemm".to_owned())));
        }
        let layout = match node.int("transB", 0) {
            0 => KernelLayout::InputsFirst,
            _ => KernelLayout::OutputsFirst,
        };
        let (float, [inputs, outputs]) = known!(self.matrix(weights, layout)?);
        known!(self.same_types(node, &[0, 1, 2]));
        let bias = match node.input(2) {
            None => Vec::new(),
            Some(bias) => known!(self.row(bias, outputs)?),
        };
        let geometry = Geometry {
            channels: Some(Channels { inputs, outputs, groups: 1 }),
            kind: ConvKind::MatMul,
            shifted: bias.iter().any(|&value| value != 0.0),
            ..Geometry::identity()
        };
        Ok(Ok(Meaning::Linear(
            input,
            LinearOp::Conv { kernel: weights, layout, float, bias, geometry },
        )))
    }

    /// MatMul (opset 1 to 13) of a tensor `[N, …, C]` with a constant `[C, O]`.
    fn matmul(&self, node: &Node, valid: &mut Validity) -> Read<Meaning> {
        let opaque = || Ok(Err(NotLinear::Operator("MatMul".to_owned())));
        let (Some(input), Some(weights)) = (node.input(0), node.input(1)) else { return opaque() };
        // A product of two feature maps, as in attention, is not linear. What is written
        // in its place broadcasts as it has since operator set 7.
        let between_maps = self.constants.contains(input) || !self.constants.contains(weights);
        if between_maps || self.graph.model.opset < 7 {
            return opaque();
        }
        let layout = KernelLayout::InputsFirst;
        let (float, [inputs, outputs]) = known!(self.matrix(weights, layout)?);
        known!(self.same_types(node, &[0, 1]));
        let rank = known!(self.rank(input, valid));
        let Some(axes) = rank.checked_sub(2) else { return opaque() };
        let geometry = Geometry {
            channels: Some(Channels { inputs, outputs, groups: 1 }),
            windows: vec![Window::IDENTITY; axes],
            kind: ConvKind::MatMul,
            ..Geometry::identity().within(&AxisOrder::with_channels_at(rank.saturating_sub(1)))
        };
        let (kernel, bias) = (weights, Vec::new());
        Ok(Ok(Meaning::Linear(input, LinearOp::Conv { kernel, layout, float, bias, geometry })))
    }

    /// The type of a constant matrix, and its numbers of inputs and outputs.
    fn matrix(&self, id: ValueId, layout: KernelLayout) -> Read<(Float, [usize; 2])> {
        let Some(dims) = self.constants.dims(id)? else { return Ok(Err(self.not_constant(id))) };
        let float = self.constants.element_type(id).and_then(Float::from_onnx);
        let (Some(float), &[first, second]) = (float, dims.as_slice()) else {
            return Ok(Err(NotLinear::Unrepresentable("its weights are not one matrix of floats")));
        };
        if dims.contains(&0) {
            return Ok(Err(NotLinear::Malformed("its weights are empty")));
        }
        Ok(Ok(match layout {
            KernelLayout::InputsFirst => (float, [first, second]),
            KernelLayout::OutputsFirst => (float, [second, first]),
        }))
    }

    /// AveragePool (opset 1 to 22): each tap weighs 1/(number of taps).
    fn average_pool(&self, node: &Node, valid: &mut Validity) -> Read<Meaning> {
        let (Some(input), Some(taps)) = (node.input(0), node.ints("kernel_shape")) else {
            return Ok(Err(NotLinear::Malformed("its input or kernel_shape is missing")));
        };
        let windows = known!(self.windows(node, input, taps, valid));
        let padded = windows.iter().any(|window| window.pads() != (0, 0));
        // At the border a mean over fewer taps has other weights.
        if padded && node.int("count_include_pad", 0) == 0 {
            return Ok(Err(NotLinear::Unrepresentable("its means leave the padding out")));
        }
        // With ceil_mode the last window may overhang and count less taps.
        if node.int("ceil_mode", 0) != 0 {
            return Ok(Err(NotLinear::Unrepresentable("ceil_mode lets its windows overhang")));
        }
        let count: f64 = taps.iter().map(|&taps| taps as f64).product();
        let order = AxisOrder::CANONICAL;
        Ok(Ok(Meaning::Linear(
            input,
            LinearOp::Filter { windows, order, weight: 1.0 / count, shift: 0.0 },
        )))
    }

    /// The windows that a Conv's or pool's attributes describe.
    fn windows(
        &self,
        node: &Node,
        input: ValueId,
        taps: &[i64],
        valid: &mut Validity,
    ) -> Result<Vec<Window>, NotLinear> {
        let malformed = MALFORMED_WINDOWS;
        let strides = per_axis(node, "strides", taps.len(), 1)?;
        let dilations = per_axis(node, "dilations", taps.len(), 1)?;
        let auto_pad = node.attribute("auto_pad").map_or(&b""[..], |attribute| attribute.s());
        let explicit = per_axis(node, "pads", taps.len().saturating_mul(2), 0)?;
        // Which of the two counts is for every engine to say.
        let by_itself = matches!(auto_pad, b"" | b"NOTSET");
        if !by_itself && explicit.iter().any(|&pad| pad != 0) {
            return Err(malformed);
        }
        let (begins, ends) = explicit.split_at(taps.len());
        let axes = taps.iter().zip(&strides).zip(&dilations).zip(begins.iter().zip(ends));
        axes.enumerate()
            .map(|(axis, (((&taps, &stride), &dilation), (&begin, &end)))| {
                let pads = match auto_pad {
                    b"" | b"NOTSET" if begin < 0 || end < 0 => return Err(malformed.clone()),
                    b"" | b"NOTSET" => (begin, end),
                    b"VALID" => (0, 0),
                    b"SAME_UPPER" | b"SAME_LOWER" => {
                        let extent =
                            taps.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
                        let total = self.same_padding(
                            input,
                            axis.saturating_add(2),
                            [stride, extent],
                            valid,
                        )?;
                        let small = total / 2;
                        let large = total.saturating_sub(small);
                        if auto_pad == b"SAME_UPPER" { (small, large) } else { (large, small) }
                    }
                    _ => return Err(malformed.clone()),
                };
                Window::new(taps, stride, dilation, pads).ok_or_else(|| malformed.clone())
            })
            .collect()
    }

    /// Total padding that yields ⌈n/stride⌉ outputs. With stride 1 it does not depend on n.
    fn same_padding(
        &self,
        input: ValueId,
        axis: usize,
        [stride, extent]: [i64; 2],
        valid: &mut Validity,
    ) -> Result<i64, NotLinear> {
        if stride == 1 {
            return Ok(extent.saturating_sub(1));
        }
        let size = self.sizes.size(input, axis)?;
        if stride < 1 {
            return Err(NotLinear::Malformed("a stride is not positive"));
        }
        // Sizes of one remainder are padded alike.
        let (remainder, modulus) = (size.rem_euclid(stride), stride);
        valid.require(input, Property::Size(axis, SizeSet::Congruent { remainder, modulus }));
        // ⌈size/stride⌉ outputs, of which the last one's window begins here.
        let last = size.saturating_sub(1).div_euclid(stride).saturating_mul(stride);
        Ok(last.saturating_add(extent).saturating_sub(size).max(0))
    }

    /// BatchNormalization (opset 7 to 15) with the running statistics: at inference, or
    /// where a deploy graph has it so.
    fn norm(&self, node: &Node) -> Read<Meaning> {
        let (Some(input), Some(gamma)) = (node.input(0), node.input(1)) else {
            return Ok(Err(NotLinear::Malformed("its input or scale is missing")));
        };
        if let Some(Err(why)) = eval_form(self, node)? {
            return Ok(Err(why));
        }
        if self.yields_more(node) {
            return Ok(Err(NotLinear::Unrepresentable("its training outputs are used")));
        }
        let Some(dims) = self.constants.dims(gamma)? else {
            return Ok(Err(self.not_constant(gamma)));
        };
        // What belongs together: everything; the running statistics apart; γ and β, too.
        let alike: &[&[usize]] = match self.graph.model.opset {
            ..14 => &[&[0, 1, 2, 3, 4]],
            14 => &[&[0, 1, 2], &[3, 4]],
            _ => &[&[1, 2], &[3, 4]],
        };
        for alike in alike {
            known!(self.same_types(node, alike));
        }
        let channels = dims.first().copied().unwrap_or(0);
        let mut vectors = Vec::with_capacity(4);
        for index in 1..5 {
            let Some(input) = node.input(index) else {
                return Ok(Err(NotLinear::Malformed("a statistic is missing")));
            };
            vectors.push(known!(self.vector(input, channels)?));
        }
        let [gamma, beta, mean, var] = vectors.as_slice() else {
            return Ok(Err(NotLinear::Malformed("a statistic is missing")));
        };
        let epsilon = f64::from(node.attribute("epsilon").map_or(1e-5, |epsilon| epsilon.f()));
        let (scale, shift) = batch_norm(gamma, beta, mean, var, epsilon);
        // A negative variance, or zero with ε = 0, has no 1/σ.
        if scale.iter().chain(&shift).any(|value| !value.is_finite()) {
            return Ok(Err(NotLinear::Unrepresentable("its statistics give no finite scale")));
        }
        Ok(Ok(Meaning::Linear(
            input,
            LinearOp::Diagonal { scale, shift, order: AxisOrder::CANONICAL },
        )))
    }

    /// Whether the inputs of `node` with these numbers are of one type, as its operator asks
    /// for: no engine runs a float16 kernel on a float32 tensor, and there is no function
    /// that such a node is. A type that is not known is that of the others, or the node
    /// would be none.
    fn same_types(&self, node: &Node, inputs: &[usize]) -> Result<(), NotLinear> {
        let of_input = |&index: &usize| self.constants.element_type(node.input(index)?);
        let mut known = inputs.iter().filter_map(of_input);
        match known.next().is_some_and(|first| known.any(|other| other != first)) {
            true => Err(NotLinear::Malformed("its inputs have different types")),
            false => Ok(()),
        }
    }

    /// Whether anybody needs an output besides the first: a mask, batch statistics.
    pub fn yields_more(&self, node: &Node) -> bool {
        node.outputs.iter().skip(1).flatten().any(|&extra| {
            let value = self.graph.value(extra);
            value.is_output || !value.readers.is_empty()
        })
    }

    /// Add, Sub, Mul, Div (opset 1 to 14): sums of tensors, or a constant that scales
    /// or shifts.
    fn arithmetic(&self, node: &Node, op: &str, valid: &mut Validity) -> Read<Meaning> {
        let (Some(left), Some(right)) = (node.input(0), node.input(1)) else {
            return Ok(Err(NotLinear::Malformed("an operand is missing")));
        };
        known!(self.same_types(node, &[0, 1]));
        let right_sign = Sign::of_difference(op == "Sub");
        let (tensor, constant, constant_first) =
            match (self.constants.contains(left), self.constants.contains(right)) {
                (false, true) => (left, right, false),
                (true, false) => (right, left, true),
                _ if matches!(op, "Add" | "Sub") && node.int("broadcast", 0) != 0 => {
                    let why = "it broadcasts as before operator set 7";
                    return Ok(Err(NotLinear::Unrepresentable(why)));
                }
                _ if matches!(op, "Add" | "Sub") => {
                    return Ok(Ok(Meaning::Sum(vec![(Sign::Plus, left), (right_sign, right)])));
                }
                _ => return Ok(Err(NotLinear::Operator(op.to_owned()))),
            };
        if node.aligns_by_axis() && node.broadcast_axis().is_none() {
            return Ok(Err(NotLinear::Unrepresentable("its axis is counted from the end")));
        }
        if self.constants.element_type(constant).and_then(Float::from_onnx).is_none() {
            return Ok(Err(NotLinear::Operator(op.to_owned())));
        }
        let values = known!(self.per_channel(constant, tensor, node.broadcast_axis(), valid)?);
        // (scale, shift) of one channel for its constant c.
        let rule = |c: f64| match (op, constant_first) {
            ("Add", _) => Some((1.0, c)),
            ("Sub", false) => Some((1.0, -c)),
            ("Sub", true) => Some((-1.0, c)),
            ("Mul", _) => Some((c, 0.0)),
            ("Div", false) => Some((1.0 / c, 0.0)),
            _ => None, // constant ÷ tensor
        };
        let Some(pairs) = values.values().iter().map(|&c| rule(c)).collect::<Option<Vec<_>>>()
        else {
            return Ok(Err(NotLinear::Operator(op.to_owned())));
        };
        if pairs.iter().any(|(scale, shift)| !(scale.is_finite() && shift.is_finite())) {
            return Ok(Err(NotLinear::Unrepresentable("its constant gives no finite scale")));
        }
        let map = match (&values, pairs.as_slice()) {
            (PerChannel::Same(_), &[(weight, shift)]) => uniform(weight, shift),
            (PerChannel::Same(_), _) => return Ok(Err(NotLinear::Operator(op.to_owned()))),
            (PerChannel::Each(_, order), _) => {
                let (scale, shift) = pairs.into_iter().unzip();
                LinearOp::Diagonal { scale, shift, order: order.clone() }
            }
        };
        Ok(Ok(Meaning::Linear(tensor, map)))
    }

    /// The float constant `id` as one number per position along one axis of `tensor`:
    /// its channels, wherever they are. The constant's dimensions begin at `axis`, or
    /// end with the tensor's.
    fn per_channel(
        &self,
        id: ValueId,
        tensor: ValueId,
        axis: Option<usize>,
        valid: &mut Validity,
    ) -> Read<PerChannel> {
        let Some((values, _)) = self.constants.floats(id)? else {
            return Ok(Err(self.not_constant(id)));
        };
        let name = |id: ValueId| self.graph.value(id).name.clone();
        let dims = values.shape().to_vec();
        let values: Vec<f64> = values.into_iter().collect();
        let sizes = self.sizes.dims(tensor);
        // A constant of more dimensions than the tensor would enlarge it.
        let fits = sizes.as_ref().map_or(dims.len() <= 2, |sizes| dims.len() <= sizes.len());
        if let ([value], true) = (values.as_slice(), fits) {
            if let Some(sizes) = sizes.filter(|_| dims.len() > 1) {
                valid.require(tensor, Property::Rank(sizes.len()));
            }
            return Ok(Ok(PerChannel::Same(*value)));
        }
        let Some(sizes) = sizes else {
            return Ok(Err(self.sizes.rank_unknown(tensor)));
        };
        // Dimensions align at the end: [C,1,1] and [1,C,1,1] meet the channels of
        // [N,C,H,W], [C] runs along W; in [N,H,W,C] it meets the channels.
        let mut along = dims.iter().enumerate().filter(|&(_, &dim)| dim != 1);
        let axis = match (along.next(), along.next()) {
            (Some((along, _)), None) if fits => {
                along.saturating_add(axis.unwrap_or(sizes.len().saturating_sub(dims.len())))
            }
            _ => 0,
        };
        // The batch has no constant of its own.
        if axis == 0 {
            return Ok(Err(NotLinear::NotPerChannel { constant: name(id), dims }));
        }
        let size = sizes.get(axis).copied().flatten().or_else(|| {
            self.sizes
                .shape(tensor)
                .get(axis)
                .copied()
                .flatten()
                .and_then(|size| size.try_into().ok())
        });
        // [1,4,1,1] on [N,1,H,W] makes four channels of one.
        Ok(match size {
            None => Err(self.sizes.unknown(format!(
                "whether `{}` enlarges `{}` on axis {axis}",
                name(id),
                name(tensor)
            ))),
            Some(size) if size == values.len() => {
                valid.require(tensor, Property::Rank(sizes.len()));
                valid.require(tensor, Property::Size(axis, SizeSet::Exactly(size as i64)));
                Ok(PerChannel::Each(values, AxisOrder::with_channels_at(axis)))
            }
            Some(_) => Err(NotLinear::NotPerChannel { constant: name(id), dims }),
        })
    }

    /// Transpose (opset 1 to 25).
    fn transpose(&self, node: &Node, valid: &mut Validity) -> Result<Meaning, NotLinear> {
        let input = node.input(0).ok_or(NotLinear::Malformed("its input is missing"))?;
        let rank = match node.ints("perm") {
            Some(perm) => perm.len(),
            None => self.rank(input, valid)?,
        };
        let axes = transposition(node, rank);
        let axes = axes.ok_or(NotLinear::Malformed("its perm is no permutation"))?;
        Ok(match axes.is_canonical() {
            true => Meaning::Alias(input),
            false => Meaning::Linear(input, LinearOp::Transpose { axes }),
        })
    }

    /// A float constant vector of `length` elements.
    fn vector(&self, id: ValueId, length: usize) -> Read<Vec<f64>> {
        let Some((values, _)) = self.constants.floats(id)? else {
            return Ok(Err(self.not_constant(id)));
        };
        if values.shape() != [length] {
            return Ok(Err(NotLinear::WrongLength {
                constant: self.graph.value(id).name.clone(),
                length,
            }));
        }
        Ok(Ok(values.into_iter().collect()))
    }

    /// A float constant that broadcasts to every row of a matrix `length` wide.
    fn row(&self, id: ValueId, length: usize) -> Read<Vec<f64>> {
        let Some((values, _)) = self.constants.floats(id)? else {
            return Ok(Err(self.not_constant(id)));
        };
        Ok(match (values.shape(), values.first()) {
            ([] | [1] | [1, 1], Some(&value)) => Ok(vec![value; length]),
            ([width] | [1, width], _) if *width == length => Ok(values.iter().copied().collect()),
            _ => {
                Err(NotLinear::WrongLength { constant: self.graph.value(id).name.clone(), length })
            }
        })
    }

    /// Pad (opset 2 to 25).
    fn pad(&self, node: &Node, valid: &mut Validity) -> Read<Meaning> {
        let Some(input) = node.input(0) else {
            return Ok(Err(NotLinear::Malformed("its input is missing")));
        };
        let border = match node.attribute("mode").map_or(&b"constant"[..], |mode| mode.s()) {
            b"constant" => PadMode::Zero,
            b"reflect" => PadMode::Reflect,
            b"edge" => PadMode::Edge,
            b"wrap" => PadMode::Wrap,
            _ => return Ok(Err(NotLinear::Malformed("its mode is not known"))),
        };
        let value = match (node.attribute("value"), node.input(2)) {
            _ if border != PadMode::Zero => 0.0,
            (Some(value), _) => f64::from(value.f()),
            (None, None) => 0.0,
            (None, Some(value)) => match self.constants.floats(value)? {
                Some((value, _)) => value.iter().copied().next().unwrap_or(0.0),
                None => return Ok(Err(self.not_constant(value))),
            },
        };
        let pads = match (node.ints("pads"), node.input(1)) {
            (Some(pads), _) => pads.to_vec(),
            (None, Some(pads)) => match self.integers(pads, valid)? {
                Some(values) => values,
                None => return Ok(Err(self.not_constant(pads))),
            },
            _ => return Ok(Err(NotLinear::Malformed("its pads are missing"))),
        };
        let (begins, ends) = pads.split_at(pads.len() / 2);
        let axes = match node.input(3) {
            None => (0..begins.len() as i64).collect(),
            Some(axes) => match self.integers(axes, valid)? {
                Some(axes) => axes,
                None => return Ok(Err(self.not_constant(axes))),
            },
        };
        let pairs: Vec<_> = begins.iter().copied().zip(ends.iter().copied()).collect();
        if axes.len() != pairs.len() || begins.len() != ends.len() {
            return Ok(Err(NotLinear::Malformed("its pads do not fit its axes")));
        }
        let axes = known!(self.axes_from_front(input, &axes, valid));
        let map = known!(self.frame(input, &axes, &pairs, border, valid));
        match map {
            LinearOp::Filter { windows, order, .. } if value != 0.0 && order.is_canonical() => {
                self.bordered(Bordered { input, windows, values: vec![value] }, valid)
            }
            _ if value != 0.0 => {
                Ok(Err(NotLinear::Unrepresentable("it pads with a constant other than zero")))
            }
            map => Ok(Ok(Meaning::Linear(input, map))),
        }
    }

    /// Slice (opset 1 to 13) with step 1.
    fn slice(&self, node: &Node, valid: &mut Validity) -> Read<Meaning> {
        let Some(input) = node.input(0) else {
            return Ok(Err(NotLinear::Malformed("its input is missing")));
        };
        let cuts = known!(self.cuts(node, input, valid)?);
        let mut axes = Vec::with_capacity(cuts.len());
        let mut crops = Vec::with_capacity(cuts.len());
        for AxisCut { axis, start, end } in cuts {
            // An end that is counted from the other side is one for this size only.
            let mut size = || {
                let size = self.sizes.size(input, axis)?;
                self.is_provable_at_its_size(input)?;
                valid.require(input, Property::Size(axis, SizeSet::Exactly(size)));
                Ok(size)
            };
            let begin = if start < 0 {
                known!(size()).saturating_add(start.max(-LARGE)).max(0)
            } else {
                start
            };
            let rest = match end {
                TO_THE_END.. => 0,
                ..0 => end.max(-LARGE).saturating_neg(),
                _ => known!(size()).saturating_sub(end).max(0),
            };
            axes.push(axis);
            crops.push((begin.min(LARGE).saturating_neg(), rest.saturating_neg()));
        }
        let map = self.frame(input, &axes, &crops, PadMode::Zero, valid);
        Ok(map.map(|map| Meaning::Linear(input, map)))
    }

    /// Whether `tensor` is small enough for a proof at the size that it has.
    fn is_provable_at_its_size(&self, tensor: ValueId) -> Result<(), NotLinear> {
        let sizes = self.sizes.shape(tensor).iter().flatten();
        let elements = sizes.fold(1i64, |all, &size| all.saturating_mul(size));
        match elements > MOST_ELEMENTS {
            true => Err(NotLinear::Limit(
                "it cuts a tensor of more than 2²³ elements at a fixed place: proofs take no \
                 larger ones",
            )),
            false => Ok(()),
        }
    }

    /// What a Slice leaves of `input`.
    fn cuts(&self, node: &Node, input: ValueId, valid: &mut Validity) -> Read<Vec<AxisCut>> {
        let mut lists = Vec::with_capacity(4);
        for (index, name) in [(1, "starts"), (2, "ends"), (3, "axes"), (4, "steps")] {
            lists.push(match (node.ints(name), node.input(index)) {
                (Some(values), _) => Some(values.to_vec()),
                (None, None) => None,
                (None, Some(list)) => match self.integers(list, valid)? {
                    Some(values) => Some(values),
                    None => return Ok(Err(self.not_constant(list))),
                },
            });
        }
        let [Some(starts), Some(ends), axes, steps] = lists.as_slice() else {
            return Ok(Err(NotLinear::Malformed("its starts or ends are missing")));
        };
        if steps.as_ref().is_some_and(|steps| steps.iter().any(|&step| step != 1)) {
            return Ok(Err(NotLinear::Unrepresentable("it skips elements")));
        }
        let axes = axes.clone().unwrap_or_else(|| (0..starts.len() as i64).collect());
        if starts.len() != ends.len() || axes.len() != starts.len() {
            return Ok(Err(NotLinear::Malformed("its starts, ends and axes do not fit")));
        }
        let axes = known!(self.axes_from_front(input, &axes, valid));
        let cuts = axes.into_iter().zip(starts).zip(ends);
        Ok(Ok(cuts.map(|((axis, &start), &end)| AxisCut { axis, start, end }).collect()))
    }

    /// Concat (opset 4 to 13) of a tensor with its own ends: circular padding.
    fn concat(&self, node: &Node, valid: &mut Validity) -> Read<Meaning> {
        let opaque = NotLinear::Operator("Concat".to_owned());
        let operands: Vec<ValueId> = node.inputs.iter().copied().flatten().collect();
        if let [only] = operands.as_slice() {
            return Ok(Ok(Meaning::Alias(*only)));
        }
        let Some((input, slices)) = self.around(&operands) else { return Ok(Err(opaque)) };
        let axes = known!(self.axes_from_front(input, &[node.int("axis", 0)], valid));
        let [axis] = axes.as_slice() else { return Ok(Err(opaque)) };
        let mut pads = (0, 0);
        for (slice, is_before) in slices {
            let cuts = known!(self.cuts(slice, input, valid)?);
            match (cuts.as_slice(), is_before) {
                (&[AxisCut { axis: on, start, end: TO_THE_END.. }], true)
                    if on == *axis && (-LARGE..0).contains(&start) =>
                {
                    pads.0 = start.saturating_neg();
                }
                (&[AxisCut { axis: on, start: 0, end }], false)
                    if on == *axis && (1..LARGE).contains(&end) =>
                {
                    pads.1 = end;
                }
                _ => return Ok(Err(opaque)),
            }
        }
        // Of a tensor that is smaller, Slices give less than circular padding does.
        let size = self.sizes.shape(input).get(*axis).copied().flatten();
        if size.is_some_and(|size| size < pads.0.max(pads.1)) {
            return Ok(Err(opaque));
        }
        valid.require(input, Property::Size(*axis, SizeSet::AtLeast(pads.0.max(pads.1))));
        let map = self.frame(input, &[*axis], &[pads], PadMode::Wrap, valid);
        Ok(map.map(|map| Meaning::Linear(input, map)))
    }

    /// The one of at most three operands that the others are Slices of, and these with
    /// whether they stand before it.
    fn around(&self, operands: &[ValueId]) -> Option<(ValueId, Vec<(&Node, bool)>)> {
        let slice = |id: ValueId| {
            let node = self.graph.node(self.graph.value(id).producer?);
            (node.standard_op() == Some("Slice")).then_some(node)
        };
        let (first, last) = (*operands.first()?, *operands.last()?);
        let input = [first, last].into_iter().find_map(|operand| slice(operand)?.input(0))?;
        let of_input = |id| slice(id).filter(|slice| slice.input(0) == Some(input));
        let slices = match *operands {
            [before, middle, behind] if middle == input => {
                vec![(of_input(before)?, true), (of_input(behind)?, false)]
            }
            [before, end] if end == input => vec![(of_input(before)?, true)],
            [begin, behind] if begin == input => vec![(of_input(behind)?, false)],
            _ => return None,
        };
        Some((input, slices))
    }

    /// Axes counted from the front; those of a tensor of unknown rank must be already.
    fn axes_from_front(
        &self,
        tensor: ValueId,
        axes: &[i64],
        valid: &mut Validity,
    ) -> Result<Vec<usize>, NotLinear> {
        let from_front = |&axis: &i64| {
            let axis = match axis {
                ..0 => axis.saturating_add(self.rank(tensor, valid)? as i64),
                _ => axis,
            };
            usize::try_from(axis).map_err(|_| NotLinear::Malformed("it has no such axis"))
        };
        axes.iter().map(from_front).collect()
    }

    /// `border` around the `axes`, or, where the pads are negative, a crop.
    fn frame(
        &self,
        input: ValueId,
        axes: &[usize],
        pads: &[(i64, i64)],
        border: PadMode,
        valid: &mut Validity,
    ) -> Result<LinearOp, NotLinear> {
        let framed = axes.iter().zip(pads).filter(|&(_, &pads)| pads != (0, 0));
        let framed: Vec<(usize, (i64, i64))> = framed.map(|(&axis, &pads)| (axis, pads)).collect();
        let touched = |axis: usize| framed.iter().any(|&(framed, _)| framed == axis);
        // Any axis but the batch may be spatial, as long as one is left for the channels.
        let order = match touched(1) {
            false => AxisOrder::CANONICAL,
            true => {
                let channels = (1..self.rank(input, valid)?).rev().find(|&axis| !touched(axis));
                AxisOrder::with_channels_at(channels.unwrap_or(0))
            }
        };
        if touched(0) || order.axis(0) != 0 || framed.iter().any(|&(axis, _)| axis > MAX_RANK) {
            return Err(NotLinear::Unrepresentable("it pads or cuts the batch or the channels"));
        }
        let mut windows = Vec::new();
        for (axis, pads) in framed {
            let window = Window::frame(pads, border);
            let window = window.ok_or(NotLinear::Malformed("its pads are beyond all sizes"))?;
            let role = order.role(axis).saturating_sub(2);
            if windows.len() <= role {
                windows.resize(role.saturating_add(1), Window::IDENTITY);
            }
            if let Some(slot) = windows.get_mut(role) {
                *slot = window;
            }
        }
        Ok(LinearOp::Filter { windows, order, weight: 1.0, shift: 0.0 })
    }

    /// A border of numbers, which the operation before it gives there, or zeros.
    fn bordered(&self, border: Bordered, valid: &mut Validity) -> Read<Meaning> {
        let Bordered { input, windows, values } = border;
        let order = AxisOrder::CANONICAL;
        let frame = LinearOp::Filter { windows: windows.clone(), order, weight: 1.0, shift: 0.0 };
        if values.iter().all(|&value| value == 0.0) {
            return Ok(Ok(Meaning::Linear(input, frame)));
        }
        let differs = "its border is filled with other values than the operation before it gives";
        let differs = Ok(Err(NotLinear::Unrepresentable(differs)));
        let Some((operand, map, inner)) = known!(self.shifting(input, valid)?) else {
            return differs;
        };
        let shift = map.shift();
        let at = |shifts: &[f64], channel: usize| {
            if shifts.len() == 1 { shifts.first() } else { shifts.get(channel) }.copied()
        };
        let channels = shift.len().max(values.len());
        let pairs = (0..channels).map(|channel| Some((at(shift, channel)?, at(&values, channel)?)));
        let Some(pairs) = pairs.collect::<Option<Vec<_>>>() else { return differs };
        // Channel by channel: beside a bias of 1e6, one of 0.01 would be anything.
        let differ = |(a, b): &(f64, f64)| (a - b).abs() > BORDER_TOLERANCE * a.abs().max(b.abs());
        if pairs.iter().any(differ) {
            return differs;
        }
        let bare = map.geometry().unshifted();
        let geometry = match frame.geometry().after(&bare) {
            Ok(geometry) => Geometry { shifted: true, ..geometry },
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        let map = Box::new(map);
        Ok(Ok(Meaning::Linear(operand, LinearOp::Bordered { map, inner, windows, geometry })))
    }

    /// What it reads, the map, and what it makes, if `value` was made by one that adds
    /// something.
    fn shifting(
        &self,
        value: ValueId,
        valid: &mut Validity,
    ) -> Read<Option<(ValueId, LinearOp, ValueId)>> {
        let mut producer = self.graph.value(value).producer;
        for _ in 0..MAX_IDENTITIES {
            let Some(node) = producer.map(|producer| self.graph.node(producer)) else {
                return Ok(Ok(None));
            };
            match node.standard_op() {
                Some("Identity") => {
                    producer = node.input(0).and_then(|input| self.graph.value(input).producer);
                }
                Some("Conv" | "BatchNormalization" | "Add" | "Sub") => {
                    return Ok(Ok(match (self.reading(node, valid)?, node.output()) {
                        (Meaning::Linear(operand, map), Some(output)) => {
                            Some((operand, map, output))
                        }
                        _ => None,
                    }));
                }
                _ => return Ok(Ok(None)),
            }
        }
        Ok(Err(NotLinear::Limit("it stands behind more than 64 Identities, the most followed")))
    }

    /// ReduceSum (opset 1 to 13) over an axis along which tensors were stacked.
    fn stacked(&self, node: &Node, valid: &mut Validity) -> Read<Meaning> {
        let opaque = || Ok(Err(NotLinear::Operator("ReduceSum".to_owned())));
        let producer = |id: ValueId| Some(self.graph.node(self.graph.value(id).producer?));
        let made_by = |id: Option<ValueId>, op: &str| {
            producer(id?).filter(|node| node.standard_op() == Some(op))
        };
        let Some(concat) = made_by(node.input(0), "Concat") else { return opaque() };
        let axis = [concat.int("axis", 1)];
        if self.axes(node, valid)?.as_deref() != Some(&axis) || node.int("keepdims", 1) != 0 {
            return opaque();
        }
        if concat.inputs.len() > MAX_OPERANDS {
            return Ok(Err(TOO_MANY_OPERANDS));
        }
        let mut operands = Vec::with_capacity(concat.inputs.len());
        for &input in &concat.inputs {
            let Some(unsqueeze) = made_by(input, "Unsqueeze") else { return opaque() };
            let Some(operand) = unsqueeze.input(0) else { return opaque() };
            if self.axes(unsqueeze, valid)?.as_deref() != Some(&axis) {
                return opaque();
            }
            operands.push((Sign::Plus, operand));
        }
        Ok(Ok(match operands.as_slice() {
            &[(_, only)] => Meaning::Alias(only),
            _ => Meaning::Sum(operands),
        }))
    }

    /// The axes of a node: an attribute before opset 13, an input since.
    fn axes(&self, node: &Node, valid: &mut Validity) -> Result<Option<Vec<i64>>, Invalid> {
        match (node.ints("axes"), node.input(1)) {
            (Some(axes), _) => Ok(Some(axes.to_vec())),
            (None, Some(axes)) => self.integers(axes, valid),
            (None, None) => Ok(None),
        }
    }

    /// The number of dimensions of `tensor`, on which the reading depends.
    fn rank(&self, tensor: ValueId, valid: &mut Validity) -> Result<usize, NotLinear> {
        let rank = self.sizes.rank(tensor)?;
        valid.require(tensor, Property::Rank(rank));
        Ok(rank)
    }

    /// The integers `id`; on those that follow from sizes the reading depends.
    fn integers(&self, id: ValueId, valid: &mut Validity) -> Result<Option<Vec<i64>>, Invalid> {
        let integers = self.sizes.integers(id)?;
        if let Some(values) = integers.as_ref().filter(|_| !self.constants.contains(id)) {
            valid.require(id, Property::Integers(values.clone()));
        }
        Ok(integers)
    }

    fn keeps_type(&self, node: &Node) -> bool {
        let to = node.int("to", 0);
        let from = node.input(0).and_then(|input| self.constants.element_type(input));
        from.is_some_and(|from| i64::from(from) == to)
    }

    pub(super) fn not_constant(&self, id: ValueId) -> NotLinear {
        let value = self.graph.value(id);
        // A tensor that cannot be decoded is told of elsewhere.
        let limit = self.constants.limit(id).unwrap_or_default();
        match limit {
            Some(limit) => NotLinear::Beyond { tensor: value.name.clone(), limit },
            None if value.initializer.is_some() && value.input.is_some() => {
                NotLinear::Overridable(value.name.clone())
            }
            None => NotLinear::NotConstant(value.name.clone()),
        }
    }
}

/// A border is what a map gives there if they differ by no more than the rounding of
/// float32, in which exporters compute both, relative to the largest of them.
const BORDER_TOLERANCE: f64 = 4e-6;

/// Beyond every size, and safe to add.
const LARGE: i64 = 1 << 32;

/// An end of a Slice from which on "to the end" is meant.
const TO_THE_END: i64 = i32::MAX as i64;

/// Tensors that are cut at places counted from their other end have no more elements: what
/// is right for one size only is proved at that one.
const MOST_ELEMENTS: i64 = 1 << 23;

/// What Slice leaves of one axis.
#[derive(Debug, Clone, Copy)]
struct AxisCut {
    axis: usize,
    start: i64,
    end: i64,
}

const MALFORMED_WINDOWS: NotLinear =
    NotLinear::Malformed("its strides, dilations or pads are not valid");

/// Integer list attribute `name` with `length` elements, by default all `default`.
fn per_axis(node: &Node, name: &str, length: usize, default: i64) -> Result<Vec<i64>, NotLinear> {
    match node.ints(name) {
        Some(values) if values.len() == length => Ok(values.to_vec()),
        Some(values) if !values.is_empty() => Err(MALFORMED_WINDOWS),
        _ => Ok(vec![default; length]),
    }
}

/// The windows that a ConvTranspose's attributes describe.
fn scattered_windows(node: &Node, taps: &[i64]) -> Result<Vec<Window>, NotLinear> {
    let auto_pad = node.attribute("auto_pad").map_or(&b""[..], |attribute| attribute.s());
    if !matches!(auto_pad, b"" | b"NOTSET" | b"VALID") || node.ints("output_shape").is_some() {
        return Err(NotLinear::Unrepresentable("its pads follow from the size of its output"));
    }
    let list = |name, length, default| per_axis(node, name, length, default);
    let (strides, dilations) = (list("strides", taps.len(), 1)?, list("dilations", taps.len(), 1)?);
    let growth = list("output_padding", taps.len(), 0)?;
    let pads = match auto_pad {
        b"VALID" => vec![0; taps.len().saturating_mul(2)],
        _ => list("pads", taps.len().saturating_mul(2), 0)?,
    };
    let (begins, ends) = pads.split_at(taps.len());
    let axes = taps.iter().zip(strides).zip(dilations).zip(growth).zip(begins.iter().zip(ends));
    axes.map(|((((&taps, stride), dilation), growth), (&begin, &end))| {
        let valid = begin >= 0 && end >= 0 && (0..stride.max(dilation)).contains(&growth);
        let window = Window::scattered(taps, stride, dilation, (begin, end), growth);
        window.filter(|_| valid).ok_or(MALFORMED_WINDOWS)
    })
    .collect()
}

enum PerChannel {
    Same(f64),
    Each(Vec<f64>, AxisOrder),
}

impl PerChannel {
    fn values(&self) -> &[f64] {
        match self {
            PerChannel::Same(value) => std::slice::from_ref(value),
            PerChannel::Each(values, _) => values,
        }
    }
}

fn uniform(weight: f64, shift: f64) -> LinearOp {
    LinearOp::Filter { windows: Vec::new(), order: AxisOrder::CANONICAL, weight, shift }
}

fn of_input(node: &Node, map: LinearOp) -> Result<Meaning, NotLinear> {
    node.input(0)
        .map(|input| Meaning::Linear(input, map))
        .ok_or(NotLinear::Malformed("its input is missing"))
}

fn alias(node: &Node) -> Result<Meaning, NotLinear> {
    node.input(0).map(Meaning::Alias).ok_or(NotLinear::Malformed("its input is missing"))
}

/// How many inputs an operator that is read here has at most; what more would mean is
/// known to nobody.
fn most_inputs(op: &str) -> Option<usize> {
    Some(match op {
        "AveragePool" | "Cast" | "Identity" | "Neg" | "Transpose" => 1,
        "Add" | "Sub" | "Mul" | "Div" | "MatMul" | "ReduceSum" => 2,
        "Conv" | "ConvTranspose" | "Dropout" | "Gemm" | "ScatterND" => 3,
        "Pad" => 4,
        "BatchNormalization" | "Slice" => 5,
        _ => return None,
    })
}

/// Exporters write no more Identities in a row.
const MAX_IDENTITIES: usize = 64;

/// No block adds more tensors at one node.
const MAX_OPERANDS: usize = 256;

const TOO_MANY_OPERANDS: NotLinear =
    NotLinear::Limit("it adds more than 256 tensors, and no block has so many branches");

fn sum(node: &Node) -> Result<Meaning, NotLinear> {
    match node.inputs.as_slice() {
        [Some(only)] => Ok(Meaning::Alias(*only)),
        operands if operands.len() > MAX_OPERANDS => Err(TOO_MANY_OPERANDS),
        operands => operands
            .iter()
            .map(|operand| operand.map(|operand| (Sign::Plus, operand)))
            .collect::<Option<_>>()
            .map(Meaning::Sum)
            .ok_or(NotLinear::Malformed("an operand is missing")),
    }
}
