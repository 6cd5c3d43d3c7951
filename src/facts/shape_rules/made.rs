//! Shapes of what is made from shapes and numbers, or of as many elements as there happen to be.
//!
//! Knows integers that a node is given; if these are unknown, so are the sizes.

use crate::facts::shape_rules::asked::{Asked, open};
use crate::facts::shape_rules::extent::{Extent, Extents, known, number};

pub fn scalar(_: &Asked) -> Option<Extents> {
    Some(Vec::new())
}

pub fn constant(asked: &Asked) -> Option<Extents> {
    let [attribute] = asked.node.proto.attribute.as_slice() else { return None };
    let list = |length: usize| Some(vec![Some(i64::try_from(length).ok()?.into())]);
    match attribute.name() {
        "value" => Some(known(&attribute.t.as_deref()?.dims)),
        "sparse_value" => Some(known(&attribute.sparse_tensor.as_ref()?.dims)),
        "value_float" | "value_int" | "value_string" => Some(Vec::new()),
        "value_floats" => list(attribute.floats.len()),
        "value_ints" => list(attribute.ints.len()),
        "value_strings" => list(attribute.strings.len()),
        _ => None,
    }
}

pub fn constant_of_shape(asked: &Asked) -> Option<Extents> {
    asked.integers(0).or_else(|| open(asked.length(0)?))
}

/// Returns which of `rank` dimensions a Shape gives: those from `start` to `end`.
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

/// A list, whatever the shape is of.
pub fn shape(asked: &Asked) -> Option<Extents> {
    let length = asked.dims(0).and_then(|dims| Some(shape_range(asked, dims.len())?.len()));
    Some(vec![length.and_then(|length| i64::try_from(length).ok()).map(Extent::Number)])
}

/// A list of `⌈(limit − start)/delta⌉` numbers, at least 0.
pub fn range(asked: &Asked) -> Option<Extents> {
    Some(vec![range_length(asked).map(Extent::Number)])
}

fn range_length(asked: &Asked) -> Option<i64> {
    let given = |input: usize| number(*asked.integers(input)?.first()?);
    let (start, limit, delta) = (given(0)?, given(1)?, given(2)?);
    let (way, step) = if delta < 0 {
        (start.checked_sub(limit)?, delta.checked_neg()?)
    } else {
        (limit.checked_sub(start)?, delta)
    };
    way.max(0).checked_add(step.checked_sub(1)?)?.checked_div(step)
}

pub fn of_shape_attribute(asked: &Asked) -> Option<Extents> {
    Some(known(asked.node.ints("shape")?))
}

pub fn multinomial(asked: &Asked) -> Option<Extents> {
    let batch = asked.dims(0).and_then(|dims| *dims.first()?);
    Some(vec![batch, Some(asked.node.int("sample_size", 1).into())])
}

pub fn signal_window(asked: &Asked) -> Option<Extents> {
    Some(vec![asked.integers(0).and_then(|size| *size.first()?)])
}

pub fn non_zero(asked: &Asked) -> Option<Extents> {
    let rank = asked.dims(0).and_then(|dims| i64::try_from(dims.len()).ok()).map(Extent::Number);
    Some(vec![rank, None])
}

pub fn non_max_suppression(_: &Asked) -> Option<Extents> {
    Some(vec![None, Some(Extent::Number(3))])
}
