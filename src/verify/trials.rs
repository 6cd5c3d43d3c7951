//! On which inputs a block is tried, chosen from the nodes that stand in the file, what is
//! known of the tensors that they read, and what the claim says it is right for.
//!
//! Where the sizes are free: small ones, at which every border case of the old nodes
//! occurs, with every remainder of their strides, and the smallest that there are; batches
//! of one and two. Where a condition binds them, those that the file gives. Which sizes fit
//! together is found by trying shape rules on numbers.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::engine::InputShapes;
use crate::facts::reach::Reach;
use crate::facts::shape_rules::{self, Dims, Operands};
use crate::facts::shapes::Sizes;
use crate::facts::validity::{Condition, Property, SizeSet, Validity};
use crate::onnx::ids::{IdMap, NodeId, ValueId};
use crate::onnx::node::Node;
use crate::verify::original::{Cone, Original};
use crate::verify::proof::{FilledBorder, Unproved};

/// Shapes of a cone's roots, in their order, and what it measures outside of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// One per root.
    pub shapes: Vec<Vec<usize>>,
    /// Dimensions of the tensors outside, in the order of [`Cone::measured`].
    pub measured: Vec<Vec<usize>>,
}

/// Larger windows than those of any network; sizes are not looked for beyond.
const MOST_SIZE: usize = 4096;

/// Where the sizes of a root have to differ to be told apart: larger than any window.
const PROBES: [i64; 2] = [1 << 13, 1 << 14];

/// So many larger outputs are tried where the sizes of several roots have to fit together.
const MOST_STEPS: i64 = 64;

/// Strides have more remainders only where images are cut into patches.
const MOST_TRIALS: usize = 32;

/// Ranks that are tried where nothing tells.
const RANKS: std::ops::RangeInclusive<usize> = 1..=6;

/// The trials of `cone` for what `valid` leaves open.
///
/// # Errors
/// If there are no sizes at which it can be tried.
pub fn choose(
    original: &Original,
    cone: &Cone,
    valid: &Validity,
    borders: &[FilledBorder],
) -> Result<Vec<Trial>, Unproved> {
    // What a border is right for is tried with the border.
    let is_of_border =
        |condition: &Condition| borders.iter().any(|border| border.inner == condition.tensor);
    let of_block = || valid.conditions().iter().filter(|condition| !is_of_border(condition));
    let mut own = Validity::default();
    of_block().for_each(|condition| own.require(condition.tensor, condition.property.clone()));
    let reads_integers = own.conditions().iter().any(Condition::is_of_integers);
    if cone.measured.is_empty() && !reads_integers {
        let chooser = Chooser { original, cone, valid: &own, borders };
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

/// Trials of the nodes that fill `border`: at two sizes and batches, or at those that the
/// file gives if `valid` binds them.
///
/// # Errors
/// If these are not known.
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
    let channels = original.sizes.rank_and_more(border.inner).and_then(|dims| *dims.get(1)?);
    let channels = channels.and_then(|channels| usize::try_from(channels).ok());
    let channels = channels.unwrap_or(border.values.len());
    let shape = |batch: usize, size: usize| {
        let spatial = (0..border.pads.len()).map(|axis| size.saturating_add(axis));
        let shapes = vec![[batch, channels].into_iter().chain(spatial).collect()];
        Trial { shapes, measured: Vec::new() }
    };
    Ok(vec![shape(1, 5), shape(2, 8), shape(6, 11)])
}

/// Trials of the sizes that the graph's inputs have; where some are open, two at least, with
/// other batches and sizes, even and odd.
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

/// The trial that inputs of these shapes make; the name of a tensor whose dimensions do not
/// follow from them.
fn trial_of(original: &Original, cone: &Cone, inputs: &InputShapes) -> Result<Trial, String> {
    let sizes = Sizes::new(original.graph, original.constants, inputs);
    let known = |&id: &ValueId| {
        let dims = sizes.known(id).and_then(|dims| {
            dims.into_iter().map(|size| usize::try_from(size?).ok()).collect::<Option<_>>()
        });
        dims.ok_or_else(|| original.graph.value(id).name.clone())
    };
    let shapes = cone.roots.iter().map(known).collect::<Result<_, _>>()?;
    let measured = cone.measured.iter().map(|(_, id)| known(id)).collect::<Result<_, _>>()?;
    Ok(Trial { shapes, measured })
}

/// What graph inputs leave open: a batch, the size of the first axis behind it, and by how
/// much that of each further axis is larger. Some are such as networks ask for, multiples of
/// 32, and the others have all remainders of 2, 3 and 4.
const OPEN_SIZES: [(usize, usize, usize); 4] = [(1, 64, 32), (2, 96, 64), (6, 35, 1), (2, 65, 1)];

/// Shapes of all graph inputs: their own, and these where they are open.
fn assignment(original: &Original, (batch, size, step): (usize, usize, usize)) -> InputShapes {
    let along = |axis: usize| size.saturating_add(step.saturating_mul(axis.saturating_sub(1)));
    let inputs = original.graph.inputs().into_iter().enumerate();
    // Nothing promises that two inputs are of one size.
    let shape = |(number, (name, _)): (usize, (String, Option<Dims>))| {
        let along = |axis: usize| along(axis).saturating_add(number);
        let batch = batch.saturating_add(number);
        let dims = original.sizes.rank_and_more(original.graph.find(&name)?)?;
        let sized = dims.iter().enumerate().map(|(axis, known)| match known {
            Some(known) => usize::try_from(*known).ok(),
            None => Some(if axis == BATCH { batch } else { along(axis) }),
        });
        Some((name, sized.collect::<Option<Vec<usize>>>()?))
    };
    inputs.filter_map(shape).collect()
}

/// What is known of all tensors of a cone if its roots have certain dimensions.
struct Shapes<'c, 'r, 'g, 'm> {
    original: &'c Original<'r, 'g, 'm>,
    dims: IdMap<ValueId, Dims>,
    integers: IdMap<ValueId, Vec<Option<i64>>>,
}

struct NodeOperands<'s, 'c, 'r, 'g, 'm> {
    shapes: &'s Shapes<'c, 'r, 'g, 'm>,
    node: &'s Node,
}

impl Operands for NodeOperands<'_, '_, '_, '_, '_> {
    fn dims(&self, input: usize) -> Option<Dims> {
        let id = self.node.input(input)?;
        if let Some(dims) = self.shapes.dims.get(&id) {
            return Some(dims.clone());
        }
        let constant = self.shapes.original.constants.dims(id).ok()??;
        Some(constant.into_iter().map(|size| i64::try_from(size).ok()).collect())
    }

    fn integers(&self, input: usize) -> Option<Vec<Option<i64>>> {
        let id = self.node.input(input)?;
        if let Some(integers) = self.shapes.integers.get(&id) {
            return Some(integers.clone());
        }
        let constant = self.shapes.original.constants.integers(id).ok()??;
        Some(constant.into_iter().map(Some).collect())
    }
}

impl Shapes<'_, '_, '_, '_> {
    /// Whether nothing of what is known contradicts what the nodes of `cone` demand.
    fn is_consistent(&self, cone: &Cone) -> bool {
        let original = self.original;
        cone.nodes.iter().all(|&id| {
            let node = original.graph.node(id);
            let operands = NodeOperands { shapes: self, node };
            (0..node.inputs.len()).all(|index| {
                let opset = original.graph.model.opset;
                let demanded = shape_rules::input_dims(node, opset, index, &operands);
                let given = operands.dims(index);
                demanded.zip(given).is_none_or(|(demanded, given)| {
                    let mut pairs = demanded.iter().zip(&given);
                    demanded.len() == given.len()
                        && pairs.all(|(a, b)| a.zip(*b).is_none_or(|(a, b)| a == b))
                })
            })
        })
    }

    /// By how many elements a node's output is larger than all that it reads, along the axis
    /// where that is most: what it pads, or joins to it.
    fn growth(&self, node: &Node) -> i64 {
        self.grown(node)
            .map(|(before, after)| after.saturating_sub(before))
            .max()
            .unwrap_or(0)
            .max(0)
    }

    /// Per axis the largest size that a node reads, and that which it makes, if both are
    /// known.
    fn grown<'s>(&'s self, node: &'s Node) -> impl Iterator<Item = (i64, i64)> + 's {
        let output = node.output().and_then(|output| self.dims.get(&output));
        let inputs = || node.inputs.iter().flatten().filter_map(|input| self.dims.get(input));
        output.into_iter().flatten().enumerate().filter_map(move |(axis, size)| {
            let rank = output.map_or(0, Vec::len);
            let sizes = inputs().filter(|dims| dims.len() == rank);
            let largest = sizes.filter_map(|dims| dims.get(axis).copied().flatten()).max()?;
            Some((largest, (*size)?))
        })
    }

    /// The windows of a node, if it has any.
    fn reach(&self, node: &Node) -> Option<Reach> {
        let kernel = NodeOperands { shapes: self, node }.dims(1);
        let kernel = kernel.and_then(|dims| dims.into_iter().collect::<Option<Vec<_>>>());
        Reach::of(node, kernel.as_deref())
    }

    /// Whether all sizes are such as networks have: of every tensor something is left, and
    /// none is padded that is smaller than its pads: no engine mirrors what is not there.
    fn is_ample(&self, cone: &Cone) -> bool {
        let is_padded = |node: &&Node| node.standard_op() == Some("Pad");
        let mut sizes = self.dims.values().flatten();
        let nodes = cone.nodes.iter().map(|&id| self.original.graph.node(id));
        sizes.all(|size| size.is_none_or(|size| size > 0))
            && nodes.filter(is_padded).all(|node| {
                let mut grown = self.grown(node);
                grown.all(|(before, after)| after.saturating_sub(before) < before)
            })
    }

    /// Whether what is known of a tensor is not against a condition on its size.
    fn meets(&self, valid: &Validity) -> bool {
        valid.conditions().iter().all(|condition| {
            let Property::Size(axis, sizes) = &condition.property else { return true };
            let dims = self.dims.get(&condition.tensor);
            let size = dims.and_then(|dims| dims.get(*axis).copied().flatten());
            size.is_none_or(|size| sizes.contains(size))
        })
    }
}

/// One axis of a root whose size is free, and the axis of the output that follows it.
#[derive(Debug)]
struct FreeAxis {
    root: usize,
    axis: usize,
    follows: usize,
    /// What sizes from 1 on make there, as far as somebody asked.
    made: RefCell<Vec<MadeSize>>,
}

/// What one size of an axis makes.
#[derive(Debug, Clone, Copy)]
struct MadeSize {
    /// The size of the output, if that is known.
    output: Option<i64>,
    /// Whether what is claimed is right for it, and all tensors have elements.
    is_valid: bool,
}

/// The axis that the batch runs along, wherever it is free.
const BATCH: usize = 0;

/// Roots whose free axes have no size yet, and these axes.
struct OpenRoots {
    dims: Vec<Dims>,
    free: Vec<FreeAxis>,
}

/// Per free axis, sizes to choose from.
type Choices = Vec<Vec<i64>>;

struct Chooser<'c, 'r, 'g, 'm> {
    original: &'c Original<'r, 'g, 'm>,
    cone: &'c Cone,
    valid: &'c Validity,
    borders: &'c [FilledBorder],
}

impl<'c, 'r, 'g, 'm> Chooser<'c, 'r, 'g, 'm> {
    /// `None` if there are no small sizes at which the claim holds.
    fn small(&self) -> Result<Option<Vec<Trial>>, Unproved> {
        let mut trials = Vec::new();
        for known in self.known_roots()? {
            match self.small_of(&known) {
                Some(found) => trials.extend(found),
                None => return Ok(None),
            }
        }
        Ok(Some(trials))
    }

    /// What is known of the roots: by what made them, else by what reads them. Where the
    /// rank is not known, all that the nodes allow.
    fn known_roots(&self) -> Result<Vec<Vec<Dims>>, Unproved> {
        let mut all: Vec<Vec<Dims>> = vec![Vec::new()];
        for &root in &self.cone.roots {
            let known = match self.original.sizes.rank_and_more(root) {
                Some(dims) => vec![dims],
                None => RANKS.map(|rank| vec![None; rank]).collect(),
            };
            let with = |before: &Vec<Dims>| {
                let more = known.iter().map(|dims| {
                    let mut dims_of_all = before.clone();
                    dims_of_all.push(dims.clone());
                    dims_of_all
                });
                more.collect::<Vec<_>>()
            };
            all = all.iter().flat_map(with).collect();
        }
        all.retain(|known| self.forward(known).is_consistent(self.cone));
        match all.is_empty() {
            true => Err(Unproved::NoSizes),
            false => Ok(all),
        }
    }

    /// Takes the dimensions of all roots through the nodes.
    fn forward(&self, roots: &[Dims]) -> Shapes<'c, 'r, 'g, 'm> {
        let dims = self.cone.roots.iter().copied().zip(roots.iter().cloned()).collect();
        let integers = IdMap::default();
        let mut shapes = Shapes { original: self.original, dims, integers };
        for &id in &self.cone.nodes {
            let node = self.original.graph.node(id);
            let (dims, integers) = self.of_outputs(node, &shapes);
            shapes.dims.extend(dims);
            shapes.integers.extend(integers);
        }
        shapes
    }

    #[expect(clippy::type_complexity, reason = "what is known of each output")]
    fn of_outputs(
        &self,
        node: &Node,
        shapes: &Shapes,
    ) -> (Vec<(ValueId, Dims)>, Vec<(ValueId, Vec<Option<i64>>)>) {
        let operands = NodeOperands { shapes, node };
        let opset = self.original.graph.model.opset;
        let (mut dims, mut integers) = (Vec::new(), Vec::new());
        let fills = |border: &&FilledBorder| Some(border.output) == node.output();
        if let Some(border) = self.borders.iter().find(fills) {
            let inner = shapes.dims.get(&border.inner);
            dims.extend(inner.map(|inner| (border.output, border.around(inner))));
            return (dims, integers);
        }
        for (index, output) in node.outputs.iter().enumerate() {
            let Some(output) = *output else { continue };
            let known = shape_rules::output_dims(node, opset, index, &operands);
            dims.extend(known.map(|known| (output, known)));
            let known = shape_rules::output_integers(node, opset, index, &operands);
            integers.extend(known.map(|known| (output, known)));
        }
        (dims, integers)
    }

    /// Trials for roots of which so much is `known`; `None` if no small sizes fit together.
    fn small_of(&self, known: &[Dims]) -> Option<Vec<Trial>> {
        let open = self.open_roots(known)?;
        let least = self.borders(&open)?.saturating_add(1).max(2);
        let (large, smallest) = (self.choices(&open, least)?, self.choices(&open, 1)?);
        let count = large.iter().map(Vec::len).max().unwrap_or(1).min(MOST_TRIALS);
        let trial = |number: usize, batch: i64, choices: &Choices| {
            let mut dims = open.dims.clone();
            for (at, (free, sizes)) in open.free.iter().zip(choices).enumerate() {
                // Not the same remainder on all axes.
                let turn = number.saturating_add(at).checked_rem(sizes.len())?;
                let size = if self.is_batch(free) { batch } else { *sizes.get(turn)? };
                *dims.get_mut(free.root)?.get_mut(free.axis)? = Some(size);
            }
            self.trial(&dims)
        };
        let batch = |number: usize| if number.is_multiple_of(2) { 1 } else { 2 };
        let numbers = 0..count;
        let mut trials: Vec<Trial> =
            numbers.map(|number| trial(number, batch(number), &large)).collect::<Option<_>>()?;
        let smallest = trial(0, 2, &smallest)?;
        if !trials.contains(&smallest) {
            trials.push(smallest);
        }
        Some(trials)
    }

    /// Sizes at which the output has at least `least` elements along the first axis that is
    /// free, one more along the next, and so on: so exchanged axes show.
    fn choices(&self, open: &OpenRoots, least: i64) -> Option<Choices> {
        let mut followed: Vec<usize> = Vec::new();
        let spatial = || open.free.iter().filter(|free| !self.is_batch(free));
        spatial().for_each(|free| {
            if !followed.contains(&free.follows) {
                followed.push(free.follows);
            }
        });
        let mut sizes: BTreeMap<usize, i64> = BTreeMap::new();
        for (more, &axis) in (0..).zip(&followed) {
            let from = least.saturating_add(more);
            let fits = |&output: &i64| {
                let mut axes = spatial().filter(|free| free.follows == axis);
                axes.all(|free| !self.sizes(open, free, output).is_empty())
            };
            sizes.insert(axis, (from..from.saturating_add(MOST_STEPS)).find(fits)?);
        }
        let choice = |free: &FreeAxis| match self.is_batch(free) {
            true => Some(vec![1]),
            false => Some(self.sizes(open, free, *sizes.get(&free.follows)?)),
        };
        open.free.iter().map(choice).collect()
    }

    /// Whether it is the batch: the first axis, unless a node puts that elsewhere.
    fn is_batch(&self, free: &FreeAxis) -> bool {
        let moves = |id: &NodeId| {
            let node = self.original.graph.node(*id);
            let perm = node.ints("perm").unwrap_or_default();
            node.standard_op() == Some("Transpose") && perm.first() != Some(&0)
        };
        free.axis == BATCH && !self.cone.nodes.iter().any(moves)
    }

    /// Sizes along a free axis that make `output` elements along the one that follows it.
    fn sizes(&self, open: &OpenRoots, free: &FreeAxis, output: i64) -> Vec<i64> {
        let mut made = free.made.borrow_mut();
        // What it makes grows with it.
        let is_short =
            |made: &[MadeSize]| made.last().is_none_or(|last| last.output <= Some(output));
        while is_short(&made) && made.len() < MOST_SIZE {
            let size = i64::try_from(made.len()).unwrap_or(i64::MAX).saturating_add(1);
            let dims = Self::with_size(&open.dims, free.root, free.axis, Some(size));
            let shapes = self.forward(&dims);
            let output = shapes.dims.get(&self.cone.output);
            let output = output.and_then(|dims| dims.get(free.follows).copied().flatten());
            let is_valid = shapes.meets(self.valid) && shapes.is_ample(self.cone);
            made.push(MadeSize { output, is_valid });
        }
        let fits = |made: &MadeSize| made.is_valid && made.output == Some(output);
        (1..).zip(made.iter()).filter(|(_, made)| fits(made)).map(|(size, _)| size).collect()
    }

    /// A trial of these dimensions, all of which are known.
    fn trial(&self, shapes: &[Dims]) -> Option<Trial> {
        let known = self.forward(shapes);
        let is_possible = known.dims.contains_key(&self.cone.output)
            && known.is_consistent(self.cone)
            && known.is_ample(self.cone)
            && known.meets(self.valid);
        if !is_possible {
            return None;
        }
        let shape = |dims: &Dims| {
            dims.iter().map(|size| usize::try_from((*size)?).ok()).collect::<Option<Vec<_>>>()
        };
        let shapes = shapes.iter().map(shape).collect::<Option<_>>()?;
        Some(Trial { shapes, measured: Vec::new() })
    }

    /// Which axes of the roots are free, and the sizes of the others.
    fn open_roots(&self, known: &[Dims]) -> Option<OpenRoots> {
        let mut open = OpenRoots { dims: known.to_vec(), free: Vec::new() };
        for (root, dims) in known.iter().enumerate() {
            for (axis, &size) in dims.iter().enumerate() {
                // A tensor of one element along an axis may be broadcast along it.
                let follows = self.follows(known, root, axis).filter(|_| size != Some(1));
                let slot = open.dims.get_mut(root)?.get_mut(axis)?;
                match follows {
                    Some(follows) => {
                        *slot = None;
                        let made = RefCell::default();
                        open.free.push(FreeAxis { root, axis, follows, made });
                    }
                    None => *slot = Some(size.or_else(|| self.demanded(known, root, axis))?),
                }
            }
        }
        Some(open)
    }

    fn with_size(known: &[Dims], root: usize, axis: usize, size: Option<i64>) -> Vec<Dims> {
        let mut known = known.to_vec();
        let slot = known.get_mut(root).and_then(|dims| dims.get_mut(axis));
        slot.into_iter().for_each(|slot| *slot = size);
        known
    }

    /// The axis of the output whose size follows that of a root's axis; `None` if that is
    /// bound.
    fn follows(&self, known: &[Dims], root: usize, axis: usize) -> Option<usize> {
        // What is known of the other roots need not hold for another size of this one.
        let of_root = |(at, dims): (usize, &Dims)| match at == root {
            true => dims.clone(),
            false => vec![None; dims.len()],
        };
        let others: Vec<Dims> = known.iter().enumerate().map(of_root).collect();
        let [one, other] = PROBES.map(|size| self.output_at(&others, root, axis, size));
        let (one, other) = (one?, other?);
        let mut moved = one.iter().zip(&other).enumerate();
        Some(moved.find(|(_, (a, b))| a.is_some() && b.is_some() && a != b)?.0)
    }

    /// The output's dimensions at a size that is larger than all windows, whatever the
    /// claim says of sizes.
    fn output_at(&self, known: &[Dims], root: usize, axis: usize, size: i64) -> Option<Dims> {
        let shapes = self.forward(&Self::with_size(known, root, axis, Some(size)));
        let output = shapes.dims.get(&self.cone.output)?;
        shapes.is_consistent(self.cone).then(|| output.clone())
    }

    /// The size that the nodes demand along a bound axis: where another one that is given
    /// meets what they demand.
    fn demanded(&self, known: &[Dims], root: usize, axis: usize) -> Option<i64> {
        let given = PROBES.first().copied();
        let shapes = self.forward(&Self::with_size(known, root, axis, given));
        let opset = self.original.graph.model.opset;
        self.cone.nodes.iter().find_map(|&id| {
            let node = self.original.graph.node(id);
            let operands = NodeOperands { shapes: &shapes, node };
            (0..node.inputs.len()).find_map(|index| {
                let demanded = shape_rules::input_dims(node, opset, index, &operands)?;
                let dims = operands.dims(index)?;
                let mut pairs = demanded.into_iter().zip(dims);
                pairs.find_map(|(demanded, size)| demanded.filter(|_| size == given))
            })
        })
    }

    /// How many outputs along an axis lie at a border, at most; `None` if beyond all reason.
    fn borders(&self, open: &OpenRoots) -> Option<i64> {
        let mut dims = open.dims.clone();
        for free in &open.free {
            *dims.get_mut(free.root)?.get_mut(free.axis)? = PROBES.first().copied();
        }
        let shapes = self.forward(&dims);
        let mut borders: IdMap<ValueId, i64> = IdMap::default();
        for &id in &self.cone.nodes {
            let node = self.original.graph.node(id);
            let read = node.inputs.iter().flatten().filter_map(|input| borders.get(input));
            let before = read.copied().max().unwrap_or(0);
            let here = match shapes.reach(node) {
                Some(reach) => reach.borders(before),
                // A product has more channels, and no border.
                None if matches!(node.standard_op(), Some("Concat" | "Pad")) => {
                    before.saturating_add(shapes.growth(node))
                }
                None => before,
            };
            borders.extend(node.outputs.iter().flatten().map(|&output| (output, here)));
        }
        let borders = borders.get(&self.cone.output).copied().unwrap_or(0);
        usize::try_from(borders).is_ok_and(|borders| borders < MOST_SIZE).then_some(borders)
    }
}
