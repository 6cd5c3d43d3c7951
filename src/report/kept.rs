//! Branches that stay apart from the kernels beside them.
//!
//! Stands below the data: it knows a branch and what it would cost, and no report.

use serde::Serialize;

use crate::affine::branch;
use crate::refusal::less_exact;

/// A branch that stays apart from a convolution.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KeptApart {
    /// Its taps per spatial axis; `None` of the identity, scaled or not.
    pub kernel: Option<Vec<i64>>,
    /// The signal-to-noise ratio of the convolution's int8 weights in dB, with one step for all,
    /// if the branch were merged; `None` if rounding would change nothing.
    pub sqnr_merged: Option<f64>,
    /// The same as it is.
    pub sqnr_apart: Option<f64>,
}

impl KeptApart {
    /// What is kept apart and why.
    pub fn of(kernel: Option<Vec<i64>>, sqnr_merged: Option<f64>, sqnr_apart: Option<f64>) -> Self {
        KeptApart { kernel, sqnr_merged, sqnr_apart }
    }

    /// The same in words.
    pub(crate) fn told(&self) -> String {
        let exact = less_exact(self.sqnr_merged, self.sqnr_apart);
        let branch = branch(self.kernel.as_deref());
        format!("{branch} stays apart: in one kernel, int8 weights would be {exact}")
    }
}
