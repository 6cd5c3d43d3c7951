//! Whether a border that is filled with numbers holds what the nodes inside it give, as far as
//! the model's own arithmetic can tell the two apart.
//!
//! Exporters compute the shift β − μγ/σ of a norm, and the numbers with which DBB fills the
//! border of its 1×1 convolution, separately and each in the model's type. Where β and μγ/σ
//! cancel, the two differ by a thousandth of themselves. At an output of the block this makes
//! Σ|w|·|difference|, over the kernels behind the border. There are constants on the way to
//! that output, whatever the input is: Σ|w|·|border|, and the biases behind the border and
//! beside it. The old nodes round their sum, so a difference that is as small as that rounding
//! is none. *Counter-example to the largest channel as the measure*: beside a bias of 1e6, one
//! of 0.01 could be anything, in a kernel that reads the two channels apart.
//!
//! Knows a region and its weights; does not know why it is planned.

use crate::affine::{Affine, Linear, of_channel};
use crate::numbers;
use crate::onnx::float::Float;
use crate::onnx::ids::{IdMap, ValueId};
use crate::ops::meaning::{LinearOp, Meaning, SumOperand};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::region::Region;
use crate::refusal::Unfit;

/// Upper bound on a difference, in rounding units: the old nodes round each constant by one
/// unit in the last place, and so does whoever computes a border and a shift, a few times each.
const UNITS: f64 = 4.0;

/// Checks that the borders in `region`, whose weights are of type `float`, are filled with what
/// the nodes inside them give.
///
/// # Errors
/// Returns an error if a border is not, or if that cannot be determined.
pub fn check(
    reader: &Reader,
    meanings: &Meanings,
    region: &Region,
    float: Float,
) -> Result<(), Unfit> {
    let differs = |&id: &_| match meanings.get(id) {
        Some(Meaning::Linear(_, LinearOp::Bordered { difference, .. })) => !difference.is_empty(),
        _ => false,
    };
    if !region.nodes.iter().any(differs) {
        return Ok(());
    }
    let output = constants(reader, meanings, region);
    let is_rounding = output.is_some_and(|output| output.is_within(UNITS * float.unit()));
    if is_rounding { Ok(()) } else { Err(Unfit::Border) }
}

/// Bounds of what constants make of a tensor if the roots are zero, per channel or one for all.
#[derive(Debug, Clone)]
struct FromZeros {
    /// Upper bound on the sums of constants on the way to the tensor.
    magnitude: Vec<f64>,
    /// Upper bound on what the differences in borders make here.
    difference: Vec<f64>,
}

impl FromZeros {
    fn of_root() -> Self {
        FromZeros { magnitude: vec![0.0], difference: vec![0.0] }
    }

    /// Returns what the map makes of these bounds.
    fn through(&self, affine: &Affine) -> Self {
        let shift = affine.bias();
        let magnitude = sum(&response(affine, &self.magnitude), shift);
        FromZeros { magnitude, difference: response(affine, &self.difference) }
    }

    fn plus(&self, other: &Self) -> Self {
        FromZeros {
            magnitude: sum(&self.magnitude, &other.magnitude),
            difference: sum(&self.difference, &other.difference),
        }
    }

    /// Whether no difference is more than `most` times the constants that are added there.
    fn is_within(&self, most: f64) -> bool {
        let magnitude = |channel| of_channel(&self.magnitude, channel).unwrap_or(0.0);
        let mut differences = self.difference.iter().enumerate();
        differences.all(|(channel, all)| *all <= most * magnitude(channel))
    }
}

/// Returns the bounds for the region's output; `None` if something on the way is no
/// convolution.
fn constants(reader: &Reader, meanings: &Meanings, region: &Region) -> Option<FromZeros> {
    let mut found: IdMap<ValueId, FromZeros> = IdMap::default();
    let of = |found: &IdMap<ValueId, FromZeros>, value: ValueId| {
        let source = meanings.source(value);
        let made = found.get(&source).filter(|_| !region.cuts.contains(&source));
        made.cloned().unwrap_or_else(FromZeros::of_root)
    };
    for id in region.read_nodes() {
        let Some(output) = reader.graph.node(id).output() else { continue };
        let made = match meanings.get(id) {
            Some(Meaning::Linear(_, LinearOp::View(_)) | Meaning::Joined(_)) => return None,
            Some(Meaning::Linear(input, map)) => {
                let made = of(&found, *input).through(&map.affine(reader.constants).ok()??);
                match map {
                    LinearOp::Bordered { difference, .. } if !difference.is_empty() => {
                        FromZeros { difference: sum(&made.difference, difference), ..made }
                    }
                    _ => made,
                }
            }
            Some(Meaning::Sum(summands)) => {
                let mut sum: Option<FromZeros> = None;
                for SumOperand { operand, map, .. } in summands {
                    let made = of(&found, *operand);
                    let made = match map {
                        Some(map) => made.through(&map.affine(reader.constants).ok()??),
                        None => made,
                    };
                    sum = Some(sum.map_or(made.clone(), |sum| sum.plus(&made)));
                }
                sum?
            }
            // The bounds are per channel of the whole, of which a part has only some.
            Some(Meaning::Parted(..)) => return None,
            Some(Meaning::Alias(_) | Meaning::Opaque(_)) | None => continue,
        };
        found.insert(output, made);
    }
    found.remove(&region.output)
}

/// Returns Σ|w|·|constant| per output: what the map's kernel makes of these numbers, one per
/// channel or one for all, if nothing cancels.
fn response(affine: &Affine, constants: &[f64]) -> Vec<f64> {
    let weights = numbers::all(affine);
    let outputs = affine.bias().len().max(1);
    let filter = weights.len().checked_div(outputs).unwrap_or(0).max(1);
    let all = |weights: &[f64]| weights.iter().map(|weight| weight.abs()).sum::<f64>();
    let Some(channels) = affine.geometry().channels else {
        return constants.iter().map(|constant| constant.abs() * all(&weights)).collect();
    };
    let groups = channels.groups.max(1);
    let width = channels.inputs.checked_div(groups).unwrap_or(1).max(1);
    let taps = filter.checked_div(width).unwrap_or(1).max(1);
    let in_group = outputs.checked_div(groups).unwrap_or(1).max(1);
    let of_output = |(output, filter): (usize, &[f64])| {
        let group = output.checked_div(in_group).unwrap_or(0);
        let first = group.saturating_mul(width);
        let inputs = filter.chunks(taps).zip(first..);
        inputs
            .map(|(taps, input)| of_channel(constants, input).unwrap_or(0.0).abs() * all(taps))
            .sum()
    };
    weights.chunks(filter).enumerate().map(of_output).collect()
}

/// Returns the sums of the absolute values, channel by channel; a single number is one for all.
fn sum(one: &[f64], other: &[f64]) -> Vec<f64> {
    let of = |numbers: &[f64], channel| of_channel(numbers, channel).unwrap_or(0.0).abs();
    (0..one.len().max(other.len())).map(|channel| of(one, channel) + of(other, channel)).collect()
}
