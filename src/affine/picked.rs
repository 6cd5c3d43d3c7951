//! Channels that are picked from others, some of them more than once.
//!
//! Knows numbers of channels, and the kernel that picks them; not what is done with them.

#![allow(clippy::indexing_slicing, reason = "rows are as many as places")]

use std::iter::repeat_n;
use std::ops::Range;
use std::sync::Arc;

use crate::affine::limits;
use crate::affine::refusal::Refusal;
use crate::numbers::LazyWeights;

/// Number `(o·n + c)·inner + i` of the picked ones is the `c`-th of `n` channels, for each `o`
/// below `outer` and `i` below `inner`.
#[derive(Debug, Clone)]
pub struct PickedChannels {
    outer: usize,
    channels: Range<usize>,
    inner: usize,
}

impl PickedChannels {
    /// So many times these `channels`, each so often in a row.
    ///
    /// # Errors
    /// If they are more than the weights of a kernel that is multiplied out: a view says of
    /// anything that it joins 2⁵⁰ positions with channels.
    pub fn new(outer: usize, channels: Range<usize>, inner: usize) -> Result<Self, Refusal> {
        limits::check_weights(outer as f64 * channels.len() as f64 * inner as f64)?;
        Ok(PickedChannels { outer, channels, inner })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.outer * self.channels.len() * self.inner
    }

    /// Where each of them comes from.
    pub fn channels(&self) -> impl Iterator<Item = usize> {
        let once = self.channels.clone().flat_map(|channel| repeat_n(channel, self.inner));
        (0..self.outer).flat_map(move |_| once.clone())
    }
}

/// Rows that have one 1 each.
#[derive(Debug)]
pub(super) struct Picks {
    /// Where it stands.
    places: Arc<[usize]>,
    /// Numbers of a row.
    row: usize,
}

impl Picks {
    /// Rows of `row` numbers, with a 1 at each of these `places`.
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
