//! Shapes of what is moved, repeated, cut, joined, broadcast or summed up along axes.

use crate::facts::shape_rules::{Asked, Dims, List, from_front, open, product};

pub fn kept(asked: &Asked) -> Option<Dims> {
    asked.dims(0)
}

pub fn scalar(_: &Asked) -> Option<Dims> {
    Some(Vec::new())
}

/// Shapes that meet at their last axes.
pub fn broadcast(asked: &Asked) -> Option<Dims> {
    let variadic = matches!(asked.node.proto.op_type(), "Max" | "Mean" | "Min" | "Sum");
    // Before operator set 7 the second operand was made as large as the first, and only
    // where attributes said so; sums of many operands followed with operator set 8.
    if !variadic && asked.opset < 7 {
        return asked.dims(0);
    }
    let mut operands = asked.all_dims().into_iter();
    let first = operands.next()??;
    operands.try_fold(first, |all, dims| broadcast_dims(&all, &dims?))
}

/// What two shapes make of each other; `None` if they do not fit.
pub fn broadcast_dims(left: &[Option<i64>], right: &[Option<i64>]) -> Option<Dims> {
    let rank = left.len().max(right.len());
    let size = |dims: &[Option<i64>], axis: usize| match (axis.checked_add(dims.len())?)
        .checked_sub(rank)
    {
        Some(axis) => dims.get(axis).copied(),
        None => Some(Some(1)),
    };
    (0..rank).map(|axis| broadcast_size(size(left, axis)?, size(right, axis)?)).collect()
}

/// `None` if the sizes do not fit.
pub fn broadcast_size(left: Option<i64>, right: Option<i64>) -> Option<Option<i64>> {
    match (left, right) {
        (Some(1), other) | (other, Some(1)) => Some(other),
        (Some(left), Some(right)) if left != right => None,
        // The one that is not known is 1 or the same.
        (known, other) => Some(known.or(other)),
    }
}

/// The mean and the deviation have one element where their axes were.
pub fn layer_norm(asked: &Asked) -> Option<Dims> {
    let mut dims = asked.dims(0)?;
    if asked.output > 0 {
        let axis = asked.axis(-1, dims.len())?;
        dims.iter_mut().skip(axis).for_each(|size| *size = Some(1));
    }
    Some(dims)
}

/// DynamicQuantizeLinear: its scale and zero point are scalars.
pub fn quantized(asked: &Asked) -> Option<Dims> {
    if asked.output == 0 { asked.dims(0) } else { Some(Vec::new()) }
}

/// `n + begin + end` along each axis; both may be negative.
pub fn pad(asked: &Asked) -> Option<Dims> {
    let mut dims = asked.dims(0)?;
    let name = if asked.opset < 2 { "paddings" } else { "pads" };
    let List::Known(pads) = asked.list(name, 1) else { return open(dims.len()) };
    let axes: Vec<usize> = match asked.list("axes", 3) {
        List::LeftOut => (0..dims.len()).collect(),
        axes => match axes.whole() {
            Some(axes) => {
                axes.into_iter().map(|axis| from_front(axis, dims.len())).collect::<Option<_>>()?
            }
            None => return open(dims.len()),
        },
    };
    let (begins, ends) = pads.split_at_checked(axes.len())?;
    if begins.len() != ends.len() {
        return None;
    }
    for (axis, (begin, end)) in axes.into_iter().zip(begins.iter().zip(ends)) {
        let size = dims.get_mut(axis)?;
        *size = match (*size, begin, end) {
            (_, Some(0), Some(0)) => *size,
            (Some(n), Some(begin), Some(end)) => Some(n.checked_add(*begin)?.checked_add(*end)?),
            _ => None,
        };
    }
    Some(dims)
}

/// One axis of a Slice.
pub struct AxisRange {
    pub start: Option<i64>,
    pub end: Option<i64>,
    pub step: Option<i64>,
}

impl AxisRange {
    /// The first element, the step and the number of elements that it takes from `size`.
    pub fn taken(&self, size: i64) -> Option<(i64, i64, i64)> {
        let step = self.step.filter(|&step| step != 0)?;
        let from_front = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
        let (start, end) = (from_front(self.start?), from_front(self.end?));
        if size < 1 {
            return Some((0, step, 0));
        }
        // From the last element down to the first, "before the first" is −1.
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

/// The axes that a Slice of a tensor with `rank` axes cuts; `None` if these are not known.
pub fn cuts(asked: &Asked, rank: usize) -> Option<Vec<(usize, AxisRange)>> {
    let [starts, ends, axes, steps] = [("starts", 1), ("ends", 2), ("axes", 3), ("steps", 4)]
        .map(|(name, input)| asked.list(name, input));
    let count = starts.length().or(ends.length()).or(axes.length())?;
    let element = |list: &List, at: usize| match list {
        List::Known(list) => list.get(at).copied().flatten(),
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

pub fn slice(asked: &Asked) -> Option<Dims> {
    let mut dims = asked.dims(0)?;
    let Some(cuts) = cuts(asked, dims.len()) else { return open(dims.len()) };
    for (axis, cut) in cuts {
        let size = dims.get_mut(axis)?;
        *size = size.and_then(|size| cut.taken(size)).map(|(_, _, count)| count);
    }
    Some(dims)
}

/// The axis of a Concat; operator set 1 has a default.
fn concat_axis(asked: &Asked, rank: usize) -> Option<usize> {
    asked.axis(if asked.opset < 4 { 1 } else { 0 }, rank)
}

pub fn concat(asked: &Asked) -> Option<Dims> {
    let parts = asked.all_dims();
    let rank = parts.iter().flatten().next()?.len();
    let at = concat_axis(asked, rank)?;
    let mut dims = open(rank)?;
    for part in parts.iter().flatten() {
        let mut others = part.clone();
        *others.get_mut(at)? = None;
        dims = super::agreed(&dims, &others)?;
    }
    let size = |part: &Option<Dims>| part.as_ref().and_then(|part| *part.get(at)?);
    let sizes = parts.iter().map(size);
    let sum = sizes.into_iter().try_fold(0i64, |sum, size| sum.checked_add(size?));
    *dims.get_mut(at)? = sum;
    Some(dims)
}

/// How large the part is that is asked for.
fn part_size(asked: &Asked, whole: Option<i64>) -> Option<i64> {
    match asked.list("split", 1) {
        List::Known(parts) => *parts.get(asked.output)?,
        List::OfLength(_) => None,
        List::LeftOut => {
            let parts = match asked.node.int("num_outputs", 0) {
                0 => i64::try_from(asked.node.outputs.len()).ok()?,
                parts => parts,
            };
            // The last part may be smaller.
            let each = whole?.checked_add(parts.checked_sub(1)?)?.checked_div(parts)?;
            let before = each.checked_mul(i64::try_from(asked.output).ok()?)?;
            Some(whole?.checked_sub(before)?.clamp(0, each))
        }
    }
}

pub fn split(asked: &Asked) -> Option<Dims> {
    let mut dims = asked.dims(0)?;
    let axis = asked.axis(0, dims.len())?;
    let whole = *dims.get(axis)?;
    *dims.get_mut(axis)? = part_size(asked, whole);
    Some(dims)
}

/// What all parts have in common.
pub fn split_to_sequence(asked: &Asked) -> Option<Dims> {
    let mut dims = asked.dims(0)?;
    let axis = asked.axis(0, dims.len())?;
    // By single elements, which lose their axis if that is asked for.
    if !asked.has(1) && asked.node.int("keepdims", 1) == 0 {
        dims.remove(axis);
    } else {
        *dims.get_mut(axis)? = if asked.has(1) { None } else { Some(1) };
    }
    Some(dims)
}

/// The axes of a Transpose of a tensor with `rank` axes.
pub fn permutation(asked: &Asked, rank: usize) -> Option<Vec<usize>> {
    let Some(perm) = asked.node.ints("perm") else { return Some((0..rank).rev().collect()) };
    let axes: Vec<usize> =
        perm.iter().map(|&axis| from_front(axis, rank)).collect::<Option<_>>()?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    (sorted.into_iter().eq(0..rank)).then_some(axes)
}

pub fn transpose(asked: &Asked) -> Option<Dims> {
    // Its permutation tells the rank of what nobody described.
    let dims = asked.dims(0).or_else(|| open(asked.node.ints("perm")?.len()))?;
    let axes = permutation(asked, dims.len())?;
    axes.into_iter().map(|axis| dims.get(axis).copied()).collect()
}

pub fn flatten(asked: &Asked) -> Option<Dims> {
    let Some(dims) = asked.dims(0) else { return open(2) };
    // "Behind the last axis" is one, too.
    let axis = match asked.node.int("axis", 1) {
        axis if axis < 0 => from_front(axis, dims.len())?,
        axis => usize::try_from(axis).ok()?,
    };
    let (outer, inner) = dims.split_at_checked(axis)?;
    Some(vec![product(outer), product(inner)])
}

pub fn reshape(asked: &Asked) -> Option<Dims> {
    let wanted = match asked.list("shape", 1) {
        List::Known(wanted) => wanted,
        // As many dimensions as the shape has elements, whatever these are.
        list => return open(list.length()?),
    };
    let input = asked.dims(0);
    let copies = asked.node.int("allowzero", 0) == 0;
    let copied = |axis: usize| *input.as_ref()?.get(axis)?;
    let mut dims = open(wanted.len())?;
    for (axis, (size, &wanted)) in dims.iter_mut().zip(&wanted).enumerate() {
        *size = match wanted {
            Some(0) if copies => copied(axis),
            Some(wanted) if wanted >= 0 => Some(wanted),
            _ => None,
        };
    }
    if let Some(rest) = input.as_ref().and_then(|input| rest(input, &wanted, copies)) {
        // What is neither given nor copied takes what is left, if there is one such.
        let open = |wanted: &Option<i64>| wanted.is_none_or(|wanted| wanted < 0);
        let mut places = wanted.iter().enumerate().filter(|(_, wanted)| open(wanted));
        if let (Some((place, _)), None) = (places.next(), places.next()) {
            *dims.get_mut(place)? = Some(rest);
        }
    }
    Some(dims)
}

/// How often the sizes that are given and copied go into the input: unknown sizes that are
/// copied cancel out. `None` if something is not known, or it is 0 divided by 0.
fn rest(input: &[Option<i64>], wanted: &[Option<i64>], copies: bool) -> Option<i64> {
    let is_copied =
        |axis: usize| copies && wanted.get(axis).is_some_and(|wanted| *wanted == Some(0));
    let left = input.iter().enumerate().filter(|&(axis, _)| !is_copied(axis));
    let left: Vec<Option<i64>> = left.map(|(_, &size)| size).collect();
    let given = wanted.iter().enumerate().filter(|&(axis, _)| !is_copied(axis));
    let given: Vec<Option<i64>> =
        given.map(|(_, &size)| size).filter(|size| size.is_some_and(|size| size >= 0)).collect();
    let (left, given) = (product(&left)?, product(&given)?);
    (left.checked_rem(given)? == 0).then(|| left.checked_div(given)).flatten()
}

pub fn squeeze(asked: &Asked) -> Option<Dims> {
    let dims = asked.dims(0)?;
    match asked.list("axes", 1) {
        List::LeftOut => {
            let all_known = dims.iter().all(Option::is_some);
            all_known.then(|| dims.into_iter().filter(|&size| size != Some(1)).collect())
        }
        axes => match axes.whole() {
            None => open(dims.len().checked_sub(axes.length()?)?),
            Some(axes) => {
                let axes = axes.into_iter().map(|axis| from_front(axis, dims.len()));
                let axes: Vec<usize> = axes.collect::<Option<_>>()?;
                let stay = dims.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
                Some(stay.map(|(_, &size)| size).collect())
            }
        },
    }
}

pub fn unsqueeze(asked: &Asked) -> Option<Dims> {
    let dims = asked.dims(0)?;
    let axes = asked.list("axes", 1);
    let rank = dims.len().checked_add(axes.length()?)?;
    let Some(axes) = axes.whole() else {
        // A number in a list.
        return if rank == 1 { Some(vec![Some(1)]) } else { open(rank) };
    };
    let axes: Vec<usize> =
        axes.into_iter().map(|axis| from_front(axis, rank)).collect::<Option<_>>()?;
    let mut old = dims.into_iter();
    let size = |axis: usize| if axes.contains(&axis) { Some(Some(1)) } else { old.next() };
    (0..rank).map(size).collect()
}

pub fn expand(asked: &Asked) -> Option<Dims> {
    let dims = asked.dims(0)?;
    match asked.list("shape", 1) {
        List::Known(shape) => broadcast_dims(&dims, &shape),
        shape => broadcast_dims(&dims, &open(shape.length()?)?),
    }
}

pub fn tile(asked: &Asked) -> Option<Dims> {
    let dims = asked.dims(0)?;
    let repeats = match asked.integers(1) {
        None => return open(dims.len()),
        Some(repeats) if asked.opset >= 6 => repeats,
        // One axis, so many times.
        Some(tiles) => {
            let (tiles, axis) = (*tiles.first()?, asked.integers(2)?);
            let axis = from_front((*axis.first()?)?, dims.len())?;
            (0..dims.len()).map(|at| if at == axis { tiles } else { Some(1) }).collect()
        }
    };
    let times = |(size, times): (Option<i64>, Option<i64>)| match (size, times) {
        (Some(0), _) | (_, Some(0)) => Some(0),
        (size, times) => size?.checked_mul(times?),
    };
    (dims.len() == repeats.len()).then(|| dims.into_iter().zip(repeats).map(times).collect())
}

pub fn gather(asked: &Asked) -> Option<Dims> {
    let (mut dims, indices) = (asked.dims(0)?, asked.dims(1)?);
    let axis = asked.axis(0, dims.len())?;
    dims.splice(axis..=axis, indices);
    Some(dims)
}

pub fn gather_elements(asked: &Asked) -> Option<Dims> {
    asked.dims(1)
}

/// The last axis of the indices says how many axes of the data, behind those of the batch,
/// they go into.
pub fn gather_nd(asked: &Asked) -> Option<Dims> {
    let (dims, mut indices) = (asked.dims(0)?, asked.dims(1)?);
    let depth = usize::try_from(indices.pop()??).ok()?;
    let batch = usize::try_from(asked.node.int("batch_dims", 0)).ok()?;
    indices.extend(dims.get(batch.checked_add(depth)?..)?);
    Some(indices)
}

pub fn compress(asked: &Asked) -> Option<Dims> {
    if asked.node.attribute("axis").is_none() {
        return open(1);
    }
    let mut dims = asked.dims(0)?;
    let axis = asked.axis(0, dims.len())?;
    *dims.get_mut(axis)? = None;
    Some(dims)
}

pub fn one_hot(asked: &Asked) -> Option<Dims> {
    let mut dims = asked.dims(0)?;
    let axis = asked.axis(-1, dims.len().checked_add(1)?)?;
    let depth = asked.integers(1).and_then(|depth| *depth.first()?);
    dims.insert(axis, depth);
    Some(dims)
}

pub fn top_k(asked: &Asked) -> Option<Dims> {
    let mut dims = asked.dims(0)?;
    let axis = asked.axis(-1, dims.len())?;
    let count = match asked.node.attribute("k") {
        Some(count) => Some(count.i()),
        None => asked.integers(1).and_then(|count| *count.first()?),
    };
    *dims.get_mut(axis)? = count;
    Some(dims)
}

fn block_size(asked: &Asked) -> Option<i64> {
    Some(asked.node.int("blocksize", 0)).filter(|&block| block > 0)
}

pub fn depth_to_space(asked: &Asked) -> Option<Dims> {
    let block = block_size(asked)?;
    let [batch, channels, height, width] = asked.dims(0).or_else(|| open(4))?.try_into().ok()?;
    let depth = channels.and_then(|channels| channels.checked_div(block.checked_mul(block)?));
    let times = |size: Option<i64>| size.and_then(|size| size.checked_mul(block));
    Some(vec![batch, depth, times(height), times(width)])
}

pub fn space_to_depth(asked: &Asked) -> Option<Dims> {
    let block = block_size(asked)?;
    let [batch, channels, height, width] = asked.dims(0).or_else(|| open(4))?.try_into().ok()?;
    let depth = channels.and_then(|channels| channels.checked_mul(block.checked_mul(block)?));
    let parts = |size: Option<i64>| size.and_then(|size| size.checked_div(block));
    Some(vec![batch, depth, parts(height), parts(width)])
}

/// By sizes, or by factors.
pub fn resize(asked: &Asked) -> Option<Dims> {
    let dims = asked.dims(0);
    let (factors, sizes) = if asked.opset < 11 { (1, None) } else { (2, Some(3)) };
    let axes = match asked.node.ints("axes") {
        None => None,
        Some(axes) => {
            let rank = dims.as_ref()?.len();
            Some(axes.iter().map(|&axis| from_front(axis, rank)).collect::<Option<Vec<_>>>()?)
        }
    };
    // By other rules than these, sizes keep an aspect ratio, and factors are of a region.
    let stretches = matches!(asked.word("keep_aspect_ratio_policy"), b"" | b"stretch");
    let crops = asked.word("coordinate_transformation_mode") == b"tf_crop_and_resize";
    let wanted = sizes.and_then(|sizes| asked.integers(sizes));
    let numbers = asked.factors(factors);
    let by = |place: usize, size: Option<i64>| match (&wanted, &numbers) {
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
fn scaled(size: Option<i64>, factor: f32) -> Option<i64> {
    // Up to there float32 knows sizes exactly.
    let size = size.filter(|size| (0..1 << 24).contains(size))?;
    Some((size as f32 * factor).floor() as i64)
}

pub fn upsample(asked: &Asked) -> Option<Dims> {
    let attribute = asked.node.attribute("scales").map(|factors| factors.floats.clone());
    let Some(factors) = attribute.or_else(|| asked.factors(1)) else {
        return open(asked.dims(0).map(|dims| dims.len()).or_else(|| asked.length(1))?);
    };
    let dims = asked.dims(0).or_else(|| open(factors.len()))?;
    let fits = dims.len() == factors.len();
    fits.then(|| dims.into_iter().zip(factors).map(|(size, by)| scaled(size, by)).collect())
}

pub fn non_zero(asked: &Asked) -> Option<Dims> {
    let rank = asked.dims(0).and_then(|dims| i64::try_from(dims.len()).ok());
    Some(vec![rank, None])
}

pub fn non_max_suppression(_: &Asked) -> Option<Dims> {
    Some(vec![None, Some(3)])
}

/// The axes of a reduction go, or become 1.
pub fn reduce(asked: &Asked) -> Option<Dims> {
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
        axes.into_iter().map(|axis| from_front(axis, dims.len())).collect::<Option<_>>()?
    };
    Some(without(dims, &axes, keeps))
}

pub fn arg_reduce(asked: &Asked) -> Option<Dims> {
    let dims = asked.dims(0)?;
    let axis = asked.axis(0, dims.len())?;
    Some(without(dims, &[axis], asked.node.int("keepdims", 1) != 0))
}

fn without(dims: Dims, axes: &[usize], keeps: bool) -> Dims {
    let left = |(axis, size): (usize, Option<i64>)| match (axes.contains(&axis), keeps) {
        (false, _) => Some(size),
        (true, true) => Some(Some(1)),
        (true, false) => None,
    };
    dims.into_iter().enumerate().filter_map(left).collect()
}

pub fn constant(asked: &Asked) -> Option<Dims> {
    let [attribute] = asked.node.proto.attribute.as_slice() else { return None };
    let list = |length: usize| Some(vec![Some(i64::try_from(length).ok()?)]);
    match attribute.name() {
        "value" => Some(attribute.t.as_ref()?.dims.iter().copied().map(Some).collect()),
        "sparse_value" => {
            Some(attribute.sparse_tensor.as_ref()?.dims.iter().copied().map(Some).collect())
        }
        "value_float" | "value_int" | "value_string" => Some(Vec::new()),
        "value_floats" => list(attribute.floats.len()),
        "value_ints" => list(attribute.ints.len()),
        "value_strings" => list(attribute.strings.len()),
        _ => None,
    }
}

pub fn constant_of_shape(asked: &Asked) -> Option<Dims> {
    asked.integers(0).or_else(|| open(asked.length(0)?))
}

/// Which of `rank` dimensions a Shape gives: from `start` to `end`.
pub fn shape_range(asked: &Asked, rank: usize) -> Option<std::ops::Range<usize>> {
    let most = i64::try_from(rank).ok()?;
    let place = |name: &str, default: i64| {
        let at = asked.node.int(name, default);
        let at = if at < 0 { at.saturating_add(most) } else { at };
        usize::try_from(at.clamp(0, most)).ok()
    };
    let (start, end) = (place("start", 0)?, place("end", most)?);
    Some(start..end.max(start))
}

/// A list, whatever it is of.
pub fn shape(asked: &Asked) -> Option<Dims> {
    let length = asked.dims(0).and_then(|dims| Some(shape_range(asked, dims.len())?.len()));
    Some(vec![length.and_then(|length| i64::try_from(length).ok())])
}

/// `⌈(limit − start)/delta⌉`, at least 0.
pub fn range(asked: &Asked) -> Option<Dims> {
    Some(vec![range_length(asked)])
}

fn range_length(asked: &Asked) -> Option<i64> {
    let number = |input: usize| *asked.integers(input)?.first()?;
    let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
    let (way, step) = if delta < 0 {
        (start.checked_sub(limit)?, delta.checked_neg()?)
    } else {
        (limit.checked_sub(start)?, delta)
    };
    way.max(0).checked_add(step.checked_sub(1)?)?.checked_div(step)
}

pub fn of_shape_attribute(asked: &Asked) -> Option<Dims> {
    Some(asked.node.ints("shape")?.iter().copied().map(Some).collect())
}

pub fn multinomial(asked: &Asked) -> Option<Dims> {
    let batch = asked.dims(0).and_then(|dims| *dims.first()?);
    Some(vec![batch, Some(asked.node.int("sample_size", 1))])
}

pub fn signal_window(asked: &Asked) -> Option<Dims> {
    Some(vec![asked.integers(0).and_then(|size| *size.first()?)])
}
