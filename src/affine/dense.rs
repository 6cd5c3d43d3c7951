//! A convolution on tensors of one size as a product over all their elements: `conv` on
//! `[N, C, H, W]` is `dense` on `[N, C·H·W]`, with most weights zero.
//!
//! Knows windows and sizes; does not decide when this pays.

#![allow(
    clippy::indexing_slicing,
    reason = "shapes follow from geometries that were checked before weights are read"
)]

use std::sync::Arc;

use crate::affine::geometry::{Channels, ConvKind, Geometry};
use crate::affine::kernel::{Affine, taps};
use crate::affine::refusal::Refusal;
use crate::affine::window::PadMode;
use crate::numbers;

/// The geometry of [`Linear::dense`](super::Linear::dense), however many weights it has.
pub(super) fn geometry(map: &Geometry, sizes: &[usize]) -> Result<Geometry, Refusal> {
    if map.kind == ConvKind::ConvTranspose {
        return Err(Refusal::Kinds);
    }
    if !map.input.is_canonical() || !map.output.is_canonical() || map.windows.len() > sizes.len() {
        return Err(Refusal::Axes);
    }
    if let Some(axis) = map.windows.iter().position(|window| window.pad_mode != PadMode::Zero) {
        return Err(Refusal::Borders(axis));
    }
    let channels = map.channels.ok_or(Refusal::View)?;
    let made = made(map, sizes).ok_or(Refusal::View)?;
    let all = |channels: usize, sizes: &[usize]| {
        sizes.iter().try_fold(channels, |all, &size| all.checked_mul(size))
    };
    let inputs = all(channels.inputs, sizes).ok_or(Refusal::View)?;
    let outputs = all(channels.outputs, &made).ok_or(Refusal::View)?;
    let channels = Some(Channels { inputs, outputs, groups: channels.groups });
    Ok(Geometry { channels, windows: Vec::new(), ..map.clone() })
}

/// The map [`Linear::dense`](super::Linear::dense) of `map`, where `dense` is its geometry.
pub(super) fn map(map: &Affine, dense: Geometry, sizes: &[usize]) -> Result<Affine, Refusal> {
    let (Some(own), Some(all)) = (map.geometry.channels, dense.channels) else {
        return Err(Refusal::View);
    };
    let made = made(&map.geometry, sizes).ok_or(Refusal::View)?;
    let (read_each, made_each): (usize, usize) = (sizes.iter().product(), made.iter().product());
    let (width, dense_width) = (own.inputs / own.groups, all.inputs / all.groups);
    let taps = taps(&map.geometry.windows);
    let of_channel: usize = taps.iter().product();
    let weights = numbers::all(map);
    let mut kernel = vec![0.0; all.outputs * dense_width];
    for position in 0..made_each {
        for tap in 0..of_channel {
            let Some(read) = read_at(&map.geometry, (position, &made), (tap, &taps), sizes) else {
                continue;
            };
            for output in 0..own.outputs {
                for input in 0..width {
                    let row = (output * made_each + position) * dense_width;
                    let weight = weights[(output * width + input) * of_channel + tap];
                    kernel[row + input * read_each + read] += weight;
                }
            }
        }
    }
    let bias = (0..own.outputs).flat_map(|o| std::iter::repeat_n(map.bias_of(o), made_each));
    Ok(Affine::new(dense, Arc::new(kernel), bias.collect()))
}

/// The spatial sizes of the output of `map` on an input of these `sizes`; `None` if it is empty.
fn made(map: &Geometry, sizes: &[usize]) -> Option<Vec<usize>> {
    let made = |(axis, &size): (usize, &usize)| {
        let made = map.window(axis).outputs(i64::try_from(size).ok()?);
        usize::try_from(made).ok().filter(|&made| made > 0)
    };
    sizes.iter().enumerate().map(made).collect()
}

/// The input position that `map` reads with tap `tap` for output position `position`, all three
/// as flat indices over the spatial axes. Returns `None` beyond the border.
fn read_at(
    map: &Geometry,
    (mut position, made): (usize, &[usize]),
    (mut tap, taps): (usize, &[usize]),
    sizes: &[usize],
) -> Option<usize> {
    let (mut read, mut step) = (0, 1);
    for axis in (0..sizes.len()).rev() {
        let (window, taps) = (map.window(axis), taps.get(axis).copied().unwrap_or(1));
        let (at, of) = ((position % made[axis]) as i64, (tap % taps) as i64);
        let along = at * window.stride + window.offset + of * window.dilation;
        let along = usize::try_from(along).ok().filter(|&along| along < sizes[axis])?;
        (position, tap) = (position / made[axis], tap / taps);
        read += along * step;
        step *= sizes[axis];
    }
    Some(read)
}
