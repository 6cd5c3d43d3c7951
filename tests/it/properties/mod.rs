//! What holds of every conversion, and that verification finds what does not hold.

mod detects;
mod invariants;
mod mutants;
mod slices;
pub mod table;
