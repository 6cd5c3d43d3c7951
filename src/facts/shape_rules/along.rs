//! Shapes of what is picked, or reduced, along axes.
//!
//! Knows how many elements are picked; does not know which.

use crate::facts::shape_rules::asked::{Asked, List, open};
use crate::facts::shape_rules::extent::{Extent, Extents, number};
use crate::onnx::node::distinct_axes;

pub fn gather(asked: &Asked) -> Option<Extents> {
    let (mut dims, indices) = (asked.dims(0)?, asked.dims(1)?);
    let axis = asked.axis(0, dims.len())?;
    dims.splice(axis..=axis, indices);
    Some(dims)
}

pub fn gather_elements(asked: &Asked) -> Option<Extents> {
    asked.dims(1)
}

/// The last size of the indices says how many axes of the data, behind those of the batch, they
/// index.
pub fn gather_nd(asked: &Asked) -> Option<Extents> {
    let (dims, mut indices) = (asked.dims(0)?, asked.dims(1)?);
    let depth = usize::try_from(number(indices.pop()?)?).ok()?;
    let batch = usize::try_from(asked.node.int("batch_dims", 0)).ok()?;
    indices.extend(dims.get(batch.checked_add(depth)?..)?);
    Some(indices)
}

pub fn compress(asked: &Asked) -> Option<Extents> {
    if asked.node.attribute("axis").is_none() {
        return open(1);
    }
    let mut dims = asked.dims(0)?;
    let axis = asked.axis(0, dims.len())?;
    *dims.get_mut(axis)? = None;
    Some(dims)
}

pub fn one_hot(asked: &Asked) -> Option<Extents> {
    let mut dims = asked.dims(0)?;
    let axis = asked.axis(-1, dims.len().checked_add(1)?)?;
    let depth = asked.integers(1).and_then(|depth| *depth.first()?);
    dims.insert(axis, depth);
    Some(dims)
}

pub fn top_k(asked: &Asked) -> Option<Extents> {
    let mut dims = asked.dims(0)?;
    let axis = asked.axis(-1, dims.len())?;
    let count = match asked.node.attribute("k") {
        Some(count) => Some(count.i().into()),
        None => asked.integers(1).and_then(|count| *count.first()?),
    };
    *dims.get_mut(axis)? = count;
    Some(dims)
}

/// The axes of a reduction are removed, or become 1.
pub fn reduce(asked: &Asked) -> Option<Extents> {
    let dims = asked.dims(0)?;
    let keeps = asked.node.int("keepdims", 1) != 0;
    let axes = match asked.list("axes", 1) {
        List::LeftOut => Vec::new(),
        axes => match axes.whole() {
            Some(axes) => axes,
            None if keeps => return open(dims.len()),
            None => {
                let gone = axes.length().filter(|&gone| gone > 0)?;
                return open(dims.len().checked_sub(gone)?);
            }
        },
    };
    let reduces_none = axes.is_empty() && asked.node.int("noop_with_empty_axes", 0) != 0;
    let axes: Vec<usize> = if axes.is_empty() && !reduces_none {
        (0..dims.len()).collect()
    } else {
        distinct_axes(&axes, dims.len())?
    };
    Some(without(dims, &axes, keeps))
}

pub fn arg_reduce(asked: &Asked) -> Option<Extents> {
    let dims = asked.dims(0)?;
    let axis = asked.axis(0, dims.len())?;
    Some(without(dims, &[axis], asked.node.int("keepdims", 1) != 0))
}

fn without(dims: Extents, axes: &[usize], keeps: bool) -> Extents {
    let left = |(axis, size): (usize, Option<Extent>)| match (axes.contains(&axis), keeps) {
        (false, _) => Some(size),
        (true, true) => Some(Some(Extent::ONE)),
        (true, false) => None,
    };
    dims.into_iter().enumerate().filter_map(left).collect()
}
