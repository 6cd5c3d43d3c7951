//! The proof of one rewrite: the nodes of the file against the new ones, in float64.
//!
//! From the fuser it takes only what is claimed ([`Claim`]): which tensor is computed from
//! which, by which new nodes, and for which inputs that is right. The old nodes and their
//! constants come from the file ([`Original`]), the inputs are chosen here ([`trials`]), and the
//! file tells whether the claim covers everything that it leaves open. That the written tensors
//! are the proved ones, correctly rounded, is checked by [`crate::verify::fingerprint`] and
//! [`crate::verify::readback`].
//!
//! Knows nothing of how the new nodes were found.

use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;

use ndarray::{ArrayD, IxDyn};

use crate::engine::{Array, Limits};
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::float::Float;
use crate::onnx::ids::{IdMap, ValueId};
use crate::onnx::proto::NodeProto;
use crate::onnx::write;
use crate::verify::border::FilledBorder;
use crate::verify::claim::{Claim, Side, TOLERANCE, Unproved};
use crate::verify::compare::{largest_difference, relative};
use crate::verify::cone::{Cone, Trial};
use crate::verify::cone_shapes::{ConeShapes, MAX_ELEMENTS};
use crate::verify::inputs::Random;
use crate::verify::nudged::differ_by_rounding;
use crate::verify::original::Original;
use crate::verify::trial_run::TrialRun;
use crate::verify::trials;
use crate::verify::yardstick::{Interior, TensorSpread, yardstick};

/// Approximate number of weights in the engine at a time: 4 MiB, of which the engine holds two
/// reordered copies while it computes.
const MOST_NUMBERS: usize = 1 << 19;

/// Limits of a proof.
#[derive(Debug, Clone, Copy)]
struct ProofLimits {
    /// Limits of the engine.
    engine: Limits,
    /// Approximate number of weights in the engine at a time.
    numbers: usize,
}

/// Proves a claim about `original`; returns the largest relative difference between both sides.
///
/// # Errors
/// Returns an error if the claim is wrong, if it does not hold for everything that the file
/// leaves open, or if that cannot be told.
pub fn prove(original: &Original, claim: &Claim, limits: Limits) -> Result<f64, Unproved> {
    prove_by(original, claim, limits, MOST_NUMBERS)
}

/// Proves a claim with about `most` weights in the engine at a time; the comparison is the same
/// for every `most`.
///
/// # Errors
/// As [`prove`].
pub fn prove_by(
    original: &Original,
    claim: &Claim,
    limits: Limits,
    most: usize,
) -> Result<f64, Unproved> {
    covers(original, &claim.valid)?;
    let limits = ProofLimits { engine: limits, numbers: most };
    let mut ends = IdMap::default();
    let mut as_filled = Vec::with_capacity(claim.borders.len());
    for border in &claim.borders {
        as_filled.push(prove_border(original, border, &claim.valid, limits)?);
        ends.insert(border.output, border.inner);
    }
    let filled = Filled { ends, as_filled };
    let proved = prove_from(original, claim, &claim.roots, &filled, limits);
    if !matches!(&proved, Err(differs) if differs.is_wrong()) {
        return proved;
    }
    let independent = independent_roots(original, claim);
    if independent.len() == claim.roots.len() {
        return proved;
    }
    match prove_from(original, claim, &independent, &filled, limits) {
        Err(unknown) if !unknown.is_wrong() => proved,
        other => other,
    }
}

/// Returns the roots that are not computed from other roots. *Counter-example to keeping all*:
/// in `K(x[1:]) + L(x) + M(mean(x[1:]))` the first two terms become one kernel on `x`, and the
/// last one still reads `x[1:]`; if any other tensor is fed in its place, old and new differ.
fn independent_roots(original: &Original, claim: &Claim) -> Vec<ValueId> {
    let is_independent = |root: &ValueId| {
        let others: Vec<ValueId> =
            claim.roots.iter().copied().filter(|other| other != root).collect();
        let from_others = original.cone(*root, &others, &IdMap::default());
        from_others.map_or(true, |cone| cone.roots.is_empty())
    };
    claim.roots.iter().copied().filter(is_independent).collect()
}

/// The borders as the file fills them.
struct Filled {
    /// Maps each tensor with a border to the tensor inside, from which it is taken to be made.
    ends: IdMap<ValueId, ValueId>,
    /// The filled borders, in the order of the claim's.
    as_filled: Vec<FilledBorder>,
}

/// Proves that both sides compute the same from `roots`, from which all other tensors that they
/// read are computed; returns the largest relative difference.
fn prove_from(
    original: &Original,
    claim: &Claim,
    roots: &[ValueId],
    Filled { ends, as_filled }: &Filled,
    limits: ProofLimits,
) -> Result<f64, Unproved> {
    let cone = original.cone(claim.output, roots, ends)?;
    let trials = trials::choose(original, &cone, claim)?;
    let old = old_side(original, &cone, &claim.borders)?;
    let differs = claim.borders.iter().zip(as_filled).find(|(one, other)| !one.is_nearly(other));
    if let Some((border, _)) = differs {
        let filled = old_side(original, &cone, as_filled)?;
        let float = original.constants.element_type(border.output).and_then(Float::from_onnx);
        let nudge = NUDGE * float.unwrap_or(Float::F32).unit().max(Float::F32.unit());
        let output = original.graph.value(cone.output).name;
        for trials in few_at_a_time(&trials, limits.numbers) {
            let together = TrialRun { original, cone: &cone, trials, most: limits.numbers };
            let sides = [&old, &filled];
            if !differ_by_rounding(&together, output, sides, nudge, limits.engine)? {
                let name = original.graph.value(border.output).name.to_owned();
                return Err(Unproved::BorderDiffers(name));
            }
        }
    }
    let new = new_side(original, &cone, claim, roots)?;
    compare(original, &cone, ends, [&old, &new], &trials, limits)
}

/// Checks that `valid` holds for every input that the file and the user leave open. A lower
/// bound on an unknown size may be demanded: the report states it.
fn covers(original: &Original, valid: &Validity) -> Result<(), Unproved> {
    for condition in valid.conditions() {
        let is_known = match condition.property {
            Property::Size(axis, SizeSet::AtLeast(_)) => {
                let dims = original.sizes.known(condition.tensor);
                dims.is_some_and(|dims| dims.get(axis).copied().flatten().is_some())
            }
            _ => true,
        };
        if is_known && !original.sizes.promises(condition)? {
            return Err(Unproved::TooNarrow(condition.describe(original.graph)));
        }
    }
    Ok(())
}

/// Returns the old nodes, with each node that fills a border replaced by nodes that fill it at
/// every size; [`prove_border`] proves that both do the same.
///
/// # Errors
/// As [`Original::side`].
pub fn old_side(
    original: &Original,
    cone: &Cone,
    borders: &[FilledBorder],
) -> Result<Side, Unproved> {
    let mut side = original.side(cone)?;
    for border in borders {
        let name = original.graph.value(border.output).name;
        let makes_it = |node: &NodeProto| node.output.first().is_some_and(|output| output == name);
        if let Some(place) = side.nodes.iter().position(makes_it) {
            let (nodes, constants) = border.nodes(original.graph);
            side.nodes.splice(place..=place, nodes);
            side.constants.extend(constants);
        }
    }
    Ok(side)
}

/// Returns the new nodes, together with the unchanged old nodes that compute the other roots of
/// the claim from `roots`, and with the constants that these nodes read, roots included.
fn new_side(
    original: &Original,
    cone: &Cone,
    claim: &Claim,
    roots: &[ValueId],
) -> Result<Side, Unproved> {
    let mut side = Side { nodes: Vec::new(), constants: claim.new.constants.clone() };
    for &computed in claim.roots.iter().filter(|root| !roots.contains(root)) {
        let made = original.side(&original.cone(computed, roots, &IdMap::default())?)?;
        let is_new = |node: &NodeProto| !side.nodes.contains(node);
        let nodes: Vec<NodeProto> = made.nodes.into_iter().filter(is_new).collect();
        side.nodes.extend(nodes);
        for constant in made.constants {
            if side.constants.iter().all(|known| known.name() != constant.name()) {
                side.constants.push(constant);
            }
        }
    }
    // Roots are given; a Transpose is turned back only for a tensor that follows from a root.
    let is_root =
        |name: &String| claim.roots.iter().any(|&root| original.graph.value(root).name == *name);
    let turned = claim.turned.iter().filter_map(write::turned_back);
    side.nodes.extend(turned.filter(|node| !node.output.iter().any(is_root)));
    claim.new.nodes.iter().cloned().for_each(|node| side.push(node));
    for root in claim.roots.iter().filter(|root| cone.constants.contains(root)) {
        side.constants.push(original.value(*root)?);
    }
    Ok(side)
}

/// The values of the old nodes in one trial.
#[derive(Debug, Clone, Default)]
struct OldValues {
    output: Option<Array>,
    /// The spread of each root, of each tensor on the way to the output, and of the output.
    spreads: HashMap<String, TensorSpread>,
}

impl OldValues {
    fn is_finite(&self) -> bool {
        self.spreads.values().all(|spread| spread.is_finite)
    }

    /// Returns the magnitude to which a difference is relative: the largest value on the way to
    /// the output of the cone, in the unit of the output.
    fn magnitude(&self, original: &Original, cone: &Cone, moved: &IdMap<ValueId, ValueId>) -> f64 {
        let seen = |id| {
            let name = original.graph.value(id).name;
            Ok::<_, Infallible>(self.spreads.get(name).map(Cow::Borrowed))
        };
        let interior = Interior { nodes: &cone.nodes, moved };
        let Ok(way) = yardstick(original.graph, &interior, cone.output, &seen);
        way.largest
    }
}

/// Runs both sides on all trials and compares their outputs.
fn compare(
    original: &Original,
    cone: &Cone,
    moved: &IdMap<ValueId, ValueId>,
    [old, new]: [&Side; 2],
    trials: &[Trial],
    limits: ProofLimits,
) -> Result<f64, Unproved> {
    let output = original.graph.value(cone.output).name;
    check_size(original, cone, &[], trials)?;
    // Of the old side, every tensor is looked at.
    let ways = old.nodes.iter().filter_map(|node| node.output.first());
    let ways = ways.filter(|&name| *name != output).map(String::as_str);
    let seen: Vec<&str> = [output].into_iter().chain(ways).collect();
    let mut random = Random::new(SEED);
    let mut largest = 0.0f64;
    for trials in few_at_a_time(trials, limits.numbers) {
        let together = TrialRun { original, cone, trials, most: limits.numbers };
        let shapes = trials.iter().flat_map(|trial| &trial.shapes);
        let inputs: Vec<Array> = shapes.map(|shape| random.floats(shape)).collect();
        let mut expected = vec![OldValues::default(); trials.len()];
        let roots = cone.roots.iter().map(|&root| original.graph.value(root).name);
        for (expected, inputs) in expected.iter_mut().zip(inputs.chunks(cone.roots.len().max(1))) {
            expected.spreads =
                roots.clone().map(str::to_owned).zip(inputs.iter().map(TensorSpread::of)).collect();
        }
        together.run(old, &seen, &inputs, limits.engine, &mut |trial, name, made| {
            let Some(expected) = expected.get_mut(trial) else { return };
            expected.spreads.insert(name.to_owned(), TensorSpread::of(made));
            if name == output {
                expected.output = Some(made.clone());
            }
        })?;
        let found = together.outputs(new, output, &inputs, limits.engine)?;
        for (expected, found) in expected.iter().zip(&found) {
            let Some(first) = &expected.output else { continue };
            if first.shape().contains(&0) {
                return Err(Unproved::NoElements);
            }
            // Relative to an infinite value, every difference would be zero.
            if !expected.is_finite() {
                return Err(Unproved::NotFinite);
            }
            let magnitude = expected.magnitude(original, cone, moved);
            let error = relative(largest_difference(first, found), magnitude);
            if error.is_nan() || error > TOLERANCE {
                return Err(Unproved::Differs { error });
            }
            largest = largest.max(error);
        }
    }
    Ok(largest)
}

/// How far a stored number is moved to see what rounding may do to the old nodes, in units of
/// what rounding moves a number by in the model's type or in float32, whichever is coarser.
const NUDGE: f64 = 16.0;

/// Seed of the inputs of every proof.
pub const SEED: u64 = 1;

/// Checks that the inputs of all trials together are few enough to be made, and that no tensor on
/// the way is too large in the largest trial: a Resize may make a tensor that nobody can hold.
///
/// # Errors
/// Returns an error if either has more than [`MAX_ELEMENTS`] elements.
fn check_size(
    original: &Original,
    cone: &Cone,
    borders: &[FilledBorder],
    trials: &[Trial],
) -> Result<(), Unproved> {
    let inputs = trials.iter().map(Trial::elements).fold(0, usize::saturating_add);
    let known = |size: &usize| i64::try_from(*size).ok();
    let made = trials.iter().max_by_key(|trial| trial.elements()).map(|trial| {
        let dims = |shape: &Vec<usize>| shape.iter().map(known).collect();
        let roots: Vec<_> = trial.shapes.iter().map(dims).collect();
        ConeShapes::forward(original, cone, borders, &roots).largest()
    });
    let largest = inputs.max(made.unwrap_or(0));
    if largest > MAX_ELEMENTS { Err(Unproved::TooLarge(largest)) } else { Ok(()) }
}

/// Groups trials that are run together: the inputs of a group have at most `most` elements in
/// all, or the group is a single trial.
fn few_at_a_time(trials: &[Trial], most: usize) -> Vec<&[Trial]> {
    let mut rest = trials;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let mut elements = 0usize;
        let fit = rest.iter().take_while(|trial| {
            elements = elements.saturating_add(trial.elements());
            elements <= most
        });
        let (together, others) = rest.split_at(fit.count().max(1));
        all.push(together);
        rest = others;
    }
    all
}

/// Proves that the nodes of the file put this border around its tensor, whatever the tensor
/// holds; returns the border with the values that they fill it with.
fn prove_border(
    original: &Original,
    border: &FilledBorder,
    valid: &Validity,
    limits: ProofLimits,
) -> Result<FilledBorder, Unproved> {
    let output = original.graph.value(border.output).name;
    if !original.only_moves(border.output, border.inner) {
        return Err(Unproved::BorderDiffers(output.to_owned()));
    }
    let cone = original.cone(border.output, &[border.inner], &IdMap::default())?;
    let side = original.side(&cone)?;
    let trials = trials::of_border(original, &cone, border, valid)?;
    check_size(original, &cone, std::slice::from_ref(border), &trials)?;
    let together = TrialRun { original, cone: &cone, trials: &trials, most: limits.numbers };
    let inputs: Vec<ArrayD<f64>> =
        trials.iter().flat_map(|trial| &trial.shapes).map(|shape| all_different(shape)).collect();
    let given: Vec<Array> = inputs.iter().cloned().map(Array::Float).collect();
    let found = together.outputs(&side, output, &given, limits.engine)?;
    let filled = |(input, found): (&ArrayD<f64>, &Array)| match found {
        Array::Float(found) => border.filling(input, found),
        Array::Int(_) => None,
    };
    let mut all = inputs.iter().zip(&found).map(filled);
    let first = all.next().flatten();
    let values = first.filter(|first| all.all(|other| other.as_ref() == Some(first)));
    let values = values.ok_or_else(|| Unproved::BorderDiffers(output.to_owned()))?;
    Ok(FilledBorder { values, ..border.clone() })
}

/// Returns an array whose elements have pairwise different magnitudes and both signs; none of
/// them is a number that a model holds.
fn all_different(shape: &[usize]) -> ArrayD<f64> {
    let mut next = std::f64::consts::FRAC_1_PI;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        next = -(next + next.signum());
        next
    })
}
