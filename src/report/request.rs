//! What a conversion was asked for, and the bounds of its checks.
//!
//! Plain data, so that the same can be asked for again; knows no file that was read.

use serde::Serialize;

/// The caller's options that decide what is fused and how it is verified.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RequestedOptions {
    /// The kind of factors that channels may have; `None` if none were looked for.
    pub equalize: Option<&'static str>,
    /// Which identity branches stay apart from the kernels beside them.
    pub keep_identity: &'static str,
    /// Whether initializers that a caller may override are kept.
    pub keep_overridable: bool,
    /// The fraction of its parameters by which the model may grow through copies of kernels.
    pub growth: f64,
    /// Which nodes in training mode are converted to inference.
    pub training_mode: &'static str,
    /// Names of the blocks that are left alone.
    pub skip: Vec<String>,
    /// Shapes of inputs whose shapes the file leaves open.
    pub input_shapes: Vec<RequestedShape>,
    /// Names or numbers of the inputs that were given.
    pub given_inputs: Vec<String>,
    /// Number of inputs that the models are run on.
    pub samples: usize,
    /// Whether the conversion fails if the whole model cannot be run.
    pub require_run: bool,
    /// Whether the conversion fails if nothing is fused.
    pub require_fusion: bool,
    /// Time limit of verification, in seconds.
    pub verify_seconds: u64,
    /// Upper bound on the bytes of a run's tensors at any time.
    pub verify_bytes: usize,
}

/// The shape that the caller gave for an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RequestedShape {
    /// The input's name.
    pub input: String,
    /// The shape.
    pub shape: Vec<usize>,
}

/// The seeds of the random inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Seeds {
    /// The seed of the proofs, which no option changes.
    pub proof: u64,
    /// The seed of the first run of both models.
    pub run: u64,
}

/// The allowed differences between old and new, relative to the largest value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AllowedDifferences {
    /// The bound for a block's proof, which is in float64.
    pub proof: f64,
    /// The bound for a float64 output of the whole model.
    pub float64: f64,
    /// The bound for a float32 output.
    pub float32: f64,
    /// The bound for a float16 or bfloat16 output.
    pub float16: f64,
}

/// The versions on which the model and its verification depend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Versions {
    /// Name and version of the engine that ran the old and new nodes.
    pub engine: &'static str,
    /// The version of the ONNX format (IR) in the file; `None` if it could not be read.
    pub ir: Option<u64>,
    /// The operator set of the file; `None` if it could not be read.
    pub opset: Option<i64>,
    /// The newest known operator set.
    pub newest_opset: i64,
}

impl RequestedShape {
    /// Creates the entry of an input, given with its shape.
    pub(crate) fn of((input, shape): (&String, &Vec<usize>)) -> Self {
        RequestedShape { input: input.clone(), shape: shape.clone() }
    }
}
