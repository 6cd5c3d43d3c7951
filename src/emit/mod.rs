//! The layer that writes: from the terms of a normal form to nodes and weights.
//!
//! [`term`] is what is written, `y = Σ L(r) + b`; [`layout`] says which nodes a map `L`
//! becomes, [`around`] which of them stand around its kernel, `in_a_row` what another kernel does
//! of these, and [`turned`] which turn a sum ends with, for the planner to count and for [`nodes`]
//! to render; `seen_as` says how a term may be seen to merge with another, `side_by_side` which
//! kernels are rows of one. [`weights`] are the new initializers, computed when they are read.
//! Everything is plain data: no graph, no reading of operators and no plan is known here, and
//! nothing is edited.

pub mod around;
mod in_a_row;
pub mod layout;
pub mod nodes;
mod seen_as;
mod side_by_side;
pub mod term;
pub mod turned;
pub mod weights;
