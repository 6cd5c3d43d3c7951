//! Three steps that show that a new file computes what the old one does.
//!
//! 1. Each rewrite is proved in float64 ([`proof`]): a [`claim`] says what it computes; the
//!    [`cone`] of old nodes is read from the [`original`] graph and taken into float64
//!    (`in_float64`); inputs are chosen from the old nodes ([`trials`], `small_trials`) and
//!    both sides are run on them (`trial_run`), some nodes at a time (`stages`), large kernels
//!    in `pieces`. A filled [`border`] is proved for itself. What was proved of a tensor is
//!    kept as its [`fingerprint`].
//! 2. What is written is read back ([`readback`]): the old file, but for what was proved, with
//!    the `same_data` wherever that lies.
//! 3. Both whole models are run ([`run`]): [`pairs`] says which nodes both have, the [`course`]
//!    what runs once for both and where both meet, for which `nature` knows what operators do
//!    to small differences. They go [`side_by_side`], each as a [`sliced_run`] through its
//!    [`slices`], and are [`compare`]d at the end, behind `steps`, before what is `saturated`,
//!    and, where whole models differ, piece by piece, by a `yardstick` for rounding; how far they
//!    may be apart follows from their [`float_types`]. Both are fed (`feeding`) at sizes of
//!    `sizes`, by what axes are `along`; the branches of Ifs are `decided`, a `bridge` leads over
//!    what the engine cannot run; one run says what was [`seen`], all together are the `evidence`,
//!    and what that showed is an [`outcome`]. At which sizes a model runs at all, [`runnable`] finds
//!    out.
//!
//! Knows the format, the engine, and of the file what is stored and how large tensors are;
//! is handed claims, nodes and tensors, and never asks the fuser anything.

mod along;
mod bodies;
pub mod border;
mod bridge;
pub mod claim;
pub mod compare;
pub mod cone;
mod cone_shapes;
pub mod course;
mod decided;
mod entries;
mod evidence;
mod feeding;
pub mod fingerprint;
pub mod float_types;
mod in_float64;
pub mod inputs;
mod nature;
mod nudged;
pub mod original;
pub mod outcome;
pub mod pairs;
mod pieces;
pub mod proof;
pub mod readback;
pub mod run;
pub mod runnable;
mod same_data;
mod saturated;
pub mod seen;
pub mod side_by_side;
mod sizes;
mod slice_model;
pub mod sliced_run;
pub mod slices;
mod small_trials;
mod stages;
mod steps;
mod trial_run;
pub mod trials;
mod whole_run;
mod yardstick;
