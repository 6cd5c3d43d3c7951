//! Chooses the inputs on which a block is tried, from the nodes that stand in the file, what is
//! known of the tensors that they read, and what the claim says it is right for.
//!
//! Where sizes are free, they are those of [`small_trials`](crate::verify::small_trials); where
//! a condition binds them, they are those that the file gives, and such as networks have where
//! the file leaves the sizes of its inputs open.
//!
//! Of the new nodes it knows how far they look, which can only make maps larger: otherwise a
//! wrong weight beyond all taps of the old nodes would meet no element.

use crate::engine::InputShapes;
use crate::facts::reach::Reach;
use crate::facts::shape_rules::Dims;
use crate::facts::shapes::Sizes;
use crate::facts::validity::{Condition, Property, SizeSet, Validity};
use crate::onnx::ids::ValueId;
use crate::onnx::proto::NodeProto;
use crate::verify::border::FilledBorder;
use crate::verify::claim::{Claim, Unproved};
use crate::verify::cone::{Cone, Trial};
use crate::verify::original::Original;
use crate::verify::small_trials::{BATCH, Chooser};

/// Returns the trials of `cone` for what the conditions of `claim` leave open.
///
/// # Errors
/// Returns an error if there are no sizes at which it can be tried.
pub fn choose(original: &Original, cone: &Cone, claim: &Claim) -> Result<Vec<Trial>, Unproved> {
    let Claim { valid, borders, new, .. } = claim;
    // Conditions of a border are tried with the border.
    let is_of_border =
        |condition: &Condition| borders.iter().any(|border| border.inner == condition.tensor);
    let of_block = || valid.conditions().iter().filter(|condition| !is_of_border(condition));
    let mut own = Validity::default();
    of_block().for_each(|condition| own.require(condition.tensor, condition.property.clone()));
    let reads_integers = own.conditions().iter().any(Condition::is_of_integers);
    if cone.measured.is_empty() && !reads_integers {
        let new_borders = outputs_at_borders(&new.nodes);
        let chooser = Chooser { original, cone, valid: &own, borders, new_borders };
        if let Some(trials) = chooser.small()? {
            return Ok(trials);
        }
        // A claim for all sizes is not proved at those of the file.
        if !own.conditions().iter().any(Condition::is_of_one_size) {
            return Err(Unproved::NoSizes);
        }
    }
    as_in_the_file(original, cone)
}

/// Returns how many outputs along an axis may depend on what lies beyond a border, by the pads
/// of all `nodes` together.
fn outputs_at_borders(nodes: &[NodeProto]) -> i64 {
    nodes.iter().fold(0, |before, node| match Reach::of(node, None) {
        Some(reach) => reach.borders(before),
        None => before,
    })
}

/// Returns trials of the nodes that fill `border`: at three sizes and batches, or at those that
/// the file gives if `valid` binds them.
///
/// # Errors
/// Returns an error if these are not known.
pub fn of_border(
    original: &Original,
    cone: &Cone,
    border: &FilledBorder,
    valid: &Validity,
) -> Result<Vec<Trial>, Unproved> {
    let is_bound = |condition: &Condition| {
        let of_size = matches!(
            condition.property,
            Property::Size(_, SizeSet::Exactly(_)) | Property::Integers(_)
        );
        of_size && condition.tensor == border.inner
    };
    if !cone.measured.is_empty() || valid.conditions().iter().any(is_bound) {
        return as_in_the_file(original, cone);
    }
    let unknown = || Unproved::SizeUnknown(original.graph.value(border.inner).name.to_owned());
    let rank = original.sizes.rank_and_more(border.inner).ok_or_else(unknown)?.len();
    let channels = original.sizes.known_size(border.inner, 1);
    let channels = channels.and_then(|channels| usize::try_from(channels).ok());
    let channels = channels.ok_or_else(unknown)?;
    let shape = |batch: usize, size: usize| {
        let spatial = (0..rank.saturating_sub(2)).map(|axis| size.saturating_add(axis));
        let shapes = vec![[batch, channels].into_iter().chain(spatial).collect()];
        Trial { shapes, measured: Vec::new() }
    };
    Ok(vec![shape(1, 5), shape(2, 8), shape(6, 11)])
}

/// Returns trials of the sizes that the graph's inputs have; where some are open, at least two,
/// with other batches and sizes, even and odd.
fn as_in_the_file(original: &Original, cone: &Cone) -> Result<Vec<Trial>, Unproved> {
    let mut trials: Vec<Trial> = Vec::new();
    let mut unknown = None;
    let mut assigned: Vec<InputShapes> = Vec::new();
    for open in OPEN_SIZES {
        let inputs = assignment(original, open);
        if !assigned.contains(&inputs) {
            assigned.push(inputs);
        }
    }
    for inputs in &assigned {
        match trial_of(original, cone, inputs) {
            Ok(trial) if trials.contains(&trial) => {}
            Ok(trial) => trials.push(trial),
            // Not every size fits every network.
            Err(name) => unknown = Some(name),
        }
    }
    match unknown {
        Some(name) if trials.len() < assigned.len().min(2) => Err(Unproved::SizeUnknown(name)),
        _ => Ok(trials),
    }
}

/// Returns the trial that inputs of these shapes make.
///
/// # Errors
/// Returns the name of a tensor whose dimensions do not follow from them.
fn trial_of(original: &Original, cone: &Cone, inputs: &InputShapes) -> Result<Trial, String> {
    let sizes = Sizes::new(original.graph, original.constants, inputs);
    let known = |&id: &ValueId| {
        let dims = sizes.known(id).and_then(|dims| {
            dims.into_iter().map(|size| usize::try_from(size?).ok()).collect::<Option<_>>()
        });
        dims.ok_or_else(|| original.graph.value(id).name.to_owned())
    };
    let shapes = cone.roots.iter().map(known).collect::<Result<_, _>>()?;
    let measured = cone.measured.iter().map(|(_, id)| known(id)).collect::<Result<_, _>>()?;
    Ok(Trial { shapes, measured })
}

/// Sizes for what graph inputs leave open: a batch, the size of the first axis behind it, and by
/// how much that of each further axis is larger. Some are such as networks ask for, multiples of
/// 32, and the others have all remainders of 2, 3 and 4.
const OPEN_SIZES: [(usize, usize, usize); 4] = [(1, 64, 32), (2, 96, 64), (6, 35, 1), (2, 65, 1)];

/// Returns the shapes of all graph inputs: their own sizes, and these where they are open.
fn assignment(original: &Original, (batch, size, step): (usize, usize, usize)) -> InputShapes {
    let along = |axis: usize| size.saturating_add(step.saturating_mul(axis.saturating_sub(1)));
    let inputs = original.graph.inputs().into_iter().enumerate();
    // Nothing promises that two inputs have the same size.
    let shape = |(number, (name, _)): (usize, (String, Option<Dims>))| {
        let along = |axis: usize| along(axis).saturating_add(number);
        let batch = batch.saturating_add(number);
        let dims = original.sizes.of_input(original.graph.find(&name)?)?;
        let sized = dims.iter().enumerate().map(|(axis, known)| match known {
            Some(known) => usize::try_from(*known).ok(),
            None => Some(if axis == BATCH { batch } else { along(axis) }),
        });
        Some((name, sized.collect::<Option<Vec<usize>>>()?))
    };
    inputs.filter_map(shape).collect()
}
