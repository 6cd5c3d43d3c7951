//! How many channels a tensor has, as far as the kernels around it tell.
//!
//! Knows meanings; no sizes.

use crate::onnx::ids::ValueId;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;

/// Nodes that are looked at: in front of a kernel, real networks have three.
const MAX_LOOKED_AT: usize = 16;

/// How many channels a kernel reads to which `tensor` leads by scales, shifts and Transposes alone,
/// if there is one: behind an activation, nothing else tells.
pub fn read_by_kernel(reader: &Reader, meanings: &Meanings, tensor: ValueId) -> Option<usize> {
    let (mut open, mut left) = (vec![tensor], MAX_LOOKED_AT);
    while let Some(tensor) = open.pop() {
        for &next in &reader.graph.value(tensor).readers {
            left = left.checked_sub(1)?;
            match meanings.get(next) {
                Some(Meaning::Linear(_, LinearOp::Conv { geometry, .. })) => {
                    return geometry.channels.map(|channels| channels.inputs);
                }
                Some(Meaning::Alias(_) | Meaning::Linear(_, LinearOp::Transpose { .. })) => {
                    open.extend(reader.graph.node(next).output());
                }
                Some(Meaning::Linear(_, map)) if map.is_pointwise() => {
                    open.extend(reader.graph.node(next).output());
                }
                _ => {}
            }
        }
    }
    None
}
