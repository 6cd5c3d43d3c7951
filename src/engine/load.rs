//! A model that is ready to run: the typed plan, neither decluttered nor optimised. tract's
//! declutter folds batch norms itself, so the comparison would be one of our folding with
//! tract's.
//!
//! Decides whether a model takes too much memory, from its plan and before it runs.
//!
//! Knows tract's plan; knows neither what the model is for nor whether its outputs are right.

use std::collections::HashMap;
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::cnn::{MaxPool, PoolSpec, SumPool};

use crate::engine::convolutions;
use crate::engine::guard::guarded;
use crate::engine::half_precision;
use crate::engine::limits::{EngineError, Limits};
use crate::engine::memory;
use crate::engine::names::NeutralNames;
use crate::engine::parse::parsed;
use crate::engine::source::Source;
use crate::engine::tensors::{Array, from_tract, in_onnx, to_tract};
use crate::onnx::proto::TensorProto;

/// A model that is ready to run.
#[derive(Debug)]
pub struct Engine {
    pub(super) plan: Arc<TypedRunnableModel>,
    pub(super) names: Arc<NeutralNames>,
    pub(super) limits: Limits,
}

impl Engine {
    /// Loads a model for inputs of the given shapes, in the order of the graph's inputs.
    ///
    /// # Errors
    /// Returns an error if tract does not support something in the model, the shapes do not fit,
    /// or the model exceeds its limits.
    pub fn load(source: Source, shapes: &[Vec<usize>]) -> Result<Self, EngineError> {
        let (limits, shapes) = (source.limits, shapes.to_vec());
        let ((plan, bytes), names) = guarded(limits, move || {
            parsed(&source, &[], |mut model, _| {
                for (index, shape) in shapes.iter().enumerate() {
                    let fact = model.input_fact(index)?.clone().with_shape(shape);
                    model.set_input_fact(index, fact)?;
                }
                planned(model.into_typed()?, limits)
            })
        })?;
        if bytes > limits.bytes {
            return Err(EngineError::TooLarge { bytes });
        }
        memory::check(bytes)?;
        Ok(Engine { plan, names: Arc::new(names), limits })
    }

    /// Runs the model once.
    ///
    /// # Errors
    /// Returns an error if tract fails or takes too long.
    pub fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, EngineError> {
        let inputs: Vec<Tensor> = inputs.iter().cloned().map(to_tract).collect();
        self.guarded(move |plan| {
            let mut feed = tvec!();
            for (index, tensor) in inputs.into_iter().enumerate() {
                let wanted = plan.model().input_fact(index)?.datum_type;
                feed.push(tensor.cast_to_dt(wanted)?.into_owned().into());
            }
            plan.run(feed)?.iter().map(|value| from_tract(value)).collect()
        })
    }

    /// Runs `work` with the plan within the engine's limits. Errors name tensors as the file
    /// does.
    pub(super) fn guarded<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<TypedRunnableModel>) -> TractResult<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (plan, names) = (Arc::clone(&self.plan), Arc::clone(&self.names));
        guarded(self.limits, move || {
            work(&plan).map_err(|error| names.in_words_of_the_file(&error))
        })
    }
}

/// Returns the outputs of a model without inputs, in their own types.
///
/// # Errors
/// As [`Engine::load`] and [`Engine::run`], and returns an error if ONNX has no such type.
pub fn evaluate(source: Source) -> Result<Vec<TensorProto>, EngineError> {
    let limits = source.limits;
    let plan = Engine::load(source, &[])?.plan;
    guarded(limits, move || plan.run(tvec!())?.iter().map(|value| in_onnx(value)).collect())
}

/// Returns the plan of a model and the bytes that its tensors take. The convolutions of a model
/// that exceeds its limits are not looked at: the model is refused, and preparing its
/// convolutions alone may take too much.
pub(super) fn planned(
    mut model: TypedModel,
    limits: Limits,
) -> TractResult<(Arc<TypedRunnableModel>, usize)> {
    half_precision::summed_in_float32(&mut model)?;
    let bytes = footprint(&model)?;
    if bytes <= limits.bytes && memory::check(bytes).is_ok() {
        convolutions::without_large_tables(&mut model)?;
    }
    Ok((model.into_runnable()?, bytes))
}

/// Returns an upper bound on the bytes of the tensors that live at the same time. Constants and
/// inputs live all the time. Tensors whose sizes depend on values, not on shapes, count as
/// nothing.
fn footprint(model: &TypedModel) -> TractResult<usize> {
    let size = |outlet: OutletId| {
        let fact = model.outlet_fact(outlet)?;
        let sizes = fact.shape.as_concrete().unwrap_or(&[0]);
        let bytes = fact.datum_type.size_of();
        TractResult::Ok(sizes.iter().fold(bytes, |bytes, &size| bytes.saturating_mul(size)))
    };
    let order = model.eval_order()?;
    let mut last: HashMap<OutletId, usize> = HashMap::new();
    for (time, &node) in order.iter().enumerate() {
        last.extend(model.node(node).inputs.iter().map(|&input| (input, time)));
    }
    last.extend(model.output_outlets()?.iter().map(|&output| (output, usize::MAX)));
    let stays = |node: usize| model.node(node).inputs.is_empty();
    let (mut live, mut most) = (0usize, 0usize);
    for &node in order.iter().filter(|&&node| stays(node)) {
        for slot in 0..model.node(node).outputs.len() {
            live = live.saturating_add(size(OutletId::new(node, slot))?);
        }
    }
    most = most.max(live);
    for (time, &node) in order.iter().enumerate().filter(|&(_, &node)| !stays(node)) {
        let node = model.node(node);
        for slot in 0..node.outputs.len() {
            live = live.saturating_add(size(OutletId::new(node.id, slot))?);
        }
        most = most.max(live.saturating_add(table_of_taps(node)));
        let mut inputs = node.inputs.clone();
        inputs.sort_unstable();
        inputs.dedup();
        let ends = |input: &OutletId| last.get(input) == Some(&time) && !stays(input.node);
        for input in inputs.into_iter().filter(ends) {
            live = live.saturating_sub(size(input)?);
        }
    }
    Ok(most)
}

/// Returns a bound on the bytes of the positions of all taps, along all axes, which a pool
/// stores a few times while it runs.
fn table_of_taps(node: &TypedNode) -> usize {
    let of = |pool: &PoolSpec| {
        let row = pool.kernel_shape.len().saturating_add(2).saturating_mul(16);
        pool.kernel_shape.iter().fold(row, |bytes, &taps| bytes.saturating_mul(taps))
    };
    let pool = node.op_as::<SumPool>().map(|pool| &pool.pool_spec);
    pool.or_else(|| node.op_as::<MaxPool>().map(|pool| &pool.pool_spec)).map_or(0, of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::source::Constant;
    use crate::engine::tensors::plain;
    use crate::onnx::write;
    use prost::Message;
    use std::time::Duration;

    #[test]
    fn a_transpose_by_no_permutation_ends() {
        for perm in [vec![0, 0], vec![1, 2], vec![-1, 0], vec![0]] {
            let nodes =
                vec![write::node("Transpose", "", &["x"], "y", vec![write::ints("perm", perm)])];
            let inputs = vec![write::double_input("x", 2)];
            let bytes = write::model(17, inputs, nodes, vec![], &["y"]).encode_to_vec();
            let source = Source::small(bytes, Limits::of_reading());
            assert!(Engine::load(source, &[vec![2, 3]]).is_err());
        }
    }

    #[test]
    fn what_is_too_large_is_not_run() {
        // At the Add, x, its square and the sum of both live: 3 × 8 × 1000 bytes; and so does
        // the zero that Relu compares with.
        let nodes = vec![
            write::node("Mul", "", &["x", "x"], "square", vec![]),
            write::node("Add", "", &["x", "square"], "y", vec![]),
            write::node("Relu", "", &["y"], "z", vec![]),
        ];
        let inputs = vec![write::double_input("x", 1)];
        let bytes = write::model(17, inputs, nodes, vec![], &["z"]).encode_to_vec();
        let load = |allowed| {
            let limits = Limits::new(Duration::from_secs(60), allowed);
            Engine::load(Source::small(bytes.clone(), limits), &[vec![1000]]).map(drop)
        };
        assert_eq!(load(24_008), Ok(()));
        assert_eq!(load(24_007), Err(EngineError::TooLarge { bytes: 24_008 }));
    }

    /// Constants beside a model act as if they were stored in it, whatever their encoding.
    #[test]
    fn constants_beside_the_model_are_its_own() {
        use crate::onnx::proto::tensor_proto::DataType;
        let tensor = |data_type: DataType, dims: &[i64]| TensorProto {
            name: Some("c".into()),
            data_type: Some(data_type.into()),
            dims: dims.to_vec(),
            ..TensorProto::default()
        };
        let raw = |data_type, dims, raw: &'static [u8]| TensorProto {
            raw_data: Some(raw.into()),
            ..tensor(data_type, dims)
        };
        let floats = TensorProto { float_data: vec![1.5, -2.0], ..tensor(DataType::Float, &[2]) };
        let short = raw(DataType::Float, &[2], &[0, 0, 0, 64]);
        for (case, constant, direct) in [
            ("floats", raw(DataType::Float, &[2], &[0, 0, 0, 64, 0, 0, 128, 191]), true),
            ("halves", raw(DataType::Float16, &[2], &[0, 0x40, 0, 0xbc]), true),
            ("scalar", raw(DataType::Int64, &[], &[3, 0, 0, 0, 0, 0, 0, 0]), true),
            ("bytes", raw(DataType::Uint8, &[2, 1], &[1, 2]), true),
            ("booleans", raw(DataType::Bool, &[2], &[1, 0]), false),
            ("typed", floats, false),
            ("empty", tensor(DataType::Float, &[0]), false),
            ("too short", short, false),
        ] {
            assert_eq!(plain(&constant).unwrap().is_some(), direct, "{case}");
            let run = |inside: Vec<TensorProto>, constants: Vec<TensorProto>| {
                let nodes = vec![write::node("Identity", "", &["c"], "y", vec![])];
                let bytes = write::model(17, vec![], nodes, inside, &["y"]).encode_to_vec();
                let source = Source::small(bytes, Limits::of_reading());
                Engine::load(
                    Source {
                        constants: constants.into_iter().map(Constant::from).collect(),
                        ..source
                    },
                    &[],
                )?
                .run(&[])
            };
            let (inside, beside) =
                (run(vec![constant.clone()], vec![]), run(vec![], vec![constant]));
            assert_eq!(inside, beside, "{case}");
            assert_eq!(inside.is_ok(), case != "too short", "{case}");
        }
    }
}
