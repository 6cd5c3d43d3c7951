//! Tests of the shape of the code: what it is made of, and which room may use which.

mod architecture;
mod dependencies;
mod documents;
mod refusals;
