//! Three steps that show that a new file computes what the old one does.
//!
//! 1. Each rewrite is proved in float64 ([`proof`]): a [`claim`] says what it computes; the
//!    [`cone`] of old nodes is read from the [`original`] graph and taken into float64
//!    (`in_float64`); inputs are chosen from the old nodes ([`trials`], `small_trials`) and both
//!    sides are run on them (`trial_run`). A filled [`border`] is proved for itself. What was
//!    proved of a tensor is kept as its [`fingerprint`].
//! 2. What is written is read back ([`readback`]): the old file, but for what was proved.
//! 3. Both whole models are run ([`run`]), each as a [`sliced_run`] through its [`slices`];
//!    what that showed is an [`outcome`].
//!
//! Knows the format, the engine, and of the file what is stored and how large tensors are;
//! is handed claims, nodes and tensors, and never asks the fuser anything.

pub mod along;
pub mod border;
pub mod claim;
pub mod compare;
pub mod cone;
mod cone_shapes;
mod entries;
pub mod fingerprint;
mod in_float64;
pub mod inputs;
pub mod last_bits;
pub mod original;
pub mod outcome;
pub mod proof;
pub mod readback;
pub mod run;
#[cfg_attr(
    not(any(test, feature = "unstable")),
    expect(dead_code, reason = "the run does not choose sizes by it yet")
)]
pub mod sizes;
pub mod sliced_run;
pub mod slices;
mod small_trials;
mod trial_run;
pub mod trials;
