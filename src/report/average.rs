//! How large fused kernels are by position, on the average of those of one size.
//!
//! Data only.

use crate::affine::times;

/// The paper's matrix `A` of the kernels of one size.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Average {
    /// Taps per spatial axis.
    pub kernel: Vec<usize>,
    /// Before, and of how many kernels.
    pub before: Option<(Vec<f64>, usize)>,
    /// After.
    pub after: Vec<f64>,
    /// Of how many kernels.
    pub layers: usize,
}

impl Average {
    /// The size in words, as in `3×3`.
    pub fn size(&self) -> String {
        times(&self.kernel)
    }
}
