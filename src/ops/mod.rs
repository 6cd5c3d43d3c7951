//! What operators mean.

pub mod filled;
pub mod meaning;
pub mod meanings;
pub mod reader;
pub mod training;
