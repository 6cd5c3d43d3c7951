//! tract behind a border: no other room names it.
//!
//! A [`Source`] goes in: the bytes of a model that [`dialect`] has rewritten into operators that
//! tract supports, constants beside these bytes, and [`Limits`]. `parse` hands it to tract,
//! under names that tract cannot misread (`names`) and with a check on batch norms that could
//! end the process (`norms`). The model is then run, either whole and once ([`Engine`]) or as
//! one slice of a larger model, which takes the tensors of the slices before it ([`stage`]); or
//! tract is asked what follows from the shapes of its inputs ([`infer()`]). Where tract's plain
//! operators take too much memory (`convolutions`) or too much time (`half_precision`), others
//! take their place in the plan.
//!
//! Whatever happens inside tract, even a panic or an endless loop, is an [`EngineError`] like
//! any other: tract works in a thread of its own (`guard`), which is abandoned when its time, as
//! measured by the `clock`, is over.

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

/// The engine and the version of it that this crate was built for: the one in `Cargo.lock`, as a
/// test checks.
pub const ENGINE: &str = "tract 0.23.9";
