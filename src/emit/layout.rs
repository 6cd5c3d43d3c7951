//! The layout of a map: the nodes that it is written as, as a list of plain data. The planner
//! counts them and the writer renders them one by one, so that what is planned and what is written
//! cannot disagree.
//!
//! Knows geometries and the forms that nodes have in a file; neither weights nor the names of
//! tensors.

use std::borrow::Cow;

use crate::affine::{AxisOrder, ConvKind, Geometry, PadMode, Window};
use crate::onnx::write::{self, AxisSlice, CircularPart};
use crate::ops::forms::NodeForms;

/// A node to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct LayoutNode {
    /// Suffix of its name, behind the name of the map.
    pub name: Cow<'static, str>,
    /// Suffix of its output's name, behind the name of the map, if another node follows.
    pub output: Cow<'static, str>,
    /// Its operator.
    pub operator: LayoutOp,
    /// The tensors that it reads.
    pub reads: NodeReads,
}

/// An operator, with the parameters that the map's geometry does not give by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum LayoutOp {
    /// Transpose: axis `i` of the output is axis `perm[i]` of the input.
    Transpose(Vec<usize>),
    /// Pad in this mode, before and behind each axis.
    Pad(PadMode, Vec<(i64, i64)>),
    /// Slice of a tensor whose channel axis is the second field.
    Slice(Vec<AxisSlice>, usize),
    /// Concat along this axis.
    Concat(i64),
    /// Conv with the map's windows; its own pads are those filled with zeros.
    Conv,
    /// ConvTranspose with the map's windows.
    ConvTranspose,
    /// Gemm with `[O, C]` weights.
    Gemm,
    /// Gemm with `[O, C]` weights and a `[C, N]` input.
    TurnedGemm,
    /// MatMul with `[C, O]` weights.
    MatMul,
    /// Add.
    Add,
}

impl LayoutOp {
    /// Whether it is a convolution or a transposed convolution.
    pub fn convolves(&self) -> bool {
        matches!(self, LayoutOp::Conv | LayoutOp::ConvTranspose)
    }
}

/// A tensor that a node of a layout reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// The input of the map.
    Root,
    /// The output of the node with this index in the layout.
    Node(usize),
    /// The weights.
    Weight,
    /// The bias.
    Bias,
}

/// The inputs of a node in order: three at most, such as the parts of a circular pad. An array,
/// because the planner lays out each candidate.
pub type NodeReads = [Option<Operand>; 3];

fn reading<const N: usize>(operands: [Operand; N]) -> NodeReads {
    first_three(operands.into_iter())
}

fn first_three(mut operands: impl Iterator<Item = Operand>) -> NodeReads {
    std::array::from_fn(|_| operands.next())
}

/// Returns the nodes of a map of this shape; the last one makes the map's output.
///
/// A convolution stands between Transposes where its tensors are not NCHW, behind a Pad where its
/// border is not zero, and behind a Slice where its windows start inside the input: engines refuse
/// negative pads. A product pads and crops in its own channels-last order, if that takes no more
/// nodes: engines run what is between two products without any Transpose.
pub fn layout(geometry: &Geometry, forms: NodeForms) -> Vec<LayoutNode> {
    if is_turned(geometry) {
        return turned_product(geometry);
    }
    let product = order_of_product(geometry).map(|order| product(geometry, &order, forms));
    match product {
        Some(product) if geometry.is_pointwise() => product,
        Some(product) => shorter(product, convolution(geometry, forms)),
        None => convolution(geometry, forms),
    }
}

/// The operator of the node that reads the weights of a map of this shape; it determines how they
/// are stored.
pub fn weighted_operator(geometry: &Geometry, forms: NodeForms) -> Option<LayoutOp> {
    let reads_weights = |node: &LayoutNode| node.reads.contains(&Some(Operand::Weight));
    layout(geometry, forms).into_iter().find(reads_weights).map(|node| node.operator)
}

/// The shorter layout; the first one, if both have the same length.
fn shorter(one: Vec<LayoutNode>, other: Vec<LayoutNode>) -> Vec<LayoutNode> {
    if other.len() < one.len() { other } else { one }
}

/// The pads of each spatial axis, before and behind, that are filled as `pad_mode` says.
pub fn pads_with(geometry: &Geometry, pad_mode: PadMode) -> Vec<(i64, i64)> {
    let pads = |window: &Window| match window.pads() {
        (begin, end) if window.pad_mode == pad_mode => (begin.max(0), end.max(0)),
        _ => (0, 0),
    };
    geometry.windows.iter().map(pads).collect()
}

/// The axis order, with the channels last, in which a map is written as a matrix product. Returns
/// `None` if the map is written as a convolution, as products between NCHW tensors are.
pub(super) fn order_of_product(geometry: &Geometry) -> Option<AxisOrder> {
    let ends = [&geometry.input, &geometry.output];
    let is_nchw = !geometry.windows.is_empty() && ends.iter().all(|end| end.is_canonical());
    if geometry.kind != ConvKind::MatMul || is_nchw {
        return None;
    }
    let channels = geometry.rank().saturating_sub(1);
    let last = ends.into_iter().find(|end| end.axis(1) == channels);
    Some(last.cloned().unwrap_or_else(|| AxisOrder::with_channels_at(channels)))
}

/// Whether the map is a product of a `[C, N]` tensor with a bias, which Gemm reads without a
/// Transpose.
pub(super) fn is_turned(geometry: &Geometry) -> bool {
    let reads_columns = geometry.input == AxisOrder::with_channels_at(0);
    geometry.kind == ConvKind::MatMul
        && geometry.windows.is_empty()
        && geometry.shifted
        && reads_columns
        && geometry.output.is_canonical()
}

/// The layout of a Gemm on `[C, N]`.
fn turned_product(geometry: &Geometry) -> Vec<LayoutNode> {
    let mut layout = Layout::of(geometry);
    let reads = reading([layout.value, Operand::Weight, Operand::Bias]);
    layout.push_main(".product", LayoutOp::TurnedGemm, reads);
    layout.nodes
}

/// The layout of a Gemm on `[N, C]`, or of MatMul and Add where there are further axes, or no
/// bias. `order` is the axis order of the tensors between the Transposes.
fn product(geometry: &Geometry, order: &AxisOrder, forms: NodeForms) -> Vec<LayoutNode> {
    let mut layout = Layout::of(geometry);
    layout.transpose(".input", &geometry.input, order);
    layout.pads(PadMode::Zero, order, forms);
    layout.borders(order, forms);
    layout.crop(order);
    if geometry.windows.is_empty() && geometry.shifted {
        let reads = reading([layout.value, Operand::Weight, Operand::Bias]);
        layout.push_main(".product", LayoutOp::Gemm, reads);
    } else {
        let reads = reading([layout.value, Operand::Weight]);
        layout.value = layout.push(".product", LayoutOp::MatMul, reads);
        if geometry.shifted {
            let reads = reading([layout.value, Operand::Bias]);
            layout.value = layout.push(".shift", LayoutOp::Add, reads);
        }
    }
    layout.transpose(".output", order, &geometry.output);
    layout.nodes
}

/// The layout of a Conv or ConvTranspose; pads with zeros are those of the operator itself.
fn convolution(geometry: &Geometry, forms: NodeForms) -> Vec<LayoutNode> {
    let order = &AxisOrder::CANONICAL;
    let is_transposed = geometry.kind == ConvKind::ConvTranspose;
    let mut layout = Layout::of(geometry);
    layout.transpose(".input", &geometry.input, order);
    layout.borders(order, forms);
    if !is_transposed {
        layout.crop(order);
    }
    let bias = geometry.shifted.then_some(Operand::Bias);
    let reads = [Some(layout.value), Some(Operand::Weight), bias];
    let operator = if is_transposed { LayoutOp::ConvTranspose } else { LayoutOp::Conv };
    layout.push_main(".nchw", operator, reads);
    layout.transpose(".output", order, &geometry.output);
    layout.nodes
}

/// A layout under construction.
struct Layout<'g> {
    geometry: &'g Geometry,
    nodes: Vec<LayoutNode>,
    /// The operand that the next node reads.
    value: Operand,
}

impl<'g> Layout<'g> {
    fn of(geometry: &'g Geometry) -> Self {
        Layout { geometry, nodes: Vec::with_capacity(1), value: Operand::Root }
    }

    /// Appends a node whose output has the same name as the node, and returns that output.
    fn push(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        operator: LayoutOp,
        reads: NodeReads,
    ) -> Operand {
        let name = name.into();
        self.nodes.push(LayoutNode { output: name.clone(), name, operator, reads });
        Operand::Node(self.nodes.len().saturating_sub(1))
    }

    /// Appends the node with the name of the map itself; if others follow, its output is named
    /// `output`.
    fn push_main(&mut self, output: &'static str, operator: LayoutOp, reads: NodeReads) {
        let (name, output) = (Cow::Borrowed(""), Cow::Borrowed(output));
        self.nodes.push(LayoutNode { name, output, operator, reads });
        self.value = Operand::Node(self.nodes.len().saturating_sub(1));
    }

    /// Appends a Transpose, unless both axis orders are the same.
    fn transpose(&mut self, name: &'static str, from: &AxisOrder, to: &AxisOrder) {
        if from != to {
            let roles = to.roles(self.geometry.rank()).into_iter();
            let perm = roles.map(|role| from.axis(role)).collect();
            self.value = self.push(name, LayoutOp::Transpose(perm), reading([self.value]));
        }
    }

    /// Appends the pads whose border is not zero. A mirrored border mirrors the whole input, so it
    /// is padded before it is cropped.
    fn borders(&mut self, order: &AxisOrder, forms: NodeForms) {
        for pad_mode in [PadMode::Reflect, PadMode::Edge, PadMode::Wrap] {
            self.pads(pad_mode, order, forms);
        }
    }

    /// Appends the pads with this border for a tensor with its axes in `order`.
    fn pads(&mut self, pad_mode: PadMode, order: &AxisOrder, forms: NodeForms) {
        let name = match pad_mode {
            PadMode::Reflect => ".reflect",
            PadMode::Edge => ".edge",
            PadMode::Wrap => ".wrap",
            PadMode::Zero | PadMode::SameUpper | PadMode::SameLower => ".pad",
        };
        let is_padded = |window: &Window| {
            let (before, behind) = window.pads();
            window.pad_mode == pad_mode && before.max(behind) > 0
        };
        if !self.geometry.windows.iter().any(is_padded) {
            return;
        }
        let pads = pads_with(self.geometry, pad_mode);
        let of_role = |role: usize| role.checked_sub(2).and_then(|axis| pads.get(axis).copied());
        let of_axis = |axis| of_role(order.role(axis)).unwrap_or_default();
        let pads: Vec<(i64, i64)> = (0..self.geometry.rank()).map(of_axis).collect();
        if pad_mode == PadMode::Wrap && !forms.wraps {
            self.circular_pads(name, &pads, order.axis(1));
        } else {
            self.value = self.push(name, LayoutOp::Pad(pad_mode, pads), reading([self.value]));
        }
    }

    /// Appends, for each padded axis, a Concat of the last elements, the input and the first
    /// elements.
    fn circular_pads(&mut self, name: &str, pads: &[(i64, i64)], channels: usize) {
        for (axis, &pads) in (0..).zip(pads) {
            let name = format!("{name}.{axis}");
            let mut joined = Vec::new();
            for part in write::circular_parts(axis, pads) {
                joined.push(match part {
                    CircularPart::Input => self.value,
                    CircularPart::Slice(which, cut) => {
                        let name = format!("{name}.{which}");
                        let slice = LayoutOp::Slice(vec![cut], channels);
                        self.push(name, slice, reading([self.value]))
                    }
                });
            }
            if !joined.is_empty() {
                self.value =
                    self.push(name, LayoutOp::Concat(axis), first_three(joined.into_iter()));
            }
        }
    }

    /// Appends the Slice that crops a tensor with its axes in `order`, if anything is cropped.
    fn crop(&mut self, order: &AxisOrder) {
        let windows = self.geometry.windows.iter().zip(2..);
        let cut = |(window, role): (&Window, usize)| {
            AxisSlice::cropping(order.axis(role) as i64, window.pads())
        };
        let cuts: Vec<AxisSlice> = windows.filter_map(cut).collect();
        if !cuts.is_empty() {
            let slice = LayoutOp::Slice(cuts, order.axis(1));
            self.value = self.push(".crop", slice, reading([self.value]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pads of each axis and their border; whether the file has Pads that wrap; the names of
    /// the nodes.
    #[test]
    fn borders_and_crops_come_before_the_convolution() {
        use PadMode::{Reflect, Wrap, Zero};
        let wrapped = [".wrap.2.last", ".wrap.2", ".wrap.3.last", ".wrap.3", ""];
        for (pads, pad_mode, wraps, expected) in [
            ((1, 1), Zero, false, &[""][..]),
            ((-1, 1), Zero, false, &[".crop", ""]),
            ((1, -1), Reflect, false, &[".reflect", ".crop", ""]),
            ((1, 0), Wrap, true, &[".wrap", ""]),
            ((1, 0), Wrap, false, &wrapped),
        ] {
            let window = Window::new(3, 1, 1, pads).unwrap();
            let windows = vec![Window { pad_mode, ..window }; 2];
            let geometry = Geometry { windows, ..Geometry::identity() };
            let forms = NodeForms { opset: 19, wraps, pads_unevenly: false, convolves: true };
            let names: Vec<_> = layout(&geometry, forms).into_iter().map(|n| n.name).collect();
            assert_eq!(names, expected, "{pads:?} {pad_mode:?}, Pads wrap: {wraps}");
        }
    }

    /// The axis orders of the input and output of a product, the number of its spatial axes,
    /// whether it has a bias; the names of the nodes.
    #[test]
    fn products_stand_between_transposes() {
        let nchw = &[0, 1, 2, 3][..];
        for (input, output, axes, shifted, expected) in [
            (&[0, 1][..], &[0, 1][..], 0, true, &[""][..]),
            (&[0, 1], &[0, 1], 0, false, &[".product"]),
            (&[0, 1], &[1, 0], 0, true, &["", ".output"]),
            (nchw, nchw, 2, true, &[""]),
            (&[0, 3, 1, 2], &[0, 3, 1, 2], 2, true, &[".product", ".shift"]),
            (nchw, &[0, 3, 1, 2], 2, false, &[".input", ".product"]),
        ] {
            let order = |axes: &[i64]| AxisOrder::new(axes).unwrap();
            let geometry = Geometry {
                kind: ConvKind::MatMul,
                windows: vec![Window::IDENTITY; axes],
                input: order(input),
                output: order(output),
                shifted,
                ..Geometry::identity()
            };
            let forms =
                NodeForms { opset: 13, wraps: false, pads_unevenly: false, convolves: true };
            let names: Vec<_> = layout(&geometry, forms).into_iter().map(|n| n.name).collect();
            assert_eq!(names, expected, "{input:?} to {output:?}, bias: {shifted}");
        }
    }

    /// The axis orders of the input and output of a product, whether it has a bias, its pads, and
    /// the border; the names of the nodes.
    #[test]
    fn products_pad_and_crop_where_their_channels_are() {
        use PadMode::{Edge, Wrap, Zero};
        let (nchw, nhwc) = (&[0, 1, 2, 3][..], &[0, 3, 1, 2][..]);
        let wrapped = [".wrap.2.last", ".wrap.2", ".product"];
        for (input, output, shifted, pads, pad_mode, expected) in [
            (nhwc, nhwc, false, (1, 1), Edge, &[".edge", ".product"][..]),
            (nhwc, nhwc, true, (1, -1), Edge, &[".edge", ".crop", ".product", ".shift"]),
            (nhwc, nhwc, false, (1, 0), Wrap, &wrapped),
            (nhwc, nhwc, true, (1, 0), Zero, &[".pad", ".product", ".shift"]),
            // The layout as a convolution is shorter.
            (nchw, nhwc, true, (1, 0), Zero, &["", ".output"]),
            (nchw, nchw, true, (1, 0), Edge, &[".edge", ""]),
        ] {
            let order = |axes: &[i64]| AxisOrder::new(axes).unwrap();
            let window = Window::new(1, 1, 1, pads).unwrap();
            let geometry = Geometry {
                kind: ConvKind::MatMul,
                windows: vec![Window::IDENTITY, Window { pad_mode, ..window }],
                input: order(input),
                output: order(output),
                shifted,
                ..Geometry::identity()
            };
            let forms =
                NodeForms { opset: 13, wraps: false, pads_unevenly: false, convolves: true };
            let nodes = layout(&geometry, forms);
            let names: Vec<_> = nodes.iter().map(|node| node.name.clone()).collect();
            assert_eq!(names, expected, "{input:?} to {output:?}, {pads:?} {pad_mode:?}");
            // The third axis of NHWC is the width.
            let padded = nodes.iter().find_map(|node| match &node.operator {
                LayoutOp::Pad(_, pads) => Some(pads.iter().position(|&pads| pads != (0, 0))),
                _ => None,
            });
            let axis = order(input).axis(3);
            assert!(padded.is_none_or(|padded| padded == Some(axis)), "{nodes:?}");
        }
    }
}
