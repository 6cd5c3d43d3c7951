//! Rewrites models into operators that tract supports: what it refuses, panics on or reads
//! wrongly is written otherwise, in ONNX. Of the engine's files, only these name operators.
//!
//! [`model()`] rewrites a whole file, [`node`] one node. In training mode, a batch norm becomes
//! its steps (`norms`), an Einsum that sums nothing a product (`einsum`), and an element of a
//! sequence a piece of a tensor (`sequences`); in float64, a Resize becomes its steps, too
//! (`resized`). For runs, bfloat16 becomes float32 ([`widened`]). Models for which no rewriting
//! helps are kept from tract (`spare`, `ranks`).

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
