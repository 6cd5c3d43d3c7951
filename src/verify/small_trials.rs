//! Chooses the smallest trials that show everything. Where sizes are free, these are sizes at
//! which every border case of the old nodes occurs, with every remainder of their strides, and
//! the smallest sizes that there are; with batches of one and two.
//!
//! Which sizes fit together is found by applying shape rules to numbers: no operator is named here.
//!
//! Knows the old nodes and what is claimed of sizes; of the new nodes only how far they look.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::facts::roles;
use crate::facts::shape_rules::{self, Dims, Operands};
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::ids::{IdMap, NodeId, ValueId};
use crate::verify::border::FilledBorder;
use crate::verify::claim::Unproved;
use crate::verify::cone::{Cone, Trial};
use crate::verify::cone_shapes::{ConeShapes, NodeOperands};
use crate::verify::original::Original;

/// Largest size that is tried along an axis: larger than the windows of any network.
const MOST_SIZE: usize = 4096;

/// Two sizes of a root's axis by which the axes that follow it are told from those that do not:
/// larger than any window, and multiples of many block sizes.
const PROBES: [i64; 2] = [64 * 315, 128 * 315];

/// Upper bound on the number of successive output sizes that are tried where the sizes of
/// several roots have to fit together.
const MOST_STEPS: i64 = 64;

/// Upper bound on the number of tensors, from the output backwards, that are searched for one
/// that keeps the free axes apart: views stand at the end.
const MOST_TARGETS: usize = 64;

/// Upper bound on the number of trials: strides have more remainders only where images are cut
/// into patches.
const MOST_TRIALS: usize = 32;

/// Ranks that are tried where nothing tells the rank.
const RANKS: std::ops::RangeInclusive<usize> = 1..=6;

/// Upper bound on the number of combinations of ranks that are tried.
const MOST_RANKS: usize = 64;

/// One axis of a root whose size is free, and the axis of the output that follows it.
#[derive(Debug)]
struct FreeAxis {
    root: usize,
    axis: usize,
    follows: usize,
    /// What the sizes 1, 2, … make of the axis that follows, as far as they were asked for.
    made: RefCell<Vec<MadeSize>>,
}

/// What one size of a free axis makes.
#[derive(Debug, Clone, Copy)]
struct MadeSize {
    /// The size of the axis that follows, if known.
    output: Option<i64>,
    /// Whether the claim covers this size, the nodes accept it, and all tensors have elements.
    is_valid: bool,
}

/// The batch axis, wherever it is free.
pub const BATCH: usize = 0;

/// Roots whose free axes have no size yet, and these axes.
struct OpenRoots {
    /// The tensor whose axes follow the free ones.
    at: ValueId,
    dims: Vec<Dims>,
    free: Vec<FreeAxis>,
}

/// Per free axis, the sizes to choose from.
type Choices = Vec<Vec<i64>>;

/// Chooses the trials of one cone.
pub struct Chooser<'c, 'r, 'g, 'm> {
    /// The graph of the cone.
    pub original: &'c Original<'r, 'g, 'm>,
    /// The cone that is to be tried.
    pub cone: &'c Cone,
    /// The conditions under which the claim is right.
    pub valid: &'c Validity,
    /// Borders that are taken for filled.
    pub borders: &'c [FilledBorder],
    /// Number of outputs of the new nodes that may depend on what lies beyond a border.
    pub new_borders: i64,
}

impl<'c, 'r, 'g, 'm> Chooser<'c, 'r, 'g, 'm> {
    /// Chooses trials of small sizes. Returns `None` if there are no small sizes at which the
    /// claim holds.
    ///
    /// # Errors
    /// Returns an error if no ranks of the roots fit the nodes, or if too many combinations of
    /// ranks do.
    pub fn small(&self) -> Result<Option<Vec<Trial>>, Unproved> {
        let mut trials = Vec::new();
        for known in self.known_roots()? {
            match self.small_of(&known) {
                Some(found) => trials.extend(found),
                None => return Ok(None),
            }
        }
        Ok(Some(trials))
    }

    /// Returns what is known of the dimensions of all roots, from what made them or else from what
    /// reads them. Where a rank is unknown, there is an entry for each rank that the nodes allow.
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
            // Filtered root by root, since n tensors would have 6ⁿ combinations.
            let fits = |known: &Vec<Dims>| self.forward(known).is_consistent(self.cone);
            all = all.iter().flat_map(with).filter(fits).collect();
            if all.len() > MOST_RANKS {
                let name = self.original.graph.value(root).name.to_owned();
                return Err(Unproved::RankUnknown(name));
            }
        }
        if all.is_empty() { Err(Unproved::NoSizes) } else { Ok(all) }
    }

    /// Propagates the dimensions of all roots through the nodes.
    fn forward(&self, roots: &[Dims]) -> ConeShapes<'c, 'r, 'g, 'm> {
        ConeShapes::forward(self.original, self.cone, self.borders, roots)
    }

    /// Returns trials for roots with these `known` dimensions; `None` if no small sizes fit
    /// together.
    fn small_of(&self, known: &[Dims]) -> Option<Vec<Trial>> {
        let open = self.followed_apart(known)?;
        let least = |borders: i64| borders.saturating_add(1).max(2);
        let old_borders = self.outputs_at_borders(&open)?;
        // The claim may hold only for sizes that are smaller than what the new nodes look at.
        let large = self.choices(&open, least(old_borders.max(self.new_borders)));
        let large = large.or_else(|| self.choices(&open, least(old_borders)))?;
        let smallest = self.choices(&open, 1)?;
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

    /// Returns sizes at which the output has at least `least` elements along the first axis that
    /// is free, one more along the next, and so on, so that exchanged axes show.
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
        let choice = |free: &FreeAxis| {
            if self.is_batch(free) {
                return Some(vec![1]);
            }
            Some(self.sizes(open, free, *sizes.get(&free.follows)?))
        };
        open.free.iter().map(choice).collect()
    }

    /// Returns whether an axis is the batch: the first axis, unless a node moves that elsewhere.
    fn is_batch(&self, free: &FreeAxis) -> bool {
        let moves = |id: &NodeId| roles::moves_first_axis(self.original.graph.node(*id));
        free.axis == BATCH && !self.cone.nodes.iter().any(moves)
    }

    /// Returns the sizes of a free axis that make `output` elements along the axis that follows it.
    fn sizes(&self, open: &OpenRoots, free: &FreeAxis, output: i64) -> Vec<i64> {
        let mut made = free.made.borrow_mut();
        // The output grows with the size.
        let is_short =
            |made: &[MadeSize]| made.last().is_none_or(|last| last.output <= Some(output));
        while is_short(&made) && made.len() < MOST_SIZE {
            let size = i64::try_from(made.len()).unwrap_or(i64::MAX).saturating_add(1);
            let dims = Self::with_size(&open.dims, free.root, free.axis, Some(size));
            let shapes = self.forward(&dims);
            let output = shapes.dims.get(&open.at);
            let output = output.and_then(|dims| dims.get(free.follows).copied().flatten());
            let is_valid = shapes.meets(self.valid)
                && shapes.is_ample(self.cone)
                && shapes.is_consistent(self.cone);
            made.push(MadeSize { output, is_valid });
        }
        let fits = |made: &MadeSize| made.is_valid && made.output == Some(output);
        (1..).zip(made.iter()).filter(|(_, made)| fits(made)).map(|(size, _)| size).collect()
    }

    /// Returns the trial of these dimensions, all of which are known; `None` if the nodes or the
    /// claim do not allow them.
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

    /// Returns the free axes as the output follows them. If two free axes of one root become one
    /// axis of the output, returns them as the last tensor before it follows them that keeps
    /// them apart.
    fn followed_apart(&self, known: &[Dims]) -> Option<OpenRoots> {
        let of_nodes = self.cone.nodes.iter().rev();
        let made = of_nodes.filter_map(|&id| self.original.graph.node(id).output());
        let targets = std::iter::once(self.cone.output).chain(made.take(MOST_TARGETS));
        let mut open = targets.filter_map(|at| self.open_roots(known, at));
        let are_apart = |open: &OpenRoots| {
            open.free.iter().enumerate().all(|(number, free)| {
                let mut others = open.free.iter().take(number);
                others.all(|other| (other.root, other.follows) != (free.root, free.follows))
            })
        };
        open.find(are_apart)
    }

    /// Returns which axes of the roots are free, by the axes of the tensor `at` that follow
    /// them, and the sizes of all other axes; `None` if one of these is unknown.
    fn open_roots(&self, known: &[Dims], at: ValueId) -> Option<OpenRoots> {
        let mut open = OpenRoots { at, dims: known.to_vec(), free: Vec::new() };
        for (root, dims) in known.iter().enumerate() {
            for (axis, &size) in dims.iter().enumerate() {
                let slot = open.dims.get_mut(root)?.get_mut(axis)?;
                if let Some(only) = self.only_size(root, axis) {
                    *slot = Some(only);
                    continue;
                }
                // A tensor of one element along an axis may be broadcast along it.
                let follows = self.follows(known, at, root, axis).filter(|_| size != Some(1));
                match follows {
                    Some(follows) => {
                        *slot = None;
                        let made = RefCell::default();
                        open.free.push(FreeAxis { root, axis, follows, made });
                    }
                    None => {
                        let demanded = || self.demanded(known, root, axis);
                        let made = || self.as_made(known, at, root, axis);
                        *slot = Some(size.or_else(demanded).or_else(made)?);
                    }
                }
            }
        }
        Some(open)
    }

    /// Returns the only size of a root along an axis for which the claim is right, if it names one.
    fn only_size(&self, root: usize, axis: usize) -> Option<i64> {
        let root = *self.cone.roots.get(root)?;
        self.valid.conditions().iter().find_map(|condition| match condition.property {
            Property::Size(at, SizeSet::Exactly(size)) if at == axis => {
                (condition.tensor == root).then_some(size)
            }
            _ => None,
        })
    }

    /// Returns a size of the tensor `at`, or 1, that fits a bound axis of a root: an addend may
    /// have one channel or as many as the sum.
    fn as_made(&self, known: &[Dims], at: ValueId, root: usize, axis: usize) -> Option<i64> {
        let made = self.forward(known).dims.get(&at)?.clone();
        let fits = |size: &i64| {
            let dims = Self::with_size(known, root, axis, Some(*size));
            self.forward(&dims).is_consistent(self.cone)
        };
        made.into_iter().flatten().chain([1]).find(fits)
    }

    fn with_size(known: &[Dims], root: usize, axis: usize, size: Option<i64>) -> Vec<Dims> {
        let mut known = known.to_vec();
        if let Some(own) = known.get_mut(root).and_then(|dims| dims.get_mut(axis)) {
            *own = size;
        }
        known
    }

    /// Returns the axis of the tensor `at` whose size follows that of a root's axis; `None` if
    /// the latter is bound.
    fn follows(&self, known: &[Dims], at: ValueId, root: usize, axis: usize) -> Option<usize> {
        // What is known of the other roots need not hold for another size of this one.
        let of_root = |(index, dims): (usize, &Dims)| {
            if index == root { dims.clone() } else { vec![None; dims.len()] }
        };
        let others: Vec<Dims> = known.iter().enumerate().map(of_root).collect();
        let [one, other] = PROBES.map(|size| self.dims_at(&others, at, (root, axis), size));
        let (one, other) = (one?, other?);
        let mut moved = one.iter().zip(&other).enumerate();
        Some(moved.find(|(_, (a, b))| a.is_some() && b.is_some() && a != b)?.0)
    }

    /// Returns the dimensions of the tensor `at` if a root's axis has this `size`, whatever the
    /// claim says of sizes; `None` if the nodes do not accept it.
    fn dims_at(
        &self,
        known: &[Dims],
        at: ValueId,
        (root, axis): (usize, usize),
        size: i64,
    ) -> Option<Dims> {
        let shapes = self.forward(&Self::with_size(known, root, axis, Some(size)));
        let output = shapes.dims.get(&at)?;
        shapes.is_consistent(self.cone).then(|| output.clone())
    }

    /// Returns the size that the nodes demand along a bound axis: it is found where another
    /// size, given to that axis, meets what they demand.
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

    /// Returns the largest number of outputs along an axis that lie at a border; `None` if that
    /// is not below [`MOST_SIZE`].
    fn outputs_at_borders(&self, open: &OpenRoots) -> Option<i64> {
        let probed = |size: i64| {
            let mut dims = open.dims.clone();
            for free in &open.free {
                *dims.get_mut(free.root)?.get_mut(free.axis)? = Some(size);
            }
            Some(self.forward(&dims))
        };
        let [shapes, larger] = PROBES.map(probed);
        let (shapes, larger) = (shapes?, larger?);
        let mut borders: IdMap<ValueId, i64> = IdMap::default();
        for &id in &self.cone.nodes {
            let node = self.original.graph.node(id);
            let read = node.inputs.iter().flatten().filter_map(|input| borders.get(input));
            let before = read.copied().max().unwrap_or(0);
            let here = match shapes.reach(node) {
                Some(reach) => reach.borders(before),
                None if roles::adds_elements(node) => {
                    before.saturating_add(shapes.growth(&larger, node))
                }
                None => before,
            };
            borders.extend(node.outputs.iter().flatten().map(|&output| (output, here)));
        }
        let borders = borders.get(&self.cone.output).copied().unwrap_or(0);
        usize::try_from(borders).is_ok_and(|borders| borders < MOST_SIZE).then_some(borders)
    }
}
