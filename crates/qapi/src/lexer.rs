//! Cuts schema text into tokens: brackets, strings, `true` and `false`, and documentation blocks.

use std::sync::Arc;

use crate::fault::Fault;
use crate::source::{Position, Source};

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    Colon,
    Comma,
    Text(String),
    Flag(bool),
    /// A block from `##` to `##`.
    Doc(Vec<DocLine>),
    End,
}

impl TokenKind {
    /// How a fault names it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::OpenBrace => "'{'".into(),
            Self::CloseBrace => "'}'".into(),
            Self::OpenBracket => "'['".into(),
            Self::CloseBracket => "']'".into(),
            Self::Colon => "':'".into(),
            Self::Comma => "','".into(),
            Self::Text(_) => "a string".into(),
            Self::Flag(flag) => format!("'{flag}'"),
            Self::Doc(_) => "a documentation comment".into(),
            Self::End => "the end of the file".into(),
        }
    }
}

/// A line inside a documentation block, without its `#` and one space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DocLine {
    /// Where `text` starts in the file.
    pub(crate) offset: usize,
    pub(crate) text: String,
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) position: Position,
}

pub(crate) struct Lexer {
    source: Arc<Source>,
    cursor: usize,
}

impl Lexer {
    pub(crate) fn new(source: Arc<Source>) -> Self {
        Self { source, cursor: 0 }
    }

    /// The next token; after the last one, [`TokenKind::End`] for ever.
    pub(crate) fn next(&mut self) -> Result<Token, Fault> {
        let source = Arc::clone(&self.source);
        loop {
            let rest = source.text.get(self.cursor..).unwrap_or_default();
            let Some(first) = rest.chars().next() else {
                return Ok(self.token(TokenKind::End, self.cursor, 1));
            };
            let start = self.cursor;
            let single = match first {
                ' ' | '\t' | '\r' | '\n' => {
                    self.cursor += 1;
                    continue;
                }
                '#' if rest.starts_with("##") => return self.doc(),
                '#' => {
                    self.cursor += rest.find('\n').unwrap_or(rest.len());
                    continue;
                }
                '{' => TokenKind::OpenBrace,
                '}' => TokenKind::CloseBrace,
                '[' => TokenKind::OpenBracket,
                ']' => TokenKind::CloseBracket,
                ':' => TokenKind::Colon,
                ',' => TokenKind::Comma,
                '\'' => return self.text(),
                _ => return self.word(rest, start),
            };
            self.cursor += 1;
            return Ok(self.token(single, start, 1));
        }
    }

    fn token(&self, kind: TokenKind, offset: usize, length: usize) -> Token {
        Token { kind, position: self.position(offset, length) }
    }

    fn position(&self, offset: usize, length: usize) -> Position {
        Position::new(&self.source, offset, length)
    }

    /// `true`, `false`, or something that does not belong here.
    fn word(&mut self, rest: &str, start: usize) -> Result<Token, Fault> {
        let length = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | '[' | ']' | ':' | ',' | '\'' | '#'))
            .unwrap_or(rest.len())
            .max(1);
        let word = rest.get(..length).unwrap_or(rest);
        match word {
            "true" | "false" => {
                let flag = word == "true";
                self.cursor = start + length;
                Ok(self.token(TokenKind::Flag(flag), start, length))
            }
            _ => {
                let fault = Fault::at(&self.position(start, length), format!("stray '{}'", word.escape_debug()));
                Err(match word {
                    _ if word.starts_with('"') => fault.hint("strings stand in single quotes"),
                    "True" | "False" => fault.hint("the words are 'true' and 'false', in lower case"),
                    "null" => fault.hint("there is no null in a schema: leave the member out"),
                    _ if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                        fault.hint("there are no numbers in a schema: put it in single quotes")
                    }
                    _ => fault.hint("a schema holds objects, lists, strings in single quotes, true and false"),
                })
            }
        }
    }

    fn text(&mut self) -> Result<Token, Fault> {
        let start = self.cursor;
        let mut value = String::new();
        let source = Arc::clone(&self.source);
        let mut characters = source.text.get(start + 1..).unwrap_or_default().char_indices();
        while let Some((at, c)) = characters.next() {
            let offset = start + 1 + at;
            match c {
                '\'' => {
                    self.cursor = offset + 1;
                    return Ok(self.token(TokenKind::Text(value), start, offset + 1 - start));
                }
                '\n' => break,
                '\\' => match characters.next().map(|(_, escaped)| escaped) {
                    Some(escaped @ ('\\' | '/' | '\'' | '"')) => value.push(escaped),
                    Some('b') => value.push('\u{8}'),
                    Some('f') => value.push('\u{c}'),
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    Some('t') => value.push('\t'),
                    Some('u') => {
                        let digits: String = characters.by_ref().take(4).map(|(_, digit)| digit).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().filter(|code| (1..0x80).contains(code));
                        match code.and_then(char::from_u32) {
                            Some(decoded) if digits.len() == 4 => value.push(decoded),
                            _ => {
                                return Err(Fault::at(&self.position(offset, 6), "a bad \\u escape")
                                    .hint("four hexadecimal digits, for an ASCII character other than NUL"));
                            }
                        }
                    }
                    _ => return Err(Fault::at(&self.position(offset, 2), "an unknown escape in a string")),
                },
                _ if c.is_ascii_graphic() || c == ' ' => value.push(c),
                _ => {
                    return Err(Fault::at(
                        &self.position(offset, c.len_utf8()),
                        format!("the character '{}' in a string", c.escape_debug()),
                    )
                    .hint("strings hold printable ASCII only"));
                }
            }
        }
        let length = source.text[start..].find('\n').unwrap_or(source.text.len() - start);
        Err(Fault::at(&self.position(start, length), "a string without its closing quote"))
    }

    /// A documentation block, from `##` on a line of its own to the next one.
    fn doc(&mut self) -> Result<Token, Fault> {
        let start = self.cursor;
        let source = Arc::clone(&self.source);
        let rest = source.text.get(start..).unwrap_or_default();
        let first = rest.split('\n').next().unwrap_or_default();
        if first.trim_end() != "##" {
            return Err(Fault::at(&self.position(start, first.len()), "text after '##'")
                .hint("'##' stands alone on its line and opens or closes a documentation comment"));
        }
        let mut lines = Vec::new();
        let mut offset = start + first.len() + 1;
        for line in rest.get(first.len() + 1..).unwrap_or_default().split('\n') {
            let length = line.len() + 1;
            let indent = line.len() - line.trim_start().len();
            let bare = line.trim_end().get(indent..).unwrap_or_default();
            if bare == "##" {
                self.cursor = (offset + line.len()).min(source.text.len());
                return Ok(self.token(TokenKind::Doc(lines), start, 2));
            }
            if bare.starts_with("##") {
                return Err(Fault::at(&self.position(offset + indent, bare.len()), "text after '##'")
                    .hint("'##' stands alone on its line and opens or closes a documentation comment"));
            }
            let Some(text) = bare.strip_prefix('#') else {
                return Err(Fault::at(&self.position(offset, line.len()), "a documentation comment without its end")
                    .hint("each line starts with '#', and '##' alone on a line closes the comment"));
            };
            let text = match text.strip_prefix(' ') {
                Some(spaced) => spaced,
                None if text.is_empty() => text,
                None => {
                    return Err(Fault::at(&self.position(offset + indent, 2), "no space after '#'"));
                }
            };
            let at = if text.is_empty() { offset + indent } else { offset + indent + 2 };
            lines.push(DocLine { offset: at, text: text.to_owned() });
            offset += length;
        }
        Err(Fault::at(&self.position(start, 2), "a documentation comment without its end")
            .hint("'##' alone on a line closes it"))
    }
}
