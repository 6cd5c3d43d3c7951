//! One node: its message with names resolved, its attributes, and the graphs inside it.
//!
//! Knows the structure of a node. What an operator computes is decided elsewhere, with one
//! exception: before operator set 7, attributes said how operands were aligned.

use std::collections::HashSet;

use crate::onnx::ids::ValueId;
use crate::onnx::model::is_default_domain;
use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};
use crate::onnx::wire::Field;

/// A node with its names resolved.
#[derive(Debug)]
pub struct Node {
    /// The message.
    pub proto: NodeProto,
    /// Its entry in the file.
    pub field: Field,
    /// The tensors that it reads; `None` for an optional input that is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// The tensors that it produces; `None` for an optional output that is left out.
    pub outputs: Vec<Option<ValueId>>,
    /// The tensors of this graph that bodies inside the node (If, Loop, Scan…) may read.
    pub captured: Vec<ValueId>,
}

impl Node {
    /// Returns the operator's name if it belongs to the ONNX standard.
    pub fn standard_op(&self) -> Option<&str> {
        standard_op(&self.proto)
    }

    /// Whether the node has bodies, as If, Loop and Scan have.
    pub fn has_bodies(&self) -> bool {
        bodies(&self.proto).next().is_some()
    }

    /// Returns the attribute called `name`.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        attribute(&self.proto, name)
    }

    /// Returns the integer attribute `name`, or `default` if it is missing.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, AttributeProto::i)
    }

    /// Returns the integer list attribute `name`, if it is present.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// Whether the second operand is aligned with the first from a given axis on: before
    /// operator set 7, arithmetic operators had the attributes `broadcast` and `axis`.
    pub fn aligns_by_axis(&self) -> bool {
        let arithmetic = matches!(self.standard_op(), Some("Add" | "Sub" | "Mul" | "Div"));
        arithmetic && self.int("broadcast", 0) != 0 && self.attribute("axis").is_some()
    }

    /// Returns the axis of [`Self::aligns_by_axis`]; `None` if it does not apply, or if the
    /// axis is counted from the end.
    pub fn broadcast_axis(&self) -> Option<usize> {
        let axis = self.attribute("axis").filter(|_| self.aligns_by_axis())?;
        usize::try_from(axis.i()).ok()
    }

    /// Returns input number `index`; `None` if it is left out.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// Returns the first output; `None` if it is left out.
    pub fn output(&self) -> Option<ValueId> {
        self.outputs.first().copied().flatten()
    }

    /// Returns the name of the node for messages: its own, or else that of its first output.
    pub fn label(&self) -> &str {
        label_of(&self.proto)
    }
}

/// Returns the name of the operator of `node` if it belongs to the ONNX standard.
pub fn standard_op(node: &NodeProto) -> Option<&str> {
    is_default_domain(node.domain()).then(|| node.op_type())
}

/// Returns the attribute of `node` called `name`.
pub fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

/// Returns the name of `node` for messages: its own, or else that of its first output.
pub(super) fn label_of(node: &NodeProto) -> &str {
    let output = node.output.iter().map(String::as_str).find(|name| !name.is_empty());
    match node.name() {
        "" => output.unwrap_or("(a node without a name)"),
        name => name,
    }
}

/// Normalizes an index into `count` axes or elements: a negative `place` is counted from the
/// end. Returns `None` if it is out of range.
pub fn from_front(place: i64, count: usize) -> Option<usize> {
    let place = if place < 0 { place.checked_add(i64::try_from(count).ok()?)? } else { place };
    usize::try_from(place).ok().filter(|&place| place < count)
}

/// Normalizes the `axes` of a tensor of rank `rank`, as [`from_front`] does. Returns `None` if
/// one is out of range or occurs twice.
pub fn distinct_axes(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    if axes.len() > rank {
        return None;
    }
    let mut is_named = vec![false; rank];
    let distinct = |&axis: &i64| {
        let axis = from_front(axis, rank)?;
        let is_repeated = std::mem::replace(is_named.get_mut(axis)?, true);
        (!is_repeated).then_some(axis)
    };
    axes.iter().map(distinct).collect()
}

/// Returns the bodies of `node`: the graphs in its attributes, as If, Loop and Scan have them.
pub fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute
        .iter()
        .flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

/// Adds the names of all tensors that the bodies of `node` read or return as outputs to
/// `names`, including tensors of their own.
pub(super) fn names_read_inside<'n>(node: &'n NodeProto, names: &mut HashSet<&'n str>) {
    bodies(node).for_each(|body| names_read_by(body, names));
}

/// Adds the names of all tensors that `body` reads or returns as outputs to `names`, including
/// its own.
pub(super) fn names_read_by<'n>(body: &'n GraphProto, names: &mut HashSet<&'n str>) {
    names.extend(body.output.iter().map(ValueInfoProto::name));
    for inner in &body.node {
        names.extend(inner.input.iter().map(String::as_str));
        names_read_inside(inner, names);
    }
}
