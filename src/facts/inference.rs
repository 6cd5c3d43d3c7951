//! What the shape rules say of one node: dimensions and integers of its outputs, and what it
//! demands of its inputs.
//!
//! Knows one node, and what it is told of the operands; knows no graph.

use crate::facts::operators::operator;
use crate::facts::shape_rules::asked::{
    Asked, Dims, Integers, MAX_INTEGERS, MAX_RANK, NumericOperands, Operands, SymbolicOperands,
};
use crate::facts::shape_rules::extent::{Extent, Extents, numbers};
use crate::onnx::node::Node;

/// Returns the dimensions of output number `output` of a valid `node`.
pub fn output_dims(
    node: &Node,
    opset: i64,
    output: usize,
    operands: &dyn Operands,
) -> Option<Dims> {
    Some(numbers(output_extents(node, opset, output, &NumericOperands(operands))?))
}

/// Returns the integers that output number `output` of a valid `node` holds.
pub fn output_integers(
    node: &Node,
    opset: i64,
    output: usize,
    operands: &dyn Operands,
) -> Option<Integers> {
    Some(numbers(listed_extents(node, opset, output, &NumericOperands(operands))?))
}

/// Returns the dimensions that input number `input` of `node` must have in a valid model; `None`
/// if anything may stand there.
pub fn input_dims(node: &Node, opset: i64, input: usize, operands: &dyn Operands) -> Option<Dims> {
    Some(numbers(demanded_extents(node, opset, input, &NumericOperands(operands))?))
}

/// As [`output_dims`], with names for sizes that are not known.
pub fn output_extents(
    node: &Node,
    opset: i64,
    output: usize,
    operands: &dyn SymbolicOperands,
) -> Option<Extents> {
    let rule = operator(node.standard_op()?)?.shape;
    let asked = Asked { node, opset, output, operands };
    let dims = if output < rule.outputs { (rule.dims)(&asked)? } else { return None };
    is_possible(&dims).then_some(dims)
}

/// As [`output_integers`], with names for sizes that are not known.
pub fn listed_extents(
    node: &Node,
    opset: i64,
    output: usize,
    operands: &dyn SymbolicOperands,
) -> Option<Extents> {
    let rule = operator(node.standard_op()?)?.shape;
    let asked = Asked { node, opset, output, operands };
    let integers = if output < rule.outputs { (rule.integers?)(&asked)? } else { return None };
    (integers.len() <= MAX_INTEGERS).then_some(integers)
}

/// As [`input_dims`], with names for sizes that are not known.
pub fn demanded_extents(
    node: &Node,
    opset: i64,
    input: usize,
    operands: &dyn SymbolicOperands,
) -> Option<Extents> {
    let rule = operator(node.standard_op()?)?.shape;
    node.input(input)?;
    let asked = Asked { node, opset, output: 0, operands };
    let dims = (rule.demand?)(&asked, input)?;
    is_possible(&dims).then_some(dims)
}

fn is_possible(dims: &[Option<Extent>]) -> bool {
    let is_size = |extent: &Extent| extent.number().is_none_or(|number| number >= 0);
    dims.len() <= MAX_RANK && dims.iter().flatten().all(is_size)
}
