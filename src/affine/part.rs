//! Parts of a tensor: neighbouring elements along one axis, as a Concat joins them.
//!
//! A tensor that is joined of others is a sum of them, each of which is part of it and zero
//! elsewhere. Knows sizes along one axis; no weights, and no operator.

/// Elements of one axis of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The axis, from the front.
    pub axis: usize,
    /// Elements along it of the whole tensor.
    pub whole: usize,
    /// The first element of the part.
    pub start: usize,
    /// Elements of the part.
    pub size: usize,
}

impl Part {
    /// Tensors of these sizes along `axis`, joined; `None` if one of them is empty.
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

    /// What this part of `outer` is of the whole; `None` if they are along different axes.
    pub fn of(self, outer: Part) -> Option<Self> {
        let fits = self.axis == outer.axis && self.whole == outer.size;
        let start = outer.start.saturating_add(self.start);
        fits.then_some(Part { start, whole: outer.whole, ..self })
    }

    /// This part and its neighbour `next` as one, which is all of the whole if that is `None`; or
    /// `None` if that does not follow it.
    pub fn with_next(self, next: Part) -> Option<Option<Self>> {
        let end = self.start.saturating_add(self.size);
        let follows = (next.axis, next.whole, next.start) == (self.axis, self.whole, end);
        let size = self.size.saturating_add(next.size);
        follows.then_some((size < self.whole).then_some(Part { size, ..self }))
    }

    /// Whether these parts, each of which may be told more than once, are a whole tensor
    /// without a gap, and no two of them overlap; no part is all of it.
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
