//! What will be rewritten: blocks, their names, and their cost before and after.
//!
//! The planner has a graph of its own, a [`net`]. [`rounds`] asks, in [`passes`] over where something
//! [`changes`], the search ([`cuts`], and what pays only [`together`]) from where each tensor should
//! be computed (each way of that is a [`candidate`]), and [`eliminate`] which tensors all their
//! readers should do without: if with what goes away ([`mffc`]) that makes fewer nodes, and no more
//! weights and multiply-adds ([`cost`], which counts a number that shifts several [`channels`] once
//! for each), until nothing does. What is planned for a tensor is a [`form`], made by one of the [`recipes`],
//! whose terms [`merge`] where that is legal, or are [`stacked`], and takes the place of a
//! [`region`] of the file ([`replaced`] says what of it goes); [`decide`] says whether it becomes
//! a [`block`]: if its weights exist in the model's type ([`fit`]), a [`border`] in it is what it
//! was taken for, and it is right for the sizes that are known; and which branch is kept apart
//! from its kernel ([`keep`]). Copies of kernels that others read too are made as far as that is
//! wanted ([`copies`]); a kernel that nodes compute is stored in their place ([`computed`]); a
//! tensor that a block makes on the way is its [`byproduct`], which others read in the place of
//! [`turned_roots`]. A block is told by its [`name`] and its branches ([`describe`]); [`missed`]
//! reads off the graph what nearly was one, and what [`stays`] beside none; both ask [`nearly`]
//! what a single node looks like.
//!
//! Writes nothing; what is decided here can be printed.
//!
//! Knows meanings and maps; not how a node is written.

mod block;
mod border;
mod byproduct;
mod candidate;
mod changes;
mod channels;
mod computed;
mod copies;
mod cost;
mod cuts;
mod decide;
mod describe;
mod eliminate;
mod fit;
mod form;
mod keep;
mod merge;
mod mffc;
mod missed;
mod name;
mod nearly;
mod net;
mod passes;
mod recipes;
mod refused;
mod region;
mod replaced;
mod rounds;
mod share;
mod shifted;
mod stacked;
mod stays;
mod tails;
mod together;
mod turned_roots;

pub use block::{Block, Replacement, TurnedRoot};
pub use cost::Count;
pub use keep::{KeptBranch, parted};
pub use name::BlockNames;
pub use recipes::WeightError;
pub use refused::UnprovedBlock;
pub use rounds::{Plan, Wanted, plan, without_copies};
pub use turned_roots::outputs_read;
