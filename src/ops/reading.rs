//! Reads the nodes of a graph one by one: the loop, and the checks that hold for every node,
//! whatever its operator.
//!
//! Knows the table, and only what its rows say of an operator.

use std::collections::BTreeSet;

use crate::facts::roles;
use crate::facts::validity::Validity;
use crate::onnx::float::Float;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::{Meanings, Reading};
use crate::ops::moved::MAX_NODES;
use crate::ops::reader::{Reader, not_linear};
use crate::ops::stop::Stop;
use crate::ops::table::{OperatorRow, ReadRule, row};
use crate::refusal::NotLinear;

/// Upper bound on the nodes computing the shape of a view that are read together with it;
/// exporters write about ten. Nodes further back count as other readers of their tensors: each
/// view of a long row could depend on all views before it, which would take quadratic time.
const MAX_SHAPE_NODES: usize = 64;

impl Meanings {
    /// Reads every live node.
    ///
    /// # Errors
    /// Returns an error if a stored tensor is malformed.
    pub fn of(reader: &Reader) -> Result<Self, Invalid> {
        let mut meanings = Meanings::none_of(reader.graph.node_count());
        for (id, node) in reader.graph.nodes().filter(|&(id, _)| reader.graph.is_live(id)) {
            let reading = reading(reader, id, &meanings)?;
            meanings.note(id, node, reading);
        }
        Ok(meanings)
    }
}

/// Returns what node `id` computes; all nodes before it must be read already.
fn reading(reader: &Reader, id: NodeId, earlier: &Meanings) -> Result<Reading, Invalid> {
    let mut validity = Validity::default();
    let row = reader.graph.node(id).standard_op().and_then(row);
    let read = meaning(reader, reader.graph.node(id), row, earlier, &mut validity);
    let meaning = Stop::split(read)?.unwrap_or_else(Meaning::Opaque);
    let joins = row.is_some_and(|row| row.joins);
    let consumed = if is_joined(&meaning, joins) {
        // Nodes that measure sizes are not followed: sizes do not depend on what a tensor is
        // computed from, and a view needs nothing else besides its operand.
        let is_view = matches!(meaning, Meaning::Linear(_, LinearOp::View(_)) | Meaning::Alias(_));
        let mut left = if is_view { MAX_SHAPE_NODES } else { MAX_NODES };
        let is_followed = |node: &Node| {
            left = left.saturating_sub(1);
            left > 0 && !(is_view && roles::measures(node))
        };
        between(reader, id, &meaning.operands(), is_followed)
    } else {
        Vec::new()
    };
    Ok(Reading { meaning, validity, consumed })
}

fn meaning(
    reader: &Reader,
    node: &Node,
    row: Option<&OperatorRow>,
    earlier: &Meanings,
    validity: &mut Validity,
) -> Result<Meaning, Stop> {
    let (domain, op) = (node.proto.domain(), node.proto.op_type());
    if node.standard_op().is_none() {
        return Err(NotLinear::Foreign(format!("{domain}::{op}")).into());
    }
    let row = row.ok_or_else(|| not_linear(node))?;
    if reader.graph.model.opset < *row.versions.start() {
        return Err(not_linear(node).into());
    }
    if node.inputs.len() > row.most_inputs {
        let why = "it has inputs that its operator does not have";
        return Err(NotLinear::Malformed(why).into());
    }
    let first = node.input(0).and_then(|input| reader.constants.element_type(input));
    if !row.of_integers && first.is_some_and(|first| Float::from_onnx(first).is_none()) {
        return Err(not_linear(node).into());
    }
    let meaning = match row.read {
        ReadRule::Alone(read) => read(reader, node, validity)?,
        ReadRule::AfterOthers(read) => read(reader, node, earlier, validity)?,
    };
    // y of `_, y = Add(a, b)` would vanish with its node.
    if !matches!(meaning, Meaning::Parted(..)) && reader.graph.yields_more(node) {
        let why = "it has outputs that its operator does not have";
        return Err(NotLinear::Malformed(why).into());
    }
    Ok(meaning)
}

/// Whether a node of this meaning was read together with others.
fn is_joined(meaning: &Meaning, joins: bool) -> bool {
    match meaning {
        Meaning::Linear(_, LinearOp::Bordered { .. }) => true,
        Meaning::Linear(..) | Meaning::Sum(_) | Meaning::Alias(_) => joins,
        Meaning::Joined(_) | Meaning::Parted(..) | Meaning::Opaque(_) => false,
    }
}

/// Returns the nodes by which `id` is computed from its `operands`, without those that are
/// constant, and without those behind nodes for which `is_followed` is false.
fn between(
    reader: &Reader,
    id: NodeId,
    operands: &[ValueId],
    mut is_followed: impl FnMut(&Node) -> bool,
) -> Vec<NodeId> {
    let graph = reader.graph;
    let mut seen: BTreeSet<ValueId> = operands.iter().copied().collect();
    let mut nodes = BTreeSet::new();
    let mut wanted: Vec<ValueId> = graph.uses(id).collect();
    while let Some(value) = wanted.pop() {
        if !seen.insert(value) || reader.constants.contains(value) {
            continue;
        }
        let producer = graph.value(value).producer.filter(|&producer| nodes.insert(producer));
        let followed = producer.filter(|&producer| is_followed(graph.node(producer)));
        wanted.extend(followed.into_iter().flat_map(|producer| graph.uses(producer)));
    }
    nodes.into_iter().collect()
}
