//! Fuzzing of edits in nested messages, compared with encoding the edited messages anew.

use acb_fuse::onnx::splice::{Container, Edit, with_lengths, write};

use super::choices::Choices;

/// An entry of a message, and the edits to it.
struct Entry {
    tag: Vec<u8>,
    content: Content,
    change: Change,
    /// What is inserted behind this entry.
    behind: Vec<Vec<u8>>,
}

enum Content {
    /// The value of an entry without a length prefix, as its wire type stores it.
    Scalar(Vec<u8>),
    Bytes {
        length: Vec<u8>,
        payload: Vec<u8>,
    },
    Message {
        length: Vec<u8>,
        first: Vec<Vec<u8>>,
        entries: Vec<Entry>,
    },
}

enum Change {
    None,
    Replace(Vec<u8>),
}

/// Nesting depth of the messages: deeper than any graph in the bodies of a model.
const DEEPEST: usize = 6;

/// Checks that edits make the same file as encoding the edited messages anew.
pub fn splice(data: &[u8]) {
    let choices = &mut Choices::Bytes(data);
    let first = inserted(choices);
    let entries = entries(choices, DEEPEST);
    let mut old = Vec::new();
    let mut noted = Noted::default();
    let whole = Container { length: 0..0, payload: 0..0 };
    noted.edits.extend(first.iter().map(|with| insertion(0, with, &whole)));
    encode_old(&entries, &mut old, &mut noted);
    // The order in which edits and containers are given must not matter, except that insertions
    // at the same place keep theirs.
    if choices.once_in(2) {
        noted.containers.reverse();
    }
    let mut spliced = Vec::new();
    write(&old, &with_lengths(noted.edits, noted.containers), &mut spliced)
        .expect("writing to a vector cannot fail");
    let mut expected = first.concat();
    encode_new(&entries, &mut expected);
    assert_eq!(spliced, expected, "spliced, and encoded anew");
}

fn entries(choices: &mut Choices, depth: usize) -> Vec<Entry> {
    let count = choices.below(if depth == DEEPEST { 9 } else { 5 });
    (0..count).map(|_| entry(choices, depth)).collect()
}

fn entry(choices: &mut Choices, depth: usize) -> Entry {
    let number = choices.pick(&[1u64, 2, 7, 15, 16, 200]);
    let kind = choices.below(6);
    let (wire_type, content) = match kind {
        0 => (0, Content::Scalar(varint(choices.number() as usize))),
        1 => (1, Content::Scalar((0..8).map(|_| choices.byte()).collect())),
        2 => (5, Content::Scalar((0..4).map(|_| choices.byte()).collect())),
        3 => {
            // Sizes around those at which the length prefix gets longer.
            let longest = choices.pick(&[3, 8, 130, 16390]);
            let size = choices.below(longest);
            let payload = vec![b'x'; size];
            (2, Content::Bytes { length: prefix(payload.len(), choices), payload })
        }
        _ if depth == 0 => (0, Content::Scalar(vec![0])),
        _ => {
            let entries = entries(choices, depth - 1);
            let mut payload = Vec::new();
            encode_old(&entries, &mut payload, &mut Noted::default());
            let (length, first) = (prefix(payload.len(), choices), inserted(choices));
            (2, Content::Message { length, first, entries })
        }
    };
    let change = match choices.below(4) {
        0 => Change::Replace(vec![b'n'; choices.pick(&[0, 1, 5, 127, 128, 300])]),
        _ => Change::None,
    };
    let behind = inserted(choices);
    Entry { tag: varint((number << 3 | wire_type) as usize), content, change, behind }
}

fn inserted(choices: &mut Choices) -> Vec<Vec<u8>> {
    match choices.below(4) {
        0 => (0..choices.below(3)).map(|_| choices.bytes(3)).collect(),
        _ => Vec::new(),
    }
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Encodes a length as a varint, now and then a longer one than necessary.
fn prefix(length: usize, choices: &mut Choices) -> Vec<u8> {
    let mut bytes = varint(length);
    if choices.once_in(4)
        && let Some(last) = bytes.last_mut()
    {
        *last |= 0x80;
        bytes.extend([0x80, 0]);
    }
    bytes
}

#[derive(Default)]
struct Noted {
    edits: Vec<Edit>,
    containers: Vec<Container>,
}

fn insertion(at: usize, with: &[u8], into: &Container) -> Edit {
    Edit::insert(at, with.to_vec().into(), into)
}

fn encode_old(entries: &[Entry], old: &mut Vec<u8>, noted: &mut Noted) {
    // Of the message that these entries are inserted into, only its start is needed.
    let around = Container { length: 0..0, payload: old.len()..old.len() };
    for entry in entries {
        let start = old.len();
        old.extend(&entry.tag);
        let is_kept = matches!(entry.change, Change::None);
        match &entry.content {
            Content::Scalar(value) => old.extend(value),
            Content::Bytes { length, payload } => {
                old.extend(length);
                old.extend(payload);
            }
            Content::Message { length, first, entries } => {
                let at = old.len();
                old.extend(length);
                let begins = old.len();
                let mut inside = Noted::default();
                encode_old(entries, old, &mut inside);
                let own = Container { length: at..begins, payload: begins..old.len() };
                noted.containers.extend(inside.containers);
                // A message that is replaced as a whole has no edits inside.
                if is_kept {
                    noted.edits.extend(first.iter().map(|with| insertion(begins, with, &own)));
                    noted.edits.extend(inside.edits);
                }
                noted.containers.push(own);
            }
        }
        if let Change::Replace(with) = &entry.change {
            noted.edits.push(Edit::replace(start..old.len(), with.clone().into()));
        }
        noted.edits.extend(entry.behind.iter().map(|with| insertion(old.len(), with, &around)));
    }
}

fn encode_new(entries: &[Entry], new: &mut Vec<u8>) {
    for entry in entries {
        match (&entry.change, &entry.content) {
            (Change::Replace(with), _) => new.extend(with),
            (Change::None, Content::Scalar(value)) => new.extend([&entry.tag[..], value].concat()),
            (Change::None, Content::Bytes { length, payload }) => {
                new.extend([&entry.tag[..], length, payload].concat());
            }
            (Change::None, Content::Message { length, first, entries }) => {
                let mut payload = first.concat();
                encode_new(entries, &mut payload);
                let mut before = Vec::new();
                encode_old(entries, &mut before, &mut Noted::default());
                // The prefix is written anew only if the length changes.
                let same = payload.len() == before.len();
                let length = if same { length.clone() } else { varint(payload.len()) };
                new.extend([&entry.tag[..], &length, &payload].concat());
            }
        }
        new.extend(entry.behind.concat());
    }
}
