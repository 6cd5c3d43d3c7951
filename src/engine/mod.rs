//! tract behind a border: the only room that names it.
//!
//! A [`Source`] goes in: the bytes of a model that the [`dialect`] put into words that tract
//! knows, constants beside it, and [`Limits`]. `parse` gives it to tract under names that tract
//! cannot misread (`names`), and with `norms` that it survives. From there on it is run: whole and once ([`Engine`]), or as one
//! slice of a larger model, which takes the tensors of those before it ([`stage`]); or it is
//! asked what follows from the shapes of its inputs ([`infer()`]). What tract's plain operators do
//! in too much memory (`convolutions`) or too slowly (`half_precision`) others do in its plan.
//!
//! Whatever happens inside tract, a panic, a loop without an end, is an [`EngineError`] like any
//! other: it works in a thread of its own (`guard`), which is given up when its time by the
//! `clock` is over.

mod clock;
mod convolutions;
pub mod dialect;
mod guard;
mod half_precision;
mod infer;
mod limits;
mod load;
mod memory;
mod names;
mod norms;
mod parse;
mod source;
pub mod stage;
pub mod tensors;

pub use clock::running_time;
pub use infer::{Inference, infer};
pub use limits::{EngineError, Limits};
pub use load::{Engine, evaluate};
pub use memory::check as memory_for;
pub use source::{Constant, Source};
pub use tensors::{Array, InputShapes};

/// What runs here, and the version that this was built for: that of `Cargo.lock`, which a test
/// holds.
pub const ENGINE: &str = "tract 0.23.9";
