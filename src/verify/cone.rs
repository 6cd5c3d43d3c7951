//! Which nodes of the file compute a tensor from others.
//!
//! Knows the graph and what of it is constant; asks the file, and no claim, what a node reads.

use std::collections::BTreeSet;

use crate::facts::roles;
use crate::onnx::ids::{IdMap, NodeId, ValueId};
use crate::verify::claim::Unproved;
use crate::verify::inputs::elements_at_most;
use crate::verify::original::Original;

/// A block's nodes are some hundred; with borders that are filled by assignment, thousands.
const MAX_NODES: usize = 8192;

/// The nodes that compute one tensor from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cone {
    /// The tensors that it begins with and that are no constants.
    pub roots: Vec<ValueId>,
    /// The tensor that it ends with.
    pub output: ValueId,
    /// In topological order.
    pub nodes: Vec<NodeId>,
    /// Constants that the nodes read, and roots that are constants.
    pub constants: Vec<ValueId>,
    /// Tensors outside, of which a node of the cone reads the shape.
    pub measured: Vec<(NodeId, ValueId)>,
}

impl Original<'_, '_, '_> {
    /// The nodes that make `output` of `roots`; tensors that `ends` names are not looked
    /// behind, but at what is given for them.
    ///
    /// # Errors
    /// If it depends on something else.
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

    /// Whether the nodes from `inner` to `output` move the elements of `inner` as what is in
    /// them has no part in: where they go, and what is put beside them, depends on sizes alone.
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

/// Shapes of a cone's roots, in their order, and what it measures outside of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// One per root.
    pub shapes: Vec<Vec<usize>>,
    /// Dimensions of the tensors outside, in the order of [`Cone::measured`].
    pub measured: Vec<Vec<usize>>,
}

impl Trial {
    /// How many elements the roots have.
    pub fn elements(&self) -> usize {
        elements_at_most(&self.shapes)
    }
}
