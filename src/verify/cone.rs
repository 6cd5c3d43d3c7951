//! The nodes of the file that compute a tensor from others.
//!
//! Knows the graph and its constants; what a node reads is asked of the file, and of no claim.

use std::collections::BTreeSet;

use crate::facts::roles;
use crate::onnx::ids::{IdMap, NodeId, ValueId};
use crate::verify::claim::Unproved;
use crate::verify::inputs::elements_at_most;
use crate::verify::original::Original;

/// Upper bound on the number of nodes of a cone: a block has some hundred nodes, and thousands
/// if its borders are filled by assignment.
const MAX_NODES: usize = 8192;

/// The nodes that compute one tensor from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cone {
    /// The tensors with which the cone begins, without constants.
    pub roots: Vec<ValueId>,
    /// The tensor with which it ends.
    pub output: ValueId,
    /// The nodes in topological order.
    pub nodes: Vec<NodeId>,
    /// Constants that the nodes read, and roots that are constants.
    pub constants: Vec<ValueId>,
    /// Tensors outside the cone whose shape a node of the cone reads, each with that node.
    pub measured: Vec<(NodeId, ValueId)>,
}

impl Original<'_, '_, '_> {
    /// Returns the nodes that compute `output` from `roots`. The search does not look behind a
    /// tensor that `ends` names, but goes on from the one that is given for it.
    ///
    /// # Errors
    /// Returns an error if `output` depends on something else, or on too many nodes.
    pub fn cone(
        &self,
        output: ValueId,
        roots: &[ValueId],
        ends: &IdMap<ValueId, ValueId>,
    ) -> Result<Cone, Unproved> {
        let (mut nodes, mut seen, mut constants) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut measuring = Vec::new();
        let mut wanted = vec![output];
        while let Some(value) = wanted.pop() {
            if !seen.insert(value) {
                continue;
            }
            if value != output && roots.contains(&value) {
                if self.is_constant(value) {
                    constants.insert(value);
                }
                continue;
            }
            if self.is_constant(value) {
                constants.insert(value);
                continue;
            }
            let name = || self.graph.value(value).name.to_owned();
            let Some(producer) = self.graph.value(value).producer else {
                return Err(Unproved::ReadsElse(name()));
            };
            nodes.insert(producer);
            if nodes.len() > MAX_NODES {
                return Err(Unproved::TooManyNodes(MAX_NODES));
            }
            let node = self.graph.node(producer);
            if let Some(&inner) = ends.get(&value) {
                wanted.push(inner);
            } else if roles::measures(node) {
                measuring.extend(node.input(0).map(|input| (producer, input)));
            } else if node.standard_op().is_some() && !node.has_bodies() {
                wanted.extend(roles::values_read(node));
            } else {
                return Err(Unproved::ReadsElse(name()));
            }
        }
        let is_outside = |(_, value): &(NodeId, ValueId)| !seen.contains(value);
        let measured: Vec<_> = measuring.into_iter().filter(is_outside).collect();
        let is_root = |root: &&ValueId| seen.contains(*root) && !self.is_constant(**root);
        Ok(Cone {
            roots: roots.iter().filter(is_root).copied().collect(),
            output,
            nodes: nodes.into_iter().collect(),
            constants: constants.into_iter().collect(),
            measured,
        })
    }

    /// Returns whether the nodes from `inner` to `output` only move the elements of `inner`,
    /// whatever their values: where they go, and what is put beside them, depends on sizes alone.
    pub fn only_moves(&self, output: ValueId, inner: ValueId) -> bool {
        let (mut path, mut beside) = (BTreeSet::from([inner, output]), Vec::new());
        let mut at = output;
        while at != inner {
            let Some(producer) = self.graph.value(at).producer else { return false };
            let node = self.graph.node(producer);
            let is_followed = path.len() < MAX_NODES && roles::moves_elements(node);
            let Some(next) = node.input(0).filter(|_| is_followed) else { return false };
            beside.extend(node.inputs.iter().skip(1).flatten().copied());
            path.insert(next);
            at = next;
        }
        let mut seen = BTreeSet::new();
        while let Some(value) = beside.pop() {
            if self.is_constant(value) || !seen.insert(value) {
                continue;
            }
            let producer = self.graph.value(value).producer.map(|id| self.graph.node(id));
            match producer {
                Some(_) if path.contains(&value) => return false,
                Some(node) if roles::measures(node) => {}
                Some(node) if seen.len() < MAX_NODES => {
                    beside.extend(roles::values_read(node));
                }
                _ => return false,
            }
        }
        true
    }
}

/// The shapes of a cone's roots, and of the tensors outside that it measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// One shape per root, in their order.
    pub shapes: Vec<Vec<usize>>,
    /// Dimensions of the tensors outside, in the order of [`Cone::measured`].
    pub measured: Vec<Vec<usize>>,
}

impl Trial {
    /// Returns the number of elements of all roots.
    pub fn elements(&self) -> usize {
        elements_at_most(&self.shapes)
    }
}
