//! The ONNX file format: what a model's bytes say, and new bytes from old ones.
//!
//! Knows protobuf and the ONNX messages. Knows nothing of convolutions being
//! linear, of engines, or of why somebody wants an entry replaced.

pub mod check;
pub mod data;
pub mod edit;
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
pub mod node;
pub mod proto;
pub mod schema;
pub mod sniff;
pub mod splice;
pub mod staged;
pub mod storage;
pub mod tensor;
pub mod training;
pub mod wire;
pub mod write;
