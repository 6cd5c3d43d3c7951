//! Whether the weights that a region becomes exist in the type that they will have: no weight
//! is too large for it, and no filter loses the precision that the type has.
//!
//! Rounding to a type moves a weight w by at most max(u·|w|, s/2), where u is half a unit in
//! the last place of 1 and s the distance between subnormal numbers. Errors of u·M are usual in
//! any filter, where M is the filter's largest weight. As s/2 = u·(smallest normal number), a
//! filter whose M is at least that number is as good as any, however small its other weights
//! are: 1e-40 beside 0.1 may vanish. In a filter with a smaller M, no weight kept its
//! precision: a kernel of 1e-3 times a scale of 1e-6 is all zeros in float16, and so is what it
//! makes.
//!
//! Where branches cancel, M is the largest weight that goes into the sum: the old graph
//! computes its branches to u·M, and the rest is no more exact than that.
//!
//! A bias needs no rule: it moves by max(u·|b|, s/2), and so does, in the old graph, the
//! rounding of what the block makes, which is of the same type. A shift in front of a kernel
//! needs one, where a shift t is divided by a scale c: the kernel then reads x + t/c instead of
//! numbers of about one, for which these rules are made, so |t/c| is bounded; and an error of
//! s/2 in t/c, times c, is more than an error of s/2 in t where c is large.
//!
//! Knows weights and the type that they will have; does not know whether a block pays.

use std::ops::Range;

use rayon::prelude::*;

use crate::affine::{Affine, Geometry, of_channel};
use crate::emit::term::{Term, TermKind};
use crate::numbers::{self, LazyWeights, larger, pieces};
use crate::onnx::float::Float;
use crate::onnx::ids::{IdMap, ValueId};
use crate::onnx::model::Invalid;
use crate::ops::meaning::{LinearOp, Meaning, SumOperand};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::net::{Net, PlannedForm};
use crate::plan::recipes::WeightError;
use crate::plan::region::Region;
use crate::refusal::{Reason, Unfit};

/// Checks that the weights of `region`, as it is `planned`, exist in `float`. They are computed
/// only if bounds of them leave that open. Anything else that cannot be computed is reported
/// when it is fused.
///
/// # Errors
/// Returns the reason if they do not exist.
pub fn check(
    net: &Net,
    region: &Region,
    planned: &PlannedForm,
    float: Float,
) -> Result<(), Reason> {
    let (reader, meanings) = (net.reader, net.meanings);
    let Ok(bounds) = bounds(reader, meanings, region) else { return Ok(()) };
    // A shift that is divided by a scale has no bounds.
    let divides =
        |term: &Term<Geometry>| term.kernels().skip(1).any(|kernel| kernel.kind != TermKind::Conv);
    let is_bounded = !planned.form.terms.iter().any(divides);
    if is_bounded && bounds.is_some_and(|bounds| bounds.fit(float)) {
        return Ok(());
    }
    match net.recipes.with_weights(planned.recipe, meanings, reader) {
        Ok(terms) => Ok(check_terms(&terms, float)?),
        Err(WeightError::Refusal(refusal)) => Err(refusal.into()),
        Err(WeightError::Invalid(_) | WeightError::NotEvaluated) => Ok(()),
    }
}

/// Checks that the weights of these terms exist in `float`.
///
/// # Errors
/// Returns the reason if they do not exist.
pub fn check_terms(terms: &[Term<Affine>], float: Float) -> Result<(), Unfit> {
    terms.iter().flat_map(Term::kernels).try_for_each(|term| check_term(term, float))
}

/// Bounds of the weights of a linear map, per term.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Upper bound on the weights.
    most: f64,
    /// Lower bound on the largest weight of each filter that is not all zeros.
    least: f64,
    /// Upper bound on the shifts.
    shift: f64,
    /// Whether each output is one number times one input.
    is_scale: bool,
    /// Whether a filter may be all zeros.
    has_zeros: bool,
}

impl Bounds {
    const IDENTITY: Bounds =
        Bounds { most: 1.0, least: 1.0, shift: 0.0, is_scale: true, has_zeros: false };

    fn fit(&self, float: Float) -> bool {
        let fits = |number: f64| number <= float.largest();
        fits(self.most) && fits(self.shift) && self.least >= float.smallest_normal()
    }

    /// Returns the bounds of this map followed by `outer`, of which `count` weights make one
    /// output.
    fn then(self, outer: Bounds, count: f64) -> Bounds {
        // Each output sums up `count` products, unless one of the two maps only scales.
        let sums = if self.is_scale || outer.is_scale { 1.0 } else { count };
        // The largest weight of a filter may meet a filter of zeros.
        let is_hidden = self.has_zeros && !outer.is_scale;
        Bounds {
            most: self.most * outer.most * sums,
            least: if is_hidden { 0.0 } else { self.least * outer.least },
            shift: self.shift * outer.most * count + outer.shift,
            is_scale: self.is_scale && outer.is_scale,
            has_zeros: self.has_zeros || outer.has_zeros,
        }
    }

    fn beside(self, other: Bounds) -> Bounds {
        Bounds {
            most: self.most.max(other.most),
            shift: self.shift.max(other.shift),
            ..self.plus(other)
        }
    }

    fn plus(self, other: Bounds) -> Bounds {
        Bounds {
            most: self.most + other.most,
            least: self.least.min(other.least),
            shift: self.shift + other.shift,
            is_scale: self.is_scale && other.is_scale,
            has_zeros: self.has_zeros || other.has_zeros,
        }
    }
}

/// Returns the bounds of what the region becomes; `None` if a kernel is not known.
fn bounds(
    reader: &Reader,
    meanings: &Meanings,
    region: &Region,
) -> Result<Option<Bounds>, Invalid> {
    let mut found: IdMap<ValueId, Bounds> = IdMap::default();
    let of = |found: &IdMap<ValueId, Bounds>, value: ValueId| {
        let source = meanings.source(value);
        let is_root = region.cuts.contains(&source);
        found.get(&source).copied().filter(|_| !is_root).unwrap_or(Bounds::IDENTITY)
    };
    for id in region.read_nodes() {
        let node = reader.graph.node(id);
        let Some(output) = node.output() else { continue };
        let bounds = match meanings.get(id) {
            Some(Meaning::Linear(input, map)) => {
                let Some((outer, count)) = of_map(reader, map)? else { return Ok(None) };
                of(&found, *input).then(outer, count)
            }
            Some(Meaning::Sum(summands)) => {
                let mut sum: Option<Bounds> = None;
                for SumOperand { operand, map, .. } in summands {
                    let own = match map {
                        Some(map) => match of_map(reader, map)? {
                            Some((outer, count)) => of(&found, *operand).then(outer, count),
                            None => return Ok(None),
                        },
                        None => of(&found, *operand),
                    };
                    sum = Some(sum.map_or(own, |sum| sum.plus(own)));
                }
                sum.unwrap_or(Bounds::IDENTITY)
            }
            Some(Meaning::Joined(operands)) => {
                let operands = operands.iter().map(|&(_, operand)| of(&found, operand));
                operands.reduce(Bounds::beside).unwrap_or(Bounds::IDENTITY)
            }
            Some(Meaning::Parted(whole, _)) => {
                let whole = of(&found, *whole);
                found.extend(node.outputs.iter().flatten().map(|&part| (part, whole)));
                continue;
            }
            Some(Meaning::Alias(_) | Meaning::Opaque(_)) | None => continue,
        };
        found.insert(output, bounds);
    }
    Ok(found.get(&region.output).copied())
}

/// Returns the bounds of one map, and how many of its weights make one output; `None` if its
/// kernel is not known.
fn of_map(reader: &Reader, map: &LinearOp) -> Result<Option<(Bounds, f64)>, Invalid> {
    let shift = largest(map.shift());
    Ok(Some(match map {
        LinearOp::Conv { kernel, geometry, layout, factor, .. } => {
            let Some(extremes) = reader.constants.extremes(*kernel, *layout)? else {
                return Ok(None);
            };
            let outputs = geometry.channels.map_or(1, |channels| channels.outputs).max(1);
            let factor = factor.abs();
            let (most, least) = (extremes.most * factor, extremes.least * factor);
            let has_zeros = extremes.has_zeros;
            let bounds = Bounds { most, least, shift, is_scale: false, has_zeros };
            (bounds, geometry.weights() / outputs as f64)
        }
        LinearOp::Diagonal { scale, .. } => {
            let not_zero = || scale.iter().map(|scale| scale.abs()).filter(|&scale| scale > 0.0);
            let bounds = Bounds {
                most: largest(scale),
                least: not_zero().fold(f64::INFINITY, f64::min),
                shift,
                is_scale: true,
                has_zeros: not_zero().count() < scale.len(),
            };
            (bounds, 1.0)
        }
        LinearOp::Filter { windows, weight, .. } => {
            let taps = windows.iter().map(|window| window.taps as f64).product();
            let weight = weight.abs();
            let (is_scale, has_zeros) = (taps == 1.0, weight == 0.0);
            (Bounds { most: weight, least: weight, shift, is_scale, has_zeros }, taps)
        }
        LinearOp::Bordered { map, .. } => return of_map(reader, map),
        LinearOp::Picked { .. } | LinearOp::Transpose { .. } | LinearOp::View(_) => {
            (Bounds::IDENTITY, 1.0)
        }
    }))
}

fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().map(|number| number.abs()).fold(0.0, larger)
}

/// What rounding does to one filter.
#[derive(Debug, Clone, Copy, Default)]
struct Filter {
    /// Its largest weight; NaN if one is no number.
    largest: f64,
    /// How many of its weights rounding moves.
    moved: usize,
}

fn check_term(term: &Term<Affine>, float: Float) -> Result<(), Unfit> {
    match term.kind {
        TermKind::Conv => {}
        TermKind::Shifted(_) => return check_shift(term.map.bias(), float),
        TermKind::Identity(_) | TermKind::Pointwise => return Ok(()),
    }
    let (kernel, bias) = (&term.map, term.map.bias());
    let outputs = bias.len().max(1);
    let length = kernel.count().checked_div(outputs).unwrap_or(0).max(1);
    let filters = |piece: Range<usize>| -> Vec<Filter> {
        let numbers = numbers::read(kernel, piece);
        numbers.chunks_exact(length).map(|weights| Filter::of(weights, float)).collect()
    };
    let pieces: Vec<Range<usize>> = pieces(outputs.saturating_mul(length), length).collect();
    let filters: Vec<Filter> = pieces.into_par_iter().flat_map_iter(filters).collect();
    let of_all: Vec<f64> = filters.iter().map(|filter| filter.largest).collect();
    let of_all = largest(&of_all);
    if !float.holds(&[of_all, largest(bias)]) {
        return Err(Unfit::NotFinite(float));
    }
    let bias_of = |channel: usize| of_channel(bias, channel).map_or(0.0, f64::abs);
    let lost = filters
        .iter()
        .enumerate()
        .find(|(channel, filter)| !filter.keeps_precision(float, bias_of(*channel), of_all));
    match lost {
        Some((channel, _)) => Err(Unfit::Imprecise { float, channel }),
        None => Ok(()),
    }
}

/// Upper bound on a shift in front of a kernel. Images have numbers up to 255, and what is
/// subtracted from them is of that size. A weight that is lost beside others is less than u²·M,
/// and in float16, this many times as much is less than u·M.
const MOST_SHIFTED: f64 = 1024.0;

/// Checks that a shift in front of a kernel, `x + t/c`, is in proportion. *Counter-examples*: a
/// channel that a norm has switched off, c = 1e-38 and t = 0.3, reads 3e37 then, and its
/// weights K·c are nothing; for c = 40000 and t = 1e-3, float16 stores a shift of zero.
fn check_shift(shifts: &[f64], float: Float) -> Result<(), Unfit> {
    let fits = |shift: f64| {
        shift == 0.0 || (float.smallest_normal()..=MOST_SHIFTED).contains(&shift.abs())
    };
    match shifts.iter().position(|&shift| !fits(shift)) {
        Some(channel) => Err(Unfit::Disproportionate { float, channel }),
        None => Ok(()),
    }
}

impl Filter {
    fn of(weights: &[f64], float: Float) -> Self {
        let moved = weights.iter().filter(|&&weight| float.round(weight) != weight).count();
        Filter { largest: largest(weights), moved }
    }

    /// Whether its weights are as exact as those of other filters, or need not be: beside
    /// `bias`, which is of the size of what the channel makes, or beside the largest weight
    /// `of_all` filters.
    fn keeps_precision(&self, float: Float, bias: f64, of_all: f64) -> bool {
        if self.moved == 0 || self.largest >= float.smallest_normal() {
            return true;
        }
        // Together, n errors of s/2, each as likely up as down, are √n·s/2, on inputs of about
        // one. The bias is rounded by u·|b| at the same place. A channel that a norm has
        // switched off is its shift and nothing else: γ = 1e-40, β = 0.1.
        let error = (self.moved as f64).sqrt() * float.smallest_normal() * float.unit();
        // A channel that training has let die adds less than what rounding the rounding errors
        // of the others does: 1e-39 beside 0.1, in float32.
        let is_dead = self.largest <= float.unit() * float.unit() * of_all;
        is_dead || error <= float.unit() * bias
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights of two filters, the second one's bias, the type, and whether the two keep their
    /// precision.
    #[test]
    fn filters_keep_their_precision_or_do_not() {
        use Float::{Bf16, F16, F32, F64};
        for (first, second, bias, float, keeps) in [
            ([0.5, 1e-3], [0.5, 1e-9], 0.0, F16, true),
            // All below 2⁻¹⁴.
            ([0.5, 1e-3], [1.1e-5, 1e-6], 0.0, F16, false),
            ([1e-5, 3e-6], [1e-5, 1e-6], 0.0, F16, false),
            // Multiples of 2⁻²⁴ lose nothing.
            ([0.5, 1e-3], [2f64.powi(-24), 2f64.powi(-20)], 0.0, F16, true),
            ([0.5, 0.0], [0.0, 0.0], 0.0, F16, true),
            // Beside a shift of 0.1, errors of 3e-8 are none.
            ([0.5, 1e-3], [1.1e-5, 1e-6], 0.1, F16, true),
            ([0.5, 1e-3], [1.1e-5, 1e-6], 1e-6, F16, false),
            // Less than the square of 2⁻¹¹ of the largest.
            ([0.5, 1e-3], [1e-8, 1e-9], 0.0, F16, true),
            ([0.5, 1e-3], [1e-39, 1e-40], 0.0, F32, true),
            ([1e-39, 1e-40], [1e-39, 1e-40], 0.0, F32, false),
            ([0.5, 1e-40], [0.5, 1e-40], 0.0, F32, true),
            ([1e-39, 1e-40], [1e-39, 1e-40], 0.0, Bf16, false),
            ([1e-39, 1e-40], [1e-39, 1e-40], 0.0, F64, true),
        ] {
            let all = first.iter().chain(&second).fold(0.0f64, |all, w| all.max(w.abs()));
            let found = Filter::of(&first, float).keeps_precision(float, 0.0, all)
                && Filter::of(&second, float).keeps_precision(float, bias, all);
            assert_eq!(found, keeps, "{first:?} {second:?} {bias} {float}");
        }
    }

    #[test]
    fn bounds_hold_what_is_computed() {
        let kernel = |most, least| Bounds { most, least, is_scale: false, ..Bounds::IDENTITY };
        let norm = Bounds { most: 4.0, least: 0.5, shift: 3.0, ..Bounds::IDENTITY };
        // Nine weights of 2 behind a norm, and the norm behind them.
        let after = norm.then(kernel(2.0, 0.1), 9.0);
        assert_eq!((after.most, after.least, after.shift), (8.0, 0.05, 54.0));
        let before = kernel(2.0, 0.1).then(norm, 1.0);
        assert_eq!((before.most, before.least, before.shift), (8.0, 0.05, 3.0));
        // Two kernels sum up products.
        assert_eq!(kernel(2.0, 0.1).then(kernel(3.0, 0.1), 9.0).most, 54.0);
        let zeros = Bounds { has_zeros: true, ..kernel(2.0, 0.1) };
        assert_eq!(zeros.then(kernel(3.0, 0.1), 9.0).least, 0.0);
        assert_eq!(zeros.then(norm, 1.0).least, 0.05);
        let sum = kernel(2.0, 0.1).plus(Bounds::IDENTITY);
        assert_eq!((sum.most, sum.least), (3.0, 0.1));
        assert!(!Bounds { most: f64::NAN, ..norm }.fit(Float::F32));
    }
}
