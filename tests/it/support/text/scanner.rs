//! Reads the words, numbers and strings of a text.

pub struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

/// A number or a string.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    Int(i64),
    Float(f64),
    Text(String),
}

type Found<T> = Result<T, String>;

impl<'t> Scanner<'t> {
    pub fn new(text: &'t str) -> Self {
        Scanner { text, at: 0 }
    }

    /// Returns the number of the line that is being read, from 1.
    pub fn line(&self) -> usize {
        1 + self.text[..self.at].matches('\n').count()
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Skips blanks, and remarks from `#` to the end of the line.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start().len();
            let remark = if rest[blanks..].starts_with('#') {
                rest[blanks..].find('\n').unwrap_or(rest.len() - blanks)
            } else {
                0
            };
            self.at += blanks + remark;
            if remark == 0 {
                return;
            }
        }
    }

    pub fn ends(&mut self) -> bool {
        self.skip();
        self.rest().is_empty()
    }

    /// Returns whether `mark` comes next, without taking it.
    pub fn sees(&mut self, mark: &str) -> bool {
        self.skip();
        self.rest().starts_with(mark)
    }

    /// Takes `mark` if it comes next; returns whether it did.
    pub fn takes(&mut self, mark: &str) -> bool {
        let is_there = self.sees(mark);
        self.at += if is_there { mark.len() } else { 0 };
        is_there
    }

    pub fn expect(&mut self, mark: &str) -> Found<()> {
        if self.takes(mark) {
            Ok(())
        } else {
            Err(format!("`{mark}` expected before `{}`", self.next_few()))
        }
    }

    fn next_few(&self) -> String {
        self.rest().chars().take(20).collect()
    }

    /// Takes a word of letters, digits, `_` and `further` characters; empty if there is none.
    fn word(&mut self, further: &str) -> &'t str {
        self.skip();
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || further.contains(c);
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// Takes a name, quoted or not, which is empty if there is none.
    pub fn name(&mut self) -> Found<String> {
        if self.sees("\"") { self.quoted() } else { Ok(self.word("").to_owned()) }
    }

    /// Takes an operator; its domain stands before the last dot.
    pub fn operator(&mut self) -> Found<(String, String)> {
        let word = self.word(".");
        let (domain, operator) = word.rsplit_once('.').unwrap_or(("", word));
        match operator {
            "" => Err(format!("an operator expected before `{}`", self.next_few())),
            operator => Ok((domain.to_owned(), operator.to_owned())),
        }
    }

    /// Returns the word that comes next, without taking it.
    pub fn peeked(&mut self) -> &'t str {
        let before = self.at;
        let word = self.word("");
        self.at = before;
        word
    }

    fn quoted(&mut self) -> Found<String> {
        self.expect("\"")?;
        let mut text = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\\' => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, escaped)) => text.push(escaped),
                    None => break,
                },
                other => text.push(other),
            }
        }
        Err("a string without an end".into())
    }

    pub fn literal(&mut self) -> Found<Word> {
        if self.sees("\"") {
            return Ok(Word::Text(self.quoted()?));
        }
        let sign = if self.takes("-") { "-" } else { "" };
        // The sign of an exponent is part of the number.
        let mut digits = self.word(".").to_owned();
        if digits.ends_with(['e', 'E']) && digits.starts_with(|c: char| c.is_ascii_digit()) {
            digits.push_str(if self.takes("-") {
                "-"
            } else if self.takes("+") {
                "+"
            } else {
                ""
            });
            digits.push_str(self.word(""));
        }
        let number = format!("{sign}{digits}");
        let float = || number.parse().map(Word::Float);
        number
            .parse()
            .map(Word::Int)
            .or_else(|_| float())
            .map_err(|_| format!("`{number}` is no number"))
    }

    pub fn integer(&mut self) -> Found<i64> {
        match self.literal()? {
            Word::Int(value) => Ok(value),
            other => Err(format!("{other:?} is no integer")),
        }
    }

    pub fn string(&mut self) -> Found<String> {
        match self.literal()? {
            Word::Text(value) => Ok(value),
            other => Err(format!("{other:?} is no string")),
        }
    }

    /// Reads items with `read` between `open` and `close`, separated by commas.
    pub fn list<T>(
        &mut self,
        open: &str,
        close: &str,
        mut read: impl FnMut(&mut Self) -> Found<T>,
    ) -> Found<Vec<T>> {
        self.expect(open)?;
        let mut found = Vec::new();
        if self.takes(close) {
            return Ok(found);
        }
        loop {
            found.push(read(self)?);
            if !self.takes(",") {
                self.expect(close)?;
                return Ok(found);
            }
        }
    }
}
