//! Plans what will be rewritten: the blocks, their names, and their cost before and after.
//!
//! The planner works on a graph of its own, the [`net`]. [`rounds`] repeats [`passes`] over the
//! tensors around which something [`changes`]: the search ([`cuts`], and [`together`] for steps
//! that pay only jointly) asks from where each tensor should be computed, where each way of
//! computing it is a [`candidate`], and [`eliminate`] asks which tensors all their readers
//! should do without. A change is made if, together with what goes away ([`mffc`]), it leaves
//! fewer nodes and no more weights and multiply-adds ([`cost`], which counts a number that
//! shifts several [`channels`] once for each), until no change does.
//!
//! What is planned for a tensor is a [`form`], made by one of the [`recipes`]; its terms
//! [`merge`] where that is legal, or are [`stacked`]. It takes the place of a [`region`] of the
//! file ([`replaced`] says which nodes of it go away). [`decide`] says whether the region
//! becomes a [`block`]: its weights must exist in the model's type ([`fit`]), a [`border`] in it
//! must be what it was taken for, and it must be right for the sizes that are known. [`keep`]
//! says which branch is kept apart from its kernel.
//!
//! Kernels that others read too are copied as far as the caller wants it ([`copies`]); a kernel
//! that nodes compute is stored in their place ([`computed`]); a tensor that a block makes on
//! the way is its [`byproduct`], which others read in the place of [`turned_roots`]. A block is
//! reported by its [`name`] and its branches ([`describe`]). [`missed`] reads off the graph what
//! was nearly a block, and which norms, scales and shifts stay outside of blocks ([`stays`]);
//! both ask [`nearly`] what a single node looks like.
//!
//! Writes nothing; what is decided here can be printed.
//!
//! Knows meanings and maps; does not know how a node is written.

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
