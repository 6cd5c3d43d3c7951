//! The layers of the whole model in order: the nodes that stay, and the blocks between them.
//!
//! Plain data for a drawing; knows no graph.

/// The layers of a model, in the order of its nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layers {
    /// The first layers, as many as a drawing may have.
    pub layers: Vec<Layer>,
    /// Number of layers beyond these.
    pub left_out: usize,
}

/// A node, a block, or the beginning of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layer {
    /// A node that stays.
    Node {
        /// The operator of the node.
        operator: String,
        /// The name of the node, or of its output if it has none.
        name: String,
        /// Whether a stride of the node is larger than 1, so that its output has fewer
        /// positions.
        is_strided: bool,
    },
    /// A block, at the node that computes its output.
    Block {
        /// Index among the blocks of the report.
        number: usize,
        /// Number of nodes that the block removes.
        removed: usize,
    },
    /// A node, such as a constant, that goes because nothing reads it any more.
    Unread {
        /// The operator of the node.
        operator: String,
    },
    /// The beginning of a body of If, Loop or the like.
    Body,
}
