//! Helpers that tests share: fixtures, the tool, and judges that are none of its code.

pub mod cases;
pub mod counts;
pub mod engine;
pub mod fixtures;
pub mod geometries;
pub mod naive;
pub mod parallel;
pub mod results;
pub mod text;
pub mod tool;
