//! The shape rules of ONNX's operators.
//!
//! A rule holds for every valid node: what it says is true whatever else the graph holds. What a
//! rule does not know, it does not say. The table of [`operators`](crate::facts::operators) says
//! which rule belongs to which operator; `tests/it/operators/shapes.rs` compares every row with
//! ONNX's own shapes.
//!
//! Each rule is a function of what is [`asked`]. They are sorted by what an operator does to its
//! elements: [`elementwise`], [`axes`], [`pieces`], [`along`], [`resize`], [`windows`],
//! [`products`], [`made`]. [`integers`] follows short lists of sizes element by element, and
//! [`demands`] reads the rules backwards. Answers are numbers and names of sizes, as in
//! [`extent`]. No rule knows an operator's name.

pub(super) mod along;
pub(super) mod asked;
pub(super) mod axes;
pub(super) mod demands;
pub(super) mod elementwise;
pub(super) mod extent;
pub(super) mod integers;
pub(super) mod made;
pub(super) mod pieces;
pub(super) mod products;
pub(super) mod resize;
pub(super) mod windows;

pub use asked::{Dims, Integers, MAX_RANK, Operands};
#[cfg(feature = "unstable")]
pub use asked::{SymbolicOperands, agreed};
#[cfg(feature = "unstable")]
pub use extent::{Extent, Extents, NamedSize};

pub use crate::facts::inference::{input_dims, output_dims, output_integers};
pub use resize::resize_lists;
