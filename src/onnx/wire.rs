//! Protobuf's wire format: where each field of a message lies.
//!
//! Knows tags, varints and lengths; knows no message. The rest of [`crate::onnx`] trusts the
//! ranges that come from here.

use std::ops::Range;

use prost::encoding;

/// The maximum length of a varint in bytes: 64 bits, seven per byte.
const LONGEST_VARINT: usize = 10;

/// One field of a message, by its position in the file. Every node and tensor of a model has
/// several, so this type is small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its field number in the schema.
    pub number: u32,
    /// The length of its tag, in bytes.
    tag: u8,
    /// The offset of its tag.
    start: usize,
    /// The range of its value.
    pub payload: Range<usize>,
}

/// The error that bytes are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct WireError {
    /// The offset in the file, in bytes.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Iterates over the fields of the message that fills `within`.
pub fn fields(bytes: &[u8], within: Range<usize>) -> Fields<'_> {
    Fields { bytes, at: within.start, end: within.end }
}

/// An iterator over the fields of a message; see [`fields`]. Ends after the first error.
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl Field {
    /// Returns the range of tag, length and payload: what disappears when the field is removed.
    pub fn entry(&self) -> Range<usize> {
        self.start..self.payload.end
    }

    /// Returns the range of the varint that holds the payload's length; empty if the field
    /// is not length-delimited.
    pub fn length(&self) -> Range<usize> {
        self.start.saturating_add(usize::from(self.tag))..self.payload.start
    }

    /// Returns the field if it is length-delimited: a message or a string.
    ///
    /// # Errors
    /// Returns an error if it is a number.
    pub fn delimited(self) -> Result<Self, WireError> {
        if self.length().is_empty() {
            return Err(WireError {
                at: self.entry().start,
                what: "a number where a message belongs",
            });
        }
        Ok(self)
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<Field, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let field = self.field();
        self.at = field.as_ref().map_or(self.end, |field| field.entry().end);
        Some(field)
    }
}

impl Fields<'_> {
    fn field(&self) -> Result<Field, WireError> {
        let start = self.at;
        let (tag, after_tag) = self.varint(start)?;
        let number = u32::try_from(tag >> 3).ok().filter(|&n| n > 0 && n < 1 << 29);
        let Some(number) = number else {
            return Err(WireError { at: start, what: "a field number is out of range" });
        };
        let payload = match tag & 7 {
            0 => after_tag..self.varint(after_tag)?.1,
            1 => self.span(after_tag, 8)?,
            5 => self.span(after_tag, 4)?,
            2 => {
                let (length, after_length) = self.varint(after_tag)?;
                self.span(after_length, length)?
            }
            _ => return Err(WireError { at: start, what: "an unsupported wire type" }),
        };
        // A varint has at most ten bytes.
        let tag = u8::try_from(after_tag.saturating_sub(start)).unwrap_or(u8::MAX);
        Ok(Field { number, tag, start, payload })
    }

    fn span(&self, start: usize, length: u64) -> Result<Range<usize>, WireError> {
        usize::try_from(length)
            .ok()
            .and_then(|length| start.checked_add(length))
            .filter(|&end| end <= self.end)
            .map(|end| start..end)
            .ok_or(WireError { at: start, what: "a length runs past the end (truncated file?)" })
    }

    fn varint(&self, start: usize) -> Result<(u64, usize), WireError> {
        let bytes = self.bytes.get(start..self.end).unwrap_or_default();
        let mut rest = bytes;
        if let Ok(value) = encoding::decode_varint(&mut rest) {
            return Ok((value, self.end.saturating_sub(rest.len())));
        }
        let what = if bytes.len() < LONGEST_VARINT {
            "a number runs past the end (truncated file?)"
        } else {
            "a number is longer than 64 bits"
        };
        Err(WireError { at: start, what })
    }
}

/// Returns the value of a varint field with this `payload`; 0 if that is not a varint.
pub fn varint_value(mut payload: &[u8]) -> u64 {
    encoding::decode_varint(&mut payload).unwrap_or_default()
}

/// Returns the encoding of `value` as a varint.
pub fn varint(value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoding::encode_varint(value as u64, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8]) -> Result<Vec<Field>, WireError> {
        fields(bytes, 0..bytes.len()).collect()
    }

    #[test]
    fn finds_every_field() {
        // 1: varint 300; 2: "ab"; 3: fixed32; 4: fixed64
        let bytes = [8, 0xac, 2, 18, 2, b'a', b'b', 29, 1, 2, 3, 4, 33, 1, 2, 3, 4, 5, 6, 7, 8];
        let fields = scan(&bytes).unwrap();
        let places: Vec<_> =
            fields.iter().map(|f| (f.number, f.entry(), f.payload.clone())).collect();
        assert_eq!(
            places,
            [(1, 0..3, 1..3), (2, 3..7, 5..7), (3, 7..12, 8..12), (4, 12..21, 13..21)]
        );
        assert_eq!(fields[1].length(), 4..5);
        assert_eq!(varint_value(&bytes[1..3]), 300);
    }

    #[test]
    fn malformed_bytes_are_errors_that_name_the_place() {
        for (bytes, at, what) in [
            (&[18, 5, b'a'][..], 2, "past the end"),
            (&[8], 1, "past the end"),
            (&[8, 0x80], 1, "past the end"),
            (&[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], 1, "longer than 64 bits"),
            (&[0, 1], 0, "field number"),
            (&[11], 0, "wire type"),
            (&[18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], 11, "past the end"),
        ] {
            let error = scan(bytes).unwrap_err();
            assert_eq!(error.at, at, "{bytes:?}");
            assert!(error.what.contains(what), "{bytes:?}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn ranges_never_leave_the_message(bytes: Vec<u8>) {
            let mut at = 0;
            for field in fields(&bytes, 0..bytes.len()).map_while(Result::ok) {
                assert_eq!(field.entry().start, at);
                assert!(field.entry().end <= bytes.len() && field.payload.end == field.entry().end);
                at = field.entry().end;
            }
        }
    }
}
