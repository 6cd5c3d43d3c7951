//! A kernel without its weights: channels, groups, and a window per spatial axis.
//!
//! A kernel is written for NCHW; the tensors it reads and makes may have their axes
//! in other orders. Only the place of the channels matters: a convolution does not
//! know the names of its spatial axes, and a pad or crop does not know any.

use crate::affine::window::PadMode;
use crate::affine::{AxisOrder, Linear, Macs, Refusal, Window};

/// How many channels a kernel reads and yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Channels {
    /// Channels of the input, over all groups.
    pub inputs: usize,
    /// Channels of the output, over all groups.
    pub outputs: usize,
    /// Groups; they divide both.
    pub groups: usize,
}

/// On which side the windows fall, if there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConvKind {
    /// Convolution: each output gathers what lies in a window of the input.
    Conv,
    /// Transposed convolution: each input scatters into a window of the output.
    ConvTranspose,
    /// Matrix product: there are no windows, every position is a convolution of its own.
    MatMul,
}

/// The shape of a linear map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// `None`: the same for each channel, however many there are.
    pub channels: Option<Channels>,
    /// One per spatial axis. Axes beyond the list have the identity window, so a
    /// pointwise map fits tensors of every rank.
    pub windows: Vec<Window>,
    /// Which tensor the windows fall on.
    pub kind: ConvKind,
    /// The axes of what it reads.
    pub input: AxisOrder,
    /// The axes of what it makes.
    pub output: AxisOrder,
    /// Whether there is a bias other than zero.
    pub shifted: bool,
}

impl Channels {
    /// Each channel on its own.
    pub fn diagonal(channels: usize) -> Self {
        Channels { inputs: channels, outputs: channels, groups: channels.max(1) }
    }

    fn coarsest(&self, other: &Channels, inputs: usize, outputs: usize) -> Self {
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

    /// The map that only puts its input's axes into another order: axis `i` of its
    /// output is axis `axes[i]` of its input.
    pub fn transposition(axes: AxisOrder) -> Self {
        Geometry { input: axes, ..Geometry::identity() }
    }

    /// This map between tensors with their axes in `order`.
    #[must_use]
    pub fn within(self, order: &AxisOrder) -> Self {
        Geometry { input: order.clone(), output: order.clone(), ..self }
    }

    /// The window on spatial axis `axis`.
    pub fn window(&self, axis: usize) -> Window {
        self.windows.get(axis).copied().unwrap_or(Window::IDENTITY)
    }

    /// How many axes the tensors have that it reads and makes, at least.
    pub fn rank(&self) -> usize {
        self.windows.len() + 2
    }

    /// The number of weights; as `f64`, where nothing overflows.
    pub fn weights(&self) -> f64 {
        let taps: f64 = self.windows.iter().map(|window| window.taps as f64).product();
        let pairs = self.channels.map_or(1.0, |Channels { inputs, outputs, groups }| {
            outputs as f64 * (inputs / groups) as f64
        });
        taps * pairs
    }

    /// Multiply-adds, per output position.
    pub fn work(&self) -> Macs {
        let strides = self.windows.iter().map(|window| window.stride as f64);
        Macs::each(match self.kind {
            ConvKind::Conv | ConvKind::MatMul => self.weights(),
            ConvKind::ConvTranspose => self.weights() / strides.product::<f64>(),
        })
    }

    fn is_pointwise(&self) -> bool {
        self.windows.iter().all(|window| *window == Window::IDENTITY)
    }

    /// The kind of a map that is made of this one and `other`. A product stays one with
    /// what works on single channels.
    fn joint_sense(&self, other: &Geometry) -> ConvKind {
        let joins = |map: &Geometry| map.kind == ConvKind::MatMul || map.windows.is_empty();
        match (self.kind, other.kind) {
            (ConvKind::ConvTranspose, _) | (_, ConvKind::ConvTranspose) => ConvKind::ConvTranspose,
            (ConvKind::Conv, ConvKind::Conv) => ConvKind::Conv,
            _ if joins(self) && joins(other) => ConvKind::MatMul,
            _ => ConvKind::Conv,
        }
    }

    fn composed_window(&self, inner: &Geometry, axis: usize) -> Result<Window, Refusal> {
        let (outer, inner_window) = (self.window(axis), inner.window(axis));
        match (self.kind, inner.kind) {
            (ConvKind::Conv | ConvKind::MatMul, ConvKind::Conv | ConvKind::MatMul) => {
                outer.after(&inner_window, axis)
            }
            (ConvKind::Conv | ConvKind::MatMul, ConvKind::ConvTranspose) => {
                outer.frame_of_scattered(&inner_window, axis)
            }
            // Scattered, a bias would reach the border less often than the middle.
            (ConvKind::ConvTranspose, ConvKind::ConvTranspose) => Err(Refusal::Senses),
            (ConvKind::ConvTranspose, _) if !inner.is_pointwise() => Err(Refusal::Senses),
            (ConvKind::ConvTranspose, _) if inner.shifted => Err(Refusal::BiasAtBorder(axis)),
            (ConvKind::ConvTranspose, _) => Ok(outer),
        }
    }

    fn window_of_role(&self, role: usize) -> Window {
        role.checked_sub(2).map_or(Window::IDENTITY, |axis| self.window(axis))
    }

    /// How to permute the map so that the end of it that now has the order `own` has
    /// the order `wanted`, for [`Linear::permuted`].
    pub(super) fn roles_for(
        &self,
        own: &AxisOrder,
        wanted: &AxisOrder,
    ) -> Result<Vec<usize>, Refusal> {
        let orders = [own, wanted, &self.input, &self.output].map(AxisOrder::reach);
        let roles = orders.into_iter().fold(self.windows.len() + 2, usize::max);
        let roles: Vec<usize> = (0..roles).map(|role| own.role(wanted.axis(role))).collect();
        let is_free = |role: &usize| self.window_of_role(*role) == Window::IDENTITY;
        match (self.channels, roles.as_slice()) {
            (Some(_), [batch, 1, ..]) if is_free(batch) => Ok(roles),
            (None, [batch, channel, ..]) if is_free(batch) && is_free(channel) => Ok(roles),
            _ => Err(Refusal::Axes),
        }
    }

    fn axes(&self, other: &Geometry) -> std::ops::Range<usize> {
        0..self.windows.len().max(other.windows.len())
    }
}

impl Linear for Geometry {
    fn geometry(&self) -> &Geometry {
        self
    }

    fn composed(&self, inner: &Self) -> Result<Self, Refusal> {
        let channels = match (self.channels, inner.channels) {
            (Some(outer), Some(inner)) => {
                if outer.inputs != inner.outputs {
                    return Err(Refusal::Channels(inner.outputs, outer.inputs));
                }
                Some(outer.coarsest(&inner, inner.inputs, outer.outputs))
            }
            (outer, inner) => outer.or(inner),
        };
        let windows = self
            .axes(inner)
            .map(|axis| {
                let outer = self.window(axis);
                // Conv 1×1 with bias, then a padded 3×3: the pad is 0, not the bias.
                let padded = self.kind != ConvKind::ConvTranspose && outer.is_padded();
                if inner.shifted && padded && outer.border == PadMode::Zero {
                    return Err(Refusal::BiasAtBorder(axis));
                }
                self.composed_window(inner, axis)
            })
            .collect::<Result<_, _>>()?;
        Ok(Geometry {
            channels,
            windows,
            kind: self.joint_sense(inner),
            input: inner.input.clone(),
            output: self.output.clone(),
            shifted: self.shifted || inner.shifted,
        })
    }

    fn added(self, other: &Self, shape: &[Option<i64>]) -> Result<Self, Refusal> {
        if self.output != other.output {
            return Err(Refusal::Axes);
        }
        if (self.kind == ConvKind::ConvTranspose) != (other.kind == ConvKind::ConvTranspose) {
            return Err(Refusal::Senses);
        }
        let channels = match (self.channels, other.channels) {
            (Some(a), Some(b)) => {
                // [N,8,H,W] + [N,1,H,W] broadcasts.
                if a.outputs != b.outputs {
                    return Err(Refusal::Channels(a.outputs, b.outputs));
                }
                if a.inputs != b.inputs {
                    return Err(Refusal::Channels(a.inputs, b.inputs));
                }
                Some(a.coarsest(&b, a.inputs, a.outputs))
            }
            // Per channel on one side: x + conv(x) needs as many outputs as inputs.
            (Some(a), None) | (None, Some(a)) => {
                if a.outputs != a.inputs {
                    return Err(Refusal::Channels(a.outputs, a.inputs));
                }
                Some(a)
            }
            (None, None) => None,
        };
        let windows = self
            .axes(other)
            .map(|axis| {
                // Outputs of transposed convolutions differ in number or do not, for all sizes.
                let size = match self.kind {
                    ConvKind::Conv | ConvKind::MatMul => {
                        shape.get(self.input.axis(axis + 2)).copied().flatten()
                    }
                    ConvKind::ConvTranspose => None,
                };
                self.window(axis).union(&other.window(axis), size, axis)
            })
            .collect::<Result<_, _>>()?;
        let (kind, shifted) = (self.joint_sense(other), self.shifted || other.shifted);
        Ok(Geometry { channels, windows, kind, shifted, ..self })
    }

    fn permuted(&self, roles: &[usize]) -> Self {
        let order = |own: &AxisOrder| {
            let axes: Vec<i64> = roles.iter().map(|&role| own.axis(role) as i64).collect();
            AxisOrder::new(&axes).unwrap_or_else(|| unreachable!("roles reach all axes"))
        };
        let windows = match self.windows.as_slice() {
            [] => Vec::new(),
            _ => roles.iter().skip(2).map(|&role| self.window_of_role(role)).collect(),
        };
        Geometry { windows, input: order(&self.input), output: order(&self.output), ..self.clone() }
    }

    fn negated(self) -> Self {
        self
    }

    fn unshifted(self) -> Self {
        Geometry { shifted: false, ..self }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(channels: (usize, usize, usize), taps: i64, pad: i64, shifted: bool) -> Geometry {
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
        let square = conv((8, 8, 2), 3, 1, false);
        assert_eq!(square.clone().plus(&Geometry::identity(), &[]).unwrap(), square);
        let wide = conv((4, 8, 1), 3, 1, false);
        assert_eq!(wide.plus(&Geometry::identity(), &[]), Err(Refusal::Channels(8, 4)));
    }

    #[test]
    fn groups_become_as_coarse_as_needed() {
        let merged = conv((12, 12, 4), 1, 0, false).plus(&conv((12, 12, 6), 1, 0, false), &[]);
        assert_eq!(merged.unwrap().channels.unwrap().groups, 2);
    }

    #[test]
    fn a_bias_does_not_pass_a_border() {
        let outer = conv((4, 4, 1), 3, 1, false);
        assert!(outer.after(&conv((4, 4, 1), 1, 0, false)).is_ok());
        assert_eq!(outer.after(&conv((4, 4, 1), 1, 0, true)), Err(Refusal::BiasAtBorder(0)));
    }
    #[test]
    fn transpositions_cancel_and_pass_through_what_they_do_not_touch() {
        let order = |axes: &[i64]| AxisOrder::new(axes).unwrap();
        let (into, back) = (order(&[0, 3, 1, 2]), order(&[0, 2, 3, 1]));
        let (into, back) = (Geometry::transposition(into), Geometry::transposition(back));
        let both = into.after(&back).unwrap();
        assert_eq!(both.input, both.output);
        let square = conv((8, 8, 1), 3, 1, false);
        let sandwich = back.after(&square.after(&into).unwrap()).unwrap();
        assert_eq!(sandwich, square.clone().within(&order(&[0, 3, 1, 2])));
        // A residual joins in the layout of the tensor that both read.
        assert_eq!(sandwich.clone().plus(&Geometry::identity(), &[]).unwrap(), sandwich);
        assert_eq!(into.plus(&Geometry::identity(), &[]), Err(Refusal::Axes));
        assert_eq!(square.plus(&sandwich, &[]), Err(Refusal::Axes));
    }

    #[test]
    fn a_transposed_kernel_is_a_kernel() {
        let turn = Geometry::transposition(AxisOrder::new(&[0, 1, 3, 2]).unwrap());
        let tall = Geometry {
            windows: vec![Window::new(3, 1, 1, (1, 1)).unwrap(), Window::IDENTITY],
            ..conv((4, 4, 1), 1, 0, false)
        };
        let turned = turn.after(&tall.after(&turn).unwrap()).unwrap();
        let wide = Geometry { windows: vec![tall.windows[1], tall.windows[0]], ..tall.clone() };
        assert_eq!(tall.clone().plus(&turned, &[]).unwrap(), tall.plus(&wide, &[]).unwrap());
    }
}
