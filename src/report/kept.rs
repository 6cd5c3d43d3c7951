//! Branches that stay apart from the kernels beside them.
//!
//! Stands below the report's data: knows a branch and what merging it would cost, but no report.

use serde::Serialize;

use crate::affine::branch;
use crate::refusal::less_exact;

/// A branch that stays apart from a convolution.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KeptApart {
    /// Taps per spatial axis; `None` for the identity, scaled or not.
    pub kernel: Option<Vec<i64>>,
    /// Signal-to-noise ratio, in dB, that the convolution's int8 weights would have with one
    /// step for all if the branch were merged; `None` if rounding would change nothing.
    pub sqnr_merged: Option<f64>,
    /// The same ratio with the branch apart.
    pub sqnr_apart: Option<f64>,
}

impl KeptApart {
    /// Creates the entry of a branch from its taps and the two ratios.
    pub fn of(kernel: Option<Vec<i64>>, sqnr_merged: Option<f64>, sqnr_apart: Option<f64>) -> Self {
        KeptApart { kernel, sqnr_merged, sqnr_apart }
    }

    /// Says which branch is kept apart, and why.
    pub(crate) fn told(&self) -> String {
        let exact = less_exact(self.sqnr_merged, self.sqnr_apart);
        let branch = branch(self.kernel.as_deref());
        format!("{branch} stays apart: in one kernel, int8 weights would be {exact}")
    }
}
