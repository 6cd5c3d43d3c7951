//! Which tensors depend on what the model is given; all others are the same for every input.
//!
//! Knows the graph and its constants; knows no operator by name, and no size.

use crate::facts::constants::Constants;
use crate::facts::operators::operator;
use crate::facts::row::InputsRead;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{Table, ValueId};
use crate::onnx::node::Node;

/// Tensors of one graph that depend on an input of the main graph.
#[derive(Debug, Default)]
pub struct Dependence {
    tensors: Table<ValueId, ()>,
}

impl Dependence {
    /// Returns the dependent tensors of each graph (see [`Graph::read_all`]). An initializer
    /// that a caller may override is an input only if it is not one of the `constants`.
    pub fn find_all<'c, 'g: 'c, 'm: 'g>(
        graphs: &[Graph],
        constants: impl IntoIterator<Item = &'c Constants<'g, 'm>>,
    ) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::with_capacity(graphs.len());
        for (graph, constants) in graphs.iter().zip(constants) {
            let outer = graph.outer.map(|(outer, node)| (graphs.get(outer), all.get(outer), node));
            let found = match outer {
                Some((Some(around), Some(outer), node)) => {
                    // A body that reads only what never changes makes nothing that changes.
                    let is_given = around.uses(node).any(|used| outer.contains(used));
                    Self::find(graph, constants, Some(outer), is_given)
                }
                _ => Self::find(graph, constants, None, true),
            };
            all.push(found);
        }
        all
    }

    fn find(graph: &Graph, constants: &Constants, outer: Option<&Self>, is_given: bool) -> Self {
        let mut found = Dependence::default();
        for (id, value) in graph.values().filter(|&(id, _)| !constants.contains(id)) {
            let depends = match (value.outer, outer) {
                // If two tensors have one name, either may be meant.
                (Some(outside), Some(outer)) => {
                    outer.contains(outside.in_outer_graph()) || value.is_ambiguous && is_given
                }
                _ => value.input.is_some() && is_given,
            };
            if depends {
                found.tensors.insert(id, ());
            }
        }
        for (id, node) in graph.nodes() {
            let depends = match values_read(node) {
                Some(inputs) => inputs.iter().flatten().any(|&input| found.contains(input)),
                None => graph.uses(id).any(|used| found.contains(used)),
            };
            if depends {
                let outputs = node.outputs.iter().flatten().copied();
                found.tensors.extend(outputs.filter(|&output| !constants.contains(output)));
            }
        }
        found
    }

    /// Whether `id` depends on an input.
    pub fn contains(&self, id: ValueId) -> bool {
        self.tensors.contains(id)
    }
}

/// Returns the inputs whose values a node reads, if it reads no more than the sizes or the type
/// of the others; `None` if it reads the values of all inputs.
fn values_read(node: &Node) -> Option<&[Option<ValueId>]> {
    match operator(node.standard_op()?)?.reads {
        InputsRead::Sizes => Some(&[]),
        InputsRead::ElementsThenType => node.inputs.get(..1),
        InputsRead::Elements => None,
    }
}
