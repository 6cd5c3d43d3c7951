//! Shapes of what is padded, cut, joined or repeated along its axes.
//!
//! Knows pads, ranges and counts; does not know what is put in.

use crate::facts::shape_rules::asked::{Asked, List, agreed, open};
use crate::facts::shape_rules::extent::{Extent, Extents, extents, number, numbers};
use crate::onnx::node::{distinct_axes, from_front};

/// `n + begin + end` along each axis; both pads may be negative.
pub fn pad(asked: &Asked) -> Option<Extents> {
    let dims = asked.dims(0)?;
    let grown = grown(asked, dims.len())?;
    let size = |(size, grown): (Option<Extent>, Option<Extent>)| match (size, grown) {
        (Some(size), Some(Extent::Number(grown))) => size.plus(grown).map(Some),
        _ => Some(None),
    };
    dims.into_iter().zip(grown).map(size).collect()
}

/// Returns by how many elements a Pad makes each axis of a tensor with `rank` axes longer, as
/// far as that is known; `None` if its pads do not fit.
pub fn grown(asked: &Asked, rank: usize) -> Option<Extents> {
    let name = if asked.opset < 2 { "paddings" } else { "pads" };
    let List::Known(pads) = asked.list(name, 1) else { return open(rank) };
    let axes: Vec<usize> = match asked.list("axes", 3) {
        List::LeftOut => (0..rank).collect(),
        axes => match axes.whole() {
            Some(axes) => distinct_axes(&axes, rank)?,
            None => return open(rank),
        },
    };
    let (begins, ends) = pads.split_at_checked(axes.len())?;
    if begins.len() != ends.len() {
        return None;
    }
    let mut grown = vec![Some(Extent::Number(0)); rank];
    for (axis, (begin, end)) in axes.into_iter().zip(begins.iter().zip(ends)) {
        *grown.get_mut(axis)? = match (begin, end) {
            (Some(Extent::Number(begin)), Some(Extent::Number(end))) => {
                Some(begin.checked_add(*end)?.into())
            }
            _ => None,
        };
    }
    Some(grown)
}

/// The range of a Slice along one axis.
pub struct AxisRange {
    pub start: Option<i64>,
    pub end: Option<i64>,
    pub step: Option<i64>,
}

impl AxisRange {
    /// Whether it takes all elements, however many there are.
    fn is_of_all(&self) -> bool {
        (self.start, self.step) == (Some(0), Some(1))
            && self.end.is_some_and(|end| end >= i32::MAX.into())
    }

    /// Returns the first element, the step and the number of elements that it takes from `size`.
    pub fn taken(&self, size: i64) -> Option<(i64, i64, i64)> {
        let step = self.step.filter(|&step| step != 0)?;
        let from_front = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
        let (start, end) = (from_front(self.start?), from_front(self.end?));
        if size < 1 {
            return Some((0, step, 0));
        }
        // On the way from the last element down to the first, "before the first" is −1.
        let last = size.checked_sub(1)?;
        let (start, way) = if step > 0 {
            let start = start.clamp(0, size);
            (start, end.clamp(0, size).checked_sub(start)?)
        } else {
            let start = start.clamp(0, last);
            (start, start.checked_sub(end.clamp(-1, last))?)
        };
        let stride = step.checked_abs()?;
        let count = way.max(0).checked_add(stride.checked_sub(1)?)?.checked_div(stride)?;
        Some((start, step, count))
    }
}

/// Returns the axes that a Slice of a tensor with `rank` axes cuts; `None` if these are not
/// known.
pub fn cuts(asked: &Asked, rank: usize) -> Option<Vec<(usize, AxisRange)>> {
    let [starts, ends, axes, steps] = [("starts", 1), ("ends", 2), ("axes", 3), ("steps", 4)]
        .map(|(name, input)| asked.list(name, input));
    let count = starts.length().or(ends.length()).or(axes.length())?;
    let element = |list: &List, at: usize| match list {
        List::Known(list) => list.get(at).copied().and_then(number),
        _ => None,
    };
    let axis = |at: usize| match &axes {
        List::LeftOut => Some(at).filter(|&axis| axis < rank),
        axes => from_front(element(axes, at)?, rank),
    };
    let step = |at: usize| match &steps {
        List::LeftOut => Some(1),
        steps => element(steps, at),
    };
    let cut = |at: usize| {
        let (start, end) = (element(&starts, at), element(&ends, at));
        Some((axis(at)?, AxisRange { start, end, step: step(at) }))
    };
    (0..count).map(cut).collect()
}

pub fn slice(asked: &Asked) -> Option<Extents> {
    let mut dims = asked.dims(0)?;
    let Some(cuts) = cuts(asked, dims.len()) else { return open(dims.len()) };
    for (axis, cut) in cuts {
        let size = dims.get_mut(axis)?;
        *size = match *size {
            whole if cut.is_of_all() => whole,
            size => number(size).and_then(|size| Some(cut.taken(size)?.2.into())),
        };
    }
    Some(dims)
}

/// Returns the axis of a Concat; operator set 1 has a default.
fn concat_axis(asked: &Asked, rank: usize) -> Option<usize> {
    asked.axis(if asked.opset < 4 { 1 } else { 0 }, rank)
}

pub fn concat(asked: &Asked) -> Option<Extents> {
    let parts = asked.all_dims();
    let rank = parts.iter().flatten().next()?.len();
    let at = concat_axis(asked, rank)?;
    let mut dims = open(rank)?;
    for part in parts.iter().flatten() {
        let mut others = part.clone();
        *others.get_mut(at)? = None;
        dims = agreed(&dims, &others)?;
    }
    let size = |part: &Option<Extents>| part.as_ref().and_then(|part| *part.get(at)?);
    let sizes = parts.iter().map(size);
    let sum = sizes.into_iter().try_fold(0i64, |sum, size| sum.checked_add(number(size)?));
    *dims.get_mut(at)? = sum.map(Extent::Number);
    Some(dims)
}

/// Returns the size of the part that is asked for.
fn part_size(asked: &Asked, whole: Option<Extent>) -> Option<Extent> {
    match asked.list("split", 1) {
        List::Known(parts) => *parts.get(asked.output)?,
        List::OfLength(_) => None,
        List::LeftOut => {
            let parts = match asked.node.int("num_outputs", 0) {
                0 => i64::try_from(asked.node.outputs.len()).ok()?,
                parts => parts,
            };
            if parts <= 0 {
                return None;
            }
            // The last part may be smaller.
            let whole = number(whole)?;
            let each = whole.checked_add(parts.checked_sub(1)?)?.checked_div(parts)?;
            let before = each.checked_mul(i64::try_from(asked.output).ok()?)?;
            Some(whole.checked_sub(before)?.clamp(0, each).into())
        }
    }
}

pub fn split(asked: &Asked) -> Option<Extents> {
    let mut dims = asked.dims(0)?;
    let axis = asked.axis(0, dims.len())?;
    let whole = *dims.get(axis)?;
    *dims.get_mut(axis)? = part_size(asked, whole);
    Some(dims)
}

/// The dimensions that all parts have in common.
pub fn split_to_sequence(asked: &Asked) -> Option<Extents> {
    let mut dims = asked.dims(0)?;
    let axis = asked.axis(0, dims.len())?;
    // It splits into single elements, which lose their axis if the attribute asks for that.
    if !asked.has(1) && asked.node.int("keepdims", 1) == 0 {
        dims.remove(axis);
    } else {
        *dims.get_mut(axis)? = if asked.has(1) { None } else { Some(Extent::ONE) };
    }
    Some(dims)
}

/// The tensors of a sequence may have different sizes, so a name is not passed on.
pub fn sequence_at(asked: &Asked) -> Option<Extents> {
    Some(extents(numbers(asked.dims(0)?)))
}

pub fn tile(asked: &Asked) -> Option<Extents> {
    let dims = asked.dims(0)?;
    let repeats = match asked.integers(1) {
        None => return open(dims.len()),
        Some(repeats) if asked.opset >= 6 => repeats,
        // One axis, repeated this often.
        Some(tiles) => {
            let (tiles, axis) = (*tiles.first()?, asked.integers(2)?);
            let axis = from_front(number(*axis.first()?)?, dims.len())?;
            (0..dims.len()).map(|at| if at == axis { tiles } else { Some(Extent::ONE) }).collect()
        }
    };
    let times = |(size, times): (Option<Extent>, Option<Extent>)| match (size, times) {
        (Some(Extent::Number(0)), _) | (_, Some(Extent::Number(0))) => Some(Extent::Number(0)),
        (size, Some(Extent::ONE)) => size,
        (size, times) => Some(number(size)?.checked_mul(number(times)?)?.into()),
    };
    (dims.len() == repeats.len()).then(|| dims.into_iter().zip(repeats).map(times).collect())
}
