//! Tensors that go away only if all their readers compute them themselves: a norm before three
//! products, a Pad before two convolutions. For each reader alone, nothing would be gained.
//!
//! Knows the forms that the search found; edits nothing.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use crate::emit::term::{Term, TermKind};
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, IdSet, NodeId, ValueId};
use crate::ops::meaning::Meaning;
use crate::plan::cost::{self, Cost};
use crate::plan::cuts::{Absorbed, Walk};
use crate::plan::merge::kind_of;
use crate::plan::region::Region;

/// Readers of one tensor that are looked at; in real networks there are some dozens.
const MAX_READERS: usize = 256;

/// Such tensors, and who reads them.
#[derive(Debug, Default)]
pub struct Dissolved(IdMap<ValueId, Shared>);

/// One of them.
#[derive(Debug)]
struct Shared {
    readers: Vec<NodeId>,
    /// Weights that go away with it.
    weights: f64,
}

impl Dissolved {
    /// Those of a graph, none of them in `left_alone`.
    pub fn of(walk: &Walk, left_alone: &IdSet<ValueId>) -> Self {
        let nodes = walk.reader.graph.nodes().filter_map(|(_, node)| node.output());
        let shared = nodes.filter(|tensor| !left_alone.contains(tensor));
        Dissolved(shared.filter_map(|tensor| Some((tensor, shared_by(walk, tensor)?))).collect())
    }

    /// The uses of these tensors: they go away with their readers.
    pub fn uses(&self) -> impl Iterator<Item = (NodeId, ValueId)> {
        self.0
            .iter()
            .flat_map(|(&tensor, shared)| shared.readers.iter().map(move |&by| (by, tensor)))
    }

    /// Those that are made inside `region`.
    fn inside<'d>(&'d self, graph: &'d Graph, region: &'d Region) -> impl Iterator<Item = ValueId> {
        let made = region.nodes.iter().filter_map(|&id| graph.node(id).output());
        made.filter(|tensor| *tensor != region.output && self.0.contains_key(tensor))
    }

    /// What a region may cost more than what goes away with it, because others share in it.
    pub fn credit(&self, graph: &Graph, region: &Region) -> Cost {
        let weights = |tensor| self.0.get(&tensor).map_or(0.0, |shared| shared.weights);
        let inside = self.inside(graph, region);
        inside.fold(Cost::default(), |all, tensor| {
            all.plus(Cost { nodes: 1.0, weights: weights(tensor), ..Cost::default() })
        })
    }

    /// If one reader stays as it is, so does the tensor; whether there was such a one.
    pub fn keep_inside(&mut self, graph: &Graph, region: &Region) -> bool {
        let inside: Vec<ValueId> = self.inside(graph, region).collect();
        inside.iter().for_each(|tensor| drop(self.0.remove(tensor)));
        !inside.is_empty()
    }

    /// `absorbed`, and what goes away with these.
    pub fn and(&self, absorbed: &Absorbed) -> Absorbed {
        absorbed.iter().copied().chain(self.uses()).collect()
    }
}

/// The readers of `tensor`, if there are several, and all of them are kernels that can compute
/// it themselves, with no more nodes, and no more weights than go away with it.
fn shared_by(walk: &Walk, tensor: ValueId) -> Option<Shared> {
    let (graph, opset) = (walk.reader.graph, walk.reader.graph.model.opset);
    let [term] = walk.forms.get(tensor)?.terms.as_slice() else { return None };
    let nearest = term.first().filter(|nearest| nearest.part.kind == TermKind::Pointwise)?;
    let value = graph.value(tensor);
    if value.is_output || !(2..=MAX_READERS).contains(&value.readers.len()) {
        return None;
    }
    let mut more = Cost::default();
    for &by in &value.readers {
        let Some(Meaning::Linear(input, map)) = walk.meanings.get(by) else { return None };
        let reads_twice = graph.uses(by).filter(|used| *used == tensor).count() > 1;
        if *input != tensor || reads_twice || kind_of(map) != TermKind::Conv {
            return None;
        }
        let alone = Term::new(tensor, map.geometry(), TermKind::Conv);
        let composed = alone.of(&nearest.part).ok()?;
        let (now, then) = (cost::of_term(&alone, opset), cost::of_term(&composed, opset));
        if then.nodes > now.nodes || !then.macs.no_more_than(&now.macs) {
            return None;
        }
        more = more.plus(Cost { weights: then.weights - now.weights, ..Cost::default() });
    }
    let weights = nearest.emit.weights;
    (more.weights <= weights).then(|| Shared { readers: value.readers.clone(), weights })
}
