//! What a node demands of its operands: the shape rules read backwards.
//!
//! A demand is an inference from the node being valid. `Conv` with a kernel `[O, C, k, k]` in
//! `g` groups reads `[N, C·g, H, W]`, whoever made it.
//!
//! Knows one node and its operands; does not know who made them.

use crate::facts::shape_rules::asked::{Asked, List, agreed, open};
use crate::facts::shape_rules::axes::permutation;
use crate::facts::shape_rules::extent::{Extent, Extents, number};
use crate::facts::shape_rules::pieces::{cuts, grown};
use crate::onnx::node::distinct_axes;
use crate::onnx::windows::kernel_shape;

/// Upper bound on the operands of a node; with more, asking each of them about all others takes
/// too long.
const MAX_OPERANDS: usize = 16;

/// Returns what is known of all operands of a node, if there are not too many.
fn operands(asked: &Asked) -> Option<Vec<Option<Extents>>> {
    (asked.inputs() <= MAX_OPERANDS).then(|| asked.all_dims())
}

/// The first input has the shape of the first output.
pub fn kept(asked: &Asked, input: usize) -> Option<Extents> {
    asked.demanded(0).filter(|_| input == 0)
}

/// The first input has as many axes as the first output.
fn rank_kept(asked: &Asked, input: usize) -> Option<Extents> {
    open(asked.demanded(0).filter(|_| input == 0)?.len())
}

/// If all others have fewer axes, an operand brings all axes itself; along each axis on which
/// the others have 1, it brings the size.
pub fn broadcast(asked: &Asked, input: usize) -> Option<Extents> {
    let result = asked.demanded(0)?;
    if asked.opset < 7 {
        return Some(result).filter(|_| input == 0);
    }
    let mut others = operands(asked)?;
    let known_rank = others.remove(input).map(|dims| dims.len());
    let others: Vec<Extents> = others.into_iter().collect::<Option<_>>()?;
    let brings_all = others.iter().all(|other| other.len() < result.len());
    let rank = known_rank.or_else(|| brings_all.then_some(result.len()))?;
    let missing = result.len().checked_sub(rank)?;
    // Along an axis of the result; an axis that an operand does not have counts as 1.
    let of_other = |other: &Extents, axis: usize| {
        let own = axis.checked_add(other.len()).and_then(|axis| axis.checked_sub(result.len()));
        own.map_or(Some(Extent::ONE), |own| other.get(own).copied().flatten())
    };
    let size = |(axis, &size): (usize, &Option<Extent>)| {
        let alone = others.iter().all(|other| of_other(other, axis) == Some(Extent::ONE));
        size.filter(|&size| alone || size == Extent::ONE)
    };
    Some(result.iter().enumerate().skip(missing).map(size).collect())
}

/// The second axis of the data is the channel axis; the other inputs have one number per
/// channel.
pub fn of_channels(asked: &Asked, input: usize) -> Option<Extents> {
    let data = || asked.dims(0).or_else(|| asked.demanded(0));
    if input > 0 {
        let channels = data().and_then(|data| data.get(1).copied().flatten());
        let others = (1..asked.inputs()).filter(|&other| other != input);
        let length = others.filter_map(|other| asked.length(other)).next();
        let length = length.and_then(|length| i64::try_from(length).ok()).map(Extent::Number);
        // In operator sets 1 and 7, there may be one number per element of an image.
        let per_channel = asked.node.int("spatial", 1) != 0;
        return per_channel.then(|| vec![length.or(channels)]);
    }
    let mut dims = match asked.demanded(0) {
        Some(dims) => dims,
        None => open(asked.dims(0)?.len())?,
    };
    let channels = (1..asked.inputs()).find_map(|other| asked.length(other));
    if let (Some(channels), Some(size)) = (channels, dims.get_mut(1)) {
        *size = i64::try_from(channels).ok().map(Extent::Number);
    }
    Some(dims)
}

/// `[N, C·groups, …]` for a kernel `[O, C, …]`, and `[O]` for a bias.
pub fn conv(asked: &Asked, input: usize) -> Option<Extents> {
    let kernel = asked.dims(1);
    match input {
        0 => {
            let kernel = kernel?;
            let width = kernel.get(1).copied().flatten();
            let groups = asked.node.int("group", 1);
            convolved(&kernel, times(width, groups))
        }
        1 => kernel_of(asked),
        2 => Some(vec![kernel.and_then(|kernel| *kernel.first()?)]),
        _ => None,
    }
}

/// As [`conv`], for operators whose third input is something else.
pub fn conv_without_bias(asked: &Asked, input: usize) -> Option<Extents> {
    if input < 2 { conv(asked, input) } else { None }
}

/// `[N, C, …]` for a kernel `[C, O, …]`.
pub fn conv_transpose(asked: &Asked, input: usize) -> Option<Extents> {
    let kernel = asked.dims(1);
    match input {
        0 => convolved(kernel.as_deref()?, *kernel.as_ref()?.first()?),
        1 => kernel_of(asked),
        2 => {
            let width = kernel.and_then(|kernel| *kernel.get(1)?);
            Some(vec![times(width, asked.node.int("group", 1))])
        }
        _ => None,
    }
}

fn times(size: Option<Extent>, groups: i64) -> Option<Extent> {
    Some(number(size)?.checked_mul(groups)?.into())
}

fn convolved(kernel: &[Option<Extent>], channels: Option<Extent>) -> Option<Extents> {
    let mut dims = open(kernel.len())?;
    *dims.get_mut(1)? = channels;
    Some(dims)
}

/// A kernel has as many axes as what it slides over.
fn kernel_of(asked: &Asked) -> Option<Extents> {
    open(asked.dims(0)?.len())
}

/// Batch, channels and one axis per number of the attribute `kernel_shape`.
pub fn pool(asked: &Asked, input: usize) -> Option<Extents> {
    let taps = kernel_shape(&asked.node.proto).filter(|_| input == 0);
    match taps {
        Some(taps) => open(taps.len().checked_add(2)?),
        None => rank_kept(asked, input),
    }
}

/// Batch and channels stay; the spatial sizes may have been any.
pub fn global_pool(asked: &Asked, input: usize) -> Option<Extents> {
    let mut dims = asked.demanded(0).filter(|_| input == 0)?;
    dims.iter_mut().skip(2).for_each(|size| *size = None);
    Some(dims)
}

/// Two matrices that share one size.
pub fn gemm(asked: &Asked, input: usize) -> Option<Extents> {
    let transposes = |name| asked.node.int(name, 0) != 0;
    let is_swapped = [transposes("transA"), transposes("transB")];
    let (other, inner, other_inner) = match input {
        0 => (1, 1, 0),
        1 => (0, 0, 1),
        _ => return None,
    };
    let place = |axis: usize, input: usize| match is_swapped.get(input) {
        Some(true) => 1usize.saturating_sub(axis),
        _ => axis,
    };
    let size = asked.dims(other).and_then(|dims| *dims.get(place(other_inner, other))?);
    let mut dims = open(2)?;
    *dims.get_mut(place(inner, input))? = size;
    Some(dims)
}

/// The inner size is that of the other operand; beside a matrix, an operand has as many axes as
/// the product.
pub fn matmul(asked: &Asked, input: usize) -> Option<Extents> {
    let other = match input {
        0 => asked.dims(1)?,
        1 => asked.dims(0)?,
        _ => return None,
    };
    let beside_matrix = || match asked.demanded(0)?.len() {
        0 => None,
        rank => Some(rank),
    };
    let rank = match asked.dims(input) {
        Some(dims) => dims.len(),
        None if other.len() == 2 => beside_matrix()?,
        None => return None,
    };
    let mut dims = open(rank)?;
    // The inner axis is the last one of the left side, and the last but one of the right side.
    let inner = |rank: usize, is_left: bool| match (rank, is_left) {
        (1, _) => Some(0),
        (_, true) => rank.checked_sub(1),
        (_, false) => rank.checked_sub(2),
    };
    let size = *other.get(inner(other.len(), input == 1)?)?;
    *dims.get_mut(inner(rank, input == 0)?)? = size;
    Some(dims)
}

pub fn recurrent(_: &Asked, input: usize) -> Option<Extents> {
    if input < 3 { open(3) } else { None }
}

pub fn of_rank_4(_: &Asked, input: usize) -> Option<Extents> {
    if input == 0 { open(4) } else { None }
}

/// Four axes, and a whole number of blocks along the last two.
pub fn space_to_depth(asked: &Asked, input: usize) -> Option<Extents> {
    let mut demanded = of_rank_4(asked, input)?;
    let block = asked.node.int("blocksize", 0);
    for (size, given) in demanded.iter_mut().zip(asked.dims(0).unwrap_or_default()).skip(2) {
        let Some(Extent::Number(given)) = given else { continue };
        let left = given.checked_rem(block).unwrap_or(0);
        *size = (left != 0).then(|| Extent::Number(given.saturating_sub(left)));
    }
    Some(demanded)
}

/// `n` along each axis of `n + begin + end`. If no axes are given, there are two pads per axis.
pub fn pad(asked: &Asked, input: usize) -> Option<Extents> {
    if input > 0 {
        return None;
    }
    if let Some(made) = asked.demanded(0) {
        let grown = grown(asked, made.len())?;
        let size = |(size, grown): (Option<Extent>, Option<Extent>)| {
            let size = number(size)?.checked_sub(number(grown)?).filter(|&size| size >= 0);
            size.map(Extent::Number)
        };
        return Some(made.into_iter().zip(grown).map(size).collect());
    }
    let name = if asked.opset < 2 { "paddings" } else { "pads" };
    let pads = asked.list(name, 1).length().filter(|_| !asked.has(3));
    match pads {
        Some(pads) => open(pads.checked_div(2)?),
        None => rank_kept(asked, input),
    }
}

/// Along axes that are not cut, the sizes are those of the output.
pub fn slice(asked: &Asked, input: usize) -> Option<Extents> {
    let result = asked.demanded(0).filter(|_| input == 0)?;
    let Some(cuts) = cuts(asked, result.len()) else { return open(result.len()) };
    let is_cut = |axis: usize| cuts.iter().any(|(cut, _)| *cut == axis);
    let size = |(axis, size): (usize, Option<Extent>)| size.filter(|_| !is_cut(axis));
    Some(result.into_iter().enumerate().map(size).collect())
}

/// All parts have the same sizes, except along the axis at which they meet.
pub fn concat(asked: &Asked, input: usize) -> Option<Extents> {
    let mut others = operands(asked)?;
    others.remove(input);
    let mut all: Option<Extents> = None;
    for mut dims in others.into_iter().flatten().chain(asked.demanded(0)) {
        let axis = asked.axis(if asked.opset < 4 { 1 } else { 0 }, dims.len())?;
        *dims.get_mut(axis)? = None;
        // If others contradict each other, the first one decides against all that differ from
        // it.
        all = Some(match all {
            Some(all) => agreed(&all, &dims).unwrap_or(all),
            None => dims,
        });
    }
    all
}

pub fn transpose(asked: &Asked, input: usize) -> Option<Extents> {
    if input > 0 {
        return None;
    }
    let rank = asked.node.ints("perm").map(<[i64]>::len);
    let Some(result) = asked.demanded(0) else { return open(rank?) };
    let mut dims = open(result.len())?;
    for (axis, size) in permutation(asked, result.len())?.into_iter().zip(result) {
        *dims.get_mut(axis)? = size;
    }
    Some(dims)
}

/// The sizes of the output, and 1 along the axes that went away.
pub fn squeeze(asked: &Asked, input: usize) -> Option<Extents> {
    let result = asked.demanded(0).filter(|_| input == 0)?;
    let axes = asked.list("axes", 1);
    if matches!(axes, List::LeftOut) {
        return None;
    }
    let rank = result.len().checked_add(axes.length()?)?;
    let made = open(rank)?;
    let Some(axes) = axes.whole() else { return Some(made) };
    let axes = distinct_axes(&axes, rank)?;
    let mut left = result.into_iter();
    let size =
        |axis: usize| if axes.contains(&axis) { Some(Some(Extent::ONE)) } else { left.next() };
    (0..rank).map(size).collect()
}

/// The sizes of the output, without the axes that were added.
pub fn unsqueeze(asked: &Asked, input: usize) -> Option<Extents> {
    let result = asked.demanded(0).filter(|_| input == 0)?;
    let axes = asked.list("axes", 1);
    let Some(axes) = axes.whole() else {
        return open(result.len().checked_sub(axes.length()?)?);
    };
    let axes = distinct_axes(&axes, result.len())?;
    let stay = result.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
    Some(stay.map(|(_, &size)| size).collect())
}
