//! Text and numbers as they may stand in a page.
//!
//! A name in a model may hold any character: names go through [`shown`], and sentences with
//! names through [`sentence`]. Knows nothing of a report.

use crate::report::escape::is_unsafe;
use crate::report::words::{counted, cut_in_the_middle};

/// Number of characters of a name that are shown at each end; a sentence is cut after twice as
/// many words.
const AT_EACH_END: usize = 80;

/// Upper bound on the number of places, outputs or side files that are listed.
pub const LISTED: usize = 2_000;

/// Appends formatted text to a string, which cannot fail.
macro_rules! put {
    ($to:expr, $($argument:tt)*) => {{
        use std::fmt::Write as _;
        let _ = write!($to, $($argument)*);
    }};
}
pub(super) use put;

/// Returns `text` as it may stand in the page: escaped, with characters that would control a
/// terminal or change the direction of the text spelled out, and with the middle of a long text
/// left out.
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

/// Returns a name for a narrow place, shortened in the middle.
pub fn cut(name: &str) -> String {
    /// Upper bound on the characters of such a name.
    const SHORT: usize = 40;
    cut_to(name, SHORT)
}

/// Returns `text` in at most `most` characters, shortened in the middle.
pub fn cut_to(text: &str, most: usize) -> String {
    shown(&cut_in_the_middle(text, most))
}

/// Returns a sentence as it may stand in the page; it may be longer than a name.
pub fn sentence(text: &str) -> String {
    let words: Vec<String> =
        text.split(' ').take(AT_EACH_END.saturating_mul(2)).map(shown).collect();
    words.join(" ")
}

/// Says that of `all` entries, each a `noun`, only some are `listed`; empty if all are.
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

/// Returns a row of a list of facts; both parts must be safe markup.
pub fn fact(what: &str, value: &str) -> String {
    format!("<dt>{what}</dt><dd>{value}</dd>")
}

/// The text in the place of a number that is not known.
pub const UNKNOWN: &str = "–";

/// Formats a number, rounded to a whole one, with separators: `1234567` as `1,234,567`.
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

/// Formats a number that may be unknown, as [`grouped`] does.
pub fn grouped_if_known(number: Option<f64>) -> String {
    number.map_or_else(|| UNKNOWN.to_owned(), grouped)
}

/// Formats a magnitude with three decimals, or with an exponent if these would show too little.
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
