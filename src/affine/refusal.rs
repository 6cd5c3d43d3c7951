//! Why two maps are not one convolution.
//!
//! Knows axes by their numbers, and neither nodes nor tensors.

/// The reason, with the numbers that disagree. Axes are spatial: 0 is the first
/// after the channels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Different strides never share a sliding window.
    #[error("strides {0} and {1} differ on spatial axis {2}")]
    Strides(i64, i64, usize),
    /// Different numbers of outputs.
    #[error(
        "on spatial axis {axis}, one makes ⌊(n{left:+})/{stride}⌋+1 outputs from n inputs, and the \
         other ⌊(n{right:+})/{stride}⌋+1"
    )]
    Counts {
        /// Spatial axis.
        axis: usize,
        /// Slack of one window.
        left: i64,
        /// Slack of the other.
        right: i64,
        /// Their stride.
        stride: i64,
    },
    /// A window whose place follows from a size that is not known.
    #[error("where a window stands on spatial axis {0} depends on a size that is not known")]
    Unplaced(usize),
    /// Different numbers of channels.
    #[error("the two yield {0} and {1} channels, so one is broadcast onto the other")]
    Channels(usize, usize),
    /// Zero padding of the second map sees zeros where the first would not give zero.
    #[error(
        "zero padding on spatial axis {0} stands where the inner operation would have \
         given something other than zero"
    )]
    Border(usize),
    /// Zero padding of the second map sees zeros where the first has its bias.
    #[error(
        "zero padding on spatial axis {0} stands where the inner operation would have given its bias"
    )]
    BiasAtBorder(usize),
    /// Beyond the border one sees zeros and the other does not, or a reflection of something else.
    #[error("the two see different values beyond the border of spatial axis {0}")]
    Borders(usize),
    /// One works along other axes than the other: channels against width, NCHW against NHWC.
    #[error(
        "the two run along different axes: the channels, or the spatial axes, of one are not those of \
         the other"
    )]
    Axes,
    /// Terms of a sum that are broadcast onto each other.
    #[error(
        "the summands have different numbers of dimensions, so their channels lie on different axes"
    )]
    Ranks,
    /// A view between them, which does not give what one works on an axis of its own.
    #[error("an operator between them rearranges the axes, and mixes the channels with other axes")]
    View,
    /// A convolution and a transposed one.
    #[error("one is a convolution and the other a transposed convolution")]
    Kinds,
    /// A transposed convolution whose output begins or ends beyond all its windows.
    #[error("on spatial axis {0} the output is larger than what a transposed convolution makes")]
    Outgrown(usize),
    /// A shift that would have to be divided by a scale of zero.
    #[error("a channel is scaled by zero")]
    Vanishes,
    /// Shifts that one shift in front of what picks the channels cannot say.
    #[error("a channel is picked twice, and shifted by two numbers")]
    Repeated,
    /// Kernels that would have to be multiplied out at once.
    #[error(
        "one of the two kernels, or their product, has {0} weights: no more than 2²⁵ are multiplied out"
    )]
    Weights(u64),
    /// Kernels whose product would take too long.
    #[error(
        "multiplying the two kernels out takes {0} multiply-adds: no more than 2³⁵ are spent on that"
    )]
    Products(u64),
    /// Numbers beyond anything a network has.
    #[error("the windows on spatial axis {0} are too large")]
    TooLarge(usize),
}
