//! Sizes for what a file leaves open.
//!
//! Knows declarations; nothing is run here.

use crate::onnx::graph::Graph;
use crate::verify::feeding::RunInput;

/// Likely sizes, the most likely first.
pub fn first(_graph: &Graph, inputs: &[RunInput]) -> Vec<Vec<Vec<usize>>> {
    let likely = |input: &RunInput| {
        let sizes = input.dims.iter().enumerate();
        sizes.map(|(axis, size)| size.unwrap_or(likely_size(axis, input.dims.len()))).collect()
    };
    vec![inputs.iter().map(likely).collect()]
}

/// Other sizes, the smallest first.
pub fn second(_graph: &Graph, inputs: &[RunInput], first: &[Vec<usize>]) -> Vec<Vec<Vec<usize>>> {
    let _ = (inputs, first);
    Vec::new()
}

fn likely_size(axis: usize, rank: usize) -> usize {
    match (axis, rank) {
        (0, _) => 1,
        (_, rank) if rank < 5 => 64,
        _ => 16,
    }
}
