//! New bytes from old ones: everything that no edit names is copied verbatim.
//!
//! An [`Edit`] replaces a range of the file; an insertion replaces an empty
//! range, a removal puts nothing. A message that contains an edit changes its
//! length, and its length prefix stands in the file before it, so
//! **a length prefix is just one more edit**.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "lengths of what is in memory: their sums and differences fit an isize"
)]

use std::io::{self, Write};
use std::ops::Range;

use prost::Message;
use prost::bytes::Bytes;

use super::wire;

/// Replace the bytes at `at` by `with`.
#[derive(Debug, Clone)]
pub struct Edit {
    /// A range of the old file; edits never overlap.
    pub at: Range<usize>,
    /// What stands there in the new file.
    pub with: Bytes,
    /// Where the content of the message begins that this is inserted into: where one
    /// message ends, those around it may end too.
    into: Option<usize>,
}

impl Edit {
    /// Puts `with` in the place of a range that is not empty.
    pub fn replace(at: Range<usize>, with: Bytes) -> Self {
        Edit { at, with, into: None }
    }

    /// Puts `with` at a place in the content of a message, or at its end.
    pub fn insert(at: usize, with: Bytes, into: &Container) -> Self {
        Edit { at: at..at, with, into: Some(into.payload.start) }
    }

    /// Takes a whole entry (tag, length, payload) away.
    pub fn remove(entry: Range<usize>) -> Self {
        Edit::replace(entry, Bytes::new())
    }
}

/// A length-delimited message around edits.
#[derive(Debug, Clone)]
pub struct Container {
    /// The varint with the payload's length.
    pub length: Range<usize>,
    /// The message's content.
    pub payload: Range<usize>,
}

/// The bytes of one entry: field `number`, holding `message`.
pub fn entry(number: u32, message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.encoded_len() + 10);
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
    bytes.extend_from_slice(&message.encode_length_delimited_to_vec());
    bytes
}

/// Completes `edits` with those of the length prefixes of `containers`, in file order.
pub fn with_lengths(mut edits: Vec<Edit>, mut containers: Vec<Container>) -> Vec<Edit> {
    // Stable: insertions at one place keep the order in which they were asked for.
    edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
    containers
        .sort_by_key(|container| (container.payload.start, usize::MAX - container.payload.end));
    containers.dedup_by_key(|container| container.length.start);
    let tree = Tree::of(containers);
    let mut growth = vec![0isize; tree.containers.len()];
    for edit in &edits {
        if let Some(sum) = tree.message_of(edit).and_then(|innermost| growth.get_mut(innermost)) {
            *sum += edit.with.len() as isize - edit.at.len() as isize;
        }
    }
    // Inner messages first: what they and their prefixes grow by, those around grow too.
    for (index, Container { length, payload }) in tree.containers.iter().enumerate().rev() {
        let grown = growth.get(index).copied().unwrap_or(0);
        if grown == 0 {
            continue;
        }
        let with: Bytes = wire::varint(payload.len().saturating_add_signed(grown)).into();
        let around = tree.parents.get(index).copied().flatten();
        if let Some(sum) = around.and_then(|around| growth.get_mut(around)) {
            *sum += grown + with.len() as isize - length.len() as isize;
        }
        edits.push(Edit::replace(length.clone(), with));
    }
    edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
    edits
}

/// Nested containers in file order.
struct Tree {
    containers: Vec<Container>,
    parents: Vec<Option<usize>>,
}

impl Tree {
    fn of(containers: Vec<Container>) -> Self {
        let mut tree = Tree { containers, parents: Vec::new() };
        for (index, container) in tree.containers.iter().enumerate() {
            let parent = tree.holding(index.checked_sub(1), &container.payload);
            tree.parents.push(parent);
        }
        tree
    }

    /// The innermost message that an edit changes.
    fn message_of(&self, edit: &Edit) -> Option<usize> {
        match edit.into {
            Some(start) => self.containers.binary_search_by_key(&start, |c| c.payload.start).ok(),
            None => self.innermost(&edit.at),
        }
    }

    fn innermost(&self, at: &Range<usize>) -> Option<usize> {
        let begun = self.containers.partition_point(|c| c.payload.start <= at.start);
        self.holding(begun.checked_sub(1), at)
    }

    /// The first, from `index` outwards, that holds `at`.
    fn holding(&self, index: Option<usize>, at: &Range<usize>) -> Option<usize> {
        let outwards = |&index: &usize| self.parents.get(index).copied().flatten();
        let holds = |&index: &usize| {
            let payload = self.containers.get(index).map(|container| &container.payload);
            payload.is_some_and(|payload| payload.start <= at.start && at.end <= payload.end)
        };
        std::iter::successors(index, outwards).find(holds)
    }
}

/// Writes `bytes` with `edits` (see [`with_lengths`]) made.
pub fn write(bytes: &[u8], edits: &[Edit], out: &mut impl Write) -> io::Result<()> {
    let mut copied = 0;
    for edit in edits {
        debug_assert!(copied <= edit.at.start, "edits overlap at byte {}", edit.at.start);
        out.write_all(bytes.get(copied..edit.at.start).unwrap_or_default())?;
        out.write_all(&edit.with)?;
        copied = edit.at.end;
    }
    out.write_all(bytes.get(copied..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(bytes: &[u8], edits: Vec<Edit>, containers: &[Container]) -> Vec<u8> {
        let mut out = Vec::new();
        write(bytes, &with_lengths(edits, containers.to_vec()), &mut out).unwrap();
        out
    }

    #[test]
    fn no_edit_is_the_same_file() {
        assert_eq!(spliced(b"abc", vec![], &[Container { length: 0..1, payload: 1..3 }]), b"abc");
    }

    #[test]
    fn lengths_of_nested_messages_follow() {
        // 7: { 1: { 2: "x" } }, then 8: 0
        let bytes = [58, 5, 10, 3, 18, 1, b'x', 64, 0];
        let outer = Container { length: 1..2, payload: 2..7 };
        let inner = Container { length: 3..4, payload: 4..7 };
        let long = vec![0u8; 200];
        let edits = vec![
            Edit::insert(7, Bytes::from_static(b""), &inner),
            Edit::replace(4..7, long.clone().into()),
        ];
        let out = spliced(&bytes, edits, &[outer, inner]);
        // 200 takes two bytes as a varint, so the outer message grows by 198.
        assert_eq!(out[..6], [58, 203, 1, 10, 200, 1]);
        assert_eq!(out[6..206], long[..]);
        assert_eq!(out[206..], [64, 0]);
    }

    #[test]
    fn insertions_keep_their_order() {
        let whole = Container { length: 0..0, payload: 0..2 };
        let at = |with: &'static [u8]| Edit::insert(1, Bytes::from_static(with), &whole);
        assert_eq!(spliced(b"ab", vec![at(b"1"), at(b"2")], &[]), b"a12b");
    }

    #[test]
    fn where_several_messages_end_an_insertion_goes_into_the_one_it_names() {
        // 7: { 1: { 2: "x" } }
        let bytes = [58, 5, 10, 3, 18, 1, b'x'];
        let outer = Container { length: 1..2, payload: 2..7 };
        let inner = Container { length: 3..4, payload: 4..7 };
        let both = [outer.clone(), inner.clone()];
        let insert = |into| vec![Edit::insert(7, Bytes::from_static(&[24, 0]), into)];
        assert_eq!(spliced(&bytes, insert(&outer), &both), [58, 7, 10, 3, 18, 1, b'x', 24, 0]);
        assert_eq!(spliced(&bytes, insert(&inner), &both), [58, 7, 10, 5, 18, 1, b'x', 24, 0]);
    }
}
