//! How many channels a tensor has, as far as the kernels around it tell.
//!
//! Knows meanings; no sizes.

use crate::onnx::ids::ValueId;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;

/// Scales and shifts in a row that are followed; real networks have three.
const MAX_WAY: usize = 8;

/// How many channels the kernel reads to which `tensor` leads by scales and shifts alone, if there
/// is one: behind an activation, nothing else tells.
pub fn read_by_kernel(reader: &Reader, meanings: &Meanings, mut tensor: ValueId) -> Option<usize> {
    for _ in 0..MAX_WAY {
        let next = *reader.graph.value(tensor).readers.first()?;
        match meanings.get(next)? {
            Meaning::Linear(_, LinearOp::Conv { geometry, .. }) => {
                return geometry.channels.map(|channels| channels.inputs);
            }
            Meaning::Linear(_, map) if map.is_pointwise() => {}
            Meaning::Alias(_) => {}
            _ => return None,
        }
        tensor = reader.graph.node(next).output()?;
    }
    None
}
