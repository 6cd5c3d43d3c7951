//! The end of an activation or a layer norm: the ½ of a GELU, the γ and β of a layer norm, the
//! sixth of a HardSwish. Engines run the whole as one node; if its end went into a kernel
//! behind it, we would save that, and what is left would no longer be one node for the engine.
//!
//! Knows what nodes mean, and roles of operators; decides nothing about blocks.

use crate::facts::roles;
use crate::onnx::ids::{IdSet, NodeId, ValueId};
use crate::onnx::node::Node;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;

/// Upper bound on the tensors that are looked at on the way back from the product of an activation;
/// in GELU's Tanh form there are seven.
const MAX_WAY: usize = 16;

/// Tensors behind which such an end may go on, as far as the graph was gone through: behind a
/// scale per channel, such as γ, a shift may follow. *Counter-example to going on further*:
/// `x·clip(x + 3)/6`, then a scale and a shift by one number each (PP-LCNetV3), of which no
/// engine knows anything.
#[derive(Debug, Default)]
pub struct Tails(IdSet<ValueId>);

impl Tails {
    /// Returns whether node `id`, this map of `input`, is such an end, and notes it. A batch
    /// norm ends nothing.
    pub fn note(
        &mut self,
        reader: &Reader,
        meanings: &Meanings,
        (id, input): (NodeId, ValueId),
        map: &LinearOp,
    ) -> bool {
        let graph = reader.graph;
        let source = meanings.source(input);
        let is_scale = map.is_pointwise() && !roles::is_batch_norm(graph.node(id));
        let producer = graph.value(source).producer.filter(|_| is_scale);
        let is_end = producer.is_some_and(|producer| {
            self.0.contains(&source) || is_activation(reader, meanings, producer)
        });
        let only_scales = |shift: &Vec<f64>| shift.iter().all(|&shift| shift == 0.0);
        let goes_on = matches!(map, LinearOp::Diagonal { shift, .. } if only_scales(shift));
        if let Some(output) = graph.node(id).output().filter(|_| is_end && goes_on) {
            self.0.insert(output);
        }
        is_end
    }
}

/// Whether the node multiplies or divides a tensor, element by element, by what the tensor
/// itself becomes through means and nonlinear functions: `x·(1 + erf x)`, `(x − μ)/√(v + ε)`.
/// No engine fuses a gate of convolutions, as in squeeze-and-excitation, or a quotient of
/// norms.
fn is_activation(reader: &Reader, meanings: &Meanings, id: NodeId) -> bool {
    let node = reader.graph.node(id);
    let is_opaque = matches!(meanings.get(id), Some(Meaning::Opaque(_)));
    let (Some(one), Some(other)) = (node.input(0), node.input(1)) else { return false };
    let becomes = |one, other| becomes(reader, meanings, one, other);
    is_opaque && roles::multiplies(node) && (becomes(one, other) || becomes(other, one))
}

/// Whether `made` is a nonlinear function of `of`, or of what `of` is a scale, shift or sum of.
fn becomes(reader: &Reader, meanings: &Meanings, of: ValueId, made: ValueId) -> bool {
    let origins = way_back(reader, meanings, of, |_| false);
    let way = way_back(reader, meanings, made, roles::bends);
    let mut bent = way.iter().filter(|(_, is_bent)| *is_bent);
    bent.any(|(value, _)| origins.iter().any(|(origin, _)| origin == value))
}

/// Returns the tensors from which `value` is made by scales, shifts, sums, squares and nodes
/// that `bends` accepts, each with whether such a node stands between; the nearest first, and
/// no more than are usual.
fn way_back(
    reader: &Reader,
    meanings: &Meanings,
    value: ValueId,
    bends: fn(&Node) -> bool,
) -> Vec<(ValueId, bool)> {
    let graph = reader.graph;
    let mut way = vec![(meanings.source(value), false)];
    let mut next = 0;
    while let Some(&(value, is_bent)) = way.get(next).filter(|_| next < MAX_WAY) {
        next = next.saturating_add(1);
        let Some(producer) = graph.value(value).producer else { continue };
        let node = graph.node(producer);
        let is_passed = match meanings.get(producer) {
            Some(Meaning::Linear(_, map)) => map.is_pointwise(),
            Some(Meaning::Sum(_)) => true,
            _ => roles::multiplies(node) && node.input(0) == node.input(1),
        };
        if is_passed || bends(node) {
            let inputs = node.inputs.iter().flatten().map(|&input| meanings.source(input));
            let is_bent = is_bent || bends(node);
            way.extend(inputs.map(|input| (input, is_bent)));
        }
    }
    way
}
