//! Escaping of names: which characters of a name are not shown as they are, and how these are
//! spelled out. A model may come from anybody, and so may the names in it.
//!
//! All places that show a name ask [`is_unsafe`], so that the same characters are spelled out on
//! a terminal, in JSON and on a page; only the spelling depends on the format.
//!
//! Knows characters; does not know where they are shown.

use std::borrow::Cow;

/// Whether `c` would control its display instead of being displayed, so that a name with it
/// looks like another name: control characters (U+0000–U+001F, U+007F–U+009F), the line and
/// paragraph separators U+2028 and U+2029, characters that change the direction of the text
/// (U+202A–U+202E, U+2066–U+2069), and characters of no width (U+200B–U+200F, U+2060–U+2065,
/// U+206A–U+206F, U+FEFF).
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Returns `text` with its unsafe characters spelled out in hexadecimal as `\u{…}`, except for
/// those that `keep` accepts.
pub fn escaped(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_spelled_out = |c: char| is_unsafe(c) && !keep(c);
    if !text.contains(is_spelled_out) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_spelled_out(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_or_hides_is_spelled_out() {
        for (text, expected) in [
            ("conv1/Ω 畳み込み é", "conv1/Ω 畳み込み é"),
            ("red \u{1b}[31m", "red \\u{1b}[31m"),
            ("a\tb\r\n", "a\\u{9}b\\u{d}\n"),
            ("\u{7f}\u{9f}\u{a0}", "\\u{7f}\\u{9f}\u{a0}"),
            ("\u{202e}txet\u{2066}", "\\u{202e}txet\\u{2066}"),
            ("line\u{2028}paragraph\u{2029}", "line\\u{2028}paragraph\\u{2029}"),
            ("ze\u{200b}ro\u{feff}\u{2060}", "ze\\u{200b}ro\\u{feff}\\u{2060}"),
            (
                "\u{200a}\u{2010}\u{2027}\u{202f}\u{2070}",
                "\u{200a}\u{2010}\u{2027}\u{202f}\u{2070}",
            ),
        ] {
            assert_eq!(escaped(text, |c| c == '\n'), expected);
        }
    }
}
