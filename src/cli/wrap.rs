//! Breaking text into lines that fit a terminal.
//!
//! Knows words and columns; does not know what is said or where it is shown.

/// Returns `text` in lines of at most `width` characters. Each paragraph stays one, and its
/// further lines are indented by `indent` more than its first. A number stays beside what it
/// counts. A word that is longer than a line is not broken: a broken name cannot be copied.
pub fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let paragraphs = text.split('\n').map(|paragraph| {
        let words = paragraph.trim_start_matches(' ');
        let margin = paragraph.len().saturating_sub(words.len());
        let lines = lines(words, width.saturating_sub(margin), indent);
        let gap = format!("\n{}", " ".repeat(margin.saturating_add(indent)));
        format!("{}{}", " ".repeat(margin), lines.join(&gap))
    });
    paragraphs.collect::<Vec<String>>().join("\n")
}

/// Returns the lines of a paragraph; all but the first are shorter by `indent`.
fn lines(paragraph: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words(paragraph) {
        let left = if lines.len() == 1 { width } else { width.saturating_sub(indent) };
        let Some(line) = lines.last_mut() else { continue };
        let length = line.chars().count().saturating_add(word.chars().count());
        if line.is_empty() {
            line.push_str(&word);
        } else if length < left {
            line.push(' ');
            line.push_str(&word);
        } else {
            lines.push(word);
        }
    }
    lines
}

/// Splits a paragraph into units that are not broken: a word, or a number with the word behind
/// it or with what it becomes, as in `34 → 13 nodes`.
fn words(paragraph: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_open = false;
    for word in paragraph.split(' ') {
        match words.last_mut().filter(|_| is_open) {
            Some(number) => {
                number.push(' ');
                number.push_str(word);
            }
            None => words.push(word.to_owned()),
        }
        let bare = word.trim_start_matches(['(', '−', '+']);
        let is_number = !bare.is_empty() && bare.chars().all(|c| c.is_ascii_digit() || c == '.');
        is_open = is_number && !bare.ends_with('.') || is_open && word == "→";
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_full_and_no_longer() {
        for (text, indent, expected) in [
            ("a bc de", 0, "a bc\nde"),
            ("abcdef gh", 0, "abcdef\ngh"),
            ("ab cd", 0, "ab cd"),
            ("a\n\nb", 0, "a\n\nb"),
            ("", 0, ""),
            ("ab cd ef gh", 2, "ab cd\n  ef\n  gh"),
            (" ab cd ef", 1, " ab\n  cd\n  ef"),
            ("a 12 kB", 0, "a\n12 kB"),
            ("a (−7 %)", 0, "a\n(−7 %)"),
            ("a b 1. cd", 0, "a b\n1. cd"),
            ("ab 9 → 8 cd", 0, "ab\n9 → 8 cd"),
            ("a → 8 c", 0, "a →\n8 c"),
        ] {
            assert_eq!(wrapped(text, 5, indent), expected, "{text}");
        }
    }
}
