//! One node, read as linear algebra.
//!
//! This is the only place that knows what an operator means. To add a linear
//! operator, add an arm to [`Reader::read`]; nothing else has to change.

use std::sync::OnceLock;

use super::NotLinear;
use super::constant::Constants;
use crate::affine::{Affine, Channels, Geometry, Window, batch_norm};
use crate::engine::{self, InputShapes, Shapes, Source};
use crate::onnx::graph::{Graph, Node, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::tensor::Float;

/// What a node computes.
#[derive(Debug, Clone)]
pub enum Reading {
    /// The same tensor under another name.
    Alias(ValueId),
    /// A signed sum of tensors; `true` is minus.
    Sum(Vec<(ValueId, bool)>),
    /// An affine map of one tensor.
    Map(ValueId, Map),
    /// Something else, and why it is not one of the above.
    Opaque(NotLinear),
}

/// An affine map; the weights of a convolution are not read yet.
#[derive(Debug, Clone)]
pub enum Map {
    /// Conv: kernel tensor, bias, shape.
    Conv {
        /// The kernel's tensor, `[O, C/groups, k…]`.
        kernel: ValueId,
        /// Its type, which is that of the input and output too.
        float: Float,
        /// Empty if there is none.
        bias: Vec<f64>,
        /// Its shape.
        geometry: Geometry,
    },
    /// A scale and a shift per channel.
    Diagonal {
        /// One per channel.
        scale: Vec<f64>,
        /// One per channel.
        shift: Vec<f64>,
    },
    /// The same kernel, all of whose weights are equal, on every channel: pads, crops, means.
    Filter {
        /// One per spatial axis, or none.
        windows: Vec<Window>,
        /// The weight of every tap.
        weight: f64,
        /// The bias.
        shift: f64,
    },
}

impl Map {
    /// The map's shape.
    pub fn geometry(&self) -> Geometry {
        match self {
            Map::Conv { geometry, .. } => geometry.clone(),
            Map::Diagonal { scale, shift } => Geometry {
                channels: Some(Channels::diagonal(scale.len())),
                windows: Vec::new(),
                shifted: shift.iter().any(|&value| value != 0.0),
            },
            Map::Filter { windows, shift, .. } => {
                Geometry { channels: None, windows: windows.clone(), shifted: *shift != 0.0 }
            }
        }
    }

    /// The map with its weights; `None` if the engine could not evaluate the kernel.
    ///
    /// # Errors
    /// If a convolution's kernel cannot be read.
    pub fn affine(&self, constants: &Constants) -> Result<Option<Affine>, Invalid> {
        Ok(Some(match self {
            Map::Conv { kernel, bias, geometry, .. } => {
                let groups = geometry.channels.map_or(1, |channels| channels.groups);
                let Some((weights, _)) = constants.floats(*kernel)? else { return Ok(None) };
                Affine::conv(weights, bias, geometry.windows.clone(), groups)
            }
            Map::Diagonal { scale, shift } => Affine::diagonal(scale, shift),
            Map::Filter { windows, weight, shift } => {
                Affine::filter(windows.clone(), *weight, *shift)
            }
        }))
    }
}

/// Reads the nodes of one graph.
pub struct Reader<'g, 'm> {
    /// The graph.
    pub graph: &'g Graph<'m>,
    /// What is constant in it.
    pub constants: &'g Constants<'g, 'm>,
    inputs: &'g InputShapes,
    shapes: OnceLock<Shapes>,
}

type Read<T> = Result<Result<T, NotLinear>, Invalid>;

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
    ) -> Self {
        Reader { graph, constants, inputs, shapes: OnceLock::new() }
    }

    /// Reads one node.
    ///
    /// # Errors
    /// If a stored tensor that it needs is malformed.
    pub fn read(&self, node: &Node) -> Result<Reading, Invalid> {
        let opaque = || NotLinear::Operator(node.proto.op_type().to_owned());
        let Some(op) = node.standard_op() else {
            return Ok(Reading::Opaque(NotLinear::Foreign(format!(
                "{}::{}",
                node.proto.domain(),
                node.proto.op_type()
            ))));
        };
        let reading = match op {
            "Conv" => self.conv(node)?,
            "BatchNormalization" => self.norm(node)?,
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node, op)?,
            "Sum" => sum(node),
            "Neg" => of_input(node, uniform(-1.0, 0.0)),
            "Pad" => self.pad(node)?,
            "Slice" => self.slice(node)?,
            "AveragePool" => self.average_pool(node)?,
            "Identity" => alias(node),
            "Dropout" if self.yields_more(node) => {
                Err(NotLinear::Unrepresentable("its mask is used"))
            }
            "Dropout" => alias(node),
            "Cast" if self.keeps_type(node) => alias(node),
            _ => Err(opaque()),
        };
        Ok(reading.unwrap_or_else(Reading::Opaque))
    }

    /// Sizes of `tensor` along its spatial axes, inferred from the graph's inputs; empty if unknown.
    pub fn sizes(&self, tensor: ValueId) -> &[Option<i64>] {
        self.shape(tensor).and_then(|shape| shape.get(2..)).unwrap_or_default()
    }

    /// The sizes of [`Self::sizes`], if a decision has needed any; else none.
    pub fn sizes_relied_on(&self, tensor: ValueId) -> &[Option<i64>] {
        if self.shapes.get().is_some() { self.sizes(tensor) } else { &[] }
    }

    fn shape(&self, tensor: ValueId) -> Option<&[Option<i64>]> {
        let shapes = self.shapes.get_or_init(|| {
            let model = self.graph.model;
            let source = Source { bytes: model.bytes(), folder: model.storage.folder() };
            engine::infer_shapes(source, self.inputs).unwrap_or_default()
        });
        shapes.get(&self.graph.value(tensor).name).map(Vec::as_slice)
    }

    /// Conv (opset 1 to 22).
    fn conv(&self, node: &Node) -> Read<Reading> {
        let (Some(input), Some(kernel)) = (node.input(0), node.input(1)) else {
            return Ok(Err(NotLinear::Malformed("its input or kernel is missing")));
        };
        let Some(dims) = self.constants.dims(kernel)? else {
            return Ok(Err(self.not_constant(kernel)));
        };
        let float = self.constants.element_type(kernel).and_then(Float::from_onnx);
        let (Some(float), [outputs, width, taps @ ..]) = (float, dims.as_slice()) else {
            return Ok(Err(NotLinear::Malformed("its kernel is not a float tensor [O, C, k…]")));
        };
        let groups = usize::try_from(node.int("group", 1)).unwrap_or(0);
        if groups == 0 || outputs % groups != 0 || dims.contains(&0) {
            return Ok(Err(NotLinear::Malformed("its groups do not divide its channels")));
        }
        let taps: Vec<i64> = taps.iter().map(|&taps| taps as i64).collect();
        if node.ints("kernel_shape").is_some_and(|shape| shape != taps) {
            return Ok(Err(NotLinear::Malformed("kernel_shape is not its kernel's shape")));
        }
        let windows = known!(self.windows(node, input, &taps, "dilations"));
        let bias = match node.input(2) {
            None => Vec::new(),
            Some(bias) => known!(self.vector(bias, *outputs)?),
        };
        let Some(inputs) = width.checked_mul(groups) else {
            return Ok(Err(NotLinear::Malformed("its channels overflow")));
        };
        let geometry = Geometry {
            channels: Some(Channels { inputs, outputs: *outputs, groups }),
            windows,
            shifted: bias.iter().any(|&value| value != 0.0),
        };
        Ok(Ok(Reading::Map(input, Map::Conv { kernel, float, bias, geometry })))
    }

    /// AveragePool (opset 1 to 22): each tap weighs 1/(number of taps).
    fn average_pool(&self, node: &Node) -> Read<Reading> {
        let (Some(input), Some(taps)) = (node.input(0), node.ints("kernel_shape")) else {
            return Ok(Err(NotLinear::Malformed("its input or kernel_shape is missing")));
        };
        let windows = known!(self.windows(node, input, taps, "dilations"));
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
        Ok(Ok(Reading::Map(input, Map::Filter { windows, weight: 1.0 / count, shift: 0.0 })))
    }

    /// The windows that a Conv's or pool's attributes describe.
    fn windows(
        &self,
        node: &Node,
        input: ValueId,
        taps: &[i64],
        dilations: &str,
    ) -> Result<Vec<Window>, NotLinear> {
        let malformed = NotLinear::Malformed("its strides, dilations or pads are not valid");
        let per_axis = |name| match node.ints(name) {
            Some(values) if values.len() == taps.len() => Ok(values.to_vec()),
            Some(values) if !values.is_empty() => Err(malformed.clone()),
            _ => Ok(vec![1; taps.len()]),
        };
        let strides = per_axis("strides")?;
        let dilations = per_axis(dilations)?;
        let auto_pad = node.attribute("auto_pad").map_or(&b""[..], |attribute| attribute.s());
        let explicit = match node.ints("pads") {
            Some(pads) if pads.len() == 2 * taps.len() => pads.to_vec(),
            Some(pads) if !pads.is_empty() => return Err(malformed),
            _ => vec![0; 2 * taps.len()],
        };
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
                        let total = self.same_padding(input, axis, stride, extent)?;
                        let (small, large) = (total / 2, total - total / 2);
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
        stride: i64,
        extent: i64,
    ) -> Result<i64, NotLinear> {
        if stride == 1 {
            return Ok(extent.saturating_sub(1));
        }
        let size = self.size(input, axis)?;
        if stride < 1 {
            return Err(NotLinear::Malformed("a stride is not positive"));
        }
        let outputs = (size + stride - 1) / stride;
        Ok((outputs.saturating_sub(1).saturating_mul(stride).saturating_add(extent) - size).max(0))
    }

    fn size(&self, tensor: ValueId, axis: usize) -> Result<i64, NotLinear> {
        let size = self.sizes(tensor).get(axis).copied().flatten();
        size.filter(|size| (0..1 << 24).contains(size)).ok_or_else(|| NotLinear::SizeUnknown {
            tensor: self.graph.value(tensor).name.clone(),
            axis,
        })
    }

    /// BatchNormalization (opset 7 to 15), with the running statistics: a deploy
    /// graph has no batch to take them from.
    fn norm(&self, node: &Node) -> Read<Reading> {
        let (Some(input), Some(gamma)) = (node.input(0), node.input(1)) else {
            return Ok(Err(NotLinear::Malformed("its input or scale is missing")));
        };
        if self.yields_more(node) {
            return Ok(Err(NotLinear::Unrepresentable("its training outputs are used")));
        }
        let Some(dims) = self.constants.dims(gamma)? else {
            return Ok(Err(self.not_constant(gamma)));
        };
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
        Ok(Ok(Reading::Map(input, Map::Diagonal { scale, shift })))
    }

    /// Whether anybody needs an output besides the first: a mask, batch statistics.
    fn yields_more(&self, node: &Node) -> bool {
        node.outputs.iter().skip(1).flatten().any(|&extra| {
            let value = self.graph.value(extra);
            value.is_output || !value.readers.is_empty()
        })
    }

    /// Add, Sub, Mul, Div from opset 7 on: sums of tensors, or a constant that
    /// scales or shifts.
    fn arithmetic(&self, node: &Node, op: &str) -> Read<Reading> {
        let (Some(left), Some(right)) = (node.input(0), node.input(1)) else {
            return Ok(Err(NotLinear::Malformed("an operand is missing")));
        };
        let subtracts = op == "Sub";
        if self.graph.model.opset < 7 {
            return Ok(Err(NotLinear::Operator(format!("{op} before operator set 7"))));
        }
        let (tensor, constant, constant_first) =
            match (self.constants.contains(left), self.constants.contains(right)) {
                (false, true) => (left, right, false),
                (true, false) => (right, left, true),
                _ if matches!(op, "Add" | "Sub") => {
                    return Ok(Ok(Reading::Sum(vec![(left, false), (right, subtracts)])));
                }
                _ => return Ok(Err(NotLinear::Operator(op.to_owned()))),
            };
        let values = known!(self.per_channel(constant, tensor)?);
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
            _ => {
                let (scale, shift) = pairs.into_iter().unzip();
                Map::Diagonal { scale, shift }
            }
        };
        Ok(Ok(Reading::Map(tensor, map)))
    }

    /// The float constant `id` as one number per channel of `tensor`, `[N, C, …]`.
    fn per_channel(&self, id: ValueId, tensor: ValueId) -> Read<PerChannel> {
        let Some((values, _)) = self.constants.floats(id)? else {
            return Ok(Err(self.not_constant(id)));
        };
        let name = || self.graph.value(id).name.clone();
        let dims = values.shape().to_vec();
        let values: Vec<f64> = values.into_iter().collect();
        let layout = self.layout(tensor, 16);
        let rank = layout.map(|layout| layout.rank);
        // A constant of more dimensions than the tensor would enlarge it.
        let fits = rank.map_or(dims.len() <= 2, |rank| dims.len() <= rank);
        if let ([value], true) = (values.as_slice(), fits) {
            return Ok(Ok(PerChannel::Same(*value)));
        }
        let Some(rank) = rank else {
            return Ok(Err(NotLinear::RankUnknown(self.graph.value(tensor).name.clone())));
        };
        // Dimensions align at the end: [C,1,1] and [1,C,1,1] meet the channels of
        // [N,C,H,W], but [C] runs along W.
        let channel_axis = (dims.len() + 1).checked_sub(rank);
        let along_channels = fits
            && channel_axis.is_some_and(|channel| {
                dims.iter().enumerate().all(|(axis, &dim)| axis == channel || dim == 1)
            });
        // [1,4,1,1] on [N,1,H,W] makes four channels of one.
        let channels = layout.and_then(|layout| layout.channels);
        if along_channels && channels.is_none() {
            return Ok(Err(NotLinear::ChannelsUnknown(self.graph.value(tensor).name.clone())));
        }
        Ok(if along_channels && channels == Some(values.len()) {
            Ok(PerChannel::Each(values))
        } else {
            Err(NotLinear::NotPerChannel { constant: name(), dims })
        })
    }

    fn rank(&self, tensor: ValueId) -> Option<usize> {
        self.layout(tensor, 16).map(|layout| layout.rank)
    }

    /// Rank and channels of `tensor`: from the kernel or statistics that made it, at
    /// most `depth` elementwise operators ago, else inferred.
    fn layout(&self, tensor: ValueId, depth: usize) -> Option<Layout> {
        self.layout_from_producer(tensor, depth).or_else(|| {
            let shape = self.shape(tensor)?;
            let channels = shape.get(1).copied().flatten().and_then(|size| size.try_into().ok());
            Some(Layout { rank: shape.len(), channels })
        })
    }

    fn layout_from_producer(&self, tensor: ValueId, depth: usize) -> Option<Layout> {
        let depth = depth.checked_sub(1)?;
        let node = self.graph.node(self.graph.value(tensor).producer?);
        match node.standard_op()? {
            "Conv" => {
                let kernel = self.constants.dims(node.input(1)?).ok()??;
                Some(Layout { rank: kernel.len(), channels: kernel.first().copied() })
            }
            "BatchNormalization" => {
                let channels = self.constants.dims(node.input(1)?).ok()??.first().copied();
                Some(Layout { channels, ..self.layout(node.input(0)?, depth)? })
            }
            "Relu" | "Identity" | "Neg" | "Cast" => self.layout(node.input(0)?, depth),
            "Add" | "Sub" | "Mul" | "Div" => {
                let (left, right) = (node.input(0)?, node.input(1)?);
                let swapped = self.constants.contains(left);
                let (operand, constant) = if swapped { (right, left) } else { (left, right) };
                let layout = self.layout(operand, depth)?;
                let dims = self.constants.dims(constant).ok()??;
                let channels =
                    (dims.len() + 1).checked_sub(layout.rank).and_then(|at| dims.get(at));
                let keeps = dims.len() <= layout.rank
                    && channels.is_none_or(|&dim| dim == 1 || Some(dim) == layout.channels);
                keeps.then_some(layout)
            }
            _ => None,
        }
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

    /// Pad (opset 2 to 25) with zeros.
    fn pad(&self, node: &Node) -> Read<Reading> {
        let Some(input) = node.input(0) else {
            return Ok(Err(NotLinear::Malformed("its input is missing")));
        };
        let mode = node.attribute("mode").map_or(&b"constant"[..], |mode| mode.s());
        if mode != b"constant" {
            return Ok(Err(NotLinear::Unrepresentable("it pads with other values than zero")));
        }
        let value = match (node.attribute("value"), node.input(2)) {
            (Some(value), _) => f64::from(value.f()),
            (None, None) => 0.0,
            (None, Some(value)) => match self.constants.floats(value)? {
                Some((value, _)) => value.iter().copied().next().unwrap_or(0.0),
                None => return Ok(Err(self.not_constant(value))),
            },
        };
        if value != 0.0 {
            return Ok(Err(NotLinear::Unrepresentable("it pads with other values than zero")));
        }
        let pads = match (node.ints("pads"), node.input(1)) {
            (Some(pads), _) => pads.to_vec(),
            (None, Some(pads)) => match self.constants.integers(pads)? {
                Some(values) => values,
                None => return Ok(Err(self.not_constant(pads))),
            },
            _ => return Ok(Err(NotLinear::Malformed("its pads are missing"))),
        };
        let (begins, ends) = pads.split_at(pads.len() / 2);
        let axes = match node.input(3) {
            None => (0..begins.len() as i64).collect(),
            Some(axes) => match self.constants.integers(axes)? {
                Some(axes) => axes,
                None => return Ok(Err(self.not_constant(axes))),
            },
        };
        let pairs: Vec<_> = begins.iter().copied().zip(ends.iter().copied()).collect();
        if axes.len() != pairs.len() {
            return Ok(Err(NotLinear::Malformed("its pads do not fit its axes")));
        }
        Ok(self.frame(input, &axes, &pairs).map(|map| Reading::Map(input, map)))
    }

    /// Slice (opset 1 to 13) of spatial axes, with step 1.
    fn slice(&self, node: &Node) -> Read<Reading> {
        let Some(input) = node.input(0) else {
            return Ok(Err(NotLinear::Malformed("its input is missing")));
        };
        let mut lists = Vec::with_capacity(4);
        for (index, name) in [(1, "starts"), (2, "ends"), (3, "axes"), (4, "steps")] {
            lists.push(match (node.ints(name), node.input(index)) {
                (Some(values), _) => Some(values.to_vec()),
                (None, None) => None,
                (None, Some(list)) => match self.constants.integers(list)? {
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
        let axes = known!(self.spatial_axes(input, &axes));
        let mut crops = Vec::with_capacity(axes.len());
        for ((&axis, &start), &end) in axes.iter().zip(starts).zip(ends) {
            // Ends beyond every size mean "to the end".
            let to_the_end = end >= i64::from(i32::MAX);
            if axis < 2 {
                if start == 0 && to_the_end {
                    crops.push((0, 0));
                    continue;
                }
                return Ok(Err(NotLinear::Unrepresentable("it cuts the batch or the channels")));
            }
            let size = || self.size(input, axis as usize - 2);
            let begin = if start < 0 { (known!(size()) + start.max(-LARGE)).max(0) } else { start };
            let rest = match end {
                _ if to_the_end => 0,
                ..0 => -end.max(-LARGE),
                _ => (known!(size()) - end).max(0),
            };
            crops.push((-begin.min(LARGE), -rest));
        }
        Ok(self.frame(input, &axes, &crops).map(|map| Reading::Map(input, map)))
    }

    /// Axes counted from the front; those of a tensor of unknown rank must be already.
    fn spatial_axes(&self, tensor: ValueId, axes: &[i64]) -> Result<Vec<i64>, NotLinear> {
        let from_front = |&axis: &i64| {
            if axis >= 0 {
                return Ok(axis);
            }
            let rank = self.rank(tensor);
            let rank =
                rank.ok_or_else(|| NotLinear::RankUnknown(self.graph.value(tensor).name.clone()))?;
            Ok(axis.saturating_add(rank as i64))
        };
        axes.iter().map(from_front).collect()
    }

    /// Zeros around, or, where negative, a crop of the spatial `axes`.
    fn frame(&self, input: ValueId, axes: &[i64], pads: &[(i64, i64)]) -> Result<Map, NotLinear> {
        let mut windows = Vec::new();
        for (axis, &pads) in self.spatial_axes(input, axes)?.into_iter().zip(pads) {
            if pads == (0, 0) {
                continue;
            }
            let spatial = usize::try_from(axis).ok().and_then(|axis| axis.checked_sub(2));
            let Some(spatial) = spatial.filter(|&spatial| spatial < 16) else {
                return Err(NotLinear::Unrepresentable(
                    "it pads or cuts the batch or the channels",
                ));
            };
            let window = Window::new(1, 1, 1, pads);
            let window = window.ok_or(NotLinear::Malformed("its pads are beyond all sizes"))?;
            if windows.len() <= spatial {
                windows.resize(spatial + 1, Window::IDENTITY);
            }
            if let Some(slot) = windows.get_mut(spatial) {
                *slot = window;
            }
        }
        Ok(Map::Filter { windows, weight: 1.0, shift: 0.0 })
    }

    fn keeps_type(&self, node: &Node) -> bool {
        let to = node.int("to", 0);
        let from = node.input(0).and_then(|input| self.constants.element_type(input));
        from.is_some_and(|from| i64::from(from) == to)
    }

    fn not_constant(&self, id: ValueId) -> NotLinear {
        NotLinear::NotConstant(self.graph.value(id).name.clone())
    }
}

/// Beyond every size, and safe to add.
const LARGE: i64 = 1 << 32;

/// What is known of a tensor's shape `[N, C, …]`.
#[derive(Debug, Clone, Copy)]
struct Layout {
    rank: usize,
    channels: Option<usize>,
}

enum PerChannel {
    Same(f64),
    Each(Vec<f64>),
}

impl PerChannel {
    fn values(&self) -> &[f64] {
        match self {
            PerChannel::Same(value) => std::slice::from_ref(value),
            PerChannel::Each(values) => values,
        }
    }
}

fn uniform(weight: f64, shift: f64) -> Map {
    Map::Filter { windows: Vec::new(), weight, shift }
}

fn of_input(node: &Node, map: Map) -> Result<Reading, NotLinear> {
    node.input(0)
        .map(|input| Reading::Map(input, map))
        .ok_or(NotLinear::Malformed("its input is missing"))
}

fn alias(node: &Node) -> Result<Reading, NotLinear> {
    node.input(0).map(Reading::Alias).ok_or(NotLinear::Malformed("its input is missing"))
}

fn sum(node: &Node) -> Result<Reading, NotLinear> {
    match node.inputs.as_slice() {
        [Some(only)] => Ok(Reading::Alias(*only)),
        operands => operands
            .iter()
            .map(|operand| operand.map(|operand| (operand, false)))
            .collect::<Option<_>>()
            .map(Reading::Sum)
            .ok_or(NotLinear::Malformed("an operand is missing")),
    }
}
