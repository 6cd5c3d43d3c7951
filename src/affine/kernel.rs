//! Linear maps with weights, and their constructors: convolutions, products, norms, filters.
//!
//! A kernel is kept as a sum of scaled kernels, each as it was given.
//! [`compose`](super::compose) composes and adds such sums, [`rows`](super::rows) multiplies
//! them out.
//!
//! Knows weights and windows; neither where weights are stored, nor which maps fit each other.

#![allow(
    clippy::indexing_slicing,
    reason = "shapes follow from geometries that were checked before weights are read"
)]

use std::sync::Arc;

use ndarray::{ArrayD, Axis};

use crate::affine::axes::AxisOrder;
use crate::affine::geometry::{Channels, ConvKind, Geometry};
use crate::affine::picked::Picks;
use crate::affine::window::Window;
use crate::numbers::LazyWeights;

/// A convolution with bias in float64: kernel `[O, C/groups, taps…]`, bias `[O]` (Eq. 1 and 2).
///
/// Where the geometry's channels are `None`, the kernel is `[1, 1, taps…]` and serves every
/// channel, and the bias has one element.
///
/// Whoever constructs one must make sure that shapes fit. They are not checked here, and reading
/// a kernel whose shape differs from what its windows and groups say panics or gives wrong
/// weights.
#[derive(Debug, Clone)]
pub struct Affine {
    pub(super) geometry: Geometry,
    pub(super) summands: Vec<Summand>,
    pub(super) bias: Vec<f64>,
}

/// One summand of a kernel: a scaled kernel with channels and windows of its own.
#[derive(Debug, Clone)]
pub(super) struct Summand {
    pub(super) weights: Arc<dyn LazyWeights>,
    /// Where it falls; a summand has no bias.
    pub(super) geometry: Geometry,
    /// One factor per output of the sum, or one for all.
    pub(super) scale: Vec<f64>,
}

/// Scale `γ/σ` and shift `β − μ·γ/σ` of a batch norm, with `σ = √(var + ε)` (Eq. 2), for
/// [`Affine::diagonal`]. All slices have one element per channel; if their lengths differ, the
/// shortest counts.
pub fn batch_norm(
    gamma: &[f64],
    beta: &[f64],
    mean: &[f64],
    var: &[f64],
    epsilon: f64,
) -> (Vec<f64>, Vec<f64>) {
    let scale: Vec<f64> =
        gamma.iter().zip(var).map(|(gamma, var)| gamma / (var + epsilon).sqrt()).collect();
    let shift = scale.iter().zip(beta).zip(mean).map(|((s, beta), mean)| beta - mean * s).collect();
    (scale, shift)
}

impl Affine {
    /// A convolution with kernel `[O, C/groups, taps…]`, where `groups` divides `O`, and one
    /// window per spatial axis of the kernel, with as many taps. An empty `bias` is zero, others
    /// are `[O]`.
    pub fn conv(kernel: ArrayD<f64>, bias: &[f64], windows: Vec<Window>, groups: usize) -> Self {
        let (outputs, inputs) = (kernel.len_of(Axis(0)), kernel.len_of(Axis(1)));
        Self::stored_conv(in_a_row(kernel), [outputs, inputs], bias, windows, groups)
    }

    /// As [`Self::conv`], with `kernel` as it is stored: `[outputs, width, taps…]`,
    /// `width = C/groups`, the last axis fastest.
    pub fn stored_conv(
        kernel: Arc<dyn LazyWeights>,
        [outputs, width]: [usize; 2],
        bias: &[f64],
        windows: Vec<Window>,
        groups: usize,
    ) -> Self {
        let channels = Some(Channels { inputs: width * groups, outputs, groups });
        let bias = if bias.is_empty() { vec![0.0; outputs] } else { bias.to_vec() };
        Self::new(Geometry { channels, windows, ..Geometry::identity() }, kernel, bias)
    }

    /// A transposed convolution with kernel `[C, O/groups, taps…]`, where `groups` divides `C`,
    /// and windows made by [`Window::scattered`]. An empty `bias` is zero, others are `[O]`.
    pub fn transposed_conv(
        kernel: ArrayD<f64>,
        bias: &[f64],
        windows: Vec<Window>,
        groups: usize,
    ) -> Self {
        let affine = Self::conv(exchange_channels(kernel, groups), bias, windows, groups);
        affine.of_kind(ConvKind::ConvTranspose)
    }

    /// A transposed convolution of stride 1 as the equivalent convolution, with windows made by
    /// [`Window::gathered`]: its kernel `[C, O/groups, taps…]`, as in [`Self::transposed_conv`],
    /// is read from its last tap to its first.
    pub fn gathered_conv(
        mut kernel: ArrayD<f64>,
        bias: &[f64],
        windows: Vec<Window>,
        groups: usize,
    ) -> Self {
        (2..kernel.ndim()).for_each(|axis| kernel.invert_axis(Axis(axis)));
        // The flipped array lies backwards in memory.
        let kernel = kernel.as_standard_layout().into_owned();
        Self::conv(exchange_channels(kernel, groups), bias, windows, groups)
    }

    /// A matrix product over the channels, with weights `[O, C]` (possibly with further axes of
    /// length 1), on tensors with `axes` spatial axes. An empty `bias` is zero, others are
    /// `[O]`.
    pub fn product(weights: ArrayD<f64>, bias: &[f64], axes: usize) -> Self {
        Self::conv(weights, bias, vec![Window::IDENTITY; axes], 1).of_kind(ConvKind::MatMul)
    }

    fn of_kind(mut self, kind: ConvKind) -> Self {
        self.geometry.kind = kind;
        self.summands.iter_mut().for_each(|summand| summand.geometry.kind = kind);
        self
    }

    /// The map `y = scale·x + shift` per channel: a batch norm (see [`batch_norm`]). Both slices
    /// have one element per channel.
    pub fn diagonal(scale: &[f64], shift: &[f64]) -> Self {
        let channels = Some(Channels::diagonal(scale.len()));
        let geometry = Geometry { channels, ..Geometry::identity() };
        Self::new(geometry, Arc::new(scale.to_vec()), shift.to_vec())
    }

    /// The map that picks channels by their indices: `picks` lists one channel below `of` for
    /// each output.
    pub fn picking(picks: Arc<[usize]>, of: usize) -> Self {
        let outputs = picks.len();
        let channels = Some(Channels { inputs: of, outputs, groups: 1 });
        let geometry = Geometry { channels, ..Geometry::identity() };
        Self::new(geometry, Arc::new(Picks::new(picks, of)), vec![0.0; outputs])
    }

    /// The same kernel on every channel, with one weight for all its taps. Without windows it is
    /// `y = weight·x + shift`; with one tap per axis it pads or crops; with weight 1/taps it is
    /// a mean.
    pub fn filter(windows: Vec<Window>, weight: f64, shift: f64) -> Self {
        let taps = taps(&windows).iter().product();
        let geometry = Geometry { windows, ..Geometry::identity() };
        Self::new(geometry, Arc::new(vec![weight; taps]), vec![shift])
    }

    /// The map that changes nothing.
    pub fn identity() -> Self {
        Self::filter(Vec::new(), 1.0, 0.0)
    }

    /// This map, made for NCHW, between tensors with their axes in these orders.
    #[must_use]
    pub fn between(self, input: AxisOrder, output: AxisOrder) -> Self {
        Affine { geometry: Geometry { input, output, ..self.geometry }, ..self }
    }

    /// This map with its kernel, but not its bias, multiplied by `factor`.
    #[must_use]
    pub fn with_factor(mut self, factor: f64) -> Self {
        let scales = self.summands.iter_mut().flat_map(|summand| &mut summand.scale);
        scales.for_each(|scale| *scale *= factor);
        self
    }

    /// This map plus `shift`, which has one number, or one per output channel.
    #[must_use]
    pub fn shifted(mut self, shift: &[f64]) -> Self {
        let channels = self.bias.len().max(shift.len());
        self.bias.resize(channels, self.bias[0]);
        for (bias, shift) in self.bias.iter_mut().zip(shift.iter().cycle()) {
            *bias += shift;
        }
        Self::sum(self.geometry, self.summands, self.bias)
    }

    pub(super) fn new(geometry: Geometry, kernel: Arc<dyn LazyWeights>, bias: Vec<f64>) -> Self {
        let own = Geometry { shifted: false, ..geometry.clone() };
        let summand = Summand { weights: kernel, geometry: own, scale: vec![1.0] };
        Self::sum(geometry, vec![summand], bias)
    }

    pub(super) fn sum(geometry: Geometry, summands: Vec<Summand>, bias: Vec<f64>) -> Self {
        let shifted = bias.iter().any(|&b| b != 0.0);
        Affine { geometry: Geometry { shifted, ..geometry }, summands, bias }
    }

    pub(super) fn shape(&self) -> Vec<usize> {
        shape(&self.geometry)
    }

    /// The bias: one number per output channel, or one for all if the channels are not counted.
    pub fn bias(&self) -> &[f64] {
        &self.bias
    }

    /// The bias of one output channel.
    pub(super) fn bias_of(&self, output: usize) -> f64 {
        of_channel(&self.bias, output).unwrap_or(0.0)
    }
}

impl Summand {
    /// The factor of output `output` of the sum.
    pub(super) fn scale_of(&self, output: usize) -> f64 {
        of_channel(&self.scale, output).unwrap_or(0.0)
    }

    /// Whether `other` is the same kernel at the same place, up to its factors. `c + c + …`,
    /// doubled 20 times, thus has one summand instead of a million.
    pub(super) fn is_multiple_of(&self, other: &Summand) -> bool {
        Arc::ptr_eq(&self.weights, &other.weights) && self.geometry == other.geometry
    }
}

/// The element of `values` for `channel`, where a single value serves all channels. Returns
/// `None` beyond the end, where no map with fitting shapes reads.
pub fn of_channel(values: &[f64], channel: usize) -> Option<f64> {
    match values {
        [only] => Some(*only),
        values => values.get(channel).copied(),
    }
}

/// The shape of the kernel, `[O, C/groups, taps…]`.
pub(super) fn shape(geometry: &Geometry) -> Vec<usize> {
    let (outputs, width) = match geometry.channels {
        Some(channels) => (channels.outputs, channels.inputs / channels.groups),
        None => (1, 1),
    };
    [&[outputs, width][..], &taps(&geometry.windows)].concat()
}

pub(super) fn taps(windows: &[Window]) -> Vec<usize> {
    windows.iter().map(|window| window.taps as usize).collect()
}

/// The elements of an array in their logical order.
pub(super) fn in_a_row(array: ArrayD<f64>) -> Arc<dyn LazyWeights> {
    Arc::new(array.as_standard_layout().into_owned().into_raw_vec_and_offset().0)
}

/// Rearranges `[A, B/groups, taps…]` into `[B, A/groups, taps…]`.
pub(super) fn exchange_channels(kernel: ArrayD<f64>, groups: usize) -> ArrayD<f64> {
    let (first, second) = (kernel.len_of(Axis(0)), kernel.len_of(Axis(1)));
    let taps = kernel.shape()[2..].to_vec();
    let split = [&[groups, first / groups, second][..], &taps].concat();
    let joined = [&[groups * second, first / groups][..], &taps].concat();
    let mut split = kernel
        .into_shape_with_order(split)
        .unwrap_or_else(|_| unreachable!("the groups divide the channels"));
    split.swap_axes(1, 2);
    split
        .as_standard_layout()
        .into_owned()
        .into_shape_with_order(joined)
        .unwrap_or_else(|_| unreachable!("the number of elements is the same"))
}
