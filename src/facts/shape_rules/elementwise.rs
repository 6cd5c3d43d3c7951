//! Shapes of what is computed element by element, from one tensor or from several that
//! broadcast.
//!
//! Knows how dimensions broadcast; does not know what is computed.

use crate::facts::shape_rules::asked::Asked;
use crate::facts::shape_rules::extent::{Extent, Extents};

pub fn kept(asked: &Asked) -> Option<Extents> {
    asked.dims(0)
}

/// The shape of two operands, aligned at their last axes.
pub fn broadcast(asked: &Asked) -> Option<Extents> {
    // Before operator set 7 the second operand was made as large as the first, and only
    // where attributes said so.
    if asked.opset < 7 { asked.dims(0) } else { broadcast_all(asked) }
}

/// The shape of any number of operands, aligned at their last axes. Before operator set 8 they
/// all had the same shape.
pub fn broadcast_all(asked: &Asked) -> Option<Extents> {
    let mut operands = asked.all_dims().into_iter();
    let first = operands.next()??;
    operands.try_fold(first, |all, dims| broadcast_dims(&all, &dims?))
}

/// Returns the shape to which two shapes broadcast; `None` if they do not fit.
pub fn broadcast_dims(left: &[Option<Extent>], right: &[Option<Extent>]) -> Option<Extents> {
    let rank = left.len().max(right.len());
    let size = |dims: &[Option<Extent>], axis: usize| match (axis.checked_add(dims.len())?)
        .checked_sub(rank)
    {
        Some(axis) => dims.get(axis).copied(),
        None => Some(Some(Extent::ONE)),
    };
    (0..rank).map(|axis| broadcast_size(size(left, axis)?, size(right, axis)?)).collect()
}

/// Returns the size to which two sizes broadcast; `None` if they do not fit.
pub fn broadcast_size(left: Option<Extent>, right: Option<Extent>) -> Option<Option<Extent>> {
    match (left, right) {
        (Some(Extent::ONE), other) | (other, Some(Extent::ONE)) => Some(other),
        (Some(Extent::Number(left)), Some(Extent::Number(right))) if left != right => None,
        // The size that is not known is 1 or the same.
        (Some(Extent::Number(known)), _) | (_, Some(Extent::Number(known))) => {
            Some(Some(known.into()))
        }
        // Any other size may be 1.
        (left, right) => Some(left.filter(|_| left == right)),
    }
}

/// The mean and the deviation have one element along the normalized axes.
pub fn layer_norm(asked: &Asked) -> Option<Extents> {
    let mut dims = asked.dims(0)?;
    if asked.output > 0 {
        let axis = asked.axis(-1, dims.len())?;
        dims.iter_mut().skip(axis).for_each(|size| *size = Some(Extent::ONE));
    }
    Some(dims)
}

/// DynamicQuantizeLinear: its scale and zero point are scalars.
pub fn quantized(asked: &Asked) -> Option<Extents> {
    if asked.output == 0 { asked.dims(0) } else { Some(Vec::new()) }
}
