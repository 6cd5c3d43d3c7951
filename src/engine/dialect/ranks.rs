//! A check for tensors of thousands of axes, which no network has. The engine applies an
//! operator per axis, and for each of them goes over all axes again, so it is not asked.
//!
//! Works on tract's own form of a model, just before tract reads it.

use std::collections::HashSet;

use tract_onnx::pb;
use tract_onnx::prelude::{TractError, TractResult};

use crate::engine::source::Constant;

/// Upper bound on the rank of a tensor; array libraries support no more.
const MAX_RANK: usize = 64;

/// Upper bound on the length of a list, which has one or two numbers per axis.
const MAX_LENGTH: usize = 128;

/// Operators with list operands that have one or two numbers per axis of the output.
const BY_AXES: [&str; 9] = [
    "ConstantOfShape",
    "Expand",
    "Pad",
    "Reshape",
    "Slice",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Checks that `graph`, including the `constants` beside it, has no tensors of more than
/// `MAX_RANK` axes.
///
/// # Errors
/// Returns an error if it has.
pub fn check(graph: &pb::GraphProto, constants: &[Constant]) -> TractResult<()> {
    let is_long = |dims: &[i64]| matches!(dims, &[count] if count > MAX_LENGTH as i64);
    let stored = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), &tensor.dims));
    let beside = constants.iter().map(|constant| (constant.name(), &constant.header.dims));
    let mut ranks = graph.input.iter().map(rank).chain(stored.clone().map(|(_, d)| d.len()));
    let mut long: HashSet<&str> = HashSet::new();
    long.extend(stored.filter(|(_, dims)| is_long(dims)).map(|(name, _)| name));
    let mut is_wide = ranks.any(|rank| rank > MAX_RANK);
    for (name, dims) in beside {
        is_wide |= dims.len() > MAX_RANK;
        long.extend(is_long(dims).then_some(name));
    }
    for node in &graph.node {
        let tensors = node.attribute.iter().filter_map(|attribute| attribute.t.as_ref());
        if tensors.clone().any(|tensor| is_long(&tensor.dims)) {
            long.extend(node.output.iter().map(String::as_str));
        }
        is_wide |= tensors.into_iter().any(|tensor| tensor.dims.len() > MAX_RANK);
        if BY_AXES.contains(&node.op_type.as_str()) {
            let is_data = |at: usize| at == 0 && node.op_type != "ConstantOfShape";
            let mut lists = node.input.iter().enumerate().filter(|&(at, _)| !is_data(at));
            is_wide |= lists.any(|(_, list)| long.contains(list.as_str()))
                || node.attribute.iter().any(|attribute| attribute.ints.len() > MAX_LENGTH);
        }
        let bodies = node.attribute.iter().filter_map(|attribute| attribute.g.as_ref());
        bodies.into_iter().try_for_each(|body| check(body, &[]))?;
    }
    if is_wide {
        let why = format!("tensors of more than {MAX_RANK} axes are not computed");
        return Err(TractError::msg(why));
    }
    Ok(())
}

fn rank(info: &pb::ValueInfoProto) -> usize {
    use pb::type_proto::Value;
    let declared = info.r#type.as_ref().and_then(|declared| declared.value.as_ref());
    match declared {
        Some(Value::TensorType(tensor)) => tensor.shape.as_ref().map_or(0, |shape| shape.dim.len()),
        _ => 0,
    }
}
