//! Where regions begin and end: legality and profit, decided on shapes alone.
//!
//! Walking forward, every linear tensor gets a *form*: a sum of terms. A term can
//! be read at several depths: `bn(conv(x))` is a scale of `conv(x)` or a
//! convolution of `x`. These are its *anchors*, nearest first. Terms merge at
//! their nearest common anchor, so a shared `Pad` or norm in front of all branches
//! neither hinders them nor is dragged in when it cannot be. Then, walking back
//! from what is needed, each tensor is either left to its node or becomes the
//! output of a region that stops at the anchors whose cost is least.
//!
//! Knows meanings and costs; no weights, and not how a node is written.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::affine::Geometry;
use crate::emit::term::{Term, TermKind};
use crate::onnx::ids::{IdMap, IdSet, NodeId, Table, ValueId};
use crate::ops::meaning::{LinearOp, Meaning, Sign};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::anchor::{Anchor, AnchoredTerm, best, signed};
use crate::plan::cost::{self, Cost};
use crate::plan::merge::{are_of_one_rank, kind_of, merge};
use crate::plan::region::Region;
use crate::plan::tails::Tails;
use crate::refusal::Reason;

/// Depths at which one term is considered. Real branches have less than ten.
const MAX_ANCHORS: usize = 24;

/// Summands of one sum that sums inside it may bring in; real blocks have some dozens. Each
/// sum of a long chain holds those of all before it.
const MAX_TERMS: usize = 64;

/// Nodes that a region computes although others need what they make. Each sum of a chain
/// may be needed, and reach back over all before it.
const MAX_REPEATED: usize = 256;

const TOO_DEEP: Reason = Reason::Limit("operations are followed over 24 others in a row");

const TOO_MANY_TERMS: Reason = Reason::Limit("sums of more than 64 terms are not entered");

const TOO_OFTEN: Reason =
    Reason::Limit("no more than 256 nodes are computed again whose results others need too");

/// A linear tensor as a sum.
#[derive(Debug, Clone)]
pub struct Form {
    /// Its summands.
    pub terms: Vec<AnchoredTerm>,
    /// Whether the node as it stands computes this form from its inputs' forms.
    as_is: bool,
}

/// Uses of tensors (under their first name) that go away with other regions' nodes.
pub type Absorbed = IdSet<(NodeId, ValueId)>;

/// Decides the regions of a graph.
pub struct Walk<'r, 'g, 'm> {
    /// The graph.
    pub reader: &'r Reader<'g, 'm>,
    /// What its nodes compute.
    pub meanings: &'r Meanings,
    absorbed: &'r Absorbed,
    /// Of every linear tensor.
    pub forms: Table<ValueId, Form>,
    /// Live uses of a tensor under any of its names.
    uses: Table<ValueId, usize>,
    /// Limits that were met on the way to a tensor's form.
    pub limits: IdMap<ValueId, Vec<Reason>>,
    /// Those that were met on the way to the form that is being made.
    met: RefCell<Vec<Reason>>,
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
            limits: IdMap::default(),
            met: RefCell::default(),
        };
        walk.count_uses();
        let mut tails = Tails::default();
        for (id, node) in reader.graph.nodes() {
            let Some(output) = node.output() else { continue };
            let form = match meanings.get(id) {
                Some(Meaning::Linear(input, map))
                    if tails.note(reader, meanings, (id, *input), map) =>
                {
                    continue;
                }
                Some(Meaning::Linear(input, map)) => {
                    walk.map_form(id, meanings.source(*input), map)
                }
                Some(Meaning::Sum(operands)) => walk.sum_form(id, operands),
                _ => continue,
            };
            walk.forms.insert(output, form);
            let limits = walk.met.take();
            if !limits.is_empty() {
                walk.limits.insert(output, limits);
            }
        }
        walk
    }

    /// Notes that `limit` is met by the form that is being made.
    fn meet(&self, limit: Reason) {
        let mut limits = self.met.borrow_mut();
        if !limits.contains(&limit) {
            limits.push(limit);
        }
    }

    /// The regions worth rewriting, none of which ends in a tensor of `left_alone`, in
    /// topological order of their outputs.
    pub fn regions(&self, left_alone: &IdSet<ValueId>) -> Vec<Region> {
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
        regions
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
    pub fn dies(&self, anchor: &Anchor) -> bool {
        self.uses.get(anchor.part.root).copied().unwrap_or(0) == anchor.uses
    }

    fn cost(&self, part: &Term<Geometry>) -> Cost {
        cost::of_term(part, self.reader.graph.model.opset)
    }

    fn map_form(&self, id: NodeId, input: ValueId, map: &LinearOp) -> Form {
        let part = match map {
            LinearOp::View(view) => Term::view(input, view.clone(), Geometry::identity()),
            _ => Term::new(input, map.geometry(), kind_of(map)),
        };
        let steps = self.meanings.consumed(id);
        let uses = self.uses_by(id, steps, input);
        let mut emit = cost::of_node(map, self.channels(input));
        emit.nodes += steps.len() as f64;
        let saved = Cost::default();
        let nearest = Anchor { part, uses, nodes: 1, repeated: 0, emit, saved };
        if let Some(terms) = self.scaled_terms(&nearest, map) {
            return Form { terms, as_is: false };
        }
        let term = self.anchors_from(nearest);
        Form { terms: vec![term], as_is: true }
    }

    /// How many channels a tensor has that convolutions make; 0 if none does.
    fn channels(&self, tensor: ValueId) -> usize {
        let term = self.forms.get(tensor).and_then(|form| form.terms.first());
        let made = term.and_then(|term| term.iter().find_map(|at| at.part.map.channels));
        made.map_or(0, |channels| channels.outputs)
    }

    /// A scale or shift of a sum of several convolutions goes into each of them, if
    /// nobody else needs the sum and no plain operand would need a convolution.
    fn scaled_terms(&self, nearest: &Anchor, map: &LinearOp) -> Option<Vec<AnchoredTerm>> {
        let form = self.forms.get(nearest.part.root)?;
        if form.terms.len() < 2 || !map.is_pointwise() || !self.dies(nearest) {
            return None;
        }
        let weighted = |term: &AnchoredTerm| {
            term.iter().find(|at| at.part.kind == TermKind::Conv).map(|at| at.part.clone())
        };
        let maps = form.terms.iter().map(weighted).collect::<Option<Vec<Term<Geometry>>>>()?;
        if !are_of_one_rank(maps.iter()) {
            return None;
        }
        let scaled = |term: &AnchoredTerm| {
            let anchors = term.iter().filter(|anchor| anchor.part.kind == TermKind::Conv);
            let anchors: AnchoredTerm = anchors
                .filter_map(|anchor| {
                    let part = nearest.part.of(&anchor.part).ok()?;
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
            let Ok(part) = nearest.part.of(&anchor.part) else {
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

    fn sum_form(&self, id: NodeId, operands: &[(Sign, ValueId)]) -> Form {
        let mut sum = SumForm::default();
        let mut as_is = true;
        let steps = self.meanings.consumed(id);
        let mut times: IdMap<ValueId, usize> = IdMap::default();
        for &(_, operand) in operands {
            *times.entry(self.meanings.source(operand)).or_default() += 1;
        }
        for &(sign, operand) in operands {
            let root = self.meanings.source(operand);
            let kind = TermKind::Identity(Sign::Plus);
            let part = Term::new(root, Geometry::identity(), kind);
            let once = || times.get(&root) == Some(&1);
            let uses = if once() { self.uses_by(id, steps, root) } else { self.use_of(id, root) };
            let (emit, saved) = (Cost::default(), Cost::default());
            let plain = Anchor { part, uses, nodes: 1, repeated: 0, emit, saved };
            let several = self.forms.get(root).filter(|form| form.terms.len() > 1);
            let terms = match several {
                // A nested sum that nobody else needs is part of this one.
                Some(form) if self.dies(&plain) && once() => {
                    if sum.has_room_for(form) {
                        form.terms.clone()
                    } else {
                        self.meet(TOO_MANY_TERMS);
                        vec![self.anchors_from(plain)]
                    }
                }
                _ => vec![self.anchors_from(plain)],
            };
            sum.begin_operand();
            for term in terms {
                let term = signed(sign, term);
                as_is &= !self.add(&mut sum, term);
            }
        }
        let terms: Vec<AnchoredTerm> = sum.terms.into_iter().flatten().collect();
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
                let Ok(part) = merge(at.part.clone(), &anchor.part, self.reader) else { continue };
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
    /// operand that the two are of.
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
