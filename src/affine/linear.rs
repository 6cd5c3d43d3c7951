//! The operations on linear maps, with or without weights: composition `∘`, addition `⊕`, and
//! exchanging axes, by the same rules for geometries and for maps with weights.
//!
//! The rules are in [`rules`](super::rules), on geometries; [`compose`](super::compose) applies
//! them to weights.
//!
//! Knows geometries; no weights.

use crate::affine::axes::AxisOrder;
use crate::affine::geometry::{Channels, Geometry};
use crate::affine::part::Part;
use crate::affine::picked::PickedChannels;
use crate::affine::refusal::Refusal;
use crate::affine::squares::Squares;
use crate::affine::view::{View, ViewedAxis};
use crate::affine::window::Window;

/// A linear map (plus a bias) between feature maps, with or without weights.
pub trait Linear: Clone {
    /// The map's channels, windows and axes.
    fn geometry(&self) -> &Geometry;

    /// The same map with its axes in another order: what plays role `i` now, in its input and
    /// its output, is what played role `roles[i]` before. `roles` is a permutation of `0..n` for
    /// an `n` that covers all axes of the map, with role 1, the channels, in its place unless
    /// the map has no channels.
    #[must_use]
    fn permuted(&self, roles: &[usize]) -> Self;

    /// As [`Self::after`], where the output of `inner` and the input of `self` have the same
    /// axis order.
    ///
    /// # Errors
    /// As [`Self::after`].
    fn composed(&self, inner: &Self) -> Result<Self, Refusal>;

    /// As [`Self::plus`], where both maps read the common input in the same axis order.
    ///
    /// # Errors
    /// As [`Self::plus`].
    fn added(self, other: &Self, shape: &[Option<i64>]) -> Result<Self, Refusal>;

    /// `−self`.
    #[must_use]
    fn negated(self) -> Self;

    /// The part of `self` that is left where `front`, which pads, crops or turns the input as
    /// `self` does, has been applied before.
    #[must_use]
    fn behind(&self, front: &Geometry) -> Self;

    /// The map that only pads, crops and turns, as `front` does.
    fn framing(front: Geometry) -> Self;

    /// `self` without its bias.
    #[must_use]
    fn unshifted(self) -> Self;

    /// The map that only adds the bias of `self`, to the output that `self` has without it. The
    /// bias of a single channel becomes one number for all elements.
    #[must_use]
    fn shift_alone(&self) -> Self;

    /// The shift by `t/s` that stands in front of the scale alone, where `self` is
    /// `y = s·x + t`, so that `y = s·(x + t/s)`, on tensors with `axes` spatial axes. The
    /// channels of `y` may be picked from `x`.
    ///
    /// # Errors
    /// Returns an error if the map does more than scale and shift picked channels, if it picks
    /// more channels than `x` has, if some `s` is zero, or if a channel that is picked twice is
    /// shifted by two different numbers.
    fn shift_in_front(&self, axes: usize) -> Result<Self, Refusal>;

    /// The scale and shift, along the channel axis of `order`, with the picked `channels` of
    /// `self`, itself a scale and shift; without `channels`, one number serves all elements.
    #[must_use]
    fn picked(&self, order: &AxisOrder, channels: Option<&PickedChannels>) -> Self;

    /// The same map on tensors of these spatial sizes with all their elements as channels: a
    /// product with one row per output element. It has as many groups as `self`.
    ///
    /// # Errors
    /// Returns an error unless the map is a convolution between NCHW tensors that pads with
    /// zeros, its output is not empty, and the product has few enough weights.
    fn dense(&self, sizes: &[usize]) -> Result<Self, Refusal>;

    /// The map with these `channels` whose output is that of `self` with that of `next` behind
    /// it. Returns `None` if they differ in more than their channels and biases: in windows,
    /// kinds or axes.
    fn with_rows_of(&self, next: &Self, channels: Channels) -> Option<Self>;

    /// The map of one `part` of the channels that `self` mixes, without the bias: the output of
    /// `self` is the sum of the maps of all parts, plus the bias.
    ///
    /// # Errors
    /// Returns an error if `self` has groups, is a transposed convolution, reads another number
    /// of channels, or has its channels along another axis.
    fn of_part(&self, part: &Part) -> Result<Self, Refusal>;

    /// `self` with these `windows`, which make the same number of outputs at all sizes at which
    /// the map is computed.
    #[must_use]
    fn recounted(&self, windows: Vec<Window>) -> Self;

    /// `self` with windows that count outputs as those of `other` do: both make the same number of
    /// outputs of the same tensor at all sizes at which both are computed.
    #[must_use]
    fn counting_as(&self, other: &Geometry) -> Self {
        let own = self.geometry();
        let counted = |axis| own.window(axis).counting_as(&other.window(axis));
        self.recounted(own.axes(other).map(counted).collect())
    }

    /// The map that these `squares` are, and nothing more.
    fn squares(squares: &Squares) -> Self;

    /// `self ∘ squares`, on inputs that are a whole number of squares.
    ///
    /// # Errors
    /// As [`Self::after`].
    fn of_squares(&self, squares: &Squares) -> Result<Self, Refusal> {
        let composed = self.after(&Self::squares(squares))?;
        let windows = composed.geometry().windows.iter().enumerate();
        let windows = windows.map(|(axis, window)| squares.behind(axis, *window)).collect();
        Ok(composed.recounted(windows))
    }

    /// The map that takes the mean of each window, on every channel.
    fn mean(windows: Vec<Window>) -> Self;

    /// `self` with its output in the axis order of its input.
    #[must_use]
    fn unturned(&self) -> Self;

    /// The same map on tensors of any rank, with its channels along the channel axis of `order`;
    /// `self` does the same at every position.
    #[must_use]
    fn along(&self, order: &AxisOrder) -> Self;

    /// Rewrites `view ∘ self` as `D ∘ view` and returns `D`.
    ///
    /// # Errors
    /// Returns an error if `self` does not do the same at every position, or if the axis along
    /// which it scales or mixes is no axis of the view's output.
    fn beyond(&self, view: &View) -> Result<Self, Refusal> {
        let map = self.geometry();
        if map.mixes_channels() {
            let to = view.outward(map.input.axis(1));
            let to = to.filter(|to| *to == ViewedAxis::alone(to.axis)).ok_or(Refusal::View)?;
            return Ok(self.along(&AxisOrder::with_channels_at(to.axis)));
        }
        map.must_be_diagonal()?;
        // A factor for a single channel applies to all elements, wherever the view takes them.
        let Some(channels) = map.channels.filter(|channels| channels.outputs != 1) else {
            return Ok(self.picked(&AxisOrder::CANONICAL, None));
        };
        let ViewedAxis { axis, outer, inner } =
            view.outward(map.input.axis(1)).ok_or(Refusal::View)?;
        let spread = PickedChannels::new(outer, 0..channels.outputs, inner)?;
        Ok(self.picked(&AxisOrder::with_channels_at(axis), Some(&spread)))
    }

    /// The map that does to one part of a tensor what `self` does to the whole.
    ///
    /// # Errors
    /// Returns an error if `self` is no scale or shift, or has another number of channels than
    /// the whole tensor.
    fn on_part(&self, part: &Part) -> Result<Self, Refusal> {
        let map = self.geometry();
        map.must_be_diagonal()?;
        match map.channels.filter(|_| map.input.axis(1) == part.axis) {
            None => Ok(self.clone()),
            Some(channels) if channels.outputs != part.whole => {
                Err(Refusal::Channels(part.whole, channels.outputs))
            }
            Some(_) => {
                let own = part.start..part.start.saturating_add(part.size);
                Ok(self.picked(&map.input, Some(&PickedChannels::new(1, own, 1)?)))
            }
        }
    }

    /// `self ∘ inner`: first `inner`, then `self`, as one map for inputs of every size, as for a
    /// batch norm after a convolution (Eq. 2).
    ///
    /// # Errors
    /// Returns an error if the composition is not one convolution: different channels or axes
    /// between the two, a border that does not pass (`Border`, `BiasAtBorder`, `Borders`), a
    /// transposed convolution with anything but a pointwise map or a crop, or windows that are
    /// too large.
    fn after(&self, inner: &Self) -> Result<Self, Refusal> {
        let (wanted, given) = (&self.geometry().input, &inner.geometry().output);
        let composed = if wanted == given {
            self.composed(inner)?
        } else if let Ok(roles) = self.geometry().roles_for(wanted, given) {
            self.permuted(&roles).composed(inner)?
        } else {
            self.composed(&inner.permuted(&inner.geometry().roles_for(given, wanted)?))?
        };
        Ok(composed.settled())
    }

    /// The same map with its input in canonical order, if exchanging spatial axes of the kernel
    /// suffices for that; `self` otherwise.
    #[must_use]
    fn settled(self) -> Self {
        let input = &self.geometry().input;
        if input.is_canonical() {
            return self;
        }
        match self.geometry().roles_for(input, &AxisOrder::CANONICAL) {
            Ok(roles) => self.permuted(&roles),
            Err(_) => self,
        }
    }

    /// `self ⊕ other`: the sum of both maps as one (Eq. 3), with taps added where they read the
    /// same position, and biases added (Eq. 7).
    ///
    /// `shape` is the shape of the tensor that both maps read, in its own order of axes: `None`
    /// for each unknown size, and `&[]` if no size is known. Known sizes admit windows that make
    /// as many outputs for these sizes only.
    ///
    /// # Errors
    /// Returns an error if no single window covers both maps: different strides, numbers of
    /// outputs, channels, borders or axes, a convolution and a transposed one, or windows that
    /// are too large.
    fn plus(self, other: &Self, shape: &[Option<i64>]) -> Result<Self, Refusal> {
        if self.geometry().input == other.geometry().input {
            return self.added(other, shape);
        }
        let (one, other) = self.aligned(other)?;
        one.added(&other, shape)
    }

    /// `self` and `other` with their inputs in the same axis order.
    ///
    /// # Errors
    /// Returns an error if exchanging spatial axes of their kernels does not suffice for that.
    fn aligned(self, other: &Self) -> Result<(Self, Self), Refusal> {
        let (mine, theirs) = (&self.geometry().input, &other.geometry().input);
        if mine == theirs {
            return Ok((self, other.clone()));
        }
        if let Ok(roles) = other.geometry().roles_for(theirs, mine) {
            return Ok((self, other.permuted(&roles)));
        }
        let roles = self.geometry().roles_for(mine, theirs)?;
        Ok((self.permuted(&roles), other.clone()))
    }
}
