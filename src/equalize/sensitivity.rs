//! How much of the noise in a tensor reaches the outputs.
//!
//! Computed backwards through the graph, per channel: the power in an output when each element
//! of a channel has independent noise of power 1 (`white`), and when all elements of a channel
//! move together (`steady`). A kernel passes the former by the sum of its squares and the latter
//! by the square of its sum, since pooling at the end averages out only the former. In a network
//! of many layers this underrates the first layers, as noise is no less coherent than signals
//! are; the other extreme keeps the ratio of noise and signal in each node. Both models are
//! candidates, and so is their geometric mean.
//!
//! Knows rules of nodes, weights and statistics; not what noise there is.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "channels of tensors whose sizes were compared"
)]

use std::collections::BTreeMap;

use crate::equalize::channels::{ScaledForm, ScaledTensor};
use crate::equalize::observed::ChannelStatistics;
use crate::equalize::scaled::matrix_of;
use crate::facts::constants::Constants;
use crate::facts::kernels::KernelLayout;
use crate::numbers;
use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::ops::scaling::{PassKind, ScaleRule, scale_rule};

/// The observed statistics of tensors.
pub type Statistics = BTreeMap<ValueId, ChannelStatistics>;

/// A kernel, reduced over its taps.
#[derive(Debug, Clone)]
pub struct KernelSums {
    /// The stored tensor, its reader and its layout.
    pub tensor: ScaledTensor,
    /// Per output channel and input channel of its group, outputs first: the largest tap; then
    /// the sum of the squares (`squares`), and the square of the sum (`sums`).
    pub largest: Vec<f64>,
    squares: Vec<f64>,
    sums: Vec<f64>,
    /// The number of output channels, and of the input channels that each reads.
    pub sizes: [usize; 2],
    /// The number of groups of channels.
    pub groups: usize,
    /// The number of taps.
    pub taps: f64,
}

impl KernelSums {
    /// Reduces a stored kernel. Returns `None` if the tensor is a shift or its numbers are not
    /// known.
    ///
    /// # Errors
    /// Returns an error if the tensor cannot be read.
    pub fn of(constants: &Constants, tensor: &ScaledTensor) -> Result<Option<Self>, Invalid> {
        let Some(numbers) = constants.numbers(tensor.value)? else { return Ok(None) };
        let all = numbers::all(numbers.as_ref());
        let [rows, columns, taps] = matrix_of(&tensor.dims);
        let ScaledForm::Kernel { layout, groups } = tensor.form else { return Ok(None) };
        let (groups, is_outputs_first) = (groups.max(1), layout == KernelLayout::OutputsFirst);
        let sizes =
            if is_outputs_first { [rows, columns] } else { [columns * groups, rows / groups] };
        let empty = vec![0.0; rows * columns];
        let (mut largest, mut squares, mut sums) = (empty.clone(), empty.clone(), empty);
        for (at, taps) in all.chunks(taps.max(1)).enumerate() {
            let (row, column) = (at / columns, at % columns);
            let place = if is_outputs_first {
                at
            } else {
                let inputs = rows / groups;
                let output = row / inputs * columns + column;
                output * inputs + row % inputs
            };
            largest[place] = taps.iter().fold(0.0f64, |most, tap| most.max(tap.abs()));
            squares[place] = taps.iter().map(|tap| tap * tap).sum();
            sums[place] = taps.iter().sum::<f64>().powi(2);
        }
        let taps = taps as f64;
        Ok(Some(KernelSums { tensor: tensor.clone(), largest, squares, sums, sizes, groups, taps }))
    }

    /// Returns the input channel that entry `column` of output `row` reads.
    pub fn input(&self, row: usize, column: usize) -> usize {
        let outputs = (self.sizes[0] / self.groups).max(1);
        row / outputs * self.sizes[1] + column
    }

    /// Returns the noise that a symmetric grid of 8 bits with one step adds to the kernel,
    /// relative to the power of the kernel, if its entries are scaled by
    /// `factor(output, input)`. The error of a number has a standard deviation of a step over
    /// √12.
    pub fn int8_noise(&self, factor: impl Fn(usize, usize) -> f64) -> f64 {
        let [outputs, inputs] = self.sizes;
        let (mut power, mut largest) = (0.0, 0.0f64);
        for (row, column) in (0..outputs).flat_map(|row| (0..inputs).map(move |at| (row, at))) {
            let (at, factor) = (row * inputs + column, factor(row, self.input(row, column)));
            power += self.squares[at] * factor.powi(2);
            largest = largest.max(self.largest[at] * factor);
        }
        let elements = self.squares.len() as f64 * self.taps;
        let noise = (largest / 127.0).powi(2) / 12.0 * elements;
        if power > 0.0 { noise / power } else { 0.0 }
    }

    fn back(&self, entries: &[f64], of_outputs: &[f64]) -> Vec<f64> {
        let [outputs, inputs] = self.sizes;
        let mut back = vec![0.0; inputs * self.groups];
        for (row, &of_output) in of_outputs.iter().enumerate().take(outputs) {
            for column in 0..inputs {
                back[self.input(row, column)] += entries[row * inputs + column] * of_output;
            }
        }
        back
    }
}

/// The power that reaches the outputs, per channel.
#[derive(Debug, Clone, Default)]
pub struct Sensitivity {
    /// Due to independent noise of power 1 in each element, summed over all positions.
    pub white: Vec<f64>,
    /// Due to noise of power 1 that all positions share.
    pub steady: Vec<f64>,
}

/// A model of how noise propagates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseModel {
    /// Noise is independent wherever it goes.
    Independent,
    /// Noise propagates like the signal.
    LikeSignal,
}

/// Returns the sensitivities of all tensors with statistics.
pub fn sensitivities(
    graph: &Graph,
    statistics: &Statistics,
    kernels: &[KernelSums],
    model: NoiseModel,
) -> BTreeMap<ValueId, Sensitivity> {
    let mut all: BTreeMap<ValueId, Sensitivity> = statistics
        .iter()
        .map(|(&id, seen)| {
            let channels = seen.power.len();
            let none = vec![0.0; channels];
            (id, Sensitivity { white: none.clone(), steady: none })
        })
        .collect();
    for output in &graph.outputs {
        let (Some(own), Some(seen)) = (all.get_mut(output), statistics.get(output)) else {
            continue;
        };
        let power = seen.power.iter().sum::<f64>() * seen.positions;
        let each = if power > 0.0 { 1.0 / power } else { 0.0 };
        own.white.iter_mut().for_each(|white| *white += each * seen.positions);
        own.steady.iter_mut().for_each(|steady| *steady += each * seen.positions);
    }
    for (id, node) in graph.nodes().rev().filter(|&(id, _)| graph.is_live(id)) {
        let kernel = kernels.iter().find(|kernel| kernel.tensor.node == id);
        for output in node.outputs.iter().flatten() {
            let (Some(own), Some(seen)) = (all.get(output).cloned(), statistics.get(output)) else {
                continue;
            };
            for input in read(node) {
                let Some(read) = statistics.get(&input) else { continue };
                let mut back = back(node, kernel, (&own, seen), read);
                if model == NoiseModel::LikeSignal && scale_rule(node) != Some(ScaleRule::Sums) {
                    conserve(&mut back, read, energy(&own, seen));
                }
                let Some(known) = all.get_mut(&input) else { continue };
                let sum = |known: &mut Vec<f64>, back: &[f64]| {
                    known.iter_mut().zip(back).for_each(|(known, back)| *known += back);
                };
                sum(&mut known.white, &back.white);
                sum(&mut known.steady, &back.steady);
            }
        }
    }
    if model == NoiseModel::LikeSignal {
        for own in all.values_mut() {
            own.steady.clone_from(&own.white);
        }
    }
    all
}

/// Returns the geometric mean of two sets of sensitivities, channel by channel.
pub fn between(
    a: &BTreeMap<ValueId, Sensitivity>,
    b: &BTreeMap<ValueId, Sensitivity>,
) -> BTreeMap<ValueId, Sensitivity> {
    let mean = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a * b).sqrt()).collect();
    let pairs = a.iter().filter_map(|(id, a)| Some((*id, a, b.get(id)?)));
    pairs
        .map(|(id, a, b)| {
            let (white, steady) = (mean(&a.white, &b.white), mean(&a.steady, &b.steady));
            (id, Sensitivity { white, steady })
        })
        .collect()
}

/// Returns the noise power in the outputs if the noise in a tensor has the power of its signal.
fn energy(own: &Sensitivity, seen: &ChannelStatistics) -> f64 {
    own.white.iter().zip(&seen.power).map(|(white, power)| white * power).sum()
}

fn conserve(back: &mut Sensitivity, read: &ChannelStatistics, wanted: f64) {
    let found = energy(back, read);
    let factor = if found > 0.0 { wanted / found } else { 0.0 };
    back.white.iter_mut().chain(&mut back.steady).for_each(|part| *part *= factor);
}

fn read(node: &Node) -> Vec<ValueId> {
    let mut read: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
    read.dedup();
    read
}

fn back(
    node: &Node,
    kernel: Option<&KernelSums>,
    (own, seen): (&Sensitivity, &ChannelStatistics),
    read: &ChannelStatistics,
) -> Sensitivity {
    let channels = read.power.len();
    if let Some(kernel) = kernel.filter(|kernel| kernel.sizes[0] == own.white.len()) {
        // Sums over all positions: each position of the output reads each tap once.
        let white = kernel.back(&kernel.squares, &own.white);
        let steady = kernel.back(&kernel.sums, &own.steady);
        return Sensitivity { white, steady };
    }
    let even = || {
        let power = read.power.iter().sum::<f64>();
        let each = if power > 0.0 { energy(own, seen) / power } else { 0.0 };
        Sensitivity { white: vec![each; channels], steady: vec![each; channels] }
    };
    let each =
        own.white.len().checked_div(channels).filter(|&each| each * channels == own.white.len());
    let Some(each) = each.filter(|&each| each > 0) else { return even() };
    let gathered = |of: &[f64]| of.chunks(each).map(|part| part.iter().sum()).collect::<Vec<f64>>();
    let (white, steady) = (gathered(&own.white), gathered(&own.steady));
    match scale_rule(node) {
        Some(ScaleRule::Passes(PassKind::Rectifies)) => {
            let passed = seen.nonzero.iter();
            let both = white.iter().zip(&steady).zip(passed);
            let steady = both.map(|((w, s), &p)| s * p * p + p * (1.0 - p) * w).collect();
            let white = white.iter().zip(&seen.nonzero).map(|(w, p)| w * p).collect();
            Sensitivity { white, steady }
        }
        Some(ScaleRule::Passes(PassKind::Averages)) => {
            let shrunk = seen.positions / read.positions.max(1.0);
            Sensitivity { white: white.iter().map(|w| w * shrunk).collect(), steady }
        }
        // Noise passes in proportion to the signal.
        Some(ScaleRule::Gates) if each == 1 => {
            let passed: Vec<f64> = seen
                .power
                .iter()
                .zip(&read.power)
                .map(|(made, read)| if *read > 0.0 { made / read } else { 0.0 })
                .collect();
            let of = |of: &[f64]| of.iter().zip(&passed).map(|(of, passed)| of * passed).collect();
            Sensitivity { white: of(&white), steady: of(&steady) }
        }
        Some(ScaleRule::Kernel(_) | ScaleRule::Gates | ScaleRule::Joins | ScaleRule::Splits)
        | None => even(),
        Some(_) => Sensitivity { white, steady },
    }
}
