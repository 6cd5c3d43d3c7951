//! The outputs of a node with a body, as the body declares them: for bridges over nodes whose
//! shapes nothing else tells.
//!
//! A Loop and a Scan hand states from step to step and stack the other outputs of their body; an
//! If makes what its branches make. A size that a body leaves open may have a name: it is then
//! the size that an input of the body has along the axis of that name.
//!
//! Knows one node and what it reads; runs nothing.

use std::collections::HashMap;

use crate::facts::roles;
use crate::facts::shape_rules::{Dims, Operands};
use crate::onnx::info::{self, AxisSize};
use crate::onnx::node::Node;
use crate::onnx::proto::GraphProto;

/// What is known of one output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BodyOutput {
    /// Its element type.
    pub element_type: Option<i32>,
    /// Its sizes.
    pub dims: Option<Dims>,
}

/// Returns what is known of output `number` of `node`; `None` if the node has no body, or its
/// body has no such output. A state whose sizes the body leaves open is as large as it begins.
pub fn output(node: &Node, number: usize, operands: &dyn Operands) -> Option<BodyOutput> {
    let how = roles::body(node)?;
    let body = node.attribute(how.attribute)?.g.as_deref()?;
    let inner = body.output.get(number.checked_add(how.skipped)?)?;
    let sizes = named_sizes(body, how.first_scanned, operands);
    let size = |axis: AxisSize| match axis {
        AxisSize::Fixed(size) => Some(size),
        AxisSize::Named(name) => sizes.get(&name).copied(),
        AxisSize::Open => None,
    };
    let element_type = info::element_type(inner);
    let dims = info::axes(inner).map(|axes| axes.into_iter().map(size).collect::<Dims>());
    if number >= how.first_stacked {
        let steps = steps(how.first_scanned, operands);
        let dims = dims.map(|dims| std::iter::once(steps).chain(dims).collect());
        return Some(BodyOutput { element_type, dims });
    }
    let begins = how.first_state.and_then(|first| operands.dims(first.checked_add(number)?));
    let dims = match (dims, begins) {
        (Some(dims), Some(begins)) if dims.len() == begins.len() => {
            Some(dims.into_iter().zip(begins).map(|(size, begin)| size.or(begin)).collect())
        }
        (dims, begins) => dims.or(begins),
    };
    Some(BodyOutput { element_type, dims })
}

/// Returns the number of steps: the number that a Loop reads, or the length of what is scanned.
fn steps(first_scanned: usize, operands: &dyn Operands) -> Option<i64> {
    match operands.dims(first_scanned) {
        Some(dims) => *dims.first()?,
        None => *operands.integers(0)?.first()?,
    }
}

/// Returns the sizes that the inputs of the body give to the names of their axes.
fn named_sizes(
    body: &GraphProto,
    first_scanned: usize,
    operands: &dyn Operands,
) -> HashMap<String, i64> {
    let mut sizes = HashMap::new();
    for (index, formal) in body.input.iter().enumerate() {
        let (Some(axes), Some(dims)) = (info::axes(formal), operands.dims(index)) else { continue };
        let dims = dims.into_iter().skip(usize::from(index >= first_scanned));
        for (axis, size) in axes.into_iter().zip(dims) {
            if let (AxisSize::Named(name), Some(size)) = (axis, size) {
                sizes.insert(name, size);
            }
        }
    }
    sizes
}
