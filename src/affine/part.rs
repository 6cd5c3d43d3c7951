//! Parts of a tensor: ranges of consecutive elements along one axis, as a Concat joins them.
//!
//! A tensor that is a concatenation of others is a sum of tensors, each of which equals one of
//! them in its part and is zero elsewhere. Knows sizes along one axis; no weights, and no
//! operator.

/// A range of elements along one axis of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The axis, counted from the front.
    pub axis: usize,
    /// Number of elements of the whole tensor along the axis.
    pub whole: usize,
    /// Index of the part's first element.
    pub start: usize,
    /// Number of elements of the part.
    pub size: usize,
}

impl Part {
    /// The parts that tensors of these `sizes` along `axis` form when they are joined. Returns
    /// `None` if one of them is empty.
    pub fn joined(axis: usize, sizes: &[usize]) -> Option<Vec<Self>> {
        let whole = sizes.iter().try_fold(0usize, |whole, &size| whole.checked_add(size))?;
        let mut start = 0usize;
        let part = |&size: &usize| {
            let part = Part { axis, whole, start, size };
            start = start.saturating_add(size);
            (size > 0).then_some(part)
        };
        sizes.iter().map(part).collect()
    }

    /// This part of `outer` as a part of the whole tensor. Returns `None` unless it is along the
    /// same axis, and of a whole as large as `outer`.
    pub fn of(self, outer: Part) -> Option<Self> {
        let fits = self.axis == outer.axis && self.whole == outer.size;
        let start = outer.start.saturating_add(self.start);
        fits.then_some(Part { start, whole: outer.whole, ..self })
    }

    /// This part joined with the part `next` behind it: `Some(None)` if both are the whole
    /// tensor, and `None` if `next` does not follow this part.
    pub fn with_next(self, next: Part) -> Option<Option<Self>> {
        let end = self.start.saturating_add(self.size);
        let follows = (next.axis, next.whole, next.start) == (self.axis, self.whole, end);
        let size = self.size.saturating_add(next.size);
        follows.then_some((size < self.whole).then_some(Part { size, ..self }))
    }

    /// Whether these parts form a whole tensor without gaps or overlaps, where a part may be
    /// listed more than once and `None` is the whole tensor.
    pub fn make_a_whole(parts: impl Iterator<Item = Option<Self>>) -> bool {
        let mut parts: Vec<Option<Self>> = parts.collect();
        parts.sort_unstable();
        parts.dedup();
        let mut end = 0;
        match parts.as_slice() {
            [None] => true,
            [Some(Part { axis, whole, .. }), ..] => {
                let mut follows = |part: &Option<Self>| {
                    let Some(part) = part else { return false };
                    let is_next = (part.axis, part.whole, part.start) == (*axis, *whole, end);
                    end = part.start.saturating_add(part.size);
                    is_next
                };
                parts.iter().all(&mut follows) && end == *whole
            }
            [] | [None, ..] => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_leave_no_gap_and_do_not_overlap() {
        let part = |start, size| Some(Part { axis: 1, whole: 6, start, size });
        for (parts, expected) in [
            (&[None, None][..], true),
            (&[part(0, 2), part(2, 4), part(0, 2)], true),
            (&[part(2, 4), part(0, 2)], true),
            (&[part(0, 2), None], false),
            (&[part(0, 2)], false),
            (&[part(0, 2), part(3, 3)], false),
            (&[part(0, 2), part(0, 4), part(4, 2)], false),
            (&[part(0, 2), part(2, 4), Some(Part { axis: 2, whole: 6, start: 0, size: 6 })], false),
            (&[], false),
        ] {
            assert_eq!(Part::make_a_whole(parts.iter().copied()), expected, "{parts:?}");
        }
        let joined = Part::joined(1, &[2, 4]).unwrap();
        assert_eq!(joined, [part(0, 2).unwrap(), part(2, 4).unwrap()]);
        assert_eq!(joined[0].with_next(joined[1]), Some(None));
        assert_eq!(part(0, 2).unwrap().with_next(part(2, 1).unwrap()), Some(part(0, 3)));
        assert_eq!(part(0, 2).unwrap().with_next(part(3, 1).unwrap()), None);
        let inner = Part { axis: 1, whole: 4, start: 1, size: 3 };
        assert_eq!(inner.of(joined[1]), part(3, 3));
        assert_eq!((inner.of(joined[0]), Part::joined(1, &[2, 0])), (None, None));
    }
}
