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
mod compose;
mod geometry;
mod kernel;
mod linear;
mod macs;
mod magnitude;
mod refusal;
mod rows;
#[cfg(test)]
mod tests;
mod window;
mod words;

pub use axes::AxisOrder;
pub use geometry::{Channels, ConvKind, Geometry};
pub use kernel::{Affine, batch_norm};
pub use linear::Linear;
pub use macs::Macs;
pub use magnitude::{Comparison, Magnitude, Pass, PieceSums, Spread, average};
pub use refusal::Refusal;
pub use window::{PadMode, Window};
pub use words::times;
