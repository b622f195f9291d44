//! The arguments of a command, taken from its line one by one.

use crate::{Format, LineError, evaluate};

/// What is left of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    rest: &'a str,
}

impl<'a> Line<'a> {
    /// All of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { rest: text.trim() }
    }

    /// All that is left, as it was typed.
    pub fn rest(&mut self) -> &'a str {
        std::mem::take(&mut self.rest)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next word, if there is one. In double quotes it may hold spaces, and a backslash stands before `"`, `'` and
    /// itself, and before the `n` and `r` of line ends.
    ///
    /// # Errors
    /// Quotes that do not end.
    pub fn word(&mut self) -> Result<Option<String>, LineError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let Some(inside) = self.rest.strip_prefix('"') else {
            let (word, rest) = self.rest.split_once(char::is_whitespace).unwrap_or((self.rest, ""));
            self.rest = rest.trim_start();
            return Ok(Some(word.to_owned()));
        };
        let mut word = String::new();
        let mut characters = inside.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = inside.get(at + 1..).unwrap_or_default().trim_start();
                    return Ok(Some(word));
                }
                '\\' => word.push(match characters.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, 'r')) => '\r',
                    Some((_, same @ ('"' | '\'' | '\\'))) => same,
                    Some((_, other)) => return Err(LineError::Escape(other)),
                    None => return Err(LineError::Unterminated),
                }),
                other => word.push(other),
            }
        }
        Err(LineError::Unterminated)
    }

    /// The next word, which must be there: a `what`.
    ///
    /// # Errors
    /// It is not there, or has quotes that do not end.
    pub fn need(&mut self, what: &'static str) -> Result<String, LineError> {
        self.word()?.ok_or(LineError::Missing(what))
    }

    /// The options before the arguments: letters behind a `-`, of which only those of `known` may come.
    ///
    /// # Errors
    /// Another one comes.
    pub fn options(&mut self, known: &str) -> Result<Options, LineError> {
        let mut found = String::new();
        while self.rest.starts_with('-') {
            let (word, rest) = self.rest.split_once(char::is_whitespace).unwrap_or((self.rest, ""));
            // A dash alone is an argument.
            if word.len() == 1 {
                break;
            }
            if let Some(unknown) = word.chars().skip(1).find(|letter| !known.contains(*letter)) {
                return Err(LineError::Option(unknown));
            }
            found.push_str(&word[1..]);
            self.rest = rest.trim_start();
        }
        Ok(Options(found))
    }

    /// The value of the next expression.
    ///
    /// # Errors
    /// There is none, or it has none.
    pub fn number(&mut self, register: &mut dyn FnMut(&str) -> Option<u64>) -> Result<u64, LineError> {
        let (value, rest) = evaluate(self.rest, register)?;
        self.rest = rest;
        Ok(value)
    }

    /// The format, if the line begins with one: `/` and what is behind it.
    ///
    /// # Errors
    /// It is none.
    pub fn format(&mut self) -> Result<Format, LineError> {
        let Some(behind) = self.rest.strip_prefix('/') else { return Ok(Format::default()) };
        let (format, rest) = behind.split_once(char::is_whitespace).unwrap_or((behind, ""));
        self.rest = rest.trim_start();
        Format::parse(format)
    }

    /// Nothing more may come.
    ///
    /// # Errors
    /// Something comes.
    pub fn end(self) -> Result<(), LineError> {
        if self.rest.is_empty() { Ok(()) } else { Err(LineError::TooMuch) }
    }
}

/// The options of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(String);

impl Options {
    /// Whether the letter was among them.
    pub fn has(&self, letter: char) -> bool {
        self.0.contains(letter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_may_stand_in_quotes() {
        let mut line = Line::new(r#"  a "b \"c\" \\ d"e  "#);
        assert_eq!(line.word(), Ok(Some("a".to_owned())));
        assert_eq!(line.word(), Ok(Some("b \"c\" \\ d".to_owned())));
        assert_eq!(line.need("string"), Ok("e".to_owned()));
        assert_eq!(line.need("string"), Err(LineError::Missing("string")));
        assert_eq!(Line::new("\"a").word(), Err(LineError::Unterminated));
        assert_eq!(Line::new("\"\\t\"").word(), Err(LineError::Escape('t')));
    }

    #[test]
    fn options_come_first_and_are_known() {
        let mut line = Line::new("-d -zR file -x");
        let options = line.options("dzR").unwrap();
        assert!(options.has('d') && options.has('R') && !options.has('l'));
        assert_eq!(line.rest(), "file -x");
        assert_eq!(Line::new("-é x").options("d"), Err(LineError::Option('é')));
        assert_eq!(Line::new("- x").options("d"), Ok(Options::default()));
    }

    #[test]
    fn formats_and_numbers_are_taken_in_turn() {
        let mut line = Line::new("/2xb 0x10 + 1 7 f");
        assert_eq!(line.format().unwrap().count, 2);
        assert_eq!((line.number(&mut |_| None), line.number(&mut |_| None)), (Ok(17), Ok(7)));
        assert_eq!(line.end(), Err(LineError::TooMuch));
    }

    proptest! {
        #[test]
        fn any_line_is_read_to_its_end_or_refused(text in any::<String>()) {
            let mut line = Line::new(&text);
            let mut words = 0;
            while let Ok(Some(_)) = line.word() {
                words += 1;
                prop_assert!(words <= text.len() + 1);
            }
        }
    }
}
