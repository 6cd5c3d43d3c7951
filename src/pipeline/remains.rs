//! What remains of each graph once some of its tensors are computed differently: which nodes are
//! removed, and what the others still read.
//!
//! Knows graphs, and which tensors are replaced; does not know why or by what.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use std::collections::BTreeSet;

use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, IdSet, NodeId, OuterId, ValueId};
use crate::onnx::liveness;
use crate::onnx::proto::NodeProto;

/// The replacements in one graph.
#[derive(Debug, Default)]
pub struct Replaced {
    /// The replaced tensors, each with the roots from which it is computed now.
    pub blocks: Vec<(ValueId, Vec<ValueId>)>,
    /// Nodes that become their inference form, each with the tensors that this form reads.
    pub eval_forms: Vec<(NodeId, Vec<ValueId>)>,
    /// Tensors that nothing computes any more.
    pub dropped: IdSet<ValueId>,
}

impl Replaced {
    /// Joins the tensors of `blocks` with the nodes that become these inference `forms`.
    pub fn new(
        graph: &Graph,
        blocks: Vec<(ValueId, Vec<ValueId>)>,
        forms: &[(NodeId, NodeProto)],
    ) -> Self {
        let read =
            |form: &NodeProto| form.input.iter().filter_map(|name| graph.find(name)).collect();
        let eval_forms = forms.iter().map(|(id, form)| (*id, read(form))).collect();
        Replaced { blocks, eval_forms, dropped: dropped(graph, forms) }
    }
}

/// Returns the outputs that nodes lose with their training mode.
pub fn dropped(graph: &Graph, eval_forms: &[(NodeId, NodeProto)]) -> IdSet<ValueId> {
    let lost = eval_forms.iter().flat_map(|(id, form)| {
        graph.node(*id).outputs.iter().skip(form.output.len()).flatten().copied()
    });
    lost.collect()
}

/// Returns the number of nodes of the graphs once `new` nodes compute all that is `replaced`.
pub fn nodes_after(graphs: &[Graph], replaced: &[Replaced], new: usize) -> usize {
    let before: usize = graphs.iter().map(Graph::node_count).sum();
    let rests = Rest::of_all(graphs, replaced);
    let removed = graphs
        .iter()
        .zip(&rests)
        .map(|(graph, rest)| if rest.is_gone { graph.node_count() } else { rest.removed.len() });
    let removed: usize = removed.sum();
    (before + new).saturating_sub(removed)
}

/// What is left of a graph.
pub struct Rest {
    /// The nodes that are removed: replaced ones, and those that nothing needs any more. A node
    /// that was dead before is removed only if it would read a tensor that no longer exists.
    pub removed: BTreeSet<NodeId>,
    /// For each node with bodies, the tensors of this graph that the bodies still read.
    captured: IdMap<NodeId, Vec<ValueId>>,
    /// Whether the node whose body this graph is, or one further out, is removed.
    pub is_gone: bool,
}

impl Rest {
    /// Computes what is left of each graph when this is `replaced`.
    pub fn of_all(graphs: &[Graph], replaced: &[Replaced]) -> Vec<Rest> {
        let mut captured: Vec<IdMap<NodeId, Vec<ValueId>>> = vec![IdMap::default(); graphs.len()];
        let mut all = Vec::with_capacity(graphs.len());
        // Bodies first: the graph around them need not make what they no longer need.
        for (index, (graph, replaced)) in graphs.iter().zip(replaced).enumerate().rev() {
            let inside = captured.get_mut(index).map(std::mem::take).unwrap_or_default();
            let mut rest = Rest { removed: BTreeSet::new(), captured: inside, is_gone: false };
            rest.removed = rest.removed_nodes(graph, replaced);
            if let Some((outer, node)) = graph.outer
                && let Some(captured) = captured.get_mut(outer)
            {
                let roots = replaced.blocks.iter().flat_map(|(_, roots)| roots);
                let roots = roots.filter_map(|&root| graph.value(root).outer);
                let read = rest.captures(graph).chain(roots).map(OuterId::in_outer_graph);
                captured.entry(node).or_default().extend(read);
            }
            all.push(rest);
        }
        all.reverse();
        for (index, graph) in graphs.iter().enumerate() {
            let Some((outer, node)) = graph.outer else { continue };
            let around = all.get(outer);
            let is_gone = around.is_some_and(|rest| rest.is_gone || rest.removed.contains(&node));
            if let Some(rest) = all.get_mut(index) {
                rest.is_gone = is_gone;
            }
        }
        all
    }

    /// Returns the tensors of the graph around that the remaining nodes read.
    fn captures<'r>(&'r self, graph: &'r Graph) -> impl Iterator<Item = OuterId> + 'r {
        let nodes = graph.nodes().filter(|(id, _)| !self.removed.contains(id));
        let read = nodes.flat_map(|(id, _)| self.uses(graph, id));
        read.chain(graph.outputs.iter().copied()).filter_map(|id| graph.value(id).outer)
    }

    /// Returns the tensors that a node reads, now that its bodies are rewritten.
    pub fn uses<'r>(&'r self, graph: &'r Graph, id: NodeId) -> impl Iterator<Item = ValueId> + 'r {
        let node = graph.node(id);
        let captured = self.captured.get(&id).unwrap_or(&node.captured);
        node.inputs.iter().flatten().chain(captured).copied()
    }

    fn removed_nodes(&self, graph: &Graph, replaced: &Replaced) -> BTreeSet<NodeId> {
        let Replaced { blocks, eval_forms, dropped } = replaced;
        let eval_forms = eval_forms.iter().map(|(id, read)| (*id, read.as_slice()));
        let eval_forms: IdMap<NodeId, &[ValueId]> = eval_forms.collect();
        let replaced = blocks
            .iter()
            .filter_map(|(output, roots)| Some((graph.value(*output).producer?, roots.as_slice())));
        let replaced: IdMap<NodeId, &[ValueId]> = replaced.collect();
        let producer = |value| graph.value(value).producer;
        let reads = |node, open: &mut Vec<ValueId>| match replaced
            .get(&node)
            .or_else(|| eval_forms.get(&node))
        {
            Some(roots) => open.extend(*roots),
            None => open.extend(self.uses(graph, node)),
        };
        let live = liveness::needed(graph.node_count(), &graph.outputs, producer, reads);
        let mut removed = BTreeSet::new();
        for (id, _) in graph.nodes() {
            let reads_a_removed_one = || {
                if graph.uses(id).any(|value| dropped.contains(&value)) {
                    return true;
                }
                let mut producers = graph.uses(id).filter_map(|value| {
                    let producer = graph.value(value).producer?;
                    let kept = replaced.contains_key(&producer)
                        && graph.node(producer).output() == Some(value);
                    (!kept).then_some(producer)
                });
                producers.any(|producer| removed.contains(&producer))
            };
            let died = graph.is_live(id) && !live.contains(id);
            if died || replaced.contains_key(&id) || (!live.contains(id) && reads_a_removed_one()) {
                removed.insert(id);
            }
        }
        removed
    }
}
