//! What a block makes on the way to its output, and the file has, too: a convolution is written
//! between Transposes, and what stands in front of the last one is what a Transpose back makes.
//!
//! *Example*: MobileNetV2 as TensorFlow has it, its channels last. The sum behind a bottleneck
//! reads `v = P(K(x))`, the next convolution `t = P⁻¹(v)`. Written are `t = K(x)` and `v = P(t)`,
//! and the node that made `t` goes.
//!
//! Knows terms and the nodes that they are written as; no graph.

use crate::affine::Geometry;
use crate::emit::term::{Term, TermKind};
use crate::emit::turned;
use crate::ops::forms::NodeForms;

/// Whether the sum of `inner` is written as the nodes of that of `terms` without the last one.
pub fn is_on_the_way(inner: &[Term<Geometry>], terms: &[Term<Geometry>], forms: NodeForms) -> bool {
    let before = match terms {
        [term] if term.kind == TermKind::Conv && term.part.is_none() => {
            without_last_view(term).map(|term| vec![term])
        }
        _ => None,
    };
    let before = before.or_else(|| turned::before_turn(terms, forms).map(|(terms, _)| terms));
    before.is_some_and(|before| {
        before.len() == inner.len() && before.iter().zip(inner).all(|(one, other)| one.is(other))
    })
}

fn without_last_view(term: &Term<Geometry>) -> Option<Term<Geometry>> {
    let (_, after) = term.after.split_last()?;
    Some(Term { after: after.to_vec(), ..term.clone() })
}
