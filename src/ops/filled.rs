//! Padding with something other than zeros: `b + pad(L(x) − b)`, where the operation before it,
//! L, gives the same `b` on zeros.
//!
//! It is one Pad with a value, or the border is filled afterwards,
//! `y = pad(x); y[:, :, 0] = v; …`: slice assignments are exported as ScatterND over computed
//! indices, between Transposes. Such nodes are not analysed but tried out
//! ([`moved`](crate::ops::moved)).
//!
//! Knows which nodes fill a border; asks `moved` what they do to its elements.

use std::collections::BTreeSet;

use crate::affine::{AxisOrder, Geometry, Linear, Window, of_channel};
use crate::facts::operators::operator;
use crate::facts::row::InputsRead;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::float::Float;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::node::Node;
use crate::ops::axes::transpose;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::moved::{FillSteps, MAX_NODES, TOO_MANY_NODES};
use crate::ops::reader::{Reader, not_linear};
use crate::ops::stop::Stop;
use crate::refusal::NotLinear;

/// A tensor with a border around its spatial axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Bordered {
    /// The tensor, in NCHW order.
    pub input: ValueId,
    /// The widths of the border, one window per spatial axis.
    pub windows: Vec<Window>,
    /// The value of the border, per channel.
    pub values: Vec<f64>,
}

/// Batch sizes at which a border is tried. If the batch is free, the border must be the same for
/// the first three, one of which has more images than any assignment names one by one. Exporters
/// bake in the batch of their example, which is one of these six.
const BATCHES: [usize; 6] = [1, 2, 5, 4, 8, 16];

/// Spatial sizes at which a border is tried. If sizes are free, the border must be the same for
/// all three; the number of the axis is added to each, so that sizes differ on all axes.
const SIZES: [usize; 3] = [5, 8, 13];

/// Tolerance of equality between a border and the shift of the map before it, in units in the
/// last place of float32, in which exporters compute both, or of the model's type if that is
/// finer.
const UNITS: f64 = 64.0;

/// Tolerance beyond which a border is another one, relative to the largest number of all
/// channels; in float16 and bfloat16, [`UNITS`] of that type if this is larger. Between the two
/// tolerances, the answer depends on the kernels that read the border.
const MOST_DIFFERENCE: f64 = 1e-4;

/// Upper bound on Identities in a row that are followed; exporters write fewer.
const MAX_IDENTITIES: usize = 64;

/// Reads ScatterND (opset 11 to 18) that ends an assignment to a border.
///
/// # Errors
/// Returns an error if it does anything else.
pub fn scatter(
    reader: &Reader,
    node: &Node,
    earlier: &Meanings,
    valid: &mut Validity,
) -> Result<Meaning, Stop> {
    match bordered(reader, node, valid)? {
        Some(border) => filled(reader, border, earlier, valid),
        None => Err(not_linear(node).into()),
    }
}

/// Reads Transpose (opset 1 to 25), which may end an assignment to a border, too.
///
/// # Errors
/// As [`transpose`] and [`filled`].
pub fn transpose_or_border(
    reader: &Reader,
    node: &Node,
    earlier: &Meanings,
    valid: &mut Validity,
) -> Result<Meaning, Stop> {
    match bordered(reader, node, valid)? {
        Some(border) => filled(reader, border, earlier, valid),
        None => transpose(reader, node, valid),
    }
}

/// Returns the meaning of a border of numbers, if they are zeros or what the operation before it
/// gives there.
///
/// # Errors
/// Returns an error if the border holds something else.
pub fn filled(
    reader: &Reader,
    border: Bordered,
    earlier: &Meanings,
    valid: &mut Validity,
) -> Result<Meaning, Stop> {
    let Bordered { input, windows, values } = border;
    let order = AxisOrder::CANONICAL;
    let frame = LinearOp::frame(windows.clone(), order);
    if values.iter().all(|&value| value == 0.0) {
        return Ok(Meaning::Linear(input, frame));
    }
    let differs =
        "its border is filled with values that differ from those of the operation before it";
    let differs = Err(NotLinear::Unrepresentable(differs).into());
    let Some((operand, map, inner)) = shifting(reader, input, earlier, valid)? else {
        return differs;
    };
    let shift = map.shift();
    let channels = shift.len().max(values.len());
    let pairs = (0..channels)
        .map(|channel| Some((of_channel(shift, channel)?, of_channel(&values, channel)?)));
    let Some(pairs) = pairs.collect::<Option<Vec<_>>>() else { return differs };
    let larger = |(a, b): &(f64, f64)| a.abs().max(b.abs());
    let largest = pairs.iter().map(larger).fold(0.0, f64::max);
    let difference: Vec<f64> = pairs.iter().map(|(a, b)| (a - b).abs()).collect();
    let float = reader.constants.element_type(input).and_then(Float::from_onnx);
    let unit = float.unwrap_or(Float::F64).unit();
    let most = MOST_DIFFERENCE.max(UNITS * unit) * largest;
    if !difference.iter().all(|difference| *difference <= most) {
        return differs;
    }
    let unit = unit.min(Float::F32.unit());
    let mut compared = pairs.iter().zip(&difference);
    let is_same = compared.all(|(pair, difference)| *difference <= UNITS * unit * larger(pair));
    let difference = if is_same { Vec::new() } else { difference };
    let bare = map.geometry().unshifted();
    let geometry = Geometry { shifted: true, ..frame.geometry().after(&bare)? };
    let map = Box::new(map);
    Ok(Meaning::Linear(operand, LinearOp::Bordered { map, inner, windows, difference, geometry }))
}

/// Returns the operand, the map and the output of the producer of `value`, if that is a map that
/// may add something.
fn shifting(
    reader: &Reader,
    value: ValueId,
    earlier: &Meanings,
    valid: &mut Validity,
) -> Result<Option<(ValueId, LinearOp, ValueId)>, NotLinear> {
    let mut producer = reader.graph.value(value).producer;
    for _ in 0..MAX_IDENTITIES {
        let Some(id) = producer else { return Ok(None) };
        let node = reader.graph.node(id);
        match node.standard_op() {
            Some("Identity") => {
                producer = node.input(0).and_then(|input| reader.graph.value(input).producer);
            }
            Some("Conv" | "BatchNormalization" | "Add" | "Sub") => {
                if let Some(inner) = earlier.validity(id) {
                    valid.intersect(inner);
                }
                return Ok(match (earlier.get(id), node.output()) {
                    (Some(Meaning::Linear(operand, map)), Some(output)) => {
                        Some((*operand, map.clone(), output))
                    }
                    _ => None,
                });
            }
            _ => return Ok(None),
        }
    }
    Err(NotLinear::Limit("it stands behind more than 64 Identities, the most followed"))
}

/// Returns the padding that ends in the ScatterND or Transpose `node`, or `None` if none does.
fn bordered(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Option<Bordered>, Stop> {
    let Some(output) = node.output() else { return Ok(None) };
    let goes_on = |&by: &NodeId| {
        let by = reader.graph.node(by);
        matches!(by.standard_op(), Some("ScatterND" | "Transpose")) && by.input(0) == Some(output)
    };
    if reader.graph.value(output).readers.iter().any(goes_on) {
        return Ok(None);
    }
    // This comes after the check above: in a row of thousands, only the last node looks back
    // over all of them.
    let Some(input) = padded_input(reader, node)? else { return Ok(None) };
    let steps = FillSteps::between(reader, input, output)?;
    let shape = reader.sizes.shape(input);
    match shape {
        [] => return Err(reader.sizes.rank_unknown(input).into()),
        [_, Some(_), ..] => {}
        _ => {
            reader.sizes.size(input, 1)?;
            return Ok(None);
        }
    }
    beside_the_elements(reader, [input, output], shape.contains(&None))?;
    let found = match steps.border_at(reader, &trials(shape)) {
        Ok((windows, values)) => Bordered { input, windows, values },
        Err(limit @ NotLinear::Limit(_)) => return Err(limit.into()),
        Err(why) => return Err(refusal(reader, &steps, input, shape, why).into()),
    };
    // The result is right for the known sizes, at which it was tried, and for all values of open
    // ones, of which three were tried.
    for (axis, size) in shape.iter().enumerate().filter(|&(axis, _)| axis != 1) {
        if let Some(size) = *size {
            valid.require(input, Property::Size(axis, SizeSet::Exactly(size)));
        }
    }
    valid.require(input, Property::Rank(shape.len()));
    Ok(Some(found))
}

/// Returns the shapes at which a border is tried: the known one, or three if sizes are free.
fn trials(shape: &[Option<i64>]) -> Vec<Vec<usize>> {
    let trial = |number: usize| {
        let sized = shape.iter().enumerate().map(|(axis, size)| match (size, axis) {
            (Some(size), _) => usize::try_from(*size).unwrap_or(0),
            (None, 0) => BATCHES.get(number).copied().unwrap_or(1),
            (None, _) => SIZES.get(number).copied().unwrap_or(1).saturating_add(axis),
        });
        sized.collect()
    };
    let is_open = shape.contains(&None);
    let count = if is_open { SIZES.len() } else { 1 };
    (0..count).map(trial).collect()
}

/// Returns why there is no border for all free sizes: it is right for some of them only, or for
/// none.
fn refusal(
    reader: &Reader,
    steps: &FillSteps,
    input: ValueId,
    shape: &[Option<i64>],
    why: NotLinear,
) -> NotLinear {
    let name = reader.graph.value(input).name;
    if let Some(axis) = shape.iter().skip(2).position(Option::is_none) {
        let axis = axis.saturating_add(2);
        let what = format!("the size of `{name}` on axis {axis}, on which its windows depend,");
        return reader.sizes.unknown(what);
    }
    let at = |batch: usize| {
        let sizes = shape.iter().skip(1).flatten().map(|&size| usize::try_from(size).ok());
        [Some(batch)].into_iter().chain(sizes).collect::<Option<Vec<usize>>>()
    };
    let fits = |batch: &usize| at(*batch).is_some_and(|at| steps.border_at(reader, &[at]).is_ok());
    match shape.first() {
        Some(None) => match BATCHES.into_iter().find(fits) {
            Some(batch) => {
                let of = format!("the batch of `{name}`, whose border is filled for {batch} only,");
                reader.sizes.unknown(of)
            }
            None => why,
        },
        _ => why,
    }
}

/// Returns the tensor that was padded before `node`, going back over ScatterND, Transpose and
/// Identity, or `None` if there is none.
fn padded_input(reader: &Reader, node: &Node) -> Result<Option<ValueId>, NotLinear> {
    let mut scatters = false;
    let mut node = node;
    for _ in 0..MAX_NODES {
        match node.standard_op() {
            Some("ScatterND") if assigns(node) => scatters = true,
            Some("Transpose" | "Identity") => {}
            Some("Pad") => return Ok(node.input(0).filter(|_| scatters)),
            _ => return Ok(None),
        }
        let producer = node.input(0).and_then(|input| reader.graph.value(input).producer);
        let Some(producer) = producer else { return Ok(None) };
        node = reader.graph.node(producer);
    }
    // A row of Transposes alone fills no border.
    if scatters { Err(TOO_MANY_NODES) } else { Ok(None) }
}

/// Whether the ScatterND `node` overwrites elements, rather than adding to them, say.
fn assigns(node: &Node) -> bool {
    node.attribute("reduction").is_none_or(|reduction| reduction.s() == b"none")
}

/// Checks that the indices and values that are assigned between `input` and `output` follow from
/// sizes alone; if a size is open (`is_open`), in the same way at every size.
///
/// # Errors
/// Returns an error if they do not.
fn beside_the_elements(
    reader: &Reader,
    [input, output]: [ValueId; 2],
    is_open: bool,
) -> Result<(), NotLinear> {
    let graph = reader.graph;
    let (mut path, mut beside, mut at) = (BTreeSet::from([input]), Vec::new(), output);
    while at != input {
        let Some(node) = graph.value(at).producer.map(|id| graph.node(id)) else { break };
        path.insert(at);
        beside.extend(node.inputs.iter().skip(1).flatten().copied());
        let Some(next) = node.input(0) else { break };
        at = next;
    }
    let mut seen = BTreeSet::new();
    while let Some(value) = beside.pop() {
        if reader.constants.contains(value) || !seen.insert(value) {
            continue;
        }
        if path.contains(&value) {
            let why = "what it assigns depends on what is in the tensor";
            return Err(NotLinear::Unrepresentable(why));
        }
        let Some(node) = graph.value(value).producer.map(|id| graph.node(id)) else { continue };
        let known = node.standard_op().and_then(operator);
        if known.is_some_and(|known| known.reads == InputsRead::Sizes) {
            continue;
        }
        let is_of_one_size = !is_open && node.standard_op().is_some();
        if !is_of_one_size && !known.is_some_and(|known| known.is_alike_at_all_sizes) {
            let why = "it may put its elements in other places at other sizes";
            return Err(NotLinear::Unrepresentable(why));
        }
        beside.extend(node.inputs.iter().flatten().copied());
    }
    Ok(())
}
