//! Norms, scales and shifts that stay, and what stands beside each of them.
//!
//! A norm goes into a convolution before it or behind it. If a norm stays, no convolution on
//! either side takes it; what is there instead is the reason. A scale or shift per channel that
//! is no batch norm is expected in a convolution only if one stands beside it: numbers that
//! decode boxes, and coordinates, are scaled too.
//!
//! Knows the planner's graph; changes nothing of it.

use crate::affine::{ConvKind, Geometry};
use crate::emit::term::{Term, TermKind};
use crate::facts::roles;
use crate::onnx::ids::{IdMap, NodeId, ValueId};
use crate::onnx::node::Node;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::plan::nearly::{self, Likeness};
use crate::plan::net::Net;
use crate::plan::refused::CheckedNodes;
use crate::refusal::{Neighbour, Reason, Subject};

/// Upper bound on the scales and shifts in a row that are skipped; a norm that is written out
/// has two.
const MAX_ROW: usize = 16;

/// A planned graph, in which it is asked why nodes stay.
pub struct Staying<'n, 'r, 'g, 'm> {
    net: &'n Net<'r, 'g, 'm>,
    /// The nodes inside regions that a check refused.
    checked: &'n CheckedNodes,
    /// The nodes that read each tensor, under its first name.
    readers: IdMap<ValueId, Vec<NodeId>>,
}

/// Returns what kind of thing a node is that is left alone.
pub fn subject(net: &Net, id: NodeId) -> Subject {
    match net.meanings.get(id) {
        _ if roles::is_batch_norm(net.reader.graph.node(id)) => Subject::Norm,
        Some(Meaning::Linear(_, LinearOp::Diagonal { scale, .. })) => {
            let only_shifts = scale.iter().all(|&scale| scale == 1.0);
            if only_shifts { Subject::Shift } else { Subject::Scale }
        }
        Some(Meaning::Linear(_, map @ LinearOp::Filter { weight, .. })) if is_uniform(map) => {
            if *weight == 1.0 {
                Subject::Shift
            } else {
                Subject::Scale
            }
        }
        Some(Meaning::Linear(_, LinearOp::Conv { .. })) => Subject::Convolution,
        Some(Meaning::Sum(_)) => Subject::Sum,
        _ => Subject::Node,
    }
}

/// Whether these terms are summands, and not parts of a Concat.
fn are_added(terms: &[Term<Geometry>]) -> bool {
    terms.iter().all(|term| term.part.is_none())
}

impl<'n, 'r, 'g, 'm> Staying<'n, 'r, 'g, 'm> {
    /// Returns this graph as it is planned, with the nodes that were `checked`.
    pub fn of(net: &'n Net<'r, 'g, 'm>, checked: &'n CheckedNodes) -> Self {
        let mut readers: IdMap<ValueId, Vec<NodeId>> = IdMap::default();
        for (id, _) in net.reader.graph.nodes().filter(|&(id, _)| net.is_live(id)) {
            net.each_read(id, |value, _| {
                let of_value = readers.entry(net.meanings.source(value)).or_default();
                if of_value.last() != Some(&id) {
                    of_value.push(id);
                }
            });
        }
        Staying { net, checked, readers }
    }

    /// Returns the outputs at which a node stays that is not reported yet, and why it stays.
    pub fn reasons(&self, is_told: impl Fn(ValueId) -> bool) -> Vec<(ValueId, Reason)> {
        let graph = self.net.reader.graph;
        let nodes = graph.nodes().filter(|&(id, _)| self.net.is_live(id));
        let untold = nodes.filter_map(|(id, node)| {
            let output = node.output().filter(|&output| !is_told(output))?;
            Some((output, self.reason(id, output)?))
        });
        untold.collect()
    }

    fn reason(&self, id: NodeId, output: ValueId) -> Option<Reason> {
        match self.net.meanings.get(id)? {
            Meaning::Opaque(_) => {
                let is_norm = subject(self.net, id) == Subject::Norm;
                is_norm.then(|| nearly::reason(self.net, id)).flatten()
            }
            // A scale of the model's input, as of an image, is expected in the first kernel.
            // Elsewhere, in an activation or before a softmax, nobody expects a scale by one
            // number for all in a kernel.
            Meaning::Linear(_, map) if is_uniform(map) && !self.net.is_planned(id) => {
                let [term] = self.net.terms(id) else { return None };
                let (before, behind) = (self.before(term), self.behind(output, term));
                let is_expected = matches!(before.what, Neighbour::Input) && behind.is_near;
                self.between(id, before, behind).filter(|_| is_expected)
            }
            Meaning::Linear(_, LinearOp::Diagonal { .. }) if !self.net.is_planned(id) => {
                let [term] = self.net.terms(id) else { return None };
                let is_norm = subject(self.net, id) == Subject::Norm;
                if let Some(reason) = self.nearly_linear(term.root).filter(|_| is_norm) {
                    return Some(reason);
                }
                let (before, behind) = (self.before(term), self.behind(output, term));
                let is_expected =
                    is_norm || (before.is_near && !self.is_bias(id, term)) || behind.is_near;
                self.between(id, before, behind).filter(|_| is_expected)
            }
            _ => None,
        }
    }

    /// Returns what stands on both sides of node `id`; if one side could take it and a check
    /// refused just that, the reason of the check. `None` if that reason is reported already.
    fn between(&self, id: NodeId, before: Beside, behind: Beside) -> Option<Reason> {
        let (before, behind) = (before.what, behind.what);
        let is_dear = [&before, &behind].contains(&&Neighbour::Dear);
        match self.checked.get(&id).filter(|_| is_dear) {
            Some(reason) => reason.clone(),
            None => Some(Reason::Between { before, behind }),
        }
    }

    /// Returns why the producer of `value` is no convolution, if it is nearly one.
    fn nearly_linear(&self, value: ValueId) -> Option<Reason> {
        let producer = self.net.reader.graph.value(value).producer?;
        let is_nearly =
            matches!(nearly::likeness(self.net, producer)?, Likeness::Limited | Likeness::Linear);
        is_nearly.then(|| nearly::reason(self.net, producer)).flatten()
    }

    /// Whether the node is the bias of a matrix product, written as a node of its own.
    fn is_bias(&self, id: NodeId, term: &Term<Geometry>) -> bool {
        let only_shifts = subject(self.net, id) == Subject::Shift;
        only_shifts && self.convolution(term.root).is_some_and(|kind| kind == ConvKind::MatMul)
    }

    /// Returns the kind of the convolution that makes `value` as one term, if one does.
    fn convolution(&self, value: ValueId) -> Option<ConvKind> {
        let [term] = self.net.terms(self.net.former(value)?) else { return None };
        term.is_kernel().then_some(term.map.kind)
    }

    /// Returns what is before the scale `term`, skipping other scales.
    fn before(&self, term: &Term<Geometry>) -> Beside {
        let graph = self.net.reader.graph;
        let mut scale = term.clone();
        for _ in 0..MAX_ROW {
            let Some(producer) = graph.value(scale.root).producer else { break };
            match self.net.former(scale.root).map(|id| self.net.terms(id)) {
                Some([term]) if term.is_kernel() => {
                    return Beside::near(match scale.of(term) {
                        _ if self.net.reads(scale.root) > 1 => Neighbour::Shared,
                        Err(refusal) => Neighbour::Refusing(refusal),
                        Ok(_) => Neighbour::Dear,
                    });
                }
                Some(terms @ [_, _, ..]) if are_added(terms) => {
                    let is_near = terms
                        .iter()
                        .any(|term| term.is_kernel() || self.convolution(term.root).is_some());
                    let is_shared = self.net.reads(scale.root) > 1;
                    let what = if is_shared { Neighbour::SharedSum } else { Neighbour::Sum };
                    return Beside { what, is_near };
                }
                Some([term])
                    if is_scale(term)
                        && let Ok(both) = scale.of(term) =>
                {
                    scale = both
                }
                _ => return Beside::far(Neighbour::Operator(operator(graph.node(producer)))),
            }
        }
        Beside::far(Neighbour::Input)
    }

    /// Returns what is behind the scale `term`, which makes `output`, skipping other scales.
    fn behind(&self, output: ValueId, term: &Term<Geometry>) -> Beside {
        let graph = self.net.reader.graph;
        let (mut value, mut scale) = (output, term.clone());
        for _ in 0..MAX_ROW {
            let readers = self.readers.get(&value).map(Vec::as_slice).unwrap_or_default();
            let readers: Vec<NodeId> =
                readers.iter().copied().filter(|&id| !self.names(id)).collect();
            let is_output = graph.value(value).is_output;
            let reader = match readers.as_slice() {
                [] => break,
                &[reader] if !is_output => reader,
                several => {
                    let refusals = several.iter().map(|&id| self.refusal(id, value, &scale));
                    let refusals: Vec<Neighbour> = refusals.flatten().collect();
                    let is_near = !refusals.is_empty();
                    let refuses = |side: &Neighbour| matches!(side, Neighbour::Refusing(_));
                    let refusing = refusals.into_iter().find(refuses).filter(|_| !is_output);
                    return Beside { what: refusing.unwrap_or(Neighbour::Readers), is_near };
                }
            };
            if let Some(refusal) = self.refusal(reader, value, &scale) {
                return Beside::near(refusal);
            }
            match self.net.terms(reader) {
                [next] if is_scale(next) => {
                    let (Some(output), Ok(both)) = (graph.node(reader).output(), next.of(&scale))
                    else {
                        break;
                    };
                    (value, scale) = (output, both);
                }
                terms @ [_, _, ..] if are_added(terms) => {
                    return Beside::far(Neighbour::Summand);
                }
                _ => return Beside::far(Neighbour::Operator(operator(graph.node(reader)))),
            }
        }
        Beside::far(Neighbour::Output)
    }

    /// Returns why the convolution of `value` at node `id` does not take this scale; `None` if
    /// the node is no convolution.
    fn refusal(&self, id: NodeId, value: ValueId, scale: &Term<Geometry>) -> Option<Neighbour> {
        let mut of_value = self.net.terms(id).iter().filter(|term| term.root == value);
        let term = of_value.find(|term| term.is_kernel())?;
        Some(term.of(scale).map_or_else(Neighbour::Refusing, |_| Neighbour::Dear))
    }

    /// Whether the node only gives a tensor another name.
    fn names(&self, id: NodeId) -> bool {
        matches!(self.net.meanings.get(id), Some(Meaning::Alias(_)))
    }
}

/// What stands on one side of a scale.
struct Beside {
    what: Neighbour,
    /// Whether that is a convolution, or a sum with one.
    is_near: bool,
}

impl Beside {
    fn near(what: Neighbour) -> Self {
        Beside { what, is_near: true }
    }

    fn far(what: Neighbour) -> Self {
        Beside { what, is_near: false }
    }
}

/// Whether the map scales and shifts all elements by the same numbers.
fn is_uniform(map: &LinearOp) -> bool {
    matches!(map, LinearOp::Filter { windows, .. } if windows.is_empty())
}

fn operator(node: &Node) -> String {
    node.proto.op_type().to_owned()
}

/// Whether the term scales or shifts its root in place, per channel or all by one number.
fn is_scale(term: &Term<Geometry>) -> bool {
    matches!(term.kind, TermKind::Pointwise | TermKind::Shifted(_))
        && term.map.windows.is_empty()
        && !term.has_views()
}
