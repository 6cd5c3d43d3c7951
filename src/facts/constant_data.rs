//! The data of a graph's constants: dimensions, floats, integers, and how large weights are.
//!
//! Knows how tensors are stored; how they become known is the matter of
//! [`constants`](crate::facts::constants).

use std::sync::{Arc, PoisonError};

use ndarray::ArrayD;

use crate::facts::constants::Constants;
use crate::facts::kernels::KernelLayout;
use crate::facts::roles;
use crate::facts::shape_rules::asked::MAX_INTEGERS;
use crate::numbers::LazyWeights;
use crate::onnx::extremes::Extremes;
use crate::onnx::float::Float;
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::schema::graph_field;
use crate::onnx::tensor;
use crate::onnx::{data, extremes};

impl Constants<'_, '_> {
    /// Returns the dimensions of the constant `id`.
    ///
    /// # Errors
    /// As [`Self::tensor`], and if dimensions are negative or overflow.
    pub fn dims(&self, id: ValueId) -> Result<Option<Vec<usize>>, Invalid> {
        Ok(self.tensor(id)?.map(|tensor| data::dims(&tensor)).transpose()?)
    }

    /// Returns how many elements the constant `id` has; 0 if that is not known.
    pub fn elements(&self, id: ValueId) -> f64 {
        let tensor = self.tensor(id).ok().flatten();
        tensor.and_then(|tensor| data::elements(&tensor).ok()).map_or(0.0, |count| count as f64)
    }

    /// Whether this graph itself stores `id`, as an initializer or in a Constant node.
    pub fn stores(&self, id: ValueId) -> bool {
        let value = self.graph.value(id);
        let producer = value.producer.map(|producer| self.graph.node(producer));
        let is_held = producer.is_some_and(roles::holds_constant);
        value.outer.is_none() && (value.initializer.is_some() || is_held)
    }

    /// Returns how many bytes the floats of `id` take if this graph stores them densely, one by
    /// one; otherwise 0.
    pub fn stored_bytes(&self, id: ValueId) -> f64 {
        let value = self.graph.value(id);
        let producer = value.producer.map(|producer| self.graph.node(producer));
        let is_dense = match (&value.initializer, producer) {
            (Some(field), _) => field.number == graph_field::INITIALIZER,
            (None, Some(node)) => {
                roles::holds_constant(node) && node.attribute("sparse_value").is_none()
            }
            (None, None) => false,
        };
        let float = self.element_type(id).and_then(Float::from_onnx);
        let float = float.filter(|_| is_dense && value.outer.is_none());
        float.map_or(0.0, |float| self.elements(id) * float.size() as f64)
    }

    /// Returns the values of the float constant `id`, and its type; `None` if it is no constant
    /// or not of floating point.
    ///
    /// # Errors
    /// Returns an error if its data does not fit its dimensions or cannot be read.
    pub fn floats(&self, id: ValueId) -> Result<Option<(ArrayD<f64>, Float)>, Invalid> {
        let Some(tensor) = self.tensor(id)? else { return Ok(None) };
        let Some(float) = Float::from_onnx(tensor.data_type()) else { return Ok(None) };
        Ok(Some((tensor::floats(&tensor, &self.graph.model.storage)?, float)))
    }

    /// Returns the values of the constant `id`, if it is a short list in float32: factors of
    /// sizes.
    pub fn factors(&self, id: ValueId) -> Option<Vec<f32>> {
        let tensor = self.tensor(id).ok()??;
        if data::elements(&tensor).ok()? > MAX_INTEGERS {
            return None;
        }
        let (values, float) = self.floats(id).ok()??;
        (float == Float::F32).then(|| values.iter().map(|&value| value as f32).collect())
    }

    /// Returns the values of the float constant `id`, which are read only when they are needed;
    /// `None` as in [`Self::floats`].
    ///
    /// # Errors
    /// As [`Self::floats`].
    pub fn numbers(&self, id: ValueId) -> Result<Option<Arc<dyn LazyWeights>>, Invalid> {
        let Some(tensor) = self.tensor(id)? else { return Ok(None) };
        if let Some(stored) = tensor::stored(&tensor, &self.graph.model.storage)? {
            return Ok(Some(Arc::new(stored)));
        }
        let floats = self.floats(id)?;
        Ok(floats.map(|(values, _)| Arc::new(values.into_iter().collect::<Vec<f64>>()) as _))
    }

    /// Returns how large the weights of the kernel `id` are, by filter, or, if filters are not
    /// contiguous, by weight; `None` as in [`Self::floats`].
    ///
    /// # Errors
    /// As [`Self::floats`].
    pub fn extremes(&self, id: ValueId, layout: KernelLayout) -> Result<Option<Extremes>, Invalid> {
        let known = self.extremes.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        if known.is_some() {
            return Ok(known);
        }
        let Some(tensor) = self.tensor(id)? else { return Ok(None) };
        let lengths = tensor.dims.iter().skip(1).map(|&dim| usize::try_from(dim).unwrap_or(0));
        let row = match layout {
            KernelLayout::OutputsFirst => lengths.fold(1, usize::saturating_mul),
            KernelLayout::InputsFirst => 1,
        };
        let found = extremes::extremes(&tensor, &self.graph.model.storage, row)?;
        self.extremes.lock().unwrap_or_else(PoisonError::into_inner).insert(id, found);
        Ok(Some(found))
    }

    /// Returns the values of the integer or boolean constant `id`; `None` as in [`Self::floats`].
    ///
    /// # Errors
    /// As [`Self::floats`].
    pub fn integers(&self, id: ValueId) -> Result<Option<Vec<i64>>, Invalid> {
        let Some(tensor) = self.tensor(id)? else { return Ok(None) };
        match DataType::try_from(tensor.data_type()) {
            Ok(DataType::Int64 | DataType::Int32 | DataType::Bool) => {
                Ok(Some(tensor::integers(&tensor, &self.graph.model.storage)?))
            }
            _ => Ok(None),
        }
    }
}
