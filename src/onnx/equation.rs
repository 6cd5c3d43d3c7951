//! The equation of an Einsum: a letter per axis.
//!
//! Knows letters; neither sizes nor what is computed.

/// Upper bound on the length of an equation without spaces; networks have no tensors with more
/// axes, and no operators with more operands.
const MOST_LETTERS: usize = 64;

/// An equation that consists of letters alone, without an ellipsis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equation {
    /// For each operand, the letters of its axes.
    pub operands: Vec<Vec<char>>,
    /// The letters of the axes of the result.
    pub result: Vec<char>,
}

impl Equation {
    /// Parses the value of the attribute. Returns `None` if an axis is not a letter, or if the
    /// equation is longer than any for tensors of networks.
    pub fn of(equation: &[u8]) -> Option<Self> {
        let equation = std::str::from_utf8(equation).ok()?;
        let equation: String = equation.chars().filter(|letter| !letter.is_whitespace()).collect();
        if equation.len() > MOST_LETTERS {
            return None;
        }
        let (operands, result) = match equation.split_once("->") {
            Some((operands, result)) => (operands, Some(result)),
            None => (equation.as_str(), None),
        };
        let operands: Vec<Vec<char>> =
            operands.split(',').map(|axes| axes.chars().collect()).collect();
        let result: Vec<char> = match result {
            Some(result) => result.chars().collect(),
            // The implicit result: letters that occur once, in alphabetical order.
            None => {
                let all = || operands.iter().flatten().copied();
                let once = |letter: &char| all().filter(|other| other == letter).count() == 1;
                let mut letters: Vec<char> = all().filter(once).collect();
                letters.sort_unstable();
                letters
            }
        };
        let mut letters = operands.iter().flatten().chain(&result);
        let is_whole = letters.all(char::is_ascii_alphabetic);
        is_whole.then_some(Equation { operands, result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read() {
        let made = |equation: &str| {
            let equation = Equation::of(equation.as_bytes())?;
            let words = equation.operands.iter().map(|axes| axes.iter().collect::<String>());
            Some((words.collect::<Vec<_>>().join(" "), String::from_iter(equation.result)))
        };
        for (equation, operands, result) in [
            ("oi, hw -> oihw", "oi hw", "oihw"),
            // Letters that occur once are the result, in alphabetical order.
            ("jb,ja", "jb ja", "ab"),
            ("ii->", "ii", ""),
        ] {
            assert_eq!(made(equation), Some((operands.into(), result.into())), "{equation}");
        }
        let long = "ab,".repeat(40);
        for equation in ["...i,i->...", "i1->i", "a->b->c", &long] {
            assert_eq!(made(equation), None, "{equation}");
        }
    }
}
