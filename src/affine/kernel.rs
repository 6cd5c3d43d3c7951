//! Linear maps with weights: the paper's two fusions, in float64.
//!
//! A kernel is kept as a sum of scaled kernels, each as it was read: a batch norm only
//! multiplies the scales (Eq. 2), ⊕ only lengthens the sum (Eq. 3). It is multiplied out
//! row by row when it is read, which takes one pass over the old weights and no memory.

#![allow(
    clippy::indexing_slicing,
    reason = "shapes follow from geometries that were checked before weights are read"
)]

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array2, ArrayD, Axis, IxDyn};

use crate::affine::{
    AxisOrder, Channels, Comparison, ConvKind, Geometry, Linear, Magnitude, Refusal, Window,
};
use crate::numbers::{self, LazyWeights};

/// A convolution with bias: kernel `[O, C/groups, taps…]`, bias `[O]`.
///
/// Where the geometry's channels are `None`, the kernel is `[1, 1, taps…]` and
/// serves every channel, and the bias has one element.
#[derive(Debug, Clone)]
pub struct Affine {
    geometry: Geometry,
    terms: Vec<Summand>,
    bias: Vec<f64>,
}

/// One summand of a kernel: a kernel with channels and windows of its own, scaled.
#[derive(Debug, Clone)]
struct Summand {
    numbers: Arc<dyn LazyWeights>,
    /// Where it falls; its bias is none.
    geometry: Geometry,
    /// One factor per output of the sum, or one for all.
    scale: Vec<f64>,
}

/// Scale `γ/σ` and shift `β − μ·γ/σ` of a batch norm, with `σ = √(var + ε)`
/// (paper, Eq. 2). All vectors have one element per channel.
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
    /// A convolution with kernel `[O, C/groups, taps…]`; the kernel's spatial shape
    /// and `windows` agree. An empty `bias` is zero.
    pub fn conv(kernel: ArrayD<f64>, bias: &[f64], windows: Vec<Window>, groups: usize) -> Self {
        let (outputs, inputs) = (kernel.len_of(Axis(0)), kernel.len_of(Axis(1)));
        Self::stored_conv(in_a_row(kernel), [outputs, inputs], bias, windows, groups)
    }

    /// The same of `[O, C/groups]` kernels that stay where they are.
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

    /// A transposed convolution with kernel `[C, O/groups, taps…]`; an empty `bias` is zero.
    pub fn transposed_conv(
        kernel: ArrayD<f64>,
        bias: &[f64],
        windows: Vec<Window>,
        groups: usize,
    ) -> Self {
        let affine = Self::conv(exchange_channels(kernel, groups), bias, windows, groups);
        affine.in_sense(ConvKind::ConvTranspose)
    }

    /// A matrix product with weights `[O, C]`, on tensors with so many spatial `axes`; an
    /// empty `bias` is zero.
    pub fn product(weights: ArrayD<f64>, bias: &[f64], axes: usize) -> Self {
        Self::conv(weights, bias, vec![Window::IDENTITY; axes], 1).in_sense(ConvKind::MatMul)
    }

    fn in_sense(mut self, kind: ConvKind) -> Self {
        self.geometry.kind = kind;
        self.terms.iter_mut().for_each(|term| term.geometry.kind = kind);
        self
    }

    /// The shape of the weights as the operator stores them: `[O, C/groups, taps…]`, or, if
    /// the convolution is transposed, `[C, O/groups, taps…]`.
    pub fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.shape();
        if let (ConvKind::ConvTranspose, Some(channels)) =
            (self.geometry.kind, self.geometry.channels)
        {
            shape[0] = channels.inputs;
            shape[1] = channels.outputs / channels.groups;
        }
        shape
    }

    /// The weights in that order.
    pub fn stored_kernel(self) -> Arc<dyn LazyWeights> {
        let groups = self.geometry.channels.map_or(1, |channels| channels.groups);
        match self.geometry.kind {
            ConvKind::Conv | ConvKind::MatMul => Arc::new(self),
            ConvKind::ConvTranspose => in_a_row(exchange_channels(self.kernel(), groups)),
        }
    }

    /// `y = scale·x + shift`, per channel.
    pub fn diagonal(scale: &[f64], shift: &[f64]) -> Self {
        let channels = Some(Channels::diagonal(scale.len()));
        let geometry = Geometry { channels, ..Geometry::identity() };
        Self::new(geometry, Arc::new(scale.to_vec()), shift.to_vec())
    }

    /// The same kernel on every channel, with one weight for all its taps. Without
    /// windows it is `y = weight·x + shift`; with one tap per axis it pads or crops;
    /// with weight 1/taps it is a mean.
    pub fn filter(windows: Vec<Window>, weight: f64, shift: f64) -> Self {
        let taps = taps(&windows).iter().product();
        let geometry = Geometry { windows, ..Geometry::identity() };
        Self::new(geometry, Arc::new(vec![weight; taps]), vec![shift])
    }

    /// The map that changes nothing.
    pub fn identity() -> Self {
        Self::filter(Vec::new(), 1.0, 0.0)
    }

    /// This map between tensors with their axes in these orders.
    #[must_use]
    pub fn between(self, input: AxisOrder, output: AxisOrder) -> Self {
        Affine { geometry: Geometry { input, output, ..self.geometry }, ..self }
    }

    /// This map plus `shift`, which has one number or one per output channel.
    #[must_use]
    pub fn shifted(mut self, shift: &[f64]) -> Self {
        let channels = self.bias.len().max(shift.len());
        self.bias.resize(channels, self.bias[0]);
        for (bias, shift) in self.bias.iter_mut().zip(shift.iter().cycle()) {
            *bias += shift;
        }
        Self::sum(self.geometry, self.terms, self.bias)
    }

    fn new(geometry: Geometry, kernel: Arc<dyn LazyWeights>, bias: Vec<f64>) -> Self {
        let own = Geometry { shifted: false, ..geometry.clone() };
        let term = Summand { numbers: kernel, geometry: own, scale: vec![1.0] };
        Self::sum(geometry, vec![term], bias)
    }

    fn sum(geometry: Geometry, terms: Vec<Summand>, bias: Vec<f64>) -> Self {
        let shifted = bias.iter().any(|&b| b != 0.0);
        Affine { geometry: Geometry { shifted, ..geometry }, terms, bias }
    }

    fn shape(&self) -> Vec<usize> {
        shape(&self.geometry)
    }

    /// The weights, `[O, C/groups, taps…]`, multiplied out.
    pub fn kernel(&self) -> ArrayD<f64> {
        ArrayD::from_shape_vec(IxDyn(&self.shape()), numbers::all(self))
            .unwrap_or_else(|_| unreachable!("as many as the shape says"))
    }

    /// How large its weights are, and those of the largest kernel that it is a sum of, the
    /// first of several: one that mixes channels, if there is one.
    pub fn compared(&self) -> Option<Comparison> {
        let weights = |term: &Summand| (term.geometry.channels.is_some(), term.geometry.weights());
        let larger = |a: &Summand, b: &Summand| weights(a) >= weights(b);
        let largest = self.terms.iter().reduce(|a, b| if larger(a, b) { a } else { b })?;
        let (before, stored) = match largest.geometry.channels {
            Some(_) => Magnitude::of(&*largest.numbers, &shape(&largest.geometry), &largest.scale),
            // The same for every channel, but for the scale.
            None => {
                let scaled = |scale: &[f64]| {
                    let windows = largest.geometry.windows.clone();
                    let geometry = Geometry { windows, ..self.geometry.clone() };
                    let term = Summand { scale: scale.to_vec(), ..largest.clone() };
                    let alone = Affine { geometry, terms: vec![term], bias: Vec::new() };
                    Magnitude::of(&alone, &alone.shape(), &[1.0])
                };
                (scaled(&largest.scale).0, scaled(&[1.0]).1)
            }
        };
        let (after, _) = Magnitude::of(self, &self.shape(), &[1.0]);
        Some(Comparison { stored, before, after })
    }

    /// One number per output channel.
    pub fn bias(&self) -> &[f64] {
        &self.bias
    }

    /// The bias of one output channel.
    fn bias_of(&self, output: usize) -> f64 {
        one_or_of_all(&self.bias, output)
    }

    /// The same map, written out for `channels` channels and `axes` spatial axes.
    fn spelled_out(&self, channels: usize, axes: usize) -> Self {
        let mut spelled = self.clone();
        spelled.geometry.windows.resize(axes, Window::IDENTITY);
        if self.geometry.channels.is_none() {
            spelled.geometry.channels = Some(Channels::diagonal(channels));
            spelled.bias = vec![self.bias[0]; channels];
        }
        spelled
    }

    /// Per channel the only factor, if each output is its own channel at one position,
    /// scaled; one for all channels if they are not counted.
    fn factors(&self) -> Option<Vec<f64>> {
        let alone = self.geometry.windows.iter().all(|window| window.taps == 1);
        let apart = self
            .geometry
            .channels
            .is_none_or(|channels| channels == Channels::diagonal(channels.outputs));
        (alone && apart).then(|| numbers::all(self))
    }

    /// `self ∘ inner` where one of both only scales, pads or crops: the other's kernels
    /// stay, scaled and elsewhere. `None` if neither does.
    fn scaled(&self, inner: &Self, geometry: &Geometry) -> Option<Self> {
        let scale = |term: &Summand, factors: &[f64]| -> Vec<f64> {
            let count = term.scale.len().max(factors.len());
            let both = term.scale.iter().cycle().zip(factors.iter().cycle());
            both.take(count).map(|(scale, factor)| scale * factor).collect()
        };
        let moved = |term: &Summand, factors: &[f64], windows: Result<Geometry, Refusal>| {
            let windows = windows.ok()?.windows;
            let geometry = Geometry { windows, ..term.geometry.clone() };
            Some(Summand { numbers: term.numbers.clone(), geometry, scale: scale(term, factors) })
        };
        let anywhere = |map: &Geometry| Geometry { channels: None, shifted: false, ..map.clone() };
        let (outside, inside) = (anywhere(&self.geometry), anywhere(&inner.geometry));
        if let Some(factors) = self.factors() {
            let terms = inner
                .terms
                .iter()
                .map(|term| moved(term, &factors, outside.composed(&anywhere(&term.geometry))));
            let terms = terms.collect::<Option<_>>()?;
            let count = factors.len().max(inner.bias.len());
            let factor = |output| one_or_of_all(&factors, output);
            let bias = (0..count).map(|o| self.bias_of(o) + factor(o) * inner.bias_of(o));
            return Some(Self::sum(geometry.clone(), terms, bias.collect()));
        }
        let factors = inner.factors().filter(|factors| factors.len() == 1)?;
        if inner.geometry.channels.is_some() || inner.bias_of(0) != 0.0 {
            return None;
        }
        let terms = self
            .terms
            .iter()
            .map(|term| moved(term, &factors, anywhere(&term.geometry).composed(&inside)));
        Some(Self::sum(geometry.clone(), terms.collect::<Option<_>>()?, self.bias.clone()))
    }

    /// The kernel and bias of `self ∘ inner`, multiplied out.
    fn multiplied(&self, inner: &Self, geometry: &Geometry) -> (Vec<f64>, Vec<f64>) {
        let between = match (self.geometry.channels, inner.geometry.channels) {
            (Some(outer), _) => outer.inputs,
            (None, Some(inner)) => inner.outputs,
            (None, None) => 1,
        };
        let axes = geometry.windows.len();
        let (outer, inner) = (self.spelled_out(between, axes), inner.spelled_out(between, axes));
        let channels = geometry.channels.unwrap_or(Channels::diagonal(1));
        let (Some(first), Some(second)) = (inner.geometry.channels, outer.geometry.channels) else {
            unreachable!("both are spelled out")
        };
        let places = composed_places(&geometry.windows, &outer.geometry, &inner.geometry);
        let width = channels.inputs / channels.groups;
        let (outer_taps, inner_taps) = (places.nrows(), places.ncols());
        let all_taps: usize = taps(&geometry.windows).iter().product();
        let (outer_flat, inner_flat) = (numbers::all(&outer), numbers::all(&inner));
        let outer_width = second.inputs / second.groups;
        let inner_width = first.inputs / first.groups;
        let mut kernel = vec![0.0; channels.outputs * width * all_taps];
        let mut bias = outer.bias.clone();
        for output in 0..channels.outputs {
            let row = &mut kernel[output * width * all_taps..][..width * all_taps];
            let first_between = output / (second.outputs / second.groups) * outer_width;
            for relative in 0..outer_width {
                let middle = first_between + relative;
                let weights =
                    &outer_flat[(output * outer_width + relative) * outer_taps..][..outer_taps];
                bias[output] += inner.bias[middle] * weights.iter().sum::<f64>();
                let input = middle / (first.outputs / first.groups) * inner_width % width;
                let row = &mut row[input * all_taps..][..inner_width * all_taps];
                let inner_rows =
                    &inner_flat[middle * inner_width * inner_taps..][..inner_width * inner_taps];
                for (&weight, places) in weights.iter().zip(places.outer_iter()) {
                    for (sums, values) in
                        row.chunks_exact_mut(all_taps).zip(inner_rows.chunks_exact(inner_taps))
                    {
                        for (&value, &place) in values.iter().zip(places) {
                            sums[place] += weight * value;
                        }
                    }
                }
            }
        }
        (kernel, bias)
    }
}

/// Reads the kernel `[O, C/groups, taps…]`, multiplied out.
impl LazyWeights for Affine {
    fn count(&self) -> usize {
        self.shape().iter().product()
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        let whole = self.geometry.channels.unwrap_or(Channels::diagonal(1));
        let terms: Vec<Placed> =
            self.terms.iter().map(|term| Placed::of(term, &self.geometry, whole)).collect();
        let row = self.shape()[1..].iter().product::<usize>().max(1);
        let mut scratch = Vec::new();
        let mut at = start;
        let mut rest = into;
        while !rest.is_empty() {
            let (output, skipped) = (at / row, at % row);
            let (part, behind) = rest.split_at_mut((row - skipped).min(rest.len()));
            part.fill(0.0);
            let within = skipped..skipped + part.len();
            terms.iter().for_each(|term| term.add_row(output, within.clone(), part, &mut scratch));
            at += part.len();
            rest = behind;
        }
    }
}

/// A term, and where its taps fall in the sum's.
struct Placed<'t> {
    term: &'t Summand,
    /// Per own tap, its place among all taps of the sum.
    places: Vec<usize>,
    /// Own channels per group, and how many outputs read the same ones.
    width: usize,
    outputs_per_group: usize,
    /// Channels per group of the sum, and its taps.
    whole_width: usize,
    whole_taps: usize,
}

impl<'t> Placed<'t> {
    fn of(term: &'t Summand, whole: &Geometry, channels: Channels) -> Self {
        let own = term.geometry.channels.unwrap_or(Channels::diagonal(channels.outputs));
        let mut places = vec![0];
        for (axis, window) in whole.windows.iter().enumerate() {
            let part = term.geometry.window(axis);
            let (first, spacing) = window.place(&part);
            let (taps, own_taps) = (window.taps as usize, part.taps as usize);
            let along = |place: &usize| {
                let base = place * taps + first;
                (0..own_taps).map(move |tap| base + tap * spacing)
            };
            places = places.iter().flat_map(along).collect();
        }
        Placed {
            term,
            places,
            width: own.inputs / own.groups,
            outputs_per_group: own.outputs / own.groups,
            whole_width: channels.inputs / channels.groups,
            whole_taps: taps(&whole.windows).iter().product(),
        }
    }

    /// Adds the term's numbers to what of row `output` lies `within`: one operand of ⊕.
    fn add_row(
        &self,
        output: usize,
        within: Range<usize>,
        row: &mut [f64],
        scratch: &mut Vec<f64>,
    ) {
        // Group g of the term reads channels g·width…; the sum counts from its own group's
        // first.
        let input = output / self.outputs_per_group * self.width;
        let first = input % self.whole_width * self.whole_taps;
        let own_taps = self.places.len();
        let reach = first..first + self.width * self.whole_taps;
        let (begin, end) = (within.start.max(reach.start), within.end.min(reach.end));
        if begin >= end {
            return;
        }
        // The channels that the range touches.
        let channels = (begin - first) / self.whole_taps..(end - first).div_ceil(self.whole_taps);
        let own_row = if self.term.geometry.channels.is_none() { 0 } else { output };
        scratch.resize(channels.len() * own_taps, 0.0);
        let start = (own_row * self.width + channels.start) * own_taps;
        self.term.numbers.read(start, scratch);
        let scale = one_or_of_all(&self.term.scale, output);
        let begins_at = first + channels.start * self.whole_taps;
        let is_whole =
            begins_at >= within.start && begins_at + channels.len() * self.whole_taps <= within.end;
        if is_whole {
            let row = &mut row[begins_at - within.start..][..channels.len() * self.whole_taps];
            self.add(scale, scratch, row);
        } else {
            // The range begins or ends inside a channel.
            let mut whole = vec![0.0; channels.len() * self.whole_taps];
            self.add(scale, scratch, &mut whole);
            let part = &whole[begin - begins_at..end - begins_at];
            let row = &mut row[begin - within.start..end - within.start];
            row.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
    }

    /// `row[c, place(t)] += scale · values[c, t]`.
    fn add(&self, scale: f64, values: &[f64], row: &mut [f64]) {
        if self.places.len() == self.whole_taps {
            row.iter_mut().zip(values).for_each(|(sum, value)| *sum += scale * value);
            return;
        }
        let own = values.chunks_exact(self.places.len());
        for (sums, values) in row.chunks_exact_mut(self.whole_taps).zip(own) {
            for (&place, value) in self.places.iter().zip(values) {
                sums[place] += scale * value;
            }
        }
    }
}

impl Linear for Affine {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Tap `(t₁, t₂)`: `K[o, c] += Σ_m K₁[o, m, t₁]·K₂[m, c, t₂]`; bias
    /// `b[o] = b₁[o] + Σ_{m,t₁} K₁[o, m, t₁]·b₂[m]`.
    fn composed(&self, inner: &Self) -> Result<Self, Refusal> {
        let geometry = self.geometry.composed(&inner.geometry)?;
        if let Some(scaled) = self.scaled(inner, &geometry) {
            return Ok(scaled);
        }
        let (kernel, bias) = self.multiplied(inner, &geometry);
        Ok(Self::new(geometry, Arc::new(kernel), bias))
    }

    fn added(mut self, other: &Self, input: &[Option<i64>]) -> Result<Self, Refusal> {
        let geometry = self.geometry.clone().added(&other.geometry, input)?;
        let outputs = geometry.channels.map_or(1, |channels| channels.outputs);
        let bias = (0..outputs).map(|output| self.bias_of(output) + other.bias_of(output));
        let bias = bias.collect();
        self.terms.extend(other.terms.iter().cloned());
        Ok(Self::sum(geometry, self.terms, bias))
    }

    fn permuted(&self, roles: &[usize]) -> Self {
        let geometry = self.geometry.permuted(roles);
        if roles.iter().enumerate().all(|(place, &role)| place == role) {
            return Affine { geometry, ..self.clone() };
        }
        let kernel = self.kernel();
        let mut kernel = kernel.view();
        // Taps by role: none along batch and channels.
        let taps = roles.len() + 2;
        kernel.insert_axis_inplace(Axis(2));
        kernel.insert_axis_inplace(Axis(2));
        while kernel.ndim() < taps {
            kernel.insert_axis_inplace(Axis(kernel.ndim()));
        }
        let axes: Vec<usize> =
            [0, 1].into_iter().chain(roles.iter().map(|role| role + 2)).collect();
        let kernel = kernel.permuted_axes(IxDyn(&axes)).to_owned();
        // What is left out has length 1.
        Self::new(geometry, in_a_row(kernel), self.bias.clone())
    }

    fn negated(mut self) -> Self {
        let scales = self.terms.iter_mut().flat_map(|term| &mut term.scale);
        scales.chain(&mut self.bias).for_each(|number| *number = -*number);
        self
    }

    fn unshifted(mut self) -> Self {
        self.bias.fill(0.0);
        self.geometry.shifted = false;
        self
    }
}

/// That of `output`, where there is not one for all outputs.
fn one_or_of_all(numbers: &[f64], output: usize) -> f64 {
    numbers.get(output).or(numbers.first()).copied().unwrap_or(0.0)
}

/// `[O, C/groups, taps…]`.
fn shape(geometry: &Geometry) -> Vec<usize> {
    let (outputs, width) = match geometry.channels {
        Some(channels) => (channels.outputs, channels.inputs / channels.groups),
        None => (1, 1),
    };
    [&[outputs, width][..], &taps(&geometry.windows)].concat()
}

fn taps(windows: &[Window]) -> Vec<usize> {
    windows.iter().map(|window| window.taps as usize).collect()
}

/// The elements of an array in their logical order.
fn in_a_row(array: ArrayD<f64>) -> Arc<dyn LazyWeights> {
    Arc::new(array.as_standard_layout().into_owned().into_raw_vec_and_offset().0)
}

/// `[A, B/groups, taps…]` as `[B, A/groups, taps…]`.
fn exchange_channels(kernel: ArrayD<f64>, groups: usize) -> ArrayD<f64> {
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

/// Where tap `(t₁, t₂)` of a composition falls in its kernel: a table of flat
/// indices, a row per tap of `outer` and a column per tap of `inner`.
fn composed_places(composed: &[Window], outer: &Geometry, inner: &Geometry) -> Array2<usize> {
    let mut places = Array2::zeros((1, 1));
    for (axis, window) in composed.iter().enumerate() {
        let (outer, inner) = (outer.window(axis), inner.window(axis));
        let along = |i: usize, j: usize| {
            let reach = i as i64 * outer.dilation * inner.stride + j as i64 * inner.dilation;
            (reach / window.dilation) as usize
        };
        let (rows, columns) = places.dim();
        let (outer_taps, inner_taps) = (outer.taps as usize, inner.taps as usize);
        places =
            Array2::from_shape_fn((rows * outer_taps, columns * inner_taps), |(row, column)| {
                places[[row / outer_taps, column / inner_taps]] * window.taps as usize
                    + along(row % outer_taps, column % inner_taps)
            });
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feature maps `[C, spatial…]`.
    type Map = ArrayD<f64>;

    /// `affine` applied to `x` by the definition of convolution, tap by tap.
    fn naive(affine: &Affine, x: &Map) -> Map {
        let affine = affine.spelled_out(x.shape()[0], x.ndim() - 1);
        let kernel = affine.kernel();
        let Channels { outputs, groups, .. } = affine.geometry.channels.unwrap();
        let windows = &affine.geometry.windows;
        let mut shape = vec![outputs];
        shape.extend(
            windows.iter().zip(&x.shape()[1..]).map(|(w, &n)| w.outputs(n as i64).max(0) as usize),
        );
        ArrayD::from_shape_fn(IxDyn(&shape), |at| {
            let width = kernel.shape()[1];
            let first = at[0] / (outputs / groups) * width;
            let mut sum = affine.bias[at[0]];
            for (tap, weight) in kernel.index_axis(Axis(0), at[0]).indexed_iter() {
                let mut position = vec![first + tap[0]];
                for (axis, window) in windows.iter().enumerate() {
                    let read = at[axis + 1] as i64 * window.stride
                        + window.offset
                        + tap[axis + 1] as i64 * window.dilation;
                    position.push(usize::try_from(read).unwrap_or(usize::MAX));
                }
                sum += weight * x.get(&position[..]).copied().unwrap_or(0.0);
            }
            sum
        })
    }

    /// A transposed convolution by its definition: every input scatters its window.
    fn naive_scatter(affine: &Affine, x: &Map) -> Map {
        let Channels { inputs, outputs, groups } = affine.geometry.channels.unwrap();
        let windows = &affine.geometry.windows;
        let sizes = windows.iter().zip(&x.shape()[1..]);
        let sizes = sizes.map(|(w, &n)| ((n as i64 - 1) * w.stride + w.slack).max(0) as usize);
        let shape: Vec<usize> = std::iter::once(outputs).chain(sizes).collect();
        let mut y = ArrayD::zeros(IxDyn(&shape));
        for (channel, mut plane) in y.outer_iter_mut().enumerate() {
            plane.fill(affine.bias[channel]);
        }
        let stored = ArrayD::from_shape_vec(
            IxDyn(&affine.stored_shape()),
            numbers::all(&*affine.clone().stored_kernel()),
        );
        let stored = stored.unwrap();
        for (at, &value) in x.indexed_iter() {
            for (tap, &weight) in stored.index_axis(Axis(0), at[0]).indexed_iter() {
                let group = at[0] / (inputs / groups);
                let mut position = vec![group * (outputs / groups) + tap[0]];
                for (axis, window) in windows.iter().enumerate() {
                    let (at, tap) = (at[axis + 1] as i64, tap[axis + 1] as i64);
                    let place = at * window.stride + window.offset + tap * window.dilation;
                    position.push(usize::try_from(place).unwrap_or(usize::MAX));
                }
                if let Some(sum) = y.get_mut(&position[..]) {
                    *sum += weight * value;
                }
            }
        }
        y
    }

    fn assert_close(a: &Map, b: &Map) -> Result<(), TestCaseError> {
        prop_assert_eq!(a.shape(), b.shape());
        let largest = a.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (a, b) in a.iter().zip(b) {
            prop_assert!((a - b).abs() <= 1e-12 * largest, "{} is not {}", a, b);
        }
        Ok(())
    }

    fn values(shape: Vec<usize>) -> impl Strategy<Value = Map> {
        let count: usize = shape.iter().product();
        proptest::collection::vec(-2.0..2.0f64, count)
            .prop_map(move |values| ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap())
    }

    fn windows(axes: usize, strides: Vec<i64>) -> impl Strategy<Value = Vec<Window>> {
        let axis = (1..4i64, 1..3i64, -1..3i64, -1..3i64);
        proptest::collection::vec(axis, axes).prop_map(move |axes| {
            let window = |((taps, dilation, begin, end), stride): ((i64, i64, i64, i64), &i64)| {
                Window::new(taps, *stride, dilation, (begin, end)).unwrap()
            };
            axes.into_iter().zip(&strides).map(window).collect()
        })
    }

    /// A convolution with groups from `inputs` to `outputs` channels.
    fn conv(inputs: usize, outputs: usize, strides: Vec<i64>) -> impl Strategy<Value = Affine> {
        let groups = prop_oneof![Just(1), Just(2), Just(4)];
        let biased = proptest::bool::ANY;
        (windows(strides.len(), strides), groups, biased).prop_flat_map(
            move |(windows, groups, biased)| {
                let mut shape = vec![outputs, inputs / groups];
                shape.extend(windows.iter().map(|w| w.taps as usize));
                let bias = values(vec![if biased { outputs } else { 0 }]);
                (values(shape), bias).prop_map(move |(kernel, bias)| {
                    Affine::conv(kernel, bias.as_slice().unwrap(), windows.clone(), groups)
                })
            },
        )
    }

    fn strides() -> impl Strategy<Value = Vec<i64>> {
        proptest::collection::vec(1..4i64, 1..=3)
    }

    fn input(axes: usize) -> impl Strategy<Value = Map> {
        proptest::collection::vec(5..8usize, axes).prop_flat_map(|sizes| {
            let mut shape = vec![4];
            shape.extend(sizes);
            values(shape)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn the_sum_of_kernels_is_the_sum_of_outputs(
            (x, a, mut b) in strides().prop_flat_map(|strides| {
                (input(strides.len()), conv(4, 8, strides.clone()), conv(4, 8, strides))
            })
        ) {
            // Give both as many outputs: the arms of a block do.
            for (mine, theirs) in b.geometry.windows.iter_mut().zip(&a.geometry.windows) {
                mine.slack = theirs.slack;
            }
            let sum = a.clone().plus(&b, &[]).unwrap();
            assert_close(&naive(&sum, &x), &(naive(&a, &x) + naive(&b, &x)))?;
            assert_close(&naive(&b.clone().plus(&a, &[]).unwrap(), &x), &naive(&sum, &x))?;
        }

        #[test]
        fn a_composition_is_one_after_the_other_at_every_size(
            (x, inner, outer) in strides().prop_flat_map(|strides| {
                let axes = strides.len();
                (input(axes), conv(4, 8, strides), conv(8, 4, vec![2; axes]))
            })
        ) {
            let between = naive(&inner, &x);
            prop_assume!(!between.is_empty());
            if let Ok(composed) = outer.after(&inner) {
                assert_close(&naive(&composed, &x), &naive(&outer, &between))?;
            }
        }

        #[test]
        fn norms_frames_and_identities_are_such_maps(
            x in input(2), kernel in conv(4, 4, vec![1, 1]), scale in values(vec![4]),
            shift in values(vec![4]), frame in windows(2, vec![1, 1]),
        ) {
            let norm = Affine::diagonal(scale.as_slice().unwrap(), shift.as_slice().unwrap());
            let scaled = norm.after(&kernel).unwrap();
            let mut expected = naive(&kernel, &x);
            for (mut plane, (s, t)) in expected.outer_iter_mut().zip(scale.iter().zip(&shift)) {
                plane.mapv_inplace(|v| v * s + t);
            }
            assert_close(&naive(&scaled, &x), &expected)?;
            prop_assert_eq!(Affine::identity().after(&kernel).unwrap().kernel(), kernel.kernel());
            prop_assert_eq!(kernel.after(&Affine::identity()).unwrap().kernel(), kernel.kernel());

            let frame = Affine::filter(frame.iter().map(|w| Window { taps: 1, ..*w }).collect(), 1.0, 0.0);
            let framed = naive(&frame, &x);
            if !framed.is_empty() && let Ok(composed) = kernel.after(&frame) {
                assert_close(&naive(&composed, &x), &naive(&kernel, &framed))?;
            }
            let twice = kernel.clone().plus(&kernel, &[]).unwrap();
            let uniform = Affine::filter(vec![], 2.0, 0.0).after(&kernel).unwrap();
            assert_close(&twice.kernel(), &uniform.kernel())?;
            assert_close(&naive(&kernel.clone().negated(), &x), &-naive(&kernel, &x))?;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

        #[test]
        fn permuted_axes_of_a_kernel_are_permuted_axes_of_the_map(
            (x, kernel) in (input(3), conv(4, 8, vec![1, 2, 3]))
        ) {
            // Spatial axes 0, 1, 2 become 2, 0, 1.
            let turned = kernel.permuted(&[0, 1, 3, 4, 2]);
            let axes = IxDyn(&[0, 2, 3, 1]);
            let expected = naive(&kernel, &x).permuted_axes(axes.clone());
            assert_close(&naive(&turned, &x.permuted_axes(axes)), &expected)?;
        }

        #[test]
        fn transposed_convolutions_add_and_are_scaled_and_cropped(
            (x, a, b) in proptest::collection::vec(1..4i64, 1..=2).prop_flat_map(|strides| {
                (input(strides.len()), conv(8, 4, strides.clone()), conv(8, 4, strides))
            }),
            scale in values(vec![8]), shift in values(vec![8]), pads in (-2..3i64, -2..3i64),
        ) {
            // Stored [C, O/groups, …], so a convolution from 8 to 4 becomes one from 4 to 8.
            let scattered = |affine: &Affine, like: &Affine| {
                let groups = affine.geometry.channels.unwrap().groups;
                let windows = affine.geometry.windows.iter().zip(&like.geometry.windows);
                let windows = windows.map(|(window, like)| {
                    let slack = like.taps * like.dilation + 2;
                    Window { slack, offset: -window.offset.abs(), ..*window }
                });
                Affine::transposed_conv(affine.kernel(), &[], windows.collect(), groups)
            };
            let (a, b) = (scattered(&a, &a), scattered(&b, &a));
            let sum = a.clone().plus(&b, &[]).unwrap();
            assert_close(&naive_scatter(&sum, &x), &(naive_scatter(&a, &x) + naive_scatter(&b, &x)))?;

            let norm = Affine::diagonal(scale.as_slice().unwrap(), shift.as_slice().unwrap());
            let mut expected = naive_scatter(&a, &x);
            for (mut plane, (s, t)) in expected.outer_iter_mut().zip(scale.iter().zip(&shift)) {
                plane.mapv_inplace(|v| v * s + t);
            }
            let scaled = norm.after(&a).unwrap();
            assert_close(&naive_scatter(&scaled, &x), &expected)?;

            let frame = vec![Window::new(1, 1, 1, pads).unwrap(); x.ndim() - 1];
            let frame = Affine::filter(frame, 1.0, 0.0);
            for inner in [a, scaled] {
                let expected = naive(&frame, &naive_scatter(&inner, &x));
                if !expected.is_empty() && let Ok(framed) = frame.after(&inner) {
                    assert_close(&naive_scatter(&framed, &x), &expected)?;
                }
            }
        }
    }

    #[test]
    fn a_product_is_a_convolution_of_single_positions() {
        let weights = ArrayD::from_shape_fn(IxDyn(&[2, 3]), |at| (at[0] * 3 + at[1]) as f64);
        let x =
            ArrayD::from_shape_fn(IxDyn(&[3, 2, 2]), |at| (at[0] + 2 * at[1] + 5 * at[2]) as f64);
        let product = Affine::product(weights.clone(), &[0.5, -1.0], 2);
        let kernel = weights.into_shape_with_order(IxDyn(&[2, 3, 1, 1])).unwrap();
        let conv = Affine::conv(kernel, &[0.5, -1.0], vec![Window::IDENTITY; 2], 1);
        assert_eq!(naive(&product, &x), naive(&conv, &x));
        let norm = Affine::diagonal(&[2.0, 3.0], &[0.0, 1.0]);
        for (case, map, kind) in [
            ("scaled", norm.after(&product), ConvKind::MatMul),
            ("added", product.clone().plus(&product, &[]), ConvKind::MatMul),
            ("beside a convolution", product.clone().plus(&conv, &[]), ConvKind::Conv),
            ("of 1×1 windows", norm.after(&conv), ConvKind::Conv),
        ] {
            assert_eq!(map.unwrap().geometry.kind, kind, "{case}");
        }
    }

    #[test]
    fn batch_norm_follows_equation_2() {
        let (scale, shift) = batch_norm(&[3.0], &[0.5], &[2.0], &[3.75], 0.25);
        assert_eq!((scale, shift), (vec![1.5], vec![-2.5]));
    }

    #[test]
    fn an_acb_is_its_square_kernel_with_a_cross_added() {
        let ones = |shape: &[usize]| ArrayD::ones(IxDyn(shape));
        let same = Window::new(3, 1, 1, (1, 1)).unwrap();
        let square = Affine::conv(ones(&[1, 1, 3, 3]), &[], vec![same, same], 1);
        let horizontal = Affine::conv(ones(&[1, 1, 1, 3]), &[], vec![Window::IDENTITY, same], 1);
        let vertical = Affine::conv(ones(&[1, 1, 3, 1]), &[], vec![same, Window::IDENTITY], 1);
        let fused = square.clone().plus(&horizontal, &[]).unwrap().plus(&vertical, &[]).unwrap();
        assert_eq!(fused.kernel().as_slice().unwrap(), [1., 2., 1., 2., 3., 2., 1., 2., 1.]);
        // Its skeleton is stronger than the square's (Sect. 4.4).
        let norm = Affine::diagonal(&[-2.0], &[0.0]);
        let compared = norm.after(&fused).unwrap().compared().unwrap();
        assert_eq!((compared.stored.largest, compared.before.channels.largest), (1.0, 2.0));
        assert_eq!(compared.before.by_position, [1.0; 9]);
        let skeleton = [1., 2., 1., 2., 3., 2., 1., 2., 1.].map(|weight| weight / 3.0);
        assert_eq!(compared.after.by_position, skeleton);
        assert_eq!(compared.after.channels.largest, 6.0);
        // A scale of two channels and the same mean of each.
        let mean = Affine::filter(vec![same], 1.0, 0.0);
        let scaled = Affine::diagonal(&[2.0, -3.0], &[0.0; 2]).after(&mean).unwrap();
        let compared = scaled.compared().unwrap();
        assert_eq!((compared.stored.largest, compared.before.channels.largest), (1.0, 3.0));
        assert_eq!(
            (compared.before.by_position, compared.after.channels.median),
            (vec![1.0; 3], 2.5)
        );
    }
}
