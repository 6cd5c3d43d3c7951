//! Where regions begin and end: legality and profit, decided on shapes alone.
//!
//! Walking forward, every linear tensor gets a *form*: a sum of terms. A term can
//! be read at several depths: `bn(conv(x))` is a scale of `conv(x)` or a
//! convolution of `x`. These are its *anchors*, nearest first. Terms merge at
//! their nearest common anchor, so a shared `Pad` or norm in front of all branches
//! neither hinders them nor is dragged in when it cannot be. Then, walking back
//! from what is needed, each tensor is either left to its node or becomes the
//! output of a region that stops at the anchors whose cost is least.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::affine::{Geometry, Macs};
use crate::emit::layout::nodes_of;
use crate::onnx::graph::{NodeId, ValueId};
use crate::onnx::ids::{IdMap, IdSet, Table};
use crate::ops::meaning::Sign;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::region::{Region, Term, TermKind, are_of_one_rank, kind_of};
use crate::refusal::{NearMiss, NotLinear, Reason};

/// Depths at which one term is considered. Real branches have less than ten.
const MAX_ANCHORS: usize = 24;

/// Summands of one sum that sums inside it may bring in; real blocks have some dozens. Each
/// sum of a long chain holds those of all before it.
const MAX_TERMS: usize = 64;

/// Nodes that a region computes although others need what they make. Each sum of a chain
/// may be needed, and reach back over all before it.
const MAX_REPEATED: usize = 256;

/// Tensors on a residual path, or inputs of an operator; in real networks there are some
/// dozens.
const MAX_PATH: usize = 512;

const TOO_DEEP: Reason = Reason::Limit("operations are followed over 24 others in a row");

const TOO_MANY_TERMS: Reason = Reason::Limit("sums of more than 64 terms are not entered");

const TOO_OFTEN: Reason =
    Reason::Limit("no more than 256 nodes are computed again whose results others need too");

/// What something costs at run time, per output position. Negative: it saves that.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Cost {
    nodes: f64,
    weights: f64,
    work: Macs,
}

impl Cost {
    fn plus(self, other: Cost) -> Cost {
        Cost {
            nodes: self.nodes + other.nodes,
            weights: self.weights + other.weights,
            work: self.work.plus(other.work),
        }
    }

    fn minus(self, other: Cost) -> Cost {
        let Cost { nodes, weights, work } = other;
        self.plus(Cost { nodes: -nodes, weights: -weights, work: work.times(-1.0) })
    }

    /// The cost of something that is computed on the input of `map`, counted on its output.
    fn before(self, map: &Geometry) -> Cost {
        Cost { work: self.work.before(map), ..self }
    }

    fn no_dearer_than(&self, other: &Cost) -> bool {
        self.weights <= other.weights && self.work.no_more_than(&other.work)
    }
}

/// A term as seen from one tensor.
#[derive(Debug, Clone)]
struct Anchor {
    part: Term<Geometry>,
    /// Uses of the root that this term accounts for.
    uses: usize,
    /// Nodes between the root and the term, about: those of shared terms count twice.
    nodes: usize,
    /// Those of them whose results others need too.
    repeated: usize,
    /// What it costs to compute the term from the root.
    emit: Cost,
    /// What is no longer needed then, compared with the nearest anchor.
    saved: Cost,
}

impl Anchor {
    fn net(&self) -> Cost {
        self.emit.minus(self.saved)
    }
}

/// One summand, by anchors from near to far; never empty. Shared by all sums that it is in.
type AnchoredTerm = Rc<[Anchor]>;

#[derive(Debug, Clone)]
struct Form {
    terms: Vec<AnchoredTerm>,
    /// Whether the node as it stands computes this form from its inputs' forms.
    as_is: bool,
}

/// What the walk found.
pub struct Found {
    /// Regions worth rewriting, in topological order of their outputs.
    pub regions: Vec<Region>,
    /// Places that were left alone.
    pub near_misses: Vec<NearMiss>,
}

/// Uses of tensors (under their first name) that go away with other regions' nodes.
pub type Absorbed = IdSet<(NodeId, ValueId)>;

/// Decides the regions of a graph.
pub struct Walk<'r, 'g, 'm> {
    reader: &'r Reader<'g, 'm>,
    meanings: &'r Meanings,
    absorbed: &'r Absorbed,
    forms: Table<ValueId, Form>,
    /// Live uses of a tensor under any of its names.
    uses: Table<ValueId, usize>,
    near_misses: Vec<(ValueId, NearMiss)>,
    /// Limits that were met on the way to the form that is being made.
    limits: RefCell<Vec<Reason>>,
}

impl<'r, 'g, 'm> Walk<'r, 'g, 'm> {
    /// Computes the form of every linear tensor. Uses that are `absorbed` do not count.
    pub fn new(reader: &'r Reader<'g, 'm>, meanings: &'r Meanings, absorbed: &'r Absorbed) -> Self {
        let mut walk = Walk {
            reader,
            meanings,
            absorbed,
            forms: Table::default(),
            uses: Table::default(),
            near_misses: Vec::new(),
            limits: RefCell::default(),
        };
        walk.count_uses();
        for (id, node) in reader.graph.nodes() {
            let Some(output) = node.output() else { continue };
            let form = match meanings.get(id) {
                Some(Meaning::Linear(input, map)) => {
                    walk.map_form(id, meanings.source(*input), map)
                }
                Some(Meaning::Sum(operands)) => walk.sum_form(id, output, operands),
                Some(Meaning::Opaque(why)) => {
                    walk.note_product(output, id, why);
                    continue;
                }
                _ => continue,
            };
            walk.forms.insert(output, form);
            for limit in walk.limits.take() {
                walk.miss(output, limit);
            }
        }
        walk
    }

    /// Notes that `limit` is met by the form that is being made.
    fn meet(&self, limit: Reason) {
        let mut limits = self.limits.borrow_mut();
        if !limits.contains(&limit) {
            limits.push(limit);
        }
    }

    /// The regions, none of which ends in a tensor of `left_alone`.
    pub fn regions(&self, left_alone: &IdSet<ValueId>) -> Found {
        let graph = self.reader.graph;
        let source = |value| self.meanings.source(value);
        let mut needed: Table<ValueId, ()> = graph.outputs.iter().copied().map(source).collect();
        let mut regions = Vec::new();
        for (id, node) in graph.nodes().rev() {
            let wanted = node.outputs.iter().flatten().any(|&output| needed.contains(output));
            if matches!(self.meanings.get(id), None | Some(Meaning::Alias(_))) || !wanted {
                continue;
            }
            let output = node.output().filter(|output| !left_alone.contains(output));
            match output.and_then(|output| Some((output, self.cuts_of(output)?))) {
                Some((output, cuts)) => {
                    needed.extend(cuts.iter().copied());
                    regions.push(Region::new(self.reader, self.meanings, output, cuts));
                }
                None => needed.extend(graph.uses(id).map(source)),
            }
        }
        regions.reverse();
        let inside: Table<NodeId, ()> =
            regions.iter().flat_map(|region| &region.nodes).copied().collect();
        let outputs: Table<ValueId, ()> = regions.iter().map(|region| region.output).collect();
        // What went into a region was not missed.
        let missed = |value: &ValueId| {
            graph.value(*value).producer.is_none_or(|producer| !inside.contains(producer))
                || outputs.contains(*value)
        };
        // A limit is met by all that lies behind the first one that meets it.
        let mut limits = Vec::new();
        let is_first = |(_, miss): &&(ValueId, NearMiss)| match &miss.reason {
            limit @ Reason::Limit(_) => {
                let is_new = !limits.contains(limit);
                limits.extend(is_new.then(|| limit.clone()));
                is_new
            }
            _ => true,
        };
        let near_misses = self.near_misses.iter().filter(|(value, _)| missed(value));
        let near_misses = near_misses.filter(is_first);
        let near_misses = near_misses.map(|(_, near_miss)| near_miss.clone()).collect();
        Found { regions, near_misses }
    }

    /// Where the region of `output` stops; `None` if its node stays as it is.
    fn cuts_of(&self, output: ValueId) -> Option<BTreeSet<ValueId>> {
        let form = self.forms.get(output)?;
        let chosen: Vec<usize> = form.terms.iter().map(|term| best(term)).collect();
        if form.as_is && (form.terms.len() > 1 || chosen.iter().all(|&depth| depth == 0)) {
            return None;
        }
        let anchors = form.terms.iter().zip(chosen).filter_map(|(term, depth)| term.get(depth));
        Some(anchors.map(|anchor| anchor.part.root).collect())
    }

    fn count_uses(&mut self) {
        let graph = self.reader.graph;
        for (id, node) in graph.nodes() {
            let constant =
                node.output().is_some_and(|output| self.reader.constants.contains(output));
            if constant || matches!(self.meanings.get(id), None | Some(Meaning::Alias(_))) {
                continue;
            }
            for value in graph.uses(id).map(|value| self.meanings.source(value)) {
                *self.uses.or_default(value) += self.use_of(id, value);
            }
        }
        for &output in &graph.outputs {
            *self.uses.or_default(self.meanings.source(output)) += 1;
        }
    }

    /// 1 for a use that counts.
    fn use_of(&self, node: NodeId, source: ValueId) -> usize {
        usize::from(!self.absorbed.contains(&(node, source)))
    }

    /// How often `source` is read by a node and what was read together with it.
    fn uses_by(&self, id: NodeId, steps: &[NodeId], source: ValueId) -> usize {
        let uses = |&node: &NodeId| {
            if let Some(Meaning::Alias(_)) = self.meanings.get(node) {
                return 0;
            }
            let of_source = self.reader.graph.uses(node);
            let count = of_source.filter(|&value| self.meanings.source(value) == source).count();
            count * self.use_of(node, source)
        };
        uses(&id) + steps.iter().map(uses).sum::<usize>()
    }

    /// Whether nobody needs the anchor's root once this term is computed from further away.
    fn dies(&self, anchor: &Anchor) -> bool {
        self.uses.get(anchor.part.root).copied().unwrap_or(0) == anchor.uses
    }

    fn cost(&self, part: &Term<Geometry>) -> Cost {
        cost(part, self.reader.graph.model.opset)
    }

    fn map_form(&mut self, id: NodeId, input: ValueId, map: &LinearOp) -> Form {
        let kind = kind_of(map);
        let part = Term { root: input, map: map.geometry(), kind };
        let steps = self.meanings.consumed(id);
        let uses = self.uses_by(id, steps, input);
        let mut emit = own_cost(map);
        emit.nodes += steps.len() as f64;
        let saved = Cost::default();
        let nearest = Anchor { part, uses, nodes: 1, repeated: 0, emit, saved };
        if let Some(terms) = self.scaled_terms(&nearest, map) {
            return Form { terms, as_is: false };
        }
        let term = self.anchors_from(nearest);
        self.note_sequence(id, input, &term);
        Form { terms: vec![term], as_is: true }
    }

    /// A scale or shift of a sum of several convolutions goes into each of them, if
    /// nobody else needs the sum and no plain operand would need a convolution.
    fn scaled_terms(&self, nearest: &Anchor, map: &LinearOp) -> Option<Vec<AnchoredTerm>> {
        let form = self.forms.get(nearest.part.root)?;
        let pointwise = match map {
            LinearOp::Diagonal { .. } => true,
            LinearOp::Filter { windows, .. } => windows.is_empty(),
            LinearOp::Conv { .. } | LinearOp::Bordered { .. } | LinearOp::Transpose { .. } => false,
        };
        if form.terms.len() < 2 || !pointwise || !self.dies(nearest) {
            return None;
        }
        let weighted = |term: &AnchoredTerm| {
            term.iter().find(|at| at.part.kind == TermKind::Conv).map(|at| at.part.map.clone())
        };
        let maps = form.terms.iter().map(weighted).collect::<Option<Vec<Geometry>>>()?;
        if !are_of_one_rank(maps.iter()) {
            return None;
        }
        let scaled = |term: &AnchoredTerm| {
            let anchors = term.iter().filter(|anchor| anchor.part.kind == TermKind::Conv);
            let anchors: AnchoredTerm = anchors
                .filter_map(|anchor| {
                    let part = anchor.part.mapped(&nearest.part.map, nearest.part.kind).ok()?;
                    let nodes = anchor.nodes.saturating_add(nearest.nodes);
                    Some(Anchor { emit: self.cost(&part), part, nodes, ..anchor.clone() })
                })
                .collect();
            (!anchors.is_empty()).then_some(anchors)
        };
        form.terms.iter().map(scaled).collect()
    }

    /// The term read at `nearest`, and at all legal depths behind it.
    fn anchors_from(&self, nearest: Anchor) -> AnchoredTerm {
        let mut term = vec![nearest.clone()];
        let Some([behind]) = self.forms.get(nearest.part.root).map(|form| form.terms.as_slice())
        else {
            return term.into();
        };
        if behind.len() > MAX_ANCHORS {
            self.meet(TOO_DEEP);
        }
        let dies = self.dies(&nearest);
        let replaced = behind.get(best(behind)).map(Anchor::net).unwrap_or_default();
        for anchor in behind.iter().take(MAX_ANCHORS) {
            let Ok(part) = anchor.part.mapped(&nearest.part.map, nearest.part.kind) else {
                continue;
            };
            let saved = if dies {
                anchor.saved.plus(replaced).before(&nearest.part.map)
            } else {
                Cost::default()
            };
            let uses = if dies { anchor.uses } else { 0 };
            let again = if dies { anchor.repeated } else { anchor.nodes };
            let repeated = nearest.repeated.saturating_add(again);
            if repeated > MAX_REPEATED {
                self.meet(TOO_OFTEN);
                continue;
            }
            term.push(Anchor {
                emit: self.cost(&part),
                part,
                uses,
                nodes: nearest.nodes.saturating_add(anchor.nodes),
                repeated,
                saved: nearest.saved.plus(saved),
            });
        }
        term.into()
    }

    fn sum_form(&mut self, id: NodeId, output: ValueId, operands: &[(Sign, ValueId)]) -> Form {
        let mut sum = SumForm::default();
        let mut as_is = true;
        let steps = self.meanings.consumed(id);
        let mut times: IdMap<ValueId, usize> = IdMap::default();
        for &(_, operand) in operands {
            *times.entry(self.meanings.source(operand)).or_default() += 1;
        }
        for &(sign, operand) in operands {
            let root = self.meanings.source(operand);
            let part =
                Term { root, map: Geometry::identity(), kind: TermKind::Identity(Sign::Plus) };
            let once = || times.get(&root) == Some(&1);
            let uses = match once() {
                true => self.uses_by(id, steps, root),
                false => self.use_of(id, root),
            };
            let (emit, saved) = (Cost::default(), Cost::default());
            let plain = Anchor { part, uses, nodes: 1, repeated: 0, emit, saved };
            let several = self.forms.get(root).filter(|form| form.terms.len() > 1);
            let terms = match several {
                // A nested sum that nobody else needs is part of this one.
                Some(form) if self.dies(&plain) && once() => match sum.has_room_for(form) {
                    true => form.terms.clone(),
                    false => {
                        self.meet(TOO_MANY_TERMS);
                        vec![self.anchors_from(plain)]
                    }
                },
                _ => vec![self.anchors_from(plain)],
            };
            sum.begin_operand();
            for term in terms {
                let term = signed(sign, term);
                as_is &= !self.add(&mut sum, term);
            }
        }
        let terms: Vec<AnchoredTerm> = sum.terms.into_iter().flatten().collect();
        if terms.len() > 1 {
            self.note_sum(output, &terms);
        }
        Form { terms, as_is }
    }

    /// Adds a term to a sum; returns whether it was merged with another.
    fn add(&self, sum: &mut SumForm, mut term: AnchoredTerm) -> bool {
        let mut merged_any = false;
        while let Some((index, merged)) = self.merge_with_some(sum, &term, merged_any) {
            sum.remove(index);
            term = merged;
            merged_any = true;
        }
        sum.push(term, merged_any);
        merged_any
    }

    /// `merged` is whether the term was made by this sum.
    fn merge_with_some(
        &self,
        sum: &SumForm,
        term: &AnchoredTerm,
        merged: bool,
    ) -> Option<(usize, AnchoredTerm)> {
        for anchor in term.iter() {
            for &index in sum.by_root.get(&anchor.part.root).into_iter().flatten() {
                // Each sum of a long chain would try those of all before it again.
                if !merged && sum.were_apart(index) {
                    continue;
                }
                let Some(Some(other)) = sum.terms.get(index) else { continue };
                let Some(at) = other.iter().find(|at| at.part.root == anchor.part.root) else {
                    continue;
                };
                let Ok(part) = at.part.clone().sum(&anchor.part, self.reader) else { continue };
                let merged = self.anchors_from(Anchor {
                    emit: self.cost(&part),
                    part,
                    uses: at.uses + anchor.uses,
                    nodes: at.nodes.saturating_add(anchor.nodes),
                    repeated: at.repeated.saturating_add(anchor.repeated),
                    saved: at.saved.plus(anchor.saved),
                });
                let chosen = |term: &AnchoredTerm| term.get(best(term)).cloned();
                let net = |term: &AnchoredTerm| chosen(term).map(|at| at.net()).unwrap_or_default();
                let apart = net(other).plus(net(term));
                // x + x has no kernel to go into, unless x itself is a convolution.
                let weighted = chosen(&merged).is_some_and(|at| at.part.kind == TermKind::Conv);
                if weighted
                    && net(&merged).no_dearer_than(&apart)
                    && net(&merged).nodes <= apart.nodes
                {
                    return Some((index, merged));
                }
            }
        }
        None
    }

    // Near misses.

    fn miss(&mut self, output: ValueId, reason: Reason) {
        let graph = self.reader.graph;
        let node = graph.value(output).producer.map(|producer| graph.node(producer).label());
        let node = node.unwrap_or_default().to_owned();
        let mut of_output = self.near_misses.iter().rev().take_while(|(at, _)| *at == output);
        if !of_output.any(|(_, miss)| miss.reason == reason) {
            self.near_misses.push((output, NearMiss { node, reason }));
        }
    }

    /// Two convolutions in a row that nobody else needs, and are not made one.
    fn note_sequence(&mut self, id: NodeId, input: ValueId, term: &[Anchor]) {
        let graph = self.reader.graph;
        let (Some(nearest), Some(output)) = (term.first(), graph.node(id).output()) else { return };
        if !self.dies(nearest) {
            return;
        }
        let Some(behind) = self.weighted(input).cloned() else { return };
        let composed = term.iter().find(|anchor| anchor.part.root == behind.part.root);
        let reason = match composed {
            None => match behind.part.mapped(&nearest.part.map, nearest.part.kind) {
                Err(refusal) => Reason::Geometry(refusal),
                Ok(_) => return,
            },
            Some(composed) if best(term) == 0 && nearest.part.kind == TermKind::Conv => {
                Reason::Dearer {
                    before: nearest.part.weights() + behind.part.weights(),
                    after: composed.part.weights(),
                }
            }
            Some(_) => return,
        };
        self.miss(output, reason);
    }

    /// A sum with a convolution whose other operands stayed apart.
    fn note_sum(&mut self, output: ValueId, terms: &[AnchoredTerm]) {
        let weighted: Vec<&Anchor> = terms
            .iter()
            .filter_map(|term| term.iter().find(|anchor| anchor.part.kind == TermKind::Conv))
            .collect();
        let plain =
            || terms.iter().filter(|term| term.iter().all(|at| at.part.kind != TermKind::Conv));
        let Some((first, others)) = weighted.split_first() else {
            let refused = plain().filter_map(|term| self.obstacle(term.last()?.part.root, None));
            return refused
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|reason| self.miss(output, reason));
        };
        let name = |value: ValueId| self.reader.graph.value(value).name.clone();
        let mut reasons = Vec::new();
        for other in others.iter().take(4) {
            let same_root = weighted.iter().find(|at| {
                at.part.root == other.part.root && !std::ptr::eq::<Anchor>(**at, *other)
            });
            reasons.extend(match same_root {
                None => self
                    .refusal_further_back(terms)
                    .or_else(|| self.different_inputs(first.part.root, other.part.root)),
                Some(at) => Some(match at.part.merged(&other.part, self.reader) {
                    Err(reason) => reason,
                    // Legal and no dearer by itself: what it saves is needed elsewhere.
                    Ok(_) => Reason::ReadElsewhere(name(self.kept_branch(terms))),
                }),
            });
        }
        let obstacles =
            plain().filter_map(|term| self.obstacle(term.last()?.part.root, Some(first.part.root)));
        reasons.extend(obstacles);
        reasons.into_iter().for_each(|reason| self.miss(output, reason));
    }

    /// That two convolutions do not read the same tensor, or why what one of them reads
    /// is not the other's with a border. `None` if one tensor is made by convolutions of
    /// the other: a residual, whose path was never meant to be a branch.
    fn different_inputs(&self, left: ValueId, right: ValueId) -> Option<Reason> {
        let pairs = [(left, right), (right, left)];
        let nearly = |(value, root)| {
            let obstacle = self.obstacle(value, Some(root))?;
            let operator =
                matches!(&obstacle, Reason::NotLinear { why: NotLinear::Operator(_), .. });
            (!operator).then_some(obstacle)
        };
        if let Some(obstacle) = pairs.into_iter().find_map(nearly) {
            return Some(obstacle);
        }
        if pairs.into_iter().any(|(value, root)| self.is_convolved_from(value, root)) {
            return None;
        }
        let name = |value: ValueId| self.reader.graph.value(value).name.clone();
        Some(Reason::DifferentInputs { left: name(left), right: name(right) })
    }

    /// Whether `value` is computed from `root` through a convolution, looking back over a
    /// residual path of usual length.
    fn is_convolved_from(&self, value: ValueId, root: ValueId) -> bool {
        let graph = self.reader.graph;
        let mut seen = IdSet::default();
        let mut open = vec![(value, false)];
        while let Some((value, convolved)) = open.pop().filter(|_| seen.len() < MAX_PATH) {
            let value = self.meanings.source(value);
            if value == root && convolved {
                return true;
            }
            let Some(producer) = graph.value(value).producer else { continue };
            if seen.insert((value, convolved)) {
                let convolves = matches!(
                    self.meanings.get(producer),
                    Some(Meaning::Linear(_, map)) if kind_of(map) == TermKind::Conv
                );
                open.extend(graph.uses(producer).map(|input| (input, convolved || convolves)));
            }
        }
        false
    }

    /// Why two of the terms do not merge at a root that both go back to.
    fn refusal_further_back(&self, terms: &[AnchoredTerm]) -> Option<Reason> {
        let mut seen: IdMap<ValueId, &Anchor> = IdMap::default();
        for term in terms {
            for anchor in term.iter().filter(|anchor| anchor.part.kind == TermKind::Conv) {
                if let Some(other) = seen.get(&anchor.part.root)
                    && let Err(refusal) = other.part.clone().sum(&anchor.part, self.reader)
                {
                    return Some(Reason::Geometry(refusal));
                }
            }
            seen.extend(term.iter().map(|anchor| (anchor.part.root, anchor)));
        }
        None
    }

    /// The first operand that others read too.
    fn kept_branch(&self, terms: &[AnchoredTerm]) -> ValueId {
        let operands = || terms.iter().filter_map(|term| term.first());
        let kept = operands().find(|operand| {
            matches!(operand.part.kind, TermKind::Identity(_)) && !self.dies(operand)
        });
        let any = operands().next().map(|operand| operand.part.root);
        kept.map(|operand| operand.part.root)
            .or(any)
            .unwrap_or_else(|| unreachable!("a sum has terms"))
    }

    /// Why `operand`, which is added to a convolution of `root` (if there is one), is
    /// not one itself.
    fn obstacle(&self, operand: ValueId, root: Option<ValueId>) -> Option<Reason> {
        let graph = self.reader.graph;
        let producer = graph.value(operand).producer?;
        let node = graph.node(producer);
        let Meaning::Opaque(why) = self.meanings.get(producer)? else { return None };
        // Of an operator with thousands of inputs, many sums may ask.
        let reads_a_branch = graph.uses(producer).take(MAX_PATH).any(|input| {
            self.weighted(self.meanings.source(input))
                .is_some_and(|anchor| Some(anchor.part.root) == root)
        });
        let operator = matches!(why, NotLinear::Operator(_));
        (reads_a_branch || !operator)
            .then(|| Reason::NotLinear { node: node.label().to_owned(), why: why.clone() })
    }

    /// A product or maximum of convolutions of one tensor, or something behind a
    /// convolution that is nearly linear.
    fn note_product(&mut self, output: ValueId, id: NodeId, why: &NotLinear) {
        let graph = self.reader.graph;
        let mut roots: Vec<ValueId> = graph
            .uses(id)
            .filter_map(|input| Some(self.weighted(self.meanings.source(input))?.part.root))
            .collect();
        let count = roots.len();
        roots.sort_unstable();
        roots.dedup();
        let nearly = !matches!(why, NotLinear::Operator(_) | NotLinear::Foreign(_));
        let is_beyond = matches!(why, NotLinear::Limit(_));
        if roots.len() < count || (nearly && count > 0) || is_beyond {
            let node = graph.node(id).label().to_owned();
            self.miss(output, Reason::NotLinear { node, why: why.clone() });
        }
    }

    /// The nearest anchor of `value` that is a convolution, if `value` is one term.
    fn weighted(&self, value: ValueId) -> Option<&Anchor> {
        let [term] = self.forms.get(value)?.terms.as_slice() else { return None };
        term.iter().find(|anchor| anchor.part.kind == TermKind::Conv)
    }
}

/// The terms of a sum under construction, found by any of their roots.
#[derive(Default)]
struct SumForm {
    terms: Vec<Option<AnchoredTerm>>,
    by_root: IdMap<ValueId, Vec<usize>>,
    /// The terms from this one on are of the operand that is being added.
    operand: usize,
    /// Terms that were merged here.
    merged: BTreeSet<usize>,
}

impl SumForm {
    fn has_room_for(&self, form: &Form) -> bool {
        self.terms.len() + form.terms.len() <= MAX_TERMS
    }

    /// Those that follow are of one more operand.
    fn begin_operand(&mut self) {
        self.operand = self.terms.len();
    }

    /// Whether the term at `index` stayed apart from the one that is being added, in the
    /// operand that both are of.
    fn were_apart(&self, index: usize) -> bool {
        index >= self.operand && !self.merged.contains(&index)
    }

    fn push(&mut self, term: AnchoredTerm, merged: bool) {
        if merged {
            self.merged.insert(self.terms.len());
        }
        for anchor in term.iter() {
            self.by_root.entry(anchor.part.root).or_default().push(self.terms.len());
        }
        self.terms.push(Some(term));
    }

    fn remove(&mut self, index: usize) {
        if let Some(slot) = self.terms.get_mut(index) {
            *slot = None;
        }
    }
}

fn signed(sign: Sign, term: AnchoredTerm) -> AnchoredTerm {
    if sign == Sign::Plus {
        return term;
    }
    let anchors = term.iter().cloned();
    anchors.map(|anchor| Anchor { part: anchor.part.clone().signed(sign), ..anchor }).collect()
}

/// The depth at which a term is cheapest: of those that are no dearer than the
/// nearest, one with the fewest nodes.
fn best(term: &[Anchor]) -> usize {
    let Some(nearest) = term.first().map(Anchor::net) else { return 0 };
    let mut best = (0, nearest);
    for (depth, anchor) in term.iter().enumerate().skip(1) {
        let net = anchor.net();
        let emittable = anchor.part.kind == TermKind::Conv;
        if emittable && net.no_dearer_than(&nearest) && net.nodes < best.1.nodes {
            best = (depth, net);
        }
    }
    best.0
}

/// Cost of a part that is written out as new nodes.
fn cost(part: &Term<Geometry>, opset: i64) -> Cost {
    if let TermKind::Identity(_) = part.kind {
        return Cost::default();
    }
    let outputs = part.map.channels.map_or(0, |channels| channels.outputs) as f64;
    let bias = if part.map.shifted { outputs } else { 0.0 };
    Cost {
        nodes: nodes_of(&part.map, opset) as f64,
        weights: part.map.weights() + bias,
        work: part.map.work(),
    }
}

/// Cost of a node as it stands.
fn own_cost(map: &LinearOp) -> Cost {
    let weights = match map {
        LinearOp::Conv { bias, geometry, .. } => geometry.weights() + bias.len() as f64,
        // γ, β, μ, σ² of a norm; a scale or shift has less, but nothing to trade for it.
        LinearOp::Diagonal { scale, .. } => 4.0 * scale.len() as f64,
        LinearOp::Bordered { map, .. } => return own_cost(map),
        LinearOp::Filter { .. } | LinearOp::Transpose { .. } => 0.0,
    };
    Cost { nodes: 1.0, weights, work: map.work() }
}
