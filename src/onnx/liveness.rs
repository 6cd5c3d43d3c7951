//! Which nodes are needed: followed from what is wanted back to what makes it.
//!
//! Knows numbers of tensors and nodes. Who makes a tensor and what a node reads is for the
//! caller to say, of a graph as it is or as it will be.

use crate::onnx::ids::{NodeId, Table, ValueId};

/// The nodes that `wanted` tensors need, of about `count`: `producer` says which node makes a
/// tensor, and `reads` adds the tensors that a node reads to a list.
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
        // Tensor i is made by node i, which reads tensor i − 2; nobody makes tensors 0 and 1.
        let producer = |value: ValueId| (value.0 > 1).then_some(NodeId(value.0));
        let reads = |node: NodeId, open: &mut Vec<ValueId>| open.push(ValueId(node.0 - 2));
        let needed = needed(8, &[ValueId(5)], producer, reads);
        let found: Vec<u32> = (0..8).filter(|&id| needed.contains(NodeId(id))).collect();
        assert_eq!(found, [3, 5]);
    }
}
