//! What rounding is measured by: the largest value on the way to a tensor, as the old nodes
//! have it.
//!
//! `s − s` is 0, and `(c + r) − r` is `c` within the rounding of `r`: the result says nothing
//! of what rounding may do, its operands do.
//!
//! Knows nodes of the file and the tensors that they made; no new node, and no tolerance.

use std::collections::HashMap;

use crate::engine::Array;
use crate::facts::roles;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::verify::compare::{largest_float, varies};

/// The largest value on the way to `end` through the nodes of `interior`, in the unit of
/// `end`: what a sum reads counts with the sum, and what is scaled behind it is scaled. And
/// whether any of it varies.
///
/// # Errors
/// If a tensor is missing.
pub fn yardstick<E>(
    graph: &Graph,
    interior: &[NodeId],
    end: ValueId,
    tensor: &dyn Fn(ValueId) -> Result<Array, E>,
) -> Result<(f64, bool), E> {
    // Per tensor, how much larger than its largest value the yardstick is: at least 1.
    let mut excess: HashMap<ValueId, f64> = HashMap::new();
    let mut any_varies = false;
    for &id in interior {
        let node = graph.node(id);
        let Some(output) = node.output() else { continue };
        let made = tensor(output)?;
        let own = largest_float(&made);
        any_varies |= varies(&made);
        let mut way = own;
        for input in node.inputs.iter().flatten().copied() {
            let before = excess.get(&input).copied().unwrap_or(1.0);
            if roles::sums(node) {
                way = way.max(before * largest_float(&tensor(input)?));
            } else if node.input(0) == Some(input) && roles::is_batch_norm(node) {
                let read = tensor(input)?;
                way = way.max(before * largest_scaled(&read, &made));
            } else {
                way = way.max(before * own);
            }
        }
        excess.insert(output, if own > 0.0 { way / own } else { f64::INFINITY });
        if output == end {
            return Ok((way, any_varies));
        }
    }
    let end = tensor(end)?;
    Ok((largest_float(&end), any_varies || varies(&end)))
}

/// The largest value that a norm reads, in the unit of what it makes: its scale is what the
/// ranges of both have in common, channel by channel.
fn largest_scaled(read: &Array, made: &Array) -> f64 {
    let (Array::Float(read), Array::Float(made)) = (read, made) else { return 0.0 };
    if read.shape() != made.shape() || read.ndim() < 2 {
        return 0.0;
    }
    let channels = read.axis_iter(ndarray::Axis(1)).zip(made.axis_iter(ndarray::Axis(1)));
    let scaled = channels.map(|(read, made)| {
        let range = |values: &ndarray::ArrayViewD<f64>| {
            let (least, most) =
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
            (least.abs().max(most.abs()), most - least)
        };
        let ((largest, width), (_, made_width)) = (range(&read), range(&made));
        if width > 0.0 { largest * made_width / width } else { 0.0 }
    });
    scaled.filter(|scaled| scaled.is_finite()).fold(0.0, f64::max)
}
