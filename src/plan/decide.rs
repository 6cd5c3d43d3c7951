//! Whether what is planned becomes a block: it must be right for the sizes that are known, and
//! its weights must exist in the model's type.
//!
//! Knows one region at a time; gives no names and writes nothing.

use crate::affine::{Geometry, LEAST_SQNR, MOST_LOST, branch};
use crate::emit::term::Term;
use crate::facts::roles;
use crate::facts::validity::Validity;
use crate::onnx::float::Float;
use crate::onnx::ids::NodeId;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::reader::Reader;
use crate::options::KeepIdentity;
use crate::plan::block::Block;
use crate::plan::border;
use crate::plan::cost::{self, Count, Gain};
use crate::plan::describe::Branches;
use crate::plan::fit;
use crate::plan::keep::{self, KeptBranch};
use crate::plan::net::{Net, PlannedForm};
use crate::plan::region::Region;
use crate::plan::replaced::Removed;
use crate::refusal::{NotLinear, Reason};

/// Upper bound on the weights of one block, and so on what is allocated; no kernel of a real
/// network has more.
const MAX_WEIGHTS: f64 = (1u64 << 31) as f64;

/// Least signal-to-noise ratio, in dB, that a kernel must be left with for a branch that stands
/// apart in the file to join it. It is higher than where a branch would be left apart, since a
/// kernel that was equalized after that is more exact.
const LEAST_TO_JOIN: f64 = LEAST_SQNR + MOST_LOST;

/// Returns the block that `region` becomes as it is `planned`, in the place of what is
/// `removed`; it has no names yet.
///
/// # Errors
/// Returns the reason if the region is left alone.
pub fn block(
    net: &Net,
    region: &Region,
    planned: &PlannedForm,
    removed: Removed,
    keep: KeepIdentity,
) -> Result<Block, Reason> {
    let (reader, meanings) = (net.reader, net.meanings);
    let (valid, float) = fitting(net, region, planned)?;
    let Removed { nodes: removed, count: before } = removed;
    let Parted { terms, kept, after } = parted(net, planned, float, before, keep)?;
    let described = Branches { reader, meanings, region, terms: &planned.form.terms };
    let (branches, drawing) = described.of(region.output);
    let is_norm = |&&id: &&NodeId| roles::is_batch_norm(reader.graph.node(id));
    let norms = region.nodes.iter().filter(is_norm).count();
    Ok(Block {
        byproduct: None,
        turned_roots: Vec::new(),
        removed,
        name: String::new(),
        stem: String::new(),
        tensor_stem: String::new(),
        branches,
        drawing,
        norms,
        terms,
        kept,
        recipe: planned.recipe,
        valid,
        float,
        before,
        after,
        region: region.clone(),
    })
}

/// Returns the inputs for which the block is right, and the type of its weights.
fn fitting(net: &Net, region: &Region, planned: &PlannedForm) -> Result<(Validity, Float), Reason> {
    let (reader, meanings) = (net.reader, net.meanings);
    let mut valid = planned.form.validity(reader)?;
    valid.intersect(&region.validity(meanings));
    has_elements(reader, region)?;
    if planned.count.parameters >= MAX_WEIGHTS {
        return Err(Reason::Limit("kernels of 2³¹ weights and more are not fused"));
    }
    let kernels = region.nodes.iter().filter_map(|&id| match meanings.get(id) {
        Some(Meaning::Linear(_, LinearOp::Conv { float, .. })) => Some((id, *float)),
        _ => None,
    });
    let float = kernels.clone().next().map_or(Float::F32, |(_, float)| float);
    // A node that adds results of two types is invalid, whatever the types of its inputs are.
    if let Some((id, _)) = kernels.clone().find(|(_, other)| *other != float) {
        let node = reader.graph.node(id).label().to_owned();
        let why = NotLinear::Malformed("its kernel has another type than those beside it");
        return Err(Reason::NotLinear { node, why });
    }
    fit::check(net, region, planned, float)?;
    border::check(reader, meanings, region, float)?;
    Ok((valid, float))
}

/// Checks that what the region reads and makes is not empty. Engines do not agree on what an
/// operator makes of an empty map: two nodes may run where one does not.
fn has_elements(reader: &Reader, region: &Region) -> Result<(), Reason> {
    let mut tensors = region.cuts.iter().chain([&region.output]);
    tensors.find(|&&id| reader.sizes.is_empty_map(id)).map_or(Ok(()), |&empty| {
        let name = reader.graph.value(empty).name;
        Err(Reason::OutOfRange(format!("`{name}` is not empty")))
    })
}

/// What a block is written as, and its cost.
struct Parted {
    terms: Vec<Term<Geometry>>,
    kept: Vec<KeptBranch>,
    after: Count,
}

/// Returns the terms of what is `planned`, with the branches apart that are kept, in the place
/// of nodes that cost `before`.
///
/// # Errors
/// Returns an error if the file has that already, or if its weights do not exist in this type.
fn parted(
    net: &Net,
    planned: &PlannedForm,
    float: Float,
    before: Count,
    keep: KeepIdentity,
) -> Result<Parted, Reason> {
    let (reader, terms) = (net.reader, planned.form.terms.clone());
    let as_planned = Parted { terms, kept: Vec::new(), after: planned.count };
    if keep == KeepIdentity::Never {
        return Ok(as_planned);
    }
    // If the weights cannot be computed, that is reported when the block is fused.
    let terms = net.recipes.with_weights(planned.recipe, net.meanings, reader);
    let Ok(terms) = terms else { return Ok(as_planned) };
    let apart = |kept: &[KeptBranch]| {
        let terms = keep::parted(terms.clone(), kept);
        let shapes: Vec<Term<Geometry>> = terms.iter().map(Term::shape).collect();
        let after = cost::of_sum(&shapes, reader.forms);
        (terms, Parted { terms: shapes, kept: kept.to_vec(), after })
    };
    let pays = |parted: &Parted| {
        Gain { before, after: net.cost(&parted.terms) }.pays_beyond(&Gain::default())
    };
    let kept = keep::kept(&terms, float, keep, LEAST_SQNR).map_err(|kept| stays_apart(&kept))?;
    let Some(first) = kept.first() else {
        // A branch that stands apart in the file may have been equalized since it was left so.
        // A branch that cannot be written apart does not stand apart.
        let lost = keep::kept(&terms, float, keep, LEAST_TO_JOIN).unwrap_or_default();
        let stays = lost.first().filter(|_| !pays(&apart(&lost).1));
        return stays.map_or(Ok(as_planned), |first| Err(stays_apart(first)));
    };
    let (terms, parted) = apart(&kept);
    if !pays(&parted) || !parted.terms.iter().all(|term| term.is_read(reader.forms)) {
        return Err(stays_apart(first));
    }
    fit::check_terms(&terms, float)?;
    Ok(parted)
}

fn stays_apart(kept: &KeptBranch) -> Reason {
    let branch = branch(kept.branch.kernel.as_deref());
    Reason::KeptApart { branch, together: kept.together, apart: kept.apart }
}
