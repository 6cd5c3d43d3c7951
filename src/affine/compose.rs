//! Composition and addition of maps with weights: applies what the rules of
//! [`rules`](super::rules) allow to kernels and biases.
//!
//! A batch norm only multiplies the scales of a kernel's summands (Eq. 2), and `⊕` only
//! lengthens the sum (Eq. 3). Weights are multiplied out only where both maps mix positions or
//! channels.
//!
//! Knows kernels and biases; its only rule of its own is one that the numbers alone decide:
//! whether a shift can stand in front of a kernel.

#![allow(
    clippy::indexing_slicing,
    reason = "shapes follow from geometries that were checked before weights are read"
)]

use std::sync::Arc;

use ndarray::{Axis, IxDyn};

use crate::affine::axes::AxisOrder;
use crate::affine::dense;
use crate::affine::geometry::{Channels, Geometry};
use crate::affine::kernel::{Affine, Summand, in_a_row, of_channel, taps};
use crate::affine::linear::Linear;
use crate::affine::part::Part;
use crate::affine::picked::PickedChannels;
use crate::affine::refusal::Refusal;
use crate::affine::rows::{Columns, Stack, TapsAlong, places};
use crate::affine::squares::Squares;
use crate::affine::window::Window;
use crate::numbers;

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

    fn added(mut self, other: &Self, shape: &[Option<i64>]) -> Result<Self, Refusal> {
        let geometry = self.geometry.clone().added(&other.geometry, shape)?;
        let outputs = geometry.channels.map_or(1, |channels| channels.outputs);
        let bias = (0..outputs).map(|output| self.bias_of(output) + other.bias_of(output));
        let bias = bias.collect();
        for summand in &other.summands {
            match self.summands.iter_mut().find(|own| own.is_multiple_of(summand)) {
                Some(own) => own.scale = per_output(&own.scale, &summand.scale, |a, b| a + b),
                None => self.summands.push(summand.clone()),
            }
        }
        Ok(Self::sum(geometry, self.summands, bias))
    }

    fn permuted(&self, roles: &[usize]) -> Self {
        let geometry = self.geometry.permuted(roles);
        if roles.iter().enumerate().all(|(place, &role)| place == role) {
            return Affine { geometry, ..self.clone() };
        }
        let kernel = self.kernel();
        let mut kernel = kernel.view();
        // One tap axis per role; those of batch and channels have length 1.
        let taps = roles.len() + 2;
        kernel.insert_axis_inplace(Axis(2));
        kernel.insert_axis_inplace(Axis(2));
        while kernel.ndim() < taps {
            kernel.insert_axis_inplace(Axis(kernel.ndim()));
        }
        let axes: Vec<usize> =
            [0, 1].into_iter().chain(roles.iter().map(|role| role + 2)).collect();
        let kernel = kernel.permuted_axes(IxDyn(&axes)).to_owned();
        // The axes that the geometry omits have length 1.
        Self::new(geometry, in_a_row(kernel), self.bias.clone())
    }

    fn with_rows_of(&self, next: &Self, channels: Channels) -> Option<Self> {
        let geometry = self.geometry.with_rows_of(&next.geometry, channels)?;
        let rows = |map: &Self| map.geometry.channels.map_or(0, |channels| channels.outputs);
        let of = |map: &'_ Self| (0..rows(map)).map(|row| map.bias_of(row)).collect::<Vec<_>>();
        let kernel = Stack::of(self, next);
        Some(Self::new(geometry, Arc::new(kernel), [of(self), of(next)].concat()))
    }

    fn unturned(&self) -> Self {
        let order = self.geometry.input.clone();
        self.clone().between(order.clone(), order)
    }

    fn dense(&self, sizes: &[usize]) -> Result<Self, Refusal> {
        dense::map(self, self.geometry.dense(sizes)?, sizes)
    }

    fn picked(&self, order: &AxisOrder, channels: Option<&PickedChannels>) -> Self {
        let factors = self.factors().unwrap_or_default();
        let factor = |channel| of_channel(&factors, channel).unwrap_or(1.0);
        let map = match channels {
            None => Affine::filter(Vec::new(), factor(0), self.bias_of(0)),
            Some(picked) => {
                let scale: Vec<f64> = picked.channels().map(factor).collect();
                let shift: Vec<f64> =
                    picked.channels().map(|channel| self.bias_of(channel)).collect();
                Affine::diagonal(&scale, &shift)
            }
        };
        map.between(order.clone(), order.clone())
    }

    fn along(&self, order: &AxisOrder) -> Self {
        let mut map = Affine { geometry: self.geometry.along(order), ..self.clone() };
        for summand in &mut map.summands {
            summand.geometry.windows.clear();
        }
        map
    }

    fn negated(mut self) -> Self {
        let scales = self.summands.iter_mut().flat_map(|summand| &mut summand.scale);
        scales.chain(&mut self.bias).for_each(|number| *number = -*number);
        self
    }

    fn behind(&self, front: &Geometry) -> Self {
        let mut behind = Affine { geometry: self.geometry.behind(front), ..self.clone() };
        for summand in &mut behind.summands {
            summand.geometry.windows = summand.geometry.behind(front).windows;
        }
        behind
    }

    fn framing(front: Geometry) -> Self {
        let Geometry { windows, input, output, .. } = front;
        Affine::filter(windows, 1.0, 0.0).between(input, output)
    }

    fn of_part(&self, part: &Part) -> Result<Self, Refusal> {
        let geometry = self.geometry.of_part(part)?;
        let bias = vec![0.0; self.bias.len()];
        Ok(Self::new(geometry, Arc::new(Columns::of(self, part)), bias))
    }

    fn recounted(&self, windows: Vec<Window>) -> Self {
        Affine { geometry: self.geometry.recounted(windows), ..self.clone() }
    }

    fn squares(squares: &Squares) -> Self {
        squares.affine()
    }

    fn mean(windows: Vec<Window>) -> Self {
        let taps: f64 = windows.iter().map(|window| window.taps as f64).product();
        Affine::filter(windows, 1.0 / taps, 0.0)
    }

    fn unshifted(mut self) -> Self {
        self.bias.fill(0.0);
        self.geometry.shifted = false;
        self
    }

    fn shift_in_front(&self, axes: usize) -> Result<Self, Refusal> {
        let geometry = self.geometry.shift_in_front(axes)?;
        let shift = match self.factors() {
            Some(scale) => {
                let count = scale.len().max(self.bias.len());
                let shift = |channel| Some(self.bias_of(channel) / of_channel(&scale, channel)?);
                (0..count).filter_map(shift).collect()
            }
            None => self.shifts_of_picked()?,
        };
        if !shift.iter().all(|shift| shift.is_finite()) {
            return Err(Refusal::Vanishes);
        }
        let shift = Affine { bias: shift, ..self.clone() }.shift_alone();
        Ok(Affine { geometry, ..shift })
    }

    fn shift_alone(&self) -> Self {
        if let [bias] = self.bias[..] {
            return Affine::filter(Vec::new(), 1.0, bias);
        }
        let order = &self.geometry.output;
        let ones = vec![1.0; self.bias.len()];
        Affine::diagonal(&ones, &self.bias).between(order.clone(), order.clone())
    }
}

impl Affine {
    /// `self ∘ inner` if one of the two maps only scales, pads or crops: the kernels of the
    /// other map are kept, with other scales and positions. Returns `None` if neither map is
    /// like that.
    fn scaled(&self, inner: &Self, geometry: &Geometry) -> Option<Self> {
        let moved = |summand: &Summand, factors: &[f64], composed: Result<Geometry, Refusal>| {
            let geometry = Geometry { windows: composed.ok()?.windows, ..summand.geometry.clone() };
            let scale = per_output(&summand.scale, factors, |a, b| a * b);
            Some(Summand { weights: summand.weights.clone(), geometry, scale })
        };
        let anywhere = |map: &Geometry| Geometry { channels: None, shifted: false, ..map.clone() };
        let (outside, inside) = (anywhere(&self.geometry), anywhere(&inner.geometry));
        if let Some(factors) = self.factors() {
            let summands = inner.summands.iter().map(|summand| {
                moved(summand, &factors, outside.composed(&anywhere(&summand.geometry)))
            });
            let summands = summands.collect::<Option<_>>()?;
            let count = factors.len().max(inner.bias.len());
            let factor = |output| of_channel(&factors, output).unwrap_or(0.0);
            let bias = (0..count).map(|o| self.bias_of(o) + factor(o) * inner.bias_of(o));
            return Some(Self::sum(geometry.clone(), summands, bias.collect()));
        }
        let factors = inner.factors().filter(|factors| factors.len() == 1)?;
        if inner.geometry.channels.is_some() || inner.bias_of(0) != 0.0 {
            return None;
        }
        let summands = self
            .summands
            .iter()
            .map(|summand| moved(summand, &factors, anywhere(&summand.geometry).composed(&inside)));
        Some(Self::sum(geometry.clone(), summands.collect::<Option<_>>()?, self.bias.clone()))
    }

    /// The kernel and bias of `self ∘ inner`, multiplied out. Zeros are skipped: nearly all
    /// weights of a kernel that picks channels or cuts squares are zero.
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
        // Tap (t₁, t₂) falls on t₁·d₁·s₂ + t₂·d₂, in steps of the composition's dilation d.
        let along = |geometry: &Geometry, axis: usize, step: i64, window: &Window| TapsAlong {
            first: 0,
            spacing: (geometry.window(axis).dilation * step / window.dilation) as usize,
            count: geometry.window(axis).taps as usize,
        };
        let outer_places = places(&geometry.windows, |axis, window| {
            along(&outer.geometry, axis, inner.geometry.window(axis).stride, window)
        });
        let inner_places =
            places(&geometry.windows, |axis, window| along(&inner.geometry, axis, 1, window));
        let width = channels.inputs / channels.groups;
        let (outer_taps, inner_taps) = (outer_places.len(), inner_places.len());
        let all_taps: usize = taps(&geometry.windows).iter().product();
        let (outer_flat, inner_flat) = (numbers::all(&outer), numbers::all(&inner));
        let outer_width = second.inputs / second.groups;
        let inner_width = first.inputs / first.groups;
        let per_group = second.outputs / second.groups;
        let mut kernel = vec![0.0; channels.outputs * width * all_taps];
        let mut bias = outer.bias.clone();
        for middle in 0..second.inputs {
            let inner_row =
                &inner_flat[middle * inner_width * inner_taps..][..inner_width * inner_taps];
            let of_tap = |(at, &value): (usize, &f64)| {
                let place = at / inner_taps * all_taps + inner_places[at % inner_taps];
                (value != 0.0).then_some((place, value))
            };
            let inner_row: Vec<(usize, f64)> =
                inner_row.iter().enumerate().filter_map(of_tap).collect();
            let input = middle / (first.outputs / first.groups) * inner_width % width;
            let (group, relative) = (middle / outer_width, middle % outer_width);
            for output in group * per_group..(group + 1) * per_group {
                let weights =
                    &outer_flat[(output * outer_width + relative) * outer_taps..][..outer_taps];
                if weights.iter().all(|&weight| weight == 0.0) {
                    continue;
                }
                bias[output] += inner.bias[middle] * weights.iter().sum::<f64>();
                let row = &mut kernel[output * width * all_taps..][..width * all_taps];
                let row = &mut row[input * all_taps..][..inner_width * all_taps];
                for (&weight, &first) in weights.iter().zip(&outer_places) {
                    for &(place, value) in &inner_row {
                        row[first + place] += weight * value;
                    }
                }
            }
        }
        (kernel, bias)
    }

    /// The shift of each input channel before the channels are picked and scaled; zero for a
    /// channel that no output reads.
    fn shifts_of_picked(&self) -> Result<Vec<f64>, Refusal> {
        let channels = self.geometry.channels.ok_or(Refusal::View)?;
        let mut shifts: Vec<Option<f64>> = vec![None; channels.inputs];
        for (output, row) in self.kernel().outer_iter().enumerate() {
            let mut factors = row.iter().enumerate().filter(|(_, factor)| **factor != 0.0);
            let (input, factor) = factors.next().ok_or(Refusal::Vanishes)?;
            if factors.next().is_some() {
                return Err(Refusal::View);
            }
            let shift = self.bias_of(output) / factor;
            if shifts[input].replace(shift).is_some_and(|other| other != shift) {
                return Err(Refusal::Repeated);
            }
        }
        Ok(shifts.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// The factor of each channel if every output is a multiple of its own channel at one
    /// position; a single factor for all channels if they are not counted. Returns `None` for
    /// any other map.
    fn factors(&self) -> Option<Vec<f64>> {
        self.geometry.is_scale().then(|| numbers::all(self))
    }

    /// The same map, spelled out for `channels` channels and `axes` spatial axes.
    pub(super) fn spelled_out(&self, channels: usize, axes: usize) -> Self {
        let mut spelled = self.clone();
        spelled.geometry.windows.resize(axes, Window::IDENTITY);
        if self.geometry.channels.is_none() {
            spelled.geometry.channels = Some(Channels::diagonal(channels));
            spelled.bias = vec![self.bias[0]; channels];
        }
        spelled
    }
}

/// Applies `combined` to the numbers of each output; a list of one number serves all outputs.
fn per_output(some: &[f64], others: &[f64], combined: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let count = some.len().max(others.len());
    let pairs = some.iter().cycle().zip(others.iter().cycle());
    pairs.take(count).map(|(&one, &other)| combined(one, other)).collect()
}
