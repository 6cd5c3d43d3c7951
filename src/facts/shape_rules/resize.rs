//! Shapes of what is made larger or smaller by factors.
//!
//! Knows factors and sizes; does not know what is put between the elements.

use crate::facts::shape_rules::asked::{Asked, open};
use crate::facts::shape_rules::extent::{Extent, Extents, number};
use crate::onnx::node::distinct_axes;

/// Returns which inputs of a node that resizes hold its factors and its sizes; since operator
/// set 11, a region stands before them.
pub fn resize_lists(opset: i64) -> (usize, Option<usize>) {
    if opset < 11 { (1, None) } else { (2, Some(3)) }
}

/// Dimensions by the sizes that are given, or by factors.
pub fn resize(asked: &Asked) -> Option<Extents> {
    let dims = asked.dims(0);
    let (factors, sizes) = resize_lists(asked.opset);
    let axes = match asked.node.ints("axes") {
        None => None,
        Some(axes) => {
            let rank = dims.as_ref()?.len();
            Some(distinct_axes(axes, rank)?)
        }
    };
    // By other rules than these, sizes keep an aspect ratio, and factors apply to a region.
    let stretches = matches!(asked.word("keep_aspect_ratio_policy"), b"" | b"stretch");
    let crops = asked.word("coordinate_transformation_mode") == b"tf_crop_and_resize";
    let wanted = sizes.and_then(|sizes| asked.integers(sizes));
    let numbers = asked.factors(factors);
    let by = |place: usize, size: Option<Extent>| match (&wanted, &numbers) {
        (Some(wanted), _) => wanted.get(place).copied().flatten().filter(|_| stretches),
        (None, Some(factors)) => scaled(size, *factors.get(place)?).filter(|_| !crops),
        (None, None) => None,
    };
    match axes {
        Some(axes) => {
            let mut dims = dims?;
            for (place, axis) in axes.into_iter().enumerate() {
                let size = dims.get_mut(axis)?;
                *size = by(place, *size);
            }
            Some(dims)
        }
        None => {
            let listed = |input: usize| asked.length(input).filter(|&length| length > 0);
            let rank = || sizes.and_then(listed).or_else(|| listed(factors));
            let dims = dims.or_else(|| open(rank()?))?;
            Some(dims.into_iter().enumerate().map(|(axis, size)| by(axis, size)).collect())
        }
    }
}

/// `⌊n·factor⌋`
fn scaled(size: Option<Extent>, factor: f32) -> Option<Extent> {
    if factor == 1.0 {
        return size;
    }
    // Up to 2²⁴, float32 holds sizes exactly.
    let size = number(size).filter(|size| (0..1 << 24).contains(size))?;
    Some(((size as f32 * factor).floor() as i64).into())
}

pub fn upsample(asked: &Asked) -> Option<Extents> {
    let attribute = asked.node.attribute("scales").map(|factors| factors.floats.clone());
    let Some(factors) = attribute.or_else(|| asked.factors(1)) else {
        return open(asked.dims(0).map(|dims| dims.len()).or_else(|| asked.length(1))?);
    };
    let dims = asked.dims(0).or_else(|| open(factors.len()))?;
    let fits = dims.len() == factors.len();
    fits.then(|| dims.into_iter().zip(factors).map(|(size, by)| scaled(size, by)).collect())
}
