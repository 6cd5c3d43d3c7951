//! Weights, wherever they lie: read in pieces, so that a kernel of any size is fused in
//! little memory.

use std::fmt::Debug;

/// Numbers in a row, as float64.
pub trait Numbers: Debug + Send + Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// Puts those from `start` on into all of `into`. Both lie within [`Self::count`].
    fn read(&self, start: usize, into: &mut [f64]);
}

impl Numbers for Vec<f64> {
    fn count(&self) -> usize {
        self.len()
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        into.copy_from_slice(&self[start..start + into.len()]);
    }
}

/// All of them.
pub fn all(numbers: &dyn Numbers) -> Vec<f64> {
    let mut all = vec![0.0; numbers.count()];
    numbers.read(0, &mut all);
    all
}
