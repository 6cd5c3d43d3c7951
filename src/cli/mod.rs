//! The command line: what was asked for, for one file or many, and what to say.

pub mod arguments;
pub mod many;
mod npy;
pub mod show;
pub mod tensors;
