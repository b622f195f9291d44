//! What can be wrong with a JSON text: one short sentence each, as clients see it.

use std::fmt;

use super::decoder::{MAX_MESSAGE, MAX_NESTING, MAX_TOKENS};

/// Why a text is no message. Displays as `JSON parse error, ...`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// A byte that no token begins with.
    #[error("JSON parse error, stray {}", Byte(*.0))]
    StrayByte(u8),
    /// A word other than `true`, `false` and `null`, or a number in a form that JSON does not have.
    #[error("JSON parse error, '{0}' is neither a number nor a keyword")]
    BareWord(String),
    /// A number beyond the range of a double.
    #[error("JSON parse error, number out of range")]
    NumberOutOfRange,
    /// A control character or a byte that UTF-8 never has, inside a string.
    #[error("JSON parse error, {} in a string", Byte(*.0))]
    ByteInString(u8),
    /// A backslash with something after it that JSON does not know.
    #[error("JSON parse error, invalid escape sequence in a string")]
    InvalidEscape,
    /// Half of a surrogate pair.
    #[error("JSON parse error, lone surrogate in a string")]
    LoneSurrogate,
    /// A string that is not UTF-8.
    #[error("JSON parse error, invalid UTF-8 in a string")]
    InvalidUtf8,
    /// A member that was there before.
    #[error("JSON parse error, duplicate key '{0}'")]
    DuplicateKey(String),
    /// Something else where a value had to be.
    #[error("JSON parse error, expecting a value")]
    ExpectingValue,
    /// Something else where a member's name had to be.
    #[error("JSON parse error, expecting a string as object key")]
    ExpectingKey,
    /// A key without its colon.
    #[error("JSON parse error, expecting ':' after an object key")]
    ExpectingColon,
    /// Two members or elements without a comma between.
    #[error("JSON parse error, expecting ',' or a closing bracket")]
    ExpectingSeparator,
    /// A closing bracket that no opening one belongs to.
    #[error("JSON parse error, unmatched closing bracket")]
    UnmatchedBracket,
    /// Brackets in brackets, too many.
    #[error("JSON parse error, nesting deeper than {MAX_NESTING}")]
    TooDeep,
    /// Too many tokens in one message.
    #[error("JSON parse error, more than {MAX_TOKENS} tokens in a message")]
    TooManyTokens,
    /// Too many bytes in one message.
    #[error("JSON parse error, message longer than {MAX_MESSAGE} bytes")]
    TooLong,
}

/// Longest piece of the client's text that an error quotes, in characters.
const QUOTED: usize = 60;

impl SyntaxError {
    pub(super) fn bare_word(word: &[u8]) -> Self {
        let shown = word.get(..QUOTED).unwrap_or(word);
        Self::BareWord(String::from_utf8_lossy(shown).into_owned())
    }

    pub(super) fn duplicate_key(key: &str) -> Self {
        Self::DuplicateKey(key.chars().take(QUOTED).collect())
    }
}

/// A byte as people read it: itself when it prints, its number otherwise.
struct Byte(u8);

impl fmt::Display for Byte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            printable @ 0x20..=0x7e => write!(f, "'{}'", char::from(printable)),
            other => write!(f, "byte 0x{other:02x}"),
        }
    }
}
