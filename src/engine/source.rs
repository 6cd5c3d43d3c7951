//! A model to be loaded: its bytes, constants beside them, and the limits on running it.
//!
//! Knows the format, and nothing of tract.

use std::ops::Range;
use std::sync::Arc;

use prost::bytes::Bytes;

use crate::engine::limits::Limits;
use crate::numbers::{LazyWeights, WeightRange};
use crate::onnx::data;
use crate::onnx::float::Float;
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;

/// A model to be loaded.
#[derive(Debug, Clone)]
pub struct Source {
    /// The serialized `ModelProto`.
    pub bytes: Bytes,
    /// Further initializers of its graph.
    pub constants: Vec<Constant>,
    /// Where the side files lie, if there are any.
    pub storage: Storage,
    /// The limits on loading and running the model.
    pub limits: Limits,
}

impl Source {
    /// Returns a source for a small model without side files or constants beside it.
    pub fn small(bytes: Vec<u8>, limits: Limits) -> Self {
        let (bytes, constants) = (bytes.into(), Vec::new());
        Source { bytes, constants, storage: Storage::default(), limits }
    }
}

/// Upper bound on the elements of a list of factors, sizes or axes.
const MAX_LIST: i64 = 64;

/// A constant whose data goes to tract without a detour through the model's bytes.
#[derive(Debug, Clone)]
pub struct Constant {
    /// The tensor.
    pub header: TensorProto,
    /// The data, if the type is float64 and `header` holds none.
    pub numbers: Option<Arc<dyn LazyWeights>>,
}

impl From<TensorProto> for Constant {
    fn from(tensor: TensorProto) -> Self {
        Constant { header: tensor, numbers: None }
    }
}

impl Constant {
    /// Returns a float64 constant that holds `numbers`.
    pub fn doubles(name: &str, dims: &[i64], numbers: Arc<dyn LazyWeights>) -> Self {
        let header = tensor::header(name, dims, DataType::Double.into());
        Constant { header, numbers: Some(numbers) }
    }

    /// Returns the same constant under another name.
    #[must_use]
    pub fn called(mut self, name: String) -> Self {
        self.header.name = Some(name);
        self
    }

    /// Returns the number of elements, or `None` if they are not stored contiguously.
    pub fn count(&self) -> Option<usize> {
        match (&self.numbers, data::raw_data(&self.header)) {
            (Some(numbers), _) => Some(numbers.count()),
            (None, Some(raw)) => {
                let float = Float::from_onnx(self.header.data_type())?;
                raw.len().checked_div(float.size())
            }
            (None, None) => None,
        }
    }

    /// Returns the elements, or `None` if they are more than a short list (`MAX_LIST`) or cannot
    /// be read.
    pub fn list(&self) -> Option<Vec<f64>> {
        let count = self.header.dims.iter().try_fold(1i64, |all, &size| all.checked_mul(size))?;
        if !(0..=MAX_LIST).contains(&count) {
            return None;
        }
        if let Some(numbers) = &self.numbers {
            let mut list = vec![0.0; numbers.count()];
            numbers.read(0, &mut list);
            return Some(list);
        }
        let storage = Storage::default();
        if Float::from_onnx(self.header.data_type()).is_some() {
            return Some(tensor::floats(&self.header, &storage).ok()?.into_iter().collect());
        }
        let integers = tensor::integers(&self.header, &storage).ok()?;
        Some(integers.into_iter().map(|integer| integer as f64).collect())
    }

    /// Returns rows `rows`, of `row` elements each, under another name, as a view of contiguous
    /// data.
    #[must_use]
    pub fn rows(&self, name: &str, rows: Range<usize>, row: usize) -> Self {
        let mut header = TensorProto { name: Some(name.to_owned()), ..self.header.clone() };
        if let Some(count) = header.dims.first_mut() {
            *count = rows.len() as i64;
        }
        let (start, count) = (rows.start.saturating_mul(row), rows.len().saturating_mul(row));
        if let (Some(raw), Some(float)) =
            (data::raw_data(&self.header), Float::from_onnx(header.data_type()))
        {
            let at = |number: usize| number.saturating_mul(float.size()).min(raw.len());
            header.raw_data = Some(raw.slice(at(start)..at(start.saturating_add(count))));
        }
        let of_numbers = |of: &Arc<dyn LazyWeights>| -> Arc<dyn LazyWeights> {
            Arc::new(WeightRange { of: Arc::clone(of), start, count })
        };
        Constant { header, numbers: self.numbers.as_ref().map(of_numbers) }
    }

    /// The constant's name.
    pub fn name(&self) -> &str {
        self.header.name()
    }
}
