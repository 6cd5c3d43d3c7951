//! Channels that are picked from others, some of them more than once.
//!
//! Knows channel indices and the kernel that picks them; not what is done with the channels.

#![allow(clippy::indexing_slicing, reason = "rows are as many as places")]

use std::iter::repeat_n;
use std::ops::Range;
use std::sync::Arc;

use crate::affine::limits;
use crate::affine::refusal::Refusal;
use crate::numbers::LazyWeights;

/// A selection of channels with repetition: its element `(o·n + c)·inner + i` is the `c`-th of
/// the `n` `channels`, for each `o` below `outer` and `i` below `inner`.
#[derive(Debug, Clone)]
pub struct PickedChannels {
    outer: usize,
    channels: Range<usize>,
    inner: usize,
}

impl PickedChannels {
    /// The sequence of `channels`, each repeated `inner` times, the whole repeated `outer` times.
    ///
    /// # Errors
    /// Returns an error if it is longer than a kernel that is multiplied out may have weights: a
    /// view in a file can claim to join 2⁵⁰ positions with the channels.
    pub fn new(outer: usize, channels: Range<usize>, inner: usize) -> Result<Self, Refusal> {
        limits::check_weights(outer as f64 * channels.len() as f64 * inner as f64)?;
        Ok(PickedChannels { outer, channels, inner })
    }

    /// The number of picked channels.
    pub fn count(&self) -> usize {
        self.outer * self.channels.len() * self.inner
    }

    /// The source channel of each picked channel.
    pub fn channels(&self) -> impl Iterator<Item = usize> {
        let once = self.channels.clone().flat_map(|channel| repeat_n(channel, self.inner));
        (0..self.outer).flat_map(move |_| once.clone())
    }
}

/// Weights in rows with a single 1 each.
#[derive(Debug)]
pub(super) struct Picks {
    /// Column of the 1 in each row.
    places: Arc<[usize]>,
    /// Length of a row.
    row: usize,
}

impl Picks {
    /// Rows of length `row`, with a 1 at each of these `places`.
    pub(super) fn new(places: Arc<[usize]>, row: usize) -> Self {
        Picks { places, row }
    }
}

impl LazyWeights for Picks {
    fn count(&self) -> usize {
        self.places.len() * self.row
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        for (at, number) in (start..).zip(into) {
            *number = if self.places[at / self.row] == at % self.row { 1.0 } else { 0.0 };
        }
    }
}
