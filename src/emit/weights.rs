//! New weights, computed in float64 and rounded once to the model's type when they are read: piece
//! by piece, so that a model of any size needs little memory.
//!
//! Knows numbers and the format's types; neither maps nor nodes.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::affine::EachPiece;
use crate::numbers::{self, LazyWeights};
use crate::onnx::float::Float;
use crate::onnx::proto::TensorProto;
use crate::onnx::tensor;

/// A new initializer, whose numbers are computed when they are asked for.
#[derive(Debug, Clone)]
pub struct FusedWeights {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<i64>,
    /// Its type.
    pub float: Float,
    /// Its numbers, before rounding.
    pub numbers: Arc<dyn LazyWeights>,
}

/// The error of a fused weight that is too large for the model's type, or NaN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a weight of `{tensor}` is not finite in the model's type")]
pub struct NotFinite {
    /// The tensor that would hold it.
    pub tensor: String,
}

/// Upper bound on the weights of a tensor that is computed immediately: that is cheaper than
/// deferring it.
const SMALL: usize = 1 << 12;

/// Reads pieces of weights in parallel, on all processors.
#[derive(Debug, Clone, Copy)]
pub struct InParallel;

impl EachPiece for InParallel {
    fn each<T: Send>(
        &self,
        pieces: Vec<Range<usize>>,
        read: impl Fn(Range<usize>) -> T + Sync,
    ) -> Vec<T> {
        pieces.into_par_iter().map(&read).collect()
    }
}

impl FusedWeights {
    /// The tensor `name` that holds `numbers`.
    ///
    /// # Errors
    /// Returns an error if a number that is computed already is not finite in type `float`.
    pub fn new(
        name: &str,
        dims: &[usize],
        float: Float,
        numbers: Arc<dyn LazyWeights>,
    ) -> Result<Self, NotFinite> {
        let dims = dims.iter().map(|&dim| dim as i64).collect();
        let mut weights = FusedWeights { name: name.to_owned(), dims, float, numbers };
        if weights.numbers.count() <= SMALL {
            weights.numbers = Arc::new(weights.read(0..weights.numbers.count())?);
        }
        Ok(weights)
    }

    /// The tensor without its data.
    pub fn header(&self) -> TensorProto {
        tensor::header(&self.name, &self.dims, self.float.to_onnx())
    }

    /// Number of bytes of its data.
    pub fn length(&self) -> usize {
        self.numbers.count().saturating_mul(self.float.size())
    }

    /// The ranges of its numbers that are best computed at a time.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (count, rows) = (self.numbers.count(), self.dims.first().copied().unwrap_or(1));
        numbers::pieces(count, count.checked_div(rows.unsigned_abs() as usize).unwrap_or(0))
    }

    /// The numbers of one piece, before rounding.
    ///
    /// # Errors
    /// Returns an error if one of them is not finite when it is rounded.
    pub fn read(&self, piece: Range<usize>) -> Result<Vec<f64>, NotFinite> {
        let exact = numbers::read(self.numbers.as_ref(), piece);
        if !self.float.holds(&exact) {
            return Err(NotFinite { tensor: self.name.clone() });
        }
        Ok(exact)
    }

    /// The data of one piece, rounded.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn rounded(&self, piece: Range<usize>) -> Result<Vec<u8>, NotFinite> {
        Ok(self.float.encode(&self.read(piece)?))
    }
}
