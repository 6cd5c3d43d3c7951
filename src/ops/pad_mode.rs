//! ONNX's words for what stands around a tensor that is padded, as they are read and written.
//!
//! Knows words; no node.

use crate::affine::PadMode;

/// What a Pad of this mode puts around its input; `None` if there is no such mode.
pub fn named(mode: &[u8]) -> Option<PadMode> {
    let all = [PadMode::Zero, PadMode::Reflect, PadMode::Edge, PadMode::Wrap];
    all.into_iter().find(|&border| name(border).as_bytes() == mode)
}

/// The mode of a Pad that puts `border` around its input.
pub fn name(border: PadMode) -> &'static str {
    match border {
        PadMode::Zero | PadMode::SameUpper | PadMode::SameLower => "constant",
        PadMode::Reflect => "reflect",
        PadMode::Edge => "edge",
        PadMode::Wrap => "wrap",
    }
}
