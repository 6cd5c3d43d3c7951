//! Shapes of what slides windows over a tensor: convolutions and pools.
//!
//! Along each axis with `n` elements, of windows `(k − 1)·dilation + 1` wide there are
//! `⌊(n + pads − width)/stride⌋ + 1`.
//!
//! Knows attributes and a kernel's dimensions, and no weights.

use crate::facts::shape_rules::asked::{Asked, open};
use crate::facts::shape_rules::extent::{Extent, Extents, known, number};

/// What the attributes say of one axis.
struct ShapeWindow {
    /// From its first element to its last.
    width: Option<i64>,
    stride: i64,
    is_dilated: bool,
    begin: i64,
    end: i64,
}

/// The attribute `auto_pad`.
#[derive(Clone, Copy, PartialEq)]
enum AutoPad {
    NotSet,
    Valid,
    Same,
}

fn auto_pad(asked: &Asked) -> Option<AutoPad> {
    match asked.word("auto_pad") {
        b"" | b"NOTSET" => Some(AutoPad::NotSet),
        b"VALID" => Some(AutoPad::Valid),
        b"SAME_UPPER" | b"SAME_LOWER" => Some(AutoPad::Same),
        _ => None,
    }
}

/// One number per axis; `None` if there are more or fewer.
fn per_axis(asked: &Asked, name: &str, length: usize, default: i64) -> Option<Vec<i64>> {
    match asked.node.ints(name) {
        Some(values) if values.len() == length => Some(values.to_vec()),
        Some([]) | None => Some(vec![default; length]),
        Some(_) => None,
    }
}

fn windows(asked: &Asked, kernel: &[Option<Extent>]) -> Option<Vec<ShapeWindow>> {
    let axes = kernel.len();
    let strides = per_axis(asked, "strides", axes, 1)?;
    let dilations = per_axis(asked, "dilations", axes, 1)?;
    let pads = per_axis(asked, "pads", axes.checked_mul(2)?, 0)?;
    // Beside `auto_pad`, some engines heed pads, and others do not.
    if auto_pad(asked)? != AutoPad::NotSet && pads.iter().any(|&pad| pad != 0) {
        return None;
    }
    let (begins, ends) = pads.split_at_checked(axes)?;
    let sides = begins.iter().zip(ends);
    let all = kernel.iter().zip(strides.iter().zip(&dilations)).zip(sides);
    type Axis<'a> = ((&'a Option<Extent>, (&'a i64, &'a i64)), (&'a i64, &'a i64));
    let window = |((&taps, (&stride, &dilation)), (&begin, &end)): Axis| {
        let width = |taps: i64| taps.checked_sub(1)?.checked_mul(dilation)?.checked_add(1);
        let width = number(taps).and_then(width).filter(|&width| width > 0);
        let is_dilated = dilation != 1;
        (stride > 0).then_some(ShapeWindow { width, stride, is_dilated, begin, end })
    };
    all.map(window).collect()
}

/// Spatial sizes behind windows over `sizes`; `None` for those that are not known.
fn gathered(asked: &Asked, kernel: &[Option<Extent>], sizes: &[Option<Extent>]) -> Extents {
    let (Some(windows), Some(auto)) = (windows(asked, kernel), auto_pad(asked)) else {
        return vec![None; sizes.len()];
    };
    let rounds_up = asked.node.int("ceil_mode", 0) != 0;
    let positions = windows.iter().zip(sizes);
    let behind = |(window, &size): (&ShapeWindow, &Option<Extent>)| match size? {
        Extent::Number(size) => Some(window.positions(size, auto, rounds_up)?.into()),
        name @ Extent::SizeOf(_) => name.plus(window.growth(auto)?),
    };
    positions.map(behind).collect()
}

impl ShapeWindow {
    /// By how many there are more windows than elements, however many these are; `None` if that
    /// depends on them.
    fn growth(&self, auto: AutoPad) -> Option<i64> {
        let pads = self.begin.checked_add(self.end)?;
        let growth = pads.checked_add(1)?.checked_sub(self.width?);
        growth.filter(|_| self.stride == 1 && auto != AutoPad::Same)
    }

    /// How many windows there are over `size` elements.
    fn positions(&self, size: i64, auto: AutoPad, rounds_up: bool) -> Option<i64> {
        if auto == AutoPad::Same {
            // Rounded up, windows with gaps between them may be one more; and ONNX Runtime pads
            // as if none was dilated.
            let is_gapless = || self.width.is_some_and(|width| width >= self.stride);
            let is_agreed_on = !self.is_dilated && (!rounds_up || is_gapless());
            return is_agreed_on.then(|| self.rounded_up(size)).flatten();
        }
        let padded = size.checked_add(self.begin)?.checked_add(self.end)?;
        let way = padded.checked_sub(self.width?).filter(|&way| way >= 0)?;
        let whole = way.checked_div(self.stride)?.checked_add(1)?;
        if !rounds_up || way.checked_rem(self.stride)? == 0 {
            return Some(whole);
        }
        // The last window begins within the input or its left padding. Where it does not,
        // it was counted once and is not any more.
        let is_inside = whole.checked_mul(self.stride)? < size.checked_add(self.begin)?;
        // Nor do all round up without pads.
        let counts = is_inside && auto == AutoPad::NotSet;
        counts.then(|| whole.checked_add(1)).flatten()
    }

    /// `⌈size/stride⌉`
    fn rounded_up(&self, size: i64) -> Option<i64> {
        size.checked_add(self.stride.checked_sub(1)?)?.checked_div(self.stride)
    }
}

/// Batch, channels and spatial sizes.
fn joined(batch: Option<Extent>, channels: Option<Extent>, spatial: Extents) -> Extents {
    [batch, channels].into_iter().chain(spatial).collect()
}

/// The kernel's spatial sizes: its own, or those that an attribute repeats.
fn taps(asked: &Asked, kernel: Option<&[Option<Extent>]>) -> Option<Extents> {
    let own = kernel.and_then(|kernel| kernel.get(2..)).map(<[_]>::to_vec);
    let repeated = asked.node.ints("kernel_shape").filter(|shape| !shape.is_empty());
    let repeated = || Some(known(repeated?));
    own.filter(|own| own.iter().all(|&size| number(size).is_some()))
        .or_else(repeated)
        .or_else(|| open(kernel?.len().checked_sub(2)?))
}

/// Batch and spatial sizes of the input, if they are known; as many as the kernel has.
fn data(asked: &Asked, axes: usize) -> Option<(Option<Extent>, Extents)> {
    let Some(dims) = asked.dims(0) else { return Some((None, open(axes)?)) };
    let (batch, sizes) = (*dims.first()?, dims.get(2..)?);
    (sizes.len() == axes).then(|| (batch, sizes.to_vec()))
}

pub fn conv(asked: &Asked) -> Option<Extents> {
    convolved(asked, 1)
}

pub fn quantized_conv(asked: &Asked) -> Option<Extents> {
    convolved(asked, 3)
}

fn convolved(asked: &Asked, kernel: usize) -> Option<Extents> {
    let kernel = asked.dims(kernel);
    let axes = || asked.dims(0)?.len().checked_sub(2);
    let taps = taps(asked, kernel.as_deref()).or_else(|| open(axes()?))?;
    let (batch, sizes) = data(asked, taps.len())?;
    let channels = kernel.and_then(|kernel| *kernel.first()?);
    Some(joined(batch, channels, gathered(asked, &taps, &sizes)))
}

/// `(n − 1)·stride + output_padding + width − pads`, or as many as `output_shape` says.
pub fn conv_transpose(asked: &Asked) -> Option<Extents> {
    let kernel = asked.dims(1);
    let axes = || asked.dims(0)?.len().checked_sub(2);
    let taps = taps(asked, kernel.as_deref()).or_else(|| open(axes()?))?;
    let (batch, sizes) = data(asked, taps.len())?;
    let groups = asked.node.int("group", 1);
    let channels = kernel.and_then(|kernel| kernel.get(1).copied().flatten());
    let channels = channels.and_then(|width| Some(width.number()?.checked_mul(groups)?.into()));
    Some(joined(batch, channels, scattered(asked, &taps, &sizes)))
}

fn scattered(asked: &Asked, taps: &[Option<Extent>], sizes: &[Option<Extent>]) -> Extents {
    let unknown = || vec![None; sizes.len()];
    if let Some(shape) = asked.node.ints("output_shape").filter(|shape| !shape.is_empty()) {
        // It was said to be the whole shape, once.
        return if shape.len() == sizes.len() { known(shape) } else { unknown() };
    }
    let extra = per_axis(asked, "output_padding", sizes.len(), 0);
    let (Some(windows), Some(extra), Some(auto)) = (windows(asked, taps), extra, auto_pad(asked))
    else {
        return unknown();
    };
    let axes = windows.iter().zip(extra).zip(sizes);
    axes.map(|((window, extra), &size)| Some(window.reached(number(size)?, extra, auto)?.into()))
        .collect()
}

impl ShapeWindow {
    /// How many elements windows at `size` places reach.
    fn reached(&self, size: i64, extra: i64, auto: AutoPad) -> Option<i64> {
        if auto == AutoPad::Same {
            // Elsewhere, it is not agreed on what is the same.
            let is_plain = extra == 0 && self.width? >= self.stride;
            return is_plain.then(|| size.checked_mul(self.stride)).flatten();
        }
        let steps = size.checked_sub(1).filter(|&steps| steps >= 0)?.checked_mul(self.stride)?;
        let all = steps.checked_add(extra)?.checked_add(self.width?)?;
        all.checked_sub(self.begin)?.checked_sub(self.end).filter(|&all| all >= 0)
    }
}

pub fn pool(asked: &Asked) -> Option<Extents> {
    let axes = || asked.dims(0)?.len().checked_sub(2);
    let taps = taps(asked, None).or_else(|| open(axes()?))?;
    let (batch, sizes) = data(asked, taps.len())?;
    let channels = asked.dims(0).and_then(|dims| *dims.get(1)?);
    Some(joined(batch, channels, gathered(asked, &taps, &sizes)))
}

pub fn max_unpool(asked: &Asked) -> Option<Extents> {
    if asked.has(2) {
        return asked.integers(2).or_else(|| open(asked.dims(0)?.len()));
    }
    let taps = taps(asked, None)?;
    let (batch, sizes) = data(asked, taps.len())?;
    let channels = asked.dims(0).and_then(|dims| *dims.get(1)?);
    Some(joined(batch, channels, scattered(asked, &taps, &sizes)))
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

/// As many points as the grid has, each with its coordinates in the last axis.
pub fn grid_sample(asked: &Asked) -> Option<Extents> {
    let (dims, mut grid) = (asked.dims(0)?, asked.dims(1)?);
    grid.pop()?;
    let spatial = grid.get(1..)?.to_vec();
    (dims.len() == spatial.len().checked_add(2)?)
        .then(|| joined(dims.first().copied().flatten(), dims.get(1).copied().flatten(), spatial))
}
