//! A kernel without its weights: channels, groups, and a window per spatial axis.
//!
//! Knows sizes and positions; [`rules`](super::rules) says which geometries may be composed and
//! added.
//!
//! A kernel is written for NCHW; its input and output tensors may have their axes in other
//! orders. Only the place of the channel axis matters: a convolution does not know the names of
//! its spatial axes, and a pad or crop does not know any names.

use crate::affine::axes::AxisOrder;
use crate::affine::window::{Window, gcd};

/// The channel counts of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Channels {
    /// Number of input channels, over all groups.
    pub inputs: usize,
    /// Number of output channels, over all groups.
    pub outputs: usize,
    /// Number of groups; it divides inputs and outputs.
    pub groups: usize,
}

/// The tensor on which the windows fall, if there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConvKind {
    /// Convolution: each output gathers what lies in a window of the input.
    Conv,
    /// Transposed convolution: each input scatters into a window of the output.
    ConvTranspose,
    /// Matrix product: a convolution of each position alone. Its windows have one tap, and at
    /// most pad or crop.
    MatMul,
}

/// A linear map without its weights, whose kernel would be `[outputs, inputs / groups, taps…]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// The channels; `None` for a map that is the same for each channel, however many there are.
    pub channels: Option<Channels>,
    /// One window per spatial axis. Axes beyond the list have the identity window, so a
    /// pointwise map fits tensors of every rank.
    pub windows: Vec<Window>,
    /// Whether the windows fall on the input or the output.
    pub kind: ConvKind,
    /// Axis order of the input.
    pub input: AxisOrder,
    /// Axis order of the output.
    pub output: AxisOrder,
    /// Whether the map has a bias other than zero.
    pub shifted: bool,
}

impl Channels {
    /// `channels` channels, each in a group of its own.
    pub fn diagonal(channels: usize) -> Self {
        Channels { inputs: channels, outputs: channels, groups: channels.max(1) }
    }

    /// The channels of a kernel with the rows of both kernels, which read the same channels.
    /// Returns `None` if they read different ones, or have groups: each group has its rows next
    /// to each other, which a stack of two kernels would separate.
    pub fn stacked(&self, next: &Channels) -> Option<Self> {
        let read_the_same = (self.inputs, self.groups, next.groups) == (next.inputs, 1, 1);
        let outputs = self.outputs.checked_add(next.outputs)?;
        read_the_same.then_some(Channels { outputs, ..*self })
    }

    /// The channels of a kernel with the groups of both kernels, where `next` reads the channels
    /// behind those that `self` reads. Returns `None` if the groups of one are not as wide as
    /// those of the other.
    pub fn beside(&self, next: &Channels) -> Option<Self> {
        let both = Channels {
            inputs: self.inputs.checked_add(next.inputs)?,
            outputs: self.outputs.checked_add(next.outputs)?,
            groups: self.groups.checked_add(next.groups)?,
        };
        (self.of_a_group() == next.of_a_group()).then_some(both)
    }

    /// Numbers of inputs and outputs of one group.
    pub fn of_a_group(&self) -> (usize, usize) {
        (self.inputs / self.groups, self.outputs / self.groups)
    }

    /// Channels with as many groups as possible, each a union of groups of `self` and of
    /// `other`.
    pub(super) fn coarsest(&self, other: &Channels, inputs: usize, outputs: usize) -> Self {
        Channels { inputs, outputs, groups: gcd(self.groups, other.groups) }
    }
}

impl Geometry {
    /// The map that changes nothing.
    pub fn identity() -> Self {
        Geometry {
            channels: None,
            windows: Vec::new(),
            kind: ConvKind::Conv,
            input: AxisOrder::CANONICAL,
            output: AxisOrder::CANONICAL,
            shifted: false,
        }
    }

    /// The transposition: axis `i` of its output is axis `axes[i]` of its input.
    pub fn transposition(axes: AxisOrder) -> Self {
        Geometry { input: axes, ..Geometry::identity() }
    }

    /// This map on tensors with their axes in `order`.
    #[must_use]
    pub fn within(self, order: &AxisOrder) -> Self {
        Geometry { input: order.clone(), output: order.clone(), ..self }
    }

    /// The transposition that the map does besides what it computes: axis `i` of its output is
    /// axis `i` in this order of its input. Returns `None` if every axis stays in place.
    pub fn turns(&self) -> Option<AxisOrder> {
        let reach = self.input.reach().max(self.output.reach());
        let roles = self.output.roles(reach);
        let axes: Vec<i64> = roles.iter().map(|&role| self.input.axis(role) as i64).collect();
        AxisOrder::new(&axes).filter(|order| !order.is_canonical())
    }

    /// The window on spatial axis `axis`, where 0 is the first axis after the channels.
    pub fn window(&self, axis: usize) -> Window {
        self.windows.get(axis).copied().unwrap_or(Window::IDENTITY)
    }

    /// Whether each output is one of the inputs times a number.
    pub fn is_scale(&self) -> bool {
        let apart = |channels: Channels| channels == Channels::diagonal(channels.outputs);
        self.windows.iter().all(|window| window.taps == 1) && self.channels.is_none_or(apart)
    }

    /// Whether each output position depends on the same input position only.
    pub fn is_pointwise(&self) -> bool {
        self.windows.iter().all(|window| *window == Window::IDENTITY)
    }

    /// The least rank of the input and output tensors: batch, channels, and an axis per window.
    pub fn rank(&self) -> usize {
        self.windows.len() + 2
    }

    /// The number of weights, without the bias; an `f64`, so that nothing overflows.
    pub fn weights(&self) -> f64 {
        let taps: f64 = self.windows.iter().map(|window| window.taps as f64).product();
        let pairs = self.channels.map_or(1.0, |Channels { inputs, outputs, groups }| {
            outputs as f64 * (inputs / groups) as f64
        });
        taps * pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affine::linear::Linear;
    use crate::affine::refusal::Refusal;

    fn shape(channels: (usize, usize, usize), taps: i64, pad: i64, shifted: bool) -> Geometry {
        let (inputs, outputs, groups) = channels;
        Geometry {
            channels: Some(Channels { inputs, outputs, groups }),
            windows: vec![Window::new(taps, 1, 1, (pad, pad)).unwrap(); 2],
            shifted,
            ..Geometry::identity()
        }
    }

    #[test]
    fn an_identity_joins_a_square_kernel() {
        let square = shape((8, 8, 2), 3, 1, false);
        assert_eq!(square.clone().plus(&Geometry::identity(), &[]).unwrap(), square);
        let wide = shape((4, 8, 1), 3, 1, false);
        assert_eq!(wide.plus(&Geometry::identity(), &[]), Err(Refusal::Channels(8, 4)));
    }

    #[test]
    fn groups_become_as_coarse_as_needed() {
        let merged = shape((12, 12, 4), 1, 0, false).plus(&shape((12, 12, 6), 1, 0, false), &[]);
        assert_eq!(merged.unwrap().channels.unwrap().groups, 2);
    }

    #[test]
    fn a_bias_does_not_pass_a_border() {
        let outer = shape((4, 4, 1), 3, 1, false);
        assert!(outer.after(&shape((4, 4, 1), 1, 0, false)).is_ok());
        assert_eq!(outer.after(&shape((4, 4, 1), 1, 0, true)), Err(Refusal::BiasAtBorder(0)));
    }

    #[test]
    fn transpositions_cancel_and_pass_through_what_they_do_not_touch() {
        let order = |axes: &[i64]| AxisOrder::new(axes).unwrap();
        let (into, back) = (order(&[0, 3, 1, 2]), order(&[0, 2, 3, 1]));
        let (into, back) = (Geometry::transposition(into), Geometry::transposition(back));
        let both = into.after(&back).unwrap();
        assert_eq!(both.input, both.output);
        let square = shape((8, 8, 1), 3, 1, false);
        let sandwich = back.after(&square.after(&into).unwrap()).unwrap();
        assert_eq!(sandwich, square.clone().within(&order(&[0, 3, 1, 2])));
        // A residual joins in the layout of the tensor that both maps read.
        assert_eq!(sandwich.clone().plus(&Geometry::identity(), &[]).unwrap(), sandwich);
        assert_eq!(into.plus(&Geometry::identity(), &[]), Err(Refusal::Axes));
        assert_eq!(square.plus(&sandwich, &[]), Err(Refusal::Axes));
    }

    #[test]
    fn a_transposed_kernel_is_a_kernel() {
        let turn = Geometry::transposition(AxisOrder::new(&[0, 1, 3, 2]).unwrap());
        let tall = Geometry {
            windows: vec![Window::new(3, 1, 1, (1, 1)).unwrap(), Window::IDENTITY],
            ..shape((4, 4, 1), 1, 0, false)
        };
        let turned = turn.after(&tall.after(&turn).unwrap()).unwrap();
        let wide = Geometry { windows: vec![tall.windows[1], tall.windows[0]], ..tall.clone() };
        assert_eq!(tall.clone().plus(&turned, &[]).unwrap(), tall.plus(&wide, &[]).unwrap());
    }

    /// Channels of two kernels; the channels of both with their rows stacked, if they read the
    /// same channels, and with their groups beside each other, if the second reads those behind
    /// the first's.
    #[test]
    fn rows_of_two_kernels_are_stacked_or_stand_in_groups() {
        let of = |(inputs, outputs, groups)| Channels { inputs, outputs, groups };
        for (one, other, stacked, beside) in [
            ((2, 3, 1), (2, 4, 1), Some((2, 7, 1)), None),
            ((2, 3, 1), (2, 3, 1), Some((2, 6, 1)), Some((4, 6, 2))),
            ((2, 3, 1), (3, 3, 1), None, None),
            ((4, 2, 2), (4, 2, 2), None, Some((8, 4, 4))),
            ((4, 2, 2), (2, 1, 1), None, Some((6, 3, 3))),
        ] {
            let (one, other) = (of(one), of(other));
            assert_eq!(one.stacked(&other), stacked.map(of), "{one:?} {other:?}");
            assert_eq!(one.beside(&other), beside.map(of), "{one:?} {other:?}");
        }
    }
}
