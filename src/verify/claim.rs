//! The claim about a block, in words that need no fuser: which tensor is computed from which, by
//! which new nodes, and for which inputs; and the reasons why a claim is not proved.
//!
//! Plain values: a claim knows no file, and not how it is proved.

use std::sync::Arc;

use crate::engine::{Constant, EngineError, dialect};
use crate::facts::validity::Validity;
use crate::onnx::data::TensorError;
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::proto::NodeProto;
use crate::setting::Setting;
use crate::verify::border::FilledBorder;

/// Tolerance of a proof: how far old and new outputs may be apart, relative to the largest value
/// on the way to them; where terms cancel, what is left is only as exact as they were. Right
/// rewrites agree to 1e-15; with 1e-10, a weight that is off by a millionth would hide beside a
/// bias of ten thousand times its size.
pub const TOLERANCE: f64 = 1e-12;

/// One side of a comparison.
#[derive(Debug, Clone, Default)]
pub struct Side {
    /// Nodes in topological order.
    pub nodes: Vec<NodeProto>,
    /// Constants that they read, with floats in float64.
    pub constants: Vec<Constant>,
}

impl Side {
    /// Adds a node, converted to float64.
    pub fn push(&mut self, node: NodeProto) {
        let numbers =
            |name: &str| self.constants.iter().find(|constant| constant.name() == name)?.list();
        let (nodes, factors) = dialect::in_float64(node, &numbers);
        self.nodes.extend(nodes);
        let factors = factors.into_iter();
        self.constants.extend(
            factors.map(|(name, factor)| Constant::doubles(&name, &[], Arc::new(vec![factor]))),
        );
    }
}

/// The claim that new nodes compute what those of the file compute.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The tensor that both sides compute.
    pub output: ValueId,
    /// The tensors that both sides read.
    pub roots: Vec<ValueId>,
    /// The conditions on the inputs under which the claim is right.
    pub valid: Validity,
    /// Borders whose filling was taken for what the nodes inside them give there.
    pub borders: Vec<FilledBorder>,
    /// Transpose nodes of other claims, each of which makes a root: what it reads follows from
    /// that root, and new nodes may read it.
    pub turned: Vec<NodeProto>,
    /// The nodes that will be written.
    pub new: Side,
}

/// Reasons why a rewrite is not proved.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unproved {
    /// The engine could not run one side.
    #[error("its proof could not be run: {0}")]
    NotRun(EngineError),
    /// A stored tensor is malformed.
    #[error("its proof could not be run: {0}")]
    Malformed(String),
    /// The old nodes read a tensor that the new ones do not.
    #[error("its old nodes read `{0}` too, so it cannot be proved")]
    ReadsElse(String),
    /// There are more old nodes than a proof takes.
    #[error("it has more than {0} nodes, so it is not proved")]
    TooManyNodes(usize),
    /// A node rounds its operand.
    #[error("node `{0}` casts to another type, so it cannot be proved")]
    Rounds(String),
    /// A norm takes its statistics from the batch.
    #[error("node `{0}` is in training mode, so it cannot be proved")]
    Trains(String),
    /// The engine does not compute a constant.
    #[error("the constant `{0}` could not be computed, so it cannot be proved")]
    NotComputed(String),
    /// A constant is rounded to bfloat16 on its way, which changes it by more than the run takes
    /// for rounding.
    #[error(
        "the constant `{0}` is rounded to bfloat16 on its way, which the run does not do, so it \
         cannot be proved"
    )]
    RoundedOften(String),
    /// The claim is narrower than what the file and the user leave open.
    #[error("it is right only where {0}, which the model does not promise")]
    TooNarrow(String),
    /// The dimensions of a tensor that has to be fed are unknown.
    #[error("the dimensions of `{0}` are not known, so it cannot be proved")]
    SizeUnknown(String),
    /// Tensors may have any rank, in too many combinations.
    #[error("the number of dimensions of `{0}` is not known, so it cannot be proved")]
    RankUnknown(String),
    /// No sizes fit all nodes.
    #[error("no sizes up to 4096 were found at which it could be proved")]
    NoSizes,
    /// The inputs, or a tensor on the way, are larger than anything that is tried.
    #[error("its proof would take {0} elements, more than are tried")]
    TooLarge(usize),
    /// At the sizes that the file gives, the output of the block has no elements.
    #[error("on inputs of these sizes its output has no elements, so nothing can be compared")]
    NoElements,
    /// A tensor on the way is not finite.
    #[error("its old nodes give infinity, so it cannot be proved")]
    NotFinite,
    /// The two sides differ.
    #[error(
        "old and new nodes differ by {error:.1e} of the largest value (allowed: {TOLERANCE:.0e})"
    )]
    Differs {
        /// The largest relative difference.
        error: f64,
    },
    /// A border is not what it was taken for, at some size or for some content.
    #[error("the border of `{0}` is not filled with what the nodes inside it give, at all sizes")]
    BorderDiffers(String),
}

impl Unproved {
    /// Returns the caller's choice that allows more, if a limit was met.
    pub fn setting(&self) -> Option<Setting> {
        match self {
            Unproved::NotRun(error) => error.setting(),
            _ => None,
        }
    }

    /// Returns whether the rewrite is wrong; otherwise nobody can tell.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Unproved::Differs { .. })
    }
}

impl From<EngineError> for Unproved {
    fn from(error: EngineError) -> Self {
        Unproved::NotRun(error)
    }
}

impl From<Invalid> for Unproved {
    fn from(invalid: Invalid) -> Self {
        Unproved::Malformed(invalid.to_string())
    }
}

impl From<TensorError> for Unproved {
    fn from(error: TensorError) -> Self {
        Unproved::Malformed(error.to_string())
    }
}
