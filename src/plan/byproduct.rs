//! A tensor that a block makes on the way to its output, and that the file has, too: a
//! convolution is written between Transposes, and what stands before the last one is what a
//! Transpose back makes.
//!
//! *Example*: MobileNetV2 as TensorFlow has it, with its channels last. The sum behind a
//! bottleneck reads `v = P(K(x))`, the next convolution reads `t = P⁻¹(v)`. Written are
//! `t = K(x)` and `v = P(t)`, and the node that made `t` goes away. A reader of `P⁻¹(v)` by a
//! Transpose of its own reads `t`, too.
//!
//! Knows the planner's graph, and the nodes that terms are written as.

use crate::affine::Geometry;
use crate::emit::term::{Term, TermKind};
use crate::emit::turned;
use crate::onnx::ids::NodeId;
use crate::ops::forms::NodeForms;
use crate::plan::cost::{self, Count};
use crate::plan::net::Net;

/// Upper bound on the readers of a tensor: for one with more, no by-product is looked for.
const MOST_READERS: usize = 256;

impl Net<'_, '_, '_> {
    /// Returns the cost of the sum of `terms` as new nodes. A term that turns back a tensor
    /// whose new nodes end with a Transpose reads the tensor before that Transpose.
    pub fn cost(&self, terms: &[Term<Geometry>]) -> Count {
        self.turned_back(terms).unwrap_or_else(|| cost::of_sum(terms, self.reader.forms))
    }

    /// Returns the same cost; `None` if nothing is turned back.
    pub(super) fn turned_back(&self, terms: &[Term<Geometry>]) -> Option<Count> {
        let forms = self.reader.forms;
        let turn = |root| self.planned.get(&self.former(root)?)?.turn.as_deref();
        let read = |term: &Term<Geometry>| turn(term.root)?.skipped(term, forms);
        if !terms.iter().any(|term| turn(term.root).is_some()) {
            return None;
        }
        let terms: Vec<_> =
            terms.iter().map(|term| read(term).unwrap_or_else(|| term.clone())).collect();
        Some(cost::of_sum(&terms, forms))
    }

    /// Returns the node of the file that makes, of the tensor of node `id`, one that is made on
    /// the way to that tensor; the first such node, if there are several.
    pub fn byproduct(&self, id: NodeId) -> Option<NodeId> {
        let terms = &self.planned.get(&id)?.form.terms;
        // This rules out nearly all forms before anything is composed.
        let ends_turned =
            |term: &Term<Geometry>| !term.after.is_empty() || !term.map.output.is_canonical();
        if !terms.iter().all(ends_turned) {
            return None;
        }
        let output = self.reader.graph.node(id).output()?;
        let readers = &self.reader.graph.value(output).readers;
        if readers.len() > MOST_READERS {
            return None;
        }
        let before = before_last_node(terms, self.reader.forms)?;
        let makes_byproduct = |&reader: &NodeId| {
            let own = self.forms.get(reader).filter(|_| self.is_live(reader));
            let [own] = own.map_or(&[][..], |form| form.terms.as_slice()) else { return false };
            let read = || terms.iter().map(|term| own.of(term).ok()).collect::<Option<Vec<_>>>();
            !self.is_planned(reader)
                && own.kind != TermKind::Conv
                && own.root == output
                && read().is_some_and(|inner| are_alike(&inner, &before))
        };
        readers.iter().copied().find(makes_byproduct)
    }

    pub(super) fn is_byproduct(&self, id: NodeId) -> bool {
        let moves =
            |term: &&Term<Geometry>| !term.before.is_empty() || term.map.input != term.map.output;
        let read = self.term_in_file(id).filter(moves).and_then(|term| self.former(term.root));
        read.is_some_and(|read| self.byproduct(read) == Some(id))
    }
}

/// Returns the sum of `terms` as it is written without its last node.
fn before_last_node(terms: &[Term<Geometry>], forms: NodeForms) -> Option<Vec<Term<Geometry>>> {
    let before = match terms {
        [term] if term.kind == TermKind::Conv && term.part.is_none() => {
            without_last_view(term).map(|term| vec![term])
        }
        _ => None,
    };
    before.or_else(|| turned::before_turn(terms, forms).map(|(terms, _)| terms))
}

/// Whether both are sums of the same terms, except for the weights.
fn are_alike(one: &[Term<Geometry>], other: &[Term<Geometry>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.is(other))
}

fn without_last_view(term: &Term<Geometry>) -> Option<Term<Geometry>> {
    let (_, after) = term.after.split_last()?;
    Some(Term { after: after.to_vec(), ..term.clone() })
}
