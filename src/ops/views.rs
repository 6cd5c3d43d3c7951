//! Operators that give the elements of a tensor other axes, or move or average them within
//! these.
//!
//! Knows sizes, as far as they follow from the file, and which of them a view depends on; not
//! what stands around it.

use std::sync::Arc;

use crate::affine::{AxisOrder, SquareIndex, Squares, View, ViewedAxis};
use crate::facts::shape_rules::MAX_RANK;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::ids::ValueId;
use crate::onnx::node::{Node, distinct_axes};
use crate::onnx::proto::NodeProto;
use crate::onnx::write;
use crate::ops::meaning::{FirstOfViews, LinearOp, Meaning, ViewKernel, ViewNode, ViewOperand};
use crate::ops::reader::{NO_SUCH_AXES, Reader, TOO_MANY_AXES, first_input, not_linear};
use crate::ops::stop::Stop;
use crate::refusal::NotLinear;

/// Reads Squeeze (opset 1 to 25) of axes that are named.
///
/// # Errors
/// Returns an error if the axes are not constant, or the rank of its input is not known.
pub fn squeeze(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let (sizes, axes) = (sizes(reader, input, valid)?, listed(reader, node, "axes")?);
    // Without a list, the axes would depend on sizes.
    let axes = axes.ok_or_else(|| not_linear(node))?;
    let dropped = distinct_axes(&axes, sizes.len()).ok_or(NO_SUCH_AXES)?;
    if dropped.iter().any(|&axis| !matches!(sizes.get(axis), Some(None | Some(1)))) {
        return Err(NotLinear::Malformed("it drops an axis of more elements than one").into());
    }
    let view = View::squeeze(&sizes, |axis| dropped.contains(&axis));
    Ok(meaning(input, node, view, Some(axes)))
}

/// Reads Unsqueeze (opset 1 to 25).
///
/// # Errors
/// As [`squeeze`].
pub fn unsqueeze(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let mut made = sizes(reader, input, valid)?;
    let axes = listed(reader, node, "axes")?.ok_or_else(|| not_linear(node))?;
    let rank = made.len().saturating_add(axes.len());
    if rank > MAX_RANK {
        return Err(TOO_MANY_AXES.into());
    }
    let mut new = distinct_axes(&axes, rank).ok_or(NO_SUCH_AXES)?;
    new.sort_unstable();
    new.iter().for_each(|&axis| made.insert(axis, Some(1)));
    let view = View::squeeze(&made, |axis| new.contains(&axis)).inverse();
    Ok(meaning(input, node, view, Some(axes)))
}

/// Reads Flatten (opset 1 to 25).
///
/// # Errors
/// Returns an error if the rank of its input is not known.
pub fn flatten(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let sizes = sizes(reader, input, valid)?;
    // The axis may also be the place behind the last one.
    let axis = node.int("axis", 1);
    let axis = if axis < 0 { axis.saturating_add(sizes.len() as i64) } else { axis };
    let axis = usize::try_from(axis).ok().filter(|&axis| axis <= sizes.len());
    let axis = axis.ok_or(NO_SUCH_AXES)?;
    // If the batch stands alone, it is joined with no axis, and the view does not depend on its
    // size.
    require(input, &sizes, usize::from(axis == 1), valid);
    Ok(meaning(input, node, View::flatten(&sizes, axis), None))
}

/// Reads Reshape (opset 5 to 25) to a shape that is constant, or of which at most one size is
/// not known.
///
/// # Errors
/// Returns an error if more sizes are not known, or the rank of its input is not known.
pub fn reshape(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let is_computed = node.input(1).is_some_and(|shape| !reader.constants.contains(shape));
    let shape = if is_computed {
        made(reader, node, valid)?
    } else {
        listed(reader, node, "shape")?.ok_or_else(|| not_linear(node))?
    };
    let mut sizes = sizes(reader, input, valid)?;
    if node.int("allowzero", 0) != 0 && shape.contains(&0) {
        return Err(not_linear(node).into());
    }
    if node.output().is_some_and(|made| reader.sizes.are_same(input, made)) {
        require(input, &sizes, 0, valid);
        return Ok(Meaning::Alias(input));
    }
    let made = |(axis, &size): (usize, &i64)| match size {
        0 => sizes.get(axis).copied().flatten(),
        // The size for which −1 stands stays open: it does not concern the channels, or it would
        // have to be known.
        _ => usize::try_from(size).ok(),
    };
    let made: Vec<Option<usize>> = shape.iter().enumerate().map(made).collect();
    let kept = shape.iter().take_while(|&&size| size == 0).count();
    let view = View::reshape(&sizes, &made, kept);
    // A view that joins or splits axes behind the channels does so at all sizes if the axes
    // before these are kept apart from the front.
    let apart = view.apart();
    let open: Vec<Option<usize>> =
        sizes.iter().enumerate().map(|(axis, size)| size.filter(|_| axis < apart)).collect();
    let at_all_sizes = View::reshape(&open, &made, kept);
    let view = if apart > 1 && at_all_sizes.apart() == apart {
        sizes = open;
        at_all_sizes
    } else {
        view
    };
    require(input, &sizes, kept, valid);
    let list = node.input(1).map(|_| Some(ViewOperand::Integers(shape)));
    let view = self::node(node, view, list.into_iter().collect());
    let squares = node.output().and_then(|made| {
        let (squares, root) = squares(reader, input, &reader.sizes.dims(made)?)?;
        Some(ViewKernel::Squares(squares, Some(FirstOfViews { root, last: input })))
    });
    Ok(Meaning::Linear(input, LinearOp::View(ViewNode { kernel: squares, ..view })))
}

/// Returns the shape that `node` makes in the form of a Reshape operand; the reading depends on
/// its sizes.
fn made(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Vec<i64>, NotLinear> {
    let output = node.output().ok_or_else(|| not_linear(node))?;
    let sizes = sizes(reader, output, valid)?;
    // −1 can stand for one axis only, and 0 would copy a size of the input.
    if sizes.iter().filter(|size| size.is_none()).count() > 1 || sizes.contains(&Some(0)) {
        return Err(not_linear(node));
    }
    require(output, &sizes, 0, valid);
    Ok(sizes.into_iter().map(|size| size.map_or(-1, |size| size as i64)).collect())
}

/// Returns the view `next` of the result of `earlier` as one view of the operand of `earlier`: a
/// Reshape makes the same of any axes before it if its list has no 0, which would copy one of
/// them.
pub fn instead_of_both(next: &ViewNode, earlier: &ViewNode) -> Option<ViewNode> {
    let [Some(ViewOperand::Integers(list))] = next.told.as_slice() else { return None };
    if next.proto.op_type() != "Reshape" || list.contains(&0) {
        return None;
    }
    let view = Arc::new(next.view.behind(&earlier.view)?);
    Some(ViewNode { view, ..next.clone() })
}

/// Returns `node` for a tensor that has `size` elements along `axis`. Returns `None` if the view
/// does not keep that axis apart, or if its operands list sizes that cannot be adapted.
pub fn with_size(node: &ViewNode, axis: usize, size: usize) -> Option<ViewNode> {
    let view = node.view.with_size(axis, size)?;
    let mut told = node.told.clone();
    match (node.proto.op_type(), told.as_mut_slice()) {
        ("Reshape", [Some(ViewOperand::Integers(list))]) => {
            let to = node.view.outward(axis)?.axis;
            // A 0 copies the size of the axis of the same number.
            let copies = |(at, &own): (usize, &i64)| own != 0 || (at == to) == (at == axis);
            if !list.iter().enumerate().all(copies) {
                return None;
            }
            let own = list.get_mut(to)?;
            *own = if *own > 0 { i64::try_from(size).ok()? } else { *own };
        }
        ("Resize", told) if told.iter().flatten().any(is_of_sizes) => return None,
        _ => {}
    }
    Some(ViewNode { view: Arc::new(view), told, ..node.clone() })
}

/// Whether an operand lists the sizes of axes.
fn is_of_sizes(operand: &ViewOperand) -> bool {
    matches!(operand, ViewOperand::Integers(_)) && !operand.is_empty()
}

/// Reads DepthToSpace (opset 1 to 13): each output channel is made of r² input channels, which
/// are apart (DCR) or together (CRD).
///
/// # Errors
/// Returns an error if its input does not have four axes.
pub fn depth_to_space(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let (input, side) = blocks(reader, node, valid)?;
    let times = side.saturating_mul(side);
    let is_apart = node.attribute("mode").is_none_or(|mode| mode.s() == b"DCR");
    let (outer, inner) = if is_apart { (times, 1) } else { (1, times) };
    let back = vec![Some(ViewedAxis::alone(0)), Some(ViewedAxis { axis: 1, outer, inner })];
    let view = View::resampling(vec![Some(ViewedAxis::alone(0))], back);
    Ok(meaning(input, node, view, None))
}

/// Reads SpaceToDepth (opset 1 to 13): each input channel becomes r² output channels, which are
/// apart.
///
/// # Errors
/// Returns an error if its input does not have four axes.
pub fn space_to_depth(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let (input, side) = blocks(reader, node, valid)?;
    let outer = side.saturating_mul(side);
    let there = vec![Some(ViewedAxis::alone(0)), Some(ViewedAxis { axis: 1, outer, inner: 1 })];
    let view = self::node(node, View::resampling(there, vec![Some(ViewedAxis::alone(0))]), vec![]);
    let channels = reader.sizes.known_size(input, 1).and_then(|size| usize::try_from(size).ok());
    let order = [SquareIndex::Row, SquareIndex::Column, SquareIndex::Channel];
    let kernel = channels
        .map(|channels| ViewKernel::Squares(Squares { channels, sides: [side; 2], order }, None));
    Ok(Meaning::Linear(input, LinearOp::View(ViewNode { kernel, ..view })))
}

/// Returns the squares from which Reshape, Transpose and this second Reshape, which reads
/// `input` and makes a tensor of sizes `made`, make channels, and the tensor that the first
/// Reshape reads: PyTorch's pixel_unshuffle, with the channels in any order.
fn squares(reader: &Reader, input: ValueId, made: &[Option<usize>]) -> Option<(Squares, ValueId)> {
    let producer = |made: ValueId, operator: &str| {
        let node = reader.graph.node(reader.graph.value(made).producer?);
        (node.standard_op() == Some(operator)).then_some(node)
    };
    let transpose = producer(input, "Transpose")?;
    let turned = transpose.input(0)?;
    let root = producer(turned, "Reshape")?.input(0)?;
    let [_, Some(channels), Some(height), Some(width)] = reader.sizes.dims(root)?[..] else {
        return None;
    };
    let cut = reader.sizes.dims(turned)?;
    let [_, Some(own), Some(rows), Some(row), Some(columns), Some(column)] = cut[..] else {
        return None;
    };
    let &[0, first, second, third, 2, 4] = transpose.ints("perm")? else { return None };
    let index = |axis: i64| match axis {
        1 => Some(SquareIndex::Channel),
        3 => Some(SquareIndex::Row),
        5 => Some(SquareIndex::Column),
        _ => None,
    };
    let order = [index(first)?, index(second)?, index(third)?];
    let squares = Squares { channels, sides: [row, column], order };
    let all = channels.checked_mul(row)?.checked_mul(column)?;
    let fits = own == channels
        && rows.checked_mul(row) == Some(height)
        && columns.checked_mul(column) == Some(width)
        && matches!(made, [_, rest @ ..] if *rest == [Some(all), Some(rows), Some(columns)]);
    (fits && height.min(width) > 0).then_some((squares, root))
}

/// Returns the input of a node that moves blocks of elements, and the side length of the blocks.
fn blocks(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<(ValueId, usize), Stop> {
    let input = first_input(node)?;
    let side = node.int("blocksize", 0);
    if side < 1 {
        return Err(NotLinear::Malformed("its blocks have no size").into());
    }
    // The area of a block must not overflow.
    let side = u16::try_from(side);
    let side = side.map_err(|_| NotLinear::Limit("blocks of more than 65535² are not read"))?;
    if reader.rank(input, valid)? != 4 {
        return Err(not_linear(node).into());
    }
    Ok((input, side.into()))
}

/// Reads GlobalAveragePool (opset 1 to 22): the mean of each channel.
///
/// # Errors
/// Returns an error if it has no input.
pub fn global_average(_: &Reader, node: &Node, _: &mut Validity) -> Result<Meaning, Stop> {
    let apart = vec![Some(ViewedAxis::alone(0)), Some(ViewedAxis::alone(1))];
    let view = View::resampling(apart.clone(), apart);
    Ok(meaning(first_input(node)?, node, view, None))
}

/// Reads ReduceMean (opset 1 to 18) along axes that are named; each of the others is kept apart.
///
/// # Errors
/// Returns an error if the axes are not constant, or the rank of its input is not known.
pub fn mean(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let axes = listed(reader, node, "axes")?.filter(|axes| !axes.is_empty());
    // Without a list the result is a single number, or the tensor itself.
    let axes = axes.ok_or_else(|| not_linear(node))?;
    let rank = reader.rank(input, valid)?;
    let mut averaged = distinct_axes(&axes, rank).ok_or(NO_SUCH_AXES)?;
    averaged.sort_unstable();
    let keeps_axes = node.int("keepdims", 1) != 0;
    // A mean over axis 1 leaves no channels there, unless the channels are the last of all axes.
    let is_of_positions = !averaged.contains(&1)
        || (!keeps_axes && averaged.iter().copied().eq(1..rank.saturating_sub(1)));
    if !is_of_positions {
        return Err(not_linear(node).into());
    }
    let (mut outward, mut inward) = (Vec::new(), Vec::new());
    for axis in 0..rank {
        if !averaged.contains(&axis) {
            outward.push(Some(ViewedAxis::alone(inward.len())));
            inward.push(Some(ViewedAxis::alone(axis)));
            continue;
        }
        outward.push(None);
        inward.extend(keeps_axes.then_some(None));
    }
    Ok(meaning(input, node, View::resampling(outward, inward), Some(axes)))
}

/// Requires the known sizes from axis `first` on.
fn require(input: ValueId, sizes: &[Option<usize>], first: usize, valid: &mut Validity) {
    for (axis, size) in sizes.iter().enumerate().skip(first) {
        if let Some(size) = size {
            valid.require(input, Property::Size(axis, SizeSet::Exactly(*size as i64)));
        }
    }
}

/// Returns the sizes of the tensor, as far as they are known; the reading depends on its rank.
fn sizes(
    reader: &Reader,
    input: ValueId,
    valid: &mut Validity,
) -> Result<Vec<Option<usize>>, NotLinear> {
    let rank = reader.rank(input, valid)?;
    Ok(reader.sizes.dims(input).unwrap_or_else(|| vec![None; rank]))
}

/// Returns a list that is an attribute or a constant, or `None` if it is left out.
fn listed(reader: &Reader, node: &Node, name: &str) -> Result<Option<Vec<i64>>, Stop> {
    // A list that is not constant may be computed from the tensor that is viewed.
    if node.input(1).is_some_and(|second| !reader.constants.contains(second)) {
        return Err(not_linear(node).into());
    }
    reader.list(node, name, 1, &mut Validity::default())
}

/// Returns the Transpose of a tensor of `rank` axes into this order.
pub fn turned(order: &AxisOrder, rank: usize) -> ViewNode {
    let perm = order.axes(rank).into_iter().map(|axis| axis as i64).collect();
    let attribute = vec![write::ints("perm", perm)];
    let proto = NodeProto { op_type: Some("Transpose".into()), attribute, ..NodeProto::default() };
    let view = Arc::new(View::turned(order, rank));
    ViewNode { proto: Arc::new(proto), told: Vec::new(), view, kernel: None }
}

/// Returns `node` as a view of `input`, with these integers as its second operand if it reads
/// one.
fn meaning(input: ValueId, node: &Node, view: View, list: Option<Vec<i64>>) -> Meaning {
    let list = list.filter(|_| node.input(1).is_some());
    told(
        input,
        node,
        view,
        list.map(|list| Some(ViewOperand::Integers(list))).into_iter().collect(),
    )
}

/// Returns `node` as a view of `input`, with these further operands.
pub fn told(input: ValueId, node: &Node, view: View, told: Vec<Option<ViewOperand>>) -> Meaning {
    Meaning::Linear(input, LinearOp::View(self::node(node, view, told)))
}

/// Returns `node` as a view, with these further operands.
pub fn node(node: &Node, view: View, told: Vec<Option<ViewOperand>>) -> ViewNode {
    let attribute = node.proto.attribute.clone();
    let op_type = node.proto.op_type.clone();
    let proto = NodeProto { op_type, attribute, ..NodeProto::default() };
    ViewNode { proto: Arc::new(proto), told, view: Arc::new(view), kernel: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases of a read shape, a made shape and a list, and the list that does the same for 5
    /// elements along axis 1.
    #[test]
    fn a_reshape_is_told_the_new_number_of_channels() {
        let some = |sizes: &[usize]| sizes.iter().copied().map(Some).collect::<Vec<_>>();
        for (read, made, list, expected) in [
            (&[2, 8, 6, 6][..], &[2, 8, 36][..], &[0, 8, -1][..], Some(&[0, 5, -1][..])),
            (&[2, 8, 6, 6], &[2, 8, 36], &[2, 0, 36], Some(&[2, 0, 36])),
            (&[2, 8, 6, 6], &[2, 8, 36], &[0, -1, 36], Some(&[0, -1, 36])),
            // Axis 1 of the result is another axis, which is as large as the channels.
            (&[1, 8, 8, 6], &[8, 8, 6], &[8, 0, 6], None),
            // The copied axis is the channels, which are as many as the images.
            (&[8, 8, 6], &[1, 8, 8, 6], &[1, 8, 0, 6], None),
        ] {
            let proto = NodeProto { op_type: Some("Reshape".into()), ..NodeProto::default() };
            let view = View::reshape(&some(read), &some(made), 0);
            let told = vec![Some(ViewOperand::Integers(list.to_vec()))];
            let node = ViewNode { proto: proto.into(), told, view: view.into(), kernel: None };
            let expected = expected.map(|list| vec![Some(ViewOperand::Integers(list.to_vec()))]);
            let found = with_size(&node, 1, 5).map(|node| node.told);
            assert_eq!(found, expected, "{read:?} as {list:?}");
        }
    }
}
