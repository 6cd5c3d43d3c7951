//! All integration tests except those that need an allocator of their own, in one binary:
//! `cargo test --test it operators::shapes` runs the tests of one file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod algebra;
mod files;
mod operators;
mod properties;
mod shape;
mod support;
mod tool;
