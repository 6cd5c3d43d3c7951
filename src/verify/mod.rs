//! Shows, in three steps, that a new file computes what the old one does.
//!
//! 1. Each rewrite is proved in float64 ([`proof`]). A [`claim`] says what it computes; the
//!    [`cone`] of old nodes is read from the [`original`] graph and taken into float64
//!    (`in_float64`); inputs are chosen from the old nodes ([`trials`], `small_trials`), and
//!    both sides are run on them (`trial_run`), some nodes at a time (`stages`) and large
//!    kernels in `pieces`. A filled [`border`] is proved separately. What was proved of a tensor
//!    is kept as its [`fingerprint`].
//! 2. The file to be written is read back ([`readback`]): it must be the old file except for
//!    what was proved, with the `same_data` wherever that data lies.
//! 3. Both whole models are run ([`run`]). [`pairs`] says which nodes both have, and the
//!    [`course`] what runs once for both and where both runs meet, for which `nature` knows what
//!    operators do to small differences. The models go [`side_by_side`], each as a
//!    [`sliced_run`] through its [`slices`]. They are [`compare`]d at the end, behind `steps`,
//!    in front of what is `saturated` and, where whole models differ, piece by piece with a
//!    `yardstick` for rounding; how far apart they may be follows from their [`float_types`].
//!    Both are fed (`feeding`) at sizes from `sizes`, chosen by what the axes run `along`; the
//!    branches of If nodes are `decided`, and a `bridge` leads over nodes that the engine cannot
//!    run. One run yields what was [`seen`], all runs together the `evidence`, and what that
//!    shows is an [`outcome`]. [`runnable`] finds out at which sizes a model runs at all.
//!
//! Knows the format, the engine, and of the file what is stored and how large tensors are; is
//! handed claims, nodes and tensors, and never asks the fuser anything.

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
