//! The ONNX file format: what the bytes of a model say, and how new bytes are made from old ones.
//!
//! Reading, from the bottom up: [`wire`] finds fields in protobuf bytes, and [`schema`] has their
//! numbers. [`proto`] has the messages; [`model`] is a file of them, indexed and not yet decoded.
//! [`graph`] resolves the names of tensors to [`ids`], after [`sort`] has put the nodes in
//! topological order; [`node`] is one node, [`liveness`] finds the nodes that are needed, and
//! [`nested`] the graphs inside a node. [`info`] reads the declared type and shape of a tensor,
//! [`data`], [`tensor`], [`float`] and [`extremes`] its stored values, which [`storage`] finds in
//! the model or in side files (mapped by [`map`]), and [`notes`] its other fields; [`check`] checks
//! all stored tensors. [`equation`] parses the equation of an Einsum, [`windows`] the attributes of
//! sliding windows; [`training`] tells which nodes are in training mode, and [`sniff`] recognizes
//! files that are not ONNX models. [`inline`] replaces calls of local functions ([`callees`]) by
//! those nodes of the function that are needed ([`used_part`]).
//!
//! Writing: new bytes are old ones with edits ([`splice`], [`edit`]). [`write`] makes new
//! nodes, [`names`] new names, [`external`] the layout of side files. [`staged`] puts files in
//! place, and [`place`] tells whether two paths are the same file.
//!
//! Knows protobuf and the ONNX messages. Knows nothing of the linearity of convolutions, of
//! engines, or of why an entry is to be replaced.

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
