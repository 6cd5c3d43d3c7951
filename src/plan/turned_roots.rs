//! Roots that another block makes with a Transpose as its last node: a term that turns such a
//! root back reads the tensor before the Transpose. If nobody else reads the root, it is not
//! made at all.
//!
//! *Example*: for `v = P(K(x))` and `y = L(R(P⁻¹(v)))`, with a Pad `R`, `t = K(x)` and
//! `y = L(R(t))` are written; `v = P(t)` is written only if somebody else reads `v`.
//!
//! Knows blocks and who reads what they make; does not know how they are written.

use crate::affine::Geometry;
use crate::emit::term::Term;
use crate::emit::turned::LastTurn;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, IdSet, NodeId, ValueId};
use crate::onnx::liveness;
use crate::ops::forms::NodeForms;
use crate::plan::block::{Block, Byproduct, Replacement, TurnedRoot};
use crate::plan::cost;

/// Returns the root that `block` makes of its by-product; `None` if its last node is no
/// Transpose.
fn made(block: &Block, forms: NodeForms) -> Option<TurnedRoot> {
    let turn = LastTurn::of(&block.terms, forms)?;
    let known = block.byproduct.as_ref().map(|byproduct| byproduct.name.clone());
    let byproduct = known.unwrap_or_else(|| format!("{}.nchw", block.stem));
    Some(TurnedRoot { root: block.region.output, byproduct, turn })
}

/// Notes which roots of `blocks` are read before they are turned, and which by-products others
/// read.
pub fn note(blocks: &mut [Block], forms: NodeForms) {
    let made = blocks.iter().filter_map(|block| made(block, forms));
    let made: IdMap<ValueId, TurnedRoot> = made.map(|turned| (turned.root, turned)).collect();
    let mut read: IdSet<ValueId> = IdSet::default();
    for block in blocks.iter_mut() {
        let skipped = |term: &Term<Geometry>| {
            let turned = made.get(&term.root)?;
            turned.skipped(term, forms).map(|_| (turned.root, turned.clone()))
        };
        let turned: IdMap<ValueId, TurnedRoot> = block.terms.iter().filter_map(skipped).collect();
        if turned.is_empty() {
            continue;
        }
        read.extend(turned.keys());
        block.turned_roots = turned.into_values().collect();
        let written = block.terms.iter().map(|term| block.written(term, forms));
        block.after = cost::of_sum(&written.collect::<Vec<_>>(), forms);
    }
    let makers = blocks.iter_mut().filter(|block| read.contains(&block.region.output));
    for block in makers.filter(|block| block.byproduct.is_none()) {
        let name = made.get(&block.region.output).map(|turned| turned.byproduct.clone());
        block.byproduct = name.map(|name| Byproduct { name, of_file: None });
    }
}

/// Returns the outputs of blocks that are read, once all blocks are replaced. Nodes that
/// nothing needs stay in a file, and read too.
pub fn outputs_read(graph: &Graph, replacements: &[Replacement]) -> IdSet<ValueId> {
    let producer = |value| graph.value(value).producer;
    let ends = replacements.iter().flat_map(|replacement| {
        let ends = replacement.made.iter().filter_map(|&made| producer(made));
        ends.map(move |end| (end, replacement))
    });
    let ends: IdMap<NodeId, &Replacement> = ends.collect();
    let reads = |node, open: &mut Vec<ValueId>| match ends.get(&node) {
        Some(replacement) => open.extend(&replacement.roots),
        None => open.extend(graph.uses(node)),
    };
    let live = liveness::needed(graph.node_count(), &graph.outputs, producer, reads);
    let outputs: IdSet<ValueId> =
        replacements.iter().filter_map(|replacement| replacement.made.first()).copied().collect();
    let mut read: IdSet<ValueId> = graph.outputs.iter().copied().collect();
    for (id, _) in graph.nodes().filter(|&(id, _)| live.contains(id) || !graph.is_live(id)) {
        match ends.get(&id) {
            Some(replacement) => read.extend(&replacement.read),
            None => read.extend(graph.uses(id)),
        }
    }
    outputs.intersection(&read).copied().collect()
}
