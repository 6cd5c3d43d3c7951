//! New bytes from old ones: everything that no edit names is copied verbatim.
//!
//! An [`Edit`] replaces a range of the file; an insertion replaces an empty range, a removal
//! puts nothing in its place. A message that contains an edit changes its length, and its
//! length prefix stands in the file before it, so **a length prefix is just one more edit**.
//! Data that is still to be computed leaves a hole, which is filled when the data is there.
//!
//! Knows ranges of bytes and lengths of messages; not what these say.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "lengths of what is in memory: their sums and differences fit an isize"
)]

use std::io::{self, Write};
use std::ops::Range;

use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::onnx::wire;

/// A replacement of the bytes at `at` by `with`.
#[derive(Debug, Clone)]
pub struct Edit {
    /// A range of the old file; edits never overlap.
    pub at: Range<usize>,
    /// The bytes at its place in the new file.
    pub with: Bytes,
    /// Data that follows `with`, and is computed later.
    then: Option<Deferred>,
    /// For an insertion, the start of the payload of the message that it goes into: where a
    /// message ends, enclosing ones may end, too, so the offset alone is ambiguous.
    into: Option<usize>,
}

/// Data that is computed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deferred {
    /// The caller's identifier for it.
    pub id: usize,
    /// Its length in bytes.
    pub length: usize,
}

/// A place in a new file that is still to be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Its offset in the new file.
    pub at: usize,
    /// The data that goes there.
    pub deferred: Deferred,
}

/// A writer of new files, which can leave holes and copy from the old file.
pub trait Sink: Write {
    /// Leaves a hole of this many bytes.
    ///
    /// # Errors
    /// Returns an error if the file system reports one.
    fn leave(&mut self, bytes: usize) -> io::Result<()>;

    /// Writes a part of the old file.
    ///
    /// # Errors
    /// Same as [`Write::write_all`].
    fn keep(&mut self, old: &[u8], part: Range<usize>) -> io::Result<()> {
        self.write_all(old.get(part).unwrap_or_default())
    }
}

impl Sink for Vec<u8> {
    fn leave(&mut self, bytes: usize) -> io::Result<()> {
        self.resize(self.len() + bytes, 0);
        Ok(())
    }
}

impl Edit {
    /// Replaces a range, which must not be empty, by `with`.
    pub fn replace(at: Range<usize>, with: Bytes) -> Self {
        Edit { at, with, then: None, into: None }
    }

    /// Inserts `with` at offset `at` of the file, within or at the end of the payload of the
    /// message `into`.
    pub fn insert(at: usize, with: Bytes, into: &Container) -> Self {
        Edit { at: at..at, with, then: None, into: Some(into.payload.start) }
    }

    /// Returns the same edit, followed by data that is computed later.
    #[must_use]
    pub fn then(self, deferred: Deferred) -> Self {
        Edit { then: Some(deferred), ..self }
    }

    /// Removes a whole entry: tag, length and payload.
    pub fn remove(entry: Range<usize>) -> Self {
        Edit::replace(entry, Bytes::new())
    }
}

/// A length-delimited message that contains edits.
#[derive(Debug, Clone)]
pub struct Container {
    /// The range of the varint with the payload's length.
    pub length: Range<usize>,
    /// The range of the message's content.
    pub payload: Range<usize>,
}

/// Returns the bytes of one entry: field `number`, holding `message`.
pub fn entry(number: u32, message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.encoded_len() + 10);
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    bytes.extend_from_slice(&message.encode_length_delimited_to_vec());
    bytes
}

/// Returns the same as [`entry`], for a message that consists of these bytes and `to_follow` more.
pub fn begun_entry(number: u32, message: &[u8], to_follow: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + 10);
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint((message.len() + to_follow) as u64, &mut bytes);
    bytes.extend_from_slice(message);
    bytes
}

/// Returns the same as [`begun_entry`], for a message that ends with the field `last`, whose
/// `length` bytes are to follow.
pub fn open_entry(number: u32, mut message: Vec<u8>, last: u32, length: usize) -> Vec<u8> {
    encode_key(last, WireType::LengthDelimited, &mut message);
    encode_varint(length as u64, &mut message);
    begun_entry(number, &message, length)
}

/// Returns `edits` in file order, together with those of the length prefixes of `containers`.
pub fn with_lengths(mut edits: Vec<Edit>, mut containers: Vec<Container>) -> Vec<Edit> {
    // A stable sort: insertions at one offset keep the order of `edits`.
    edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
    containers
        .sort_by_key(|container| (container.payload.start, usize::MAX - container.payload.end));
    containers.dedup_by_key(|container| container.length.start);
    let tree = Tree::of(containers);
    let mut growth = vec![0isize; tree.containers.len()];
    for edit in &edits {
        if let Some(sum) = tree.message_of(edit).and_then(|innermost| growth.get_mut(innermost)) {
            let deferred = edit.then.map_or(0, |deferred| deferred.length);
            *sum += (edit.with.len() + deferred) as isize - edit.at.len() as isize;
        }
    }
    // Inner messages first: what they and their length prefixes grow by, enclosing messages
    // grow by, too.
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

/// Nested containers in file order, with the index of the parent of each.
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

    /// Returns the index of the innermost message that an edit changes.
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

    /// Returns the first container that holds `at`, from `index` outwards.
    fn holding(&self, index: Option<usize>, at: &Range<usize>) -> Option<usize> {
        let outwards = |&index: &usize| self.parents.get(index).copied().flatten();
        let holds = |&index: &usize| {
            let payload = self.containers.get(index).map(|container| &container.payload);
            payload.is_some_and(|payload| payload.start <= at.start && at.end <= payload.end)
        };
        std::iter::successors(index, outwards).find(holds)
    }
}

/// Writes `bytes` with `edits` applied (see [`with_lengths`]); returns the holes that are left.
///
/// # Errors
/// Returns an error if writing to `out` fails.
pub fn write(bytes: &[u8], edits: &[Edit], out: &mut impl Sink) -> io::Result<Vec<Hole>> {
    let (mut copied, mut written, mut holes) = (0, 0, Vec::new());
    for edit in edits {
        debug_assert!(copied <= edit.at.start, "edits overlap at byte {}", edit.at.start);
        out.keep(bytes, copied..edit.at.start)?;
        out.write_all(&edit.with)?;
        written += edit.at.start - copied + edit.with.len();
        copied = edit.at.end;
        if let Some(deferred) = edit.then {
            holes.push(Hole { at: written, deferred });
            out.leave(deferred.length)?;
            written += deferred.length;
        }
    }
    out.keep(bytes, copied..bytes.len())?;
    Ok(holes)
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
    fn what_comes_later_has_its_place() {
        // 7: { 1: "x" }; into the message comes 2: { 8: "w", 9: five bytes }.
        let bytes = [58, 3, 10, 1, b'x', 64, 0];
        let outer = Container { length: 1..2, payload: 2..5 };
        let tensor =
            crate::onnx::proto::TensorProto { name: Some("w".to_owned()), ..Default::default() };
        let deferred = Deferred { id: 3, length: 5 };
        let edit = Edit::insert(5, open_entry(2, tensor.encode_to_vec(), 9, 5).into(), &outer)
            .then(deferred);
        let mut out = Vec::new();
        let edits = with_lengths(vec![edit], vec![outer]);
        let holes = write(&bytes, &edits, &mut out).unwrap();
        let expected = [58, 15, 10, 1, b'x', 18, 10, 66, 1, b'w', 74, 5, 0, 0, 0, 0, 0, 64, 0];
        assert_eq!((out.as_slice(), holes), (&expected[..], vec![Hole { at: 12, deferred }]));
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
