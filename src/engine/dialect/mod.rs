//! Models in words that tract knows: what it refuses, panics on or reads wrongly, written
//! otherwise, in ONNX. Of the engine, only these files name operators.
//!
//! [`model()`] takes a whole file through it, [`node`] one node; in training mode, a norm becomes
//! its steps (`norms`), an Einsum that sums nothing a product (`einsum`), an element of a sequence
//! a piece of a tensor (`sequences`); in float64, a Resize becomes its steps, too (`resized`). For
//! runs, bfloat16 becomes float32 ([`widened`]). What no other words help against is spared
//! (`spare`, `ranks`).

mod einsum;
mod model;
mod nodes;
mod norms;
pub(super) mod ranks;
mod resized;
mod sequences;
pub(super) mod spare;
mod steps;
pub mod widened;

pub use model::{flattened, misread, model, nodes};
pub use nodes::{at_inference, in_float64, node};
