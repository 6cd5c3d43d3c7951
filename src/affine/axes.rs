//! The order of a tensor's axes: which axis plays which role.
//!
//! Knows permutations of axes; no sizes.

/// The axes of a tensor, listed by role: batch, channels, spatial axes. `[0, 3, 1, 2]` is NHWC;
/// NCHW, of any rank, is canonical.
#[derive(Debug, Clone, Eq, Hash, Default)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "it is what would be derived")]
pub struct AxisOrder(Vec<usize>);

impl PartialEq for AxisOrder {
    /// Compares element by element. Nearly all orders are empty, and comparing zero elements as
    /// bytes makes processors with AVX-512 wait for memory that is not there, for some hundred
    /// cycles.
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

impl AxisOrder {
    /// The canonical order, batch, channels, spatial axes, as ONNX's convolutions have it.
    pub const CANONICAL: AxisOrder = AxisOrder(Vec::new());

    /// The order in which the tensor's axis `axes[i]` plays role `i`. Returns `None` if `axes`
    /// is not a permutation.
    pub fn new(axes: &[i64]) -> Option<Self> {
        let mut axes: Vec<usize> =
            axes.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<_>>()?;
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        if sorted.iter().enumerate().any(|(place, &axis)| place != axis) {
            return None;
        }
        while axes.last().is_some_and(|&axis| axis + 1 == axes.len()) {
            axes.pop();
        }
        Some(AxisOrder(axes))
    }

    /// The order with the channels on axis `channel` and the other axes in their canonical
    /// sequence.
    pub fn with_channels_at(channel: usize) -> Self {
        match channel {
            0 => AxisOrder(vec![1, 0]),
            1 => AxisOrder::CANONICAL,
            _ => AxisOrder([0, channel].into_iter().chain(1..channel).collect()),
        }
    }

    /// Whether the order is canonical (NCHW).
    pub fn is_canonical(&self) -> bool {
        self.0.is_empty()
    }

    /// The tensor's axis that plays role `role`.
    pub fn axis(&self, role: usize) -> usize {
        self.0.get(role).copied().unwrap_or(role)
    }

    /// The role that the tensor's axis `axis` plays.
    pub fn role(&self, axis: usize) -> usize {
        self.0.iter().position(|&at| at == axis).unwrap_or(axis)
    }

    /// The axes of a tensor of rank `rank`, by role.
    pub fn axes(&self, rank: usize) -> Vec<usize> {
        (0..rank).map(|role| self.axis(role)).collect()
    }

    /// The roles of a tensor of rank `rank`, by axis.
    pub fn roles(&self, rank: usize) -> Vec<usize> {
        let mut roles: Vec<usize> = (0..rank).collect();
        for (role, &axis) in self.0.iter().enumerate() {
            if let Some(place) = roles.get_mut(axis) {
                *place = role;
            }
        }
        roles
    }

    /// The number of leading axes up to the last one that is not in its canonical place.
    pub(super) fn reach(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_and_roles_are_inverse() {
        for (axes, canonical) in [
            (&[0, 1, 2, 3][..], true),
            (&[0, 3, 1, 2], false),
            (&[0, 2, 3, 1], false),
            (&[1, 0, 2, 3], false),
        ] {
            let order = AxisOrder::new(axes).unwrap();
            assert_eq!(order.is_canonical(), canonical, "{axes:?}");
            for (role, &axis) in axes.iter().enumerate() {
                assert_eq!((order.axis(role), order.role(axis as usize)), (axis as usize, role));
            }
        }
        assert_eq!(AxisOrder::new(&[0, 3, 1, 2]), Some(AxisOrder::with_channels_at(3)));
        for no_permutation in [&[0, 0][..], &[1, 2], &[-1, 0]] {
            assert_eq!(AxisOrder::new(no_permutation), None);
        }
    }
}
