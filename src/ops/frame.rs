//! Operators that add elements around a tensor, or cut them off: filters whose only tap is 1.
//!
//! Knows pads and ranges; a border of numbers other than zero is for `filled` to read.

use crate::affine::{AxisOrder, PadMode, Window};
use crate::facts::shape_rules::MAX_RANK;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;
use crate::ops::filled::{Bordered, filled};
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::pad_mode;
use crate::ops::picked;
use crate::ops::reader::{Reader, TOO_MANY_AXES, first_input, not_linear};
use crate::ops::stop::Stop;
use crate::refusal::NotLinear;

/// Reads Pad (opset 2 to 25).
///
/// # Errors
/// Returns an error if its pads are not known, or if it fills a border with values that no map
/// gives.
pub fn pad(
    reader: &Reader,
    node: &Node,
    earlier: &Meanings,
    valid: &mut Validity,
) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let pad_mode = match node.attribute("mode") {
        None => PadMode::Zero,
        Some(mode) => {
            pad_mode::named(mode.s()).ok_or(NotLinear::Malformed("its mode is not known"))?
        }
    };
    let value = match (node.attribute("value"), node.input(2)) {
        _ if pad_mode != PadMode::Zero => 0.0,
        (Some(value), _) => f64::from(value.f()),
        (None, None) => 0.0,
        (None, Some(value)) => reader.floats(value)?.iter().copied().next().unwrap_or(0.0),
    };
    let pads = reader.list(node, "pads", 1, valid)?;
    let pads = pads.ok_or(NotLinear::Malformed("its pads are missing"))?;
    let (begins, ends) = pads.split_at(pads.len() / 2);
    let axes = match node.input(3) {
        None => (0..begins.len() as i64).collect(),
        Some(axes) => reader.known_integers(axes, valid)?,
    };
    let pairs: Vec<_> = begins.iter().copied().zip(ends.iter().copied()).collect();
    if axes.len() != pairs.len() || begins.len() != ends.len() {
        return Err(NotLinear::Malformed("its pads do not fit its axes").into());
    }
    let axes = reader.axes_from_front(input, &axes, valid)?;
    // If x is cropped by one at the front, does x₁…xₙ continue with x₁ or with x₂?
    let crops_one_end = |&(begin, end): &(i64, i64)| begin.min(end) < 0 && begin.max(end) > 0;
    if pad_mode == PadMode::Wrap && pairs.iter().any(crops_one_end) {
        let why =
            "it crops one end of an axis and wraps the other, and which comes first is not said";
        return Err(NotLinear::Unrepresentable(why).into());
    }
    let windows = pairs.into_iter().map(|pads| Window::frame(pads, pad_mode));
    let map = frame(reader, input, axes.into_iter().zip(windows).collect(), valid)?;
    if value == 0.0 {
        return Ok(Meaning::Linear(input, map));
    }
    match map {
        LinearOp::Filter { windows, order, .. } if order.is_canonical() => {
            let border = Bordered { input, windows, values: vec![value] };
            filled(reader, border, earlier, valid)
        }
        _ => Err(NotLinear::Unrepresentable("it pads with a constant other than zero").into()),
    }
}

/// Reads Slice (opset 1 to 13) with steps from front to back, or of one axis from back to front.
///
/// # Errors
/// Returns an error if its bounds are not known, or if it cuts the batch or all other axes.
pub fn slice(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let cuts = cuts(reader, node, input, valid)?;
    if let &[AxisCut { axis, start: -1 | TO_THE_END.., end: ..BEFORE_THE_FRONT, step: -1 }] =
        cuts.as_slice()
    {
        return picked::reversed(reader, node, (input, axis), valid);
    }
    if cuts.iter().any(|cut| cut.step < 1) {
        return Err(NotLinear::Unrepresentable("it reverses the order of elements").into());
    }
    let mut windows = Vec::with_capacity(cuts.len());
    for AxisCut { axis, start, end, step } in cuts {
        // A bound that is counted from the other end is right for this size only.
        let mut size = || -> Result<i64, Stop> {
            let size = reader.sizes.size(input, axis)?;
            is_provable_at_its_size(reader, input)?;
            valid.require(input, Property::Size(axis, SizeSet::Exactly(size)));
            Ok(size)
        };
        let begin =
            if start < 0 { size()?.saturating_add(start.max(-LARGE)).max(0) } else { start };
        let rest = match end {
            TO_THE_END.. => 0,
            ..0 => end.max(-LARGE).saturating_neg(),
            _ => size()?.saturating_sub(end).max(0),
        };
        let crop = (begin.min(LARGE).saturating_neg(), rest.saturating_neg());
        windows.push((axis, Window::new(1, step, 1, crop)));
    }
    Ok(Meaning::Linear(input, frame(reader, input, windows, valid)?))
}

/// Checks that `tensor`, at the sizes that it has, is small enough for a proof.
fn is_provable_at_its_size(reader: &Reader, tensor: ValueId) -> Result<(), NotLinear> {
    let sizes = reader.sizes.shape(tensor).iter().flatten();
    let elements = sizes.fold(1i64, |all, &size| all.saturating_mul(size));
    if elements > MOST_ELEMENTS {
        return Err(NotLinear::Limit(
            "it cuts a tensor of more than 2²³ elements at a fixed place: proofs take no \
             larger ones",
        ));
    }
    Ok(())
}

/// Returns what a Slice leaves of each axis of `input`.
fn cuts(
    reader: &Reader,
    node: &Node,
    input: ValueId,
    valid: &mut Validity,
) -> Result<Vec<AxisCut>, Stop> {
    let mut list = |name, index| reader.list(node, name, index, valid);
    let (starts, ends) = (list("starts", 1)?, list("ends", 2)?);
    let (axes, steps) = (list("axes", 3)?, list("steps", 4)?);
    let (Some(starts), Some(ends)) = (starts, ends) else {
        return Err(NotLinear::Malformed("its starts or ends are missing").into());
    };
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let lengths = [ends.len(), axes.len(), steps.len()];
    if lengths.iter().any(|&length| length != starts.len()) {
        return Err(NotLinear::Malformed("its starts, ends, axes and steps do not fit").into());
    }
    let axes = reader.axes_from_front(input, &axes, valid)?;
    let cuts = axes.into_iter().zip(starts).zip(ends).zip(steps);
    Ok(cuts.map(|(((axis, start), end), step)| AxisCut { axis, start, end, step }).collect())
}

/// Reads Concat (opset 4 to 13) of a tensor with its own ends: circular padding.
///
/// # Errors
/// Returns an error if it joins anything else.
pub fn circular(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let opaque = not_linear(node);
    let operands: Vec<ValueId> = node.inputs.iter().copied().flatten().collect();
    let Some((input, slices)) = around(reader, &operands) else { return Err(opaque.into()) };
    let axes = reader.axes_from_front(input, &[node.int("axis", 0)], valid)?;
    let [axis] = axes.as_slice() else { return Err(opaque.into()) };
    let mut pads = (0, 0);
    for (slice, is_before) in slices {
        let cuts = cuts(reader, slice, input, valid)?;
        match (cuts.as_slice(), is_before) {
            (&[AxisCut { axis: on, start, end: TO_THE_END.., step: 1 }], true)
                if on == *axis && (-LARGE..0).contains(&start) =>
            {
                pads.0 = start.saturating_neg();
            }
            (&[AxisCut { axis: on, start: 0, end, step: 1 }], false)
                if on == *axis && (1..LARGE).contains(&end) =>
            {
                pads.1 = end;
            }
            _ => return Err(opaque.into()),
        }
    }
    // Of a smaller tensor, Slices give less than circular padding does.
    require_at_least(reader, (input, *axis, pads.0.max(pads.1)), opaque, valid)?;
    let window = Window::frame(pads, PadMode::Wrap);
    Ok(Meaning::Linear(input, frame(reader, input, vec![(*axis, window)], valid)?))
}

/// Returns the operand, among at most three, of which the others are Slices, and these, each
/// with whether it stands before that operand.
fn around<'g>(
    reader: &Reader<'g, '_>,
    operands: &[ValueId],
) -> Option<(ValueId, Vec<(&'g Node, bool)>)> {
    let slice = |id: ValueId| {
        let node = reader.graph.node(reader.graph.value(id).producer?);
        (node.standard_op() == Some("Slice")).then_some(node)
    };
    let (first, last) = (*operands.first()?, *operands.last()?);
    // The padded tensor may itself be a Slice of something else.
    let mut inputs = [first, last].into_iter().filter_map(|operand| slice(operand)?.input(0));
    inputs.find_map(|input| {
        let of_input = |id| slice(id).filter(|slice| slice.input(0) == Some(input));
        let slices = match *operands {
            [before, middle, behind] if middle == input => {
                vec![(of_input(before)?, true), (of_input(behind)?, false)]
            }
            [before, end] if end == input => vec![(of_input(before)?, true)],
            [begin, behind] if begin == input => vec![(of_input(behind)?, false)],
            _ => return None,
        };
        Some((input, slices))
    })
}

/// Returns the map that pads, crops or skips elements along these axes as their windows do. A
/// window is `None` if its numbers are beyond all sizes.
fn frame(
    reader: &Reader,
    input: ValueId,
    windows: Vec<(usize, Option<Window>)>,
    valid: &mut Validity,
) -> Result<LinearOp, NotLinear> {
    let framed = windows.into_iter().filter(|(_, window)| *window != Some(Window::IDENTITY));
    let framed: Vec<(usize, Option<Window>)> = framed.collect();
    let beyond = "it pads or cuts the batch, or all other axes";
    if framed.iter().any(|&(axis, _)| axis >= MAX_RANK) {
        return Err(TOO_MANY_AXES);
    }
    let touched = |axis: usize| framed.iter().any(|&(framed, _)| framed == axis);
    // Any axis but the batch may be spatial, as long as one is left for the channels.
    let order = if touched(1) {
        let channels = (1..reader.rank(input, valid)?).rev().find(|&axis| !touched(axis));
        AxisOrder::with_channels_at(channels.ok_or(NotLinear::Unrepresentable(beyond))?)
    } else {
        AxisOrder::CANONICAL
    };
    if touched(0) {
        return Err(NotLinear::Unrepresentable(beyond));
    }
    let mut windows = Vec::new();
    for (axis, window) in framed {
        let window = window.ok_or(NotLinear::Malformed("its numbers are larger than any size"))?;
        require_a_rest(reader, input, (axis, window.pads()), valid)?;
        let role = order.role(axis).saturating_sub(2);
        if windows.len() <= role {
            windows.resize(role.saturating_add(1), Window::IDENTITY);
        }
        if let Some(slot) = windows.get_mut(role) {
            *slot = window;
        }
    }
    Ok(LinearOp::frame(windows, order))
}

/// Requires that a crop leaves at least one element: if it leaves none, Slice makes an empty
/// tensor, but a convolution in its place fails.
fn require_a_rest(
    reader: &Reader,
    input: ValueId,
    (axis, (before, behind)): (usize, (i64, i64)),
    valid: &mut Validity,
) -> Result<(), NotLinear> {
    if before.max(behind) > 0 {
        return Ok(());
    }
    let least = 1_i64.saturating_sub(before.saturating_add(behind));
    let leaves_none = NotLinear::Unrepresentable("it leaves no element");
    require_at_least(reader, (input, axis, least), leaves_none, valid)
}

/// Requires that `tensor` has at least `least` elements along `axis`; the error is `too_small`.
fn require_at_least(
    reader: &Reader,
    (tensor, axis, least): (ValueId, usize, i64),
    too_small: NotLinear,
    valid: &mut Validity,
) -> Result<(), NotLinear> {
    if reader.sizes.known_size(tensor, axis).is_some_and(|size| size < least) {
        return Err(too_small);
    }
    valid.require(tensor, Property::Size(axis, SizeSet::AtLeast(least)));
    Ok(())
}

/// The bounds and step of a Slice along one axis.
#[derive(Debug, Clone, Copy)]
struct AxisCut {
    axis: usize,
    start: i64,
    end: i64,
    /// The distance of two elements that stay.
    step: i64,
}

/// A number beyond every size that is safe to add.
const LARGE: i64 = 1 << 32;

/// The least end of a Slice that means "to the end".
const TO_THE_END: i64 = i32::MAX as i64;

/// Ends of a Slice below this mean "to the front, including the first element".
const BEFORE_THE_FRONT: i64 = i32::MIN as i64 + 2;

/// Upper bound on the elements of a tensor that is cut at places counted from its other end:
/// such a reading is right for one size only, and is proved at that size. It is a quarter of
/// what a proof takes (`verify/proof`), whose trials and inputs share that.
const MOST_ELEMENTS: i64 = 1 << 23;
