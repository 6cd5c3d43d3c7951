//! Padding that is filled afterwards, `y = pad(x); y[:, :, 0] = v; …`: slice assignments
//! are exported as ScatterND over computed indices, between Transposes.
//!
//! Such nodes move elements and compute none, so what they do is not worked out by
//! hand: the engine runs them on an input whose elements all differ, and where each of
//! them is found again tells.

use std::collections::BTreeSet;

use ndarray::{ArrayD, Dimension, IxDyn};
use prost::Message;

use super::NotLinear;
use super::read::{Read, Reader};
use crate::affine::{Border, Window};
use crate::engine::{Array, Engine, Limits, Source, normal};
use crate::onnx::build;
use crate::onnx::graph::{Node, NodeId, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::storage::Storage;
use crate::onnx::tensor::{self, Float};

/// A tensor with a border around its spatial axes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bordered {
    /// The tensor, NCHW.
    pub input: ValueId,
    /// How wide the border is, per spatial axis.
    pub windows: Vec<Window>,
    /// What stands in it, per channel.
    pub values: Vec<f64>,
}

/// Inputs of these batch sizes are tried where the batch is free: exporters bake in
/// that of their example.
const BATCHES: [i64; 5] = [1, 2, 4, 8, 16];

/// Larger feature maps are not followed element by element; super-resolution has some
/// of ten million.
const MAX_ELEMENTS: usize = 1 << 25;

/// Slice assignments are written in some hundred nodes.
const MAX_NODES: usize = 4096;

/// The padding that ends in the ScatterND or Transpose `node`; `None` if none does.
pub(super) fn bordered(reader: &Reader, node: &Node) -> Read<Option<Bordered>> {
    let (Some(output), Some(input)) = (node.output(), padded_input(reader, node)) else {
        return Ok(Ok(None));
    };
    let goes_on = |&by: &NodeId| {
        let by = reader.graph.node(by);
        matches!(by.standard_op(), Some("ScatterND" | "Transpose")) && by.input(0) == Some(output)
    };
    if reader.graph.value(output).readers.iter().any(goes_on) {
        return Ok(Ok(None));
    }
    let Some(steps) = Steps::between(reader, input, output)? else {
        return Ok(Err(NotLinear::Unrepresentable("where it puts its elements is not constant")));
    };
    let shape = reader.sizes.shape(input);
    let Some((batch, sizes)) = shape.split_first() else {
        return Ok(Err(reader.sizes.rank_unknown(input)));
    };
    if let Some(axis) = sizes.iter().position(Option::is_none) {
        return Ok(reader.sizes.size(input, axis.saturating_add(1)).map(|_| None));
    }
    let batches = batch.map_or(BATCHES.to_vec(), |batch| vec![batch]);
    let shapes =
        batches.into_iter().map(|batch| [batch].into_iter().chain(sizes.iter().flatten().copied()));
    let shapes = shapes.map(|shape| shape.map(|size| usize::try_from(size).ok()).collect());
    let mut moved = shapes.filter_map(|shape: Option<Vec<usize>>| steps.run(&shape?));
    let Some(moved) = moved.next() else {
        let why = "where it puts its elements could not be tried";
        return Ok(Err(NotLinear::Unrepresentable(why)));
    };
    let uneven = NotLinear::Unrepresentable("it does not fill a border evenly");
    let found = moved.border().map(|(windows, values)| Bordered { input, windows, values });
    Ok(found.map(Some).ok_or(uneven))
}

/// What was padded before `node`, going back over ScatterND, Transpose and Identity.
fn padded_input(reader: &Reader, node: &Node) -> Option<ValueId> {
    let mut scatters = false;
    let mut node = node;
    for _ in 0..MAX_NODES {
        match node.standard_op()? {
            "ScatterND" => scatters = true,
            "Transpose" | "Identity" => {}
            "Pad" => return node.input(0).filter(|_| scatters),
            _ => return None,
        }
        node = reader.graph.node(reader.graph.value(node.input(0)?).producer?);
    }
    None
}

/// The nodes from one tensor to another, the constants that they read, and other tensors
/// of which they read the shape alone.
struct Steps {
    opset: i64,
    input: String,
    output: String,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    shapes: Vec<(String, Vec<Option<i64>>)>,
}

impl Steps {
    /// `None` if they read another tensor that is not constant.
    fn between(reader: &Reader, input: ValueId, output: ValueId) -> Result<Option<Self>, Invalid> {
        let graph = reader.graph;
        let name = |id: ValueId| graph.value(id).name.clone();
        let (mut nodes, mut seen) = (BTreeSet::new(), BTreeSet::from([input]));
        let (mut constants, mut measured) = (Vec::new(), BTreeSet::new());
        let mut wanted = vec![output];
        while let Some(value) = wanted.pop() {
            if !seen.insert(value) {
                continue;
            }
            if let Some((floats, _)) = reader.constants.floats(value)? {
                constants.push(tensor::from_floats(&name(value), &floats, Float::F64));
            } else if let Some(constant) = reader.constants.tensor(value)? {
                let constant = tensor::inlined(&constant, &graph.model.storage)?;
                constants.push(TensorProto { name: Some(name(value)), ..constant });
            } else if let Some(producer) = graph.value(value).producer {
                nodes.insert(producer);
                let is_shape = graph.node(producer).standard_op() == Some("Shape");
                let is_known = |input: &ValueId| {
                    let shape = reader.sizes.shape(*input);
                    shape.len() > 1 && shape.iter().skip(1).all(Option::is_some)
                };
                let (known, others): (Vec<ValueId>, Vec<ValueId>) =
                    graph.uses(producer).partition(|input| is_shape && is_known(input));
                measured.extend(known);
                wanted.extend(others);
            } else {
                return Ok(None);
            }
            if nodes.len() > MAX_NODES {
                return Ok(None);
            }
        }
        let shapes = measured.difference(&seen);
        let shapes = shapes.map(|&id| (name(id), reader.sizes.shape(id).to_vec())).collect();
        let nodes = nodes.into_iter().map(|id| graph.node(id).proto.clone()).collect();
        let opset = graph.model.opset;
        let (input, output) = (name(input), name(output));
        Ok(Some(Steps { opset, input, output, nodes, constants, shapes }))
    }

    /// Runs the nodes on elements 1, 2, 3, …, and on the same below zero. `None` if they
    /// do not run on this shape.
    fn run(&self, shape: &[usize]) -> Option<Moved> {
        let elements = shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size))?;
        if elements > MAX_ELEMENTS {
            return None;
        }
        let constant = |name: &str| self.constants.iter().find(|tensor| tensor.name() == name);
        let integers = |name: &str| tensor::integers(constant(name)?, &Storage::default()).ok();
        let nodes = self.nodes.iter().cloned();
        let nodes = nodes.flat_map(|node| normal::node(node, self.opset, &integers)).collect();
        let inputs = vec![build::double_input(&self.input, shape.len())];
        let mut constants = self.constants.clone();
        for (name, measured) in &self.shapes {
            // A free batch is that which is tried.
            let batch = *shape.first()?;
            let sizes = measured.iter().map(|size| size.map_or(Some(batch), |n| n.try_into().ok()));
            let sizes = sizes.collect::<Option<Vec<usize>>>()?;
            let elements = sizes.iter().try_fold(1usize, |all, &size| all.checked_mul(size))?;
            let zeros = (elements <= MAX_ELEMENTS).then(|| ArrayD::zeros(IxDyn(&sizes)))?;
            constants.push(tensor::from_floats(name, &zeros, Float::F64));
        }
        let model = build::model(self.opset, inputs, nodes, constants, &[&self.output]);
        let source = Source::small(model.encode_to_vec(), Limits::of_reading());
        let engine = Engine::load(source, &[shape.to_vec()]).ok()?;
        let run = |sign: f64| {
            let numbers = (1..=elements).map(|number| sign * number as f64).collect();
            let numbers = ArrayD::from_shape_vec(IxDyn(shape), numbers).ok()?;
            match engine.run(&[Array::Float(numbers)]).ok()?.into_iter().next()? {
                Array::Float(output) => Some(output),
                Array::Int(_) => None,
            }
        };
        Some(Moved { shape: shape.to_vec(), above: run(1.0)?, below: run(-1.0)? })
    }
}

/// Where the elements 1, 2, 3, … of an input of this shape are found again.
struct Moved {
    shape: Vec<usize>,
    above: ArrayD<f64>,
    below: ArrayD<f64>,
}

impl Moved {
    /// The border that was put around the input, and what stands in it, per channel;
    /// `None` if that is not what happened.
    fn border(&self) -> Option<(Vec<Window>, Vec<f64>)> {
        let (first, _) = self.above.indexed_iter().find(|&(_, &value)| value == 1.0)?;
        let before: Vec<usize> = first.as_array_view().to_vec();
        if before.len() != self.shape.len() || self.above.shape() != self.below.shape() {
            return None;
        }
        let mut values = vec![None; *self.shape.get(1)?];
        for ((at, &above), &below) in self.above.indexed_iter().zip(&self.below) {
            let at = at.as_array_view();
            let at = at.as_slice()?;
            match self.number_at(at, &before) {
                Some(number) if above == number && below == -number => {}
                None if above == below && above.is_finite() => {
                    let value = values.get_mut(*at.get(1)?)?;
                    if *value.get_or_insert(above) != above {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        let sides = before.iter().zip(self.shape.iter().zip(self.above.shape()));
        let mut sides = sides.map(|(&before, (&size, &all))| {
            Some((
                i64::try_from(before).ok()?,
                i64::try_from(all.checked_sub(before.checked_add(size)?)?).ok()?,
            ))
        });
        // The batch and the channels have no border.
        if sides.next()?? != (0, 0) || sides.next()?? != (0, 0) {
            return None;
        }
        let windows =
            sides.map(|pads| Window::frame(pads?, Border::Zero)).collect::<Option<_>>()?;
        Some((windows, values.into_iter().collect::<Option<_>>()?))
    }

    /// The number of the input's element that belongs at `at`; `None` in the border.
    fn number_at(&self, at: &[usize], before: &[usize]) -> Option<f64> {
        let mut number = 0usize;
        for (&size, (&at, &before)) in self.shape.iter().zip(at.iter().zip(before)) {
            let inside = at.checked_sub(before).filter(|&inside| inside < size)?;
            number = number.checked_mul(size)?.checked_add(inside)?;
        }
        Some(number as f64 + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Elements 1 to 6 of a `[1, 1, 2, 3]` input and what an output of `[1, 1, 4, 3]` holds:
    /// `0` is where a border is expected.
    fn moved(rows: [[f64; 3]; 4], border: f64) -> Option<(Vec<Window>, Vec<f64>)> {
        let output = |sign: f64| {
            ArrayD::from_shape_fn(IxDyn(&[1, 1, 4, 3]), |at| match rows[at[2]][at[3]] {
                0.0 => border,
                number => sign * number,
            })
        };
        let moved = Moved { shape: vec![1, 1, 2, 3], above: output(1.0), below: output(-1.0) };
        moved.border()
    }

    #[test]
    fn a_border_is_told_from_where_elements_are_found() {
        let (first, second, zero) = ([1., 2., 3.], [4., 5., 6.], [0.; 3]);
        for (case, rows, expected) in [
            ("around", [zero, first, second, zero], Some((1, 1))),
            ("before", [zero, zero, first, second], Some((2, 0))),
            ("behind", [first, second, zero, zero], Some((0, 2))),
            ("rows exchanged", [zero, second, first, zero], None),
            ("repeated", [first, first, second, zero], None),
            ("one element overwritten", [zero, [1., 0., 3.], second, zero], None),
            ("one element in the border", [[2., 0., 0.], first, second, zero], None),
            ("nothing left", [zero; 4], None),
        ] {
            let frame = |pads| Window::frame(pads, Border::Zero).unwrap();
            let expected = expected.map(|rows| (vec![frame(rows), frame((0, 0))], vec![0.5]));
            assert_eq!(moved(rows, 0.5), expected, "{case}");
        }
        assert_eq!(moved([zero, first, second, zero], f64::NAN), None);
    }
}
