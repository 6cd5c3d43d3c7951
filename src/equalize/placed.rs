//! Finds the channel axes of tensors, as far as they follow from the kernels.
//!
//! Knows sizes, and rules of nodes; not which channels share a factor.

use std::collections::BTreeMap;

use crate::facts::constants::Constants;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::node::Node;
use crate::ops::scaling::{ScaleRule, scale_rule};

/// The sizes of tensors, as observed in a run.
pub type SeenShapes = BTreeMap<ValueId, Vec<usize>>;

/// The channel axis of each tensor that has channels; `None` if two kernels disagree.
#[derive(Debug, Default)]
pub struct Axes(BTreeMap<ValueId, Option<usize>>);

impl Axes {
    /// Returns the channel axes of the tensors of `graph`, whose sizes are `shapes`.
    pub fn of(graph: &Graph, constants: &Constants, shapes: &SeenShapes) -> Self {
        let mut axes = Axes::default();
        let nodes: Vec<(NodeId, ScaleRule)> = graph
            .nodes()
            .filter(|&(id, _)| graph.is_live(id))
            .filter_map(|(id, node)| Some((id, scale_rule(node)?)))
            .collect();
        for &(id, rule) in &nodes {
            let node = graph.node(id);
            let ScaleRule::Kernel(channels) = rule else { continue };
            let is_kernel = node.input(1).is_some_and(|kernel| constants.contains(kernel));
            for tensor in [node.input(0), node.output()].into_iter().flatten() {
                if let Some(shape) = shapes.get(&tensor).filter(|_| is_kernel) {
                    axes.put(tensor, channels.axis(shape.len()));
                }
            }
        }
        // Each round places tensors that are one node further away.
        loop {
            let before = axes.0.len();
            for &(id, rule) in nodes.iter().chain(nodes.iter().rev()) {
                axes.spread(graph.node(id), rule, constants, shapes);
            }
            if axes.0.len() == before {
                return axes;
            }
        }
    }

    /// Returns the channel axis of a tensor, or `None` if it is not known.
    pub fn get(&self, tensor: ValueId) -> Option<usize> {
        self.0.get(&tensor).copied().flatten()
    }

    fn put(&mut self, tensor: ValueId, axis: usize) {
        let known = self.0.entry(tensor).or_insert(Some(axis));
        if *known != Some(axis) {
            *known = None;
        }
    }

    fn spread(&mut self, node: &Node, rule: ScaleRule, constants: &Constants, shapes: &SeenShapes) {
        let of = |id: ValueId| shapes.get(&id).map(Vec::as_slice);
        let moving = |id: &ValueId| !constants.contains(*id) && shapes.contains_key(id);
        let inputs: Vec<ValueId> = match rule {
            ScaleRule::Kernel(_) => return,
            ScaleRule::Sums | ScaleRule::Gates | ScaleRule::Joins => {
                node.inputs.iter().flatten().copied().filter(moving).collect()
            }
            _ => node.input(0).into_iter().filter(moving).collect(),
        };
        let outputs: Vec<ValueId> =
            node.outputs.iter().flatten().copied().filter(|id| shapes.contains_key(id)).collect();
        for &input in &inputs {
            for &output in &outputs {
                let (Some(from), Some(to)) = (of(input), of(output)) else { continue };
                if let Some(axis) = self.get(input)
                    && let Some(mapped) = forward(node, rule, axis, from, to)
                {
                    self.place(output, mapped);
                }
                if let Some(axis) = self.get(output) {
                    let back = (0..from.len())
                        .find(|&before| forward(node, rule, before, from, to) == Some(axis));
                    if let Some(back) = back {
                        self.place(input, back);
                    }
                }
            }
        }
    }

    /// Sets the channel axis of a tensor that has none yet. Nodes that disagree with it share no
    /// factor, because [`forward`] is asked again when channels are united.
    fn place(&mut self, tensor: ValueId, axis: usize) {
        self.0.entry(tensor).or_insert(Some(axis));
    }
}

/// Returns the channel axis of an output of sizes `to` if that of an input of sizes `from` is
/// `axis`, or `None` if the node does not preserve channels.
pub fn forward(
    node: &Node,
    rule: ScaleRule,
    axis: usize,
    from: &[usize],
    to: &[usize],
) -> Option<usize> {
    let channels = *from.get(axis)?;
    match rule {
        ScaleRule::Kernel(_) => None,
        ScaleRule::Sums | ScaleRule::Gates => {
            // Broadcasting aligns axes from the end.
            let mapped = axis.checked_add(to.len().checked_sub(from.len())?)?;
            (to.get(mapped) == Some(&channels)).then_some(mapped)
        }
        ScaleRule::Joins | ScaleRule::Splits => Some(axis).filter(|_| from.len() == to.len()),
        ScaleRule::Passes(_) if from.len() == to.len() => {
            (to.get(axis) == Some(&channels)).then_some(axis)
        }
        // A reduction that keeps no axes.
        ScaleRule::Passes(_) => {
            let reduced: Vec<i64> = node.ints("axes")?.to_vec();
            let rank = from.len();
            let index = |axis: &i64| {
                usize::try_from(*axis)
                    .ok()
                    .or_else(|| rank.checked_sub(usize::try_from(axis.unsigned_abs()).ok()?))
            };
            let reduced: Vec<usize> = reduced.iter().filter_map(index).collect();
            let before = reduced.iter().filter(|&&other| other < axis).count();
            let mapped = axis.checked_sub(before).filter(|_| !reduced.contains(&axis))?;
            (to.get(mapped) == Some(&channels)).then_some(mapped)
        }
        ScaleRule::Permutes => match node.ints("perm") {
            Some(perm) => perm.iter().position(|&from| usize::try_from(from) == Ok(axis)),
            None => from.len().checked_sub(axis)?.checked_sub(1),
        },
        ScaleRule::Reshapes => {
            let elements = |sizes: &[usize]| sizes.iter().product::<usize>();
            let before = elements(from.get(..axis)?);
            (0..to.len()).find(|&mapped| {
                let own = to.get(mapped).copied().unwrap_or_default();
                let is_multiple = own.checked_rem(channels) == Some(0) && own >= channels;
                let rest = from.get(axis..).map(elements);
                let new_rest = to.get(mapped..).map(elements);
                to.get(..mapped).map(elements) == Some(before) && rest == new_rest && is_multiple
            })
        }
    }
}
