//! Text and numbers as they may stand in a page.
//!
//! Names in a model are anybody's: each goes through [`shown`], sentences that hold names
//! through [`sentence`]. Knows nothing of a report.

use crate::report::escape::is_unsafe;
use crate::report::words::{counted, cut_in_the_middle};

/// So many characters of a name are shown at each end, and as many words of a sentence as of both.
const AT_EACH_END: usize = 80;

/// So many places, outputs or side files are listed.
pub const LISTED: usize = 2_000;

/// Appends formatted text to a string; that cannot fail.
macro_rules! put {
    ($to:expr, $($argument:tt)*) => {{
        use std::fmt::Write as _;
        let _ = write!($to, $($argument)*);
    }};
}
pub(super) use put;

/// `text` as it may stand in the page: escaped, with what would steer a terminal or turn
/// the direction of the text spelled out, and what is too long left out in the middle.
pub fn shown(text: &str) -> String {
    let count = text.chars().count();
    let more = count.saturating_sub(AT_EACH_END.saturating_mul(2));
    if more == 0 {
        return escaped(text.chars());
    }
    let last = text.chars().skip(count.saturating_sub(AT_EACH_END));
    format!("{}… ({more} more) …{}", escaped(text.chars().take(AT_EACH_END)), escaped(last))
}

fn escaped(text: impl Iterator<Item = char>) -> String {
    let mut shown = String::new();
    for c in text {
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '"' => shown.push_str("&quot;"),
            '\'' => shown.push_str("&#39;"),
            c if is_unsafe(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// A name where there is little room, cut in the middle.
pub fn cut(name: &str) -> String {
    /// So many characters are shown there.
    const SHORT: usize = 40;
    cut_to(name, SHORT)
}

/// `text` in no more than `most` characters, cut in the middle.
pub fn cut_to(text: &str, most: usize) -> String {
    shown(&cut_in_the_middle(text, most))
}

/// A sentence, which may be longer than a name.
pub fn sentence(text: &str) -> String {
    let words: Vec<String> =
        text.split(' ').take(AT_EACH_END.saturating_mul(2)).map(shown).collect();
    words.join(" ")
}

/// That a list has more entries, each a `noun`, than are `listed`; empty if it has not.
pub fn left_out(all: usize, listed: usize, noun: &str) -> String {
    match all.checked_sub(listed) {
        None | Some(0) => String::new(),
        Some(more) => {
            let further = counted(more, &format!("further {noun}"));
            let are = if more == 1 { "is" } else { "are" };
            format!("<p class=\"soft\">{further} {are} in the JSON report only.</p>\n")
        }
    }
}

/// A row of a list of facts, of which both parts are safe.
pub fn fact(what: &str, value: &str) -> String {
    format!("<dt>{what}</dt><dd>{value}</dd>")
}

/// What stands where a number is not known.
pub const UNKNOWN: &str = "–";

/// `1234567` as `1,234,567`, to the next whole number.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && digits.len().saturating_sub(place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// As [`grouped`], of a number that may be unknown.
pub fn grouped_if_known(number: Option<f64>) -> String {
    number.map_or_else(|| UNKNOWN.to_owned(), grouped)
}

/// A magnitude: with three decimals, or with an exponent where these say nothing.
pub fn magnitude(value: f64) -> String {
    if value == 0.0 || (1e-3..1e4).contains(&value.abs()) {
        format!("{value:.3}")
    } else {
        format!("{value:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_markup_nor_turn_the_page() {
        for (name, expected) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload='x'", "&quot; onload=&#39;x&#39;"),
            ("a\u{202e}b\u{1b}[2J", "a\\u{202e}b\\u{1b}[2J"),
            ("layer1.0", "layer1.0"),
        ] {
            assert_eq!(shown(name), expected);
        }
        let name = format!("{}<>cut {}", "a".repeat(AT_EACH_END), "z".repeat(AT_EACH_END));
        let [a, z] = ["a", "z"].map(|end| end.repeat(AT_EACH_END));
        assert_eq!(shown(&name), format!("{a}… (6 more) …{z}"));
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, expected) in [(0.0, "0"), (999.0, "999"), (1234567.0, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
    }
}
