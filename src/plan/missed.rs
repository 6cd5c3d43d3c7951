//! Near misses, read off after the search: places that look like a block, and why they are
//! none.
//!
//! What looks like a block: convolutions of one tensor that are added up, two convolutions in a
//! row for which one kernel could be no dearer, and what is nearly a part of these. A pair that
//! was made to be two (depthwise and pointwise), a gate, and a mean that is subtracted do not
//! look like one. Norms, scales and shifts that stay beside nothing of this are reported by
//! [`stays`](crate::plan::stays).
//!
//! Knows the planner's graph and blocks; changes nothing of them.

use std::collections::{HashSet, VecDeque};

use crate::affine::{ConvKind, Geometry, Refusal};
use crate::emit::term::{Term, TermKind};
use crate::facts::roles;
use crate::onnx::ids::{IdMap, IdSet, NodeId, Table, ValueId};
use crate::ops::meaning::Meaning;
use crate::plan::block::Block;
use crate::plan::computed::enlarged;
use crate::plan::cuts::MetLimits;
use crate::plan::form::Form;
use crate::plan::merge::{Merged, kind_of, merge, merge_if_smaller};
use crate::plan::nearly::{self, Likeness};
use crate::plan::net::Net;
use crate::plan::refused::CheckedNodes;
use crate::plan::stays::{self, Staying};
use crate::refusal::{NearMiss, NotLinear, Reason};

/// Upper bound on the inputs of an operator that are looked at; in real networks there are some
/// dozens.
const MAX_INPUTS: usize = 512;

/// Upper bound on the tensors of a residual path.
const MAX_PATH: usize = 512;

/// Upper bound on the tensors between a convolution and what its branch comes from; it limits
/// only what is reported.
const MAX_BRANCH: usize = 16;

/// Upper bound on the depths at which a term is read; it limits only what is reported.
const MAX_DEPTHS: usize = 24;

/// Upper bound on the convolutions of one sum that are reported, besides the first.
const MAX_TOLD: usize = 4;

/// Returns the tensors at which something was left alone when these blocks were planned, and
/// why. The nodes `checked` are inside regions that a check refused.
pub fn near_misses(
    net: &Net,
    limits: &MetLimits,
    blocks: &[Block],
    checked: &CheckedNodes,
) -> Vec<(ValueId, NearMiss)> {
    let graph = net.reader.graph;
    let mut misses = NearMisses { net, checked, found: Vec::new(), told_of: IdSet::default() };
    for (id, node) in graph.nodes().filter(|&(id, _)| net.is_live(id)) {
        let Some(output) = node.output() else { continue };
        misses.note(id, output);
        for limit in limits.get(&output).into_iter().flatten() {
            misses.miss(output, limit.clone());
        }
    }
    misses.note_what_stays();
    let inside: Table<NodeId, ()> =
        blocks.iter().flat_map(|block| &block.region.nodes).copied().collect();
    let outputs: Table<ValueId, ()> = blocks.iter().map(|block| block.region.output).collect();
    // What became part of a block was not missed.
    let missed = |value: &ValueId| {
        graph.value(*value).producer.is_none_or(|producer| !inside.contains(producer))
            || outputs.contains(*value)
    };
    // A limit is met by everything behind the first node that meets it.
    let mut limits = HashSet::new();
    let mut is_first = |miss: &NearMiss| match &miss.reason {
        Reason::NotLinear { why: limit @ NotLinear::Beyond { .. }, .. } => {
            limits.insert(limit.to_string())
        }
        limit @ Reason::Limit(_) => limits.insert(limit.to_string()),
        _ => true,
    };
    let near_misses = misses.found.into_iter().filter(|(value, _)| missed(value));
    near_misses.filter(|(_, near_miss)| is_first(near_miss)).collect()
}

/// The near misses that were found in a plan so far.
struct NearMisses<'n, 'r, 'g, 'm> {
    net: &'n Net<'r, 'g, 'm>,
    checked: &'n CheckedNodes,
    found: Vec<(ValueId, NearMiss)>,
    /// Tensors at which a near miss was found.
    told_of: IdSet<ValueId>,
}

/// One term, read at all depths at which it can be read: `bn(conv(x))` is a scale of `conv(x)`,
/// or a convolution of `x`. The nearest comes first.
type Depths = Vec<Term<Geometry>>;

impl NearMisses<'_, '_, '_, '_> {
    /// Notes what was missed at node `id`, which makes `output`.
    fn note(&mut self, id: NodeId, output: ValueId) {
        let net = self.net;
        match (net.meanings.get(id), net.former(output).map(|id| net.terms(id))) {
            (Some(Meaning::Opaque(_)), _) => self.note_nearly_linear(output, id),
            (_, Some([term])) => {
                let enlarged = |kernel| enlarged(net.reader, kernel);
                if let Some((before, after)) = net.computed_kernel(id).and_then(enlarged) {
                    self.miss(output, Reason::Dearer { before, after });
                }
                self.note_term(id, output, term);
            }
            (_, Some(terms @ [_, _, ..])) if terms.iter().all(|term| term.part.is_none()) => {
                let terms: Vec<Depths> = terms.iter().map(|term| self.depths(term)).collect();
                self.note_sum(id, output, &terms);
            }
            _ => {}
        }
    }

    /// Returns the term at the depths at which it can be read.
    fn depths(&self, term: &Term<Geometry>) -> Depths {
        let mut depths = vec![term.clone()];
        while let Some(last) = depths.last().filter(|_| depths.len() < MAX_DEPTHS)
            && let Some([behind]) = self.net.former(last.root).map(|id| self.net.terms(id))
            && let Ok(further) = last.of(behind)
        {
            depths.push(further);
        }
        depths
    }

    /// Whether nobody but node `id` needs `value`, a root of its form.
    fn dies(&self, id: NodeId, value: ValueId) -> bool {
        let Some(producer) = self.net.former(value) else { return self.net.reads(value) == 1 };
        self.net.mffc(id, self.net.terms(producer)).nodes.contains(&producer)
    }

    fn miss(&mut self, output: ValueId, reason: Reason) {
        let graph = self.net.reader.graph;
        let Some(producer) = graph.value(output).producer else { return };
        let node = graph.node(producer).label().to_owned();
        let mut of_output = self.found.iter().rev().take_while(|(at, _)| *at == output);
        if !of_output.any(|(_, miss)| miss.reason == reason) {
            let subject = stays::subject(self.net, producer);
            self.told_of.insert(output);
            self.found.push((output, NearMiss { subject, node, reason }));
        }
    }

    /// Notes norms, scales and shifts at which no near miss was found yet.
    fn note_what_stays(&mut self) {
        let reasons =
            Staying::of(self.net, self.checked).reasons(|output| self.told_of.contains(&output));
        reasons.into_iter().for_each(|(output, reason)| self.miss(output, reason));
    }

    /// Returns the reason, which names the unknown size that would help, if one would.
    fn told(&self, reason: Reason, root: ValueId) -> Reason {
        let Reason::Geometry(Refusal::Unplaced(axis)) = reason else { return reason };
        let (reader, axis) = (self.net.reader, axis.saturating_add(2));
        let node = reader.graph.value(root).producer.map(|id| reader.graph.node(id).label());
        let name = reader.graph.value(root).name;
        let what = format!("the size of `{name}` on axis {axis}, on which its windows depend,");
        let node = node.unwrap_or(name).to_owned();
        Reason::NotLinear { node, why: reader.sizes.unknown(what) }
    }

    /// Notes a convolution or scale that could be read further back if a size were known, or
    /// another one; else, if the node stands as in the file, one that could not.
    fn note_term(&mut self, id: NodeId, output: ValueId, nearest: &Term<Geometry>) {
        let validity = |term: Term<Geometry>| Form::of_terms(vec![term]).validity(self.net.reader);
        let further = self.depths(nearest).into_iter().skip(1);
        let further = further.filter(|term| term.kind == TermKind::Conv);
        let furthest = further.filter_map(|term| validity(term).err()).last();
        match furthest.filter(|_| self.dies(id, nearest.root)) {
            Some(reason) => self.miss(output, reason),
            None if !self.net.is_planned(id) => self.note_sequence(id, output, nearest),
            None => {}
        }
    }

    /// Notes a norm behind a convolution, or two convolutions in a row, if nobody else needs
    /// what is between and they are not made one.
    fn note_sequence(&mut self, id: NodeId, output: ValueId, nearest: &Term<Geometry>) {
        let input = nearest.root;
        let Some(behind) = self.weighted(input).filter(|_| self.dies(id, input)) else { return };
        let is_pointwise = !matches!(nearest.kind, TermKind::Conv | TermKind::Identity(_));
        let is_norm = is_pointwise && nearest.map.channels.is_some();
        let is_product = [nearest, &behind].iter().any(|term| term.map.kind == ConvKind::MatMul);
        let refusal = match nearest.of(&behind) {
            // For a product of a convolution's flattened result, or for a view of a view,
            // nobody expects one kernel; for a norm, one is expected.
            Err(Refusal::View) if !is_norm => return,
            // Nor is one expected of a product along one axis and a convolution, or another
            // product, along another: CoaT's head behind the convolution that mixes its scales,
            // a DCT of columns behind that of rows.
            Err(Refusal::Axes) if !is_norm && is_product => return,
            Err(refusal) => refusal,
            Ok(_) => return,
        };
        let is_expected = is_norm
            || nearest.kind == TermKind::Conv
                && least_weights(&nearest.map, &behind.map)
                    .is_none_or(|least| least <= nearest.weights() + behind.weights());
        if is_expected {
            self.miss(output, self.told(refusal.into(), input));
        }
    }

    /// Notes a sum with a convolution from which other operands stayed apart.
    fn note_sum(&mut self, id: NodeId, output: ValueId, terms: &[Depths]) {
        let weighted: Vec<&Term<Geometry>> =
            terms.iter().filter_map(|term| nearest_convolution(term)).collect();
        let plain = || terms.iter().filter(|term| nearest_convolution(term).is_none());
        let Some((first, others)) = weighted.split_first() else {
            let refused = plain().filter_map(|term| self.news_of(term.last()?.root, None));
            let refused: Vec<Reason> = refused.collect();
            return refused.into_iter().for_each(|reason| self.miss(output, reason));
        };
        let name = |value: ValueId| self.net.reader.graph.value(value).name.to_owned();
        let mut reasons = Vec::new();
        for other in others.iter().take(MAX_TOLD) {
            let same_root = weighted.iter().find(|term| {
                term.root == other.root && !std::ptr::eq::<Term<Geometry>>(**term, *other)
            });
            reasons.extend(match same_root {
                None => {
                    self.refusal_further_back(terms).or_else(|| self.different_inputs(first, other))
                }
                Some(term) => match merge_if_smaller(term, other, self.net.reader) {
                    // A layer norm subtracts from a tensor its own mean.
                    Err(_) if term.has_views() != other.has_views() => None,
                    Err(reason) => Some(self.told(reason, other.root)),
                    // Legal and no dearer by itself: what the merge would save is needed
                    // elsewhere.
                    Ok(_) => Some(Reason::ReadElsewhere(name(self.kept_branch(id, terms)))),
                },
            });
        }
        let obstacles =
            plain().filter_map(|term| self.news_of(term.last()?.root, Some(first.root)));
        reasons.extend(obstacles);
        reasons.into_iter().for_each(|reason| self.miss(output, reason));
    }

    /// Returns that two convolutions do not read the same tensor, or why what one of them reads
    /// is not the other's input with a border. `None` if nobody expects it: in every gate of a
    /// recurrent network, products of two tensors are added; if the input of one is made by
    /// convolutions of the other's, it is a residual; and if they have nothing in common but a
    /// convolution's result, or nothing at all, they were never meant to be two branches.
    fn different_inputs(&self, one: &Term<Geometry>, other: &Term<Geometry>) -> Option<Reason> {
        let (left, right) = (one.root, other.root);
        for (value, root) in [(left, right), (right, left)] {
            let obstacle = self.obstacle(value, Some(root));
            if let Some(Reason::NotLinear { why: NotLinear::Operator(_), .. }) | None = obstacle {
                continue;
            }
            return obstacle.filter(|_| !self.told_of.contains(&value));
        }
        let are_products = [one, other].iter().any(|term| term.map.kind == ConvKind::MatMul);
        let before = self.before_convolutions(left);
        if are_products
            || self.is_convolved_from(left, right)
            || self.is_convolved_from(right, left)
            || self.before_convolutions(right).is_disjoint(&before)
        {
            return None;
        }
        let name = |value: ValueId| self.net.reader.graph.value(value).name.to_owned();
        Some(Reason::DifferentInputs { left: name(left), right: name(right) })
    }

    /// Whether `value` is computed from `root` through a convolution, looking back over a
    /// residual path of usual length.
    fn is_convolved_from(&self, value: ValueId, root: ValueId) -> bool {
        let graph = self.net.reader.graph;
        let mut seen = IdSet::default();
        let mut open = vec![(value, false)];
        while let Some((value, convolved)) = open.pop().filter(|_| seen.len() < MAX_PATH) {
            let value = self.net.meanings.source(value);
            if value == root && convolved {
                return true;
            }
            let Some(producer) = graph.value(value).producer else { continue };
            if seen.insert((value, convolved)) {
                let convolves = self.is_convolution(producer);
                open.extend(graph.uses(producer).map(|input| (input, convolved || convolves)));
            }
        }
        false
    }

    fn is_convolution(&self, id: NodeId) -> bool {
        let meaning = self.net.meanings.get(id);
        matches!(meaning, Some(Meaning::Linear(_, map)) if kind_of(map) == TermKind::Conv)
    }

    /// Returns `value` and the tensors that it is computed from without a convolution, as far
    /// back as the usual length of a branch.
    fn before_convolutions(&self, value: ValueId) -> IdSet<ValueId> {
        let graph = self.net.reader.graph;
        let mut seen = IdSet::default();
        let mut open = VecDeque::from([self.net.meanings.source(value)]);
        while let Some(value) = open.pop_front().filter(|_| seen.len() < MAX_BRANCH) {
            let is_new = seen.insert(value);
            let Some(producer) = graph.value(value).producer.filter(|_| is_new) else { continue };
            let is_passed = !self.is_convolution(producer);
            let inputs = graph.uses(producer).take(MAX_INPUTS).filter(|_| is_passed);
            let inputs = inputs.filter(|&input| !self.net.reader.constants.contains(input));
            open.extend(inputs.map(|input| self.net.meanings.source(input)));
        }
        seen
    }

    /// Returns why two of the terms do not merge at a root from which both are computed.
    fn refusal_further_back(&self, terms: &[Depths]) -> Option<Reason> {
        let mut seen: IdMap<ValueId, &Term<Geometry>> = IdMap::default();
        for depths in terms {
            for term in depths.iter().filter(|term| term.kind == TermKind::Conv) {
                let Some(&other) = seen.get(&term.root) else { continue };
                let reader = self.net.reader;
                // A view of a tensor is another tensor.
                if !other.has_views_of(term) {
                    continue;
                }
                let sum = merge(other.clone(), term, reader).map_err(Reason::from);
                let valid = |sum: Merged<_>| Form::of_terms(vec![sum.term]).validity(reader);
                if let Err(reason) = sum.and_then(valid) {
                    return Some(self.told(reason, term.root));
                }
            }
            seen.extend(depths.iter().map(|term| (term.root, term)));
        }
        None
    }

    /// Returns the first operand that others read too.
    fn kept_branch(&self, id: NodeId, terms: &[Depths]) -> ValueId {
        let operands = || terms.iter().filter_map(|term| term.first());
        let kept = operands().find(|operand| {
            matches!(operand.kind, TermKind::Identity(_)) && !self.dies(id, operand.root)
        });
        let any = operands().next().map(|operand| operand.root);
        kept.map(|operand| operand.root).or(any).unwrap_or_else(|| unreachable!("a sum has terms"))
    }

    /// Returns why `operand`, which is added to a convolution of `root` (if there is one), is
    /// not a convolution itself.
    fn obstacle(&self, operand: ValueId, root: Option<ValueId>) -> Option<Reason> {
        let graph = self.net.reader.graph;
        let producer = graph.value(operand).producer?;
        let likeness = nearly::likeness(self.net, producer)?;
        // Many sums may ask about an operator with thousands of inputs.
        let reads_a_branch = || {
            graph.uses(producer).take(MAX_INPUTS).any(|input| {
                self.weighted(self.net.meanings.source(input))
                    .is_some_and(|term| Some(term.root) == root)
            })
        };
        let is_expected = match likeness {
            Likeness::Operator => self.is_of_one_branch(producer) && reads_a_branch(),
            Likeness::OfPositions => false,
            Likeness::Limited | Likeness::Linear | Likeness::Foreign => true,
        };
        is_expected.then(|| nearly::reason(self.net, producer)).flatten()
    }

    /// Returns the same, unless a near miss at `operand` is noted already.
    fn news_of(&self, operand: ValueId, root: Option<ValueId>) -> Option<Reason> {
        self.obstacle(operand, root).filter(|_| !self.told_of.contains(&operand))
    }

    /// Whether node `id` turns each position of one tensor into one of another: it is neither a
    /// gate, which is a product of two tensors, nor a mean, as a layer norm subtracts it.
    fn is_of_one_branch(&self, id: NodeId) -> bool {
        let (graph, constants) = (self.net.reader.graph, self.net.reader.constants);
        let node = graph.node(id);
        let mut varying = graph.uses(id).filter(|&input| !constants.contains(input));
        let is_one = varying.next().is_some() && varying.next().is_none();
        (is_one || node.has_bodies()) && !roles::reduces(node)
    }

    /// Notes a nearly linear node behind a convolution.
    fn note_nearly_linear(&mut self, output: ValueId, id: NodeId) {
        let Some(likeness) = nearly::likeness(self.net, id) else { return };
        let inputs = self.net.reader.graph.uses(id).map(|input| self.net.meanings.source(input));
        // Behind a view, which gives the result other axes, only a norm is looked for.
        let weighted = inputs.filter_map(|input| self.weighted(input));
        let mut roots = weighted.filter(|term| term.after.is_empty()).map(|term| term.root);
        let is_expected = match likeness {
            Likeness::Limited => true,
            Likeness::Linear => roots.next().is_some(),
            Likeness::OfPositions | Likeness::Operator => false,
            // A custom Add, of two branches.
            Likeness::Foreign => roots.next().is_some_and(|first| roots.any(|root| root == first)),
        };
        if let Some(reason) = is_expected.then(|| nearly::reason(self.net, id)).flatten() {
            self.miss(output, reason);
        }
    }

    /// Returns `value` as a convolution of the nearest tensor, if it is one term.
    fn weighted(&self, value: ValueId) -> Option<Term<Geometry>> {
        let [term] = self.net.terms(self.net.former(value)?) else { return None };
        self.depths(term).into_iter().find(|term| term.kind == TermKind::Conv)
    }
}

/// Returns the least number of weights that `outer` of `inner` has as one kernel, if it is one;
/// `None` if one of the two has no channels of its own.
fn least_weights(outer: &Geometry, inner: &Geometry) -> Option<f64> {
    let (after, before) = (outer.channels?, inner.channels?);
    // Depthwise behind depthwise stays depthwise; otherwise each channel reads all of its
    // group.
    let groups = after.groups.min(before.groups);
    let axes = 0..outer.windows.len().max(inner.windows.len());
    let taps = |axis| (outer.window(axis).taps, inner.window(axis).taps);
    let taps = axes.map(taps).map(|(outer, inner)| outer.saturating_add(inner).saturating_sub(1));
    let taps: f64 = taps.map(|taps| taps as f64).product();
    Some(taps * after.outputs as f64 * before.inputs as f64 / groups.max(1) as f64)
}

/// Returns the nearest convolution of these depths; if its root is only another tensor turned,
/// the convolution of that tensor.
fn nearest_convolution(depths: &Depths) -> Option<&Term<Geometry>> {
    let mut kernels = depths.iter().skip_while(|term| term.kind != TermKind::Conv).peekable();
    let mut nearest = kernels.next()?;
    let turned = |near: &Term<Geometry>, far: &Term<Geometry>| {
        near.map.input != far.map.input
            && near.map == Geometry { input: near.map.input.clone(), ..far.map.clone() }
            && near.has_views_of(far)
    };
    while let Some(further) = kernels.next_if(|far| turned(nearest, far)) {
        nearest = further;
    }
    Some(nearest)
}
