//! A model on 8 bits, run: kernels on a symmetric grid, one step for each tensor, and tensors in
//! 256 steps from their least to their largest element.
//!
//! Knows the engine's words for that; not which factors are tried.

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

/// The tensors that an engine rounds: not what it takes into the node behind, and not what
/// lies on the grid of what it is made of.
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
            // What ends a kernel is where the grid begins.
            keeps_grid(node)
                && !(ends_a_kernel(node) && before.is_some_and(|before| before.readers.len() == 1))
        });
        !ends && !lies_on_grid
    };
    statistics.keys().copied().filter(is_rounded).collect()
}

/// What a tensor holds.
#[derive(Debug, Clone, Copy)]
pub struct TensorRange {
    /// Its least element, or 0 if that is larger.
    pub least: f64,
    /// Its largest element, or 0 if that is less.
    pub largest: f64,
    /// Its type.
    pub float: Float,
}

/// What is rounded, and how.
#[derive(Default)]
pub struct Grid {
    /// Tensors that are made.
    pub ranges: BTreeMap<String, TensorRange>,
    /// Stored tensors as they are written: kernels on their grid, shifts as they are.
    pub kernels: BTreeMap<String, TensorProto>,
}

/// The model of `runnable` on the grid; new shifts are written as they are.
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

/// What a tensor is called when it is rounded.
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

/// A kernel on its grid of 255 steps, of one width, or of one for each place along `axis`.
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

/// Numbers in a message.
pub fn raw(name: &str, dims: &[i64], numbers: &[f64], float: Float) -> TensorProto {
    TensorProto {
        raw_data: Some(float.encode(numbers).into()),
        ..tensor::header(name, dims, float.to_onnx())
    }
}

/// All elements of the model's float outputs, one output after the other, piece by piece.
///
/// # Errors
/// If the engine cannot run it.
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

/// Signal and noise, in dB; no finite number if there is no noise, or no number to compare.
pub fn sqnr(wanted: &[f64], found: &[f64]) -> f64 {
    let signal: f64 = wanted.iter().map(|value| value * value).sum();
    let noise: f64 = wanted.iter().zip(found).map(|(a, b)| (a - b).powi(2)).sum();
    decibels(signal, noise)
}
