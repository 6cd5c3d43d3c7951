//! Why two maps are not one convolution.
//!
//! Knows axes by their numbers; neither nodes nor tensors.

/// The reason, with the numbers that disagree. Axes are spatial: 0 is the first axis after the
/// channels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Different strides, which never share a sliding window.
    #[error("strides {0} and {1} differ on spatial axis {2}")]
    Strides(i64, i64, usize),
    /// Different numbers of outputs.
    #[error(
        "on spatial axis {axis}, one makes ⌊(n{left:+})/{stride}⌋+1 outputs from n inputs, and the \
         other ⌊(n{right:+})/{stride}⌋+1"
    )]
    Counts {
        /// The spatial axis.
        axis: usize,
        /// Slack of one window.
        left: i64,
        /// Slack of the other.
        right: i64,
        /// Their stride.
        stride: i64,
    },
    /// A window whose place depends on an unknown size.
    #[error("where a window stands on spatial axis {0} depends on a size that is not known")]
    Unplaced(usize),
    /// Different numbers of channels.
    #[error("the two yield {0} and {1} channels, so one is broadcast onto the other")]
    Channels(usize, usize),
    /// Zero padding of the second map, where the first would have given something other than zero.
    #[error(
        "zero padding on spatial axis {0} stands where the inner operation would have \
         given something other than zero"
    )]
    Border(usize),
    /// Zero padding of the second map, where the first would have given its bias.
    #[error(
        "zero padding on spatial axis {0} stands where the inner operation would have given its bias"
    )]
    BiasAtBorder(usize),
    /// Different borders: beyond them one map sees zeros and the other does not, or they see
    /// reflections of different tensors.
    #[error("the two see different values beyond the border of spatial axis {0}")]
    Borders(usize),
    /// Different axes: channels against width, NCHW against NHWC.
    #[error(
        "the two run along different axes: the channels, or the spatial axes, of one are not those of \
         the other"
    )]
    Axes,
    /// Terms of a sum of different ranks, which are broadcast onto each other.
    #[error(
        "the summands have different numbers of dimensions, so their channels lie on different axes"
    )]
    Ranks,
    /// A view between the maps that does not keep the axis of one of them apart from others.
    #[error("an operator between them rearranges the axes, and mixes the channels with other axes")]
    View,
    /// A convolution and a transposed one.
    #[error("one is a convolution and the other a transposed convolution")]
    Kinds,
    /// A transposed convolution whose output begins or ends beyond all its windows.
    #[error("on spatial axis {0} the output is larger than what a transposed convolution makes")]
    Outgrown(usize),
    /// A shift in front of a scale of zero, by which it would have to be divided.
    #[error("a channel is scaled by zero")]
    Vanishes,
    /// Shifts behind picked channels that no single shift in front of the picking can express.
    #[error("a channel is picked twice, and shifted by two numbers")]
    Repeated,
    /// A kernel with too many weights to be multiplied out.
    #[error(
        "one of the two kernels, or their product, has {0} weights: no more than 2²⁵ are multiplied out"
    )]
    Weights(u64),
    /// A product of kernels that would take too long.
    #[error(
        "multiplying the two kernels out takes {0} multiply-adds: no more than 2³⁵ are spent on that"
    )]
    Products(u64),
    /// A window with numbers beyond those of any network.
    #[error("the windows on spatial axis {0} are too large")]
    TooLarge(usize),
}
