//! The model as its layers, before and after: for the report's drawing alone.
//!
//! Knows what was planned and made; decides nothing.

use std::collections::HashMap;

use crate::onnx::ids::{IdSet, NodeId};
use crate::onnx::node::Node;
use crate::pipeline::make::{Fate, Made};
use crate::pipeline::planned::Planned;
use crate::report::{Layer, Layers};

/// So many layers are told: a drawing of more would be seen by nobody.
const MOST: usize = 20_000;

/// The layers of all graphs, if the blocks that were made, or all that are planned if none was
/// tried yet, stand for their nodes.
pub fn layers(planned: &Planned, made: Option<&Made>) -> Layers {
    let mut all = Layers::default();
    let mut number = 0usize;
    for (index, analysis) in planned.analyses.iter().enumerate() {
        let graph = analysis.reader.graph;
        let fates = made.and_then(|made| made.fates.get(index));
        let mut outputs: HashMap<NodeId, usize> = HashMap::new();
        let mut removed: IdSet<NodeId> = IdSet::default();
        for (place, block) in analysis.plan.blocks.iter().enumerate() {
            if matches!(fates.and_then(|fates| fates.get(place)), Some(Fate::LeftAlone(_))) {
                continue;
            }
            removed.extend(block.removed.iter().copied());
            outputs.extend(graph.value(block.region.output).producer.map(|node| (node, number)));
            number = number.saturating_add(1);
        }
        let body = (index > 0).then_some(Layer::Body);
        let nodes = graph.nodes().filter_map(|(id, node)| match outputs.get(&id) {
            Some(&block) => Some(Layer::Block(block)),
            None => (!removed.contains(&id)).then(|| layer(node)),
        });
        for layer in body.into_iter().chain(nodes) {
            if all.layers.len() < MOST {
                all.layers.push(layer);
            } else {
                all.left_out = all.left_out.saturating_add(1);
            }
        }
    }
    all
}

fn layer(node: &Node) -> Layer {
    Layer::Node {
        operator: node.proto.op_type().to_owned(),
        name: node.label().to_owned(),
        is_strided: node
            .ints("strides")
            .is_some_and(|strides| strides.iter().any(|&stride| stride > 1)),
    }
}
