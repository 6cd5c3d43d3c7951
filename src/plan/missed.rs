//! Near misses, read off after the search: places that look like a block, and why they are
//! none.
//!
//! Knows the forms that the search found; changes nothing of it.

use crate::affine::Refusal;
use crate::emit::term::TermKind;
use crate::onnx::ids::{IdMap, IdSet, NodeId, Table, ValueId};
use crate::ops::meaning::Meaning;
use crate::plan::anchor::{Anchor, AnchoredTerm, best};
use crate::plan::cuts::Walk;
use crate::plan::merge::{kind_of, merge, merge_if_smaller};
use crate::plan::region::Region;
use crate::refusal::{NearMiss, NotLinear, Reason};

/// Tensors on a residual path, or inputs of an operator; in real networks there are some
/// dozens.
const MAX_PATH: usize = 512;

/// The places that were left alone when these regions were found.
pub fn near_misses(walk: &Walk, regions: &[Region]) -> Vec<NearMiss> {
    let graph = walk.reader.graph;
    let mut misses = NearMisses { walk, found: Vec::new() };
    for (id, node) in graph.nodes() {
        if let Some(output) = node.output() {
            misses.note(id, output);
        }
    }
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
    let is_first = |miss: &NearMiss| match &miss.reason {
        limit @ Reason::Limit(_) => {
            let is_new = !limits.contains(limit);
            limits.extend(is_new.then(|| limit.clone()));
            is_new
        }
        _ => true,
    };
    let near_misses = misses.found.into_iter().filter(|(value, _)| missed(value));
    near_misses.map(|(_, near_miss)| near_miss).filter(is_first).collect()
}

/// What is read off a search.
struct NearMisses<'w, 'r, 'g, 'm> {
    walk: &'w Walk<'r, 'g, 'm>,
    found: Vec<(ValueId, NearMiss)>,
}

impl NearMisses<'_, '_, '_, '_> {
    /// Notes what was missed at the node `id`, which makes `output`.
    fn note(&mut self, id: NodeId, output: ValueId) {
        let walk = self.walk;
        let terms = walk.forms.get(output).map_or(&[][..], |form| &form.terms);
        match (walk.meanings.get(id), terms) {
            (Some(Meaning::Opaque(why)), _) => self.note_product(output, id, why),
            (Some(Meaning::Linear(input, _)), [term]) => {
                self.note_sequence(output, walk.meanings.source(*input), term);
            }
            (Some(Meaning::Sum(_)), [_, _, ..]) => self.note_sum(output, terms),
            _ => {}
        }
        for limit in walk.limits.get(&output).into_iter().flatten() {
            self.miss(output, limit.clone());
        }
    }

    fn miss(&mut self, output: ValueId, reason: Reason) {
        let graph = self.walk.reader.graph;
        let node = graph.value(output).producer.map(|producer| graph.node(producer).label());
        let node = node.unwrap_or_default().to_owned();
        let mut of_output = self.found.iter().rev().take_while(|(at, _)| *at == output);
        if !of_output.any(|(_, miss)| miss.reason == reason) {
            self.found.push((output, NearMiss { node, reason }));
        }
    }

    /// The reason, with the size that would help, if one would.
    fn told(&self, reason: Reason, root: ValueId) -> Reason {
        let Reason::Geometry(Refusal::Unplaced(axis)) = reason else { return reason };
        let (reader, axis) = (self.walk.reader, axis.saturating_add(2));
        let node = reader.graph.value(root).producer.map(|id| reader.graph.node(id).label());
        let name = &reader.graph.value(root).name;
        let what = format!("the size of `{name}` on axis {axis}, on which its windows depend,");
        let node = node.unwrap_or(name).to_owned();
        Reason::NotLinear { node, why: reader.sizes.unknown(what) }
    }

    /// Two convolutions in a row that nobody else needs, and are not made one.
    fn note_sequence(&mut self, output: ValueId, input: ValueId, term: &[Anchor]) {
        let Some(nearest) = term.first() else { return };
        if !self.walk.dies(nearest) {
            return;
        }
        let Some(behind) = self.weighted(input).cloned() else { return };
        let composed = term.iter().find(|anchor| anchor.part.root == behind.part.root);
        let is_norm =
            nearest.part.kind == TermKind::Pointwise && nearest.part.map.channels.is_some();
        let reason = match composed {
            None => match nearest.part.of(&behind.part) {
                // A product of what a convolution made, flattened, or a view of a view: nobody
                // expects it of anything but a norm.
                Err(Refusal::View) if !is_norm => return,
                Err(refusal) => self.told(refusal.into(), input),
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
        let name = |value: ValueId| self.walk.reader.graph.value(value).name.clone();
        let mut reasons = Vec::new();
        for other in others.iter().take(4) {
            let same_root = weighted.iter().find(|at| {
                at.part.root == other.part.root && !std::ptr::eq::<Anchor>(**at, *other)
            });
            reasons.extend(match same_root {
                None => self
                    .refusal_further_back(terms)
                    .or_else(|| self.different_inputs(first.part.root, other.part.root)),
                Some(at) => Some(match merge_if_smaller(&at.part, &other.part, self.walk.reader) {
                    Err(reason) => self.told(reason, other.part.root),
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
        let name = |value: ValueId| self.walk.reader.graph.value(value).name.clone();
        Some(Reason::DifferentInputs { left: name(left), right: name(right) })
    }

    /// Whether `value` is computed from `root` through a convolution, looking back over a
    /// residual path of usual length.
    fn is_convolved_from(&self, value: ValueId, root: ValueId) -> bool {
        let graph = self.walk.reader.graph;
        let mut seen = IdSet::default();
        let mut open = vec![(value, false)];
        while let Some((value, convolved)) = open.pop().filter(|_| seen.len() < MAX_PATH) {
            let value = self.walk.meanings.source(value);
            if value == root && convolved {
                return true;
            }
            let Some(producer) = graph.value(value).producer else { continue };
            if seen.insert((value, convolved)) {
                let convolves = matches!(
                    self.walk.meanings.get(producer),
                    Some(Meaning::Linear(_, map)) if kind_of(map) == TermKind::Conv
                );
                open.extend(graph.uses(producer).map(|input| (input, convolved || convolves)));
            }
        }
        false
    }

    /// Why two of the terms do not merge at a root that the two go back to.
    fn refusal_further_back(&self, terms: &[AnchoredTerm]) -> Option<Reason> {
        let mut seen: IdMap<ValueId, &Anchor> = IdMap::default();
        for term in terms {
            for anchor in term.iter().filter(|anchor| anchor.part.kind == TermKind::Conv) {
                if let Some(other) = seen.get(&anchor.part.root)
                    && let Err(refusal) = merge(other.part.clone(), &anchor.part, self.walk.reader)
                {
                    return Some(self.told(refusal.into(), anchor.part.root));
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
            matches!(operand.part.kind, TermKind::Identity(_)) && !self.walk.dies(operand)
        });
        let any = operands().next().map(|operand| operand.part.root);
        kept.map(|operand| operand.part.root)
            .or(any)
            .unwrap_or_else(|| unreachable!("a sum has terms"))
    }

    /// Why `operand`, which is added to a convolution of `root` (if there is one), is
    /// not one itself.
    fn obstacle(&self, operand: ValueId, root: Option<ValueId>) -> Option<Reason> {
        let graph = self.walk.reader.graph;
        let producer = graph.value(operand).producer?;
        let node = graph.node(producer);
        let Meaning::Opaque(why) = self.walk.meanings.get(producer)? else { return None };
        // Of an operator with thousands of inputs, many sums may ask.
        let reads_a_branch = graph.uses(producer).take(MAX_PATH).any(|input| {
            self.weighted(self.walk.meanings.source(input))
                .is_some_and(|anchor| Some(anchor.part.root) == root)
        });
        let operator = matches!(why, NotLinear::Operator(_));
        (reads_a_branch || !operator)
            .then(|| Reason::NotLinear { node: node.label().to_owned(), why: why.clone() })
    }

    /// A product or maximum of convolutions of one tensor, or something behind a
    /// convolution that is nearly linear.
    fn note_product(&mut self, output: ValueId, id: NodeId, why: &NotLinear) {
        let graph = self.walk.reader.graph;
        let mut roots: Vec<ValueId> = graph
            .uses(id)
            .filter_map(|input| Some(self.weighted(self.walk.meanings.source(input))?.part.root))
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
        let [term] = self.walk.forms.get(value)?.terms.as_slice() else { return None };
        term.iter().find(|anchor| anchor.part.kind == TermKind::Conv)
    }
}
