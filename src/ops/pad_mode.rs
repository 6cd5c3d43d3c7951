//! ONNX's names for the modes of padding, as they are read and written.
//!
//! Knows names; no node.

use crate::affine::PadMode;

/// Returns the padding mode of this name, or `None` if there is no such mode.
pub fn named(mode: &[u8]) -> Option<PadMode> {
    let all = [PadMode::Zero, PadMode::Reflect, PadMode::Edge, PadMode::Wrap];
    all.into_iter().find(|&border| name(border).as_bytes() == mode)
}

/// Returns the name of the mode of a Pad that puts `border` around its input.
pub fn name(border: PadMode) -> &'static str {
    match border {
        PadMode::Zero | PadMode::SameUpper | PadMode::SameLower => "constant",
        PadMode::Reflect => "reflect",
        PadMode::Edge => "edge",
        PadMode::Wrap => "wrap",
    }
}
