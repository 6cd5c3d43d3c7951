//! One node: its message with names resolved, its attributes, and the graphs inside it.
//!
//! Knows the form of a node. What an operator computes is for others to say; the one
//! exception is how operands were aligned before operator set 7, which is an attribute's
//! business.

use std::collections::HashSet;

use crate::onnx::ids::ValueId;
use crate::onnx::model::is_default_domain;
use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};
use crate::onnx::wire::Field;

/// One node with its names resolved.
#[derive(Debug)]
pub struct Node {
    /// The message.
    pub proto: NodeProto,
    /// Where it stands in the file.
    pub field: Field,
    /// Per input; `None` where an optional input is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Per output; `None` where an optional output is left out.
    pub outputs: Vec<Option<ValueId>>,
    /// Tensors of this graph that bodies inside the node (If, Loop, Scan…) may read.
    pub captured: Vec<ValueId>,
}

impl Node {
    /// The operator's name, if it is one of the ONNX standard.
    pub fn standard_op(&self) -> Option<&str> {
        standard_op(&self.proto)
    }

    /// Whether it is an If, Loop, Scan or the like.
    pub fn has_bodies(&self) -> bool {
        bodies(&self.proto).next().is_some()
    }

    /// The attribute called `name`.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        attribute(&self.proto, name)
    }

    /// Integer attribute `name`, or `default`.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, AttributeProto::i)
    }

    /// Integer list attribute `name`, if it is there.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// Whether the second operand meets the first from an axis on: before operator set 7,
    /// arithmetic had `broadcast` and `axis`.
    pub fn aligns_by_axis(&self) -> bool {
        let arithmetic = matches!(self.standard_op(), Some("Add" | "Sub" | "Mul" | "Div"));
        arithmetic && self.int("broadcast", 0) != 0 && self.attribute("axis").is_some()
    }

    /// That axis; `None` if there is none, or it is counted from the end.
    pub fn broadcast_axis(&self) -> Option<usize> {
        let axis = self.attribute("axis").filter(|_| self.aligns_by_axis())?;
        usize::try_from(axis.i()).ok()
    }

    /// Input number `index`, if it is there.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// The first output, if it is there.
    pub fn output(&self) -> Option<ValueId> {
        self.outputs.first().copied().flatten()
    }

    /// What to call the node in a message: its name, else its first output.
    pub fn label(&self) -> &str {
        label_of(&self.proto)
    }
}

/// The operator's name, if it is one of the ONNX standard.
pub fn standard_op(node: &NodeProto) -> Option<&str> {
    is_default_domain(node.domain()).then(|| node.op_type())
}

/// The attribute of `node` that is called `name`.
pub fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

/// What to call `node` in a message: its name, else its first output.
pub(super) fn label_of(node: &NodeProto) -> &str {
    let output = node.output.iter().map(String::as_str).find(|name| !name.is_empty());
    match node.name() {
        "" => output.unwrap_or("(a node without a name)"),
        name => name,
    }
}

/// A place among `count` of them (an axis of so many, an element of a sequence), which may be
/// counted from the end, counted from the front; `None` if there is none such.
pub fn from_front(place: i64, count: usize) -> Option<usize> {
    let place = if place < 0 { place.checked_add(i64::try_from(count).ok()?)? } else { place };
    usize::try_from(place).ok().filter(|&place| place < count)
}

/// The `axes` of a tensor that has `rank` of them, from the front; `None` if it has not all of
/// them, or one stands there twice.
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

/// The bodies of a node, if it is an If, Loop, Scan or the like.
pub fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute
        .iter()
        .flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

/// Adds what the bodies of `node` read, or hand on as outputs, to `names`: tensors of their
/// own among it.
pub(super) fn names_read_inside<'n>(node: &'n NodeProto, names: &mut HashSet<&'n str>) {
    bodies(node).for_each(|body| names_read_by(body, names));
}

/// Adds what `body` reads, or hands on as outputs, to `names`: tensors of its own among it.
pub(super) fn names_read_by<'n>(body: &'n GraphProto, names: &mut HashSet<&'n str>) {
    names.extend(body.output.iter().map(ValueInfoProto::name));
    for inner in &body.node {
        names.extend(inner.input.iter().map(String::as_str));
        names_read_inside(inner, names);
    }
}
