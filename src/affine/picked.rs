//! Channels that are picked from others, some of them more than once.
//!
//! Knows numbers of channels; not what is done with them.

use std::iter::repeat_n;
use std::ops::Range;

use crate::affine::limits;
use crate::affine::refusal::Refusal;

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
