//! Whether what is planned becomes a block: it is right for the sizes that are known, and its
//! weights exist in the model's type.
//!
//! Knows one region at a time; gives no names and writes nothing.

use crate::facts::roles;
use crate::facts::validity::Validity;
use crate::onnx::float::Float;
use crate::onnx::ids::{IdSet, NodeId};
use crate::ops::meaning::{LinearOp, Meaning};
use crate::plan::block::Block;
use crate::plan::cost::Count;
use crate::plan::describe::Branches;
use crate::plan::fit;
use crate::plan::net::{Net, PlannedForm};
use crate::plan::region::Region;
use crate::refusal::{NotLinear, Reason};

/// No kernel of a real network has more weights; a bound on what is allocated.
const MAX_WEIGHTS: f64 = (1u64 << 31) as f64;

/// The block that `region` becomes as it is `planned`, which has no names yet. What it `replaced`
/// costs goes away.
///
/// # Errors
/// Why it is left alone.
pub fn block(
    net: &Net,
    region: &Region,
    planned: &PlannedForm,
    replaced: (Count, IdSet<NodeId>),
) -> Result<Block, Reason> {
    let (reader, meanings) = (net.reader, net.meanings);
    let (valid, float) = fitting(net, region, planned)?;
    let (before, removed) = replaced;
    let terms = planned.form.terms.clone();
    let described = Branches { reader, meanings, region, terms: &terms };
    let (branches, drawing) = described.of(region.output);
    let is_norm = |&&id: &&NodeId| roles::is_batch_norm(reader.graph.node(id));
    let norms = region.nodes.iter().filter(is_norm).count();
    Ok(Block {
        removed,
        name: String::new(),
        stem: String::new(),
        tensors: String::new(),
        branches,
        drawing,
        norms,
        terms,
        recipe: planned.recipe,
        valid,
        float,
        before,
        after: planned.count,
        region: region.clone(),
    })
}

/// For which inputs the block is right, and the type of its weights.
fn fitting(net: &Net, region: &Region, planned: &PlannedForm) -> Result<(Validity, Float), Reason> {
    let (reader, meanings) = (net.reader, net.meanings);
    let mut valid = planned.form.validity(reader)?;
    valid.intersect(&region.validity(meanings));
    let after = planned.count;
    if after.parameters >= MAX_WEIGHTS {
        return Err(Reason::Limit("kernels of 2³¹ weights and more are not fused"));
    }
    let kernels = region.nodes.iter().filter_map(|&id| match meanings.get(id) {
        Some(Meaning::Linear(_, LinearOp::Conv { float, .. })) => Some((id, *float)),
        _ => None,
    });
    let float = kernels.clone().next().map_or(Float::F32, |(_, float)| float);
    // What they are added to each other in is no node, whatever its inputs' types are.
    if let Some((id, _)) = kernels.clone().find(|(_, other)| *other != float) {
        let node = reader.graph.node(id).label().to_owned();
        let why = NotLinear::Malformed("its kernel has another type than those beside it");
        return Err(Reason::NotLinear { node, why });
    }
    fit::check(net, region, planned.recipe, float)?;
    Ok((valid, float))
}
