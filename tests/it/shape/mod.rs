//! The shape of the code: what it is made of, and who may use whom.

mod architecture;
mod dependencies;
mod documents;
mod refusals;
