//! Σ P(aᵢ) = P(Σ aᵢ): a Transpose with which all terms of a sum end is written once, as the sum's
//! last node, instead of once per term; what transposes the result back reads the sum before that
//! node.
//!
//! Knows terms and the nodes that they are written as.

use crate::affine::{AxisOrder, Geometry, Linear};
use crate::emit::layout::{LayoutOp, layout};
use crate::emit::term::{Term, TermKind};
use crate::onnx::proto::NodeProto;
use crate::ops::forms::NodeForms;
use crate::ops::meaning::{Sign, ViewNode};
use crate::ops::views;

/// The Transpose with which a sum ends when it is written.
#[derive(Debug, Clone)]
pub struct LastTurn {
    /// The node.
    pub view: ViewNode,
    /// The node as a map, if the maps of the terms end with it; `None` if it is a view of the
    /// term.
    map: Option<Geometry>,
}

impl LastTurn {
    /// The last Transpose of the sum of `terms`; `None` if its last node is another one.
    pub fn of<L: Linear>(terms: &[Term<L>], forms: NodeForms) -> Option<Self> {
        if let Some((before, output)) = before_turn(terms, forms) {
            let rank = before.first()?.map.geometry().rank();
            let map = Geometry { output, ..Geometry::identity() };
            return Some(LastTurn { view: views::turned(&map.turns()?, rank), map: Some(map) });
        }
        let [term] = terms else { return None };
        let is_turn = |view: &&ViewNode| view.proto.op_type() == "Transpose";
        let view = term.after.last().filter(is_turn).filter(|_| term.part.is_none())?;
        Some(LastTurn { view: view.clone(), map: None })
    }

    /// The node, reading tensor `input` and making tensor `output`; it has no name.
    pub fn node(&self, input: &str, output: &str) -> NodeProto {
        let (input, output) = (vec![input.to_owned()], vec![output.to_owned()]);
        NodeProto { input, output, ..(*self.view.proto).clone() }
    }

    /// `term`, which reads the output of the sum, as a term that reads the input of this node
    /// instead. Returns `None` unless that saves a node.
    pub fn skipped<L: Linear>(&self, term: &Term<L>, forms: NodeForms) -> Option<Term<L>> {
        let view = Term::view(term.root, self.view.clone(), L::framing(Geometry::identity()));
        let kind = TermKind::Pointwise;
        let map = self.map.clone().map(|map| Term::new(term.root, L::framing(map), kind));
        let ways = [map, Some(view)].into_iter().flatten().filter_map(|turn| term.of(&turn).ok());
        let shorter = ways.filter(|way| way.nodes(forms) < term.nodes(forms));
        shorter.min_by_key(|way| way.nodes(forms))
    }
}

/// The terms of a sum without the Transpose with which each of them would end, and the axis order
/// to which it leads. Returns `None` if they do not all end with the same one.
pub fn before_turn<L: Linear>(
    terms: &[Term<L>],
    forms: NodeForms,
) -> Option<(Vec<Term<L>>, AxisOrder)> {
    let order = &terms.first()?.map.geometry().output;
    let is_turned = |term: &Term<L>| {
        let is_kernel = term.kind == TermKind::Conv && term.after.is_empty();
        is_kernel && term.part.is_none() && term.map.geometry().output == *order
    };
    if order.is_canonical() || !terms.iter().all(is_turned) {
        return None;
    }
    let back = L::framing(Geometry::transposition(order.clone()));
    let before = |term: &Term<L>| {
        let before = term.mapped(&back, TermKind::Identity(Sign::Plus)).ok()?;
        let written = layout(term.map.geometry(), forms);
        let (last, others) = written.split_last()?;
        let ends_with_turn = matches!(last.operator, LayoutOp::Transpose(_))
            && others == layout(before.map.geometry(), forms).as_slice();
        ends_with_turn.then_some(before)
    };
    let before = terms.iter().map(before).collect::<Option<_>>()?;
    Some((before, order.clone()))
}

/// As [`before_turn`], for a sum of several terms, which is written with that one Transpose.
pub fn before_shared_turn<L: Linear>(
    terms: &[Term<L>],
    forms: NodeForms,
) -> Option<(Vec<Term<L>>, AxisOrder)> {
    if terms.len() > 1 { before_turn(terms, forms) } else { None }
}
