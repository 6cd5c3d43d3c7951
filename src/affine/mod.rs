//! The mathematics: linear maps between feature maps that are convolutions.
//!
//! A [`Window`] says where a kernel's taps fall along one axis, a [`Geometry`] is a kernel
//! without its weights, an [`Affine`] adds the weights (as
//! [`LazyWeights`](crate::numbers::LazyWeights), read in pieces) and a bias. Geometries and maps
//! with weights are composed ([`Linear::after`]) and added ([`Linear::plus`], the `⊕` of Eq. 3)
//! by the same rules, so a rewrite is decided on geometries alone and then repeated on weights.
//! [`Macs`] is what a map costs to run, a [`Magnitude`] how large its weights are. All
//! arithmetic is float64.
//!
//! Equation numbers refer to Ding et al., "ACNet: Strengthening the Kernel Skeletons for
//! Powerful CNN via Asymmetric Convolution Blocks" (2019). Where the paper requires one kernel
//! to be no larger than the other (Eq. 4), taps are placed here at the positions that they read:
//! kernels of any sizes can be added, dilated and off-centre ones too, as long as both make the
//! same number of outputs.
//!
//! Knows ndarray; nothing of ONNX, file formats or threads. It may refuse (see [`Refusal`]), but
//! it cannot fail on shapes that fit each other.
//!
//! # One block by hand
//!
//! An asymmetric convolution block on one channel: 3×3, 1×3 and 3×1, each with a batch norm.
//!
//! ```
//! use acb_fuse::affine::{Affine, Linear, Refusal, Window, batch_norm};
//! use ndarray::{ArrayD, IxDyn};
//!
//! let ones = |shape: &[usize]| ArrayD::ones(IxDyn(shape));
//! // Three taps with a pad of one on each side, and one tap without.
//! let (three, one) = (Window::new(3, 1, 1, (1, 1)).unwrap(), Window::IDENTITY);
//! let square = Affine::conv(ones(&[1, 1, 3, 3]), &[], vec![three, three], 1);
//! let horizontal = Affine::conv(ones(&[1, 1, 1, 3]), &[], vec![one, three], 1);
//! let vertical = Affine::conv(ones(&[1, 1, 3, 1]), &[], vec![three, one], 1);
//!
//! // γ, β, μ, σ² and ε of each norm: y = γ/σ·x + (β − μ·γ/σ), Eq. 2.
//! let norm = |gamma: f64, beta: f64, mean: f64| {
//!     let (scale, shift) = batch_norm(&[gamma], &[beta], &[mean], &[3.0], 1.0);
//!     Affine::diagonal(&scale, &shift)
//! };
//! let fused = norm(2.0, 0.5, 1.0)
//!     .after(&square)?
//!     .plus(&norm(4.0, 0.0, 0.0).after(&horizontal)?, &[])?
//!     .plus(&norm(-2.0, 1.0, 0.0).after(&vertical)?, &[])?;
//!
//! // Eq. 6: 1·square ⊕ 2·horizontal ⊕ (−1)·vertical.
//! assert_eq!(fused.kernel().as_slice().unwrap(), [1., 0., 1., 3., 2., 3., 1., 0., 1.]);
//! // Eq. 7: (0.5 − 1·1) + 0 + 1.
//! assert_eq!(fused.bias(), [0.5]);
//!
//! // Kernels without a common sliding window are not one kernel; the error says why.
//! let strided = Affine::conv(ones(&[1, 1, 1, 1]), &[], vec![Window::new(1, 2, 1, (0, 0)).unwrap(); 2], 1);
//! assert_eq!(square.plus(&strided, &[]).unwrap_err(), Refusal::Strides(1, 2, 0));
//! # Ok::<(), Refusal>(())
//! ```

#![allow(
    clippy::arithmetic_side_effects,
    reason = "a window's numbers stay below 2²⁴, which Window::bounded holds, and shapes were checked"
)]

mod axes;
mod branches;
mod compose;
mod dense;
mod geometry;
mod kernel;
mod limits;
mod linear;
mod macs;
mod magnitude;
mod part;
mod picked;
mod quantization;
mod refusal;
mod rows;
mod rules;
mod squares;
#[cfg(test)]
mod tests;
mod view;
mod window;
mod words;

pub use axes::AxisOrder;
pub use branches::{ApartKernels, DominantBranch, KernelBranch};
pub use geometry::{Channels, ConvKind, Geometry};
pub use kernel::{Affine, batch_norm, of_channel};
pub use linear::Linear;
pub use macs::Macs;
pub use magnitude::{Comparison, Magnitude, Spread, average};
pub use part::Part;
pub use picked::PickedChannels;
pub use quantization::{EachPiece, Int8Weights, LEAST_SQNR, MOST_LOST, RoundingNoise};
pub use refusal::Refusal;
pub use squares::{SquareIndex, Squares};
pub use view::{View, ViewedAxis};
pub use window::{PadMode, Window};
pub use words::{branch, times};
