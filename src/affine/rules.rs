//! The rules of `∘` and `⊕`, on geometries: beside each refusal stands the case that it prevents.
//!
//! [`compose`](super::compose) applies them to weights. It refuses one thing more, which only
//! numbers tell: a shift in front of scales of zero, of mixed channels, or of a channel with two
//! shifts.
//!
//! Knows geometries; no weights.

use crate::affine::axes::AxisOrder;
use crate::affine::dense;
use crate::affine::geometry::{Channels, ConvKind, Geometry};
use crate::affine::limits;
use crate::affine::linear::Linear;
use crate::affine::part::Part;
use crate::affine::picked::PickedChannels;
use crate::affine::refusal::Refusal;
use crate::affine::squares::Squares;
use crate::affine::window::Window;

impl Linear for Geometry {
    fn geometry(&self) -> &Geometry {
        self
    }

    fn composed(&self, inner: &Self) -> Result<Self, Refusal> {
        let channels = match (self.channels, inner.channels) {
            (Some(outer), Some(inner)) => {
                if outer.inputs != inner.outputs {
                    return Err(Refusal::Channels(inner.outputs, outer.inputs));
                }
                Some(outer.coarsest(&inner, inner.inputs, outer.outputs))
            }
            (outer, inner) => outer.or(inner),
        };
        let windows = self
            .axes(inner)
            .map(|axis| {
                let outer = self.window(axis);
                // Conv 1×1 with bias, then a padded 3×3: the pad is 0, not the bias.
                let padded = self.kind != ConvKind::ConvTranspose && outer.is_padded();
                if inner.shifted && padded && outer.pad_mode.is_zero() {
                    return Err(Refusal::BiasAtBorder(axis));
                }
                self.composed_window(inner, axis)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let composed = Geometry {
            channels,
            kind: self.joint_kind(inner, &windows),
            windows,
            input: inner.input.clone(),
            output: self.output.clone(),
            shifted: self.shifted || inner.shifted,
        };
        if !self.is_scale() && !inner.is_scale() {
            limits::check_product(self, inner, &composed)?;
        }
        Ok(composed)
    }

    fn added(self, other: &Self, shape: &[Option<i64>]) -> Result<Self, Refusal> {
        if self.output != other.output {
            return Err(Refusal::Axes);
        }
        if (self.kind == ConvKind::ConvTranspose) != (other.kind == ConvKind::ConvTranspose) {
            return Err(Refusal::Kinds);
        }
        let channels = match (self.channels, other.channels) {
            (Some(a), Some(b)) => {
                // [N,8,H,W] + [N,1,H,W] broadcasts.
                if a.outputs != b.outputs {
                    return Err(Refusal::Channels(a.outputs, b.outputs));
                }
                if a.inputs != b.inputs {
                    return Err(Refusal::Channels(a.inputs, b.inputs));
                }
                Some(a.coarsest(&b, a.inputs, a.outputs))
            }
            // Per channel on one side: x + conv(x) needs as many outputs as inputs.
            (Some(a), None) | (None, Some(a)) => {
                if a.outputs != a.inputs {
                    return Err(Refusal::Channels(a.outputs, a.inputs));
                }
                Some(a)
            }
            (None, None) => None,
        };
        let windows = self
            .axes(other)
            .map(|axis| {
                // Two transposed convolutions make equal numbers of outputs for all sizes, or for
                // none.
                let size = match self.kind {
                    ConvKind::Conv | ConvKind::MatMul => {
                        shape.get(self.input.axis(axis + 2)).copied().flatten()
                    }
                    ConvKind::ConvTranspose => None,
                };
                self.window(axis).union(&other.window(axis), size, axis)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (kind, shifted) = (self.joint_kind(other, &windows), self.shifted || other.shifted);
        Ok(Geometry { channels, windows, kind, shifted, ..self })
    }

    fn permuted(&self, roles: &[usize]) -> Self {
        let order = |own: &AxisOrder| {
            let axes: Vec<i64> = roles.iter().map(|&role| own.axis(role) as i64).collect();
            AxisOrder::new(&axes).unwrap_or_else(|| unreachable!("roles reach all axes"))
        };
        let windows = match self.windows.as_slice() {
            [] => Vec::new(),
            _ => roles.iter().skip(2).map(|&role| self.window_of_role(role)).collect(),
        };
        Geometry { windows, input: order(&self.input), output: order(&self.output), ..self.clone() }
    }

    fn with_rows_of(&self, next: &Self, channels: Channels) -> Option<Self> {
        let alike = Geometry { channels: next.channels, shifted: next.shifted, ..self.clone() };
        let shifted = self.shifted || next.shifted;
        let both = Geometry { channels: Some(channels), shifted, ..self.clone() };
        (alike == *next).then_some(both)
    }

    fn unturned(&self) -> Self {
        Geometry { output: self.input.clone(), ..self.clone() }
    }

    fn dense(&self, sizes: &[usize]) -> Result<Self, Refusal> {
        let dense = dense::geometry(self, sizes)?;
        limits::check_weights(dense.weights()).map(|()| dense)
    }

    fn picked(&self, order: &AxisOrder, channels: Option<&PickedChannels>) -> Self {
        let channels = channels.map(|picked| Channels::diagonal(picked.count()));
        Geometry { channels, shifted: self.shifted, ..Geometry::identity() }.within(order)
    }

    fn along(&self, order: &AxisOrder) -> Self {
        Geometry { windows: Vec::new(), ..self.clone() }.within(order)
    }

    fn negated(self) -> Self {
        self
    }

    fn behind(&self, front: &Geometry) -> Self {
        let window = |axis| self.window(axis).behind(&front.window(axis));
        let windows = self.axes(front).map(window).collect();
        Geometry { windows, input: front.output.clone(), ..self.clone() }
    }

    fn framing(front: Geometry) -> Self {
        front
    }

    fn of_part(&self, part: &Part) -> Result<Self, Refusal> {
        let channels =
            self.channels.filter(|channels| channels.groups == 1).ok_or(Refusal::View)?;
        if self.input.axis(1) != part.axis || self.kind == ConvKind::ConvTranspose {
            return Err(Refusal::View);
        }
        if channels.inputs != part.whole {
            return Err(Refusal::Channels(part.whole, channels.inputs));
        }
        let channels = Some(Channels { inputs: part.size, ..channels });
        Ok(Geometry { channels, shifted: false, ..self.clone() })
    }

    fn recounted(&self, windows: Vec<Window>) -> Self {
        Geometry { windows, ..self.clone() }
    }

    fn squares(squares: &Squares) -> Self {
        squares.geometry()
    }

    fn mean(windows: Vec<Window>) -> Self {
        Geometry { windows, ..Geometry::identity() }
    }

    fn unshifted(self) -> Self {
        Geometry { shifted: false, ..self }
    }

    fn shift_in_front(&self, axes: usize) -> Result<Self, Refusal> {
        // If more channels are picked than read, one is picked twice, mostly with two different
        // shifts.
        let picks = |channels: Channels| channels.outputs <= channels.inputs;
        if !(self.mixes_channels() && self.channels.is_some_and(picks)) {
            self.must_be_diagonal()?;
        }
        let read = |channels: Channels| Channels::diagonal(channels.inputs);
        let shift = Geometry { channels: self.channels.map(read), ..self.clone() }.shift_alone();
        Ok(Geometry { windows: vec![Window::IDENTITY; axes], ..shift })
    }

    fn shift_alone(&self) -> Self {
        let channels = self.channels.filter(|channels| channels.outputs != 1);
        let channels = channels.map(|channels| Channels::diagonal(channels.outputs));
        let order = channels.map_or(AxisOrder::CANONICAL, |_| self.output.clone());
        Geometry { channels, shifted: self.shifted, ..Geometry::identity() }.within(&order)
    }
}

impl Geometry {
    /// Whether the map mixes the channels of each position, and nothing else.
    pub(super) fn mixes_channels(&self) -> bool {
        let is_gathered = self.kind != ConvKind::ConvTranspose;
        is_gathered && self.is_pointwise() && !self.is_scale() && self.input == self.output
    }

    /// Checks that the map scales and shifts each element in place, and does nothing else.
    pub(super) fn must_be_diagonal(&self) -> Result<(), Refusal> {
        let is_diagonal = self.kind == ConvKind::Conv && self.is_scale() && self.is_pointwise();
        if is_diagonal && self.input == self.output { Ok(()) } else { Err(Refusal::View) }
    }

    /// The kind of a map with these windows that is made of this one and `other`. A product stays
    /// a product when it is combined with a map of single channels, or with one that pads or
    /// crops.
    fn joint_kind(&self, other: &Geometry, windows: &[Window]) -> ConvKind {
        let is_frame = windows.iter().all(|window| (window.taps, window.stride) == (1, 1));
        let is_bare = |map: &Geometry| map.windows.is_empty() || map.channels.is_none();
        let joins = |map: &Geometry| map.kind == ConvKind::MatMul || is_bare(map);
        match (self.kind, other.kind) {
            (ConvKind::ConvTranspose, _) | (_, ConvKind::ConvTranspose) => ConvKind::ConvTranspose,
            (ConvKind::Conv, ConvKind::Conv) => ConvKind::Conv,
            _ if is_frame && joins(self) && joins(other) => ConvKind::MatMul,
            _ => ConvKind::Conv,
        }
    }

    fn composed_window(&self, inner: &Geometry, axis: usize) -> Result<Window, Refusal> {
        let (outer, inner_window) = (self.window(axis), inner.window(axis));
        match (self.kind, inner.kind) {
            (ConvKind::Conv | ConvKind::MatMul, ConvKind::Conv | ConvKind::MatMul) => {
                outer.after(&inner_window, axis)
            }
            (ConvKind::Conv | ConvKind::MatMul, ConvKind::ConvTranspose) => {
                outer.frame_of_scattered(&inner_window, axis)
            }
            // Scattered, a bias would reach the border less often than the middle.
            (ConvKind::ConvTranspose, ConvKind::ConvTranspose) => Err(Refusal::Kinds),
            (ConvKind::ConvTranspose, _) if !inner.is_pointwise() => Err(Refusal::Kinds),
            (ConvKind::ConvTranspose, _) if inner.shifted => Err(Refusal::BiasAtBorder(axis)),
            (ConvKind::ConvTranspose, _) => Ok(outer),
        }
    }

    fn window_of_role(&self, role: usize) -> Window {
        role.checked_sub(2).map_or(Window::IDENTITY, |axis| self.window(axis))
    }

    /// The roles by which [`Linear::permuted`] changes the axis order `own` of the map's input or
    /// output into the order `wanted`.
    pub(super) fn roles_for(
        &self,
        own: &AxisOrder,
        wanted: &AxisOrder,
    ) -> Result<Vec<usize>, Refusal> {
        let orders = [own, wanted, &self.input, &self.output].map(AxisOrder::reach);
        let roles = orders.into_iter().fold(self.windows.len() + 2, usize::max);
        let own = own.roles(roles);
        let of_wanted = |role| own.get(wanted.axis(role)).copied().unwrap_or(role);
        let roles: Vec<usize> = (0..roles).map(of_wanted).collect();
        let is_free = |role: &usize| self.window_of_role(*role) == Window::IDENTITY;
        match (self.channels, roles.as_slice()) {
            (Some(_), [batch, 1, ..]) if is_free(batch) => Ok(roles),
            (None, [batch, channel, ..]) if is_free(batch) && is_free(channel) => Ok(roles),
            _ => Err(Refusal::Axes),
        }
    }

    pub(super) fn axes(&self, other: &Geometry) -> std::ops::Range<usize> {
        0..self.windows.len().max(other.windows.len())
    }
}
