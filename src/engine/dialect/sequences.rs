//! Elements of sequences, as pieces of tensors: tract does not support sequences, and
//! `torch.export` without its optimizer writes every split as one (`SplitToSequence`,
//! `SequenceAt`).
//!
//! Knows two nodes of one graph, the one that makes a sequence and the one that reads it, and
//! their integer operands.

use crate::onnx::graph::Graph;
use crate::onnx::node::{Node, from_front};
use crate::onnx::proto::NodeProto;
use crate::onnx::write::{self, AxisSlice};

/// Rewrites a node that reads a sequence as nodes that read the tensors of which the sequence is
/// made. Returns `None` if `node` reads no sequence, or one that no node of `graph` makes of
/// known pieces. `integers` looks up constants.
pub fn of_tensors(
    graph: &Graph,
    node: &Node,
    integers: &dyn Fn(&str) -> Option<Vec<i64>>,
) -> Option<Vec<NodeProto>> {
    if !matches!(node.standard_op()?, "SequenceAt" | "ConcatFromSequence") {
        return None;
    }
    let sequence = graph.node(graph.value(node.input(0)?).producer?);
    let output = &graph.value(node.output()?).name;
    match (node.standard_op()?, sequence.standard_op()?) {
        ("SequenceAt", made) => {
            let [position] = integers(graph.value(node.input(1)?).name)?[..] else { return None };
            match made {
                "SplitToSequence" => piece(graph, sequence, position, output, integers),
                "SequenceConstruct" => {
                    let at = from_front(position, sequence.inputs.len())?;
                    let element = &graph.value(sequence.input(at)?).name;
                    Some(vec![write::node("Identity", "", &[element], output, Vec::new())])
                }
                _ => None,
            }
        }
        ("ConcatFromSequence", "SequenceConstruct") if node.int("new_axis", 0) == 0 => {
            let axis = node.attribute("axis")?.i();
            let elements = sequence.inputs.iter().flatten();
            let elements: Vec<&str> = elements.map(|&element| graph.value(element).name).collect();
            Some(vec![write::concat(&elements, output, axis)])
        }
        _ => None,
    }
}

/// Returns the nodes that make the element at `position` of the sequence of `split`
/// (`SplitToSequence`). The second input of `split` is the size of each piece if it is a scalar,
/// or a list of the sizes of the pieces; without it, pieces have one element.
fn piece(
    graph: &Graph,
    split: &Node,
    position: i64,
    output: &str,
    integers: &dyn Fn(&str) -> Option<Vec<i64>>,
) -> Option<Vec<NodeProto>> {
    let axis = split.int("axis", 0);
    let input = &graph.value(split.input(0)?).name;
    let (start, end) = match split.input(1) {
        None if split.int("keepdims", 1) == 0 => return None,
        None if position == -1 => (-1, i64::MAX),
        None => (position, position.checked_add(1)?),
        Some(sizes) => match &integers(graph.value(sizes).name)?[..] {
            sizes if sizes.iter().any(|&size| size < 0) => return None,
            // The number of pieces is not known, so a position cannot be counted from the end.
            [size] if position >= 0 => {
                let start = position.checked_mul(*size)?;
                (start, start.checked_add(*size)?)
            }
            [_] => return None,
            sizes => {
                let at = from_front(position, sizes.len())?;
                let start = sizes.get(..at)?.iter().try_fold(0i64, |a, &b| a.checked_add(b))?;
                (start, start.checked_add(*sizes.get(at)?)?)
            }
        },
    };
    let cut = AxisSlice { axis, start, end };
    Some(write::slice(graph.model.opset, input, output, &[cut]).with_constants().collect())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::onnx::model::Model;
    use crate::onnx::storage::Storage;
    use crate::onnx::tensor;

    /// The operator, operands and `keepdims` of the node that makes a sequence; the position
    /// that is read; and the expected result.
    type ReadElement =
        (&'static str, &'static [&'static str], Option<i64>, &'static str, &'static str);

    /// Cases of a sequence made of `a` (or of `a`, `b`), a position, and the expected result,
    /// which for a Slice includes start and end along axis 1.
    const READ: [ReadElement; 17] = [
        ("SplitToSequence", &["a", "4"], None, "0", "Slice a 0..4"),
        ("SplitToSequence", &["a", "4"], None, "2", "Slice a 8..12"),
        ("SplitToSequence", &["a", "4"], None, "-1", "as it is"),
        ("SplitToSequence", &["a", "-4"], None, "1", "as it is"),
        ("SplitToSequence", &["a", "other"], None, "1", "as it is"),
        ("SplitToSequence", &["a", "4"], None, "other", "as it is"),
        ("SplitToSequence", &["a", "2 4 1"], None, "0", "Slice a 0..2"),
        ("SplitToSequence", &["a", "2 4 1"], None, "2", "Slice a 6..7"),
        ("SplitToSequence", &["a", "2 4 1"], Some(0), "-2", "Slice a 2..6"),
        ("SplitToSequence", &["a", "2 4 1"], None, "3", "as it is"),
        ("SplitToSequence", &["a"], None, "2", "Slice a 2..3"),
        ("SplitToSequence", &["a"], Some(1), "-1", "Slice a -1..9223372036854775807"),
        ("SplitToSequence", &["a"], Some(0), "2", "as it is"),
        ("SequenceConstruct", &["a", "b"], None, "-2", "Identity a"),
        ("SequenceConstruct", &["a", "b"], None, "2", "as it is"),
        ("SequenceConstruct", &["a", "b"], None, "joined", "Concat a b"),
        ("SequenceErase", &["a", "b"], None, "0", "as it is"),
    ];

    fn listed(name: &str) -> Option<Vec<i64>> {
        name.split(' ').map(|number| number.parse().ok()).collect()
    }

    #[test]
    fn an_element_is_a_piece_of_a_tensor() {
        for (made_by, operands, keepdims, at, expected) in READ {
            let mut told = vec![write::int("axis", 1)];
            told.extend(keepdims.map(|keeps| write::int("keepdims", keeps)));
            let maker = write::node(made_by, "", operands, "s", told);
            let reader = match at {
                "joined" => {
                    write::node("ConcatFromSequence", "", &["s"], "y", vec![write::int("axis", 1)])
                }
                at => write::node("SequenceAt", "", &["s", at], "y", Vec::new()),
            };
            let read = operands.iter().chain([&at]).filter(|name| **name != "joined");
            let read = read.map(|name| tensor::from_integers(name, &[])).collect();
            let bytes = write::model(17, vec![], vec![maker, reader], read, &["y"]);
            let model = Model::index(bytes.encode_to_vec().into(), Storage::default()).unwrap();
            let graphs = Graph::read_all(&model).unwrap();
            let graph = &graphs[0];
            let (_, reader) = graph.nodes().last().unwrap();
            let found = of_tensors(graph, reader, &listed);
            let Some(last) = found.as_ref().and_then(|nodes| nodes.last()) else {
                assert_eq!(expected, "as it is", "{made_by} {operands:?} {at}");
                continue;
            };
            let stored = |name: &String| {
                let makes = |node: &&NodeProto| node.output.first() == Some(name);
                let constant = found.iter().flatten().find(makes)?.attribute.first()?;
                constant
                    .t
                    .as_ref()
                    .map(|held| i64::from_le_bytes(held.raw_data()[..].try_into().unwrap()))
            };
            let bounds: Vec<i64> = last.input.iter().filter_map(stored).collect();
            let told = match (last.op_type(), &bounds[..]) {
                ("Slice", [start, end, 1]) => format!("Slice {} {start}..{end}", last.input[0]),
                _ => format!("{} {}", last.op_type(), last.input.join(" ")),
            };
            assert_eq!(told, expected, "{made_by} {operands:?} {at}");
        }
    }
}
