//! A model's weights with other last bits: how far its outputs move with them is what rounding
//! explains.

use crate::onnx::float::Float;
use crate::onnx::proto::TensorProto;
use crate::verify::inputs::Random;

/// Which weights a model is run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightRounding {
    /// As they are stored.
    AsStored,
    /// Every other one of stored kernels and matrices changed in the last bit.
    OtherLastBits,
}

/// `weight` with every other number changed in the last bit, if it is a kernel or matrix;
/// always the same ones.
pub fn with_other_last_bits(mut weight: TensorProto) -> TensorProto {
    let float = Float::from_onnx(weight.data_type()).filter(|_| weight.dims.len() > 1);
    let Some(float) = float else { return weight };
    let name = weight.name().bytes();
    // Any number that is not the same for all will do.
    let seed = name.fold(2u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let mut random = Random::new(seed);
    if let Some(raw) = weight.raw_data.as_mut() {
        let mut new = raw.to_vec();
        // Little endian: the last bit of a number is the lowest of its first byte.
        for lowest in new.iter_mut().step_by(float.size()) {
            *lowest ^= u8::from(random.uniform() > 0.0);
        }
        *raw = new.into();
    }
    for value in &mut weight.float_data {
        *value = f32::from_bits(value.to_bits() ^ u32::from(random.uniform() > 0.0));
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Array;
    use crate::onnx::tensor::from_floats;

    fn floats(name: &str, shape: &[usize]) -> TensorProto {
        match Random::new(5).floats(shape) {
            Array::Float(values) => from_floats(name, &values, Float::F64),
            Array::Int(_) => unreachable!(),
        }
    }

    #[test]
    fn other_last_bits_are_always_the_same() {
        let (kernel, bias) = (floats("k", &[8, 8]), floats("b", &[64]));
        let other = with_other_last_bits(kernel.clone());
        assert_eq!(with_other_last_bits(kernel.clone()), other);
        assert_eq!(with_other_last_bits(bias.clone()), bias);
        let pairs = kernel.raw_data.iter().flatten().zip(other.raw_data.iter().flatten());
        let changed: Vec<u8> = pairs.map(|(old, new)| old ^ new).collect();
        assert!(changed.iter().enumerate().all(|(at, &bits)| bits <= u8::from(at % 8 == 0)));
        let changed = changed.iter().filter(|&&bits| bits > 0).count();
        assert!((16..48).contains(&changed), "{changed}");
    }
}
