//! What else a user should know, besides blocks and what was left alone.
//!
//! Knows data, and the choices of a caller that they name.

use serde::Serialize;

use crate::setting::Setting;

/// What else a user should know.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Notes {
    /// The model's operator set, if it is newer than what is known here.
    pub newer_opset: Option<NewerOpset>,
    /// How many nodes in training mode became, or went into, their inference form.
    pub inferred_nodes: usize,
    /// These nodes. Before, the file computed something else.
    pub converted_nodes: Vec<ConvertedNode>,
    /// Graph inputs that went because they only named folded weights.
    pub removed_inputs: usize,
    /// Shapes of inputs that the file leaves open, at which the model runs; where sizes that
    /// are known would help.
    pub open_sizes: Vec<OpenShape>,
    /// Names that several nodes of one graph have: ONNX Runtime refuses such a file.
    pub repeated_names: Vec<String>,
    /// Why it is not known that the new files would outlive a power failure.
    pub unsynced: Option<String>,
}

/// A shape for an input that the file leaves open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OpenShape {
    /// The input's name.
    pub input: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The choice of the caller that this is, in words.
    #[serde(skip)]
    pub told: String,
}

/// An operator set that is newer than those that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
#[non_exhaustive]
pub struct NewerOpset {
    /// The model's.
    pub model: i64,
    /// The newest one that is known.
    #[serde(skip)]
    pub known: i64,
}

/// A node in training mode that became, or went into, its inference form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConvertedNode {
    /// Its name, else that of its output.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// What it computed before, and what it does now.
    #[serde(skip)]
    pub change: &'static str,
}

impl OpenShape {
    /// Of this input.
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
