//! Kernels whose outputs a Concat joins along the channels, as one kernel with the rows of both.
//!
//! Knows terms and channels; does not decide which kernels should be one.

use crate::affine::{Channels, ConvKind, Linear};
use crate::emit::term::{Term, TermKind};
use crate::onnx::ids::ValueId;

impl<L: Linear> Term<L> {
    /// This term and `next` as one kernel whose output is theirs, one behind the other, if both
    /// read the same tensor and are neighbouring parts along the channels.
    pub fn stacked(&self, next: &Self) -> Option<Self> {
        let are_of_one = self.root == next.root && self.has_front_of(next);
        let channels = || self.channels()?.stacked(&next.channels()?);
        are_of_one.then(channels).flatten().and_then(|both| self.with_rows_of(next, both))
    }

    /// As [`Self::stacked`], for terms whose roots are neighbouring parts of one tensor, `root`,
    /// along the channels.
    pub fn beside(&self, next: &Self, root: ValueId) -> Option<Self> {
        let is_bare = |term: &Self| {
            let is_conv = term.map.geometry().kind == ConvKind::Conv;
            is_conv && term.before.is_empty() && term.inner.is_none()
        };
        let channels = || self.channels()?.beside(&next.channels()?);
        let channels = (is_bare(self) && is_bare(next)).then(channels).flatten()?;
        Some(Term { root, ..self.with_rows_of(next, channels)? })
    }

    /// The channels of a kernel; `None` if the part has another number of channels, over which the
    /// kernel is broadcast.
    fn channels(&self) -> Option<Channels> {
        let channels = self.map.geometry().channels.filter(|_| self.kind == TermKind::Conv)?;
        let is_whole = self.part().is_none_or(|part| part.size == channels.outputs);
        is_whole.then_some(channels)
    }

    /// The kernel with these `channels` and the rows of both terms, in their place.
    fn with_rows_of(&self, next: &Self, channels: Channels) -> Option<Self> {
        let (own, others) = (self.part()?, next.part()?);
        let part = own.with_next(others)?.map(Box::new);
        let map = self.map.with_rows_of(&next.map, channels)?;
        let are_seen = self.after.is_empty() && next.after.is_empty();
        let is_along_channels = map.geometry().output.axis(1) == own.axis;
        (are_seen && is_along_channels).then(|| Term { map, part, ..self.clone() })
    }
}
