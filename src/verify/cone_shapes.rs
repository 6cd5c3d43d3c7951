//! What is known of the tensors of a cone for given dimensions of its roots: dimensions and
//! integers, propagated through the nodes by applying shape rules to numbers.
//!
//! Knows the cone and the file's constants; knows no operator by name, and nothing of new nodes.

use crate::facts::reach::Reach;
use crate::facts::roles;
use crate::facts::shape_rules::{self, Dims, Operands};
use crate::facts::validity::{Property, Validity};
use crate::onnx::ids::{IdMap, ValueId};
use crate::onnx::node::Node;
use crate::verify::border::FilledBorder;
use crate::verify::cone::Cone;
use crate::verify::original::Original;

/// Upper bound on the number of elements of a tensor in a proof: four times the largest tensor
/// that is read at the file's size (`ops/frame`). Tensors of real blocks have thousands of
/// elements, except where a size is bound: a crop at fixed places is tried at the file's size.
pub const MAX_ELEMENTS: usize = 1 << 25;

/// Returns the number of elements of a tensor, as far as its sizes are known.
fn elements(dims: &Dims) -> usize {
    let known = dims.iter().flatten().map(|&size| usize::try_from(size).unwrap_or(0));
    known.fold(1, usize::saturating_mul)
}

/// What is known of all tensors of a cone for given dimensions of its roots.
pub struct ConeShapes<'c, 'r, 'g, 'm> {
    original: &'c Original<'r, 'g, 'm>,
    /// Dimensions, as far as they follow from those of the roots.
    pub dims: IdMap<ValueId, Dims>,
    integers: IdMap<ValueId, Vec<Option<i64>>>,
}

/// The operands of one node of the cone: as they are assumed or, if not, as they are stored.
pub struct NodeOperands<'s, 'c, 'r, 'g, 'm> {
    /// What is assumed of the tensors of the cone.
    pub shapes: &'s ConeShapes<'c, 'r, 'g, 'm>,
    /// The node.
    pub node: &'s Node,
}

impl Operands for NodeOperands<'_, '_, '_, '_, '_> {
    fn dims(&self, input: usize) -> Option<Dims> {
        let id = self.node.input(input)?;
        if let Some(dims) = self.shapes.dims.get(&id) {
            return Some(dims.clone());
        }
        let constant = self.shapes.original.constants.dims(id).ok()??;
        Some(constant.into_iter().map(|size| i64::try_from(size).ok()).collect())
    }

    fn integers(&self, input: usize) -> Option<Vec<Option<i64>>> {
        let id = self.node.input(input)?;
        if let Some(integers) = self.shapes.integers.get(&id) {
            return Some(integers.clone());
        }
        let constant = self.shapes.original.constants.integers(id).ok()??;
        Some(constant.into_iter().map(Some).collect())
    }

    fn factors(&self, input: usize) -> Option<Vec<f32>> {
        self.shapes.original.constants.factors(self.node.input(input)?)
    }
}

impl<'c, 'r, 'g, 'm> ConeShapes<'c, 'r, 'g, 'm> {
    /// Propagates the dimensions of all roots of `cone` through its nodes; a node that fills one
    /// of `borders` makes that border.
    pub fn forward(
        original: &'c Original<'r, 'g, 'm>,
        cone: &Cone,
        borders: &[FilledBorder],
        roots: &[Dims],
    ) -> Self {
        let dims = cone.roots.iter().copied().zip(roots.iter().cloned()).collect();
        let mut shapes = ConeShapes { original, dims, integers: IdMap::default() };
        for &id in &cone.nodes {
            shapes.take_through(original.graph.node(id), borders);
        }
        shapes
    }

    /// Notes what is known of the outputs of `node`.
    fn take_through(&mut self, node: &Node, borders: &[FilledBorder]) {
        let fills = |border: &&FilledBorder| Some(border.output) == node.output();
        if let Some(border) = borders.iter().find(fills) {
            let around = self.dims.get(&border.inner).map(|inner| border.around(inner));
            self.dims.extend(around.map(|around| (border.output, around)));
            return;
        }
        let operands = NodeOperands { shapes: self, node };
        let opset = self.original.graph.model.opset;
        let (mut dims, mut integers) = (Vec::new(), Vec::new());
        for (index, output) in node.outputs.iter().enumerate() {
            let Some(output) = *output else { continue };
            let known = shape_rules::output_dims(node, opset, index, &operands);
            dims.extend(known.map(|known| (output, known)));
            let known = shape_rules::output_integers(node, opset, index, &operands);
            integers.extend(known.map(|known| (output, known)));
        }
        self.dims.extend(dims);
        self.integers.extend(integers);
    }

    /// Returns whether nothing that is known contradicts what the nodes of `cone` demand.
    pub fn is_consistent(&self, cone: &Cone) -> bool {
        let original = self.original;
        cone.nodes.iter().all(|&id| {
            let node = original.graph.node(id);
            let operands = NodeOperands { shapes: self, node };
            (0..node.inputs.len()).all(|index| {
                let opset = original.graph.model.opset;
                let demanded = shape_rules::input_dims(node, opset, index, &operands);
                let given = operands.dims(index);
                demanded.zip(given).is_none_or(|(demanded, given)| {
                    let mut pairs = demanded.iter().zip(&given);
                    demanded.len() == given.len()
                        && pairs.all(|(a, b)| a.zip(*b).is_none_or(|(a, b)| a == b))
                })
            })
        })
    }

    /// Returns by how many elements a node's output is larger than all its operands, along the
    /// axis where that is most: what it pads, or joins to them. Only axes count whose output
    /// size is another one in `other`. *Counter-example to all axes*: 240 channels made of 80
    /// are no border of 160.
    pub fn growth(&self, other: &Self, node: &Node) -> i64 {
        let grown = self.grown(node).zip(other.grown(node));
        let grown = grown.filter(|((_, after), (_, other))| after != other);
        let grown = grown.map(|((before, after), _)| after.saturating_sub(before));
        grown.max().unwrap_or(0).max(0)
    }

    /// Returns per axis the largest size that a node reads and the size that it makes, if both
    /// are known.
    fn grown<'s>(&'s self, node: &'s Node) -> impl Iterator<Item = (i64, i64)> + 's {
        let output = node.output().and_then(|output| self.dims.get(&output));
        let inputs = || node.inputs.iter().flatten().filter_map(|input| self.dims.get(input));
        output.into_iter().flatten().enumerate().filter_map(move |(axis, size)| {
            let rank = output.map_or(0, Vec::len);
            let sizes = inputs().filter(|dims| dims.len() == rank);
            let largest = sizes.filter_map(|dims| dims.get(axis).copied().flatten()).max()?;
            Some((largest, (*size)?))
        })
    }

    /// Returns the windows of a node, if it has any.
    pub fn reach(&self, node: &Node) -> Option<Reach> {
        let kernel = NodeOperands { shapes: self, node }.dims(1);
        let kernel = kernel.and_then(|dims| dims.into_iter().collect::<Option<Vec<_>>>());
        Reach::of(&node.proto, kernel.as_deref())
    }

    /// Returns the number of elements of the largest tensor, as far as sizes are known.
    pub fn largest(&self) -> usize {
        self.dims.values().map(elements).max().unwrap_or(0)
    }

    /// Returns whether all sizes are such as networks have: every tensor has elements, none has
    /// more than a proof takes, and none is smaller than the pads around it, since no engine
    /// mirrors what is not there. Nor is a window larger than what it slides over: of so few
    /// elements, some engines make one mean and others none.
    pub fn is_ample(&self, cone: &Cone) -> bool {
        let mut sizes = self.dims.values().flatten();
        let nodes = || cone.nodes.iter().map(|&id| self.original.graph.node(id));
        sizes.all(|size| size.is_none_or(|size| size > 0))
            && self.largest() <= MAX_ELEMENTS
            && nodes().filter(|node| roles::pads(node)).all(|node| {
                let mut grown = self.grown(node);
                grown.all(|(before, after)| after.saturating_sub(before) < before)
            })
            && nodes().all(|node| self.windows_fit(node))
    }

    /// Returns whether the windows of `node` fit: their number is known if all sizes of the
    /// operand are.
    fn windows_fit(&self, node: &Node) -> bool {
        let is_known = |value: Option<ValueId>| {
            let dims = value.and_then(|value| self.dims.get(&value));
            dims.is_some_and(|dims| dims.iter().all(Option::is_some))
        };
        !is_known(node.input(0)) || is_known(node.output()) || self.reach(node).is_none()
    }

    /// Returns whether no known size violates a condition of `valid`.
    pub fn meets(&self, valid: &Validity) -> bool {
        valid.conditions().iter().all(|condition| {
            let Property::Size(axis, sizes) = &condition.property else { return true };
            let dims = self.dims.get(&condition.tensor);
            let size = dims.and_then(|dims| dims.get(*axis).copied().flatten());
            size.is_none_or(|size| sizes.contains(size))
        })
    }
}
