//! Sums of products in float16. tract rounds after each step of such a sum, which takes a
//! hundred times as long as the same sum in float32. The engines that models are deployed to
//! accumulate in float32 and round once, and so do the models that are run here.
//!
//! *Counter-example* to rounding after each step: the sum of 4096 ones becomes 2048, because
//! 2048 + 1 is 2048 in float16.
//!
//! Knows the plan of a model; runs nothing.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::cast::{cast, wire_cast};
use tract_onnx::tract_core::ops::cnn::{Conv, Deconv};
use tract_onnx::tract_core::ops::einsum::EinSum;

/// Makes the float16 convolutions and products of `model` accumulate in float32.
pub(super) fn summed_in_float32(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes().len() {
        let node = model.node(id);
        if let Some(wide) = in_float32(model, node)? {
            let mut patch = TypedModelPatch::new("summed in float32");
            let inputs = patch.taps(model, &node.inputs)?;
            let inputs = wire_cast(&node.name, &mut patch, &inputs, f32::datum_type())?;
            let sums = patch.wire_node(format!("{}.sum", node.name), wide, &inputs)?;
            let rounded = patch.wire_node(&*node.name, cast(f16::datum_type()), &sums)?;
            for rounded in rounded {
                patch.shunt_outside(model, node.id.into(), rounded)?;
            }
            patch.apply(model)?;
        }
    }
    Ok(())
}

/// Returns the operator of the node in float32, or `None` if it is no sum of products in
/// float16.
fn in_float32(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Box<dyn TypedOp>>> {
    let [output] = node.outputs.as_slice() else { return Ok(None) };
    let mut inputs = node.inputs.iter();
    let is_half = output.fact.datum_type == f16::datum_type()
        && inputs.try_fold(true, |all, &input| {
            TractResult::Ok(all && model.outlet_fact(input)?.datum_type == f16::datum_type())
        })?;
    if !is_half {
        return Ok(None);
    }
    if let Some(product) = node.op_as::<EinSum>() {
        let wide = EinSum { operating_dt: f32::datum_type(), ..product.clone() };
        return Ok(product.q_params.is_none().then(|| Box::new(wide) as Box<dyn TypedOp>));
    }
    let is_conv = node.op_as::<Conv>().is_some_and(|conv| conv.q_params.is_none());
    Ok((is_conv || node.op_is::<Deconv>()).then(|| node.op.clone()))
}
