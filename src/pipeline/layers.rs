//! The layers of the model before and after, which only the report's drawing needs.
//!
//! Knows what was planned and made; decides nothing.

use std::collections::HashMap;

use crate::onnx::graph::Graph;
use crate::onnx::ids::NodeId;
use crate::onnx::node::Node;
use crate::pipeline::fate::Fate;
use crate::pipeline::make::Made;
use crate::pipeline::planned::Planned;
use crate::pipeline::remains::Rest;
use crate::plan::Block;
use crate::report::{Layer, Layers};

/// Upper bound on the layers that are told: nobody would look at a drawing of more.
const MOST: usize = 20_000;

/// Returns the layers of all graphs, in which blocks stand for their nodes: the blocks that were
/// made, or all planned ones if none was tried yet.
pub fn layers(planned: &Planned, made: Option<&Made>) -> Layers {
    let blocks = planned.analyses.iter().enumerate().map(|(graph, analysis)| {
        let fates = made.and_then(|made| made.fates.get(graph));
        let is_made = |place| {
            let fate = fates.and_then(|fates| fates.get(place));
            !matches!(fate, Some(Fate::LeftAlone(_)))
        };
        let blocks = analysis.plan.blocks.iter().enumerate();
        blocks.filter(|(place, _)| is_made(*place)).map(|(_, block)| block).collect()
    });
    let blocks: Vec<Vec<&Block>> = blocks.collect();
    let replaced = planned.analyses.iter().zip(&blocks);
    let replaced = replaced.map(|(analysis, blocks)| analysis.replaced(blocks.iter().copied()));
    let rests = Rest::of_all(planned.graphs, &replaced.collect::<Vec<_>>());
    let mut all = Layers::default();
    let mut first = 0usize;
    for (index, ((graph, rest), blocks)) in
        planned.graphs.iter().zip(&rests).zip(&blocks).enumerate()
    {
        let own = of_graph(graph, rest, blocks, first);
        first = first.saturating_add(blocks.len());
        for layer in (index > 0).then_some(Layer::Body).into_iter().chain(own) {
            if all.layers.len() < MOST {
                all.layers.push(layer);
            } else {
                all.left_out = all.left_out.saturating_add(1);
            }
        }
    }
    all
}

/// Returns the layers of one graph, the first of whose blocks has the number `first`.
fn of_graph(graph: &Graph, rest: &Rest, blocks: &[&Block], first: usize) -> Vec<Layer> {
    let goes = |id: &NodeId| rest.is_gone || rest.removed.contains(id);
    let mut owners: HashMap<NodeId, usize> = HashMap::new();
    let mut outputs: HashMap<NodeId, usize> = HashMap::new();
    for (place, block) in blocks.iter().enumerate() {
        owners.extend(block.removed.iter().map(|&id| (id, place)));
        outputs.extend(graph.value(block.region.output).producer.map(|id| (id, place)));
    }
    owners.extend(&outputs);
    let mut removed = vec![0usize; blocks.len()];
    for place in graph.nodes().filter(|(id, _)| goes(id)).filter_map(|(id, _)| owners.get(&id)) {
        if let Some(count) = removed.get_mut(*place) {
            *count = count.saturating_add(1);
        }
    }
    let layers = graph.nodes().filter_map(|(id, node)| match (outputs.get(&id), owners.get(&id)) {
        (Some(&place), _) => {
            let removed = removed.get(place).copied().unwrap_or_default();
            Some(Layer::Block { number: first.saturating_add(place), removed })
        }
        _ if !goes(&id) => Some(staying(node)),
        (None, Some(_)) => None,
        (None, None) => Some(Layer::Unread { operator: node.proto.op_type().to_owned() }),
    });
    layers.collect()
}

fn staying(node: &Node) -> Layer {
    Layer::Node {
        operator: node.proto.op_type().to_owned(),
        name: node.label().to_owned(),
        is_strided: node
            .ints("strides")
            .is_some_and(|strides| strides.iter().any(|&stride| stride > 1)),
    }
}
