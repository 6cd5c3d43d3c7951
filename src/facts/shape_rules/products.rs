//! Shapes of sums of products, and of what has one number per channel.
//!
//! Knows which axes are summed over; knows no weights.

use crate::facts::shape_rules::asked::{Asked, open};
use crate::facts::shape_rules::elementwise::{broadcast_dims, broadcast_size};
use crate::facts::shape_rules::extent::{Extent, Extents, number};
use crate::onnx::equation::Equation;

/// The outputs behind the first one are statistics: vectors of one number per channel.
pub fn batch_norm(asked: &Asked) -> Option<Extents> {
    let statistics = asked.dims(1);
    if asked.output > 0 {
        return statistics;
    }
    with_channels(asked, statistics)
}

pub fn instance_norm(asked: &Asked) -> Option<Extents> {
    with_channels(asked, asked.dims(1))
}

/// Returns the first input's dimensions, whose second one is the only one of `statistics`.
fn with_channels(asked: &Asked, statistics: Option<Extents>) -> Option<Extents> {
    let mut dims = asked.dims(0)?;
    if let (Some([channels]), Some(size)) = (statistics.as_deref(), dims.get_mut(1)) {
        // A number says more than a name.
        let known = number(*size).or(number(*channels)).map(Extent::Number);
        *size = known.or(*size).or(*channels);
    }
    Some(dims)
}

/// `[M, N]`
pub fn gemm(asked: &Asked) -> Option<Extents> {
    let side = |input: usize, is_transposed: bool, axis: usize| {
        let dims = asked.dims(input)?;
        *dims.get(if is_transposed { 1usize.checked_sub(axis)? } else { axis })?
    };
    let transposes = |name| asked.node.int(name, 0) != 0;
    Some(vec![side(0, transposes("transA"), 0), side(1, transposes("transB"), 1)])
}

pub fn matmul(asked: &Asked) -> Option<Extents> {
    multiplied(&asked.dims(0)?, &asked.dims(1)?)
}

pub fn quantized_matmul(asked: &Asked) -> Option<Extents> {
    multiplied(&asked.dims(0)?, &asked.dims(3)?)
}

/// `[…, M, K] · […, K, N]`: batch axes broadcast; a vector is a row on the left and a column on
/// the right, and its added axis is removed afterwards.
fn multiplied(left: &[Option<Extent>], right: &[Option<Extent>]) -> Option<Extents> {
    let (rows, columns) = match (left, right) {
        ([], _) | (_, []) => return None,
        ([.., rows, _], [.., columns]) if right.len() > 1 => (Some(*rows), Some(*columns)),
        ([.., rows, _], _) => (Some(*rows), None),
        (_, [.., columns]) if right.len() > 1 => (None, Some(*columns)),
        _ => (None, None),
    };
    let batch =
        |dims: &[Option<Extent>]| dims.split_last_chunk::<2>().map(|(batch, _)| batch.to_vec());
    let [left, right] = [left, right].map(|dims| batch(dims).unwrap_or_default());
    let mut dims = broadcast_dims(&left, &right)?;
    dims.extend(rows);
    dims.extend(columns);
    Some(dims)
}

/// An equation with a letter per axis; without `…`.
pub fn einsum(asked: &Asked) -> Option<Extents> {
    let Equation { operands, result } = Equation::of(asked.word("equation"))?;
    let size = |letter: char| {
        let mut size = None;
        for (input, axes) in operands.iter().enumerate().filter(|(_, axes)| axes.contains(&letter))
        {
            let dims = asked.dims(input).filter(|dims| dims.len() == axes.len());
            for (_, found) in
                axes.iter().zip(dims.unwrap_or_default()).filter(|(own, _)| **own == letter)
            {
                size = Some(size.map_or(Some(found), |size| broadcast_size(size, found))?);
            }
        }
        Some(size.flatten())
    };
    result.into_iter().map(size).collect()
}

/// One number per matrix.
pub fn det(asked: &Asked) -> Option<Extents> {
    let mut dims = asked.dims(0)?;
    dims.truncate(dims.len().checked_sub(2)?);
    Some(dims)
}

/// All states, then the last ones: `[time, directions, batch, hidden]`, and without time.
pub fn recurrent(asked: &Asked) -> Option<Extents> {
    let [first, second, _] = asked.dims(0).or_else(|| open(3))?.try_into().ok()?;
    let weights = asked.dims(2);
    let directions = match asked.word("direction") {
        b"bidirectional" => Extent::Number(2),
        _ => Extent::ONE,
    };
    let hidden = match asked.node.attribute("hidden_size") {
        Some(hidden) => Some(hidden.i().into()),
        None => weights.and_then(|weights| *weights.get(2)?),
    };
    let batch_is_first = asked.node.int("layout", 0) != 0;
    Some(match (batch_is_first, asked.output) {
        (false, 0) => vec![first, Some(directions), second, hidden],
        (false, _) => vec![Some(directions), second, hidden],
        (true, 0) => vec![first, second, Some(directions), hidden],
        (true, _) => vec![first, Some(directions), hidden],
    })
}
