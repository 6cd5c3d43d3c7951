//! A model to be loaded: bytes, constants beside them, and what it may take.
//!
//! Knows the format, and nothing of tract.

use std::sync::Arc;

use prost::bytes::Bytes;

use crate::engine::limits::Limits;
use crate::numbers::LazyWeights;
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// A model to be loaded.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file's content.
    pub bytes: Bytes,
    /// Further initializers of its graph.
    pub constants: Vec<Constant>,
    /// Where its side files lie, if it has any.
    pub storage: Storage,
    /// What loading and running it may take.
    pub limits: Limits,
}

impl Source {
    /// A small model that holds all it needs.
    pub fn small(bytes: Vec<u8>, limits: Limits) -> Self {
        let (bytes, constants) = (bytes.into(), Vec::new());
        Source { bytes, constants, storage: Storage::default(), limits }
    }
}

/// A constant whose data goes to tract without a detour.
#[derive(Debug, Clone)]
pub struct Constant {
    /// The tensor.
    pub header: TensorProto,
    /// In the place of its data, if it is of type float64.
    pub numbers: Option<Arc<dyn LazyWeights>>,
}

impl From<TensorProto> for Constant {
    fn from(tensor: TensorProto) -> Self {
        Constant { header: tensor, numbers: None }
    }
}

impl Constant {
    /// `numbers` in float64.
    pub fn doubles(name: &str, dims: &[i64], numbers: Arc<dyn LazyWeights>) -> Self {
        let header = tensor::header(name, dims, DataType::Double.into());
        Constant { header, numbers: Some(numbers) }
    }

    /// The same, under another name.
    #[must_use]
    pub fn called(mut self, name: String) -> Self {
        self.header.name = Some(name);
        self
    }

    /// The constant's name.
    pub fn name(&self) -> &str {
        self.header.name()
    }
}
