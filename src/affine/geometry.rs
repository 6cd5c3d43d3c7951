//! A kernel without its weights: channels, groups, and a window per spatial axis.
//!
//! Knows sizes and positions; what may be composed and added is said in
//! [`linear`](super::linear).
//!
//! A kernel is written for NCHW; the tensors it reads and makes may have their axes
//! in other orders. Only the place of the channels matters: a convolution does not
//! know the names of its spatial axes, and a pad or crop does not know any.

use crate::affine::axes::AxisOrder;
use crate::affine::window::{Window, gcd};

/// How many channels a kernel reads and yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Channels {
    /// Channels of the input, over all groups.
    pub inputs: usize,
    /// Channels of the output, over all groups.
    pub outputs: usize,
    /// Groups; they divide inputs and outputs.
    pub groups: usize,
}

/// On which side the windows fall, if there are windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConvKind {
    /// Convolution: each output gathers what lies in a window of the input.
    Conv,
    /// Transposed convolution: each input scatters into a window of the output.
    ConvTranspose,
    /// Matrix product: every position is a convolution of its own. Its windows have one tap, and
    /// at most pad or crop.
    MatMul,
}

/// A linear map without its weights, whose kernel would be `[outputs, inputs / groups, taps…]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// `None`: the same map for each channel, however many there are.
    pub channels: Option<Channels>,
    /// One per spatial axis. Axes beyond the list have the identity window, so a
    /// pointwise map fits tensors of every rank.
    pub windows: Vec<Window>,
    /// Which tensor the windows fall on, input or output.
    pub kind: ConvKind,
    /// The axes of what it reads.
    pub input: AxisOrder,
    /// The axes of what it makes.
    pub output: AxisOrder,
    /// Whether there is a bias other than zero.
    pub shifted: bool,
}

impl Channels {
    /// Each of so many channels on its own.
    pub fn diagonal(channels: usize) -> Self {
        Channels { inputs: channels, outputs: channels, groups: channels.max(1) }
    }

    /// With the groups that are groups of both.
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

    /// The order into which it puts axes, besides what it computes: axis `i` of its output is
    /// axis `i` in this order of its input. `None` if it leaves them where they are.
    pub fn turns(&self) -> Option<AxisOrder> {
        let reach = self.input.reach().max(self.output.reach());
        let roles = self.output.roles(reach);
        let axes: Vec<i64> = roles.iter().map(|&role| self.input.axis(role) as i64).collect();
        AxisOrder::new(&axes).filter(|order| !order.is_canonical())
    }

    /// The window on spatial axis `axis`, of which 0 is the first after the channels.
    pub fn window(&self, axis: usize) -> Window {
        self.windows.get(axis).copied().unwrap_or(Window::IDENTITY)
    }

    /// Whether each output is one number times one of the inputs.
    pub(super) fn is_scale(&self) -> bool {
        let apart = |channels: Channels| channels == Channels::diagonal(channels.outputs);
        self.windows.iter().all(|window| window.taps == 1) && self.channels.is_none_or(apart)
    }

    /// Whether each position is computed of the same position alone.
    pub fn is_pointwise(&self) -> bool {
        self.windows.iter().all(|window| *window == Window::IDENTITY)
    }

    /// How many axes the tensors have that it reads and makes, at least: batch, channels, and
    /// an axis per window.
    pub fn rank(&self) -> usize {
        self.windows.len() + 2
    }

    /// The number of weights, without the bias; as `f64`, where nothing overflows.
    pub fn weights(&self) -> f64 {
        let taps: f64 = self.windows.iter().map(|window| window.taps as f64).product();
        let pairs = self.channels.map_or(1.0, |Channels { inputs, outputs, groups }| {
            outputs as f64 * (inputs / groups) as f64
        });
        taps * pairs
    }
}
