//! The magnitudes of the values of a stored tensor, row by row, without keeping the values:
//! what a plan needs before weights are read.
//!
//! Knows types and stored bytes; which magnitudes are too large is decided by the plan.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::numbers::larger;
use crate::onnx::data::{Problem, TensorError, check_data, named, raw};
use crate::onnx::float::Float;
use crate::onnx::proto::TensorProto;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// The extreme magnitudes of the values of a tensor, by rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extremes {
    /// The largest magnitude of all values; NaN if one is NaN.
    pub most: f64,
    /// The smallest of the rows' largest magnitudes, all-zero rows left out; infinite if there
    /// are no other rows.
    pub least: f64,
    /// Whether a row is all zeros.
    pub has_zeros: bool,
}

impl Extremes {
    /// The extremes of no rows.
    const NONE: Extremes = Extremes { most: 0.0, least: f64::INFINITY, has_zeros: false };

    /// Adds one more row, whose largest magnitude is `largest`.
    fn with_row(self, largest: f64) -> Self {
        Extremes {
            most: larger(self.most, largest),
            least: if largest > 0.0 { self.least.min(largest) } else { self.least },
            has_zeros: self.has_zeros || largest == 0.0,
        }
    }

    /// Joins the extremes of two sets of rows.
    fn joined(self, other: Self) -> Self {
        Extremes {
            most: larger(self.most, other.most),
            least: self.least.min(other.least),
            has_zeros: self.has_zeros || other.has_zeros,
        }
    }
}

/// The number of values per parallel task, rounded up to whole rows.
const AT_A_TIME: usize = 1 << 16;

/// Returns the extremes of a float tensor whose rows have `row` elements, in one pass over its
/// bytes; raw data is not widened for that.
///
/// # Errors
/// Same as [`tensor::floats`].
pub fn extremes(
    tensor: &TensorProto,
    storage: &Storage,
    row: usize,
) -> Result<Extremes, TensorError> {
    let read = || -> Result<Option<Extremes>, Problem> {
        check_data(tensor, storage)?;
        let Some(bytes) = raw(tensor, storage)? else { return Ok(None) };
        let found = match Float::from_onnx(tensor.data_type()) {
            Some(Float::F16) => of_bits(
                &bytes,
                row,
                |b| u16::from_le_bytes(b) & 0x7fff,
                |bits| f16::from_bits(bits).to_f64(),
            ),
            Some(Float::Bf16) => of_bits(
                &bytes,
                row,
                |b| u16::from_le_bytes(b) & 0x7fff,
                |bits| bf16::from_bits(bits).to_f64(),
            ),
            Some(Float::F32) => of_bits(
                &bytes,
                row,
                |b| u32::from_le_bytes(b) & (u32::MAX >> 1),
                |bits| f32::from_bits(bits).into(),
            ),
            Some(Float::F64) => {
                of_bits(&bytes, row, |b| u64::from_le_bytes(b) & (u64::MAX >> 1), f64::from_bits)
            }
            None => return Err(Problem::Type(tensor.data_type())),
        };
        storage.has_read(bytes.len());
        Ok(Some(found))
    };
    if let Some(found) = read().map_err(|problem| named(tensor, problem))? {
        return Ok(found);
    }
    let values: Vec<f64> = tensor::floats(tensor, storage)?.into_iter().map(f64::abs).collect();
    let rows = values.chunks(row.max(1)).map(|row| row.iter().copied().fold(0.0, larger));
    Ok(rows.fold(Extremes::NONE, Extremes::with_row))
}

/// Returns the extremes of raw data, compared as `bits` without the sign: these are ordered as
/// the magnitudes are, with infinity and NaN at the end. `value` converts them to a number.
fn of_bits<const N: usize, B: Copy + Default + Ord>(
    bytes: &[u8],
    row: usize,
    bits: impl Fn([u8; N]) -> B + Sync,
    value: impl Fn(B) -> f64 + Sync,
) -> Extremes {
    let (numbers, _) = bytes.as_chunks::<N>();
    let row = row.max(1);
    let of_rows = |numbers: &[[u8; N]]| {
        let rows = numbers.chunks(row);
        let largest =
            rows.map(|row| row.iter().map(|&number| bits(number)).fold(B::default(), B::max));
        largest.fold(Extremes::NONE, |found, largest| found.with_row(value(largest)))
    };
    if numbers.len() <= AT_A_TIME {
        return of_rows(numbers);
    }
    let whole_rows = row.saturating_mul(AT_A_TIME.div_ceil(row));
    let parts = numbers.par_chunks(whole_rows).map(of_rows);
    parts.reduce(|| Extremes::NONE, Extremes::joined)
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn};

    use super::*;
    use crate::onnx::tensor::{from_floats, header};

    /// Values, the length of a row, the largest magnitude, the smallest of the rows' largest,
    /// and whether a row is all zeros.
    #[test]
    fn extremes_are_those_of_rows() {
        type Case<'c> = (&'c [f64], usize, f64, f64, bool);
        let cases: [Case; 4] = [
            (&[1.0, -2.0, 0.5, 0.25], 2, 2.0, 0.5, false),
            (&[1.0, -2.0, 0.0, 0.0], 2, 2.0, 2.0, true),
            (&[0.0, 0.0], 1, 0.0, f64::INFINITY, true),
            (&[1.0, f64::NEG_INFINITY], 1, f64::INFINITY, 1.0, false),
        ];
        for (values, row, most, least, has_zeros) in cases {
            for float in [Float::F16, Float::Bf16, Float::F32, Float::F64] {
                let array = ArrayD::from_shape_vec(IxDyn(&[values.len()]), values.to_vec());
                let tensor = from_floats("w", &array.unwrap(), float);
                let found = extremes(&tensor, &Storage::default(), row).unwrap();
                assert_eq!(found, Extremes { most, least, has_zeros }, "{values:?} {float}");
            }
        }
        // In parallel, too: 1 to 70,000, and a row of zeros.
        let numbers: Vec<f64> = (0..=70_000).map(f64::from).collect();
        let array = ArrayD::from_shape_vec(IxDyn(&[numbers.len()]), numbers).unwrap();
        let found = extremes(&from_floats("w", &array, Float::F32), &Storage::default(), 1);
        assert_eq!(found.unwrap(), Extremes { most: 70_000.0, least: 1.0, has_zeros: true });
        let typed = TensorProto {
            float_data: vec![f32::NAN, 1.0],
            raw_data: None,
            ..header("w", &[2], Float::F32.to_onnx())
        };
        assert!(extremes(&typed, &Storage::default(), 1).unwrap().most.is_nan());
    }
}
