//! The layer that writes: from the terms of a normal form to nodes and weights.
//!
//! [`term`] is what is written, `y = Σ L(r) + b`; [`layout`] says which nodes a map `L`
//! becomes, for the planner to count and for [`nodes`] to render; [`weights`] are the new
//! initializers, computed when they are read. Everything is plain data: no graph, no reading
//! of operators and no plan is known here, and nothing is edited.

pub mod layout;
pub mod nodes;
pub mod term;
pub mod weights;
