//! The layer that writes.

pub mod layout;
pub mod nodes;
