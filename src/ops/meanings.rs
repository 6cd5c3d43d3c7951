//! TODO head.

use crate::facts::validity::Validity;
use crate::onnx::ids::{IdMap, NodeId, Table, ValueId};
use crate::onnx::model::Invalid;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::reader::Reader;
use std::collections::BTreeSet;

/// All nodes of a graph, read.
pub struct Meanings {
    meanings: Table<NodeId, Meaning>,
    /// Of those that are not right for every input.
    validity: IdMap<NodeId, Validity>,
    sources: Table<ValueId, ValueId>,
}

impl Meanings {
    /// Reads every live node.
    ///
    /// # Errors
    /// If a stored tensor is malformed.
    pub fn of(reader: &Reader) -> Result<Self, Invalid> {
        let mut meanings = Table::of(reader.graph.node_count());
        let (mut sources, mut validity) = (Table::default(), IdMap::default());
        for (id, node) in reader.graph.nodes().filter(|&(id, _)| reader.graph.is_live(id)) {
            let (reading, valid) = reader.read(node)?;
            if !valid.is_everywhere() {
                validity.insert(id, valid);
            }
            if let (Meaning::Alias(of), Some(output)) = (&reading, node.output()) {
                sources.insert(output, sources.get(*of).copied().unwrap_or(*of));
            }
            meanings.insert(id, reading);
        }
        Ok(Meanings { meanings, validity, sources })
    }

    /// What node `id` computes; `None` if nothing needs it.
    pub fn get(&self, id: NodeId) -> Option<&Meaning> {
        self.meanings.get(id)
    }

    /// For which inputs node `id` was read rightly; `None` if for all.
    pub fn validity(&self, id: NodeId) -> Option<&Validity> {
        self.validity.get(&id)
    }

    /// The tensor that `id` is just another name of.
    pub fn source(&self, id: ValueId) -> ValueId {
        self.sources.get(id).copied().unwrap_or(id)
    }
}

/// Nodes between `id` and the tensors that it was read as a map or sum of, which were
/// read together with it: the Slices of a circular padding, what fills a border.
pub fn steps(reader: &Reader, meanings: &Meanings, id: NodeId) -> Vec<NodeId> {
    let (graph, node) = (reader.graph, reader.graph.node(id));
    let Some(reading) = meanings.get(id) else { return Vec::new() };
    let together = match reading {
        Meaning::Linear(_, LinearOp::Bordered { .. }) => true,
        Meaning::Linear(..) | Meaning::Sum(_) => {
            matches!(node.standard_op(), Some("Concat" | "ReduceSum" | "ScatterND" | "Transpose"))
        }
        Meaning::Alias(_) | Meaning::Opaque(_) => false,
    };
    if !together {
        return Vec::new();
    }
    let mut seen: BTreeSet<ValueId> = reading.operands().into_iter().collect();
    let mut steps = BTreeSet::new();
    let mut wanted: Vec<ValueId> = graph.uses(id).collect();
    while let Some(value) = wanted.pop() {
        if !seen.insert(value) || reader.constants.contains(value) {
            continue;
        }
        let producer = graph.value(value).producer.filter(|&producer| steps.insert(producer));
        wanted.extend(producer.into_iter().flat_map(|producer| graph.uses(producer)));
    }
    steps.into_iter().collect()
}
