//! The whole model as its layers, in order: what stays, and where the blocks are.
//!
//! Plain data, for a drawing; knows no graph.

/// What the model is made of, node by node, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layers {
    /// The first ones.
    pub layers: Vec<Layer>,
    /// How many nodes are behind these.
    pub left_out: usize,
}

/// A node, or a block.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layer {
    /// A node that stays.
    Node {
        /// Its operator, or what it became.
        operator: String,
        /// Its name, else that of its output.
        name: String,
        /// Whether its windows are more than one position apart, so that it makes fewer.
        is_strided: bool,
    },
    /// A block, where its output is computed.
    Block {
        /// Its number among those of the report.
        number: usize,
        /// Nodes that go away for it.
        removed: usize,
    },
    /// A node that goes since nothing reads it any more, such as a constant.
    Unread {
        /// Its operator.
        operator: String,
    },
    /// Here begins a body of an If, Loop or the like.
    Body,
}
