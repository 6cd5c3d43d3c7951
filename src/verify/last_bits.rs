//! A model's weights with other last bits: how far its outputs move with them is what rounding
//! explains.
//!
//! Knows one tensor and its type, and no tolerance.

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
    use prost::Message;

    use super::*;
    use crate::engine::{Array, Limits};
    use crate::onnx::graph::Graph;
    use crate::onnx::model::Model;
    use crate::onnx::proto::StringStringEntryProto;
    use crate::onnx::proto::tensor_proto::DataLocation;
    use crate::onnx::storage::{Links, Storage};
    use crate::onnx::tensor::from_floats;
    use crate::onnx::write::{self, node};
    use crate::verify::compare::relative_error;
    use crate::verify::sliced_run::{MOST, SlicedRun};

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

    /// Wherever weights are stored, their last bits move the output.
    #[test]
    fn every_weight_has_other_last_bits() {
        let folder = tempfile::tempdir().unwrap();
        let weight = floats("w", &[2, 2]);
        std::fs::write(folder.path().join("side"), weight.raw_data()).unwrap();
        let entry =
            StringStringEntryProto { key: Some("location".into()), value: Some("side".into()) };
        let beside = TensorProto {
            raw_data: None,
            external_data: vec![entry],
            data_location: Some(DataLocation::External.into()),
            ..weight.clone()
        };
        let constant = node("Constant", "", &[], "w", vec![write::tensor("value", weight.clone())]);
        for (case, nodes, stored) in [
            ("initializer", vec![], vec![weight]),
            ("side file", vec![], vec![beside]),
            ("node", vec![constant], vec![]),
        ] {
            let model = write::model(17, vec![], nodes, stored, &["w"]);
            let storage = Storage::in_folder(folder.path(), Links::Confined);
            let model = Model::index(model.encode_to_vec().into(), storage).unwrap();
            let graphs = Graph::read_all(&model).unwrap();
            let outputs = |weights| {
                let limits = Limits::of_reading();
                let run = SlicedRun { graphs: &graphs, weights, most: MOST, limits };
                run.outputs(&[], &[vec![]]).unwrap().concat()
            };
            let (stored, other) =
                (outputs(WeightRounding::AsStored), outputs(WeightRounding::OtherLastBits));
            let moved = relative_error(&stored[0], &other[0]);
            assert!(moved > 0.0 && moved < 1e-15, "{case}: {moved:e}");
        }
    }
}
