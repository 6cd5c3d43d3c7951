//! Runs a model on 8 bits: kernels on a symmetric grid with one step per tensor, and activations
//! in 256 levels from their least to their largest element.
//!
//! Knows how to write that for the engine; not which factors are tried.

#![allow(clippy::arithmetic_side_effects, reason = "sums of floating-point numbers")]

use std::collections::BTreeMap;

use crate::engine::{Array, EngineError};
use crate::equalize::observed::{Piece, RunnableModel};
use crate::equalize::sensitivity::Statistics;
use crate::numbers::decibels;
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::write::node;
use crate::onnx::{tensor, write};
use crate::ops::scaling::{ends_a_kernel, keeps_grid};

/// Returns the tensors that an engine rounds: neither those that it fuses into the next node,
/// nor those that lie on the grid of their operand.
pub fn rounded_tensors(graph: &Graph, statistics: &Statistics) -> Vec<ValueId> {
    let is_rounded = |&id: &ValueId| {
        let value = graph.value(id);
        let mut readers = value.readers.iter();
        let ends = !value.is_output
            && !value.readers.is_empty()
            && readers.all(|&reader| ends_a_kernel(graph.node(reader)));
        let producer = value.producer.map(|producer| graph.node(producer));
        let lies_on_grid = producer.is_some_and(|node| {
            let before = node.input(0).map(|before| graph.value(before));
            // A node that ends a kernel is where a grid begins.
            keeps_grid(node)
                && !(ends_a_kernel(node) && before.is_some_and(|before| before.readers.len() == 1))
        });
        !ends && !lies_on_grid
    };
    statistics.keys().copied().filter(is_rounded).collect()
}

/// The range of the elements of a tensor.
#[derive(Debug, Clone, Copy)]
pub struct TensorRange {
    /// The least element, or 0 if all are larger.
    pub least: f64,
    /// The largest element, or 0 if all are less.
    pub largest: f64,
    /// The element type.
    pub float: Float,
}

/// The tensors that are rounded, and how.
#[derive(Default)]
pub struct Grid {
    /// The ranges of activations, by name.
    pub ranges: BTreeMap<String, TensorRange>,
    /// Stored tensors as they are written, by name: kernels on their grid, shifts unrounded.
    pub kernels: BTreeMap<String, TensorProto>,
}

/// Returns the model of `runnable` with `grid` applied, showing these `outputs`. New shifts are
/// written unrounded.
pub fn on_grid(runnable: &RunnableModel, grid: &Grid, outputs: &[&str]) -> RunnableModel {
    let mut model = runnable.clone();
    let Some(graph) = &mut model.proto.graph else { return model };
    for stored in &mut graph.initializer {
        if let Some(new) = grid.kernels.get(stored.name()) {
            stored.clone_from(new);
        }
    }
    let mut nodes: Vec<NodeProto> = Vec::new();
    let mut inputs: Vec<String> = graph.input.iter().map(|input| input.name().to_owned()).collect();
    inputs.retain(|name| grid.ranges.contains_key(name));
    for name in inputs {
        nodes.extend(rounding(&name, grid));
    }
    for mut one in std::mem::take(&mut graph.node) {
        for read in &mut one.input {
            if grid.ranges.contains_key(read.as_str()) {
                *read = on(read);
            }
        }
        let made: Vec<String> = one.output.clone();
        let kernel = made.first().and_then(|name| grid.kernels.get(name));
        nodes.push(kernel.map_or(one, |kernel| write::constant(kernel.clone())));
        for name in made {
            nodes.extend(rounding(&name, grid));
        }
    }
    graph.node = nodes;
    let names: Vec<String> = outputs
        .iter()
        .map(|&name| if grid.ranges.contains_key(name) { on(name) } else { name.to_owned() })
        .collect();
    model.showing(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Returns the name of the rounded version of a tensor.
fn on(name: &str) -> String {
    format!("{name} on 8 bits")
}

fn rounding(name: &str, grid: &Grid) -> Vec<NodeProto> {
    let Some(&TensorRange { least, largest, float }) = grid.ranges.get(name) else {
        return Vec::new();
    };
    let step = (largest - least) / 255.0;
    if step <= 0.0 || !step.is_finite() {
        return vec![node("Identity", "", &[name], &on(name), vec![])];
    }
    let zero = (-least / step).round();
    let part = |what: &str| format!("{name} {what}");
    let number = |what: &str, value: f64| {
        let value = ndarray::ArrayD::from_elem(ndarray::IxDyn(&[]), value);
        write::constant(tensor::from_floats(&part(what), &value, float))
    };
    let op = |op: &str, a: &str, b: &str, to: &str| {
        node(op, "", &[&part(a), &part(b)], &part(to), vec![])
    };
    vec![
        number("inverse", step.recip()),
        number("step", step),
        number("half", 0.5),
        number("from", -zero),
        number("to", 255.0 - zero),
        node("Mul", "", &[name, &part("inverse")], &part("in steps"), vec![]),
        op("Add", "in steps", "half", "and half"),
        node("Floor", "", &[&part("and half")], &part("whole"), vec![]),
        op("Max", "whole", "from", "above"),
        op("Min", "above", "to", "within"),
        node("Mul", "", &[&part("within"), &part("step")], &on(name), vec![]),
    ]
}

/// Rounds a kernel to a symmetric grid of 255 levels, with one step for the whole kernel, or one
/// for each index along `axis` if that is given.
pub fn on_symmetric_grid(
    name: &str,
    dims: &[i64],
    numbers: &[f64],
    axis: Option<usize>,
    float: Float,
) -> TensorProto {
    let of = |size: &i64| usize::try_from(*size).unwrap_or(1).max(1);
    let size = |axis: usize| dims.get(axis).map_or(1, of);
    let behind = axis.map_or(1, |axis| dims.iter().skip(axis + 1).map(of).product::<usize>());
    let place = |at: usize| axis.map_or(0, |axis| at / behind % size(axis));
    let mut steps = vec![0.0f64; axis.map_or(1, size)];
    for (at, number) in numbers.iter().enumerate() {
        if let Some(step) = steps.get_mut(place(at)) {
            *step = step.max(number.abs() / 127.0);
        }
    }
    let rounded = numbers.iter().enumerate().map(|(at, &number)| {
        let step = steps.get(place(at)).copied().filter(|&step| step > 0.0);
        step.map_or(number, |step| (number / step).round() * step)
    });
    raw(name, dims, &rounded.collect::<Vec<f64>>(), float)
}

/// Returns a tensor that stores `numbers` in type `float`.
pub fn raw(name: &str, dims: &[i64], numbers: &[f64], float: Float) -> TensorProto {
    TensorProto {
        raw_data: Some(float.encode(numbers).into()),
        ..tensor::header(name, dims, float.to_onnx())
    }
}

/// Returns all elements of the model's float outputs, one output after the other, piece by
/// piece.
///
/// # Errors
/// Returns an error if the engine cannot run the model.
pub fn outputs(model: &RunnableModel, pieces: &[Piece]) -> Result<Vec<f64>, EngineError> {
    let mut all = Vec::new();
    model.run(pieces, |_, arrays| {
        for array in arrays {
            if let Array::Float(values) = array {
                all.extend(values.iter().copied());
            }
        }
    })?;
    Ok(all)
}

/// Returns the signal-to-noise ratio of `found` in dB, where `wanted` is the signal. The result
/// is not finite if there is no noise, or nothing to compare.
pub fn sqnr(wanted: &[f64], found: &[f64]) -> f64 {
    let signal: f64 = wanted.iter().map(|value| value * value).sum();
    let noise: f64 = wanted.iter().zip(found).map(|(a, b)| (a - b).powi(2)).sum();
    decibels(signal, noise)
}
