//! Convolutions that take little memory: tract's plain one writes a table of what each output
//! reads, of all groups and all samples at once, which takes as many times the memory of its input
//! as its kernel has taps: of a 27×27 kernel, 729 times.
//!
//! Where that table is large, a convolution becomes what tract's own code generation makes of it
//! alone: one that goes channel by channel if it is depthwise, else one that reads its input where
//! it lies, of which tract has one for single samples. Nothing around it is folded into it.
//!
//! Knows the plan of a model and its sizes; runs nothing.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::array::{Slice, TypedConcat};
use tract_onnx::tract_core::ops::cnn::Conv;

/// A table of so many bytes stays in a processor's cache, and is written faster than it is
/// worked around.
const MOST_TABLE: usize = 1 << 20;

/// So many samples go one by one even if the table of each is small.
const FEW_SAMPLES: usize = 16;

/// Takes the large tables out of `model`.
pub(super) fn without_large_tables(model: &mut TypedModel) -> TractResult<()> {
    let mut id = 0usize;
    // A patch appends its nodes, and what it splits is looked at, too.
    while id < model.nodes().len() {
        let node = model.node(id);
        if let Some(conv) = node.op_as::<Conv>()
            && let Some(samples) = samples_of_large_table(model, node, conv)?
        {
            let patch = if samples == 1 || is_depthwise(conv) {
                node.op.codegen(model, node)?
            } else {
                Some(sample_by_sample(model, node, conv, samples)?)
            };
            if let Some(patch) = patch {
                patch.apply(model)?;
            }
        }
        id = id.saturating_add(1);
    }
    Ok(())
}

fn is_depthwise(conv: &Conv) -> bool {
    conv.group == conv.input_channels() && conv.group == conv.output_channels()
}

/// How many samples a convolution has, if its table is large and it is one of wide floats: of
/// others, the sums would be rounded otherwise. Of many samples that of each must be large:
/// thousands of small ones would be thousands of nodes, which take longer than they do.
fn samples_of_large_table(
    model: &TypedModel,
    node: &TypedNode,
    conv: &Conv,
) -> TractResult<Option<usize>> {
    let [input, ..] = node.inputs.as_slice() else { return Ok(None) };
    let fact = model.outlet_fact(*input)?;
    let is_wide = matches!(fact.datum_type, DatumType::F32 | DatumType::F64);
    let Some(shape) = fact.shape.as_concrete().filter(|_| is_wide && conv.q_params.is_none())
    else {
        return Ok(None);
    };
    let output = conv.pool_spec.output_shape(shape)?;
    let samples = output.n().copied().unwrap_or(1);
    let each = conv.input_channels().saturating_mul(samples);
    let volume = |sizes: &mut dyn Iterator<Item = usize>| {
        sizes.fold(each, |all, size| all.saturating_mul(size))
    };
    let spec = &conv.pool_spec;
    let table = volume(&mut spec.kernel_shape.iter().chain(output.hw_dims()).copied());
    // The input is copied with its pads, which may be larger where most of it is skipped.
    let padded = volume(&mut output.hw_dims().iter().enumerate().map(|(axis, &size)| {
        let last = size.saturating_sub(1).saturating_mul(spec.stride(axis));
        let taps = spec.kernel_shape.get(axis).copied().unwrap_or(1);
        let reach = taps.saturating_sub(1).saturating_mul(spec.dilation(axis));
        last.saturating_add(reach).saturating_add(1)
    }));
    let bytes = table.saturating_mul(fact.datum_type.size_of());
    let counted = if is_depthwise(conv) || samples <= FEW_SAMPLES { 1 } else { samples };
    let is_large = bytes > MOST_TABLE.saturating_mul(counted);
    Ok((is_large && padded <= table).then_some(samples))
}

/// A convolution for each sample, and what joins them.
fn sample_by_sample(
    model: &TypedModel,
    node: &TypedNode,
    conv: &Conv,
    samples: usize,
) -> TractResult<TypedModelPatch> {
    const BATCH: usize = 0;
    let mut patch = TypedModelPatch::new("sample by sample");
    let inputs = patch.taps(model, &node.inputs)?;
    let mut made = TVec::new();
    for sample in 0..samples {
        let mut operands = inputs.clone();
        if let Some(input) = operands.first_mut() {
            let one = Slice::new(BATCH, sample, sample.saturating_add(1));
            let sliced =
                patch.wire_node(format!("{}.input.{sample}", node.name), one, &[*input])?;
            sliced.into_iter().take(1).for_each(|sliced| *input = sliced);
        }
        made.extend(patch.wire_node(
            format!("{}.sample.{sample}", node.name),
            conv.clone(),
            &operands,
        )?);
    }
    let joined = TypedConcat { axis: BATCH };
    let joined = patch.wire_node(format!("{}.joined", node.name), joined, &made)?;
    for joined in joined {
        patch.shunt_outside(model, node.id.into(), joined)?;
    }
    Ok(patch)
}
