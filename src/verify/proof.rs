//! The proof of one rewrite: the nodes of the file against the new ones, in float64.
//!
//! Of the fuser it takes what is claimed: which tensor is computed from which, by which new
//! nodes, and for which inputs that is right. The old nodes and their constants come from
//! the file ([`super::original`]), the inputs are chosen here ([`super::trials`]), and
//! whether the claim covers all that the file leaves open is asked of the file. That the
//! tensors which are written are the proved ones, correctly rounded, is for [`super::fingerprint`]
//! and [`super::readback`].

use std::collections::HashMap;

use ndarray::{ArrayD, Dimension, IxDyn};
use prost::Message;

use crate::engine::{Array, Constant, Engine, EngineError, Limits, Source, dialect};
use crate::facts::shape_rules::Dims;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::data;
use crate::onnx::ids::{IdMap, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::names;
use crate::onnx::proto::NodeProto;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;
use crate::onnx::write;
use crate::verify::inputs::Random;
use crate::verify::original::{Cone, Original};
use crate::verify::trials::{self, Trial};
use crate::verify::{largest_difference, largest_float, relative};

/// Old and new outputs must agree to this, relative to the largest value on the way to
/// them: where terms cancel, what is left is as exact as they were. Right rewrites agree
/// to 1e-15; with 1e-10, a weight that is off by a millionth would hide beside a bias of
/// ten thousand times its size.
pub const TOLERANCE: f64 = 1e-12;

/// A filled border is what the nodes inside it give there if both differ by no more than
/// the rounding of float32, in which exporters compute them, channel by channel.
const BORDER_TOLERANCE: f64 = 4e-6;

/// Inputs of a proof have less elements, all its trials together; those of real blocks have
/// thousands, but where a size is bound: a crop at fixed places is tried at the file's size.
const MAX_ELEMENTS: usize = 1 << 25;

/// One side of a comparison.
#[derive(Debug, Clone, Default)]
pub struct Side {
    /// Nodes in topological order.
    pub nodes: Vec<NodeProto>,
    /// Constants that they read; floats in float64.
    pub constants: Vec<Constant>,
}

/// Nodes that put a border around a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct FilledBorder {
    /// The tensor, NCHW.
    pub inner: ValueId,
    /// That with the border.
    pub output: ValueId,
    /// How wide it is, before and behind, per spatial axis.
    pub pads: Vec<(i64, i64)>,
    /// What stands in it: one number, or one per channel.
    pub values: Vec<f64>,
}

/// That new nodes compute what those of the file compute.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The tensor that both sides compute.
    pub output: ValueId,
    /// The tensors that both sides read.
    pub roots: Vec<ValueId>,
    /// For which inputs.
    pub valid: Validity,
    /// Borders that were taken for what the nodes inside give there.
    pub borders: Vec<FilledBorder>,
    /// The nodes that will be written.
    pub new: Side,
}

/// Why a rewrite is not proved.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unproved {
    /// The engine could not run one side.
    #[error("its proof could not be run: {0}")]
    NotRun(EngineError),
    /// A stored tensor is malformed.
    #[error("its proof could not be run: {0}")]
    Malformed(String),
    /// The old nodes read what the new ones do not.
    #[error("its old nodes read `{0}` too, so it cannot be proved")]
    ReadsElse(String),
    /// There are more old nodes than a proof takes.
    #[error("it has more than {0} nodes, so it is not proved")]
    TooManyNodes(usize),
    /// A node that rounds its operand.
    #[error("node `{0}` casts to another type, so it cannot be proved")]
    Rounds(String),
    /// A norm that takes its statistics from the batch.
    #[error("node `{0}` is in training mode, so it cannot be proved")]
    Trains(String),
    /// A constant that the engine does not compute.
    #[error("the constant `{0}` could not be computed, so it cannot be proved")]
    NotComputed(String),
    /// The claim is narrower than what the file and the user leave open.
    #[error("it is right only where {0}, which the model does not promise")]
    TooNarrow(String),
    /// Of a tensor that has to be fed the dimensions are not known.
    #[error("the dimensions of `{0}` are not known, so it cannot be proved")]
    SizeUnknown(String),
    /// No sizes fit all nodes.
    #[error("no sizes up to 4096 were found at which it could be proved")]
    NoSizes,
    /// Its inputs are beyond all reason.
    #[error("its proof would take {0} elements, more than are tried")]
    TooLarge(usize),
    /// Of the sizes that the file gives, the block makes nothing.
    #[error("on inputs of these sizes its output has no elements, so nothing can be compared")]
    NoElements,
    /// A tensor on the way is not finite.
    #[error("its old nodes give infinity, so it cannot be proved")]
    NotFinite,
    /// The two sides differ.
    #[error(
        "old and new nodes differ by {error:.1e} of the largest value (allowed: {TOLERANCE:.0e})"
    )]
    Differs {
        /// The largest relative difference.
        error: f64,
    },
    /// A border is not what it was taken for, at some size or for some content.
    #[error("the border of `{0}` is not filled with what the nodes inside it give, at all sizes")]
    BorderDiffers(String),
}

impl Unproved {
    /// Whether the rewrite is wrong; else nobody can tell.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Unproved::Differs { .. })
    }
}

impl From<EngineError> for Unproved {
    fn from(error: EngineError) -> Self {
        Unproved::NotRun(error)
    }
}

impl From<Invalid> for Unproved {
    fn from(invalid: Invalid) -> Self {
        Unproved::Malformed(invalid.to_string())
    }
}

impl From<data::TensorError> for Unproved {
    fn from(error: data::TensorError) -> Self {
        Unproved::Malformed(error.to_string())
    }
}

/// Proves a claim about `original`; returns the largest relative difference.
///
/// # Errors
/// If it is wrong, or is not right for all that the file leaves open, or if that cannot be
/// told.
pub fn prove(original: &Original, claim: &Claim, limits: Limits) -> Result<f64, Unproved> {
    covers(original, &claim.valid)?;
    let mut ends = IdMap::default();
    for border in &claim.borders {
        prove_border(original, border, &claim.valid, limits)?;
        ends.insert(border.output, border.inner);
    }
    let cone = original.cone(claim.output, &claim.roots, &ends)?;
    let trials = trials::choose(original, &cone, &claim.valid, &claim.borders)?;
    let old = old_side(original, &cone, &claim.borders)?;
    let new = new_side(original, &cone, claim)?;
    compare(original, &cone, [&old, &new], &trials, limits)
}

/// Whether `valid` holds for every input that the file and the user leave open. That a size
/// is at least so large may be asked for: the report says so.
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

/// The old nodes; in the place of those that fill a border, such as do so at every size:
/// that they are the same is proved by [`prove_border`].
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
        let name = &original.graph.value(border.output).name;
        let makes_it = |node: &NodeProto| node.output.first() == Some(name);
        if let Some(place) = side.nodes.iter().position(makes_it) {
            let (nodes, constants) = border.nodes(original);
            side.nodes.splice(place..=place, nodes);
            side.constants.extend(constants);
        }
    }
    Ok(side)
}

/// The new nodes, and those of their roots that are constants.
fn new_side(original: &Original, cone: &Cone, claim: &Claim) -> Result<Side, Unproved> {
    let mut side = claim.new.clone();
    for root in claim.roots.iter().filter(|root| cone.constants.contains(root)) {
        side.constants.push(original.value(*root)?);
    }
    Ok(side)
}

/// Runs both sides on all trials and compares what they make.
fn compare(
    original: &Original,
    cone: &Cone,
    [old, new]: [&Side; 2],
    trials: &[Trial],
    limits: Limits,
) -> Result<f64, Unproved> {
    let opset = original.graph.model.opset;
    let output = original.graph.value(cone.output).name.as_str();
    let all_together = Trials { original, cone, opset, trials };
    all_together.check_size()?;
    // Of the old side, every tensor.
    let ways = old.nodes.iter().filter_map(|node| node.output.first());
    let ways = ways.filter(|&name| *name != output).map(String::as_str);
    let outputs: Vec<&str> = [output].into_iter().chain(ways).collect();
    let mut random = Random::new(1);
    let inputs = trials.iter().flat_map(|trial| &trial.shapes);
    let inputs: Vec<Array> = inputs.map(|shape| random.floats(shape)).collect();
    let expected = all_together.run(old, &outputs, &inputs, limits)?;
    let found = all_together.run(new, &[output], &inputs, limits)?;
    let mut largest = 0.0f64;
    for (expected, found) in expected.chunks(outputs.len()).zip(&found) {
        let Some(first) = expected.first() else { continue };
        if first.shape().contains(&0) {
            return Err(Unproved::NoElements);
        }
        let magnitude = expected.iter().map(largest_float).fold(0.0, f64::max);
        // Beside it, every difference would be none.
        if magnitude.is_infinite() {
            return Err(Unproved::NotFinite);
        }
        let error = relative(largest_difference(first, found), magnitude);
        if error.is_nan() || error > TOLERANCE {
            return Err(Unproved::Differs { error });
        }
        largest = largest.max(error);
    }
    Ok(largest)
}

/// Several trials, run as one model, so that constants are read once.
struct Trials<'t, 'r, 'g, 'm> {
    original: &'t Original<'r, 'g, 'm>,
    cone: &'t Cone,
    opset: i64,
    trials: &'t [Trial],
}

impl Trials<'_, '_, '_, '_> {
    fn check_size(&self) -> Result<(), Unproved> {
        let elements = |shape: &Vec<usize>| shape.iter().fold(1usize, |a, &b| a.saturating_mul(b));
        let all = self.trials.iter().flat_map(|trial| &trial.shapes).map(elements);
        let all = all.fold(0, usize::saturating_add);
        if all > MAX_ELEMENTS { Err(Unproved::TooLarge(all)) } else { Ok(()) }
    }

    /// What `side` makes of `inputs`: `outputs` of the first trial, of the second, ….
    fn run(
        &self,
        side: &Side,
        outputs: &[&str],
        inputs: &[Array],
        limits: Limits,
    ) -> Result<Vec<Array>, Unproved> {
        let mut copies = Copies::of(&side.constants);
        let (mut declared, mut nodes, mut made) = (Vec::new(), Vec::new(), Vec::new());
        for (number, trial) in self.trials.iter().enumerate() {
            for (&root, shape) in self.cone.roots.iter().zip(&trial.shapes) {
                let name = copies.tensor(number, &self.original.graph.value(root).name);
                declared.push(write::double_input(&name, shape.len()));
            }
            for (&(node, _), dims) in self.cone.measured.iter().zip(&trial.measured) {
                let measure = self.original.graph.node(node);
                copies.add_own(number, self.original.measured(measure, dims)?);
            }
            for node in &side.nodes {
                let copy = copies.copy(number, node);
                let integers = |name: &str| copies.integers(name);
                nodes.extend(dialect::node(copy, self.opset, &integers));
            }
            made.extend(outputs.iter().map(|output| copies.tensor(number, output)));
        }
        let made: Vec<&str> = made.iter().map(String::as_str).collect();
        let model = write::model(self.opset, declared, nodes, Vec::new(), &made);
        let (bytes, constants) = (model.encode_to_vec().into(), copies.constants);
        let source = Source { bytes, constants, storage: Storage::default(), limits };
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|input| input.shape().to_vec()).collect();
        let found = Engine::load(source, &shapes)?.run(inputs)?;
        let expected = outputs.len().saturating_mul(self.trials.len());
        match found.len() == expected {
            true => Ok(found),
            false => Err(EngineError::Failed("it gave other outputs than asked for".into()).into()),
        }
    }
}

/// Copies of a side's nodes, one per trial, under neutral names; they share its constants.
struct Copies {
    shared: HashMap<String, String>,
    own: HashMap<(usize, String), String>,
    constants: Vec<Constant>,
}

impl Copies {
    fn of(constants: &[Constant]) -> Self {
        let mut copies =
            Copies { shared: HashMap::new(), own: HashMap::new(), constants: Vec::new() };
        for constant in constants {
            let name = format!("c{}", copies.constants.len());
            if !copies.shared.contains_key(constant.name()) {
                copies.shared.insert(constant.name().to_owned(), name.clone());
                copies.constants.push(constant.clone().called(name));
            }
        }
        copies
    }

    /// The name of a tensor in the copy for trial `number`.
    fn tensor(&mut self, number: usize, name: &str) -> String {
        match self.shared.get(name) {
            Some(shared) => shared.clone(),
            None => {
                let next = format!("t{}", self.own.len());
                self.own.entry((number, name.to_owned())).or_insert(next).clone()
            }
        }
    }

    /// A constant that the copy for trial `number` alone has.
    fn add_own(&mut self, number: usize, constant: Constant) {
        let name = self.tensor(number, constant.name());
        self.constants.push(constant.called(name));
    }

    fn copy(&mut self, number: usize, node: &NodeProto) -> NodeProto {
        let mut copy = NodeProto { name: None, ..node.clone() };
        for name in copy.input.iter_mut().chain(&mut copy.output).filter(|name| !name.is_empty()) {
            *name = self.tensor(number, name);
        }
        copy
    }

    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let constant = self.constants.iter().find(|constant| constant.name() == name)?;
        tensor::integers(&constant.header, &Storage::default()).ok()
    }
}

/// Proves that the nodes of the file put this border around its tensor, whatever that holds.
fn prove_border(
    original: &Original,
    border: &FilledBorder,
    valid: &Validity,
    limits: Limits,
) -> Result<(), Unproved> {
    let output = original.graph.value(border.output).name.as_str();
    if !original.only_moves(border.output, border.inner) {
        return Err(Unproved::BorderDiffers(output.to_owned()));
    }
    let cone = original.cone(border.output, &[border.inner], &IdMap::default())?;
    let side = original.side(&cone)?;
    let trials = trials::of_border(original, &cone, border, valid)?;
    let opset = original.graph.model.opset;
    let all_together = Trials { original, cone: &cone, opset, trials: &trials };
    all_together.check_size()?;
    let inputs: Vec<ArrayD<f64>> =
        trials.iter().flat_map(|trial| &trial.shapes).map(|shape| all_different(shape)).collect();
    let fed: Vec<Array> = inputs.iter().cloned().map(Array::Float).collect();
    let found = all_together.run(&side, &[output], &fed, limits)?;
    let is_filled = |(input, found): (&ArrayD<f64>, &Array)| match found {
        Array::Float(found) => border.is_around(input, found),
        Array::Int(_) => false,
    };
    match inputs.iter().zip(&found).all(is_filled) {
        true => Ok(()),
        false => Err(Unproved::BorderDiffers(output.to_owned())),
    }
}

/// No two elements are equal, and none is a number that a model holds.
fn all_different(shape: &[usize]) -> ArrayD<f64> {
    let mut next = std::f64::consts::FRAC_1_PI;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        next += 1.0;
        next
    })
}

impl FilledBorder {
    /// Whether `found` is `input` to the last bit, and this border around it.
    fn is_around(&self, input: &ArrayD<f64>, found: &ArrayD<f64>) -> bool {
        let before = |axis: usize| {
            let pads = axis.checked_sub(2).and_then(|axis| self.pads.get(axis));
            pads.copied().unwrap_or((0, 0))
        };
        let grown = |(axis, &size): (usize, &usize)| {
            let (begin, end) = before(axis);
            size.checked_add_signed(begin as isize)?.checked_add_signed(end as isize)
        };
        let expected: Option<Vec<usize>> = input.shape().iter().enumerate().map(grown).collect();
        if expected.as_deref() != Some(found.shape()) {
            return false;
        }
        found.indexed_iter().all(|(at, &value)| {
            let at = at.as_array_view().to_vec();
            let inside = |(axis, &at): (usize, &usize)| {
                at.checked_add_signed((before(axis).0 as isize).saturating_neg())
            };
            let inside: Option<Vec<usize>> = at.iter().enumerate().map(inside).collect();
            let own = inside.and_then(|inside| input.get(IxDyn(&inside)));
            let channel = at.get(1).copied().unwrap_or(0);
            let filled = match self.values.as_slice() {
                [only] => Some(only),
                values => values.get(channel),
            };
            match (own, filled) {
                (Some(own), _) => value == *own,
                (None, Some(filled)) => {
                    (value - filled).abs() <= BORDER_TOLERANCE * filled.abs().max(value.abs())
                }
                (None, None) => false,
            }
        })
    }

    /// The dimensions of a tensor of dimensions `inner` with the border.
    pub fn around(&self, inner: &Dims) -> Dims {
        let mut dims = inner.clone();
        for (size, (begin, end)) in dims.iter_mut().skip(2).zip(&self.pads) {
            *size = size.map(|size| size.saturating_add(*begin).saturating_add(*end));
        }
        dims
    }

    /// Nodes that put the border around its tensor at every size: v + pad(x − v).
    fn nodes(&self, original: &Original) -> (Vec<NodeProto>, Vec<Constant>) {
        let name = |id: ValueId| original.graph.value(id).name.as_str();
        let (inner, output) = (name(self.inner), name(self.output));
        let fresh = names::fresh(original.graph, ".border");
        let part = |part: &str| format!("{output}{fresh}.{part}");
        let [value, less, padded, pads_name] = ["value", "less", "padded", "pads"].map(part);
        let channels = self.values.len() as i64;
        let dims: Vec<i64> = [channels].into_iter().chain(self.pads.iter().map(|_| 1)).collect();
        let constant = Constant::doubles(&value, &dims, std::sync::Arc::new(self.values.clone()));
        let begins = self.pads.iter().map(|pads| pads.0);
        let ends = self.pads.iter().map(|pads| pads.1);
        let pads: Vec<i64> = [0, 0].into_iter().chain(begins).chain([0, 0]).chain(ends).collect();
        let mut constants = vec![constant];
        // Pad's pads are an input since opset 11.
        let pad = if original.graph.model.opset < 11 {
            write::node("Pad", "", &[&less], &padded, vec![write::ints("pads", pads)])
        } else {
            constants.push(tensor::from_integers(&pads_name, &pads).into());
            write::node("Pad", "", &[&less, &pads_name], &padded, vec![])
        };
        let nodes = vec![
            write::node("Sub", "", &[inner, &value], &less, vec![]),
            pad,
            write::node("Add", "", &[&padded, &value], output, vec![]),
        ];
        (nodes, constants)
    }
}
