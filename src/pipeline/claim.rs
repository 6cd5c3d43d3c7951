//! What is claimed of one block: the nodes in its place compute what its nodes computed,
//! from the same tensors, for the inputs that its meanings are right for.
//!
//! Knows the plan and what verification is told, which do not know each other.

use crate::onnx::ids::ValueId;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::Block;
use crate::verify::border::FilledBorder;
use crate::verify::claim::{Claim, Side};

/// The claim that `new` nodes compute what `block`'s nodes compute.
pub fn claim(reader: &Reader, meanings: &Meanings, block: &Block, new: Side) -> Claim {
    let mut roots: Vec<ValueId> = block.terms.iter().map(|term| term.root).collect();
    roots.sort_unstable();
    roots.dedup();
    let borders = block.region.nodes.iter().filter_map(|&id| match meanings.get(id)? {
        Meaning::Linear(_, LinearOp::Bordered { map, inner, windows, .. }) => Some(FilledBorder {
            inner: *inner,
            output: reader.graph.node(id).output()?,
            pads: windows.iter().map(|window| window.pads()).collect(),
            values: map.shift().to_vec(),
        }),
        _ => None,
    });
    let (valid, output) = (block.valid.clone(), block.region.output);
    Claim { output, roots, valid, borders: borders.collect(), new }
}
