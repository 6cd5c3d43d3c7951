//! A guard against batch norms of vectors, from which tract is kept.
//!
//! tract looks for the channels of a norm in the second dimension. If there is none, it reads
//! beyond the end of the shape, and the process may end. The rank is known where tract infers
//! shapes, so it is checked there, before tract's own rules.
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

/// Returns `onnx` with batch norms that must have channels.
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

/// A batch norm whose input must have channels.
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
        // Rules are applied in the order in which they are given, and the input has the shape of
        // the output.
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
