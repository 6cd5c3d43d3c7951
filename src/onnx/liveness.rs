//! Which nodes are needed: found by a backward search from the wanted tensors to their producers.
//!
//! Knows numbers of tensors and nodes. Callers supply the producers and the tensors read, of a
//! graph as it is or as it is going to be.

use crate::onnx::ids::{NodeId, Table, ValueId};

/// Returns the nodes, about `count` in number, that the `wanted` tensors need. `producer` returns
/// the node that produces a tensor, and `reads` appends the tensors that a node reads to a list.
pub fn needed(
    count: usize,
    wanted: &[ValueId],
    producer: impl Fn(ValueId) -> Option<NodeId>,
    reads: impl Fn(NodeId, &mut Vec<ValueId>),
) -> Table<NodeId, ()> {
    let mut needed = Table::of(count);
    let mut open = wanted.to_vec();
    while let Some(value) = open.pop() {
        let Some(node) = producer(value) else { continue };
        if needed.insert(node, ()).is_none() {
            reads(node, &mut open);
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_no_output_is_not_needed() {
        // Node i produces tensor i and reads tensor i − 2; no node produces tensors 0 and 1.
        let producer = |value: ValueId| (value.0 > 1).then_some(NodeId(value.0));
        let reads = |node: NodeId, open: &mut Vec<ValueId>| open.push(ValueId(node.0 - 2));
        let needed = needed(8, &[ValueId(5)], producer, reads);
        let found: Vec<u32> = (0..8).filter(|&id| needed.contains(NodeId(id))).collect();
        assert_eq!(found, [3, 5]);
    }
}
