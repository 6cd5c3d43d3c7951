//! Multiplies stored tensors by the factors of their channels: in float64, to be rounded once.
//!
//! Knows numbers and how factors are arranged; not where factors come from.

#![allow(clippy::arithmetic_side_effects, reason = "places in a tensor that is in memory")]

use std::sync::Arc;

use crate::emit::weights::{FusedWeights, NotFinite};
use crate::equalize::channels::{ChannelClasses, ScaledForm, ScaledTensor};
use crate::equalize::unscaled::Unscaled;
use crate::facts::constants::Constants;
use crate::facts::kernels::KernelLayout;
use crate::numbers::LazyWeights;
use crate::onnx::graph::Graph;

/// Weights, each multiplied by the factor of its output and divided by that of its input.
#[derive(Debug)]
struct ScaledNumbers {
    of: Arc<dyn LazyWeights>,
    form: ScaledForm,
    /// The first two sizes, and the number of elements behind each pair of indices.
    sizes: [usize; 3],
    outputs: Vec<f64>,
    inputs: Vec<f64>,
}

impl ScaledNumbers {
    /// Returns the output channel and the input channel of the element at `place`.
    fn channels(&self, place: usize) -> (usize, Option<usize>) {
        let [rows, columns, behind] = self.sizes;
        let row = place.checked_div(behind * columns).unwrap_or_default();
        let column = place.checked_div(behind).and_then(|at| at.checked_rem(columns));
        let column = column.unwrap_or_default();
        let group = |groups: usize| {
            let rows = rows.checked_div(groups).unwrap_or(1);
            row.checked_div(rows).unwrap_or_default() * columns + column
        };
        match self.form {
            ScaledForm::Kernel { layout: KernelLayout::OutputsFirst, groups } => {
                (row, Some(group(groups)))
            }
            ScaledForm::Kernel { layout: KernelLayout::InputsFirst, groups } => {
                (group(groups), Some(row))
            }
            ScaledForm::Shift => (place, None),
        }
    }
}

impl LazyWeights for ScaledNumbers {
    fn count(&self) -> usize {
        self.of.count()
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        self.of.read(start, into);
        for (at, number) in into.iter_mut().enumerate() {
            let (output, input) = self.channels(start + at);
            let factor = |of: &[f64], channel: usize| of.get(channel).copied().unwrap_or(1.0);
            *number *= factor(&self.outputs, output);
            *number /= input.map_or(1.0, |input| factor(&self.inputs, input));
        }
    }
}

/// Returns the first two sizes of a tensor, and the number of elements behind each pair of
/// indices.
pub fn matrix_of(dims: &[usize]) -> [usize; 3] {
    let size = |axis: usize| dims.get(axis).copied().unwrap_or(1);
    [size(0), size(1), dims.iter().skip(2).product()]
}

/// Returns the tensor with its factors applied, where class `i` has `factors[i]`.
///
/// # Errors
/// Returns an error if the tensor cannot be read, or a number exceeds its type.
pub fn scaled(
    graph: &Graph,
    constants: &Constants,
    classes: &ChannelClasses,
    tensor: &ScaledTensor,
    factors: &[f64],
) -> Result<FusedWeights, Unscaled> {
    let name = graph.value(tensor.value).name;
    let missing = || NotFinite { tensor: name.to_owned() };
    let of = constants.numbers(tensor.value)?.ok_or_else(missing)?;
    let of_side = |id| classes.factors(id, factors).unwrap_or_default();
    let numbers = ScaledNumbers {
        of,
        form: tensor.form,
        sizes: matrix_of(&tensor.dims),
        outputs: of_side(tensor.output),
        inputs: tensor.input.map(of_side).unwrap_or_default(),
    };
    Ok(FusedWeights::new(name, &tensor.dims, tensor.float, Arc::new(numbers))?)
}
