//! What the axes of a graph input run along, as far as their positions tell: batch, channels,
//! height, width, steps.
//!
//! Knows declarations; does not know which size is chosen.

use crate::onnx::info::AxisSize;

/// A graph input that is fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FedInput {
    /// What the file declares of its axes.
    pub axes: Vec<AxisSize>,
    /// The shape that the caller asks for, if any: it holds whatever is declared.
    pub given: Option<Vec<usize>>,
}

/// What an axis runs along, as far as its position tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    /// Samples.
    Batch,
    /// Colours, features.
    Channels,
    /// One of three spatial axes.
    Depth,
    /// Rows of a picture.
    Height,
    /// Columns of a picture.
    Width,
    /// Anything else: steps, samples, tokens.
    Length,
}

/// Returns whether the file leaves this size to the caller.
pub fn is_open(size: &AxisSize) -> bool {
    !matches!(size, AxisSize::Fixed(size) if *size >= 0)
}

/// Returns whether an axis of this size may hold colours.
fn is_colours(size: &AxisSize) -> bool {
    matches!(size, AxisSize::Fixed(1..=4))
}

/// Returns what an axis of input number `which` runs along.
pub fn along(inputs: &[FedInput], which: usize, axis: usize) -> Along {
    let axes = inputs.get(which).map_or(&[][..], |input| input.axes.as_slice());
    match axes {
        // The state of a recurrent network: layers, batch, channels.
        [layers, _, channels]
            if which > 0
                && axis == 1
                && has_batch(inputs)
                && !is_open(layers)
                && !is_open(channels) =>
        {
            Along::Batch
        }
        // One picture, without a batch.
        [colours, height, width]
            if axis > 0 && is_colours(colours) && is_open(height) && is_open(width) =>
        {
            if axis == 1 { Along::Height } else { Along::Width }
        }
        _ if axis == 0 => Along::Batch,
        [_, second, .., last] if axes.len() > 3 => {
            let channels_last = is_colours(last) && !is_colours(second);
            let spatial = if channels_last { axis.checked_sub(1) } else { axis.checked_sub(2) };
            let spatial = spatial.filter(|&spatial| spatial < axes.len().saturating_sub(2));
            match (spatial, axes.len()) {
                (None, _) => Along::Channels,
                (Some(0), 4) => Along::Height,
                (Some(_), 4) => Along::Width,
                (Some(_), _) => Along::Depth,
            }
        }
        _ => Along::Length,
    }
}

/// Returns whether the first input leaves its first axis open.
fn has_batch(inputs: &[FedInput]) -> bool {
    inputs.first().and_then(|input| input.axes.first()).is_some_and(is_open)
}
