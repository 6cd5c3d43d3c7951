//! What evaluating one constant node takes, told from the dimensions and sizes that it
//! reads, before any of it is taken; and how much a whole model may take.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::onnx::proto::TensorProto;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// At most so many elements and multiply-adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    elements: i64,
    work: i64,
}

/// No constant of a real model has more elements, nor takes more multiply-adds.
const MOST_OF_ONE: Effort = Effort { elements: 1 << 26, work: 1 << 33 };

/// One that is larger than the file has at most so many elements.
const MOST_FROM_NOTHING: i64 = 1 << 22;

/// All constants together take no more than so many of the largest.
const TIMES: i64 = 4;

/// So many elements are moved, at most, to find out what borders of one model do: some
/// seconds. A super-resolution network of 16 channels at 224² has half a million elements
/// and a dozen borders.
const MOST_MOVES: usize = 1 << 29;

/// What one constant may take, and what is left for all.
#[derive(Debug)]
pub struct Budget {
    one: Effort,
    left: Mutex<Effort>,
    /// Elements that may still be moved to try borders.
    moves: Mutex<usize>,
    /// What the engine did not end with, although it was not too much.
    overrun: OnceLock<String>,
}

impl Budget {
    /// For a model of so many bytes, its side files included.
    pub fn new(bytes: usize) -> Self {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let elements = bytes.saturating_add(MOST_FROM_NOTHING).min(MOST_OF_ONE.elements);
        let one = Effort { elements, ..MOST_OF_ONE };
        let (left, moves) = (Mutex::new(one.times(TIMES)), Mutex::new(MOST_MOVES));
        Budget { one, left, moves, overrun: OnceLock::new() }
    }

    /// Takes so many moves of elements away, if there are so many left. What is refused
    /// leaves them to smaller borders.
    pub fn spend_moves(&self, moves: usize) -> bool {
        let mut left = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = left.checked_sub(moves);
        rest.map(|rest| *left = rest).is_some()
    }

    /// Notes that the engine did not end with `what`: the run has no result then.
    pub fn overran(&self, what: impl FnOnce() -> String) {
        self.overrun.get_or_init(what);
    }

    /// The first thing that the engine did not end with.
    pub fn overrun(&self) -> Option<&str> {
        self.overrun.get().map(String::as_str)
    }

    /// Whether one constant may take `effort`.
    pub fn allows(&self, effort: Effort) -> bool {
        effort.elements <= self.one.elements && effort.work <= self.one.work
    }

    /// Takes `effort` away, if it is not too much.
    pub fn spend(&self, effort: Effort) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = Effort {
            elements: left.elements.saturating_sub(effort.elements),
            work: left.work.saturating_sub(effort.work),
        };
        let fits = self.allows(effort) && rest.elements >= 0 && rest.work >= 0;
        if fits {
            *left = rest;
        }
        fits
    }
}

impl Effort {
    /// Of a tensor that is written out.
    pub fn of_dims(dims: &[i64]) -> Self {
        let elements = product(dims.iter().copied());
        Effort { elements, work: elements }
    }

    /// Of a tensor of sizes that were asked for: a negative one is a huge one for whoever
    /// takes it as unsigned.
    fn of_sizes(sizes: &[i64]) -> Self {
        let huge = |&size: &i64| if size < 0 { i64::MAX } else { size };
        Self::of_dims(&sizes.iter().map(huge).collect::<Vec<_>>())
    }

    /// Of evaluating `node` on `inputs`; `None` if that cannot be told.
    ///
    /// # Errors
    /// If an input is malformed.
    pub fn of(
        node: &Node,
        inputs: &[TensorProto],
        storage: &Storage,
    ) -> Result<Option<Self>, Invalid> {
        let integers = |tensor| tensor::integers(tensor, storage);
        let own = match (node.standard_op(), inputs) {
            (Some("ConstantOfShape"), [shape]) => Some(Self::of_sizes(&integers(shape)?)),
            // Where both have a size, the larger counts.
            (Some("Expand"), [data, shape]) => {
                Some(Self::of_sizes(&integers(shape)?).times(elements(data)))
            }
            (Some("Tile"), [data, repeats]) => {
                Some(Self::of_sizes(&integers(repeats)?).times(elements(data)))
            }
            (Some("Range"), [start, limit, delta]) => range([start, limit, delta].map(integers)),
            (Some("Gather"), [data, indices]) => {
                Some(Self::of_dims(&data.dims).times(elements(indices)))
            }
            (Some("Pad"), [data, rest @ ..]) => match (node.ints("pads"), rest) {
                (Some(pads), _) => Some(padded(data, pads)),
                (None, [pads, ..]) => Some(padded(data, &integers(pads)?)),
                (None, []) => None,
            },
            (Some("Conv"), [data, kernel, ..]) => convolved(node, data, kernel),
            (Some("MatMul" | "Gemm"), [left, right, ..]) => Some(multiplied(left, right)),
            (Some("Einsum"), _) => summed(node, inputs),
            // How far they grow is said by inputs that are not there, or not all.
            (
                Some(
                    "ConstantOfShape" | "Conv" | "Expand" | "Gather" | "Gemm" | "MatMul" | "Pad"
                    | "Range" | "Tile",
                ),
                _,
            ) => None,
            _ => Some(Self::of_dims(&broadcast(inputs))),
        };
        // Whatever is made of them, the inputs are handed over.
        let read = inputs.iter().fold(0i64, |all, input| all.saturating_add(elements(input)));
        Ok(own.map(|own| Effort { elements: own.elements.max(read), work: own.work.max(read) }))
    }

    fn times(self, factor: i64) -> Self {
        Effort {
            elements: self.elements.saturating_mul(factor),
            work: self.work.saturating_mul(factor),
        }
    }
}

/// No size counts as less than 1, so that a 0 hides nothing.
fn product(sizes: impl Iterator<Item = i64>) -> i64 {
    sizes.fold(1, |product, size| product.saturating_mul(size.max(1)))
}

fn elements(tensor: &TensorProto) -> i64 {
    product(tensor.dims.iter().copied())
}

fn range<E>(bounds: [Result<Vec<i64>, E>; 3]) -> Option<Effort> {
    let [Ok(start), Ok(limit), Ok(delta)] = bounds else { return None };
    let ([start], [limit], [delta]) = (&start[..], &limit[..], &delta[..]) else { return None };
    let steps =
        limit.saturating_sub(*start).saturating_abs().checked_div(delta.saturating_abs())?;
    Some(Effort::of_dims(&[steps]))
}

fn padded(data: &TensorProto, pads: &[i64]) -> Effort {
    let (begins, ends) = pads.split_at(pads.len() / 2);
    let dims = data.dims.iter().zip(begins.iter().zip(ends));
    let dims = dims.map(|(&dim, (&a, &b))| dim.saturating_add(a).saturating_add(b));
    Effort::of_dims(&dims.collect::<Vec<_>>())
}

fn convolved(node: &Node, data: &TensorProto, kernel: &TensorProto) -> Option<Effort> {
    let (&[batch, _, ref spatial @ ..], &[outputs, ref rest @ ..]) =
        (data.dims.as_slice(), kernel.dims.as_slice())
    else {
        return None;
    };
    // With SAME padding an output is no larger than its input.
    let pads = node.ints("pads").unwrap_or_default();
    let pads = pads.iter().fold(0i64, |all, &pad| all.saturating_add(pad.max(0)));
    let spatial = spatial.iter().map(|size| size.saturating_add(pads));
    let elements = product([batch, outputs].into_iter().chain(spatial));
    Some(Effort { elements, work: elements.saturating_mul(product(rest.iter().copied())) })
}

fn multiplied(left: &TensorProto, right: &TensorProto) -> Effort {
    let without_matrix = |stack: &TensorProto| {
        let dims = stack.dims.get(..stack.dims.len().saturating_sub(2)).unwrap_or_default();
        TensorProto { dims: dims.to_vec(), ..TensorProto::default() }
    };
    let largest =
        |tensor: &TensorProto| tensor.dims.iter().rev().take(2).copied().fold(1, i64::max);
    let stack = broadcast(&[without_matrix(left), without_matrix(right)]);
    let sizes = stack.into_iter().chain([largest(left), largest(right)]);
    let elements = product(sizes);
    // Of all that is summed up, at most both factors' elements are multiplied.
    let inner = left.dims.iter().copied().fold(1, i64::max);
    Effort { elements, work: elements.saturating_mul(inner) }
}

/// `None` if the equation is not one of letters alone.
fn summed(node: &Node, inputs: &[TensorProto]) -> Option<Effort> {
    let equation = std::str::from_utf8(node.attribute("equation")?.s()).ok()?;
    let (operands, result) = equation.split_once("->")?;
    let mut sizes: HashMap<char, i64> = HashMap::new();
    for (operand, input) in operands.split(',').zip(inputs) {
        let labels: Vec<char> = operand.trim().chars().collect();
        if labels.len() != input.dims.len() || !labels.iter().all(char::is_ascii_alphabetic) {
            return None;
        }
        sizes.extend(labels.into_iter().zip(input.dims.iter().copied()));
    }
    let result = result.trim().chars().map(|label| sizes.get(&label).copied());
    let elements = product(result.collect::<Option<Vec<_>>>()?.into_iter());
    Some(Effort { elements, work: product(sizes.into_values()) })
}

/// The dimensions that operands of these dimensions are broadcast to.
fn broadcast(operands: &[TensorProto]) -> Vec<i64> {
    let rank = operands.iter().map(|operand| operand.dims.len()).max().unwrap_or(0);
    let from_end = |operand: &TensorProto, axis: usize| {
        operand.dims.iter().rev().nth(axis).copied().unwrap_or(1)
    };
    let size = |axis| operands.iter().map(|operand| from_end(operand, axis)).max().unwrap_or(1);
    (0..rank).map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_spent_once() {
        let budget = |bytes| Budget::new(bytes);
        for (bytes, largest) in [(0, 1 << 22), (1000, (1 << 22) + 1000), (usize::MAX, 1 << 26)] {
            let budget = budget(bytes);
            let spent = (0..8).filter(|_| budget.spend(Effort::of_dims(&[largest]))).count();
            assert_eq!(spent, 4, "{bytes}");
            assert!(!Budget::new(bytes).spend(Effort::of_dims(&[largest + 1])), "{bytes}");
        }
        assert!(!budget(usize::MAX).spend(Effort::of_dims(&[i64::MAX, 0, i64::MAX])));
    }
}
