//! The ONNX file format: what a model's bytes say, and new bytes from old ones.
//!
//! From below: [`wire`] finds fields in bytes and [`schema`] gives their numbers; [`proto`]
//! has the messages, [`model`] a file of them, indexed and not yet decoded. [`graph`] resolves
//! names to [`ids`], with a [`node`] each and the [`liveness`] of all, once [`sort`] has put nodes
//! in order, and which graphs are [`nested`] in which node; [`info`] reads what is declared of a tensor, [`data`], [`tensor`], [`float`] and
//! [`extremes`] what is stored of it, [`storage`] finds it in side files ([`map`]), and [`check`]
//! looks at everything that is stored, [`notes`] are what else is said of it; of an Einsum, [`equation`] is read; [`training`] tells what
//! is in training mode, [`sniff`] what is no ONNX file. [`inline`] puts local functions
//! ([`callees`]) in the places of their calls, as far as that is [`used_part`].
//! New bytes are old ones with edits ([`splice`], [`edit`]): new entries come from [`write`]
//! under new [`names`], side files from [`external`], and [`staged`] puts files in place;
//! whether two paths are one file, [`place`] knows.
//!
//! Knows protobuf and the ONNX messages. Knows nothing of convolutions being
//! linear, of engines, or of why somebody wants an entry replaced.

pub mod callees;
pub mod check;
pub mod data;
pub mod edit;
pub mod equation;
pub mod external;
pub mod extremes;
pub mod float;
pub mod graph;
pub mod ids;
pub mod info;
pub mod inline;
pub mod liveness;
pub mod map;
pub mod model;
pub mod names;
pub mod nested;

pub mod node;
pub mod notes;
pub mod place;
pub mod proto;
pub mod schema;
pub mod sniff;
pub mod sort;
pub mod splice;
pub mod staged;
pub mod storage;
pub mod tensor;
pub mod training;
mod used_part;
pub mod windows;
pub mod wire;
pub mod write;
