//! Shapes of the same elements along other axes.
//!
//! Knows orders and numbers of axes; does not know what lies along them.

use crate::facts::shape_rules::asked::{Asked, List, open};
use crate::facts::shape_rules::elementwise::broadcast_dims;
use crate::facts::shape_rules::extent::{Extent, Extents, Product, element_count, number};
use crate::onnx::node::{distinct_axes, from_front};

/// Returns the permutation of a Transpose of a tensor with `rank` axes.
pub fn permutation(asked: &Asked, rank: usize) -> Option<Vec<usize>> {
    let Some(perm) = asked.node.ints("perm") else { return Some((0..rank).rev().collect()) };
    distinct_axes(perm, rank).filter(|axes| axes.len() == rank)
}

pub fn transpose(asked: &Asked) -> Option<Extents> {
    // The permutation tells the rank of a tensor that nobody described.
    let dims = asked.dims(0).or_else(|| open(asked.node.ints("perm")?.len()))?;
    let axes = permutation(asked, dims.len())?;
    axes.into_iter().map(|axis| dims.get(axis).copied()).collect()
}

pub fn flatten(asked: &Asked) -> Option<Extents> {
    let Some(dims) = asked.dims(0) else { return open(2) };
    // "Behind the last axis" is allowed, too.
    let axis = match asked.node.int("axis", 1) {
        axis if axis < 0 => from_front(axis, dims.len())?,
        axis => usize::try_from(axis).ok()?,
    };
    let (outer, inner) = dims.split_at_checked(axis)?;
    Some(vec![element_count(outer), element_count(inner)])
}

pub fn reshape(asked: &Asked) -> Option<Extents> {
    let wanted = match asked.list("shape", 1) {
        List::Known(wanted) => wanted,
        // There are as many dimensions as the shape has elements, whatever these are.
        list => return open(list.length()?),
    };
    let input = asked.dims(0);
    let copies = asked.node.int("allowzero", 0) == 0;
    let copied = |axis: usize| *input.as_ref()?.get(axis)?;
    let mut dims = open(wanted.len())?;
    for (axis, (size, &wanted)) in dims.iter_mut().zip(&wanted).enumerate() {
        *size = match wanted {
            Some(Extent::Number(0)) if copies => copied(axis),
            wanted => wanted.filter(|wanted| is_given(*wanted)),
        };
    }
    if let Some(rest) = input.as_ref().and_then(|input| rest(input, &wanted, copies)) {
        // A size that is neither given nor copied takes what is left, if it is the only one.
        let open = |wanted: &Option<Extent>| !wanted.is_some_and(is_given);
        let mut places = wanted.iter().enumerate().filter(|(_, wanted)| open(wanted));
        if let (Some((place, _)), None) = (places.next(), places.next()) {
            *dims.get_mut(place)? = Some(rest);
        }
    }
    Some(dims)
}

/// Whether an element of a shape is the size itself, and not to be found out.
fn is_given(wanted: Extent) -> bool {
    wanted.number().is_none_or(|wanted| wanted >= 0)
}

/// Returns how often the product of the sizes that are given and copied goes into the input:
/// sizes that are copied cancel out, and so do equal names. `None` if something is not known, or
/// 0 is divided by 0.
fn rest(input: &[Option<Extent>], wanted: &[Option<Extent>], copies: bool) -> Option<Extent> {
    let zero = Some(Extent::Number(0));
    let is_copied = |axis: usize| copies && wanted.get(axis) == Some(&zero);
    let left = input.iter().enumerate().filter(|&(axis, _)| !is_copied(axis));
    let left: Extents = left.map(|(_, &size)| size).collect();
    let given = wanted.iter().enumerate().filter(|&(axis, _)| !is_copied(axis));
    let given: Extents =
        given.map(|(_, &size)| size).filter(|size| size.is_some_and(is_given)).collect();
    Product::of(&left)?.over(Product::of(&given)?)?.extent()
}

pub fn squeeze(asked: &Asked) -> Option<Extents> {
    let dims = asked.dims(0)?;
    match asked.list("axes", 1) {
        List::LeftOut => {
            // A size that is only a name may be 1.
            let all_known = dims.iter().all(|&size| number(size).is_some());
            all_known.then(|| dims.into_iter().filter(|&size| size != Some(Extent::ONE)).collect())
        }
        axes => match axes.whole() {
            None => open(dims.len().checked_sub(axes.length()?)?),
            Some(axes) => {
                let axes = distinct_axes(&axes, dims.len())?;
                let stay = dims.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
                Some(stay.map(|(_, &size)| size).collect())
            }
        },
    }
}

pub fn unsqueeze(asked: &Asked) -> Option<Extents> {
    let dims = asked.dims(0)?;
    let axes = asked.list("axes", 1);
    let rank = dims.len().checked_add(axes.length()?)?;
    let made = open(rank)?;
    let Some(axes) = axes.whole() else {
        // A scalar becomes a list of one element.
        return if rank == 1 { Some(vec![Some(Extent::ONE)]) } else { Some(made) };
    };
    let axes = distinct_axes(&axes, rank)?;
    let mut old = dims.into_iter();
    let size =
        |axis: usize| if axes.contains(&axis) { Some(Some(Extent::ONE)) } else { old.next() };
    (0..rank).map(size).collect()
}

pub fn expand(asked: &Asked) -> Option<Extents> {
    let dims = asked.dims(0)?;
    match asked.list("shape", 1) {
        List::Known(shape) => broadcast_dims(&dims, &shape),
        shape => broadcast_dims(&dims, &open(shape.length()?)?),
    }
}

fn block_size(asked: &Asked) -> Option<i64> {
    Some(asked.node.int("blocksize", 0)).filter(|&block| block > 0)
}

pub fn depth_to_space(asked: &Asked) -> Option<Extents> {
    let block = block_size(asked)?;
    let [batch, channels, height, width] = asked.dims(0).or_else(|| open(4))?.try_into().ok()?;
    let depth = number(channels).and_then(|depth| depth.checked_div(block.checked_mul(block)?));
    let times = |size| Some(number(size)?.checked_mul(block)?.into());
    Some(vec![batch, depth.map(Extent::Number), times(height), times(width)])
}

pub fn space_to_depth(asked: &Asked) -> Option<Extents> {
    let block = block_size(asked)?;
    let [batch, channels, height, width] = asked.dims(0).or_else(|| open(4))?.try_into().ok()?;
    let depth = number(channels).and_then(|depth| depth.checked_mul(block.checked_mul(block)?));
    let parts = |size| Some(number(size)?.checked_div(block)?.into());
    Some(vec![batch, depth.map(Extent::Number), parts(height), parts(width)])
}
