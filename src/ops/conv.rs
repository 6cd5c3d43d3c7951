//! What slides windows over a tensor: convolutions, `y = K * x + b`, and average pools.
//!
//! Windows come from attributes of the same names for all of them: strides, dilations, pads,
//! auto_pad. A kernel that is computed at run time is no map.
//!
//! Knows attributes and the dimensions of kernels, and no numbers in them.

use crate::affine::{AxisOrder, Channels, ConvKind, Geometry, PadMode, View, ViewedAxis, Window};
use crate::facts::kernels::KernelLayout;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::float::Float;
use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;
use crate::ops::meaning::{LinearOp, Meaning, ViewKernel, ViewNode};
use crate::ops::reader::{Reader, first_input, not_linear};
use crate::ops::stop::Stop;
use crate::ops::views;
use crate::refusal::NotLinear;

/// Conv (opset 1 to 22).
///
/// # Errors
/// If its kernel or bias is not constant, or its attributes are not those of a convolution.
pub fn conv(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    with_kernel(reader, node, ConvKind::Conv, valid)
}

/// ConvTranspose (opset 1 to 22).
///
/// # Errors
/// As [`conv`].
pub fn conv_transpose(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    with_kernel(reader, node, ConvKind::ConvTranspose, valid)
}

/// `y = K * x + b`
fn with_kernel(
    reader: &Reader,
    node: &Node,
    kind: ConvKind,
    valid: &mut Validity,
) -> Result<Meaning, Stop> {
    let (Some(input), Some(kernel)) = (node.input(0), node.input(1)) else {
        return Err(NotLinear::Malformed("its input or kernel is missing").into());
    };
    let dims = reader.dims(kernel)?;
    let float = reader.constants.element_type(kernel).and_then(Float::from_onnx);
    let (Some(float), [first, width, taps @ ..]) = (float, dims.as_slice()) else {
        return Err(NotLinear::Malformed("its kernel is not a float tensor [O, C, k…]").into());
    };
    reader.same_types(node, &[0, 1, 2])?;
    let groups = usize::try_from(node.int("group", 1)).unwrap_or(0);
    if first.checked_rem(groups) != Some(0) || dims.contains(&0) {
        return Err(NotLinear::Malformed("its groups do not divide its channels").into());
    }
    if reader.sizes.declared_rank(input).is_some_and(|rank| rank != dims.len()) {
        return Err(NotLinear::Malformed("its input has other axes than its kernel").into());
    }
    let taps: Vec<i64> = taps.iter().map(|&taps| taps as i64).collect();
    if node.ints("kernel_shape").is_some_and(|shape| shape != taps) {
        return Err(NotLinear::Malformed("kernel_shape is not its kernel's shape").into());
    }
    let Some(second) = width.checked_mul(groups) else {
        return Err(NotLinear::Malformed("its channels overflow").into());
    };
    let (windows, outputs, inputs, layout) = if kind == ConvKind::ConvTranspose {
        let windows = scattered_windows(node, &taps)?;
        (windows, second, *first, KernelLayout::InputsFirst)
    } else {
        let windows = windows(reader, node, input, &taps, valid)?;
        (windows, *first, second, KernelLayout::OutputsFirst)
    };
    // Of stride 1, a transposed convolution is a convolution, which adds to others. One whose
    // output is larger than its input is left as it is: to gather takes multiply-adds for every
    // output, to scatter for every input.
    let gathered = || windows.iter().map(Window::gathered).collect::<Option<Vec<Window>>>();
    let is_no_larger = |windows: &Vec<Window>| windows.iter().all(|window| window.slack < 0);
    let gathered = gathered().filter(|_| kind == ConvKind::ConvTranspose).filter(is_no_larger);
    let (kind, windows) = match gathered {
        Some(windows) => (ConvKind::Conv, windows),
        None => (kind, windows),
    };
    let bias = match node.input(2) {
        None => Vec::new(),
        Some(bias) => reader.vector(bias, outputs)?,
    };
    let geometry = Geometry {
        channels: Some(Channels { inputs, outputs, groups }),
        windows,
        kind,
        shifted: bias.iter().any(|&value| value != 0.0),
        ..Geometry::identity()
    };
    Ok(Meaning::Linear(
        input,
        LinearOp::Conv { kernel, layout, factor: 1.0, float, bias, geometry },
    ))
}

/// AveragePool (opset 1 to 22): each tap weighs 1/(number of taps); a view, if at the border means
/// are of less elements.
///
/// # Errors
/// If it is neither.
pub fn average_pool(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let apart = vec![Some(ViewedAxis::alone(0)), Some(ViewedAxis::alone(1))];
    let view = views::node(node, View::resampling(apart.clone(), apart), vec![]);
    let mut own = Validity::default();
    match equal_taps(reader, node, input, &mut own) {
        Ok((windows, weight)) => {
            valid.intersect(&own);
            // Zeros of a border are no elements.
            let is_mean = windows.iter().all(|window| window.pads() == (0, 0));
            let mean = is_mean.then(|| {
                let kernel = Some(ViewKernel::Means(windows.as_slice().into()));
                ViewNode { kernel, ..view }
            });
            let order = AxisOrder::CANONICAL;
            let filter = LinearOp::Filter { windows, order, weight, shift: 0.0, mean };
            Ok(Meaning::Linear(input, filter))
        }
        Err(malformed @ NotLinear::Malformed(_)) => Err(malformed.into()),
        Err(_) if is_mean_of_some(node) => Ok(Meaning::Linear(input, LinearOp::View(view))),
        Err(other) => Err(other.into()),
    }
}

/// MaxPool (opset 1 to 22) of windows of one element each: what skips some (`LastLevelMaxPool` of
/// feature pyramids), or nothing.
///
/// # Errors
/// If it chooses, or says which elements it chose.
pub fn max_pool(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let taps = node.ints("kernel_shape").unwrap_or_default();
    let is_of_one = !taps.is_empty() && taps.iter().all(|&taps| taps == 1);
    if !is_of_one || reader.graph.yields_more(node) || node.int("ceil_mode", 0) != 0 {
        return Err(not_linear(node).into());
    }
    let windows = windows(reader, node, input, taps, valid)?;
    // Beyond the border stands what is below all numbers.
    if windows.iter().any(|window| window.is_padded()) {
        return Err(not_linear(node).into());
    }
    if windows.iter().all(|window| *window == Window::IDENTITY) {
        return Ok(Meaning::Alias(input));
    }
    Ok(Meaning::Linear(input, LinearOp::frame(windows, AxisOrder::CANONICAL)))
}

/// Whether a pool's means are of the zeros of its border, too.
fn counts_pads(node: &Node) -> bool {
    node.int("count_include_pad", 0) != 0
}

/// Whether a pool's means are of elements alone, and each of one at least. *Counter-examples*: with
/// gaps between its taps, or pads as large, a window may lie beyond all elements; if the number of
/// windows is rounded up, one begins up to `stride − 1` later: with pads, or large strides, too late.
fn is_mean_of_some(node: &Node) -> bool {
    let taps = node.ints("kernel_shape").unwrap_or_default();
    let (begins, ends) =
        node.ints("pads").unwrap_or_default().split_at_checked(taps.len()).unwrap_or_default();
    let is_small = |pads: &[i64]| pads.iter().zip(taps).all(|(pad, taps)| pad < taps);
    let has_gaps = node.ints("dilations").is_some_and(|gaps| gaps.iter().any(|&gap| gap != 1));
    let strides = node.ints("strides").unwrap_or_default();
    let of = |list: &[i64], axis: usize, default| list.get(axis).copied().unwrap_or(default);
    let begins_inside = |(axis, &taps): (usize, &i64)| {
        of(strides, axis, 1).saturating_add(of(ends, axis, 0)) <= taps
    };
    let rounds_up = node.int("ceil_mode", 0) != 0;
    let is_inside = !rounds_up || taps.iter().enumerate().all(begins_inside);
    !counts_pads(node) && is_small(begins) && is_small(ends) && !has_gaps && is_inside
}

/// The windows of a pool, and the weight that all its taps have.
fn equal_taps(
    reader: &Reader,
    node: &Node,
    input: ValueId,
    valid: &mut Validity,
) -> Result<(Vec<Window>, f64), NotLinear> {
    let taps = node.ints("kernel_shape");
    let taps = taps.ok_or(NotLinear::Malformed("its kernel_shape is missing"))?;
    let windows = windows(reader, node, input, taps, valid)?;
    let is_padded = windows.iter().any(|window| window.pads() != (0, 0));
    if is_padded && !counts_pads(node) {
        return Err(NotLinear::Unrepresentable("its means leave the padding out"));
    }
    if node.int("ceil_mode", 0) != 0 {
        for (axis, window) in windows.iter().enumerate() {
            require_no_overhang(reader, input, axis.saturating_add(2), window, valid)?;
        }
    }
    let count: f64 = taps.iter().map(|&taps| taps as f64).product();
    Ok((windows, 1.0 / count))
}

/// That no window ends beyond the padded input: with ceil_mode the last one may, and counts less
/// taps.
fn require_no_overhang(
    reader: &Reader,
    input: ValueId,
    axis: usize,
    window: &Window,
    valid: &mut Validity,
) -> Result<(), NotLinear> {
    let modulus = window.stride;
    if modulus == 1 {
        return Ok(());
    }
    let (before, behind) = window.pads();
    let extent = window.taps.saturating_sub(1).saturating_mul(window.dilation).saturating_add(1);
    let beyond = extent.saturating_sub(before).saturating_sub(behind);
    let size = reader.sizes.size(input, axis)?;
    let sizes = SizeSet::Congruent { remainder: beyond.rem_euclid(modulus), modulus };
    if !sizes.contains(size) {
        return Err(NotLinear::Unrepresentable("ceil_mode lets its windows overhang"));
    }
    valid.require(input, Property::Size(axis, sizes));
    Ok(())
}

/// The windows that a Conv's or pool's attributes describe.
fn windows(
    reader: &Reader,
    node: &Node,
    input: ValueId,
    taps: &[i64],
    valid: &mut Validity,
) -> Result<Vec<Window>, NotLinear> {
    let strides = per_axis(node, "strides", taps.len(), 1)?;
    let dilations = per_axis(node, "dilations", taps.len(), 1)?;
    let auto_pad = node.attribute("auto_pad").map_or(&b""[..], |attribute| attribute.s());
    let explicit = per_axis(node, "pads", taps.len().saturating_mul(2), 0)?;
    // Which of the two counts is for every engine to say.
    let by_itself = matches!(auto_pad, b"" | b"NOTSET");
    if !by_itself && explicit.iter().any(|&pad| pad != 0) {
        return Err(MALFORMED_WINDOWS);
    }
    let same = match auto_pad {
        b"SAME_UPPER" => Some(PadMode::SameUpper),
        b"SAME_LOWER" => Some(PadMode::SameLower),
        _ => None,
    };
    let is_open = |axis: usize| reader.sizes.size(input, axis.saturating_add(2)).is_err();
    let mut strided = strides.iter().enumerate().filter(|&(_, &stride)| stride > 1);
    if let Some(mode) = same.filter(|_| strided.any(|(axis, _)| is_open(axis))) {
        let axes = taps.iter().zip(&strides).zip(&dilations);
        let window = |((&taps, &stride), &dilation)| Window::unplaced(taps, stride, dilation, mode);
        let mut windows =
            axes.map(window).collect::<Option<Vec<Window>>>().ok_or(MALFORMED_WINDOWS)?;
        // One attribute says it of all axes.
        if windows.iter().any(|window| !window.pad_mode.is_placed()) {
            for window in &mut windows {
                (window.offset, window.pad_mode) = (0, mode);
            }
        }
        return Ok(windows);
    }
    let (begins, ends) = explicit.split_at(taps.len());
    let axes = taps.iter().zip(&strides).zip(&dilations).zip(begins.iter().zip(ends));
    let mut windows = Vec::with_capacity(taps.len());
    for (axis, (((&taps, &stride), &dilation), (&begin, &end))) in axes.enumerate() {
        let pads = match auto_pad {
            b"" | b"NOTSET" if begin < 0 || end < 0 => return Err(MALFORMED_WINDOWS),
            b"" | b"NOTSET" => (begin, end),
            b"VALID" => (0, 0),
            b"SAME_UPPER" | b"SAME_LOWER" => {
                let extent = taps.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
                let axis = axis.saturating_add(2);
                let total = same_padding(reader, input, axis, [stride, extent], valid)?;
                let small = total / 2;
                let large = total.saturating_sub(small);
                if auto_pad == b"SAME_UPPER" { (small, large) } else { (large, small) }
            }
            _ => return Err(MALFORMED_WINDOWS),
        };
        let window = Window::new(taps, stride, dilation, pads);
        windows.push(window.ok_or(MALFORMED_WINDOWS)?);
    }
    Ok(windows)
}

/// Total padding that yields ⌈n/stride⌉ outputs. With stride 1 it does not depend on n.
fn same_padding(
    reader: &Reader,
    input: ValueId,
    axis: usize,
    [stride, extent]: [i64; 2],
    valid: &mut Validity,
) -> Result<i64, NotLinear> {
    if stride == 1 {
        return Ok(extent.saturating_sub(1));
    }
    let size = reader.sizes.size(input, axis)?;
    if stride < 1 {
        return Err(NotLinear::Malformed("a stride is not positive"));
    }
    // Sizes of one remainder are padded alike.
    let (remainder, modulus) = (size.rem_euclid(stride), stride);
    valid.require(input, Property::Size(axis, SizeSet::Congruent { remainder, modulus }));
    // ⌈size/stride⌉ outputs, of which the last one's window begins here.
    let last = size.saturating_sub(1).div_euclid(stride).saturating_mul(stride);
    Ok(last.saturating_add(extent).saturating_sub(size).max(0))
}

/// Integer list attribute `name` with `length` elements, by default all `default`.
fn per_axis(node: &Node, name: &str, length: usize, default: i64) -> Result<Vec<i64>, NotLinear> {
    match node.ints(name) {
        Some(values) if values.len() == length => Ok(values.to_vec()),
        Some(values) if !values.is_empty() => Err(MALFORMED_WINDOWS),
        _ => Ok(vec![default; length]),
    }
}

/// The windows that a ConvTranspose's attributes describe.
fn scattered_windows(node: &Node, taps: &[i64]) -> Result<Vec<Window>, NotLinear> {
    let auto_pad = node.attribute("auto_pad").map_or(&b""[..], |attribute| attribute.s());
    if !matches!(auto_pad, b"" | b"NOTSET" | b"VALID") || node.ints("output_shape").is_some() {
        return Err(NotLinear::Unrepresentable("its pads follow from the size of its output"));
    }
    let list = |name, length, default| per_axis(node, name, length, default);
    let (strides, dilations) = (list("strides", taps.len(), 1)?, list("dilations", taps.len(), 1)?);
    let growth = list("output_padding", taps.len(), 0)?;
    let pads = match auto_pad {
        b"VALID" => vec![0; taps.len().saturating_mul(2)],
        _ => list("pads", taps.len().saturating_mul(2), 0)?,
    };
    let (begins, ends) = pads.split_at(taps.len());
    let axes = taps.iter().zip(strides).zip(dilations).zip(growth).zip(begins.iter().zip(ends));
    axes.map(|((((&taps, stride), dilation), growth), (&begin, &end))| {
        let valid = begin >= 0 && end >= 0 && (0..stride.max(dilation)).contains(&growth);
        let window = Window::scattered(taps, stride, dilation, (begin, end), growth);
        window.filter(|_| valid).ok_or(MALFORMED_WINDOWS)
    })
    .collect()
}

const MALFORMED_WINDOWS: NotLinear =
    NotLinear::Malformed("its strides, dilations or pads are not valid");
