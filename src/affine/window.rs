//! Where a kernel's taps fall along one spatial axis: the sliding window of Eq. 5, in integers.
//!
//! Knows positions; neither weights nor channels.

use std::ops::Rem;

use crate::affine::refusal::Refusal;

/// The positions of a kernel's taps along one axis: output `o` reads the input at
/// `o·stride + offset + i·dilation` for each tap `i` in `0..taps`; `pad_mode` says what is read
/// outside the input. From `n` inputs come `⌊(n + slack) / stride⌋ + 1` outputs.
///
/// All numbers count elements along the axis; none is beyond ±2²⁴ in a window that was made by
/// [`Window::new`], [`Window::frame`] or [`Window::scattered`]. Kernels correspond by these
/// positions, never by their centres.
///
/// The window of a transposed convolution falls on its output instead: input `o` is added at
/// `o·stride + offset + i·dilation`, what lies outside is dropped, and from `n` inputs come
/// `(n − 1)·stride + slack` outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Number of positions that each output reads, at least 1: the kernel size.
    pub taps: i64,
    /// The position that output 0 reads with tap 0: minus the pad before the input, or the number
    /// of elements that are cropped there.
    pub offset: i64,
    /// The distance between two taps, at least 1.
    pub dilation: i64,
    /// The distance between the windows of two outputs, at least 1.
    pub stride: i64,
    /// For a convolution, both pads minus the kernel's extent, `(taps − 1)·dilation + 1`: what the
    /// output count above adds to the number of inputs. For a transposed convolution, the extent
    /// minus both pads, plus the output padding.
    pub slack: i64,
    /// The values read outside the input; [`PadMode::Zero`] if nothing is read there.
    pub pad_mode: PadMode,
}

/// The values beyond the border of the input, as in the modes of ONNX's Pad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PadMode {
    /// Zeros.
    Zero,
    /// The input, mirrored at its first and last element.
    Reflect,
    /// The first and the last element, repeated.
    Edge,
    /// The input, continued from its other end.
    Wrap,
    /// Zeros, as many as `auto_pad=SAME_UPPER` adds for the size of the input. The size is not
    /// known, so neither is the place of the window; its `offset` is 0.
    SameUpper,
    /// As [`PadMode::SameUpper`], for `SAME_LOWER`.
    SameLower,
}

impl PadMode {
    /// Whether zeros stand beyond the border.
    pub fn is_zero(self) -> bool {
        matches!(self, PadMode::Zero | PadMode::SameUpper | PadMode::SameLower)
    }

    /// Whether the number of elements beyond the border is known.
    pub fn is_placed(self) -> bool {
        !matches!(self, PadMode::SameUpper | PadMode::SameLower)
    }
}

/// Upper bound on the absolute value of every number in a window, so that sums and products of two
/// numbers stay exact.
const LIMIT: i64 = 1 << 24;

impl Window {
    /// The window with one tap: output `o` reads input `o`.
    pub const IDENTITY: Window =
        Window { taps: 1, offset: 0, dilation: 1, stride: 1, slack: -1, pad_mode: PadMode::Zero };

    /// The window of a convolution, pooling or padding with zeros. `pads` are before and behind
    /// the input; negative ones crop.
    ///
    /// Returns `None` if `taps`, `stride` or `dilation` is not positive, or a number is beyond
    /// 2²⁴.
    pub fn new(taps: i64, stride: i64, dilation: i64, pads: (i64, i64)) -> Option<Self> {
        let positive = |v: i64| (1..=LIMIT).contains(&v);
        let bounded = |v: i64| (-LIMIT..=LIMIT).contains(&v);
        let valid = positive(taps)
            && positive(stride)
            && positive(dilation)
            && bounded(pads.0)
            && bounded(pads.1);
        if !valid {
            return None;
        }
        let slack = pads.0 + pads.1 - (taps - 1) * dilation - 1;
        Window { taps, offset: -pads.0, dilation, stride, slack, pad_mode: PadMode::Zero }.bounded()
    }

    /// A window that makes `⌈n/stride⌉` outputs of `n` inputs for an unknown `n`, with zeros on
    /// both sides as `mode` says, [`PadMode::SameUpper`] or [`PadMode::SameLower`]. Returns `None`
    /// as [`Self::new`] does.
    pub fn unplaced(taps: i64, stride: i64, dilation: i64, mode: PadMode) -> Option<Self> {
        let extent = (taps.checked_sub(1)?).checked_mul(dilation)?;
        let window = Window::new(taps, stride, dilation, (0, extent))?;
        let upper = mode == PadMode::SameUpper;
        // Only (n − 1) mod stride matters: the larger it is, the less is padded.
        let before = |rest: i64| {
            let total = (extent - rest).max(0);
            if upper { total / 2 } else { total - total / 2 }
        };
        let (most, least) = (before(0), before(stride - 1));
        Some(if most == least {
            Window { offset: -most, ..window }
        } else {
            Window { pad_mode: mode, ..window }
        })
    }

    /// The window that only pads as `mode` says, or crops where a pad is negative. Returns `None`
    /// as [`Self::new`] does.
    pub fn frame(pads: (i64, i64), mode: PadMode) -> Option<Self> {
        Window::new(1, 1, 1, pads).map(|window| window.padded_by(mode))
    }

    /// This window with `mode` beyond the input, if anything is read there.
    fn padded_by(self, mode: PadMode) -> Self {
        Window { pad_mode: if self.is_padded() { mode } else { PadMode::Zero }, ..self }
    }

    /// The window of a transposed convolution on its output: `pads` are dropped before and behind,
    /// `output_padding` is added behind. Returns `None` as [`Self::new`] does.
    pub fn scattered(
        taps: i64,
        stride: i64,
        dilation: i64,
        pads: (i64, i64),
        output_padding: i64,
    ) -> Option<Self> {
        let window = Window::new(taps, stride, dilation, pads)?;
        let slack = (taps - 1) * dilation + 1 - pads.0 - pads.1;
        Window { slack: slack.checked_add(output_padding)?, pad_mode: PadMode::Zero, ..window }
            .bounded()
    }

    /// The pads and the output padding of a transposed convolution with this window. The pads are
    /// even where an output padding smaller than the stride makes up for that, since not all
    /// engines read uneven ones.
    pub fn scattered_pads(&self) -> ((i64, i64), i64) {
        let (before, behind) = (-self.offset, self.last() + 1 - self.slack);
        let growth = before - behind;
        if before >= 0 && (0..self.stride).contains(&growth) {
            return ((before, before), growth);
        }
        ((before, behind.max(0)), (-behind).max(0))
    }

    /// The window of a transposed convolution of stride 1 on its input, as for a convolution: what
    /// is scattered to `o + offset + i·dilation` is gathered from there, with the taps reversed.
    /// Returns `None` for any other stride.
    pub fn gathered(&self) -> Option<Self> {
        let (offset, slack) = (-self.last(), self.slack - 2);
        (self.stride == 1).then_some(Window { offset, slack, ..*self })
    }

    fn bounded(self) -> Option<Self> {
        let Window { taps, offset, dilation, stride, slack, pad_mode: _ } = self;
        [taps, offset, dilation, stride, slack].iter().all(|v| v.abs() <= LIMIT).then_some(self)
    }

    /// The numbers of elements that are padded before and after the input; negative numbers crop.
    pub fn pads(&self) -> (i64, i64) {
        (-self.offset, self.slack + self.last() + 1)
    }

    /// Whether an output reads beyond the input. Defined for convolutions, like [`Self::pads`] and
    /// [`Self::outputs`].
    pub fn is_padded(&self) -> bool {
        self.pads().0 > 0 || self.pads().1 > 0
    }

    /// The number of outputs for `size` inputs; zero or negative if there are none.
    pub fn outputs(&self, size: i64) -> i64 {
        (size + self.slack).div_euclid(self.stride) + 1
    }

    /// The position of the last tap of output 0.
    pub fn last(&self) -> i64 {
        self.offset + (self.taps - 1) * self.dilation
    }

    /// The window of `self` after `inner`: tap `(i, j)` reads at
    /// `(o·s₁ + a₁ + i·d₁)·s₂ + a₂ + j·d₂`.
    pub(super) fn after(&self, inner: &Window, axis: usize) -> Result<Window, Refusal> {
        if !(self.pad_mode.is_placed() && inner.pad_mode.is_placed()) {
            return match (*self, *inner) {
                (window, Window::IDENTITY) | (Window::IDENTITY, window) => Ok(window),
                _ => Err(Refusal::Unplaced(axis)),
            };
        }
        let (before, behind) = self.pads();
        let mirrors = self.is_padded() && self.pad_mode != PadMode::Zero;
        // The reflection of a kernel's output is no kernel of the reflected input.
        if mirrors && *inner != Window::IDENTITY {
            return Err(Refusal::Border(axis));
        }
        // The zeros would surround values that were not zero beyond their own border.
        if self.is_padded() && inner.pad_mode != PadMode::Zero {
            return Err(Refusal::Borders(axis));
        }
        // Index −1 of the inner map's output is a zero of our padding. It is right only if the
        // inner map gives zero there: all its taps lie before the input. A crop followed by a pad
        // (inner offset > 0) fails here: zeros would stand where the input has data.
        if !mirrors && before > 0 && inner.last() - inner.stride >= 0 {
            return Err(Refusal::Border(axis));
        }
        // The index behind the last output, in the worst case n ≡ −slack − 1 (mod stride):
        // its first tap must lie behind the input.
        if !mirrors && behind > 0 && inner.slack + 1 + inner.offset < 0 {
            return Err(Refusal::Border(axis));
        }
        let steps = (self.dilation * inner.stride, inner.dilation);
        let reach = (self.taps - 1) * steps.0 + (inner.taps - 1) * steps.1;
        let dilation =
            gcd(if self.taps > 1 { steps.0 } else { 0 }, if inner.taps > 1 { steps.1 } else { 0 })
                .max(1);
        Window {
            taps: reach / dilation + 1,
            offset: self.offset * inner.stride + inner.offset,
            dilation,
            stride: self.stride * inner.stride,
            slack: inner.slack + (1 + self.slack) * inner.stride,
            pad_mode: PadMode::Zero,
        }
        .padded_by(if mirrors { self.pad_mode } else { inner.pad_mode })
        .bounded()
        .ok_or(Refusal::TooLarge(axis))
    }

    /// The window that gives `self` when it is composed with `frame`, a pad or crop applied before
    /// it.
    pub(super) fn behind(&self, frame: &Window) -> Window {
        let pad_mode = if frame.is_padded() { PadMode::Zero } else { self.pad_mode };
        let (offset, slack) = (self.offset - frame.offset, self.slack - frame.slack - 1);
        Window { offset, slack, pad_mode, ..*self }
    }

    /// The window of a pad or crop `self` after a transposed convolution `inner`.
    pub(super) fn frame_of_scattered(
        &self,
        inner: &Window,
        axis: usize,
    ) -> Result<Window, Refusal> {
        if *self == Window::IDENTITY {
            return Ok(*inner);
        }
        if self.taps != 1 || self.stride != 1 || self.pad_mode != PadMode::Zero {
            return Err(Refusal::Kinds);
        }
        // The zeros would stand where the transposed convolution has dropped values.
        let (before, behind) = self.pads();
        if (before > 0 && inner.offset < 0) || (behind > 0 && inner.last() + 1 > inner.slack) {
            return Err(Refusal::Border(axis));
        }
        let (offset, slack) = (inner.offset - self.offset, inner.slack + self.slack + 1);
        let window = Window { offset, slack, ..*inner };
        // Output padding is less than the stride or the dilation, and only possible at the end.
        if offset > 0 || window.scattered_pads().1 >= inner.stride.max(inner.dilation) {
            return Err(Refusal::Outgrown(axis));
        }
        window.bounded().ok_or(Refusal::TooLarge(axis))
    }

    /// The union of both windows' taps. For an unknown `size` the slacks must be equal; for a
    /// known one, equal numbers of outputs suffice.
    pub(super) fn union(
        &self,
        other: &Window,
        size: Option<i64>,
        axis: usize,
    ) -> Result<Window, Refusal> {
        // Stride 2 and 1 on an input of 4: outputs 0, 1 read 0, 2 and 0, 1.
        if self.stride != other.stride {
            return Err(Refusal::Strides(self.stride, other.stride, axis));
        }
        if !(self.pad_mode.is_placed() && other.pad_mode.is_placed()) {
            let is_alike = self == other;
            return is_alike.then_some(*self).ok_or(Refusal::Unplaced(axis));
        }
        let same_count = match size {
            None => self.slack == other.slack,
            Some(size) => self.outputs(size) == other.outputs(size),
        };
        // One output against many would be broadcast, not added tap by tap.
        if !same_count {
            let (left, right, stride) = (self.slack, other.slack, self.stride);
            return Err(Refusal::Counts { axis, left, right, stride });
        }
        let pad_mode = match (self.is_padded(), other.is_padded()) {
            (true, true) if self.pad_mode != other.pad_mode => return Err(Refusal::Borders(axis)),
            (true, _) => self.pad_mode,
            (false, _) => other.pad_mode,
        };
        let offset = self.offset.min(other.offset);
        let dilation = [
            if self.taps > 1 { self.dilation } else { 0 },
            if other.taps > 1 { other.dilation } else { 0 },
            self.offset - offset,
            other.offset - offset,
        ]
        .into_iter()
        .fold(0, gcd)
        .max(1);
        let taps = (self.last().max(other.last()) - offset) / dilation + 1;
        let (stride, slack) = (self.stride, self.slack);
        let union = Window { taps, offset, dilation, stride, slack, pad_mode };
        match size {
            Some(size) if self.slack != other.slack => union.evened(size),
            _ => union,
        }
        .padded_by(pad_mode)
        .bounded()
        .ok_or(Refusal::TooLarge(axis))
    }

    /// This window, which makes the same number of outputs as `other` at every size at which both
    /// are computed: with the smaller slack, if both have the same stride.
    pub(super) fn counting_as(self, other: &Window) -> Self {
        let is_alike =
            self.stride == other.stride && (self.slack - other.slack).abs() < self.stride;
        let zeros = [self, *other].iter().all(|window| window.pad_mode == PadMode::Zero);
        let slack = self.slack.min(other.slack);
        if is_alike && zeros { Window { slack, ..self } } else { self }
    }

    /// The window that makes the same number of outputs for `size` inputs, with a pad at the end
    /// as close as possible to the pad at the beginning, or to zero where that crops. What no
    /// output reads can be chosen freely.
    fn evened(self, size: i64) -> Self {
        let least = self.slack - (size + self.slack).rem_euclid(self.stride);
        let even = (-self.offset).max(0) - self.last() - 1;
        Window { slack: even.clamp(least, least + self.stride - 1), ..self }
    }

    /// The place of the taps of `part` in the kernel of `self`, which covers it: the index of the
    /// first tap and the distance to the next.
    pub(super) fn place(&self, part: &Window) -> (usize, usize) {
        let first = (part.offset - self.offset) / self.dilation;
        let spacing = if part.taps > 1 { part.dilation / self.dilation } else { 1 };
        (first as usize, spacing as usize)
    }
}

/// The greatest common divisor of two non-negative numbers; of `a` and 0 it is `a`.
pub(super) fn gcd<N: Copy + Default + PartialEq + Rem<Output = N>>(a: N, b: N) -> N {
    if b == N::default() { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(taps: i64, stride: i64, dilation: i64, pads: (i64, i64)) -> Window {
        Window::new(taps, stride, dilation, pads).unwrap()
    }

    #[test]
    fn counts_follow_the_operator_definition() {
        for (window, size, outputs) in [
            (conv(3, 1, 1, (1, 1)), 7, 7),
            (conv(3, 2, 1, (1, 1)), 7, 4),
            (conv(3, 2, 1, (1, 1)), 8, 4),
            (conv(3, 1, 2, (0, 0)), 7, 3),
            (conv(1, 1, 1, (-1, -2)), 7, 4),
            (conv(5, 1, 1, (0, 0)), 4, 0),
        ] {
            assert_eq!(window.outputs(size), outputs, "{window:?}");
        }
    }

    #[test]
    fn pads_come_back() {
        for pads in [(0, 0), (1, 2), (-1, 0), (3, -2)] {
            assert_eq!(conv(3, 2, 2, pads).pads(), pads);
        }
    }

    #[test]
    fn unions_by_position() {
        for (case, a, b, expected) in [
            ("1 in 3", conv(3, 1, 1, (1, 1)), conv(1, 1, 1, (0, 0)), Some((3, -1, 1))),
            ("cropped arm", conv(3, 1, 1, (0, 0)), conv(1, 1, 1, (-1, -1)), Some((3, 0, 1))),
            ("shifted arm", conv(3, 1, 1, (1, 1)), conv(1, 1, 1, (-1, 1)), Some((3, -1, 1))),
            ("arm outside", conv(3, 1, 1, (1, 1)), conv(1, 1, 1, (2, -2)), Some((4, -2, 1))),
            ("dilated in large", conv(7, 1, 1, (3, 3)), conv(3, 1, 2, (2, 2)), Some((7, -3, 1))),
            ("both dilated", conv(3, 1, 2, (2, 2)), conv(1, 1, 1, (0, 0)), Some((3, -2, 2))),
            ("strides", conv(3, 1, 1, (1, 1)), conv(3, 2, 1, (1, 1)), None),
            ("counts", conv(3, 1, 1, (1, 1)), conv(3, 1, 1, (0, 0)), None),
        ] {
            let union = a.union(&b, None, 0).ok().map(|w| (w.taps, w.offset, w.dilation));
            assert_eq!(union, expected, "{case}");
        }
    }

    #[test]
    fn a_known_size_lets_other_slacks_in() {
        let (same, valid) = (conv(3, 2, 1, (0, 1)), conv(3, 2, 1, (0, 0)));
        assert!(same.union(&valid, None, 0).is_err());
        assert!(same.union(&valid, Some(8), 0).is_err());
        assert_eq!(same.union(&valid, Some(7), 0).unwrap().outputs(7), 3);
    }

    #[test]
    fn borders_decide_compositions() {
        let pad = conv(1, 1, 1, (1, 1));
        let crop = conv(1, 1, 1, (-1, -1));
        for (case, outer, inner, ok) in [
            ("conv after pad", conv(3, 1, 1, (0, 0)), pad, true),
            ("padded conv after pad", conv(3, 1, 1, (1, 1)), pad, true),
            ("conv after crop", conv(3, 1, 1, (0, 0)), crop, true),
            ("crop then pad", pad, crop, false),
            ("pad then crop", crop, pad, true),
            ("padded 3 after 1", conv(3, 1, 1, (1, 1)), Window::IDENTITY, true),
            ("padded 1 after 3", conv(1, 1, 1, (1, 1)), conv(3, 1, 1, (0, 0)), false),
            ("padded 3 after padded 3", conv(3, 1, 1, (1, 1)), conv(3, 1, 1, (1, 1)), false),
        ] {
            assert_eq!(outer.after(&inner, 0).is_ok(), ok, "{case}");
        }
    }

    #[test]
    fn borders_other_than_zero_stay_what_they_are() {
        let frame = |pad, mode| Window::frame((pad, pad), mode).unwrap();
        let (valid, same) = (conv(3, 1, 1, (0, 0)), conv(3, 1, 1, (1, 1)));
        let reflected = valid.after(&frame(1, PadMode::Reflect), 0).unwrap();
        assert_eq!(reflected, Window { pad_mode: PadMode::Reflect, ..same });
        // A crop of a larger reflection is a smaller one.
        let cropped = conv(1, 1, 1, (-1, -1)).after(&frame(2, PadMode::Reflect), 0).unwrap();
        assert_eq!(cropped, frame(1, PadMode::Reflect));
        assert_eq!(frame(0, PadMode::Reflect), Window::IDENTITY);
        for (case, outer, inner) in [
            ("zeros around reflections", same, frame(1, PadMode::Reflect)),
            ("reflected result", frame(1, PadMode::Wrap), same),
            ("reflected crop", frame(1, PadMode::Edge), conv(1, 1, 1, (-1, -1))),
        ] {
            assert!(outer.after(&inner, 0).is_err(), "{case}");
        }
        assert_eq!(reflected.union(&same, None, 0), Err(Refusal::Borders(0)));
        assert_eq!(reflected.union(&Window::IDENTITY, None, 0), Ok(reflected));
    }
}
