//! Which nodes a map is written as: a list of plain data, which the planner counts and the
//! writer renders one by one, so that what is planned and what is written cannot disagree.
//!
//! Knows geometries and operator sets; neither weights nor the names of tensors.

use std::borrow::Cow;

use crate::affine::{AxisOrder, ConvKind, Geometry, PadMode, Window};
use crate::onnx::write::{self, AxisSlice, CircularPart};

/// One node to be.
#[derive(Debug, Clone, PartialEq)]
pub struct LayoutNode {
    /// What its name has behind that of the map.
    pub name: Cow<'static, str>,
    /// What the name of its output has behind that of the map, if another node follows.
    pub output: Cow<'static, str>,
    /// Its operator.
    pub operator: LayoutOp,
    /// What it reads.
    pub reads: Vec<Operand>,
}

/// An operator, with what the map's geometry does not say by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum LayoutOp {
    /// Transpose: axis `i` of the output is axis `perm[i]` of the input.
    Transpose(Vec<usize>),
    /// Pad in this mode, before and behind each spatial axis.
    Pad(PadMode, Vec<(i64, i64)>),
    /// Slice.
    Slice(Vec<AxisSlice>),
    /// Concat along this axis.
    Concat(i64),
    /// Conv with the map's windows; its own pads are those with zeros.
    Conv,
    /// ConvTranspose with the map's windows.
    ConvTranspose,
    /// Gemm with `[O, C]` weights.
    Gemm,
    /// Gemm with `[O, C]` weights, of `[C, N]`.
    TurnedGemm,
    /// MatMul with `[C, O]` weights.
    MatMul,
    /// Add.
    Add,
}

/// A tensor that a node of a layout reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// What the map reads.
    Root,
    /// The output of the node at this place of the layout.
    Node(usize),
    /// The weights.
    Weight,
    /// The bias.
    Bias,
}

/// The nodes of a map of this shape; the last one makes the map's output.
///
/// A convolution stands between Transposes where its tensors are not NCHW, behind a Pad
/// where its border is not zero, and behind a Slice where its windows start inside the
/// input: engines refuse negative pads.
pub fn layout(geometry: &Geometry, opset: i64) -> Vec<LayoutNode> {
    let mut layout = Layout { nodes: Vec::with_capacity(1), value: Operand::Root };
    let product = order_of_product(geometry);
    let is_product = product.is_some();
    let order = product.unwrap_or(AxisOrder::CANONICAL);
    let is_turned = is_product && is_turned(geometry);
    if !is_turned {
        layout.transpose(".input", &geometry.input, &order, geometry.rank());
    }
    if is_turned {
        layout.turned_product();
    } else if is_product {
        layout.product(geometry);
    } else {
        layout.convolution(geometry, opset);
    }
    layout.transpose(".output", &order, &geometry.output, geometry.rank());
    layout.nodes
}

/// What of each axis' pads has this border, before and behind.
pub fn pads_with(geometry: &Geometry, pad_mode: PadMode) -> Vec<(i64, i64)> {
    let pads = |window: &Window| match window.pads() {
        (begin, end) if window.pad_mode == pad_mode => (begin.max(0), end.max(0)),
        _ => (0, 0),
    };
    geometry.windows.iter().map(pads).collect()
}

/// The order of axes, with the channels last, in which a map is written as a matrix
/// product; `None` if it becomes a convolution, as products between NCHW tensors do.
fn order_of_product(geometry: &Geometry) -> Option<AxisOrder> {
    let ends = [&geometry.input, &geometry.output];
    let is_nchw = !geometry.windows.is_empty() && ends.iter().all(|end| end.is_canonical());
    if geometry.kind != ConvKind::MatMul || is_nchw {
        return None;
    }
    let channels = geometry.rank().saturating_sub(1);
    let last = ends.into_iter().find(|end| end.axis(1) == channels);
    Some(last.cloned().unwrap_or_else(|| AxisOrder::with_channels_at(channels)))
}

/// Whether the map is a product of `[C, N]` with a bias, which Gemm reads as it is.
fn is_turned(geometry: &Geometry) -> bool {
    let reads_columns = geometry.input == AxisOrder::with_channels_at(0);
    geometry.windows.is_empty()
        && geometry.shifted
        && reads_columns
        && geometry.output.is_canonical()
}

/// A layout as far as it has come.
struct Layout {
    nodes: Vec<LayoutNode>,
    /// What the next node reads.
    value: Operand,
}

impl Layout {
    /// Appends a node whose output is called as it is; returns that.
    fn push(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        operator: LayoutOp,
        reads: Vec<Operand>,
    ) -> Operand {
        let name = name.into();
        self.nodes.push(LayoutNode { output: name.clone(), name, operator, reads });
        Operand::Node(self.nodes.len().saturating_sub(1))
    }

    /// Appends the node that is called as the map is; its output is not, if others follow.
    fn push_main(&mut self, output: &'static str, operator: LayoutOp, reads: Vec<Operand>) {
        let (name, output) = (Cow::Borrowed(""), Cow::Borrowed(output));
        self.nodes.push(LayoutNode { name, output, operator, reads });
        self.value = Operand::Node(self.nodes.len().saturating_sub(1));
    }

    /// From one order of axes to another.
    fn transpose(&mut self, name: &'static str, from: &AxisOrder, to: &AxisOrder, rank: usize) {
        if from != to {
            let perm = to.roles(rank).into_iter().map(|role| from.axis(role)).collect();
            self.value = self.push(name, LayoutOp::Transpose(perm), vec![self.value]);
        }
    }

    /// Gemm on `[C, N]`.
    fn turned_product(&mut self) {
        let reads = vec![self.value, Operand::Weight, Operand::Bias];
        self.push_main(".product", LayoutOp::TurnedGemm, reads);
    }

    /// Gemm on `[N, C]`; MatMul and Add where there are further axes, or no bias.
    fn product(&mut self, geometry: &Geometry) {
        if geometry.windows.is_empty() && geometry.shifted {
            let reads = vec![self.value, Operand::Weight, Operand::Bias];
            self.push_main(".product", LayoutOp::Gemm, reads);
            return;
        }
        let reads = vec![self.value, Operand::Weight];
        self.value = self.push(".product", LayoutOp::MatMul, reads);
        if geometry.shifted {
            self.value = self.push(".shift", LayoutOp::Add, vec![self.value, Operand::Bias]);
        }
    }

    fn convolution(&mut self, geometry: &Geometry, opset: i64) {
        let modes =
            [(PadMode::Reflect, ".reflect"), (PadMode::Edge, ".edge"), (PadMode::Wrap, ".wrap")];
        let is_there = |mode| geometry.windows.iter().any(|window| window.pad_mode == mode);
        // What is mirrored is all of the input, so it is padded before it is cropped.
        for (pad_mode, name) in modes.into_iter().filter(|&(mode, _)| is_there(mode)) {
            let pads = pads_with(geometry, pad_mode);
            if pad_mode == PadMode::Wrap && !write::has_wrapping_pad(opset) {
                self.circular_pads(name, &pads);
            } else if pads.iter().any(|&pads| pads != (0, 0)) {
                self.value = self.push(name, LayoutOp::Pad(pad_mode, pads), vec![self.value]);
            }
        }
        let is_transposed = geometry.kind == ConvKind::ConvTranspose;
        let windows = (2..).zip(&geometry.windows).filter(|_| !is_transposed);
        let cuts = windows.filter_map(|(axis, window)| AxisSlice::cropping(axis, window.pads()));
        let cuts: Vec<AxisSlice> = cuts.collect();
        if !cuts.is_empty() {
            self.value = self.push(".crop", LayoutOp::Slice(cuts), vec![self.value]);
        }
        let bias = geometry.shifted.then_some(Operand::Bias);
        let reads = [self.value, Operand::Weight].into_iter().chain(bias).collect();
        let operator = if is_transposed { LayoutOp::ConvTranspose } else { LayoutOp::Conv };
        self.push_main(".nchw", operator, reads);
    }

    /// Per axis: the last elements, the input, the first elements.
    fn circular_pads(&mut self, name: &str, pads: &[(i64, i64)]) {
        for (axis, &pads) in (2..).zip(pads) {
            let name = format!("{name}.{axis}");
            let mut joined = Vec::new();
            for part in write::circular_parts(axis, pads) {
                joined.push(match part {
                    CircularPart::Input => self.value,
                    CircularPart::Slice(which, cut) => {
                        let name = format!("{name}.{which}");
                        self.push(name, LayoutOp::Slice(vec![cut]), vec![self.value])
                    }
                });
            }
            if !joined.is_empty() {
                self.value = self.push(name, LayoutOp::Concat(axis), joined);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each axis is padded by so much, and with this border; the operator set; the
    /// names of the nodes.
    #[test]
    fn borders_and_crops_come_before_the_convolution() {
        use PadMode::{Reflect, Wrap, Zero};
        let wrapped = [".wrap.2.last", ".wrap.2", ".wrap.3.last", ".wrap.3", ""];
        for (pads, pad_mode, opset, expected) in [
            ((1, 1), Zero, 11, &[""][..]),
            ((-1, 1), Zero, 11, &[".crop", ""]),
            ((1, -1), Reflect, 11, &[".reflect", ".crop", ""]),
            ((1, 0), Wrap, 19, &[".wrap", ""]),
            ((1, 0), Wrap, 18, &wrapped),
        ] {
            let window = Window::new(3, 1, 1, pads).unwrap();
            let windows = vec![Window { pad_mode, ..window }; 2];
            let geometry = Geometry { windows, ..Geometry::identity() };
            let names: Vec<_> = layout(&geometry, opset).into_iter().map(|n| n.name).collect();
            assert_eq!(names, expected, "{pads:?} {pad_mode:?} of operator set {opset}");
        }
    }

    /// The axes of what a product reads and makes, its spatial axes, whether it has a bias;
    /// the names of the nodes.
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
            let names: Vec<_> = layout(&geometry, 13).into_iter().map(|n| n.name).collect();
            assert_eq!(names, expected, "{input:?} to {output:?}, bias: {shifted}");
        }
    }
}
