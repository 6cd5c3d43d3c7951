//! Multiplies out weights row by row as they are read: one pass over the old weights, in memory
//! for one row.
//!
//! A row holds the `C/groups × taps` numbers of one output channel. Knows where the taps of a
//! summand fall in the sum (Eq. 6); has no rule about what may be summed.

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
    /// All weights, multiplied out: `[O, C/groups, taps…]`.
    pub fn kernel(&self) -> ArrayD<f64> {
        ArrayD::from_shape_vec(IxDyn(&self.shape()), numbers::all(self))
            .unwrap_or_else(|_| unreachable!("as many as the shape says"))
    }

    /// The shape of the weights as the operator stores them: `[O, C/groups, taps…]`, or
    /// `[C, O/groups, taps…]` if the convolution is transposed.
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

/// The rows of two kernels, those of the second behind those of the first.
#[derive(Debug)]
pub(super) struct Stack {
    first: Affine,
    second: Affine,
}

/// Upper bound on the depth of weights that read other weights: reading recurses through all of
/// them, so deeper ones are multiplied out.
const MOST_DEPTH: usize = 32;

/// The same map, multiplied out if its weights have reached `MOST_DEPTH`.
fn flat(map: &Affine) -> Affine {
    if map.depth() < MOST_DEPTH {
        return map.clone();
    }
    let weights = Arc::new(numbers::all(map));
    Affine::new(map.geometry.clone(), weights, map.bias.clone())
}

impl Stack {
    /// Stacks the rows of `other` behind those of `one`.
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

/// The columns of a kernel without groups that are multiplied by the channels of one part.
#[derive(Debug)]
pub(super) struct Columns {
    whole: Affine,
    /// The range of these numbers in each row.
    range: Range<usize>,
}

impl Columns {
    /// The columns of `part` in the kernel of `map`.
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

/// The length of a row of the map's kernel.
fn row(map: &Affine) -> usize {
    map.shape()[1..].iter().product::<usize>().max(1)
}

/// Fills `into`, a range of numbers in rows of length `row` that begins at `start`. Calls `read`
/// for each row with the index of the row, the position in it at which to begin, and the place for
/// the numbers.
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

/// Where the taps of a kernel fall among those of another kernel, along one axis.
pub(super) struct TapsAlong {
    /// Place of the first tap.
    pub first: usize,
    /// Distance from one tap to the next.
    pub spacing: usize,
    /// Number of taps.
    pub count: usize,
}

/// The places of a kernel's taps in a kernel with the windows `whole`, as flat indices.
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

/// A summand and the places of its taps in the sum.
struct Placed<'t> {
    summand: &'t Summand,
    /// The place of each of the summand's taps among all taps of the sum.
    places: Vec<usize>,
    /// The summand's channels per group, and the number of outputs that read the same channels.
    width: usize,
    outputs_per_group: usize,
    /// The sum's channels per group, and its number of taps.
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

    /// Adds the summand's numbers to the range `within` of row `output`: one operand of ⊕.
    fn add_row(
        &self,
        output: usize,
        within: Range<usize>,
        row: &mut [f64],
        scratch: &mut Vec<f64>,
    ) {
        // Group g of the summand reads channels from g·width on; the sum counts channels from the
        // first of its own group.
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
