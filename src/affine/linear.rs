//! What can be done with a linear map, with or without weights: composition `∘`, addition `⊕`,
//! and exchanging axes, by the same rules for geometries and for maps with weights.
//!
//! The rules stand in [`rules`](super::rules), on geometries; what they mean for weights is in
//! [`compose`](super::compose).
//!
//! Knows geometries, and no weights.

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
    /// Its channels, windows and axes.
    fn geometry(&self) -> &Geometry;

    /// The same map with its axes in another order: what plays role `i` now is what
    /// played role `roles[i]`, in what it reads and in what it makes. `roles` is a permutation
    /// of `0..n` for an `n` that reaches all axes of the map, with role 1, the channels, in
    /// its place unless the map has none.
    #[must_use]
    fn permuted(&self, roles: &[usize]) -> Self;

    /// As [`Self::after`], where what `inner` makes and `self` reads has its axes in one order.
    ///
    /// # Errors
    /// As [`Self::after`].
    fn composed(&self, inner: &Self) -> Result<Self, Refusal>;

    /// As [`Self::plus`], where both maps read the common input with its axes in one order.
    ///
    /// # Errors
    /// As [`Self::plus`].
    fn added(self, other: &Self, shape: &[Option<i64>]) -> Result<Self, Refusal>;

    /// `−self`.
    #[must_use]
    fn negated(self) -> Self;

    /// What is left to do where `front`, which pads, crops or turns what `self` reads as `self`
    /// does, was done before.
    #[must_use]
    fn behind(&self, front: &Geometry) -> Self;

    /// The map that only pads, crops and turns, as `front` does.
    fn framing(front: Geometry) -> Self;

    /// `self` without its bias.
    #[must_use]
    fn unshifted(self) -> Self;

    /// The bias alone, added to what `self` makes without it; that of one channel is one for all
    /// elements.
    #[must_use]
    fn shift_alone(&self) -> Self;

    /// Of `y = s·x + t`, the shift by `t/s` in front of the scale alone, `y = s·(x + t/s)`, on tensors
    /// with so many spatial `axes`; `y` may be of channels that are picked from `x`.
    ///
    /// # Errors
    /// If it is more than a scale and shift of channels that are picked, or these are more than `x`
    /// has; if some `s` is zero, or one channel that is picked twice is shifted by two numbers.
    fn shift_in_front(&self, axes: usize) -> Result<Self, Refusal>;

    /// Of a scale and shift, one whose channels, along those of `order`, are scaled and shifted
    /// as these `channels` are now.
    #[must_use]
    fn picked(&self, order: &AxisOrder, channels: Option<&PickedChannels>) -> Self;

    /// The same map of tensors of these spatial sizes whose channels are all their elements: a
    /// product, with a row for each element that is made. As many groups keep them apart.
    ///
    /// # Errors
    /// If it is no convolution between NCHW tensors that pads with zeros, or of too many weights.
    fn dense(&self, sizes: &[usize]) -> Result<Self, Refusal>;

    /// The map with these `channels`, that makes what `self` does with what `next` does behind it;
    /// `None` if their windows or axes are not the same.
    fn with_rows_of(&self, next: &Self, channels: Channels) -> Option<Self>;

    /// The map of one `part` of the channels that `self` mixes, without the bias: what `self` makes
    /// is the sum of these, and the bias.
    ///
    /// # Errors
    /// If `self` has groups, or reads another number of channels, or along another axis.
    fn of_part(&self, part: &Part) -> Result<Self, Refusal>;

    /// `self` with these `windows`, which make as many outputs at all sizes at which it is computed.
    #[must_use]
    fn recounted(&self, windows: Vec<Window>) -> Self;

    /// `self`, which makes as many outputs as `other` of the same tensor at all sizes at which both
    /// are computed: with counts that are the same.
    #[must_use]
    fn counting_as(&self, other: &Geometry) -> Self {
        let own = self.geometry();
        let counted = |axis| own.window(axis).counting_as(&other.window(axis));
        self.recounted(own.axes(other).map(counted).collect())
    }

    /// The map of these `squares`, without more.
    fn squares(squares: &Squares) -> Self;

    /// `self ∘ squares`, of what is a whole number of them.
    ///
    /// # Errors
    /// As [`Self::after`].
    fn of_squares(&self, squares: &Squares) -> Result<Self, Refusal> {
        let composed = self.after(&Self::squares(squares))?;
        let windows = composed.geometry().windows.iter().enumerate();
        let windows = windows.map(|(axis, window)| squares.behind(axis, *window)).collect();
        Ok(composed.recounted(windows))
    }

    /// The mean of each window, on every channel.
    fn mean(windows: Vec<Window>) -> Self;

    /// `self` with the axes of what it makes in the order of what it reads.
    #[must_use]
    fn unturned(&self) -> Self;

    /// The same map of channels along those of `order`, of tensors of any rank; it does the same at
    /// every position.
    #[must_use]
    fn along(&self, order: &AxisOrder) -> Self;

    /// `view ∘ self` as `D ∘ view`; this is `D`.
    ///
    /// # Errors
    /// If `self` does not the same at every position, or what it scales or mixes is along no axis of
    /// what the view makes.
    fn beyond(&self, view: &View) -> Result<Self, Refusal> {
        let map = self.geometry();
        if map.mixes_channels() {
            let to = view.outward(map.input.axis(1));
            let to = to.filter(|to| *to == ViewedAxis::alone(to.axis)).ok_or(Refusal::View)?;
            return Ok(self.along(&AxisOrder::with_channels_at(to.axis)));
        }
        map.must_be_diagonal()?;
        // One number for one channel is one for all elements, wherever these go.
        let Some(channels) = map.channels.filter(|channels| channels.outputs != 1) else {
            return Ok(self.picked(&AxisOrder::CANONICAL, None));
        };
        let ViewedAxis { axis, outer, inner } =
            view.outward(map.input.axis(1)).ok_or(Refusal::View)?;
        let spread = PickedChannels::new(outer, 0..channels.outputs, inner)?;
        Ok(self.picked(&AxisOrder::with_channels_at(axis), Some(&spread)))
    }

    /// What `self`, of a whole tensor, does to a part of it.
    ///
    /// # Errors
    /// If `self` is no scale or shift, or not of such a tensor.
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

    /// `self ∘ inner`: first `inner`, then `self`, as one map for inputs of every size. A
    /// batch norm after a convolution (Eq. 2) is one.
    ///
    /// # Errors
    /// If the composition is not one convolution: other channels or axes between the two, a
    /// border that does not pass (`Border`, `BiasAtBorder`, `Borders`), a transposed
    /// convolution with something else than a pointwise map or a crop, or windows too large.
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

    /// The same map with its input in canonical order, if exchanging spatial axes of the
    /// kernel is enough for that.
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

    /// `self ⊕ other`: the sum of both maps as one (Eq. 3), with taps added where they read
    /// the same position, and biases added (Eq. 7).
    ///
    /// `shape` is that of the tensor that both maps read, in its own order of axes; `None` for
    /// sizes that are not known, and `&[]` if none is. Known sizes let in windows that make
    /// as many outputs for these sizes only.
    ///
    /// # Errors
    /// If no single window covers both maps: other strides, numbers of outputs, channels,
    /// borders or axes, a convolution and a transposed one, or windows too large.
    fn plus(self, other: &Self, shape: &[Option<i64>]) -> Result<Self, Refusal> {
        if self.geometry().input == other.geometry().input {
            return self.added(other, shape);
        }
        let (one, other) = self.aligned(other)?;
        one.added(&other, shape)
    }

    /// `self` and `other` with the axes of what they read in one order.
    ///
    /// # Errors
    /// If exchanging spatial axes of their kernels is not enough for that.
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
