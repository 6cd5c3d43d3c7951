//! What holds of every conversion, and that verification finds what does not hold.

mod cut_models;
mod detects;
mod equalized;
mod int8;
mod invariants;
mod mutants;
mod runs;
mod slices;
pub mod table;
