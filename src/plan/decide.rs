//! Whether a region becomes a block: its normal form is legal, can be written, costs less than
//! what goes away, and has weights that exist in the model's type.
//!
//! Knows one region at a time, and what regions share; gives no names and writes nothing.

use crate::affine::{ConvKind, Geometry, Refusal};
use crate::emit::term::{Term, TermKind};
use crate::facts::roles;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::float::Float;
use crate::onnx::ids::{IdSet, NodeId};
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::block::Block;
use crate::plan::cost::{self, Cost};
use crate::plan::describe::Branches;
use crate::plan::fit;
use crate::plan::region::Region;
use crate::plan::share::Sharing;
use crate::refusal::{NotLinear, Reason};

/// No kernel of a real network has more weights; a bound on what is allocated.
const MAX_WEIGHTS: f64 = (1u64 << 31) as f64;

/// The block that `region` becomes, which has no names yet. Nodes that are `claimed` go away
/// with another block; what others share in is its `credit`.
///
/// # Errors
/// Why it is left alone.
pub fn block(
    reader: &Reader,
    meanings: &Meanings,
    region: &Region,
    shared: &Sharing,
    claimed: &IdSet<NodeId>,
    credit: Cost,
) -> Result<Block, Reason> {
    let shape = |map: &LinearOp| Ok::<_, Refusal>(map.geometry());
    let (terms, mut valid) = region.evaluate(meanings, reader, &Geometry::identity(), shape)?;
    let mut crops = Validity::default();
    terms.iter().try_for_each(|term| require_enough_to_crop(term, &mut crops))?;
    // Where that is open, nothing that the report says would keep a caller from it.
    must_hold(reader, &crops, |size, sizes| size.is_some_and(|size| sizes.contains(size)))?;
    valid.intersect(&crops);
    must_hold(reader, &valid, |size, sizes| size.is_none_or(|size| sizes.contains(size)))?;
    let mut orders =
        terms.iter().filter(|term| term.kind == TermKind::Conv).map(|term| &term.map.output);
    if orders.next().is_some_and(|first| orders.any(|other| other != first)) {
        return Err(Refusal::Axes.into());
    }
    let after = cost::of_sum(&terms, reader.graph.model.opset);
    let (before, removed) = shared.cost_of(reader, meanings, region, claimed);
    let emittable = terms.iter().all(|term| term.kind != TermKind::Pointwise);
    let weighted = terms.iter().any(|term| term.kind == TermKind::Conv);
    let profitable = (after.nodes as f64) < before.nodes as f64 + credit.nodes
        && after.parameters <= before.parameters + credit.weights
        && after.macs.no_more_than(&before.macs);
    if !(emittable && weighted && profitable) {
        return Err(Reason::Dearer { before: before.parameters, after: after.parameters });
    }
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
    fit::check(reader, meanings, region, float)?;
    let described = Branches { reader, meanings, region, terms: &terms };
    let (branches, drawing) = described.of(region.output);
    let norms =
        region.nodes.iter().filter(|&&id| roles::is_batch_norm(reader.graph.node(id))).count();
    Ok(Block {
        removed,
        name: String::new(),
        stem: String::new(),
        tensors: String::new(),
        branches,
        drawing,
        norms,
        terms,
        valid,
        float,
        before,
        after,
        region: region.clone(),
    })
}

/// A kernel that begins inside its input and reaches beyond the other end is written as a
/// Slice and a padded convolution: `x[2:]`, padded by 3 behind. Of 1 element that Slice
/// leaves 0, not −1, and the convolution makes one output too many.
///
/// # Errors
/// If it is a view that would be cropped, of which nobody knows sizes.
fn require_enough_to_crop(term: &Term<Geometry>, valid: &mut Validity) -> Result<(), Refusal> {
    let gathers = term.map.kind != ConvKind::ConvTranspose;
    for (axis, window) in term.map.windows.iter().enumerate().filter(|_| gathers) {
        let (before, behind) = window.pads();
        if before.min(behind) < 0 && before.max(behind) > 0 {
            if !term.before.is_empty() {
                return Err(Refusal::View);
            }
            let along = term.map.input.axis(axis.saturating_add(2));
            let least = 1_i64.saturating_sub(before.min(behind));
            valid.require(term.root, Property::Size(along, SizeSet::AtLeast(least)));
        }
    }
    Ok(())
}

/// Whether all sizes that `valid` is about are right, as far as they are known.
fn must_hold(
    reader: &Reader,
    valid: &Validity,
    is_right: fn(Option<i64>, &SizeSet) -> bool,
) -> Result<(), Reason> {
    for condition in valid.conditions() {
        let Property::Size(axis, sizes) = &condition.property else { continue };
        let known = reader.sizes.by_rules(condition.tensor);
        let size = known.and_then(|dims| dims.get(*axis).copied().flatten());
        if !is_right(size, sizes) {
            return Err(Reason::OutOfRange(condition.describe(reader.graph)));
        }
    }
    Ok(())
}
