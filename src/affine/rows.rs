//! Weights, multiplied out row by row as they are read: one pass over the old weights, and
//! memory for a row.
//!
//! A row is what one output channel has: `C/groups × taps` numbers. Knows where the taps of a
//! summand fall in the sum (Eq. 6), and no rule of what may be a sum.

#![allow(
    clippy::indexing_slicing,
    reason = "shapes follow from geometries that were checked before weights are read"
)]

use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};

use crate::affine::geometry::{Channels, ConvKind, Geometry};
use crate::affine::kernel::{Affine, Summand, exchange_channels, in_a_row, taps};
use crate::affine::part::Part;
use crate::affine::window::Window;
use crate::numbers::{self, LazyWeights};

impl Affine {
    /// All weights, `[O, C/groups, taps…]`, multiplied out.
    pub fn kernel(&self) -> ArrayD<f64> {
        ArrayD::from_shape_vec(IxDyn(&self.shape()), numbers::all(self))
            .unwrap_or_else(|_| unreachable!("as many as the shape says"))
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

    /// The weights in the order of [`Self::stored_shape`].
    pub fn stored_kernel(self) -> Arc<dyn LazyWeights> {
        let groups = self.geometry.channels.map_or(1, |channels| channels.groups);
        match self.geometry.kind {
            ConvKind::Conv | ConvKind::MatMul => Arc::new(self),
            ConvKind::ConvTranspose => in_a_row(exchange_channels(self.kernel(), groups)),
        }
    }
}

/// Reads the kernel `[O, C/groups, taps…]`, multiplied out.
impl LazyWeights for Affine {
    fn count(&self) -> usize {
        self.shape().iter().product()
    }

    fn depth(&self) -> usize {
        self.summands.iter().map(|summand| summand.weights.depth()).max().unwrap_or(0)
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        let whole = self.geometry.channels.unwrap_or(Channels::diagonal(1));
        let summands: Vec<Placed> = self
            .summands
            .iter()
            .map(|summand| Placed::of(summand, &self.geometry, whole))
            .collect();
        let mut scratch = Vec::new();
        in_rows(row(self), start, into, |output, skipped, part| {
            part.fill(0.0);
            let within = skipped..skipped + part.len();
            summands
                .iter()
                .for_each(|summand| summand.add_row(output, within.clone(), part, &mut scratch));
        });
    }
}

/// The rows of two kernels, those of the second one behind those of the first.
#[derive(Debug)]
pub(super) struct Stack {
    first: Affine,
    second: Affine,
}

/// Kernels that lie so deep in each other are multiplied out: reading goes down through all of them.
const MOST_DEPTH: usize = 32;

/// The same map, multiplied out if its weights lie too deep.
fn flat(map: &Affine) -> Affine {
    if map.depth() < MOST_DEPTH {
        return map.clone();
    }
    let weights = Arc::new(numbers::all(map));
    Affine::new(map.geometry.clone(), weights, map.bias.clone())
}

impl Stack {
    /// The rows of `one`, and behind them those of `other`.
    pub(super) fn of(one: &Affine, other: &Affine) -> Self {
        Stack { first: flat(one), second: flat(other) }
    }
}

impl LazyWeights for Stack {
    fn count(&self) -> usize {
        self.first.count() + self.second.count()
    }

    fn depth(&self) -> usize {
        1 + self.first.depth().max(self.second.depth())
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        let border = self.first.count();
        let (of_first, of_second) = into.split_at_mut(border.saturating_sub(start).min(into.len()));
        self.first.read(start, of_first);
        self.second.read(start.saturating_sub(border), of_second);
    }
}

/// Of each row of a kernel without groups, what is multiplied by the channels of a part.
#[derive(Debug)]
pub(super) struct Columns {
    whole: Affine,
    /// Which numbers of a row these are.
    range: Range<usize>,
}

impl Columns {
    /// Those of `part`.
    pub(super) fn of(map: &Affine, part: &Part) -> Self {
        let taps: usize = taps(&map.geometry.windows).iter().product();
        Columns { whole: flat(map), range: part.start * taps..(part.start + part.size) * taps }
    }
}

impl LazyWeights for Columns {
    fn count(&self) -> usize {
        self.whole.count() / row(&self.whole) * self.range.len()
    }

    fn depth(&self) -> usize {
        1 + self.whole.depth()
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        let row = row(&self.whole);
        in_rows(self.range.len(), start, into, |number, skipped, part| {
            self.whole.read(number * row + self.range.start + skipped, part);
        });
    }
}

/// Numbers of a row of a kernel.
fn row(map: &Affine) -> usize {
    map.shape()[1..].iter().product::<usize>().max(1)
}

/// Has `read` read each of the rows of so many numbers that `into` is a range of: its number, where
/// in it to begin, and the place for what is read.
fn in_rows(
    row: usize,
    start: usize,
    into: &mut [f64],
    mut read: impl FnMut(usize, usize, &mut [f64]),
) {
    let (mut at, mut rest) = (start, into);
    while !rest.is_empty() {
        let (number, skipped) = (at / row, at % row);
        let (part, behind) = rest.split_at_mut((row - skipped).min(rest.len()));
        read(number, skipped, part);
        at += part.len();
        rest = behind;
    }
}

/// Where the taps of a kernel fall among those of another one, along one axis.
pub(super) struct TapsAlong {
    /// The first of them.
    pub first: usize,
    /// From one to the next.
    pub spacing: usize,
    /// How many there are.
    pub count: usize,
}

/// Where the taps of a kernel fall in one with the windows `whole`, as flat indices.
pub(super) fn places(whole: &[Window], along: impl Fn(usize, &Window) -> TapsAlong) -> Vec<usize> {
    let mut places = vec![0];
    for (axis, window) in whole.iter().enumerate() {
        let TapsAlong { first, spacing, count } = along(axis, window);
        let of_place = |place: &usize| {
            let base = place * window.taps as usize + first;
            (0..count).map(move |tap| base + tap * spacing)
        };
        places = places.iter().flat_map(of_place).collect();
    }
    places
}

/// A summand, and where its taps fall in the sum's.
struct Placed<'t> {
    summand: &'t Summand,
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
    fn of(summand: &'t Summand, whole: &Geometry, channels: Channels) -> Self {
        let own = summand.geometry.channels.unwrap_or(Channels::diagonal(channels.outputs));
        let places = places(&whole.windows, |axis, window| {
            let part = summand.geometry.window(axis);
            let (first, spacing) = window.place(&part);
            TapsAlong { first, spacing, count: part.taps as usize }
        });
        Placed {
            summand,
            places,
            width: own.inputs / own.groups,
            outputs_per_group: own.outputs / own.groups,
            whole_width: channels.inputs / channels.groups,
            whole_taps: taps(&whole.windows).iter().product(),
        }
    }

    /// Adds the summand's numbers to what of row `output` lies `within`: one operand of ⊕.
    fn add_row(
        &self,
        output: usize,
        within: Range<usize>,
        row: &mut [f64],
        scratch: &mut Vec<f64>,
    ) {
        // Group g of the summand reads channels g·width…; the sum counts from its own group's
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
        let own_row = if self.summand.geometry.channels.is_none() { 0 } else { output };
        scratch.resize(channels.len() * own_taps, 0.0);
        let start = (own_row * self.width + channels.start) * own_taps;
        self.summand.weights.read(start, scratch);
        let scale = self.summand.scale_of(output);
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
