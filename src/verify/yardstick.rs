//! The yardstick of rounding: the largest value on the way to a tensor, as the old nodes have it.
//!
//! `s − s` is 0, and `(c + r) − r` is `c` within the rounding of `r`: what rounding may do shows
//! in the operands, not in the result. The yardstick is in the unit of the result: in
//! `K(x) · 10⁻¹⁴`, a wrong `K` is as wrong as in `K(x)`.
//!
//! Knows nodes of the file and what was seen of their tensors; knows no new node and no tolerance.

use std::borrow::Cow;
use std::collections::HashMap;

use ndarray::Axis;

use crate::engine::Array;
use crate::facts::roles;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, NodeId, ValueId};
use crate::verify::compare::{Yardstick, is_finite, largest_float, varies};

/// The spread of the values of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpread {
    shape: Vec<usize>,
    largest: f64,
    channels: Vec<ChannelSpread>,
    varies: bool,
    /// Whether no element is infinite or NaN.
    pub is_finite: bool,
}

/// The spread of one channel (along axis 1), or of the whole tensor if it has no channels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ChannelSpread {
    /// The largest magnitude.
    largest: f64,
    /// The difference of the largest and the least value.
    width: f64,
}

impl TensorSpread {
    /// Returns the spread of a tensor; integers have no channels, and 0 as the largest value.
    pub fn of(array: &Array) -> Self {
        let channels = channels(array);
        TensorSpread {
            shape: array.shape().to_vec(),
            largest: largest_float(array),
            varies: varies(array),
            is_finite: is_finite(array),
            channels,
        }
    }

    /// Returns the width of the widest range within a channel.
    fn width(&self) -> f64 {
        self.channels.iter().fold(0.0, |widest, channel| widest.max(channel.width))
    }
}

/// The nodes that compute a tensor.
pub struct Interior<'i> {
    /// The nodes in topological order.
    pub nodes: &'i [NodeId],
    /// Maps tensors to those whose elements they have, moved by whatever nodes.
    pub moved: &'i IdMap<ValueId, ValueId>,
}

/// Measures what is on the way to `end` through the nodes of `interior`: the operands of a sum
/// count with the sum, and what is scaled behind it is scaled here too. `seen` returns what was
/// seen of a tensor, or `None` for constants, which are no larger than what else a sum reads and
/// makes.
///
/// # Errors
/// Returns an error if a tensor is missing.
pub fn yardstick<'s, E>(
    graph: &Graph,
    interior: &Interior,
    end: ValueId,
    seen: &dyn Fn(ValueId) -> Result<Option<Cow<'s, TensorSpread>>, E>,
) -> Result<Yardstick, E> {
    // Per tensor that an interior node makes, the largest value on the way to it.
    let mut ways: HashMap<ValueId, f64> = HashMap::new();
    let mut any_varies = false;
    for &id in interior.nodes {
        let node = graph.node(id);
        let Some(output) = node.output() else { continue };
        let Some(made) = seen(output)? else { continue };
        any_varies |= made.varies;
        let moved = interior.moved.get(&output).copied();
        let read = moved.is_none().then(|| node.inputs.iter().flatten().copied());
        let mut way = made.largest;
        for input in moved.into_iter().chain(read.into_iter().flatten()) {
            let before = ways.get(&input).copied();
            if moved.is_none() && roles::sums(node) {
                let read = || Ok(seen(input)?.map_or(0.0, |read| read.largest));
                way = way.max(before.map_or_else(read, Ok)?);
            } else if roles::is_batch_norm(node) && node.input(0) == Some(input) {
                let Some(read) = seen(input)? else { continue };
                let excess = before.filter(|_| read.largest > 0.0);
                let excess = excess.map_or(1.0, |way| way / read.largest);
                way = way.max(excess * largest_scaled(&read, &made));
            } else if let Some(before) = before {
                way = way.max(before * seen(input)?.map_or(1.0, |read| gain(&read, &made)));
            }
        }
        ways.insert(output, way);
    }
    let last = seen(end)?;
    let (largest, varies) = last.map_or((0.0, false), |last| (last.largest, last.varies));
    let largest = ways.get(&end).copied().unwrap_or(largest);
    Ok(Yardstick { largest, varies: any_varies || varies })
}

/// Returns by how much a node widens what varies within a channel. A bias, which is added to all
/// elements of a channel, is no gain: otherwise the rounding of a zero would be measured by the
/// bias behind it. The gain is 1 if nothing varies in the operand; if nothing varies in the
/// result alone (a mean has one element), it is what is left of the operand's range, at most.
fn gain(read: &TensorSpread, made: &TensorSpread) -> f64 {
    let (width, made_width) = (read.width(), made.width());
    match (width > 0.0, made_width > 0.0) {
        (true, true) => made_width / width,
        (true, false) => (made.largest / width).min(1.0),
        (false, _) => 1.0,
    }
}

/// Returns the largest value that a batch norm reads, in the unit of its result: channel by
/// channel, the scale is the ratio of the ranges of both.
fn largest_scaled(read: &TensorSpread, made: &TensorSpread) -> f64 {
    if read.shape != made.shape {
        return 0.0;
    }
    let pairs = read.channels.iter().zip(&made.channels);
    let scaled =
        pairs.map(
            |(read, made)| {
                if read.width > 0.0 { read.largest * made.width / read.width } else { 0.0 }
            },
        );
    scaled.filter(|scaled| scaled.is_finite()).fold(0.0, f64::max)
}

fn channels(array: &Array) -> Vec<ChannelSpread> {
    let Array::Float(values) = array else { return Vec::new() };
    let of = |channel: ndarray::ArrayViewD<f64>| {
        let (least, most) = channel.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &value| {
            (a.min(value), b.max(value))
        });
        ChannelSpread { largest: least.abs().max(most.abs()), width: (most - least).max(0.0) }
    };
    match values.ndim() {
        0 | 1 => vec![of(values.view())],
        _ => values.axis_iter(Axis(1)).map(of).collect(),
    }
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
        let read = |id: ValueId| -> Result<Option<Cow<TensorSpread>>, Infallible> {
            let name = graph.value(id).name;
            let place = names.iter().position(|own| own == name);
            let values = place.map_or(vec![1.0; 4], |place| tensors[place].concat());
            let array = ArrayD::from_shape_vec(IxDyn(&[1, 2, 2]), values).unwrap();
            Ok(Some(Cow::Owned(TensorSpread::of(&Array::Float(array)))))
        };
        let interior = Interior { nodes: &interior, moved: &IdMap::default() };
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
            ("a mean of noise", &["Sub", "Conv"], &[large, noise, [[1e-9; 2], [0.0; 2]]], 4.0),
            ("a tiny scale", &["Sub", "Conv"], &[large, large, [[8e-14, -8e-14], [0.0; 2]]], 8e-14),
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
