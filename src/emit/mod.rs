//! The layer that writes: renders the terms of a normal form as nodes and weights.
//!
//! [`term`] defines what is written, `y = Σ L(r) + b`. [`layout`] says which nodes a map `L`
//! becomes, [`around`] which of them stand around its kernel, `in_a_row` what another kernel can
//! do in their place, and [`turned`] which Transpose ends a sum; the planner counts these nodes,
//! and [`nodes`] renders them. `seen_as` gives other readings of a term, which may merge with
//! another term, and `side_by_side` joins kernels that are rows of one kernel. [`weights`] are the
//! new initializers, computed when they are read. Everything is plain data: this layer knows no
//! graph, no reading of operators and no plan, and edits nothing.

pub mod around;
mod in_a_row;
pub mod layout;
pub mod nodes;
mod seen_as;
mod side_by_side;
pub mod term;
pub mod turned;
pub mod weights;
