//! The nodes that a map is written with around its kernel: crops, pads and Transposes in front of
//! it, and a bias behind it, which a neighbouring kernel may take over.
//!
//! Knows geometries and their layout.

use crate::affine::{ConvKind, Geometry, PadMode, Window};
use crate::emit::layout::{is_turned, order_of_product};

/// What the layout of this geometry has nodes for in front of its kernel, as a map that only pads,
/// crops and turns; `None` if there are no such nodes. A transposed convolution crops its output.
pub fn front(geometry: &Geometry) -> Option<Geometry> {
    if is_turned(geometry) {
        return None;
    }
    let product = order_of_product(geometry);
    let pads_itself = product.is_none();
    let frame = |window: &Window| {
        let (before, behind) = window.pads();
        let pads = match window.pad_mode {
            _ if geometry.kind == ConvKind::ConvTranspose => (0, 0),
            PadMode::SameUpper | PadMode::SameLower => (0, 0),
            PadMode::Zero if pads_itself => (before.min(0), behind.min(0)),
            PadMode::Zero | PadMode::Reflect | PadMode::Edge | PadMode::Wrap => (before, behind),
        };
        Window::frame(pads, window.pad_mode)
    };
    let is_framed = |window: &Window| frame(window) != Some(Window::IDENTITY);
    let is_framed = geometry.windows.iter().any(is_framed);
    let order = product.unwrap_or_default();
    if !is_framed && geometry.input == order {
        return None;
    }
    let frames = geometry.windows.iter().filter(|_| is_framed).map(frame);
    Some(Geometry {
        windows: frames.collect::<Option<_>>()?,
        input: geometry.input.clone(),
        output: order,
        ..Geometry::identity()
    })
}

/// Whether the layout of a map of this shape has a separate node for its bias.
pub fn adds_bias(geometry: &Geometry) -> bool {
    let is_product = !is_turned(geometry) && order_of_product(geometry).is_some();
    is_product && geometry.is_pointwise() && geometry.shifted && !geometry.windows.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affine::{AxisOrder, Channels, Linear};
    use crate::emit::layout::{LayoutOp, layout};
    use crate::ops::forms::NodeForms;

    /// The kind, the axis order of the input, the pads, and the border; whether something is in
    /// front of the kernel.
    #[test]
    fn what_is_in_front_of_a_kernel_and_the_kernel_are_the_map() {
        use ConvKind::{Conv, ConvTranspose, MatMul};
        use PadMode::{Edge, Zero};
        let (nchw, nhwc) = (&[0, 1, 2, 3][..], &[0, 3, 1, 2][..]);
        for (kind, input, pads, pad_mode, has_front) in [
            (Conv, nchw, (1, 1), Zero, false),
            (Conv, nchw, (-1, 2), Zero, true),
            (Conv, nhwc, (1, 1), Zero, true),
            (Conv, nchw, (1, -1), Edge, true),
            (MatMul, nhwc, (0, 0), Zero, false),
            (MatMul, nhwc, (1, 0), Zero, true),
            (ConvTranspose, nchw, (-1, -1), Zero, false),
        ] {
            let taps = if kind == MatMul { 1 } else { 3 };
            let window = Window { pad_mode, ..Window::new(taps, 1, 1, pads).unwrap() };
            let input = AxisOrder::new(input).unwrap();
            let (windows, channels) = (vec![window; 2], Some(Channels::diagonal(4)));
            let map = Geometry { kind, windows, channels, ..Geometry::identity() };
            let map = map.within(&input);
            let front = front(&map);
            assert_eq!(front.is_some(), has_front, "{map:?}");
            let both = front.map(|front| map.behind(&front).after(&front).unwrap());
            assert_eq!(both.unwrap_or_else(|| map.clone()), map);
        }
    }

    /// The kind, the axis order, and the number of spatial axes; whether a node adds the bias.
    #[test]
    fn a_bias_is_added_where_a_product_has_none() {
        let (nchw, nhwc) = (&[0, 1, 2, 3][..], &[0, 3, 1, 2][..]);
        for (kind, order, axes, expected) in [
            (ConvKind::MatMul, nhwc, 2, true),
            (ConvKind::MatMul, nchw, 2, false),
            (ConvKind::MatMul, &[0, 1], 0, false),
            (ConvKind::Conv, nhwc, 2, false),
        ] {
            let order = AxisOrder::new(order).unwrap();
            let (windows, channels) = (vec![Window::IDENTITY; axes], Some(Channels::diagonal(4)));
            for shifted in [false, true] {
                let (windows, identity) = (windows.clone(), Geometry::identity());
                let map = Geometry { kind, windows, channels, shifted, ..identity }.within(&order);
                let nodes = layout(
                    &map,
                    NodeForms { opset: 13, wraps: false, pads_unevenly: false, convolves: true },
                );
                let has_add = nodes.iter().any(|node| node.operator == LayoutOp::Add);
                assert_eq!((adds_bias(&map), has_add), (shifted && expected, adds_bias(&map)));
            }
        }
    }
}
