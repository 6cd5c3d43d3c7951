//! What a tensor must be, kept without its data: what was proved is remembered until the file is
//! read back, and takes no memory meanwhile.
//!
//! Knows bytes and their type; does not know which node reads the tensor.

use twox_hash::XxHash3_128;

use crate::onnx::float::Float;
use crate::onnx::proto::TensorProto;

/// A tensor's name, type and dimensions, and a digest of its raw data. The digest has 128 bits,
/// which is enough: nobody chooses the data, so different data never have the same digest.
#[derive(Debug, Clone, PartialEq)]
pub struct Fingerprint {
    header: TensorProto,
    digest: u128,
}

impl Fingerprint {
    /// Returns the fingerprint of a tensor with raw data.
    pub fn of(tensor: &TensorProto) -> Self {
        let digest = XxHash3_128::oneshot(tensor.raw_data());
        Fingerprint { header: TensorProto { raw_data: None, ..tensor.clone() }, digest }
    }

    /// Returns the fingerprint of a tensor of type `float` that holds the numbers of all
    /// `pieces`, each rounded once.
    ///
    /// # Errors
    /// Returns the error of the first piece that is missing.
    pub fn rounded<E>(
        header: TensorProto,
        float: Float,
        pieces: impl Iterator<Item = Result<Vec<f64>, E>>,
    ) -> Result<Self, E> {
        let mut hasher = XxHash3_128::new();
        for piece in pieces {
            hasher.write(&float.encode(&piece?));
        }
        Ok(Fingerprint { header, digest: hasher.finish_128() })
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
