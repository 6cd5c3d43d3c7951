//! What a conversion was asked for, and what its checks were held to.
//!
//! Plain data, so that the same can be asked for once more; knows no file that was read.

use serde::Serialize;

/// The choices of the caller that decide what is fused and how it is verified.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RequestedOptions {
    /// Which factors channels may have; `None` if none were looked for.
    pub equalize: Option<&'static str>,
    /// Which identities stay apart from the kernels beside them.
    pub keep_identity: &'static str,
    /// Whether initializers that a caller may override stay.
    pub keep_overridable: bool,
    /// By which fraction of its parameters the model may grow by copies of kernels.
    pub growth: f64,
    /// Which nodes in training mode become their inference form.
    pub training_mode: &'static str,
    /// Names of blocks to leave alone.
    pub skip: Vec<String>,
    /// Shapes of inputs that the file leaves open.
    pub input_shapes: Vec<RequestedShape>,
    /// Inputs that were given, by name or by number.
    pub given_inputs: Vec<String>,
    /// How many inputs are run.
    pub samples: usize,
    /// Whether it fails if the whole model cannot be run.
    pub require_run: bool,
    /// Whether it fails if nothing is fused.
    pub require_fusion: bool,
    /// How long verification may take, in seconds.
    pub verify_seconds: u64,
    /// How many bytes the tensors of a run may take at a time.
    pub verify_bytes: usize,
}

/// The shape that a caller gave an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RequestedShape {
    /// The input's name.
    pub input: String,
    /// The shape.
    pub shape: Vec<usize>,
}

/// What random inputs were made from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Seeds {
    /// Those of the proofs, which no choice changes.
    pub proof: u64,
    /// Those of the first run of both models.
    pub run: u64,
}

/// By how much old and new may differ, relative to the largest value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AllowedDifferences {
    /// In a block's proof, which is in float64.
    pub proof: f64,
    /// In an output of the whole model in float64.
    pub float64: f64,
    /// In one in float32.
    pub float32: f64,
    /// In one in float16 or bfloat16.
    pub float16: f64,
}

/// What the model and its verification rest on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Versions {
    /// What ran old and new nodes, and its version.
    pub engine: &'static str,
    /// The file's version of the format; `None` if it could not be read.
    pub ir: Option<u64>,
    /// The file's version of ONNX's operators; `None` if it could not be read.
    pub opset: Option<i64>,
    /// The newest version of ONNX's operators that is known here.
    pub newest_opset: i64,
}

impl RequestedShape {
    /// Of this input.
    pub(crate) fn of((input, shape): (&String, &Vec<usize>)) -> Self {
        RequestedShape { input: input.clone(), shape: shape.clone() }
    }
}
