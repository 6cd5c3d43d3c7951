//! TODO head.

use crate::affine::{AxisOrder, ConvKind, Geometry, PadMode, Window};
use crate::onnx::write::WRAP_SINCE;

/// The order of axes, with the channels last, in which a map is written as a matrix
/// product; `None` if it becomes a convolution, as products between NCHW tensors do.
pub fn order_of_product(geometry: &Geometry) -> Option<AxisOrder> {
    let ends = [&geometry.input, &geometry.output];
    let is_nchw = !geometry.windows.is_empty() && ends.iter().all(|end| end.is_canonical());
    if geometry.kind != ConvKind::MatMul || is_nchw {
        return None;
    }
    let channels = geometry.rank().saturating_sub(1);
    let last = ends.into_iter().find(|end| end.axis(1) == channels);
    Some(last.cloned().unwrap_or_else(|| AxisOrder::with_channels_at(channels)))
}

/// How many nodes it takes to write out a convolution of this shape.
#[expect(clippy::arithmetic_side_effects, reason = "a few per axis")]
pub fn nodes_of(geometry: &Geometry, opset: i64) -> usize {
    let count = |condition: fn(&Window) -> bool| {
        geometry.windows.iter().filter(|window| condition(window)).count()
    };
    if let Some(order) = order_of_product(geometry) {
        // MatMul and its bias where Gemm does not serve, and Transposes.
        let bias = usize::from(geometry.shifted && !geometry.windows.is_empty());
        let turns = [&geometry.input, &geometry.output].map(|end| usize::from(*end != order));
        return 1 + bias + turns.iter().sum::<usize>();
    }
    let mut nodes = 1;
    if geometry.kind != ConvKind::ConvTranspose {
        nodes += count(|window| window.pads().0 < 0 || window.pads().1 < 0).min(1);
    }
    nodes += count(|window| window.pad_mode == PadMode::Reflect).min(1);
    nodes += count(|window| window.pad_mode == PadMode::Edge).min(1);
    nodes += match count(|window| window.pad_mode == PadMode::Wrap) {
        wrapped if opset >= WRAP_SINCE => wrapped.min(1),
        // Two Slices and a Concat per axis.
        wrapped => 3 * wrapped,
    };
    for order in [&geometry.input, &geometry.output] {
        nodes += usize::from(!order.is_canonical());
    }
    nodes
}
