//! Which axis of a tensor plays which role.
//!
//! Knows a permutation, and no size.

/// The axes of a tensor in canonical order: batch, channels, spatial axes. `[0, 3, 1, 2]`
/// is NHWC; NCHW, of any rank, is canonical.
#[derive(Debug, Clone, Eq, Hash, Default)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "it is what would be derived")]
pub struct AxisOrder(Vec<usize>);

impl PartialEq for AxisOrder {
    /// Element by element: nearly all are empty, and to compare nothing as bytes makes processors
    /// with AVX-512 wait for memory that is not there, some hundred cycles.
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

impl AxisOrder {
    /// Batch, channels, spatial axes: as ONNX's convolutions have it.
    pub const CANONICAL: AxisOrder = AxisOrder(Vec::new());

    /// `axes[i]` is the tensor's axis that plays role `i`. `None` if that is no permutation.
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

    /// Axis `channel` holds the channels; the other axes follow each other.
    pub fn with_channels_at(channel: usize) -> Self {
        match channel {
            0 => AxisOrder(vec![1, 0]),
            1 => AxisOrder::CANONICAL,
            _ => AxisOrder([0, channel].into_iter().chain(1..channel).collect()),
        }
    }

    /// Whether the tensor is NCHW.
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

    /// All axes of a tensor with `rank` axes, by role.
    pub fn axes(&self, rank: usize) -> Vec<usize> {
        (0..rank).map(|role| self.axis(role)).collect()
    }

    /// The roles of all axes of a tensor with `rank` axes.
    pub fn roles(&self, rank: usize) -> Vec<usize> {
        let mut roles: Vec<usize> = (0..rank).collect();
        for (role, &axis) in self.0.iter().enumerate() {
            if let Some(place) = roles.get_mut(axis) {
                *place = role;
            }
        }
        roles
    }

    /// How many axes are not where they are in a canonical tensor, or stand before such a one.
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
