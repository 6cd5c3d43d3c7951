//! What is known of tensors, and what has to be.
//!
//! Knows the format's names for tensors; no engine and no mathematics.

mod demands;
mod integers;
mod layout;
mod products;
pub mod reach;
pub mod shape_rules;
pub mod validity;
mod windows;
