//! The mathematics: linear maps between feature maps that are convolutions.
//!
//! A [`Window`] says where a kernel's taps fall along one axis, a [`Geometry`]
//! is a kernel without its weights, an [`Affine`] has weights (as [`Numbers`](crate::numbers::LazyWeights)) and bias. All three
//! can be composed and merged (⊕), by the same rules, so a rewrite is decided on
//! geometry alone and then repeated on weights; [`Work`] is what each costs to run.
//! Everything is float64.
//!
//! This module knows ndarray and nothing of ONNX. It may refuse; it cannot fail.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "a window's numbers stay below 2²⁴, which Window::bounded holds, and shapes were checked"
)]

mod axes;
mod geometry;
mod kernel;
mod macs;
mod magnitude;
mod refusal;
mod window;
mod words;

pub use axes::AxisOrder;
pub use geometry::{Channels, ConvKind, Geometry};
pub use kernel::{Affine, batch_norm};
pub use macs::Macs;
pub use magnitude::{Comparison, Magnitude, Spread, average};
pub use refusal::Refusal;
pub use window::{PadMode, Window};
pub use words::times;

/// What a region's walk needs of a linear map, with or without weights.
pub trait Linear: Clone {
    /// Its shape.
    fn geometry(&self) -> &Geometry;

    /// The same map with its axes in another order: what plays role `i` now is what
    /// played role `roles[i]`, on both ends.
    #[must_use]
    fn permuted(&self, roles: &[usize]) -> Self;

    /// As [`Self::after`], with the axes between both in one order.
    ///
    /// # Errors
    /// If the composition is not one convolution.
    fn composed(&self, inner: &Self) -> Result<Self, Refusal>;

    /// As [`Self::plus`], with the axes of the common input in one order.
    ///
    /// # Errors
    /// If no single window covers both.
    fn added(self, other: &Self, shape: &[Option<i64>]) -> Result<Self, Refusal>;

    /// `−self`.
    #[must_use]
    fn negated(self) -> Self;

    /// `self` without its bias.
    #[must_use]
    fn unshifted(self) -> Self;

    /// `self ∘ inner`: first `inner`, then `self`.
    ///
    /// # Errors
    /// If the composition is not one convolution.
    fn after(&self, inner: &Self) -> Result<Self, Refusal> {
        let (wanted, given) = (&self.geometry().input, &inner.geometry().output);
        let composed = if wanted == given {
            self.composed(inner)?
        } else if let Ok(roles) = self.geometry().roles_for(wanted, given) {
            self.permuted(&roles).composed(inner)?
        } else {
            self.composed(&inner.permuted(&inner.geometry().roles_for(given, wanted)?))?
        };
        Ok(composed.settled())
    }

    /// The same map with its input in canonical order, if exchanging spatial axes of the
    /// kernel is enough for that.
    #[must_use]
    fn settled(self) -> Self {
        let input = &self.geometry().input;
        match self.geometry().roles_for(input, &AxisOrder::CANONICAL) {
            Ok(roles) if !input.is_canonical() => self.permuted(&roles),
            _ => self,
        }
    }

    /// `self ⊕ other`: the sum of both as one kernel (Eq. 3).
    ///
    /// `shape` is that of the tensor that both read, as far as known.
    ///
    /// # Errors
    /// If no single window covers both.
    fn plus(self, other: &Self, shape: &[Option<i64>]) -> Result<Self, Refusal> {
        let (mine, theirs) = (&self.geometry().input, &other.geometry().input);
        if mine == theirs {
            self.added(other, shape)
        } else if let Ok(roles) = other.geometry().roles_for(theirs, mine) {
            let other = other.permuted(&roles);
            self.added(&other, shape)
        } else {
            self.permuted(&self.geometry().roles_for(mine, theirs)?).added(other, shape)
        }
    }
}
