//! Which graphs lie inside which node, at any depth.
//!
//! [`Graph::read_all`] is breadth-first: the bodies of one node are consecutive, and so are those
//! of all nodes of consecutive graphs. Binary search finds them without visiting all other graphs.
//!
//! Knows the indices of graphs; not what is in them.

use std::ops::Range;

use crate::onnx::graph::Graph;
use crate::onnx::ids::NodeId;

/// Returns the graphs inside node `id` of graph number `number` of `graphs` (see
/// [`Graph::read_all`]), at any depth, each after those that enclose it.
pub fn inside<'g, 'm>(
    graphs: &'g [Graph<'m>],
    number: usize,
    id: NodeId,
) -> impl Iterator<Item = &'g Graph<'m>> {
    let at = Some((number, id));
    let bodies = graphs.partition_point(|graph| graph.outer < at)
        ..graphs.partition_point(|graph| graph.outer <= at);
    let deeper = move |level: &Range<usize>| Some(bodies_of(graphs, level));
    let levels = std::iter::successors(Some(bodies), deeper).take_while(|level| !level.is_empty());
    levels.flat_map(|level| graphs.get(level).unwrap_or_default())
}

/// Returns the indices of the bodies of all nodes of the graphs with the indices `around`.
fn bodies_of(graphs: &[Graph], around: &Range<usize>) -> Range<usize> {
    let before = |place: usize| {
        graphs.partition_point(|graph| graph.outer.is_none_or(|(outer, _)| outer < place))
    };
    before(around.start)..before(around.end)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::onnx::model::Model;
    use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};
    use crate::onnx::storage::Storage;
    use crate::onnx::write;

    /// An If that computes `output`, with one body for each of these lists of nodes.
    fn branches(output: &str, bodies: Vec<Vec<NodeProto>>) -> NodeProto {
        let info =
            |name: &str| ValueInfoProto { name: Some(name.to_owned()), ..Default::default() };
        let body = |node: Vec<NodeProto>| {
            let output = node.last().map(|last| info(&last.output[0]));
            let g = GraphProto { node, output: output.into_iter().collect(), ..Default::default() };
            AttributeProto { g: Some(Box::new(g)), ..Default::default() }
        };
        write::node("If", output, &["x"], output, bodies.into_iter().map(body).collect())
    }

    #[test]
    fn what_lies_in_a_node_is_found_without_the_others() {
        let relu = |output: &str| write::node("Relu", output, &["x"], output, vec![]);
        let deep = branches("c", vec![vec![branches("d", vec![vec![relu("e")]; 2])]; 2]);
        let nodes = vec![
            branches("a", vec![vec![relu("f")]; 2]),
            relu("r"),
            branches("b", vec![vec![relu("g"), deep.clone()], vec![relu("h")], vec![deep]]),
            branches("z", vec![vec![relu("i")]]),
        ];
        let info = ValueInfoProto { name: Some("x".to_owned()), ..Default::default() };
        let proto = write::model(17, vec![info], nodes, vec![], &["a", "r", "b", "z"]);
        let model = Model::index(proto.encode_to_vec().into(), Storage::default()).unwrap();
        let graphs = Graph::read_all(&model).unwrap();
        let place = |graph: &Graph| graph.fields.container().payload.start;
        let mut counts = Vec::new();
        for (number, graph) in graphs.iter().enumerate() {
            for (id, node) in graph.nodes() {
                let lies = |inner: &&Graph| node.field.payload.contains(&place(inner));
                let expected: Vec<usize> = graphs.iter().filter(lies).map(place).collect();
                let found: Vec<usize> = inside(&graphs, number, id).map(place).collect();
                assert_eq!(found, expected, "{}", node.label());
                counts.push(found.len());
            }
        }
        assert_eq!(counts.iter().take(4).collect::<Vec<_>>(), [&2, &0, &15, &1]);
    }
}
