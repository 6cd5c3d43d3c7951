//! The proof of one rewrite: old nodes and new ones as two tiny float64 models.
//!
//! The real weights, widened, against the fused ones before rounding. That those which are
//! written are these, correctly rounded, is for [`super::seal`] and [`super::written`].

use prost::Message;
use prost::bytes::Bytes;

use super::feed::Random;
use super::{largest_difference, largest_magnitude, relative};
use crate::engine::{Array, Constant, Engine, EngineError, Limits, Source, normal};
use crate::onnx::build;
use crate::onnx::proto::NodeProto;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// Old and new outputs must agree to this, relative to the largest value on the way to
/// them: where terms cancel, what is left is as exact as they were. Right rewrites agree
/// to 1e-15; with 1e-10, a weight that is off by a millionth would hide beside a bias of
/// ten thousand times its size.
pub const TOLERANCE: f64 = 1e-12;

/// Inputs of a proof have less elements; those of real blocks have thousands.
const MAX_ELEMENTS: usize = 1 << 22;

/// One side of a comparison.
#[derive(Debug, Clone, Default)]
pub struct Side {
    /// Nodes in topological order.
    pub nodes: Vec<NodeProto>,
    /// Constants that they read; floats in float64.
    pub constants: Vec<Constant>,
}

/// Everything that a proof needs.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Version of the default operator set.
    pub opset: i64,
    /// Names of the tensors that both sides read.
    pub roots: Vec<String>,
    /// The tensor that both sides compute.
    pub output: String,
    /// Shapes of the roots, one list per trial.
    pub trials: Vec<Vec<Vec<usize>>>,
    /// The nodes as they were read.
    pub old: Side,
    /// The nodes that will be written.
    pub new: Side,
}

/// Why a rewrite is not proved.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unproved {
    /// The engine could not run one side.
    #[error("its proof could not be run: {0}")]
    NotRun(#[from] EngineError),
    /// Every border case of its windows occurs only in inputs beyond reason.
    #[error("its windows are too wide to be proved on a small input")]
    TooWide,
    /// Of the sizes that the file gives, the block makes nothing.
    #[error("on inputs of these sizes its output has no elements, so nothing can be compared")]
    NoElements,
    /// The two sides differ.
    #[error(
        "old and new nodes differ by {error:.1e} of the largest value (allowed: {TOLERANCE:.0e})"
    )]
    Differs {
        /// The largest relative difference.
        error: f64,
    },
}

/// Proves that both sides compute the same; returns the largest relative difference.
///
/// # Errors
/// If they do not, or if the engine cannot tell.
pub fn prove(claim: &Claim, limits: Limits) -> Result<f64, Unproved> {
    let elements = |shape: &Vec<usize>| shape.iter().fold(1usize, |a, &b| a.saturating_mul(b));
    if claim.trials.iter().flatten().map(elements).any(|elements| elements > MAX_ELEMENTS) {
        return Err(Unproved::TooWide);
    }
    // Of the old side, every tensor.
    let ways = claim.old.nodes.iter().filter_map(|node| node.output.first());
    let ways = ways.filter(|&name| *name != claim.output).map(String::as_str);
    let outputs: Vec<&str> = [claim.output.as_str()].into_iter().chain(ways).collect();
    let old = claim.model(&claim.old, &outputs);
    let new = claim.model(&claim.new, &[&claim.output]);
    let mut random = Random::new(1);
    let mut largest = 0.0f64;
    for shapes in &claim.trials {
        let inputs: Vec<Array> = shapes.iter().map(|shape| random.floats(shape)).collect();
        let run = |bytes: &Bytes, side: &Side| {
            let (bytes, constants) = (bytes.clone(), side.constants.clone());
            let source = Source { bytes, constants, storage: Storage::default(), limits };
            Engine::load(source, shapes)?.run(&inputs)
        };
        let (expected, found) = (run(&old, &claim.old)?, run(&new, &claim.new)?);
        let error = match (expected.as_slice(), found.as_slice()) {
            ([first, ..], _) if first.shape().contains(&0) => return Err(Unproved::NoElements),
            ([first, ..], [found]) => {
                let magnitude = expected.iter().map(largest_magnitude).fold(0.0, f64::max);
                relative(largest_difference(first, found), magnitude)
            }
            _ => f64::INFINITY,
        };
        if error.is_nan() || error > TOLERANCE {
            return Err(Unproved::Differs { error });
        }
        largest = largest.max(error);
    }
    Ok(largest)
}

impl Claim {
    /// The nodes of one side; its constants are handed over beside them.
    fn model(&self, side: &Side, outputs: &[&str]) -> Bytes {
        let rank = |index: usize| {
            let shape = self.trials.first().and_then(|trial| trial.get(index));
            shape.map_or(0, Vec::len)
        };
        let inputs = self.roots.iter().enumerate();
        let inputs = inputs.map(|(index, name)| build::double_input(name, rank(index))).collect();
        let nodes = side.nodes.iter().flat_map(|node| side.normalised(node, self.opset)).collect();
        let model = build::model(self.opset, inputs, nodes, Vec::new(), outputs);
        model.encode_to_vec().into()
    }
}

impl Side {
    /// A node as tract takes it, with one output. A batch norm that is in training mode
    /// stays so, and the claim is of batch statistics then.
    fn normalised(&self, node: &NodeProto, opset: i64) -> Vec<NodeProto> {
        let constant = |name: &str| {
            let named = self.constants.iter().find(|constant| constant.name() == name);
            named.map(|constant| &constant.header)
        };
        let integers = |name: &str| tensor::integers(constant(name)?, &Storage::default()).ok();
        let node = NodeProto { doc_string: None, metadata_props: Vec::new(), ..node.clone() };
        if !normal::evaluates(&node, opset, &integers) {
            return normal::node(node, opset, &integers);
        }
        let mut node = node;
        node.output.truncate(1);
        match node.op_type() {
            "Identity" | "Cast" | "Dropout" => {
                // Same-type casts, or the walk would have stopped.
                node.op_type = Some("Identity".into());
                node.input.truncate(1);
                node.attribute.clear();
            }
            "BatchNormalization" => {
                node.attribute
                    .retain(|attribute| matches!(attribute.name(), "epsilon" | "is_test"));
            }
            _ => {}
        }
        normal::node(node, opset, &integers)
    }
}
