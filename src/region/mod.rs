//! Linear regions: which part of the graph is one sum of convolutions.
//!
//! [`constant`] (which `effort` keeps within bounds, and `evaluation` to what ONNX says),
//! [`dependence`] and [`sizes`] (with `known`) say what is known of tensors, [`read`] what a
//! node computes (with `border` for what takes many nodes to write), [`inference`] what it
//! would in a deploy graph, [`form`] decides where regions begin and end, `fit` whether what
//! comes out fits the model's type, and [`Region::evaluate`] computes a region's normal form
//! `y = Σ L_t(r_t) + b`, on shapes or on weights. Knows the mathematics and the
//! read-only graph; edits nothing and names no new tensor.

mod border;
pub mod constant;
pub mod dependence;
mod effort;
mod evaluation;
pub mod fit;
pub mod form;
pub mod inference;
mod known;
pub mod read;
pub mod sizes;

use std::collections::BTreeSet;

use crate::affine::{Border, Geometry, Linear, Order, Refusal, Sense, Window};
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::graph::{NodeId, ValueId};
use crate::onnx::ids::{IdMap, Table};
use crate::onnx::model::Invalid;
use read::{Map, Reader, Reading};

/// Why a node is not an affine map or a sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLinear {
    /// The operator is not affine.
    #[error("{0} is not linear")]
    Operator(String),
    /// An operator of somebody's own, whatever it is called.
    #[error("operator {0} is not one of the ONNX standard")]
    Foreign(String),
    /// A node that contradicts the operator's definition.
    #[error("{0}")]
    Malformed(&'static str),
    /// Affine, but no convolution.
    #[error("{0}")]
    Unrepresentable(&'static str),
    /// A node in training mode that is not converted.
    #[error("it stays in training mode: {0}")]
    Training(&'static str),
    /// A limit of what is tried or followed; it is told by its name.
    #[error("{0}")]
    Limit(&'static str),
    /// A weight or statistic that is computed from constants, beyond a limit.
    #[error("`{tensor}` is computed from constants, and not evaluated: {limit}")]
    Beyond {
        /// The weight or statistic.
        tensor: String,
        /// What is met.
        limit: &'static str,
    },
    /// A weight or statistic that is computed at run time.
    #[error("`{0}` is not constant")]
    NotConstant(String),
    /// A weight that a caller may replace, which counts only with `--keep-overridable`.
    #[error("`{0}` is a graph input too, so a caller may override it (--keep-overridable)")]
    Overridable(String),
    /// Something depends on a size that the file does not fix.
    #[error("{what} is not known; {remedy}")]
    Unknown {
        /// The size, and what depends on it.
        what: String,
        /// How the user can fix it.
        remedy: String,
    },
    /// Something depends on a size that is not inferred, because a limit is met.
    #[error("{what} is not inferred: {limit}")]
    NotInferred {
        /// The size, and what depends on it.
        what: String,
        /// What is met.
        limit: &'static str,
    },
    /// A constant that varies along other axes than the channels.
    #[error("constant `{constant}` of shape {dims:?} is not one number per channel")]
    NotPerChannel {
        /// The constant.
        constant: String,
        /// Its shape.
        dims: Vec<usize>,
    },
    /// What would be one map is no convolution.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A vector of the wrong length.
    #[error("`{constant}` is not a vector of {length} floats")]
    WrongLength {
        /// The vector.
        constant: String,
        /// What is needed.
        length: usize,
    },
}

/// Why branches were not merged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Reason {
    /// They do not see the same feature map.
    #[error("the branches read different tensors, `{left}` and `{right}`")]
    DifferentInputs {
        /// Root of one.
        left: String,
        /// Root of the other.
        right: String,
    },
    /// Their windows or channels do not fit.
    #[error(transparent)]
    Geometry(#[from] Refusal),
    /// Something on the way is not linear.
    #[error("node `{node}`: {why}")]
    NotLinear {
        /// The node.
        node: String,
        /// Why it is not.
        why: NotLinear,
    },
    /// Legal, but not profitable.
    #[error("as one convolution it would need {after} weights instead of {before}")]
    Dearer {
        /// Weights of what is there.
        before: f64,
        /// Weights of the result.
        after: f64,
    },
    /// It would be right for other sizes only.
    #[error("it could be merged only where {0}")]
    OutOfRange(String),
    /// Merging it would not free it.
    #[error(
        "branch `{0}` is read elsewhere too and must be kept, so merging it would cost more than it saves"
    )]
    ReadElsewhere(String),
    /// The fused weights would not be what they are in the model's type.
    #[error(transparent)]
    Unfit(#[from] fit::Unfit),
    /// More than is followed or tried; the limit by its name.
    #[error("{0}")]
    Limit(&'static str),
    /// The fused weights could not be computed or proved.
    #[error("{0}")]
    Unproved(String),
    /// A call of a local function that cannot be inlined.
    #[error("{0}")]
    Call(String),
    /// The user said so.
    #[error("left alone because of --skip")]
    Skipped,
}

/// A place that looks fusable and is left alone.
#[derive(Debug, Clone, PartialEq)]
pub struct NearMiss {
    /// The node where the branches meet.
    pub node: String,
    /// Why it is left alone.
    pub reason: Reason,
}

/// All nodes of a graph, read.
pub struct Readings {
    readings: Table<NodeId, Reading>,
    /// Of those that are not right for every input.
    validity: IdMap<NodeId, Validity>,
    sources: Table<ValueId, ValueId>,
}

impl Readings {
    /// Reads every live node.
    ///
    /// # Errors
    /// If a stored tensor is malformed.
    pub fn of(reader: &Reader) -> Result<Self, Invalid> {
        let mut readings = Table::of(reader.graph.node_count());
        let (mut sources, mut validity) = (Table::default(), IdMap::default());
        for (id, node) in reader.graph.nodes().filter(|&(id, _)| reader.graph.is_live(id)) {
            let (reading, valid) = reader.read(node)?;
            if !valid.is_everywhere() {
                validity.insert(id, valid);
            }
            if let (Reading::Alias(of), Some(output)) = (&reading, node.output()) {
                sources.insert(output, sources.get(*of).copied().unwrap_or(*of));
            }
            readings.insert(id, reading);
        }
        Ok(Readings { readings, validity, sources })
    }

    /// What node `id` computes; `None` if nothing needs it.
    pub fn get(&self, id: NodeId) -> Option<&Reading> {
        self.readings.get(id)
    }

    /// For which inputs node `id` was read rightly; `None` if for all.
    pub fn validity(&self, id: NodeId) -> Option<&Validity> {
        self.validity.get(&id)
    }

    /// The tensor that `id` is just another name of.
    pub fn source(&self, id: ValueId) -> ValueId {
        self.sources.get(id).copied().unwrap_or(id)
    }
}

/// A connected part of the graph that computes one tensor linearly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The tensor it computes.
    pub output: ValueId,
    /// Tensors at which it stops: its roots are among them.
    pub cuts: BTreeSet<ValueId>,
    /// Its nodes, in topological order.
    pub nodes: Vec<NodeId>,
    /// Those of them that are read only together with another one.
    pub steps: BTreeSet<NodeId>,
}

/// What a part contributes, besides its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The root itself, added or (`true`) subtracted.
    Plain(bool),
    /// No convolution on the way, yet not plain: a scaled or cropped root.
    Scaled,
    /// At least one convolution on the way.
    Weighted,
}

/// One term `L(r)` of a normal form.
#[derive(Debug, Clone)]
pub struct Part<L> {
    /// The tensor that it reads, `r`.
    pub root: ValueId,
    /// `L`.
    pub map: L,
    /// See [`Kind`].
    pub kind: Kind,
}

impl<L: Linear> Part<L> {
    /// `map` applied to this part.
    pub fn mapped(&self, map: &L, kind: Kind) -> Result<Self, Refusal> {
        let kind = match (kind, self.kind) {
            (Kind::Weighted, _) | (_, Kind::Weighted) => Kind::Weighted,
            (Kind::Plain(a), Kind::Plain(b)) => Kind::Plain(a != b),
            _ => Kind::Scaled,
        };
        Ok(Part { root: self.root, map: map.after(&self.map)?, kind })
    }

    /// The part, subtracted.
    #[must_use]
    pub fn negated(self) -> Self {
        let kind = match self.kind {
            Kind::Plain(minus) => Kind::Plain(!minus),
            kind => kind,
        };
        Part { root: self.root, map: self.map.negated(), kind }
    }

    /// Weights to store, if it is emitted on its own.
    pub fn weights(&self) -> f64 {
        match self.kind {
            Kind::Plain(_) => 0.0,
            _ => self.map.geometry().weights(),
        }
    }

    /// The part without weights.
    fn shape(&self) -> Part<Geometry> {
        Part { root: self.root, map: self.map.geometry().clone(), kind: self.kind }
    }

    /// `self ⊕ other`, if that is legal.
    ///
    /// # Errors
    /// Why it is not, which shapes alone decide.
    pub fn sum(self, other: &Self, reader: &Reader) -> Result<Self, Refusal> {
        debug_assert_eq!(self.root, other.root);
        let without_sizes = self.map.geometry().clone().plus(other.map.geometry(), &[]);
        // Sizes are inferred only where a decision needs them.
        let sizes = match without_sizes {
            Err(Refusal::Counts { .. }) => reader.sizes.shape(self.root),
            _ => &[],
        };
        let weighted = self.kind == Kind::Weighted || other.kind == Kind::Weighted;
        let kind = if weighted { Kind::Weighted } else { Kind::Scaled };
        Ok(Part { root: self.root, map: self.map.plus(&other.map, sizes)?, kind })
    }
}

impl Part<Geometry> {
    /// `self ⊕ other`, if that is legal and not dearer than both.
    ///
    /// # Errors
    /// Why not.
    pub fn merged(&self, other: &Self, reader: &Reader) -> Result<Self, Reason> {
        let sum = self.clone().sum(other, reader)?;
        let (before, after) = (self.weights() + other.weights(), sum.weights());
        if sum.kind != Kind::Weighted || after > before {
            return Err(Reason::Dearer { before, after });
        }
        Ok(sum)
    }
}

/// Pad has had the mode `wrap` since this operator set.
pub const WRAP_SINCE: i64 = 19;

/// The order of axes, with the channels last, in which a map is written as a matrix
/// product; `None` if it becomes a convolution, as products between NCHW tensors do.
pub fn order_of_product(geometry: &Geometry) -> Option<Order> {
    let ends = [&geometry.input, &geometry.output];
    let is_nchw = !geometry.windows.is_empty() && ends.iter().all(|end| end.is_canonical());
    if geometry.sense != Sense::Product || is_nchw {
        return None;
    }
    let channels = geometry.rank().saturating_sub(1);
    let last = ends.into_iter().find(|end| end.axis(1) == channels);
    Some(last.cloned().unwrap_or_else(|| Order::with_channels_at(channels)))
}

/// How many nodes it takes to write out a convolution of this shape.
#[expect(clippy::arithmetic_side_effects, reason = "a few per axis")]
pub fn nodes_of(geometry: &Geometry, opset: i64) -> usize {
    let count = |condition: fn(&Window) -> bool| {
        geometry.windows.iter().filter(|window| condition(window)).count()
    };
    if let Some(order) = order_of_product(geometry) {
        // MatMul and its bias where Gemm does not serve, and Transposes.
        let bias = usize::from(geometry.shifted && !geometry.windows.is_empty());
        let turns = [&geometry.input, &geometry.output].map(|end| usize::from(*end != order));
        return 1 + bias + turns.iter().sum::<usize>();
    }
    let mut nodes = 1;
    if geometry.sense != Sense::Scatter {
        nodes += count(|window| window.pads().0 < 0 || window.pads().1 < 0).min(1);
    }
    nodes += count(|window| window.border == Border::Reflect).min(1);
    nodes += count(|window| window.border == Border::Edge).min(1);
    nodes += match count(|window| window.border == Border::Wrap) {
        wrapped if opset >= WRAP_SINCE => wrapped.min(1),
        // Two Slices and a Concat per axis.
        wrapped => 3 * wrapped,
    };
    for order in [&geometry.input, &geometry.output] {
        nodes += usize::from(!order.is_canonical());
    }
    nodes
}

/// What a map adds to a part's kind.
pub fn kind_of(map: &Map) -> Kind {
    match map {
        Map::Conv { .. } => Kind::Weighted,
        Map::Bordered { map, .. } => kind_of(map),
        Map::Filter { windows, weight, shift, .. }
            if windows.is_empty() && *shift == 0.0 && weight.abs() == 1.0 =>
        {
            Kind::Plain(*weight < 0.0)
        }
        _ => Kind::Scaled,
    }
}

/// Whether the terms of a sum all have so many axes: kernels tell, and what is as wide as
/// the identity does not. Else one is broadcast onto the other, from the last axis on, and
/// the channels of one are not those of the other: of `[1, 4, 6, 6] + [4, 4]`, axis 1 is the
/// height of what the second one adds.
pub fn are_of_one_rank<'g>(mut terms: impl Iterator<Item = &'g Geometry>) -> bool {
    let is_known = |term: &&Geometry| !term.windows.is_empty() || term.sense == Sense::Product;
    let Some(first) = terms.next().filter(is_known) else { return false };
    terms.all(|term| is_known(&term) && term.rank() == first.rank())
}

/// Adds `part` to a sum, merging it with all parts that it can be merged with; where that is
/// right for some sizes only, `valid` is narrowed.
fn insert<L: Linear>(
    parts: &mut Vec<Part<L>>,
    mut part: Part<L>,
    reader: &Reader,
    valid: &mut Validity,
) {
    let merges = |other: &Part<L>, part: &Part<L>| {
        other.root == part.root && other.shape().merged(&part.shape(), reader).is_ok()
    };
    // Decided on shapes, so that a kernel which grows by thousands is never copied.
    while let Some(index) = parts.iter().position(|other| merges(other, &part)) {
        let other = parts.remove(index);
        require_equal_counts(other.root, other.map.geometry(), part.map.geometry(), reader, valid);
        part = match other.sum(&part, reader) {
            Ok(sum) => sum,
            Err(_) => unreachable!("shapes alone decide"),
        };
    }
    parts.push(part);
}

/// Windows of other slack give as many outputs, ⌊(n + slack)/stride⌋ + 1, for sizes n of some
/// remainders only: that which `root` is known to have.
fn require_equal_counts(
    root: ValueId,
    one: &Geometry,
    other: &Geometry,
    reader: &Reader,
    valid: &mut Validity,
) {
    for axis in 0..one.windows.len().max(other.windows.len()) {
        let (window, slack) = (one.window(axis), other.window(axis).slack);
        let along = one.input.axis(axis.saturating_add(2));
        let known = || reader.sizes.shape(root).get(along).copied().flatten();
        if let Some(size) = (window.slack != slack).then(known).flatten() {
            let (remainder, modulus) = (size.rem_euclid(window.stride.max(1)), window.stride);
            let sizes = SizeSet::Congruent { remainder, modulus };
            valid.require(root, Property::Size(along, sizes));
        }
    }
}

/// Nodes between `id` and the tensors that it was read as a map or sum of, which were
/// read together with it: the Slices of a circular padding, what fills a border.
pub fn steps(reader: &Reader, readings: &Readings, id: NodeId) -> Vec<NodeId> {
    let (graph, node) = (reader.graph, reader.graph.node(id));
    let Some(reading) = readings.get(id) else { return Vec::new() };
    let together = match reading {
        Reading::Map(_, Map::Bordered { .. }) => true,
        Reading::Map(..) | Reading::Sum(_) => {
            matches!(node.standard_op(), Some("Concat" | "ReduceSum" | "ScatterND" | "Transpose"))
        }
        Reading::Alias(_) | Reading::Opaque(_) => false,
    };
    if !together {
        return Vec::new();
    }
    let mut seen: BTreeSet<ValueId> = reading.operands().into_iter().collect();
    let mut steps = BTreeSet::new();
    let mut wanted: Vec<ValueId> = graph.uses(id).collect();
    while let Some(value) = wanted.pop() {
        if !seen.insert(value) || reader.constants.contains(value) {
            continue;
        }
        let producer = graph.value(value).producer.filter(|&producer| steps.insert(producer));
        wanted.extend(producer.into_iter().flat_map(|producer| graph.uses(producer)));
    }
    steps.into_iter().collect()
}

impl Region {
    /// The region of `output` that stops at `cuts`.
    pub fn new(
        reader: &Reader,
        readings: &Readings,
        output: ValueId,
        cuts: BTreeSet<ValueId>,
    ) -> Self {
        let graph = reader.graph;
        let (mut nodes, mut between) = (BTreeSet::new(), BTreeSet::new());
        let mut wanted = vec![output];
        while let Some(value) = wanted.pop() {
            let at_cut = value != output && cuts.contains(&value);
            let Some(producer) = graph.value(value).producer.filter(|_| !at_cut) else { continue };
            let Some(reading) = readings.get(producer) else { continue };
            if matches!(reading, Reading::Opaque(_)) {
                continue;
            }
            if nodes.insert(producer) {
                between.extend(steps(reader, readings, producer));
                wanted.extend(reading.operands());
            }
        }
        let steps: BTreeSet<NodeId> = between.difference(&nodes).copied().collect();
        nodes.extend(&steps);
        Region { output, cuts, nodes: nodes.into_iter().collect(), steps }
    }

    /// The region's normal form: one part per root and window; and for which inputs it is
    /// right. `lift` makes a map of what a node was read as.
    ///
    /// # Errors
    /// What `lift` returns, or that maps do not compose.
    pub fn evaluate<L: Linear, E: From<Refusal>>(
        &self,
        readings: &Readings,
        reader: &Reader,
        identity: &L,
        lift: impl Fn(&Map) -> Result<L, E>,
    ) -> Result<(Vec<Part<L>>, Validity), E> {
        let mut valid = Validity::default();
        for &id in &self.nodes {
            readings.validity(id).into_iter().for_each(|own| valid.intersect(own));
        }
        let mut forms: IdMap<ValueId, Vec<Part<L>>> = IdMap::default();
        let mut uses: IdMap<ValueId, usize> = IdMap::default();
        let graph = reader.graph;
        let nodes = || self.nodes.iter().filter(|id| !self.steps.contains(id));
        for reading in nodes().filter_map(|&id| readings.get(id)) {
            if matches!(reading, Reading::Alias(_)) {
                continue;
            }
            for operand in reading.operands() {
                let count = uses.entry(readings.source(operand)).or_default();
                *count = count.saturating_add(1);
            }
        }
        for &id in nodes() {
            let Some(output) = graph.node(id).output() else { continue };
            // A form moves to its last reader inside the region; sums of thousands
            // of operands are not copied at every step.
            let mut take = |forms: &mut IdMap<_, _>, value: ValueId| {
                let root = readings.source(value);
                let plain = || vec![Part { root, map: identity.clone(), kind: Kind::Plain(false) }];
                if self.cuts.contains(&root) {
                    return plain();
                }
                let left = uses.entry(root).or_default();
                *left = left.saturating_sub(1);
                match left {
                    0 => forms.remove(&root).unwrap_or_else(plain),
                    _ => forms.get(&root).cloned().unwrap_or_else(plain),
                }
            };
            let form = match readings.get(id) {
                Some(Reading::Map(input, map)) => {
                    let (lifted, kind) = (lift(map)?, kind_of(map));
                    let operand = take(&mut forms, *input);
                    let geometries = operand.iter().map(|part| part.map.geometry());
                    if operand.len() > 1 && !are_of_one_rank(geometries) {
                        return Err(Refusal::Ranks.into());
                    }
                    let bare = lifted.clone().unshifted();
                    // The shift counts once, however many parts there are.
                    let mut lifted = Some(lifted);
                    let apply = |part: &Part<L>| {
                        part.mapped(&lifted.take().unwrap_or_else(|| bare.clone()), kind)
                    };
                    operand.iter().map(apply).collect::<Result<_, _>>()?
                }
                Some(Reading::Sum(operands)) => {
                    let mut parts = Vec::new();
                    for &(operand, minus) in operands {
                        let operand_parts = take(&mut forms, operand);
                        if parts.is_empty() && !minus {
                            parts = operand_parts;
                            continue;
                        }
                        for part in operand_parts {
                            let part = if minus { part.negated() } else { part };
                            insert(&mut parts, part, reader, &mut valid);
                        }
                    }
                    parts
                }
                _ => continue,
            };
            forms.insert(output, form);
        }
        Ok((forms.remove(&self.output).unwrap_or_default(), valid))
    }
}
