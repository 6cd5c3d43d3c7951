//! Arithmetic on shapes: which integers a short list holds, element by element.
//!
//! Sizes that nobody knows stay unknown, and the sizes beside them known: `[N, 64]` is a shape
//! of two elements, whatever N is and however often it is cast.

use crate::facts::shape_rules::asked::{Asked, MAX_INTEGERS};
use crate::facts::shape_rules::axes::permutation;
use crate::facts::shape_rules::extent::{Extent, Extents, element_count, known, number, numbers};
use crate::facts::shape_rules::made::shape_range;
use crate::facts::shape_rules::pieces::cuts;
use crate::facts::shape_rules::{axes, made, pieces};
use crate::onnx::data;
use crate::onnx::node::from_front;
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// The same elements in the same order.
pub fn kept(asked: &Asked) -> Option<Extents> {
    asked.integers(0)
}

/// The same elements, cast to a type that they fit in.
pub fn cast(asked: &Asked) -> Option<Extents> {
    let to = i32::try_from(asked.node.int("to", 0)).ok()?;
    let is_bool = match DataType::try_from(to).ok()? {
        // No tensor has more elements along an axis than 32 bits can count.
        DataType::Int64 | DataType::Int32 => false,
        DataType::Bool => true,
        _ => return None,
    };
    let to_bool = |value: Extent| Extent::Number(i64::from(value != Extent::Number(0)));
    let integers = asked.integers(0)?.into_iter();
    Some(integers.map(|value| if is_bool { value.map(to_bool) } else { value }).collect())
}

/// Returns the result of an operation, if 32 bits hold it: then no type wraps it.
fn fits(value: i64) -> Option<Extent> {
    i32::try_from(value).is_ok().then_some(value.into())
}

fn each(asked: &Asked, change: impl Fn(i64) -> Option<i64>) -> Option<Extents> {
    let change = |value| change(number(value)?).and_then(fits);
    Some(asked.integers(0)?.into_iter().map(change).collect())
}

pub fn absolute(asked: &Asked) -> Option<Extents> {
    each(asked, i64::checked_abs)
}

pub fn negated(asked: &Asked) -> Option<Extents> {
    each(asked, i64::checked_neg)
}

pub fn not(asked: &Asked) -> Option<Extents> {
    each(asked, |value| Some(i64::from(value == 0)))
}

/// Returns the lists that are operands of one operator: all of one length, or of one element.
fn operands(asked: &Asked) -> Option<Vec<Extents>> {
    let list = |input: usize| {
        // Operands of more dimensions may broadcast to more elements.
        asked.dims(input).filter(|dims| dims.len() <= 1)?;
        asked.integers(input)
    };
    // All are asked for, so that whoever answers hears at once of everything that is missing.
    let lists: Vec<Option<Extents>> = (0..asked.inputs()).map(list).collect();
    let lists: Vec<Extents> = lists.into_iter().collect::<Option<_>>()?;
    let longest = lists.iter().find(|list| list.len() != 1).map_or(1, Vec::len);
    let repeated = |list: Extents| match list.as_slice() {
        [one] if longest != 1 => Some(vec![*one; longest]),
        _ => (list.len() == longest).then_some(list),
    };
    if longest > MAX_INTEGERS || asked.opset < 7 {
        return None;
    }
    lists.into_iter().map(repeated).collect()
}

fn pairs(asked: &Asked, result: impl Fn(i64, i64) -> Option<i64>) -> Option<Extents> {
    let [left, right] = operands(asked)?.try_into().ok()?;
    let both = left.into_iter().zip(right);
    let result = |(left, right)| result(number(left)?, number(right)?).and_then(fits);
    Some(both.map(result).collect())
}

pub fn sum(asked: &Asked) -> Option<Extents> {
    pairs(asked, i64::checked_add)
}

pub fn difference(asked: &Asked) -> Option<Extents> {
    pairs(asked, i64::checked_sub)
}

/// The product of anything and 0 is 0.
pub fn product(asked: &Asked) -> Option<Extents> {
    let [left, right] = operands(asked)?.try_into().ok()?;
    let both = left.into_iter().zip(right);
    let product = |(left, right): (Option<Extent>, Option<Extent>)| match (left, right) {
        (Some(Extent::Number(0)), _) | (_, Some(Extent::Number(0))) => Some(Extent::Number(0)),
        (Some(Extent::ONE), one) | (one, Some(Extent::ONE)) => one,
        (left, right) => number(left)?.checked_mul(number(right)?).and_then(fits),
    };
    Some(both.map(product).collect())
}

/// Whether the quotient is one of counts: not all engines agree on how a quotient below zero is
/// rounded.
fn are_counts(left: i64, right: i64) -> bool {
    left >= 0 && right > 0
}

pub fn quotient(asked: &Asked) -> Option<Extents> {
    pairs(asked, |left, right| left.checked_div(right).filter(|_| are_counts(left, right)))
}

pub fn remainder(asked: &Asked) -> Option<Extents> {
    pairs(asked, |left, right| left.checked_rem(right).filter(|_| are_counts(left, right)))
}

fn best(asked: &Asked, better: fn(i64, i64) -> i64) -> Option<Extents> {
    let mut lists = operands(asked)?.into_iter();
    let first = lists.next()?;
    let better = |(left, right)| Some(better(number(left)?, number(right)?).into());
    Some(lists.fold(first, |all, list| all.into_iter().zip(list).map(better).collect()))
}

pub fn largest(asked: &Asked) -> Option<Extents> {
    best(asked, i64::max)
}

pub fn smallest(asked: &Asked) -> Option<Extents> {
    best(asked, i64::min)
}

fn compared(asked: &Asked, holds: fn(&i64, &i64) -> bool) -> Option<Extents> {
    pairs(asked, |left, right| Some(i64::from(holds(&left, &right))))
}

pub fn equal(asked: &Asked) -> Option<Extents> {
    let [left, right] = operands(asked)?.try_into().ok()?;
    let is_equal = |(left, right): (Option<Extent>, Option<Extent>)| match (left?, right?) {
        (Extent::Number(left), Extent::Number(right)) => Some(left == right),
        (left, right) if left == right => Some(true),
        // A named size is neither 0 nor −1.
        (Extent::Number(..=0), _) | (_, Extent::Number(..=0)) => Some(false),
        _ => None,
    };
    let both = left.into_iter().zip(right);
    Some(both.map(|both| Some(Extent::Number(is_equal(both)?.into()))).collect())
}

pub fn greater(asked: &Asked) -> Option<Extents> {
    compared(asked, i64::gt)
}

pub fn greater_or_equal(asked: &Asked) -> Option<Extents> {
    compared(asked, i64::ge)
}

pub fn less(asked: &Asked) -> Option<Extents> {
    compared(asked, i64::lt)
}

pub fn less_or_equal(asked: &Asked) -> Option<Extents> {
    compared(asked, i64::le)
}

pub fn and(asked: &Asked) -> Option<Extents> {
    compared(asked, |&left, &right| left != 0 && right != 0)
}

pub fn or(asked: &Asked) -> Option<Extents> {
    compared(asked, |&left, &right| left != 0 || right != 0)
}

pub fn chosen(asked: &Asked) -> Option<Extents> {
    let [condition, yes, no] = operands(asked)?.try_into().ok()?;
    let all = condition.into_iter().zip(yes.into_iter().zip(no));
    let choice = |(condition, (yes, no)): (Option<Extent>, (Option<Extent>, Option<Extent>))| {
        match condition {
            Some(Extent::Number(0)) => no,
            Some(_) => yes,
            None => yes.filter(|_| yes == no),
        }
    };
    Some(all.map(choice).collect())
}

/// Returns the integers of a list of rank 1, whose elements stand one behind the other.
fn list(asked: &Asked, input: usize) -> Option<Extents> {
    let integers = asked.integers(input)?;
    (asked.dims(input)?.len() == 1).then_some(integers)
}

/// Reduces all elements of a list over its only axis.
fn of_all(asked: &Asked, result: impl Fn(Vec<i64>) -> Option<i64>) -> Option<Extents> {
    // Not even over that axis, if this attribute says so where no axes are named.
    if asked.node.int("noop_with_empty_axes", 0) != 0 {
        return None;
    }
    let whole: Option<Vec<i64>> = numbers(list(asked, 0)?).into_iter().collect();
    Some(vec![whole.and_then(result).and_then(fits)])
}

pub fn largest_of_all(asked: &Asked) -> Option<Extents> {
    of_all(asked, |list| list.into_iter().max())
}

pub fn smallest_of_all(asked: &Asked) -> Option<Extents> {
    of_all(asked, |list| list.into_iter().min())
}

pub fn product_of_all(asked: &Asked) -> Option<Extents> {
    of_all(asked, |list| list.into_iter().try_fold(1i64, i64::checked_mul))
}

pub fn sum_of_all(asked: &Asked) -> Option<Extents> {
    of_all(asked, |list| list.into_iter().try_fold(0i64, i64::checked_add))
}

/// Cuts axis by axis.
pub fn slice(asked: &Asked) -> Option<Extents> {
    let mut integers = asked.integers(0)?;
    let mut dims: Vec<i64> = numbers(asked.dims(0)?).into_iter().collect::<Option<_>>()?;
    for (axis, cut) in cuts(asked, dims.len())? {
        let size = *dims.get(axis)?;
        let (start, step, count) = cut.taken(size)?;
        let place = |at: i64| usize::try_from(at.checked_mul(step)?.checked_add(start)?).ok();
        let mut inner = dims.get(axis.checked_add(1)?..)?.iter();
        let inner = inner.try_fold(1i64, |inner, &size| inner.checked_mul(size))?;
        let (inner, size) = (usize::try_from(inner).ok()?, usize::try_from(size).ok()?);
        let mut left = Extents::new();
        // An empty tensor has no rows.
        for row in integers.chunks(inner.checked_mul(size)?.max(1)) {
            for at in 0..count {
                let begin = place(at)?.checked_mul(inner)?;
                left.extend(row.get(begin..begin.checked_add(inner)?)?);
            }
        }
        integers = left;
        *dims.get_mut(axis)? = count;
    }
    Some(integers)
}

pub fn concat(asked: &Asked) -> Option<Extents> {
    let parts: Vec<Option<Extents>> = (0..asked.inputs()).map(|input| list(asked, input)).collect();
    let mut all = Extents::new();
    for (input, part) in parts.into_iter().enumerate() {
        match part {
            Some(part) => all.extend(part),
            // Of a part of which only the length is known, the elements are counted.
            None => {
                let length = asked.length(input).filter(|&length| length <= MAX_INTEGERS)?;
                all.extend(std::iter::repeat_n(None, length));
            }
        }
        if all.len() > MAX_INTEGERS {
            return None;
        }
    }
    Some(all)
}

pub fn split(asked: &Asked) -> Option<Extents> {
    let integers = list(asked, 0)?;
    // Parts may be empty, so there may be any number of them.
    if asked.output >= MAX_INTEGERS {
        return None;
    }
    let size = |output: usize| {
        let asked = asked.about(output);
        usize::try_from(number(*pieces::split(&asked)?.first()?)?).ok()
    };
    let mut start = 0usize;
    for output in 0..asked.output {
        start = start.checked_add(size(output)?)?;
    }
    let end = start.checked_add(size(asked.output)?)?;
    Some(integers.get(start..end)?.to_vec())
}

/// A matrix is transposed; a list stays.
pub fn transpose(asked: &Asked) -> Option<Extents> {
    let (integers, dims) = (asked.integers(0)?, asked.dims(0)?);
    let axes = permutation(asked, dims.len())?;
    let is_canonical = axes.iter().copied().eq(0..dims.len());
    match dims.as_slice() {
        _ if is_canonical => Some(integers),
        &[Some(Extent::Number(rows)), Some(Extent::Number(columns))] => {
            let (rows, columns) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
            // With no rows, 2⁵⁹ columns hold no number either.
            if integers.is_empty() || rows.checked_mul(columns)? != integers.len() {
                return Some(integers).filter(Vec::is_empty);
            }
            let places = (0..columns).flat_map(|column| {
                (0..rows).map(move |row| row.checked_mul(columns)?.checked_add(column))
            });
            places.map(|place| integers.get(place?).copied()).collect()
        }
        _ => None,
    }
}

/// Returns a list that holds `one` as often as these dimensions have elements, if that is a
/// short list.
fn repeated(one: Option<Extent>, dims: Option<Extents>) -> Option<Extents> {
    let count = usize::try_from(element_count(&dims?)?.number()?).ok()?;
    (count <= MAX_INTEGERS).then(|| vec![one; count])
}

pub fn expand(asked: &Asked) -> Option<Extents> {
    let integers = asked.integers(0)?;
    match integers.as_slice() {
        [one] => repeated(*one, axes::expand(asked)),
        _ => (axes::expand(asked)?.len() == 1).then_some(integers),
    }
}

pub fn tile(asked: &Asked) -> Option<Extents> {
    let integers = list(asked, 0)?;
    let times = match asked.integers(1)?.as_slice() {
        &[times] => usize::try_from(number(times)?).ok()?,
        _ => return None,
    };
    let length = integers.len().checked_mul(times)?;
    (length <= MAX_INTEGERS).then(|| integers.repeat(times))
}

pub fn gather(asked: &Asked) -> Option<Extents> {
    let integers = list(asked, 0)?;
    let element = |at: Option<Extent>| {
        // It may not be known which element is picked, only that there is one.
        let Some(at) = at else { return Some(None) };
        integers.get(from_front(at.number()?, integers.len())?).copied()
    };
    asked.integers(1)?.into_iter().map(element).collect()
}

pub fn constant(asked: &Asked) -> Option<Extents> {
    let [attribute] = asked.node.proto.attribute.as_slice() else { return None };
    let values = match attribute.name() {
        "value" => integers_of(attribute.t.as_deref()?)?,
        "value_int" => vec![attribute.i()],
        "value_ints" => attribute.ints.clone(),
        _ => return None,
    };
    Some(known(&values))
}

/// Returns what a short tensor holds, if it is of a type in which shapes are computed.
pub fn integers_of(tensor: &TensorProto) -> Option<Vec<i64>> {
    let length = data::dims(tensor).ok()?;
    let length = length.into_iter().try_fold(1usize, usize::checked_mul)?;
    match DataType::try_from(tensor.data_type()).ok()? {
        DataType::Int64 | DataType::Int32 | DataType::Bool if length <= MAX_INTEGERS => {
            tensor::integers(tensor, &Storage::default()).ok()
        }
        _ => None,
    }
}

pub fn constant_of_shape(asked: &Asked) -> Option<Extents> {
    let value = integers_of(asked.node.attribute("value")?.t.as_deref()?)?;
    repeated(value.first().map(|&value| value.into()), made::constant_of_shape(asked))
}

pub fn shape(asked: &Asked) -> Option<Extents> {
    let dims = asked.dims(0)?;
    Some(dims.get(shape_range(asked, dims.len())?)?.to_vec())
}

pub fn size(asked: &Asked) -> Option<Extents> {
    Some(vec![element_count(&asked.dims(0)?)])
}

pub fn range(asked: &Asked) -> Option<Extents> {
    let given = |input: usize| number(*asked.integers(input)?.first()?);
    let (start, delta) = (given(0)?, given(2)?);
    let length = number(*made::range(asked)?.first()?)?;
    let length = usize::try_from(length).ok().filter(|&length| length <= MAX_INTEGERS)?;
    let mut next = Some(start);
    let mut step = |_| {
        let value = next;
        next = next.and_then(|next| next.checked_add(delta));
        value.and_then(fits)
    };
    Some((0..length).map(&mut step).collect())
}
