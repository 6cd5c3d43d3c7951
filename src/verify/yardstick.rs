//! What rounding is measured by: the largest value on the way to a tensor, as the old nodes
//! have it.
//!
//! `s − s` is 0, and `(c + r) − r` is `c` within the rounding of `r`: the result says nothing
//! of what rounding may do, its operands do.
//!
//! Knows nodes of the file and the tensors that they made; no new node, and no tolerance.

use std::collections::HashMap;

use ndarray::Axis;

use crate::engine::Array;
use crate::facts::roles;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::verify::compare::{Yardstick, largest_float, varies};

/// What is on the way to `end` through the nodes of `interior`: what a sum reads counts with the
/// sum, and what is scaled behind it is scaled.
///
/// # Errors
/// If a tensor is missing.
pub fn yardstick<E>(
    graph: &Graph,
    interior: &[NodeId],
    end: ValueId,
    tensor: &dyn Fn(ValueId) -> Result<Array, E>,
) -> Result<Yardstick, E> {
    // Per tensor that an interior node makes, the largest value on the way to it.
    let mut ways: HashMap<ValueId, f64> = HashMap::new();
    let mut any_varies = false;
    for &id in interior {
        let node = graph.node(id);
        let Some(output) = node.output() else { continue };
        let made = tensor(output)?;
        any_varies |= varies(&made);
        let mut way = largest_float(&made);
        for input in node.inputs.iter().flatten().copied() {
            let before = ways.get(&input).copied();
            if roles::sums(node) {
                way = way.max(before.map_or_else(|| Ok(largest_float(&tensor(input)?)), Ok)?);
            } else if roles::is_batch_norm(node) && node.input(0) == Some(input) {
                let read = tensor(input)?;
                let largest = largest_float(&read);
                let excess = before.filter(|_| largest > 0.0).map_or(1.0, |way| way / largest);
                way = way.max(excess * largest_scaled(&read, &made));
            } else if let Some(before) = before {
                way = way.max(before * gain(&tensor(input)?, &made));
            }
        }
        ways.insert(output, way);
    }
    let last = tensor(end)?;
    let largest = ways.get(&end).copied().unwrap_or_else(|| largest_float(&last));
    Ok(Yardstick { largest, varies: any_varies || varies(&last) })
}

/// How much a node widens what varies within a channel. What it adds to all elements of one, a
/// bias, is no gain: else the rounding of a zero would be measured by the bias behind it. 1 if
/// nothing varies in what it reads.
fn gain(read: &Array, made: &Array) -> f64 {
    let widest = |array: &Array| channels(array).fold(0.0, |widest: f64, (_, w)| widest.max(w));
    let width = widest(read);
    if width > 0.0 { widest(made) / width } else { 1.0 }
}

/// The largest value that a norm reads, in the unit of what it makes: its scale is what the
/// ranges of both have in common, channel by channel.
fn largest_scaled(read: &Array, made: &Array) -> f64 {
    if read.shape() != made.shape() {
        return 0.0;
    }
    let scaled = channels(read).zip(channels(made)).map(|((largest, width), (_, made_width))| {
        if width > 0.0 { largest * made_width / width } else { 0.0 }
    });
    scaled.filter(|scaled| scaled.is_finite()).fold(0.0, f64::max)
}

/// Per channel (axis 1; the whole tensor if it has none) the largest magnitude, and the width of
/// the range.
fn channels(array: &Array) -> impl Iterator<Item = (f64, f64)> {
    let values = match array {
        Array::Float(values) => values.view(),
        Array::Int(_) => return Vec::new().into_iter(),
    };
    let axis = Axis(usize::from(values.ndim() > 1));
    let of = |channel: ndarray::ArrayViewD<f64>| {
        let (least, most) = channel.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &value| {
            (a.min(value), b.max(value))
        });
        (least.abs().max(most.abs()), (most - least).max(0.0))
    };
    let channels: Vec<(f64, f64)> = match values.ndim() {
        0 | 1 => vec![of(values)],
        _ => values.axis_iter(axis).map(of).collect(),
    };
    channels.into_iter()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use ndarray::{ArrayD, IxDyn};
    use prost::Message;

    use super::*;
    use crate::onnx::model::Model;
    use crate::onnx::storage::Storage;
    use crate::onnx::write::{double_input, model, node};

    /// A chain of `t0 → t1 → …` by these operators, and what each tensor holds, a row for each
    /// of two channels: the yardstick of the last one.
    fn of(operators: &[&str], tensors: &[[[f64; 2]; 2]]) -> f64 {
        let names: Vec<String> = (0..tensors.len()).map(|number| format!("t{number}")).collect();
        let nodes = operators.iter().zip(names.windows(2)).map(|(op, pair)| match *op {
            "Sub" => node(op, "", &[&pair[0], &pair[0]], &pair[1], vec![]),
            "Conv" => node(op, "", &[&pair[0], "k"], &pair[1], vec![]),
            "BatchNormalization" => node(op, "", &[&pair[0], "k", "k", "k", "k"], &pair[1], vec![]),
            _ => node(op, "", &[&pair[0]], &pair[1], vec![]),
        });
        let inputs = vec![double_input("t0", 3), double_input("k", 3)];
        let last = names.last().unwrap().as_str();
        let bytes = model(17, inputs, nodes.collect(), vec![], &[last]).encode_to_vec();
        let model = Model::index(bytes.into(), Storage::default()).unwrap();
        let graph = &Graph::read_all(&model).unwrap()[0];
        let interior: Vec<NodeId> = graph.nodes().map(|(id, _)| id).collect();
        let read = |id: ValueId| -> Result<Array, Infallible> {
            let name = &graph.value(id).name;
            let place = names.iter().position(|own| own == name);
            let values = place.map_or(vec![1.0; 4], |place| tensors[place].concat());
            Ok(Array::Float(ArrayD::from_shape_vec(IxDyn(&[1, 2, 2]), values).unwrap()))
        };
        let Ok(found) = yardstick(graph, &interior, graph.find(last).unwrap(), &read);
        found.largest
    }

    #[test]
    fn rounding_is_measured_by_what_is_lost() {
        let (large, zero) = ([[8.0, -8.0], [2.0, 4.0]], [[0.0; 2]; 2]);
        let noise = [[1e-9, -1e-9], [0.0, 0.0]];
        for (case, operators, tensors, expected) in [
            ("a layer", &["Conv"][..], &[large, [[3.0, 1.0], [0.0, 0.0]]][..], 3.0),
            ("s - s", &["Sub"], &[large, zero], 8.0),
            // Scaled by a half behind the difference.
            ("noise, scaled", &["Sub", "Conv"], &[large, noise, [[5e-10, -5e-10], [0.0; 2]]], 4.0),
            // A bias behind nothing is not what was lost, nor is anything infinite.
            (
                "noise, bias",
                &["Sub", "Conv"],
                &[large, noise, [[7.0 + 1e-9, 7.0 - 1e-9], [0.0; 2]]],
                8.0,
            ),
            ("0, bias", &["Sub", "Conv"], &[large, zero, [[7.0; 2]; 2]], 8.0),
            ("0 that nobody lost, bias", &["Conv", "Conv"], &[zero, zero, [[7.0; 2]; 2]], 7.0),
            // The mean of the first channel is 100, its scale 2.
            (
                "a norm of what is far from 0",
                &["BatchNormalization"],
                &[[[101.0, 99.0], [0.0; 2]], [[2.0, -2.0], [0.0; 2]]],
                202.0,
            ),
        ] {
            let way = of(operators, tensors);
            assert!((way - expected).abs() < 1e-6, "{case}: {way}, not {expected}");
        }
    }
}
