//! Operators that slide windows over a tensor: convolutions, `y = K * x + b`, and pools.
//!
//! A convolution whose kernel is computed at run time is not a map here.
//!
//! Knows attributes and the dimensions of kernels, but not their numbers.

use crate::affine::{AxisOrder, Channels, ConvKind, Geometry, PadMode, View, ViewedAxis, Window};
use crate::facts::kernels::KernelLayout;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::float::Float;
use crate::onnx::ids::ValueId;
use crate::onnx::node::Node;
use crate::onnx::windows::{AutoPad, WindowAttributes, WindowAxis, WindowFault, kernel_shape};
use crate::ops::meaning::{LinearOp, Meaning, ViewKernel, ViewNode};
use crate::ops::reader::{Reader, first_input, not_linear};
use crate::ops::stop::Stop;
use crate::ops::views;
use crate::refusal::NotLinear;

/// Reads Conv (opset 1 to 22).
///
/// # Errors
/// Returns an error if its kernel or bias is not constant, or its attributes are not those of a
/// convolution.
pub fn conv(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    with_kernel(reader, node, ConvKind::Conv, valid)
}

/// Reads ConvTranspose (opset 1 to 22).
///
/// # Errors
/// As [`conv`].
pub fn conv_transpose(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    with_kernel(reader, node, ConvKind::ConvTranspose, valid)
}

/// Reads a convolution of either kind, `y = K * x + b`.
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
    let taps: Vec<Option<i64>> = taps.iter().map(|&taps| Some(taps as i64)).collect();
    let own = attributes(node, Some(&taps))?;
    let Some(second) = width.checked_mul(groups) else {
        return Err(NotLinear::Malformed("its number of channels overflows").into());
    };
    let (windows, outputs, inputs, layout) = if kind == ConvKind::ConvTranspose {
        let windows = scattered_windows(&own)?;
        (windows, second, *first, KernelLayout::InputsFirst)
    } else {
        let windows = windows(reader, &own, input, valid)?;
        (windows, *first, second, KernelLayout::OutputsFirst)
    };
    // With stride 1, a transposed convolution is a convolution, which can be added to others. If
    // its output is larger than its input, it is left as it is: gathering takes multiply-adds
    // for every output, scattering for every input.
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

/// Reads AveragePool (opset 1 to 22) as a filter whose taps all weigh 1/(number of taps), or as
/// a view if means at the border average fewer elements.
///
/// # Errors
/// Returns an error if it is neither.
pub fn average_pool(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let apart = vec![Some(ViewedAxis::alone(0)), Some(ViewedAxis::alone(1))];
    let view = views::node(node, View::resampling(apart.clone(), apart), vec![]);
    let own = pool_attributes(reader, node, input)?;
    let mut of_filter = Validity::default();
    match equal_taps(reader, &own, input, &mut of_filter) {
        Ok((windows, weight)) => {
            valid.intersect(&of_filter);
            // Means over padding are not a view: its zeros are not elements of the tensor.
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
        Err(_) if is_mean_of_some(&own) => Ok(Meaning::Linear(input, LinearOp::View(view))),
        Err(other) => Err(other.into()),
    }
}

/// Reads MaxPool (opset 1 to 22) with windows of one element each: it skips elements
/// (`LastLevelMaxPool` of feature pyramids) or does nothing.
///
/// # Errors
/// Returns an error if it chooses between elements, or returns which ones it chose.
pub fn max_pool(reader: &Reader, node: &Node, valid: &mut Validity) -> Result<Meaning, Stop> {
    let input = first_input(node)?;
    let is_of_one = kernel_shape(&node.proto).is_none_or(|taps| taps.iter().all(|&taps| taps == 1));
    if !is_of_one || reader.graph.yields_more(node) {
        return Err(not_linear(node).into());
    }
    let own = pool_attributes(reader, node, input)?;
    if own.rounds_up {
        return Err(not_linear(node).into());
    }
    let windows = windows(reader, &own, input, valid)?;
    // MaxPool pads with −∞, not with zeros.
    if windows.iter().any(|window| window.is_padded()) {
        return Err(not_linear(node).into());
    }
    if windows.iter().all(|window| *window == Window::IDENTITY) {
        return Ok(Meaning::Alias(input));
    }
    Ok(Meaning::Linear(input, LinearOp::frame(windows, AxisOrder::CANONICAL)))
}

/// Returns the window attributes of `node`; `kernel` lists the taps of its kernel, if it has
/// one.
fn attributes(node: &Node, kernel: Option<&[Option<i64>]>) -> Result<WindowAttributes, NotLinear> {
    WindowAttributes::of(&node.proto, kernel).map_err(|fault| match fault {
        WindowFault::NoKernel => NotLinear::Malformed("its kernel_shape is missing"),
        WindowFault::OtherKernel => NotLinear::Malformed("kernel_shape is not its kernel's shape"),
        WindowFault::Numbers => MALFORMED_WINDOWS,
    })
}

/// Returns the window attributes of the pool `node`, which reads `input`.
fn pool_attributes(
    reader: &Reader,
    node: &Node,
    input: ValueId,
) -> Result<WindowAttributes, NotLinear> {
    let own = attributes(node, None)?;
    let rank = own.axes.len().saturating_add(2);
    if reader.sizes.declared_rank(input).is_some_and(|declared| declared != rank) {
        return Err(NotLinear::Malformed("its input has other axes than its windows"));
    }
    if own.are_disputed() {
        return Err(NotLinear::Unrepresentable("engines pad its windows in different ways"));
    }
    Ok(own)
}

/// Whether each mean of a pool averages at least one element, and no padding.
/// *Counter-examples*: with gaps between the taps, or pads as large as the window, a window may
/// lie beyond all elements. If the number of windows is rounded up, the last one begins up to
/// `stride − 1` later, which, with pads or large strides, is beyond all elements.
fn is_mean_of_some(own: &WindowAttributes) -> bool {
    let has_element = |axis: &WindowAxis| {
        let (begin, end) = axis.pads;
        let is_larger = |than: i64| axis.taps.is_some_and(|taps| taps > than);
        let last = axis.stride.saturating_sub(1).saturating_add(end);
        let begins_inside = !own.rounds_up || is_larger(last);
        axis.dilation == 1 && is_larger(begin) && is_larger(end) && begins_inside
    };
    !own.counts_pads && own.axes.iter().all(has_element)
}

/// Returns the windows of a pool, and the weight of each tap.
fn equal_taps(
    reader: &Reader,
    own: &WindowAttributes,
    input: ValueId,
    valid: &mut Validity,
) -> Result<(Vec<Window>, f64), NotLinear> {
    let windows = windows(reader, own, input, valid)?;
    let is_padded = windows.iter().any(|window| window.pads() != (0, 0));
    if is_padded && !own.counts_pads {
        return Err(NotLinear::Unrepresentable("its means leave the padding out"));
    }
    for (axis, window) in windows.iter().enumerate() {
        let axis = axis.saturating_add(2);
        // If the padded axis is shorter than a window, engines make an empty map, for which they
        // run no convolution; or, if they round a quotient of −½ to 0, one mean, of the elements
        // that there are or of zeros, too.
        if !own.auto_pad.is_same() {
            valid.require(input, Property::Size(axis, SizeSet::AtLeast(least_size(window))));
        }
        if own.rounds_up {
            require_no_overhang(reader, (input, axis), window, valid)?;
        }
    }
    let count: f64 = windows.iter().map(|window| window.taps as f64).product();
    Ok((windows, 1.0 / count))
}

/// Returns the smallest size of an axis at which a window lies within the padded input.
fn least_size(window: &Window) -> i64 {
    let (before, behind) = window.pads();
    let extent = window.taps.saturating_sub(1).saturating_mul(window.dilation).saturating_add(1);
    extent.saturating_sub(before).saturating_sub(behind)
}

/// Requires that no window ends beyond the padded input: with `ceil_mode` the last one may, and
/// then averages fewer taps.
fn require_no_overhang(
    reader: &Reader,
    (input, axis): (ValueId, usize),
    window: &Window,
    valid: &mut Validity,
) -> Result<(), NotLinear> {
    let modulus = window.stride;
    if modulus == 1 {
        return Ok(());
    }
    let beyond = least_size(window);
    let size = reader.sizes.size(input, axis)?;
    let sizes = SizeSet::Congruent { remainder: beyond.rem_euclid(modulus), modulus };
    if !sizes.contains(size) {
        return Err(NotLinear::Unrepresentable("ceil_mode lets its windows overhang"));
    }
    valid.require(input, Property::Size(axis, sizes));
    Ok(())
}

/// Returns the windows that the attributes of a Conv or pool describe.
fn windows(
    reader: &Reader,
    own: &WindowAttributes,
    input: ValueId,
    valid: &mut Validity,
) -> Result<Vec<Window>, NotLinear> {
    let same = match own.auto_pad {
        AutoPad::SameUpper => Some(PadMode::SameUpper),
        AutoPad::SameLower => Some(PadMode::SameLower),
        AutoPad::NotSet | AutoPad::Valid => None,
    };
    if same.is_some() && own.axes.iter().any(WindowAxis::may_be_cropped) {
        return Err(NotLinear::Unrepresentable("engines pad its windows in different ways"));
    }
    let is_open = |(axis, own): (usize, &WindowAxis)| {
        own.stride > 1 && reader.sizes.size(input, axis.saturating_add(2)).is_err()
    };
    if let Some(mode) = same.filter(|_| own.axes.iter().enumerate().any(is_open)) {
        let window =
            |axis: &WindowAxis| Window::unplaced(axis.taps?, axis.stride, axis.dilation, mode);
        let windows = own.axes.iter().map(window).collect::<Option<Vec<Window>>>();
        let mut windows = windows.ok_or(MALFORMED_WINDOWS)?;
        // `auto_pad` is one attribute for all axes.
        if windows.iter().any(|window| !window.pad_mode.is_placed()) {
            for window in &mut windows {
                (window.offset, window.pad_mode) = (0, mode);
            }
        }
        return Ok(windows);
    }
    let mut windows = Vec::with_capacity(own.axes.len());
    for (number, axis) in own.axes.iter().enumerate() {
        let pads = match same {
            None => axis.pads,
            Some(mode) => {
                let total = same_padding(reader, input, number.saturating_add(2), axis, valid)?;
                let small = total / 2;
                let large = total.saturating_sub(small);
                if mode == PadMode::SameUpper { (small, large) } else { (large, small) }
            }
        };
        let window = |taps| Window::new(taps, axis.stride, axis.dilation, pads);
        let window = axis.taps.and_then(window).ok_or(MALFORMED_WINDOWS)?;
        let size = reader.sizes.known_size(input, number.saturating_add(2));
        if size.is_some_and(|size| size < least_size(&window)) {
            let why =
                "its input is smaller than a window, and engines differ in what they make of that";
            return Err(NotLinear::Unrepresentable(why));
        }
        windows.push(window);
    }
    Ok(windows)
}

/// Returns the total padding along axis `number` of `input` that yields ⌈n/stride⌉ outputs. With
/// stride 1 it does not depend on n.
fn same_padding(
    reader: &Reader,
    input: ValueId,
    number: usize,
    axis: &WindowAxis,
    valid: &mut Validity,
) -> Result<i64, NotLinear> {
    let (stride, extent) = (axis.stride, axis.extent().ok_or(MALFORMED_WINDOWS)?);
    if stride == 1 {
        return Ok(extent.saturating_sub(1));
    }
    let size = reader.sizes.size(input, number)?;
    // Sizes with the same remainder are padded alike.
    let (remainder, modulus) = (size.rem_euclid(stride), stride);
    valid.require(input, Property::Size(number, SizeSet::Congruent { remainder, modulus }));
    // There are ⌈size/stride⌉ outputs; the window of the last one begins here.
    let last = size.saturating_sub(1).div_euclid(stride).saturating_mul(stride);
    Ok(last.saturating_add(extent).saturating_sub(size).max(0))
}

/// Returns the windows that the attributes of a ConvTranspose describe.
fn scattered_windows(own: &WindowAttributes) -> Result<Vec<Window>, NotLinear> {
    if own.auto_pad.is_same() || own.axes.iter().any(|axis| axis.output_size.is_some()) {
        return Err(NotLinear::Unrepresentable("its pads follow from the size of its output"));
    }
    let window = |axis: &WindowAxis| {
        let WindowAxis { stride, dilation, pads, output_padding, .. } = *axis;
        Window::scattered(axis.taps?, stride, dilation, pads, output_padding)
    };
    own.axes.iter().map(window).collect::<Option<_>>().ok_or(MALFORMED_WINDOWS)
}

const MALFORMED_WINDOWS: NotLinear =
    NotLinear::Malformed("its strides, dilations or pads are not valid");
