//! How much int8 weights change a model's outputs: kernels are rounded to their grids, with one
//! step per kernel or per output channel, and all other tensors are kept.
//!
//! Knows the engine, and rules of nodes; not who asks.

use std::collections::BTreeMap;

use crate::equalize::gate::{Grid, on_grid, on_symmetric_grid, outputs, sqnr};
use crate::equalize::observed::{Piece, RunnableModel};
use crate::equalize::unscaled::Unscaled;
use crate::facts::constants::Constants;
use crate::numbers;
use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::ops::scaling::{ScaleRule, scale_rule};

/// The signal-to-quantization-noise ratio (SQNR) of the outputs, in dB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Int8Sqnr {
    /// With one quantization step per kernel.
    pub per_tensor: f64,
    /// With one quantization step per output channel.
    pub per_channel: f64,
}

/// Returns the SQNR of `model`, whose main graph is `graph`, on `pieces` with int8 weights.
/// Returns `None` if the model has no stored kernel, or no outputs that can be compared.
///
/// # Errors
/// Returns an error if a kernel cannot be read, or the engine cannot run the model.
pub fn of_weights(
    model: &RunnableModel,
    graph: &Graph,
    constants: &Constants,
    pieces: &[Piece],
) -> Result<Option<Int8Sqnr>, Unscaled> {
    let kernels = stored_kernels(graph, constants);
    let names = graph.outputs.iter().map(|&id| graph.value(id).name);
    let names: Vec<&str> = names.collect();
    if kernels.is_empty() {
        return Ok(None);
    }
    let rounded = |per_channel: bool| -> Result<Grid, Invalid> {
        let mut grid = Grid::default();
        for (&value, &axis) in &kernels {
            let dims = constants.dims(value)?;
            let float = constants.element_type(value).and_then(Float::from_onnx);
            let (Some(dims), Some(stored), Some(float)) = (dims, constants.numbers(value)?, float)
            else {
                continue;
            };
            let name = graph.value(value).name;
            let dims: Vec<i64> = dims.into_iter().map(|size| size as i64).collect();
            let axis = Some(axis).filter(|_| per_channel);
            let all = numbers::all(stored.as_ref());
            grid.kernels.insert(name.to_owned(), on_symmetric_grid(name, &dims, &all, axis, float));
        }
        Ok(grid)
    };
    let wanted = outputs(&model.clone().showing(&names), pieces)?;
    // One after the other, because each holds all kernels once more.
    let judged = |per_channel: bool| -> Result<f64, Unscaled> {
        let grid = rounded(per_channel)?;
        Ok(sqnr(&wanted, &outputs(&on_grid(model, &grid, &names), pieces)?))
    };
    let (per_tensor, per_channel) = (judged(false)?, judged(true)?);
    let is_told = per_tensor.is_finite() && per_channel.is_finite();
    Ok(is_told.then_some(Int8Sqnr { per_tensor, per_channel }))
}

/// Returns the kernels that are stored in the graph, and the output axis of each.
fn stored_kernels(graph: &Graph, constants: &Constants) -> BTreeMap<ValueId, usize> {
    let live = graph.nodes().filter(|&(id, _)| graph.is_live(id));
    let kernels = live.filter_map(|(_, node)| {
        let Some(ScaleRule::Kernel(channels)) = scale_rule(node) else { return None };
        let kernel = node.input(1)?;
        let is_stored = constants.stores(kernel) && constants.contains(kernel);
        let rank = constants.dims(kernel).ok()??.len();
        is_stored.then(|| (kernel, channels.outputs_axis(rank)))
    });
    kernels.collect()
}
