//! The mathematics: linear maps between feature maps that are convolutions.
//!
//! A [`Window`] says where a kernel's taps fall along one axis, a [`Geometry`]
//! is a kernel without its weights, an [`Affine`] has weights and bias. All three
//! can be composed and merged (⊕), by the same rules, so a rewrite is decided on
//! geometry alone and then repeated on weights. Everything is float64.
//!
//! This module knows ndarray and nothing of ONNX. It may refuse; it cannot fail.

mod geometry;
mod kernel;
mod refusal;
mod window;

pub use geometry::{Channels, Geometry};
pub use kernel::{Affine, batch_norm};
pub use refusal::Refusal;
pub use window::Window;

/// What a region's walk needs of a linear map, with or without weights.
pub trait Linear: Clone {
    /// Its shape.
    fn geometry(&self) -> &Geometry;

    /// `self ∘ inner`: first `inner`, then `self`.
    ///
    /// # Errors
    /// If the composition is not one convolution.
    fn after(&self, inner: &Self) -> Result<Self, Refusal>;

    /// `self ⊕ other`: the sum of both as one kernel (Eq. 3).
    ///
    /// `sizes` are the spatial sizes of the tensor that both read, as far as known.
    ///
    /// # Errors
    /// If no single window covers both.
    fn plus(&self, other: &Self, sizes: &[Option<i64>]) -> Result<Self, Refusal>;

    /// `−self`.
    #[must_use]
    fn negated(self) -> Self;

    /// `self` without its bias.
    #[must_use]
    fn unshifted(self) -> Self;
}
