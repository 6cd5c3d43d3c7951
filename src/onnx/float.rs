//! The floating point types of stored numbers: rounding, and conversion from and to bytes.
//!
//! Floats of any width are widened to `f64` on reading, and rounded once on writing. Knows
//! numbers and bytes, no tensor.

use std::fmt;

use half::{bf16, f16};

use crate::onnx::proto::tensor_proto::DataType;

/// A floating point type that weights can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Float {
    /// IEEE binary16.
    F16,
    /// bfloat16: the upper half of IEEE binary32.
    Bf16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
}

impl Float {
    /// Returns the type with number `data_type` in `TensorProto.DataType`, if it is one of these.
    pub fn from_onnx(data_type: i32) -> Option<Self> {
        match DataType::try_from(data_type).ok()? {
            DataType::Float16 => Some(Float::F16),
            DataType::Bfloat16 => Some(Float::Bf16),
            DataType::Float => Some(Float::F32),
            DataType::Double => Some(Float::F64),
            _ => None,
        }
    }

    /// Returns the number of the type in `TensorProto.DataType`.
    pub fn to_onnx(self) -> i32 {
        let data_type = match self {
            Float::F16 => DataType::Float16,
            Float::Bf16 => DataType::Bfloat16,
            Float::F32 => DataType::Float,
            Float::F64 => DataType::Double,
        };
        data_type.into()
    }

    /// Returns the value of this type that is nearest to `value` (ties to even), widened again.
    pub fn round(self, value: f64) -> f64 {
        match self {
            Float::F16 => round_to_f16(value).to_f64(),
            Float::Bf16 => round_to_bf16(value).to_f64(),
            Float::F32 => f64::from(value as f32),
            Float::F64 => value,
        }
    }

    /// Whether all values are still finite when rounded to this type.
    pub fn holds(self, values: &[f64]) -> bool {
        // No early exit, so that several values are tested at a time.
        let all = |is_finite: fn(f64) -> bool| {
            values.iter().fold(true, |all, &value| all & is_finite(value))
        };
        match self {
            Float::F16 => all(|value| round_to_f16(value).is_finite()),
            Float::Bf16 => all(|value| round_to_bf16(value).is_finite()),
            Float::F32 => all(|value| (value as f32).is_finite()),
            Float::F64 => all(f64::is_finite),
        }
    }

    /// Returns the largest finite value.
    pub fn largest(self) -> f64 {
        match self {
            Float::F16 => f16::MAX.to_f64(),
            Float::Bf16 => bf16::MAX.to_f64(),
            Float::F32 => f32::MAX.into(),
            Float::F64 => f64::MAX,
        }
    }

    /// Returns the smallest positive normal value, which still has full precision.
    pub fn smallest_normal(self) -> f64 {
        match self {
            Float::F16 => f16::MIN_POSITIVE.to_f64(),
            Float::Bf16 => bf16::MIN_POSITIVE.to_f64(),
            Float::F32 => f32::MIN_POSITIVE.into(),
            Float::F64 => f64::MIN_POSITIVE,
        }
    }

    /// Returns the unit roundoff: the largest rounding error of a value between 1 and 2.
    pub fn unit(self) -> f64 {
        match self {
            Float::F16 => f16::EPSILON.to_f64() / 2.0,
            Float::Bf16 => bf16::EPSILON.to_f64() / 2.0,
            Float::F32 => f64::from(f32::EPSILON) / 2.0,
            Float::F64 => f64::EPSILON / 2.0,
        }
    }

    /// Returns the number of bytes per value.
    pub fn size(self) -> usize {
        match self {
            Float::F16 | Float::Bf16 => 2,
            Float::F32 => 4,
            Float::F64 => 8,
        }
    }

    /// Returns `values`, each rounded once, as little-endian bytes.
    pub fn encode(self, values: &[f64]) -> Vec<u8> {
        match self {
            Float::F16 => encoded(values, |v| round_to_f16(v).to_le_bytes()),
            Float::Bf16 => encoded(values, |v| round_to_bf16(v).to_le_bytes()),
            Float::F32 => encoded(values, |v| (v as f32).to_le_bytes()),
            Float::F64 => encoded(values, f64::to_le_bytes),
        }
    }

    /// Widens little-endian `bytes` into `into`, as many values as both hold.
    pub fn decode(self, bytes: &[u8], into: &mut [f64]) {
        match self {
            Float::F16 => decode_into(bytes, into, |b| f16::from_le_bytes(b).to_f64()),
            Float::Bf16 => decode_into(bytes, into, |b| bf16::from_le_bytes(b).to_f64()),
            Float::F32 => decode_into(bytes, into, |b| f64::from(f32::from_le_bytes(b))),
            Float::F64 => decode_into(bytes, into, f64::from_le_bytes),
        }
    }
}

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Float::F16 => "float16",
            Float::Bf16 => "bfloat16",
            Float::F32 => "float32",
            Float::F64 => "float64",
        })
    }
}

/// Rounds to odd: to f32 such that rounding again, to 16 bits, equals rounding once. An inexact
/// result gets an odd last bit, so it never looks like a tie.
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) == value || !nearest.is_finite() {
        return nearest;
    }
    let overshot = f64::from(nearest).abs() > value.abs();
    let toward_zero = nearest.to_bits().saturating_sub(u32::from(overshot));
    f32::from_bits(toward_zero | 1)
}

fn round_to_f16(value: f64) -> f16 {
    f16::from_f32(round_to_odd(value))
}

fn round_to_bf16(value: f64) -> bf16 {
    bf16::from_f32(round_to_odd(value))
}

fn encoded<const N: usize>(values: &[f64], encode: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
    let mut raw = vec![0; values.len().saturating_mul(N)];
    let (chunks, _) = raw.as_chunks_mut::<N>();
    chunks.iter_mut().zip(values).for_each(|(chunk, &value)| *chunk = encode(value));
    raw
}

fn decode_into<const N: usize>(bytes: &[u8], into: &mut [f64], decode: impl Fn([u8; N]) -> f64) {
    let (chunks, _) = bytes.as_chunks::<N>();
    into.iter_mut().zip(chunks).for_each(|(value, &chunk)| *value = decode(chunk));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_happens_once() {
        // A value just above the tie between two bf16 values, which rounding to f32 moves onto
        // the tie.
        let value = f64::from(f32::from_bits(0x3f80_8000)) + 1e-12;
        assert_eq!(round_to_bf16(value).to_bits(), 0x3f81);
        assert_eq!(round_to_bf16(-value).to_bits(), 0xbf81);
        let below = f64::from(f32::from_bits(0x3f81_8000)) - 1e-12;
        assert_eq!(round_to_bf16(below).to_bits(), 0x3f81);
        for float in [Float::F16, Float::Bf16, Float::F32, Float::F64] {
            let mut back = [0.0];
            float.decode(&float.encode(&[0.1]), &mut back);
            assert_eq!(back[0], float.round(0.1), "{float:?}");
            assert_eq!(float.round(back[0]), back[0]);
        }
    }
}
