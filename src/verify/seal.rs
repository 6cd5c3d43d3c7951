//! What a tensor must be, kept without its data: what was proved is remembered until the
//! file is read back, and takes no memory meanwhile.

use twox_hash::XxHash3_128;

use crate::onnx::proto::TensorProto;
use crate::onnx::tensor::{self, Float};

/// A tensor's name, type and dimensions, and a digest of its raw data. The digest is of
/// 128 bits: nobody chooses the data, so two different ones never have the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Seal {
    header: TensorProto,
    digest: u128,
}

impl Seal {
    /// That of a tensor with raw data.
    pub fn of(tensor: &TensorProto) -> Self {
        let digest = XxHash3_128::oneshot(tensor.raw_data());
        Seal { header: TensorProto { raw_data: None, ..tensor.clone() }, digest }
    }

    /// That of a float64 tensor when it is rounded, once, to `float`; of another one as it is.
    pub fn rounded(exact: &TensorProto, float: Float) -> Self {
        if exact.data_type() != Float::F64.to_onnx() {
            return Seal::of(exact);
        }
        let (numbers, _) = exact.raw_data().as_chunks::<8>();
        let mut hasher = XxHash3_128::new();
        for numbers in numbers.chunks(PIECE) {
            let numbers: Vec<f64> =
                numbers.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
            hasher.write(&tensor::rounded(&numbers, float));
        }
        let header = tensor::header(exact.name(), &exact.dims, float.to_onnx());
        Seal { header, digest: hasher.finish_128() }
    }

    /// The tensor without its data.
    pub fn header(&self) -> &TensorProto {
        &self.header
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        self.header.name()
    }
}

/// Numbers that are rounded at a time.
const PIECE: usize = 1 << 14;
