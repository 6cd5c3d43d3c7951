//! What verification is to prove of one block: the old nodes as they were read (but for
//! those that fill a border, which were tried then), the new ones as they will be
//! written, and inputs small enough to be fast and large enough that every border case
//! occurs.

use std::collections::BTreeSet;

use ndarray::{Array1, Axis};

use crate::affine::{Border, Geometry, Order, Sense, Window};
use crate::engine::Constant;
use crate::onnx::build::{ints, node};
use crate::onnx::graph::{Node, NodeId, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::tensor::{self, Float};
use crate::plan::Block;
use crate::region::inference::inference_form;
use crate::region::read::{Map, Reader, Reading};
use crate::region::{Kind, Part, Readings, steps};
use crate::verify::block::{Claim, Side};
use crate::verify::feed::{input_size, outputs_with_all_borders};

/// Strides up to this are tried with every remainder of the input's size.
const MAX_REMAINDERS: i64 = 4;

/// The claim that `new` nodes compute what `block`'s nodes compute.
///
/// # Errors
/// If a constant cannot be read.
pub fn claim(
    reader: &Reader,
    readings: &Readings,
    block: &Block,
    new: Side,
) -> Result<Claim, Invalid> {
    let graph = reader.graph;
    let name = |id: ValueId| graph.value(id).name.clone();
    let mut roots: Vec<ValueId> = block.parts.iter().map(|part| part.root).collect();
    roots.sort_unstable();
    roots.dedup();
    Ok(Claim {
        opset: graph.model.opset,
        output: name(block.region.output),
        trials: trials(reader, readings, block, &roots),
        old: old_side(reader, readings, block, &roots)?,
        new,
        roots: roots.into_iter().map(name).collect(),
    })
}

/// The region's nodes, and what they read besides each other and the roots. What fills
/// a border does so at one size only, and was run when it was read: in its place stand
/// three nodes that do so at every size.
fn old_side(
    reader: &Reader,
    readings: &Readings,
    block: &Block,
    roots: &[ValueId],
) -> Result<Side, Invalid> {
    let graph = reader.graph;
    let mut side = Side::default();
    let mut made: BTreeSet<ValueId> = roots.iter().copied().collect();
    let fills: BTreeSet<NodeId> =
        block.region.nodes.iter().flat_map(|&id| nodes_of_fill(reader, readings, id)).collect();
    for &id in block.region.nodes.iter().filter(|id| !fills.contains(id)) {
        let node = graph.node(id);
        if let Some(Reading::Map(_, Map::Bordered { map, inner, windows, .. })) = readings.get(id) {
            let [inner, output] = [Some(*inner), node.output()]
                .map(|id| id.map_or(String::new(), |id| graph.value(id).name.clone()));
            border(&mut side, graph.model.opset, [&inner, &output], map.shift(), windows);
            made.extend(node.outputs.iter().flatten());
            continue;
        }
        // What is converted is converted on both sides.
        let form = inference_form(reader, node)?.and_then(Result::ok);
        let mut proto = form.unwrap_or_else(|| node.proto.clone());
        for (name, input) in proto.input.iter_mut().zip(&node.inputs) {
            let Some(input) = *input else { continue };
            // An alias of a root, made outside the region, is the root.
            let source = readings.source(input);
            // As a root it may be any tensor; as a weight it has its own values.
            let is_weight = roots.contains(&input) && !is_operand(readings, id, input);
            if is_weight && let Some(constant) = widened(reader, input)? {
                *name = format!("{}.constant", constant.name());
                if !side.constants.iter().any(|known| known.name() == name) {
                    side.constants.push(constant.called(name.clone()));
                }
            } else if !made.contains(&input) && made.contains(&source) {
                *name = graph.value(source).name.clone();
            } else if let Some(axis) = node.broadcast_axis().filter(|_| !made.contains(&input))
                && let Some(constant) = widened(reader, input)?
            {
                let constant = aligned(reader, node, axis, constant);
                *name = constant.name().to_owned();
                side.constants.push(constant);
            } else if made.insert(input)
                && let Some(constant) = widened(reader, input)?
            {
                side.constants.push(constant);
            }
        }
        made.extend(node.outputs.iter().flatten());
        side.nodes.push(proto);
    }
    Ok(side)
}

/// Whether node `id` was read as a function of `input`, not as one with it.
fn is_operand(readings: &Readings, id: NodeId, input: ValueId) -> bool {
    let operands = readings.get(id).map(Reading::operands).unwrap_or_default();
    operands.iter().any(|&operand| readings.source(operand) == readings.source(input))
}

/// Nodes that take part in filling a border, but for the one that ends it.
fn nodes_of_fill(reader: &Reader, readings: &Readings, id: NodeId) -> Vec<NodeId> {
    let Some(Reading::Map(_, Map::Bordered { inner, .. })) = readings.get(id) else {
        return Vec::new();
    };
    let inner = reader.graph.value(*inner).producer;
    let steps = steps(reader, readings, id);
    steps.into_iter().filter(|&step| Some(step) != inner).collect()
}

/// Appends nodes that make `output` of `inner` by a border of `shift` around it.
fn border(
    side: &mut Side,
    opset: i64,
    [inner, output]: [&str; 2],
    shift: &[f64],
    windows: &[Window],
) {
    let part = |part: &str| format!("{output}.{part}");
    let [shift_name, less, padded, pads_name] = ["shift", "less", "padded", "pads"].map(part);
    let mut shift = shift.iter().copied().collect::<Array1<f64>>().into_dyn();
    windows.iter().for_each(|_| shift.insert_axis_inplace(Axis(shift.ndim())));
    side.constants.push(tensor::from_floats(&shift_name, &shift, Float::F64).into());
    let begins = windows.iter().map(|window| window.pads().0);
    let ends = windows.iter().map(|window| window.pads().1);
    let pads = [0, 0].into_iter().chain(begins).chain([0, 0]).chain(ends).collect();
    side.nodes.push(node("Sub", "", &[inner, &shift_name], &less, vec![]));
    // Pad's pads are an input since opset 11.
    if opset < 11 {
        side.nodes.push(node("Pad", "", &[&less], &padded, vec![ints("pads", pads)]));
    } else {
        side.nodes.push(node("Pad", "", &[&less, &pads_name], &padded, vec![]));
        side.constants.push(tensor::from_integers(&pads_name, &pads).into());
    }
    side.nodes.push(node("Add", "", &[&padded, &shift_name], output, vec![]));
}

/// A constant that before opset 7 met its operand from `axis` on, with the dimensions
/// that make it meet the same axes now.
fn aligned(reader: &Reader, node: &Node, axis: usize, mut constant: Constant) -> Constant {
    let rank = node.input(0).and_then(|operand| reader.sizes.rank(operand).ok()).unwrap_or(0);
    let dims = &mut constant.header.dims;
    dims.resize(rank.saturating_sub(axis).max(dims.len()), 1);
    let name = format!("{}.at.{}", constant.name(), node.label());
    constant.called(name)
}

/// Constant `id`, floats as float64.
fn widened(reader: &Reader, id: ValueId) -> Result<Option<Constant>, Invalid> {
    let name = &reader.graph.value(id).name;
    let Some(stored) = reader.constants.tensor(id)? else {
        let integers = reader.sizes.integers(id)?;
        return Ok(integers.map(|integers| tensor::from_integers(name, &integers).into()));
    };
    if let Some(numbers) = reader.constants.numbers(id)? {
        return Ok(Some(Constant::doubles(name, &stored.dims, numbers)));
    }
    let stored = tensor::inlined(&stored, &reader.graph.model.storage)?;
    Ok(Some(Constant::from(stored).called(name.clone())))
}

/// Shapes of the roots, one list per trial. One trial holds every border case; where
/// the size is free and there is a stride, each remainder of the size is one more.
fn trials(
    reader: &Reader,
    readings: &Readings,
    block: &Block,
    roots: &[ValueId],
) -> Vec<Vec<Vec<usize>>> {
    let axes = block.parts.iter().map(|part| part.map.windows.len()).max().unwrap_or(0);
    let strides =
        (0..axes).flat_map(|axis| block.parts.iter().map(move |part| part.map.window(axis).stride));
    let remainders = strides.max().unwrap_or(1).min(MAX_REMAINDERS);
    let cuts_by_number = block.region.nodes.iter().any(|&id| {
        !block.region.steps.contains(&id)
            && matches!(readings.get(id), Some(Reading::Map(..)))
            && reader.graph.node(id).proto.op_type() == "Slice"
    });
    // A Slice that ends at a number is right for one size only.
    let outputs: Vec<Option<i64>> = match cuts_by_number {
        true => (0..axes).map(|axis| outputs_known(reader, block, axis)).collect(),
        false => Vec::new(),
    };
    (0..remainders)
        .map(|remainder| {
            let shape = |root: &ValueId| {
                let sizes = if block.relies_on_sizes { reader.sizes.shape(*root) } else { &[] };
                let parts: Vec<&Part<Geometry>> =
                    block.parts.iter().filter(|part| part.root == *root).collect();
                let order = order(block, &parts);
                let mut shape = vec![1, channels(block, &parts)];
                for axis in 0..axes {
                    let known = sizes.get(order.axis(axis.saturating_add(2))).copied().flatten();
                    let size = match outputs.get(axis).copied().flatten() {
                        Some(outputs) => known.unwrap_or(size_for(&parts, axis, outputs)),
                        None => small_size(block, &parts, axis, known, remainder),
                    };
                    shape.push(usize::try_from(size).unwrap_or(1).max(1));
                }
                let role = |role: usize| shape.get(role).copied();
                order.roles(shape.len()).into_iter().filter_map(role).collect()
            };
            roots.iter().map(shape).collect()
        })
        .collect()
}

/// How many outputs the block has along an axis, if the size of a root is known.
fn outputs_known(reader: &Reader, block: &Block, axis: usize) -> Option<i64> {
    let gathers = |part: &&Part<Geometry>| part.map.sense != Sense::Scatter;
    let parts = block.parts.iter().filter(|_| block.relies_on_sizes).filter(gathers);
    let mut outputs = parts.filter(|part| part.kind == Kind::Weighted).filter_map(|part| {
        let shape = reader.sizes.shape(part.root);
        let size = shape.get(part.map.input.axis(axis.saturating_add(2))).copied().flatten()?;
        Some(part.map.window(axis).outputs(size))
    });
    outputs.next()
}

/// The size of the root of `parts` that gives so many outputs.
fn size_for(parts: &[&Part<Geometry>], axis: usize, outputs: i64) -> i64 {
    input_size(&window_of(parts, axis), outputs, 0)
}

/// How the root of `parts` is read; what is added as it is has the identity.
fn window_of(parts: &[&Part<Geometry>], axis: usize) -> Window {
    let weighted = parts.iter().find(|part| part.kind == Kind::Weighted);
    weighted.map_or(Window::IDENTITY, |part| part.map.window(axis))
}

/// The axes of the root of `parts`; what is added as it is has those of the output.
fn order(block: &Block, parts: &[&Part<Geometry>]) -> Order {
    let weighted = |part: &&Part<Geometry>| part.kind == Kind::Weighted;
    match parts.iter().copied().find(weighted) {
        Some(part) => part.map.input.clone(),
        None => {
            let any = block.parts.iter().find(weighted);
            any.map(|part| part.map.output.clone()).unwrap_or_default()
        }
    }
}

fn channels(block: &Block, parts: &[&Part<Geometry>]) -> usize {
    let read = parts.iter().find_map(|part| part.map.channels.map(|channels| channels.inputs));
    let made =
        || block.parts.iter().find_map(|part| part.map.channels.map(|channels| channels.outputs));
    read.or_else(made).unwrap_or(1)
}

/// The smallest size at which every border case of the block occurs. Another size on
/// each axis, so that exchanged axes show.
fn small_size(
    block: &Block,
    parts: &[&Part<Geometry>],
    axis: usize,
    known: Option<i64>,
    remainder: i64,
) -> i64 {
    let mut scattered = block.parts.iter().filter(|part| part.map.sense == Sense::Scatter);
    if let Some(part) = scattered.next() {
        return scattered_size(&part.map.window(axis), parts, axis);
    }
    let windows: Vec<Window> = block.parts.iter().map(|part| part.map.window(axis)).collect();
    let mut outputs = outputs_with_all_borders(&windows).saturating_add(axis as i64);
    // Every root must have at least one element, and enough of them to be mirrored.
    let needed = |window: &Window| match window.border {
        Border::Zero => 1,
        _ => window.pads().0.max(window.pads().1).saturating_add(1),
    };
    while windows.iter().any(|window| input_size(window, outputs, 0) < needed(window)) {
        outputs = outputs.saturating_add(1);
    }
    let window = window_of(parts, axis);
    let rest = match known {
        // What holds for one size holds for those of the same remainder.
        Some(size) => size.saturating_add(window.slack).rem_euclid(window.stride),
        None => remainder.rem_euclid(window.stride),
    };
    input_size(&window, outputs, rest)
}

/// The same where a transposed convolution with `window` makes the output: what it
/// reads is so large that some outputs are reached by no border tap; what is added to
/// it is as large as the output.
fn scattered_size(window: &Window, parts: &[&Part<Geometry>], axis: usize) -> i64 {
    let reach = window.last().saturating_sub(window.start).div_euclid(window.stride);
    let inputs = reach.saturating_add(3).saturating_add(axis as i64);
    match parts.iter().any(|part| part.map.sense == Sense::Scatter) {
        true => inputs,
        false => {
            inputs.saturating_sub(1).saturating_mul(window.stride).saturating_add(window.slack)
        }
    }
}
