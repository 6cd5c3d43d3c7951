//! Nodes from which only constants are computed. They go away with the last node that reads
//! what they make.
//!
//! An engine computes them once, when it loads a model, so they count only where they compute a
//! kernel: a kernel that is computed from what is stored may as well be stored itself, if that
//! takes no more space.
//!
//! Knows the graph, and how often its tensors are used; plans nothing.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use crate::affine::ConvKind;
use crate::facts::roles;
use crate::onnx::float::Float;
use crate::onnx::ids::{IdMap, IdSet, NodeId, Table, ValueId};
use crate::onnx::node::Node;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;

/// Upper bound on the constants that are looked at behind one kernel, to tell that it is larger
/// than these.
const MAX_SOURCES: usize = 64;

/// Nodes from which only constants are computed, and that nothing needs any more.
#[derive(Debug, Default)]
pub struct DeadConstants {
    nodes: IdSet<NodeId>,
    /// Tensors that they use and live nodes make.
    pub used: Vec<ValueId>,
    /// Bytes of the floats that are stored for them.
    bytes: f64,
}

impl DeadConstants {
    /// Returns those that go away with `values`. `uses` says how often each tensor is used, and
    /// `lost` how many of these uses are gone; the uses that go with the dead nodes are added
    /// to `lost`. Live nodes are not among them.
    pub fn of(
        reader: &Reader,
        values: Vec<ValueId>,
        is_live: &dyn Fn(NodeId) -> bool,
        uses: &Table<ValueId, usize>,
        lost: &mut IdMap<ValueId, usize>,
    ) -> Self {
        let graph = reader.graph;
        let (mut dead, mut seen) = (DeadConstants::default(), IdSet::default());
        let is_lost = |value: ValueId, lost: &IdMap<ValueId, usize>| {
            let lost = lost.get(&value).copied().unwrap_or(0);
            lost >= uses.get(value).copied().unwrap_or(0)
        };
        let producer = |value: ValueId| graph.value(value).producer;
        let mut open = values;
        while let Some(value) = open.pop() {
            if !is_lost(value, lost) || !seen.insert(value) {
                continue;
            }
            dead.bytes += reader.constants.stored_bytes(value);
            let Some(id) = producer(value).filter(|&id| !is_live(id)) else { continue };
            let mut outputs = graph.node(id).outputs.iter().flatten();
            if !outputs.all(|&output| is_lost(output, lost)) || !dead.nodes.insert(id) {
                continue;
            }
            for used in graph.uses(id) {
                *lost.entry(used).or_default() += 1;
                let is_outside = producer(used).is_some_and(is_live);
                if is_outside { dead.used.push(used) } else { open.push(used) }
            }
        }
        dead
    }

    /// Returns how many nodes go away if `kernel`, which they compute, is stored in their
    /// place; none counts if the kernel takes more bytes than what is stored now.
    pub fn count(&self, reader: &Reader, kernel: ValueId) -> usize {
        let float = reader.constants.element_type(kernel).and_then(Float::from_onnx);
        let takes = |float: Float| reader.constants.elements(kernel) * float.size() as f64;
        if float.is_none_or(|float| self.bytes < takes(float)) {
            return 0;
        }
        let nodes = self.nodes.iter().map(|&id| reader.graph.node(id));
        nodes.filter(|node| computes(reader, node)).count()
    }
}

/// Whether the node computes a constant from others, beyond passing one on or changing its
/// type.
pub fn computes(reader: &Reader, node: &Node) -> bool {
    reader.computes_constant(node) && !roles::hands_on(node)
}

/// Returns how many weights are stored for the constant `kernel`, and how many it has, if these
/// are more than the elements of all constants that it is computed from.
pub fn enlarged(reader: &Reader, kernel: ValueId) -> Option<(f64, f64)> {
    let (mut elements, mut weights) = (0.0, 0.0);
    let (mut seen, mut open) = (IdSet::default(), vec![kernel]);
    while let Some(value) = open.pop().filter(|_| seen.len() < MAX_SOURCES) {
        if !seen.insert(value) {
            continue;
        }
        match computing(reader, value).filter(|(_, node)| !roles::holds_constant(node)) {
            Some((_, node)) => open.extend(constants_read(reader, node)),
            None => {
                let own = reader.constants.elements(value);
                let element_type = reader.constants.element_type(value);
                elements += own;
                weights +=
                    if element_type.and_then(Float::from_onnx).is_some() { own } else { 0.0 };
            }
        }
    }
    let after = reader.constants.elements(kernel);
    (elements < after && seen.len() < MAX_SOURCES).then_some((weights, after))
}

/// Returns the nodes that compute the constants of `node`, as far as nothing uses what they
/// make.
pub fn unread(reader: &Reader, node: &Node, uses: &Table<ValueId, usize>) -> IdSet<NodeId> {
    let is_unread = |value: ValueId| uses.get(value).is_none_or(|&uses| uses == 0);
    let mut nodes = IdSet::default();
    let mut open: Vec<ValueId> = constants_read(reader, node).collect();
    while let Some(value) = open.pop() {
        let Some((id, node)) = computing(reader, value) else { continue };
        if node.outputs.iter().flatten().all(|&output| is_unread(output)) && nodes.insert(id) {
            open.extend(constants_read(reader, node));
        }
    }
    nodes
}

/// Returns the node that computes the constant `value`, or holds it; `None` if `value` is an
/// initializer, or no constant.
fn computing<'r>(reader: &'r Reader, value: ValueId) -> Option<(NodeId, &'r Node)> {
    let known = reader.graph.value(value);
    let is_stored = known.initializer.is_some() || !reader.constants.contains(value);
    let producer = known.producer.filter(|_| !is_stored)?;
    Some((producer, reader.graph.node(producer)))
}

/// Returns the constants that a node reads, once per input.
fn constants_read(reader: &Reader, node: &Node) -> impl Iterator<Item = ValueId> {
    let inputs = node.inputs.iter().flatten().copied();
    inputs.filter(|&input| reader.constants.contains(input))
}

/// Returns the kernel of the convolution `id`, if nodes compute it.
pub fn computed_kernel(reader: &Reader, meanings: &Meanings, id: NodeId) -> Option<ValueId> {
    let Meaning::Linear(_, LinearOp::Conv { kernel, geometry, .. }) = meanings.get(id)? else {
        return None;
    };
    let (_, node) = computing(reader, *kernel)?;
    let is_computed = geometry.kind != ConvKind::MatMul && !roles::holds_constant(node);
    is_computed.then_some(*kernel)
}
