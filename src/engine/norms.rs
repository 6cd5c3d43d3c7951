//! Batch norms of vectors, which tract is kept from.
//!
//! It looks for the channels of a norm in the second dimension, beyond the end of the shape if
//! there is none, and the process may end there. How many dimensions there are is known where it
//! infers shapes, so the question is asked there, before its own rules.
//!
//! Knows tract's operator, and no model.

use std::sync::LazyLock;

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceOp;
use tract_onnx::tract_hir::internal::*;

const NORM: &str = "BatchNormalization";

/// `onnx` with norms that have channels.
pub fn guarded(mut onnx: Onnx) -> Onnx {
    onnx.op_register.insert(NORM, norm);
    onnx
}

fn norm(
    context: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    static UNGUARDED: LazyLock<Onnx> = LazyLock::new(tract_onnx::onnx);
    let Some(build) = UNGUARDED.op_register.0.get(NORM) else { bail!("tract has no {NORM}") };
    let (norm, outputs) = build(context, node)?;
    let operator: &dyn Op = norm.as_op();
    match operator.downcast_ref::<Box<dyn Expansion>>() {
        Some(norm) => Ok((expand(NormOfChannels(norm.clone())), outputs)),
        None => bail!("{NORM} is no expansion"),
    }
}

/// A norm, and that what it reads has channels.
#[derive(Debug, Clone)]
struct NormOfChannels(Box<dyn Expansion>);

impl Expansion for NormOfChannels {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        // The first rules are the first to be applied, and what is read has the shape of what is
        // made.
        for tensor in inputs.iter().take(1).chain(outputs.iter().take(1)) {
            solver.given(&tensor.rank, |_, rank| {
                ensure!(rank > 1, "a batch norm of a tensor without channels");
                Ok(())
            })?;
        }
        self.0.rules(solver, inputs, outputs)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        self.0.wire(prefix, model, inputs)
    }
}
