//! Shapes of what slides windows over a tensor: convolutions and pools.
//!
//! Along each axis with `n` elements, there are `⌊(n + pads − width)/stride⌋ + 1` windows of
//! width `(k − 1)·dilation + 1`.
//!
//! Knows attributes and a kernel's dimensions; knows no weights.

use crate::facts::shape_rules::asked::{Asked, open};
use crate::facts::shape_rules::extent::{Extent, Extents, known, number};
use crate::onnx::windows::{AutoPad, WindowAttributes, WindowAxis};

/// A rule for the spatial sizes behind windows over these sizes.
type SpatialRule = fn(&WindowAttributes, &[Option<Extent>]) -> Extents;

/// Returns the batch of the first input, the `channels`, and the sizes behind windows of the
/// `kernel`, if there is one. Of windows that no engine computes, only the number of axes is
/// known.
fn behind(
    asked: &Asked,
    kernel: Option<&[Option<Extent>]>,
    channels: Option<Extent>,
    rule: SpatialRule,
) -> Option<Extents> {
    let dims = asked.dims(0);
    let of_input = match &dims {
        Some(dims) => Some(dims.get(2..)?),
        None => None,
    };
    let taps: Option<Vec<Option<i64>>> = match kernel.and_then(|kernel| kernel.get(2..)) {
        Some(taps) => Some(taps.iter().copied().map(number).collect()),
        // The input tells the number of axes, too.
        None => of_input.map(|sizes| vec![None; sizes.len()]),
    };
    let windows = WindowAttributes::of(&asked.node.proto, taps.as_deref());
    let axes = match &windows {
        Ok(windows) => windows.axes.len(),
        Err(_) => taps?.len(),
    };
    if of_input.is_some_and(|sizes| sizes.len() != axes) {
        return None;
    }
    let unknown = open(axes)?;
    let spatial = match &windows {
        Ok(windows) => rule(windows, of_input.unwrap_or(&unknown)),
        Err(_) => unknown,
    };
    let batch = dims.as_ref().and_then(|dims| *dims.first()?);
    Some(joined(batch, channels, spatial))
}

/// Returns the spatial sizes behind windows over `sizes`; `None` for those that are not known.
fn gathered(windows: &WindowAttributes, sizes: &[Option<Extent>]) -> Extents {
    let axes = windows.axes.iter().zip(sizes);
    let behind = |(axis, &size): (&WindowAxis, &Option<Extent>)| match size? {
        Extent::Number(size) => Some(positions(windows, axis, size)?.into()),
        name @ Extent::SizeOf(_) => name.plus(growth(windows, axis)?),
    };
    axes.map(behind).collect()
}

/// Returns by how many there are more windows than elements, however many elements there are;
/// `None` if that depends on their number.
fn growth(windows: &WindowAttributes, axis: &WindowAxis) -> Option<i64> {
    if axis.stride != 1 || windows.are_disputed() {
        return None;
    }
    if windows.auto_pad.is_same() {
        return Some(0);
    }
    let (begin, end) = axis.pads;
    begin.checked_add(end)?.checked_add(1)?.checked_sub(axis.extent()?)
}

/// Returns how many windows there are over `size` elements.
fn positions(windows: &WindowAttributes, axis: &WindowAxis, size: i64) -> Option<i64> {
    if windows.auto_pad.is_same() {
        // Rounded up, there may be one window more if the windows have gaps between them.
        let is_gapless = || axis.extent().is_some_and(|extent| extent >= axis.stride);
        let is_agreed_on = !windows.are_disputed() && (!windows.rounds_up || is_gapless());
        // ⌈size/stride⌉
        let rounded_up = size.checked_add(axis.stride.checked_sub(1)?)?.checked_div(axis.stride);
        return rounded_up.filter(|_| is_agreed_on);
    }
    let (begin, end) = axis.pads;
    let padded = size.checked_add(begin)?.checked_add(end)?;
    let way = padded.checked_sub(axis.extent()?).filter(|&way| way >= 0)?;
    let whole = way.checked_div(axis.stride)?.checked_add(1)?;
    if !windows.rounds_up || way.checked_rem(axis.stride)? == 0 {
        return Some(whole);
    }
    // The last window begins within the input or its left padding. A window that does not was
    // counted formerly, and is not any more.
    let is_inside = whole.checked_mul(axis.stride)? < size.checked_add(begin)?;
    // Nor do all engines round up without pads.
    let counts = is_inside && windows.auto_pad == AutoPad::NotSet;
    counts.then(|| whole.checked_add(1)).flatten()
}

/// Returns batch, channels and spatial sizes as one list.
fn joined(batch: Option<Extent>, channels: Option<Extent>, spatial: Extents) -> Extents {
    [batch, channels].into_iter().chain(spatial).collect()
}

pub fn conv(asked: &Asked) -> Option<Extents> {
    convolved(asked, 1)
}

pub fn quantized_conv(asked: &Asked) -> Option<Extents> {
    convolved(asked, 3)
}

fn convolved(asked: &Asked, kernel: usize) -> Option<Extents> {
    let kernel = asked.dims(kernel);
    let channels = kernel.as_ref().and_then(|kernel| *kernel.first()?);
    behind(asked, kernel.as_deref(), channels, gathered)
}

pub fn conv_transpose(asked: &Asked) -> Option<Extents> {
    let kernel = asked.dims(1);
    let groups = asked.node.int("group", 1);
    let channels = kernel.as_ref().and_then(|kernel| kernel.get(1).copied().flatten());
    let channels = channels.and_then(|width| Some(width.number()?.checked_mul(groups)?.into()));
    behind(asked, kernel.as_deref(), channels, scattered)
}

pub fn pool(asked: &Asked) -> Option<Extents> {
    let channels = asked.dims(0).and_then(|dims| *dims.get(1)?);
    behind(asked, None, channels, gathered)
}

pub fn max_unpool(asked: &Asked) -> Option<Extents> {
    if asked.has(2) {
        return asked.integers(2).or_else(|| open(asked.dims(0)?.len()));
    }
    let channels = asked.dims(0).and_then(|dims| *dims.get(1)?);
    behind(asked, None, channels, scattered)
}

/// Returns the spatial sizes that windows at `sizes` places reach: those that the node names, or
/// `(n − 1)·stride + output_padding + width − pads`.
fn scattered(windows: &WindowAttributes, sizes: &[Option<Extent>]) -> Extents {
    let axes = windows.axes.iter().zip(sizes);
    let reached = |(axis, &size): (&WindowAxis, &Option<Extent>)| match axis.output_size {
        Some(size) => Some(size.into()),
        None => Some(reached(windows, axis, number(size)?)?.into()),
    };
    axes.map(reached).collect()
}

/// Returns how many elements windows at `size` places reach.
fn reached(windows: &WindowAttributes, axis: &WindowAxis, size: i64) -> Option<i64> {
    if windows.auto_pad.is_same() {
        // In other cases, engines do not agree on what SAME means.
        let is_plain = axis.output_padding == 0 && axis.extent()? >= axis.stride;
        return is_plain.then(|| size.checked_mul(axis.stride)).flatten();
    }
    let steps = size.checked_sub(1).filter(|&steps| steps >= 0)?.checked_mul(axis.stride)?;
    let all = steps.checked_add(axis.output_padding)?.checked_add(axis.extent()?)?;
    all.checked_sub(axis.pads.0)?.checked_sub(axis.pads.1).filter(|&all| all >= 0)
}

pub fn global_pool(asked: &Asked) -> Option<Extents> {
    let mut dims = asked.dims(0)?;
    dims.iter_mut().skip(2).for_each(|size| *size = Some(Extent::ONE));
    Some(dims)
}

/// One image per region.
fn of_regions(asked: &Asked, spatial: Extents) -> Option<Extents> {
    let regions = asked.dims(1).and_then(|regions| *regions.first()?);
    let channels = asked.dims(0).and_then(|dims| *dims.get(1)?);
    Some(joined(regions, channels, spatial))
}

pub fn max_roi_pool(asked: &Asked) -> Option<Extents> {
    let spatial = known(asked.node.ints("pooled_shape")?);
    of_regions(asked, spatial)
}

pub fn roi_align(asked: &Asked) -> Option<Extents> {
    let spatial = ["output_height", "output_width"].map(|name| asked.node.int(name, 1));
    of_regions(asked, known(&spatial))
}

/// As many points as the grid has; its last axis holds the coordinates of each.
pub fn grid_sample(asked: &Asked) -> Option<Extents> {
    let (dims, mut grid) = (asked.dims(0)?, asked.dims(1)?);
    grid.pop()?;
    let spatial = grid.get(1..)?.to_vec();
    (dims.len() == spatial.len().checked_add(2)?)
        .then(|| joined(dims.first().copied().flatten(), dims.get(1).copied().flatten(), spatial))
}
