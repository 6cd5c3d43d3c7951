//! The average magnitude, by position, of the fused kernels of one size.
//!
//! Knows numbers; does not compute them.

use crate::affine::times;

/// The paper's matrix `A`, the average over the kernels of one size.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Average {
    /// Taps per spatial axis.
    pub kernel: Vec<usize>,
    /// The matrix before fusing, and the number of kernels that it averages; `None` if there are
    /// none.
    pub before: Option<(Vec<f64>, usize)>,
    /// The matrix after fusing.
    pub after: Vec<f64>,
    /// Number of kernels that `after` averages.
    pub layers: usize,
}

impl Average {
    /// Returns the size in words, as in `3×3`.
    pub fn size(&self) -> String {
        times(&self.kernel)
    }
}
