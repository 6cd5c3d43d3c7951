//! Folds the training-time convolution blocks of an ONNX model into single
//! convolutions, and proves that nothing changed.
//!
//! Bytes in, bytes out:
//!
//! ```
//! use acb_fuse::{Options, fuse};
//!
//! let model = std::fs::read("fixtures/networks/cifar_quick/torchscript_kept_static.onnx")?;
//! let fused = fuse(&model, &Options::default())?;
//! assert_eq!(fused.report.blocks.len(), 3);
//! assert!(fused.report.blocks.iter().all(|block| block.proof.is_some()));
//! assert!(fused.model.len() < model.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Inspecting a model says what would be fused, what would not, and why:
//!
//! ```
//! use acb_fuse::{Options, inspect};
//!
//! let model = std::fs::read("fixtures/networks/cifar_quick/torchscript_kept_static.onnx")?;
//! let report = inspect(&model, &Options::default())?;
//! assert_eq!(report.blocks[0].branches, "5×5 + 1×5 + 5×1");
//! for miss in &report.near_misses {
//!     println!("{} is left alone: {}", miss.node, miss.reason);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The algebra on a single kernel: a batch norm is folded into the convolution before it.
//!
//! ```
//! use acb_fuse::algebra::{Affine, Linear, Window, batch_norm};
//! use ndarray::ArrayD;
//!
//! let window = Window::new(3, 1, 1, (1, 1)).ok_or("no window")?;
//! let kernel = ArrayD::from_elem(vec![1, 1, 3, 3], 2.0);
//! let convolution = Affine::conv(kernel, &[], vec![window; 2], 1);
//! let (scale, shift) = batch_norm(&[3.0], &[5.0], &[1.0], &[4.0], 0.0);
//! let fused = Affine::diagonal(&scale, &shift).after(&convolution)?;
//! assert_eq!((fused.kernel()[[0, 0, 0, 0]], fused.bias()), (3.0, &[3.5][..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A conversion passes through the modules of this crate in the following order:
//!
//! ```text
//! model ─▶ opened ─▶ planned ─▶ made ─▶ checked ─▶ delivered
//! ```
//!
//! The `pipeline` *opens* the file: `onnx` reads its graphs, and `facts` collects what is known of
//! their tensors. It *plans*: `ops` says what each node means in terms of [`algebra`], and `plan`
//! finds the regions that one convolution can replace at a lower cost. It *makes* these
//! convolutions: `emit` writes each as nodes and weights, and `verify` proves in float64, with the
//! `engine`, that they compute what the region computed. The new file is *checked*, that is, read
//! back and run against the old one, before it is *delivered*, that is, put in its place. The
//! [`report`] is made from these values, as far as the conversion has come.
//!
//! Without its default feature `cli`, the crate is the library alone. Its feature `unstable` makes
//! all modules public for this repository's tests, benches and fuzzing; nothing in them is stable
//! from one version to the next.

// With the lints in `Cargo.toml`: nothing in a file can make the product panic.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::string_slice))]
// Modules that are public only for tests need not make all their types nameable.
#![cfg_attr(feature = "unstable", allow(unnameable_types))]

use std::path::Path;

pub use engine::{Array, InputShapes, running_time};
pub use error::Error;
pub use onnx::place::{FileKey, file_keys, is_same_file};
pub use onnx::staged::{Clobber, remove_staged};
pub use onnx::storage::Links;
pub use options::{
    Endpoint, Equalize, KeepIdentity, Options, Progress, RunOptions, TrainingMode, Which,
};
use pipeline::deliver::Destination;
pub use pipeline::failure::Failure;
pub use pipeline::given::tensor_from_onnx;
pub use pipeline::occupied::side_file_names;
use pipeline::open::ModelSource;
use pipeline::{Conversion, Converted};
use report::Report;
pub use setting::{Setting, told};

/// A fused model and the report on it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fused {
    /// The new model; byte for byte the old one if nothing had to change.
    pub model: Vec<u8>,
    /// The report on what was done.
    pub report: Report,
}

/// Fuses a model in memory. The model must contain its weights: side files cannot be followed.
///
/// # Errors
/// Returns an error if the model is malformed, or fails verification.
pub fn fuse(model: &[u8], options: &Options) -> Result<Fused, Failure> {
    let (source, destination) = (ModelSource::Memory(model), Some(Destination::Memory));
    let Converted { report, model } = Conversion { source, destination, options }.carry_out()?;
    Ok(Fused { model: model.unwrap_or_default().to_vec(), report })
}

/// Fuses the model in file `input` to file `output`, which may be the same.
///
/// # Errors
/// Returns an error if the model cannot be read, is malformed, fails verification, or cannot be
/// written. Nothing is written then.
pub fn fuse_file(input: &Path, output: &Path, options: &Options) -> Result<Report, Failure> {
    let (source, destination) = (ModelSource::File(input), Some(Destination::File(output)));
    let converted = Conversion { source, destination, options }.carry_out()?;
    Ok(converted.report)
}

/// Reports what would be fused in a model in memory, what would not, and why. The model must
/// contain its weights.
///
/// # Errors
/// Returns an error if the model is malformed.
pub fn inspect(model: &[u8], options: &Options) -> Result<Report, Failure> {
    let source = ModelSource::Memory(model);
    Ok(Conversion { source, destination: None, options }.carry_out()?.report)
}

/// Reports what would be fused in the model in file `input`, what would not, and why. Weights in
/// its side files are read, too.
///
/// # Errors
/// Returns an error if the model cannot be read, or is malformed.
pub fn inspect_file(input: &Path, options: &Options) -> Result<Report, Failure> {
    let source = ModelSource::File(input);
    Ok(Conversion { source, destination: None, options }.carry_out()?.report)
}

/// Fuses a model from a file or pipe to another one; without `output` it only inspects the model.
///
/// # Errors
/// As [`fuse_file`].
pub fn convert(
    input: &Endpoint,
    output: Option<&Endpoint>,
    options: &Options,
) -> Result<Report, Failure> {
    let source = match input {
        Endpoint::File(path) => ModelSource::File(path),
        Endpoint::Pipe => ModelSource::Pipe,
    };
    let destination = output.map(|output| match output {
        Endpoint::File(path) => Destination::File(path),
        Endpoint::Pipe => Destination::Pipe,
    });
    Ok(Conversion { source, destination, options }.carry_out()?.report)
}

/// The mathematics alone: windows, kernels, and their sum ⊕, in float64.
pub mod algebra {
    pub use crate::affine::{
        Affine, AxisOrder, Channels, ConvKind, Geometry, Linear, Macs, PadMode, Part,
        PickedChannels, Refusal, SquareIndex, Squares, View, ViewedAxis, Window, batch_norm,
    };
    pub use crate::numbers::LazyWeights;
}

pub mod report;

pub mod error;
mod options;

#[cfg(not(feature = "unstable"))]
mod affine;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod affine;
#[cfg(not(feature = "unstable"))]
mod emit;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod emit;
#[cfg(not(feature = "unstable"))]
mod engine;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod engine;
#[cfg(not(feature = "unstable"))]
mod equalize;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod equalize;
#[cfg(not(feature = "unstable"))]
mod facts;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod facts;
#[cfg(not(feature = "unstable"))]
mod numbers;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod numbers;
#[cfg(not(feature = "unstable"))]
mod onnx;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod onnx;
#[cfg(not(feature = "unstable"))]
mod ops;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod ops;
#[cfg(not(feature = "unstable"))]
mod pipeline;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod pipeline;
#[cfg(not(feature = "unstable"))]
mod plan;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod plan;
#[cfg(not(feature = "unstable"))]
mod refusal;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod refusal;
mod setting;
#[cfg(not(feature = "unstable"))]
mod verify;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod verify;
