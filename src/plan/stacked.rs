//! Kernels side by side. If a Concat joins along the channels what kernels make through the
//! same windows, one kernel takes their place: one with the rows of all if they read one
//! tensor, and one with groups if they read the parts of one tensor, in their order.
//!
//! *Counter-examples*: a 1×1 kernel as the rows of a 3×3 one would have nine times its weights; in
//! a kernel with two groups, the rows of each stand together, and in a stack they would not.
//!
//! Knows terms and which parts they make and read; does not decide whether it pays.

use std::collections::BTreeMap;

use crate::affine::{Linear, Part, Window};
use crate::emit::term::Term;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::ids::ValueId;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;

/// Returns the terms with those of neighbouring parts stacked, where each term of one part has
/// a term of the next to be stacked on; `None` if no part has such a neighbour.
pub fn stacked<L: Linear>(terms: &[Term<L>]) -> Option<Vec<Term<L>>> {
    let mut parts: BTreeMap<Part, Vec<Term<L>>> = BTreeMap::new();
    for term in terms {
        parts.entry(term.part()?).or_default().push(term.clone());
    }
    let before = parts.len();
    let mut rows: Vec<Vec<Term<L>>> = Vec::new();
    for part in parts.into_values() {
        match rows.last().and_then(|last| one_on_the_other(last, &part)) {
            Some(both) => {
                rows.pop();
                rows.push(both);
            }
            None => rows.push(part),
        }
    }
    (rows.len() < before).then(|| rows.concat())
}

/// Returns each term of `one` part stacked with a term of the `next` one.
fn one_on_the_other<L: Linear>(one: &[Term<L>], next: &[Term<L>]) -> Option<Vec<Term<L>>> {
    let mut left: Vec<&Term<L>> = next.iter().collect();
    let mut stacked = Vec::with_capacity(one.len());
    for term in one {
        let mut on = left.iter().enumerate();
        let (at, both) = on.find_map(|(at, next)| Some((at, term.stacked(next)?)))?;
        left.swap_remove(at);
        stacked.push(both);
    }
    left.is_empty().then_some(stacked)
}

/// Returns the terms as one kernel with groups, if each term makes one part of the whole and
/// reads that part of one tensor; `valid` is narrowed to the sizes of that tensor for which
/// this is right.
pub fn grouped<L: Linear>(
    terms: &[Term<L>],
    reader: &Reader,
    meanings: &Meanings,
    valid: &mut Validity,
) -> Option<Term<L>> {
    let mut in_order: Vec<&Term<L>> = terms.iter().collect();
    in_order.sort_by_key(|term| term.part());
    let (first, others) = in_order.split_first().filter(|(_, others)| !others.is_empty())?;
    let (root, start) = part_read(reader, meanings, first.root)?;
    let mut read = (start.start == 0).then_some(start)?;
    let mut all: Term<L> = (*first).clone();
    for term in others {
        let (of, part) = part_read(reader, meanings, term.root).filter(|&(of, _)| of == root)?;
        // With the last part, the whole is read.
        read = read.with_next(part)?.unwrap_or(Part { start: 0, size: part.whole, ..part });
        all = all.beside(term, of)?;
    }
    let is_along_channels = all.map.geometry().input.axis(1) == read.axis;
    if all.part.is_some() || read.size != read.whole || !is_along_channels {
        return None;
    }
    valid.require(root, Property::Size(read.axis, SizeSet::Exactly(read.whole as i64)));
    Some(all)
}

/// Returns the tensor that `value` is a part of, and which part.
fn part_read(reader: &Reader, meanings: &Meanings, value: ValueId) -> Option<(ValueId, Part)> {
    let producer = reader.graph.value(value).producer?;
    match meanings.get(producer)? {
        Meaning::Parted(whole, parts) => {
            let mut outputs = reader.graph.node(producer).outputs.iter();
            let place = outputs.position(|&output| output == Some(value))?;
            Some((meanings.source(*whole), *parts.get(place)?))
        }
        // A Slice.
        Meaning::Linear(
            whole,
            LinearOp::Filter { windows, order, weight: 1.0, shift: 0.0, .. },
        ) => {
            let mut cut = windows.iter().enumerate().filter(|(_, own)| **own != Window::IDENTITY);
            let (role, window) = cut.next().filter(|_| cut.next().is_none())?;
            let (before, behind) = window.pads();
            let is_crop = (window.taps, window.stride) == (1, 1) && before.max(behind) <= 0;
            let axis = order.axis(role.saturating_add(2));
            let whole_size = usize::try_from(reader.sizes.known_size(*whole, axis)?).ok()?;
            let [start, end] = [before, behind].map(|cut| usize::try_from(cut.unsigned_abs()).ok());
            let size = whole_size.checked_sub(start?)?.checked_sub(end?)?;
            let part = Part { axis, whole: whole_size, start: start?, size };
            is_crop.then(|| (meanings.source(*whole), part))
        }
        _ => None,
    }
}
