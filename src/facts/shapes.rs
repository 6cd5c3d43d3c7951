//! The sizes of tensors.
//!
//! A size is known if a graph input declares it as a number, or if the user gave it; everything
//! else follows by the rules of `facts`. If these leave something open, the engine's inference
//! from the same inputs is asked, never what the file says of other tensors, and only about
//! tensors in which no open size has a part; then what the readers of a tensor demand. Where two
//! of the three disagree, nothing is known.
//!
//! Knows the rules, the engine's inference and the readers of one graph; knows no operator by
//! name.

use std::sync::{Mutex, OnceLock};

use crate::engine::{self, Inference, InputShapes, Limits, Source};
use crate::facts::constants::Constants;
pub use crate::facts::propagation::NO_SHAPES;
use crate::facts::propagation::{Answers, Facts, declared};
use crate::facts::shape_rules::asked::{Dims, agreed};
use crate::facts::shape_rules::extent::Extent;
use crate::facts::validity::{Condition, Property, SizeSet};
use crate::onnx::graph::Graph;
use crate::onnx::ids::{Id, Table, ValueId};
use crate::onnx::info;
use crate::onnx::model::Invalid;
use crate::onnx::proto::ValueInfoProto;
use crate::onnx::schema::graph_field;
use crate::refusal::NotLinear;

/// Upper bound on the nodes of a graph whose sizes the engine infers: its time grows faster than
/// the number of nodes, to a minute for this many.
const MAX_NODES: usize = 1 << 16;

/// The sizes of the tensors of one graph.
pub struct Sizes<'g, 'm> {
    graph: &'g Graph<'m>,
    constants: &'g Constants<'g, 'm>,
    inputs: &'g InputShapes,
    inference: OnceLock<Inference>,
    /// Whether an input's size is open.
    has_open_input: OnceLock<bool>,
    /// Tensors about which the engine's inference is not believed.
    open: OnceLock<Table<ValueId, ()>>,
    /// Facts that hold for whoever runs the file.
    general: Mutex<Answers>,
    /// Facts that hold for inputs of the shapes that the user gave, if there are any.
    special: Option<Mutex<Answers>>,
    /// The dimensions that were asked for: by the rules, the engine and the readers together.
    known: OnceLock<Vec<OnceLock<Dims>>>,
}

impl<'g, 'm> Sizes<'g, 'm> {
    /// Returns the sizes of a graph; `inputs` are the shapes that the user gave.
    pub fn new(
        graph: &'g Graph<'m>,
        constants: &'g Constants<'g, 'm>,
        inputs: &'g InputShapes,
    ) -> Self {
        Sizes {
            graph,
            constants,
            inputs,
            inference: OnceLock::new(),
            has_open_input: OnceLock::new(),
            open: OnceLock::new(),
            general: Mutex::default(),
            special: (!inputs.is_empty()).then(Mutex::default),
            known: OnceLock::new(),
        }
    }

    /// Returns the same sizes of a body, in which tensors of the graph around it are as large as
    /// `outer` knows.
    pub fn within(self, outer: &Sizes) -> Self {
        let (graph, constants) = (self.graph, self.constants);
        let given = |dims: &dyn Fn(ValueId) -> Option<Dims>| {
            let read = graph.values().filter(|&(id, value)| {
                value.outer.is_some() && !value.is_ambiguous && !constants.contains(id)
            });
            let known =
                read.filter_map(|(id, value)| Some((id, dims(value.outer?.in_outer_graph()))));
            Mutex::new(Answers::given(known))
        };
        let general = given(&|outside| outer.ruled_generally().dims(outside));
        let special = self.special.as_ref().map(|_| given(&|outside| outer.by_rules(outside)));
        Sizes { general, special, ..self }
    }

    /// Returns the sizes of `tensor`, from everything that follows from the graph's inputs;
    /// empty if nothing is known.
    pub fn shape(&self, tensor: ValueId) -> &[Option<i64>] {
        let slots = || self.graph.values().map(|_| OnceLock::new()).collect();
        let slot = self.known.get_or_init(slots).get(tensor.index());
        let dims = slot.map(|slot| slot.get_or_init(|| self.known(tensor).unwrap_or_default()));
        dims.map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the dimensions of `tensor` on which rules, engine and readers agree, as far as
    /// they were asked: the engine is not asked if the rules know everything. `None` if not even
    /// the rank is known, or two of the three disagree.
    pub fn known(&self, tensor: ValueId) -> Option<Dims> {
        let ruled = self.by_rules(tensor);
        let is_whole = |dims: &Dims| dims.iter().all(Option::is_some);
        if ruled.as_ref().is_some_and(is_whole) {
            return ruled;
        }
        let inferred = self.inferred(tensor);
        let known = match (ruled, inferred) {
            (Some(ruled), Some(inferred)) => agreed(&ruled, inferred)?,
            (ruled, inferred) => ruled.or_else(|| inferred.map(<[_]>::to_vec))?,
        };
        if is_whole(&known) { Some(known) } else { self.as_demanded(tensor, known) }
    }

    /// Returns the dimensions `known` of `tensor` together with what its readers demand; `None`
    /// if the two contradict each other.
    fn as_demanded(&self, tensor: ValueId, known: Dims) -> Option<Dims> {
        match self.ruled().demanded(tensor) {
            Some(demanded) => agreed(&known, &demanded),
            None => Some(known),
        }
    }

    /// Returns the dimensions of a graph input: those that the user gave, or the file declares,
    /// or its readers demand.
    pub fn of_input(&self, input: ValueId) -> Option<Dims> {
        self.as_demanded(input, self.rank_and_more(input)?)
    }

    /// Returns what is known of `tensor` without asking the engine, if that is at least its
    /// rank; otherwise as [`Self::known`].
    pub fn rank_and_more(&self, tensor: ValueId) -> Option<Dims> {
        self.by_rules(tensor).or_else(|| self.known(tensor))
    }

    /// Whether the file, and the shapes that the user gave, promise that `condition` holds. The
    /// engine is asked only if the rules leave that open.
    ///
    /// # Errors
    /// Returns an error if a stored tensor is malformed.
    pub fn promises(&self, condition: &Condition) -> Result<bool, Invalid> {
        let along = |axis: usize| move |dims: Dims| dims.get(axis).copied().flatten();
        Ok(match &condition.property {
            Property::Rank(rank) => {
                let dims = self.rank_and_more(condition.tensor);
                dims.is_some_and(|dims| dims.len() == *rank)
            }
            Property::Size(axis, sizes) => {
                let ruled = self.ruled_size(condition).and_then(|(ruled, _)| ruled);
                let size = ruled.or_else(|| self.known(condition.tensor).and_then(along(*axis)));
                size.is_some_and(|size| sizes.contains(size))
            }
            Property::Integers(values) => self.integers(condition.tensor)?.as_ref() == Some(values),
        })
    }

    /// Returns the size that `condition` is about, if it follows by the rules, and the sizes
    /// that are right; `None` if the condition is not about a size.
    pub fn ruled_size<'c>(&self, condition: &'c Condition) -> Option<(Option<i64>, &'c SizeSet)> {
        let Property::Size(axis, sizes) = &condition.property else { return None };
        let size = self.by_rules(condition.tensor).and_then(|dims| *dims.get(*axis)?);
        Some((size, sizes))
    }

    /// Whether the rules give a size for which `condition` does not hold.
    pub fn contradict(&self, condition: &Condition) -> bool {
        let ruled = self.ruled_size(condition);
        ruled.is_some_and(|(size, sizes)| size.is_some_and(|size| !sizes.contains(size)))
    }

    /// Whether `tensor` has at least `least` elements along `axis` if there is at least one
    /// along each axis of what is `made`: a map that a kernel of 3 reads without pads has at
    /// least 3.
    pub fn has_as_many_where(
        &self,
        (tensor, axis, least): (ValueId, usize, i64),
        made: impl Iterator<Item = ValueId>,
    ) -> bool {
        let mut facts = self.ruled_generally();
        let Some(Extent::SizeOf(own)) = facts.extents(tensor).and_then(|own| *own.get(axis)?)
        else {
            return false;
        };
        // The least value that the named size must have.
        let needed = least.saturating_sub(own.more.into());
        let mut named = made.filter_map(|made| facts.extents(made)).flatten().flatten();
        needed <= 1
            || named.any(|extent| match extent {
                Extent::SizeOf(other) => {
                    let is_named_so = (other.tensor, other.axis) == (own.tensor, own.axis);
                    is_named_so && 1_i64.saturating_sub(other.more.into()) >= needed
                }
                Extent::Number(_) => false,
            })
    }

    /// Whether both tensors have the same sizes for whoever runs the file, whatever these sizes
    /// are.
    pub fn are_same(&self, one: ValueId, other: ValueId) -> bool {
        let mut facts = self.ruled_generally();
        let (one, other) = (facts.extents(one), facts.extents(other));
        // Nobody knows whether two sizes without a name are the same.
        let is_known = one.as_ref().is_some_and(|dims| dims.iter().all(Option::is_some));
        is_known && one == other
    }

    /// Returns, per axis of `tensor`, an axis of `other` that has the same size for whoever runs
    /// the file, if there is one.
    pub fn axes_of_same_size(&self, tensor: ValueId, other: ValueId) -> Vec<Option<usize>> {
        let mut facts = self.ruled_generally();
        let (Some(own), Some(others)) = (facts.extents(tensor), facts.extents(other)) else {
            return Vec::new();
        };
        let same =
            |size: &Option<Extent>| others.iter().position(|other| size.is_some() && other == size);
        own.iter().map(same).collect()
    }

    /// Returns the dimensions of `tensor` by the rules alone, for the shapes that the user gave.
    pub fn by_rules(&self, tensor: ValueId) -> Option<Dims> {
        self.ruled().dims(tensor)
    }

    /// Whether a map has no elements by the rules, whatever its batch size is: some exporters
    /// declare an unknown batch size as 0.
    pub fn is_empty_map(&self, tensor: ValueId) -> bool {
        self.ruled().is_empty_behind_batch(tensor)
    }

    /// Returns what the rules know, for the shapes that the user gave.
    fn ruled(&self) -> Facts<'_, 'g, 'm> {
        match &self.special {
            Some(answers) => Facts::new(self.graph, self.constants, self.inputs, answers),
            None => self.ruled_generally(),
        }
    }

    /// Returns what the rules know, whatever shapes the user gave.
    fn ruled_generally(&self) -> Facts<'_, 'g, 'm> {
        Facts::new(self.graph, self.constants, &NO_SHAPES, &self.general)
    }

    /// Returns the dimensions that the engine infers; `None` if it infers none.
    fn inferred(&self, tensor: ValueId) -> Option<&[Option<i64>]> {
        let shapes = &self.inference_of(tensor)?.shapes;
        shapes.get(self.graph.value(tensor).name).map(Vec::as_slice)
    }

    /// Returns the engine's inference, if it may be believed about `tensor`. The engine takes an
    /// open size for a large one, and not for 1: then `x[:20]` has 20 elements, and a Squeeze
    /// drops no axis. Of the branches of an If it takes one for all.
    fn inference_of(&self, tensor: ValueId) -> Option<&Inference> {
        let open = self.open.get_or_init(|| self.follows_from_open_sizes());
        if open.contains(tensor) { None } else { self.inference() }
    }

    /// Returns the tensors whose sizes depend on sizes that inputs leave open, or on what a node
    /// with bodies does.
    fn follows_from_open_sizes(&self) -> Table<ValueId, ()> {
        let mut open = Table::default();
        for (id, value) in self.graph.values() {
            let is_input = value.producer.is_none() && !self.constants.contains(id);
            let dims = is_input.then(|| declared(self.graph, id, self.inputs));
            if dims.is_some_and(|dims| dims.is_none_or(|dims| dims.contains(&None))) {
                open.insert(id, ());
            }
        }
        for (node_id, node) in self.graph.nodes() {
            if node.has_bodies() || self.graph.uses(node_id).any(|used| open.contains(used)) {
                open.extend(node.outputs.iter().copied().flatten());
            }
        }
        open
    }

    /// Whether the engine has inferred all that it can; the first time, it takes long.
    pub fn has_asked_engine(&self) -> bool {
        self.inference.get().is_some()
    }

    /// Returns the integers of `id`, if they are constant or follow from the sizes of the
    /// graph's inputs.
    ///
    /// # Errors
    /// Returns an error if a stored tensor is malformed.
    pub fn integers(&self, id: ValueId) -> Result<Option<Vec<i64>>, Invalid> {
        if let Some(constant) = self.constants.integers(id)? {
            return Ok(Some(constant));
        }
        let ruled = self.ruled().integers(id);
        if let Some(known) = ruled.as_ref().and_then(|ruled| ruled.iter().copied().collect()) {
            return Ok(Some(known));
        }
        let integers = self.inference_of(id).map(|inference| &inference.integers);
        let inferred = integers.and_then(|integers| integers.get(self.graph.value(id).name));
        let is_contradicted = |inferred: &&Vec<i64>| {
            let inferred: Vec<Option<i64>> = inferred.iter().copied().map(Some).collect();
            ruled.as_ref().is_some_and(|ruled| agreed(ruled, &inferred).is_none())
        };
        Ok(inferred.filter(|inferred| !is_contradicted(inferred)).cloned())
    }

    /// Returns the engine's inference; `None` for bodies, inside which the engine infers
    /// nothing.
    fn inference(&self) -> Option<&Inference> {
        let infer = || {
            // tract gives a broadcast of an old operator set another shape.
            if self.graph.nodes().any(|(_, node)| node.aligns_by_axis()) {
                return Inference::default();
            }
            let limited = |limit| Inference { limit: Some(limit), ..Inference::default() };
            if !matches!(self.constants.oversized(), Ok(None)) {
                return limited("it computes a constant larger than any that is evaluated");
            }
            if self.graph.node_count() > MAX_NODES {
                return limited("of graphs with more than 65536 nodes no sizes are inferred");
            }
            let model = self.graph.model;
            let Ok(bytes) = engine::dialect::model(model) else { return Inference::default() };
            let storage = model.storage.clone();
            let source =
                Source { bytes, constants: Vec::new(), storage, limits: Limits::of_reading() };
            engine::infer(source, self.inputs).unwrap_or_else(|error| {
                self.constants.budget().note(&error, || "the sizes of its tensors".to_owned());
                Inference::default()
            })
        };
        self.graph.outer.is_none().then(|| self.inference.get_or_init(infer))
    }

    /// Returns the size of `tensor` along `axis`.
    ///
    /// # Errors
    /// Returns an error if it is not known, or is no size.
    pub fn size(&self, tensor: ValueId, axis: usize) -> Result<i64, NotLinear> {
        let size = self.known_size(tensor, axis);
        size.filter(|size| (0..1 << 24).contains(size)).ok_or_else(|| {
            let name = self.graph.value(tensor).name;
            self.unknown(format!(
                "the size of `{name}` on axis {axis}, on which its windows depend,"
            ))
        })
    }

    /// Returns the size of `tensor` along `axis`, if it is known. If the rules know it, they
    /// alone are asked: an inference that contradicts them does not take back what they know.
    pub fn known_size(&self, tensor: ValueId, axis: usize) -> Option<i64> {
        let ruled = self.by_rules(tensor).and_then(|dims| *dims.get(axis)?);
        ruled.or_else(|| self.shape(tensor).get(axis).copied().flatten())
    }

    /// Returns the reason that `what` is not known, which says whether somebody could tell.
    pub fn unknown(&self, what: String) -> NotLinear {
        if let Some(limit) = self.inference.get().and_then(|inference| inference.limit) {
            return NotLinear::NotInferred { what, limit };
        }
        if self.graph.outer.is_none() && self.has_open_input() {
            NotLinear::Open(what)
        } else {
            NotLinear::NotInferable(what)
        }
    }

    /// Whether both the file and the caller leave a size of an input open.
    fn has_open_input(&self) -> bool {
        *self.has_open_input.get_or_init(|| self.find_open_input())
    }

    fn find_open_input(&self) -> bool {
        let fields = self.graph.fields.fields(graph_field::INPUT);
        let mut infos =
            fields.filter_map(|field| self.graph.model.decode(field, "graph input").ok());
        infos.any(|info: ValueInfoProto| {
            let input = self.graph.find(info.name());
            let is_fed = input.is_some_and(|id| self.graph.value(id).initializer.is_none());
            let is_open =
                |declared: info::Declared| declared.dims.is_none_or(|dims| dims.contains(&None));
            is_fed
                && !self.inputs.contains_key(info.name())
                && info::declared(&info).is_some_and(is_open)
        })
    }

    /// Returns the number of dimensions of `tensor`.
    ///
    /// # Errors
    /// Returns an error if it is not known.
    pub fn rank(&self, tensor: ValueId) -> Result<usize, NotLinear> {
        self.known_rank(tensor).ok_or_else(|| self.rank_unknown(tensor))
    }

    /// Returns the number of dimensions of `tensor`, if it is known.
    pub fn known_rank(&self, tensor: ValueId) -> Option<usize> {
        let ruled = self.by_rules(tensor).map(|dims| dims.len());
        ruled.or_else(|| Some(self.shape(tensor).len()).filter(|&rank| rank > 0))
    }

    pub(crate) fn rank_unknown(&self, tensor: ValueId) -> NotLinear {
        let name = self.graph.value(tensor).name;
        self.unknown(format!("the number of dimensions of `{name}`"))
    }

    /// Returns the dimensions of `tensor` that follow for whoever runs the file; if not even
    /// their number does, those that follow for the shapes that the user gave. For operators
    /// that join and split axes, each known dimension is a condition: taken one by one, from
    /// [`Self::known_size`], they would bind a block to sizes that it does not depend on.
    pub fn dims(&self, tensor: ValueId) -> Option<Vec<Option<usize>>> {
        let size = |size: &Option<i64>| size.and_then(|size| size.try_into().ok());
        let ruled = self.ruled_generally().dims(tensor);
        let of = |dims: &[Option<i64>]| dims.iter().map(size).collect();
        let all = || Some(self.shape(tensor)).filter(|shape| !shape.is_empty());
        ruled.as_deref().or_else(all).map(of)
    }

    /// Returns the number of dimensions of `tensor`, if the file declares it for an input.
    pub fn declared_rank(&self, tensor: ValueId) -> Option<usize> {
        declared(self.graph, tensor, &NO_SHAPES).map(|dims| dims.len())
    }
}
