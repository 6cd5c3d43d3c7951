//! What will be rewritten: blocks, their names, and their cost before and after.
//!
//! [`rounds`] asks the search ([`cuts`]) which regions of the graph may be one sum of
//! convolutions and should end where; each [`region`] is evaluated to its normal form
//! `y = Σ L(r) + b`, whose terms [`merge`] where that is legal, and [`decide`] says whether it
//! becomes a [`block`]: if its result has fewer nodes and no more weights and multiply-adds
//! than what goes away ([`cost`], [`share`]), and if its weights exist in the model's type
//! ([`fit`]). A block is told by its [`name`] and its branches ([`describe`]); [`missed`]
//! reads off the search what nearly was one.
//!
//! Writes nothing; what is decided here can be printed.
//!
//! Knows meanings and maps; not how a node is written.

mod anchor;
mod block;
mod cost;
mod cuts;
mod decide;
mod describe;
mod dissolved;
mod fit;
mod merge;
mod missed;
mod name;
mod region;
mod rounds;
mod share;
mod tails;

pub use block::Block;
pub use cost::Count;
pub use name::BlockNames;
pub use region::WeightError;
pub use rounds::{Plan, plan};
