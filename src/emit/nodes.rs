//! Renders terms as nodes and tensors: the layout of each term's map, and the nodes that add the
//! terms up.
//!
//! What is written is known as soon as the shapes are; weights stay where they are until they are
//! asked for. Knows only the names that it is given.

use std::sync::Arc;

use ndarray::{ArrayD, Axis};

use crate::affine::{Affine, ConvKind, Geometry, Linear, PadMode, Part, Window};
use crate::emit::layout::{LayoutNode, LayoutOp, Operand, layout, pads_with};
use crate::emit::term::{Term, TermKind};
use crate::emit::turned::{LastTurn, before_shared_turn};
use crate::emit::weights::{FusedWeights, NotFinite};
use crate::numbers;
use crate::onnx::float::Float;
use crate::onnx::ids::ValueId;
use crate::onnx::info::{self, AxisSize};
use crate::onnx::proto::{AttributeProto, NodeProto, TensorProto, ValueInfoProto};
use crate::onnx::write::{self, AxisSlice, WrittenNode, int, ints, string};
use crate::ops::forms::NodeForms;
use crate::ops::meaning::{Sign, ViewNode};
use crate::ops::pad_mode;

/// A tensor as a sum of terms, with everything that is needed to write it.
#[derive(Debug, Clone, Copy)]
pub struct NormalForm<'a> {
    /// The terms, part by part; in each part, a convolution comes first, because a subtracted term
    /// needs something to be subtracted from.
    pub terms: &'a [Term<Affine>],
    /// Names of the root tensors, one per term.
    pub roots: &'a [&'a str],
    /// Name of the tensor that is the sum.
    pub output: &'a str,
    /// Name of the tensor that the last node reads first, if other nodes read it, too.
    pub byproduct: Option<&'a str>,
    /// Prefix of the names of new nodes, and of the tensors between them.
    pub stem: &'a str,
    /// Prefix of the names of new initializers.
    pub tensor_stem: &'a str,
    /// Type of all weights.
    pub float: Float,
    /// The forms of the new nodes.
    pub forms: NodeForms,
}

/// The nodes and initializers that take a block's place.
#[derive(Debug, Clone)]
pub struct FusedNodes {
    /// New nodes; the last one computes the block's output, if any node reads it.
    pub nodes: Vec<NodeProto>,
    /// New initializers of the model's type.
    pub weights: Vec<FusedWeights>,
    /// New initializers that hold shapes, axes, pads or factors for nodes.
    pub told: Vec<TensorProto>,
    /// Types and shapes of new tensors for which engines would infer wrong shapes.
    pub infos: Vec<ValueInfoProto>,
    /// Tensors that the new nodes read.
    pub roots: Vec<ValueId>,
    /// Whether the tensor that the last node reads first has the name by which other nodes read
    /// it.
    pub names_byproduct: bool,
}

/// Writes a normal form.
///
/// # Errors
/// Returns an error if a weight that is computed already is not finite in the type that it will
/// have.
pub fn fused(form: &NormalForm) -> Result<FusedNodes, NotFinite> {
    if let Some((terms, _)) = before_shared_turn(form.terms, form.forms)
        && let Some(last) = LastTurn::of(form.terms, form.forms)
    {
        return turned(form, &terms, &last);
    }
    let mut fused = FusedNodes {
        nodes: vec![],
        weights: vec![],
        told: vec![],
        infos: vec![],
        roots: form.terms.iter().map(|term| term.root).collect(),
        names_byproduct: form.byproduct.is_some(),
    };
    let mut parts: Vec<(Option<Part>, String)> = Vec::new();
    for (index, (term, &root)) in form.terms.iter().zip(form.roots).enumerate() {
        // Only the last node makes the block's output.
        let is_last = index.saturating_add(1) == form.terms.len() && term.part.is_none();
        let is_alone = is_last && index == 0;
        let number = if is_alone { String::new() } else { format!(".{index}") };
        let stem = format!("{}{number}", form.stem);
        let output = if is_alone { form.output } else { &stem };
        let tensor_stem = format!("{}{number}", form.tensor_stem);
        let summand = fused
            .term(term, &Place { stem: &stem, root, output, tensor_stem: &tensor_stem, form })?;
        match parts.last_mut().filter(|(part, _)| *part == term.part()) {
            None => parts.push((term.part(), summand)),
            Some((_, sum)) => {
                let op = if term.kind == TermKind::Identity(Sign::Minus) { "Sub" } else { "Add" };
                let output = if is_last { form.output.to_owned() } else { format!("{stem}.sum") };
                let name = format!("{stem}.add");
                fused.nodes.push(write::node(op, &name, &[sum, &summand], &output, vec![]));
                *sum = output;
            }
        }
    }
    if let Some(name) = form.byproduct {
        fused.name_byproduct(name);
    }
    if let Some(&(Some(Part { axis, .. }), _)) = parts.first() {
        let joined: Vec<&str> = parts.iter().map(|(_, sum)| sum.as_str()).collect();
        let mut node = write::concat(&joined, form.output, axis as i64);
        node.name = Some(format!("{}.concat", form.stem));
        fused.nodes.push(node);
    }
    Ok(fused)
}

/// Writes the sum of `terms`, followed by the Transpose with which `form` ends.
fn turned(
    form: &NormalForm,
    terms: &[Term<Affine>],
    last: &LastTurn,
) -> Result<FusedNodes, NotFinite> {
    let before = form.byproduct.map_or_else(|| format!("{}.nchw", form.stem), str::to_owned);
    let mut sum = fused(&NormalForm { terms, output: &before, byproduct: None, ..*form })?;
    sum.names_byproduct = form.byproduct.is_some();
    let name = Some(format!("{}.output", form.stem));
    sum.nodes.push(NodeProto { name, ..last.node(&before, form.output) });
    Ok(sum)
}

/// The names with which one term is written.
struct Place<'a> {
    /// Prefix of the names of its nodes.
    stem: &'a str,
    /// Name of the tensor that it reads.
    root: &'a str,
    /// Name of the tensor that it makes.
    output: &'a str,
    /// Prefix of the names of its weights and bias.
    tensor_stem: &'a str,
    form: &'a NormalForm<'a>,
}

impl Place<'_> {
    /// The name of the tensor that `node` makes.
    fn made_by(&self, node: &LayoutNode) -> String {
        format!("{}{}", self.stem, node.output)
    }

    /// The name of the tensor that a node of `layout` reads as `operand`.
    fn operand(&self, layout: &[LayoutNode], operand: Operand) -> String {
        match operand {
            Operand::Root => self.root.to_owned(),
            Operand::Node(at) => layout.get(at).map_or(String::new(), |node| self.made_by(node)),
            Operand::Weight => self.tensor("weight"),
            Operand::Bias => self.tensor("bias"),
        }
    }

    fn tensor(&self, of: &str) -> String {
        format!("{}.{of}", self.tensor_stem)
    }
}

impl FusedNodes {
    /// Appends a chain of views of `tensor`, and returns the name of the last one's output:
    /// `output`, if that is given.
    fn views(
        &mut self,
        views: &[ViewNode],
        tensor: &str,
        output: Option<&str>,
        stem: &str,
    ) -> String {
        let mut made = tensor.to_owned();
        for (index, view) in views.iter().enumerate() {
            let name = format!("{stem}.{index}");
            let is_last = index.saturating_add(1) == views.len();
            let output = output.filter(|_| is_last).unwrap_or(&name);
            let mut node = (*view.proto).clone();
            node.name = Some(name.clone());
            node.input = vec![made];
            for (index, operand) in view.told.iter().enumerate() {
                let number = if index == 0 { String::new() } else { index.to_string() };
                let list = format!("{name}.list{number}");
                node.input.push(operand.as_ref().map_or(String::new(), |_| list.clone()));
                self.told.extend(operand.as_ref().map(|operand| operand.tensor(&list)));
            }
            node.output = vec![output.to_owned()];
            made = output.to_owned();
            self.nodes.push(node);
        }
        made
    }

    /// Gives the tensor that the last node reads first another `name`.
    fn name_byproduct(&mut self, name: &str) {
        let last = self.nodes.last().and_then(|last| last.input.first());
        let Some(old) = last.cloned() else { return };
        let nodes = self.nodes.iter_mut();
        let tensors = nodes.flat_map(|node| node.input.iter_mut().chain(&mut node.output));
        tensors.filter(|tensor| **tensor == old).for_each(|tensor| name.clone_into(tensor));
    }

    /// Appends a term, and returns the name of its output: the one in `place`, unless the output
    /// is the root or a view of it.
    fn term(&mut self, term: &Term<Affine>, place: &Place) -> Result<String, NotFinite> {
        let Place { stem, output, form, .. } = *place;
        let inner = term.inner.as_ref().map(|inner| {
            let (stem, made) = (format!("{stem}.inner"), format!("{}.inner", place.tensor_stem));
            let (output, tensor_stem) = (&stem, &made);
            self.term(&inner.term, &Place { stem: &stem, output, tensor_stem, ..*place })
        });
        let inner = inner.transpose()?;
        let root = inner.as_deref().unwrap_or(place.root);
        let root = self.views(&term.before, root, None, &format!("{stem}.before"));
        if let TermKind::Identity(_) = term.kind {
            return Ok(root);
        }
        let made = format!("{stem}.viewed");
        let made = if term.after.is_empty() { output } else { &made };
        let place = &Place { root: &root, output: made, form, ..*place };
        match term.kind {
            TermKind::Pointwise => {
                self.pointwise(("Mul", "scale"), numbers::all(&term.map), term, place)?
            }
            TermKind::Shifted(_) => {
                self.pointwise(("Add", "shift"), term.map.bias().to_vec(), term, place)?
            }
            _ => self.convolution(term, place)?,
        }
        Ok(self.views(&term.after, made, Some(output), &format!("{stem}.after")))
    }

    /// Appends an operator with an initializer of these `numbers`, one per channel or one for all.
    fn pointwise(
        &mut self,
        (op, what): (&str, &str),
        numbers: Vec<f64>,
        term: &Term<Affine>,
        place: &Place,
    ) -> Result<(), NotFinite> {
        let geometry = term.map.geometry();
        let name = place.tensor(what);
        // Broadcasting aligns the last axes: [C, 1, 1] for NCHW.
        let behind = geometry.rank().saturating_sub(geometry.output.axis(1).saturating_add(1));
        let shape = [vec![numbers.len()], vec![1; behind]].concat();
        self.weights.push(FusedWeights::new(&name, &shape, place.form.float, Arc::new(numbers))?);
        let reads = [place.root, name.as_str()];
        self.nodes.push(write::node(op, place.stem, &reads, place.output, vec![]));
        Ok(())
    }

    /// Appends the nodes and weights of one term with a kernel.
    fn convolution(&mut self, term: &Term<Affine>, place: &Place) -> Result<(), NotFinite> {
        let geometry = term.map.geometry();
        let layout = layout(geometry, place.form.forms);
        self.store(term, &layout, place)?;
        for (index, node) in layout.iter().enumerate() {
            let is_last = index.saturating_add(1) == layout.len();
            let output = if is_last { place.output.to_owned() } else { place.made_by(node) };
            let reads = node.reads.iter().flatten();
            let reads = reads.map(|&operand| place.operand(&layout, operand));
            let reads: Vec<String> = reads.collect();
            let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
            let mut written =
                rendered(&node.operator, geometry, &reads, &output, place.form.forms.opset);
            written.node.name = Some(format!("{}{}", place.stem, node.name));
            self.nodes.push(written.node);
            self.told.extend(written.integers);
            if let LayoutOp::Slice(cuts, channels) = &node.operator {
                self.infos.extend(description(geometry, &output, (cuts, *channels), place.form));
            }
        }
        Ok(())
    }

    /// Appends the weights and the bias of one term, in the order in which earlier versions wrote
    /// them.
    fn store(
        &mut self,
        term: &Term<Affine>,
        layout: &[LayoutNode],
        place: &Place,
    ) -> Result<(), NotFinite> {
        let [weight, bias] = ["weight", "bias"].map(|of| place.tensor(of));
        let float = place.form.float;
        let map = &term.map;
        let has = |operator| layout.iter().any(|node| node.operator == operator);
        let weights = || {
            if has(LayoutOp::MatMul) {
                let matrix = transposed(map.kernel());
                let shape = matrix.shape().to_vec();
                let numbers = Arc::new(matrix.into_iter().collect::<Vec<f64>>());
                FusedWeights::new(&weight, &shape, float, numbers)
            } else {
                let kernel = map.clone().stored_kernel();
                FusedWeights::new(&weight, &map.stored_shape(), float, kernel)
            }
        };
        let biases = || {
            let numbers = map.bias().to_vec();
            FusedWeights::new(&bias, &[numbers.len()], float, Arc::new(numbers))
        };
        let is_shifted = map.geometry().shifted;
        if [LayoutOp::MatMul, LayoutOp::Gemm, LayoutOp::TurnedGemm].into_iter().any(has) {
            if is_shifted {
                self.weights.push(biases()?);
            }
            self.weights.push(weights()?);
        } else {
            self.weights.push(weights()?);
            if is_shifted {
                self.weights.push(biases()?);
            }
        }
        Ok(())
    }
}

/// Renders one node of the layout of `geometry`, without its name.
fn rendered(
    operator: &LayoutOp,
    geometry: &Geometry,
    reads: &[&str],
    output: &str,
    opset: i64,
) -> WrittenNode {
    let input = reads.first().copied().unwrap_or_default();
    let node = |op: &str, attributes| write::node(op, "", reads, output, attributes).into();
    match operator {
        LayoutOp::Transpose(perm) => {
            let perm = perm.iter().map(|&axis| axis as i64).collect();
            node("Transpose", vec![ints("perm", perm)])
        }
        LayoutOp::Pad(pad_mode, pads) => {
            write::pad(opset, pad_mode::name(*pad_mode), input, output, pads_of(pads))
        }
        LayoutOp::Slice(cuts, _) => write::slice(opset, input, output, cuts),
        LayoutOp::Concat(axis) => write::concat(reads, output, *axis).into(),
        LayoutOp::Conv => node("Conv", attributes_of(geometry)),
        LayoutOp::ConvTranspose => node("ConvTranspose", attributes_of(geometry)),
        LayoutOp::Gemm => node("Gemm", vec![int("transB", 1)]),
        LayoutOp::TurnedGemm => node("Gemm", vec![int("transA", 1), int("transB", 1)]),
        LayoutOp::MatMul => node("MatMul", vec![]),
        LayoutOp::Add => node("Add", vec![]),
    }
}

/// The attributes of a convolution, sorted by name.
fn attributes_of(geometry: &Geometry) -> Vec<AttributeProto> {
    let axis =
        |value: fn(&Window) -> i64| -> Vec<i64> { geometry.windows.iter().map(value).collect() };
    let groups = geometry.channels.map_or(1, |channels| channels.groups);
    let mut attributes = vec![
        ints("dilations", axis(|window| window.dilation)),
        int("group", groups as i64),
        ints("kernel_shape", axis(|window| window.taps)),
        ints("strides", axis(|window| window.stride)),
    ];
    if geometry.kind == ConvKind::ConvTranspose {
        let windows = geometry.windows.iter();
        let (pads, growth): (Vec<_>, Vec<_>) = windows.map(Window::scattered_pads).unzip();
        attributes.push(ints("pads", pads_of(&pads)));
        attributes.push(ints("output_padding", growth));
    } else if let Some(mode) = geometry.windows.iter().find_map(auto_pad) {
        attributes.push(string("auto_pad", mode));
    } else {
        attributes.push(ints("pads", pads_of(&pads_with(geometry, PadMode::Zero))));
    }
    attributes.sort_by(|a, b| a.name().cmp(b.name()));
    attributes
}

/// The value of `auto_pad` for a window whose place is not known.
fn auto_pad(window: &Window) -> Option<&'static str> {
    match window.pad_mode {
        PadMode::SameUpper => Some("SAME_UPPER"),
        PadMode::SameLower => Some("SAME_LOWER"),
        PadMode::Zero | PadMode::Reflect | PadMode::Edge | PadMode::Wrap => None,
    }
}

/// The pads in ONNX's order: all beginnings, then all ends.
fn pads_of(pads: &[(i64, i64)]) -> Vec<i64> {
    pads.iter().map(|pads| pads.0).chain(pads.iter().map(|pads| pads.1)).collect()
}

/// Transposes weights `[O, C, 1, …]` to `[C, O]`.
fn transposed(mut kernel: ArrayD<f64>) -> ArrayD<f64> {
    while kernel.ndim() > 2 {
        kernel.index_axis_inplace(Axis(2), 0);
    }
    kernel.reversed_axes()
}

/// The opset whose shape inference gives the output of a Slice the sizes of its input wherever
/// they have names: of x [1, 3, h, w], x[:, :, 1:] would be [1, 3, h, w] too. Engines that reuse
/// memory by such names then take one tensor's memory for another's.
const SLICE_KEEPS_NAMES: i64 = 10;

/// The description of the tensor `name`, which is the input of a map of this shape, with its
/// channels on `channel_axis`, after the Slice `cuts`: on the axes that are cut, its sizes have
/// names of their own. Returns `None` in all opsets that do not need it.
fn description(
    geometry: &Geometry,
    name: &str,
    (cuts, channel_axis): (&[AxisSlice], usize),
    form: &NormalForm,
) -> Option<ValueInfoProto> {
    if form.forms.opset != SLICE_KEEPS_NAMES {
        return None;
    }
    let size = |axis: usize| {
        let is_cut = cuts.iter().any(|cut| usize::try_from(cut.axis) == Ok(axis));
        match geometry.channels.filter(|_| axis == channel_axis) {
            Some(channels) => AxisSize::Fixed(channels.inputs as i64),
            None if is_cut => AxisSize::Named(format!("{name}.{axis}")),
            None => AxisSize::Open,
        }
    };
    Some(info::info(name, form.float.to_onnx(), (0..geometry.rank()).map(size)))
}
