//! Convolutions that take little memory. tract's plain convolution writes a table of what each
//! output reads (im2col), for all groups and all samples at once. The table takes as many times
//! the memory of the input as the kernel has taps: for a 27×27 kernel, 729 times.
//!
//! Where that table is large, a convolution is replaced by what tract's own code generation
//! makes of it alone: one that works channel by channel if it is depthwise, else one that reads
//! its input in place, which tract has for single samples only. No neighbouring node is folded
//! into it.
//!
//! Knows the plan of a model and its sizes; runs nothing.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::array::{Slice, TypedConcat};
use tract_onnx::tract_core::ops::cnn::Conv;

/// Size in bytes of a table that is not worth avoiding: it stays in a processor's cache, and
/// writing it is faster than working around it.
const MOST_TABLE: usize = 1 << 20;

/// Largest number of samples that are computed one by one even if the table of each is small.
const FEW_SAMPLES: usize = 16;

/// Replaces the convolutions of `model` whose tables are large.
pub(super) fn without_large_tables(model: &mut TypedModel) -> TractResult<()> {
    let mut id = 0usize;
    // A patch appends its nodes to the model, so the parts of a split convolution are visited,
    // too.
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

/// Returns the number of samples of a convolution if its table is large and its elements are
/// float32 or float64; sums of other types would be rounded differently. If there are many
/// samples, the table of each must be large: thousands of small convolutions would be thousands
/// of nodes, whose overhead exceeds their work.
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
    // The input is copied with its pads, and the copy may be larger than the table where strides
    // skip most of the input.
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

/// Returns a patch with one convolution per sample and a concatenation of their results.
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
