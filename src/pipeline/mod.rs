//! From file to file.

pub mod claim;
pub mod counts;
pub mod deliver;
pub mod edits;
pub mod fuse;
pub mod make;
pub mod open;
pub mod summary;
