//! Σ P(aᵢ) = P(Σ aᵢ): what all terms of a sum turn alike, its last node turns, instead of one
//! for each.
//!
//! Knows terms and the nodes that they are written as.

use crate::affine::{AxisOrder, Geometry, Linear};
use crate::emit::layout::{LayoutOp, layout};
use crate::emit::term::{Term, TermKind};
use crate::ops::forms::NodeForms;
use crate::ops::meaning::Sign;

/// The terms of a sum before the Transpose that each would end with, and the order of axes that it
/// leads to; `None` if they do not all end with the same one.
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

/// The same of a sum of several terms, which is written with that one Transpose.
pub fn before_shared_turn<L: Linear>(
    terms: &[Term<L>],
    forms: NodeForms,
) -> Option<(Vec<Term<L>>, AxisOrder)> {
    if terms.len() > 1 { before_turn(terms, forms) } else { None }
}
