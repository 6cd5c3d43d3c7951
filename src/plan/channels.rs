//! The number of channels of a tensor, as far as the nodes around it tell.
//!
//! Knows meanings; does not know sizes.

use crate::onnx::ids::{NodeId, ValueId};
use crate::ops::meaning::{LinearOp, Meaning, ViewKernel};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;

/// Upper bound on the nodes that are looked at; in front of a kernel, real networks have three.
const MAX_LOOKED_AT: usize = 16;

/// Returns how many channels nodes read of `tensor`, or of what only scales, shifts, crops and
/// Transposes make of it, if a node tells; for a tensor behind an activation, nothing else
/// does.
pub fn channels_read(reader: &Reader, meanings: &Meanings, tensor: ValueId) -> Option<usize> {
    let (mut open, mut left) = (vec![tensor], MAX_LOOKED_AT);
    while let Some(tensor) = open.pop() {
        for &next in &reader.graph.value(tensor).readers {
            left = left.checked_sub(1)?;
            let read = read_by(reader, meanings, (tensor, next));
            if read.is_some() {
                return read;
            }
            if meanings.get(next).is_some_and(keeps_channels) {
                open.extend(reader.graph.node(next).output());
            }
        }
    }
    None
}

/// Returns how many channels of `tensor` node `next` reads, if this follows from its weights,
/// the channels that it picks, the size of the part that the tensor becomes, or the squares
/// that it cuts.
fn read_by(
    reader: &Reader,
    meanings: &Meanings,
    (tensor, next): (ValueId, NodeId),
) -> Option<usize> {
    let is_read = |other: ValueId| meanings.source(other) == meanings.source(tensor);
    match meanings.get(next)? {
        Meaning::Linear(_, LinearOp::Conv { geometry, .. }) => {
            geometry.channels.map(|channels| channels.inputs)
        }
        Meaning::Linear(_, LinearOp::Picked { of, .. }) => Some(*of),
        Meaning::Joined(operands) => {
            let mut along_channels = operands.iter().filter(|(part, _)| part.axis == 1);
            along_channels.find(|(_, operand)| is_read(*operand)).map(|(part, _)| part.size)
        }
        Meaning::Linear(_, LinearOp::View(_)) => {
            let behind = |id: NodeId| {
                let made = reader.graph.node(id).output();
                let readers = made.map(|made| reader.graph.value(made).readers.as_slice());
                readers.unwrap_or_default().iter().copied().take(MAX_LOOKED_AT)
            };
            // One view that cuts squares, or the first of three that do so together.
            let mut views = [next].into_iter().chain(behind(next).flat_map(behind));
            views.find_map(|id| match meanings.get(id)? {
                Meaning::Linear(input, LinearOp::View(view)) => match &view.kernel {
                    Some(ViewKernel::Squares(squares, first)) => {
                        let root = first.map_or(*input, |first| first.root);
                        is_read(root).then_some(squares.channels)
                    }
                    _ => None,
                },
                _ => None,
            })
        }
        _ => None,
    }
}

/// Whether a node makes as many channels as it reads.
fn keeps_channels(meaning: &Meaning) -> bool {
    match meaning {
        Meaning::Alias(_) | Meaning::Linear(_, LinearOp::Transpose { .. }) => true,
        Meaning::Linear(_, LinearOp::Filter { order, .. }) => order.axis(1) == 1,
        Meaning::Linear(_, map) => map.is_pointwise(),
        _ => false,
    }
}
