//! What a user should know besides the blocks and the places that were left alone.
//!
//! Knows plain data, and the caller's options that they name; decides nothing.

use serde::Serialize;

use crate::setting::Setting;

/// What a user should know besides.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Notes {
    /// The operator set of the model, if it is newer than the newest known one.
    pub newer_opset: Option<NewerOpset>,
    /// Number of nodes in training mode that are converted to inference, alone or as part of a
    /// block.
    pub inferred_nodes: usize,
    /// The nodes that are converted. In training mode, the file computed something else.
    pub converted_nodes: Vec<ConvertedNode>,
    /// Number of graph inputs that were removed because they only named folded weights.
    pub removed_inputs: usize,
    /// Shapes at which the model runs, for the inputs whose shapes the file leaves open; empty
    /// unless known sizes might help.
    pub open_sizes: Vec<OpenShape>,
    /// Names that several nodes of one graph share: ONNX Runtime refuses such a file.
    pub repeated_names: Vec<String>,
    /// Why the new files may not survive a power failure: what prevented their names from being
    /// flushed to disk.
    pub unsynced: Option<String>,
}

/// A shape for an input whose shape the file leaves open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OpenShape {
    /// The input's name.
    pub input: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The caller's option that fixes this shape, in words.
    #[serde(skip)]
    pub told: String,
}

/// An operator set that is newer than the newest known one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
#[non_exhaustive]
pub struct NewerOpset {
    /// The version in the model.
    pub model: i64,
    /// The newest known version.
    #[serde(skip)]
    pub known: i64,
}

/// A node in training mode that is converted to inference, alone or as part of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConvertedNode {
    /// The name of the node, or of its output if it has none.
    pub node: String,
    /// The operator of the node.
    pub operator: String,
    /// What the node computed before, and what it computes now.
    #[serde(skip)]
    pub change: &'static str,
}

impl OpenShape {
    /// Creates the entry of an input, given with its shape.
    pub(crate) fn of((input, shape): &(String, Vec<usize>)) -> Self {
        let (input, shape) = (input.clone(), shape.clone());
        let new = OpenShape { input, shape, told: String::new() };
        OpenShape { told: new.setting().to_string(), ..new }
    }

    pub(crate) fn setting(&self) -> Setting {
        let sizes: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        Setting::InputShape { input: self.input.clone(), example: sizes.join(",") }
    }
}
