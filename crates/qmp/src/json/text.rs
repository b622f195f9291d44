//! Bytes between two quotes, or of a bare word, to the value that they stand for.
//!
//! Source: RFC 8259 §6 and §7; QMP adds `\'`.

use serde_json::{Number, Value};

use super::fault::SyntaxError;

/// The string that `raw` (the bytes between the quotes, escapes and all) stands for.
pub(super) fn unescape(raw: &[u8]) -> Result<String, SyntaxError> {
    let mut rest = std::str::from_utf8(raw).map_err(|_| SyntaxError::InvalidUtf8)?;
    let mut text = String::with_capacity(rest.len());
    while let Some((plain, escaped)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut characters = escaped.chars();
        let kind = characters.next().ok_or(SyntaxError::InvalidEscape)?;
        rest = characters.as_str();
        text.push(match kind {
            '"' | '\'' | '\\' | '/' => kind,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (character, after) = code_point(rest)?;
                rest = after;
                character
            }
            _ => return Err(SyntaxError::InvalidEscape),
        });
    }
    text.push_str(rest);
    Ok(text)
}

/// The character whose `\u` was just read, and what follows it; a pair of surrogates is one character.
fn code_point(text: &str) -> Result<(char, &str), SyntaxError> {
    let (first, rest) = code_unit(text)?;
    if !(0xd800..0xe000).contains(&first) {
        return char::from_u32(first).map(|character| (character, rest)).ok_or(SyntaxError::InvalidEscape);
    }
    let low = rest.strip_prefix("\\u").ok_or(SyntaxError::LoneSurrogate)?;
    let (second, rest) = code_unit(low)?;
    if first >= 0xdc00 || !(0xdc00..0xe000).contains(&second) {
        return Err(SyntaxError::LoneSurrogate);
    }
    let combined = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    char::from_u32(combined).map(|character| (character, rest)).ok_or(SyntaxError::LoneSurrogate)
}

/// Four hexadecimal digits and what follows them.
fn code_unit(text: &str) -> Result<(u32, &str), SyntaxError> {
    let (digits, rest) = text.split_at_checked(4).ok_or(SyntaxError::InvalidEscape)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(SyntaxError::InvalidEscape);
    }
    u32::from_str_radix(digits, 16).map(|unit| (unit, rest)).map_err(|_| SyntaxError::InvalidEscape)
}

/// What a run of letters, digits and signs stands for.
pub(super) enum Bare {
    /// A keyword or a number.
    Value(Value),
    /// A number that JSON has, beyond what a double holds.
    OutOfRange,
    /// Nothing that JSON has.
    Unknown,
}

/// Reads a keyword or number.
pub(super) fn bare(word: &[u8]) -> Bare {
    match word {
        b"true" => Bare::Value(Value::Bool(true)),
        b"false" => Bare::Value(Value::Bool(false)),
        b"null" => Bare::Value(Value::Null),
        _ => number(word),
    }
}

fn number(word: &[u8]) -> Bare {
    let Some(integral) = number_form(word) else { return Bare::Unknown };
    let Ok(text) = std::str::from_utf8(word) else { return Bare::Unknown };
    if integral {
        if let Ok(integer) = text.parse::<i64>() {
            return Bare::Value(Value::from(integer));
        }
        if let Ok(integer) = text.parse::<u64>() {
            return Bare::Value(Value::from(integer));
        }
    }
    match text.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(double) => Bare::Value(Value::Number(double)),
        None => Bare::OutOfRange,
    }
}

/// Whether `word` has the form of a JSON number (`None` if not), and if so whether it is written as an integer.
fn number_form(word: &[u8]) -> Option<bool> {
    let unsigned = word.strip_prefix(b"-").unwrap_or(word);
    let (whole, rest) = digits(unsigned);
    if whole.is_empty() || (whole.len() > 1 && whole.starts_with(b"0")) {
        return None;
    }
    let mut rest = rest;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let (fraction, after) = digits(fraction);
        if fraction.is_empty() {
            return None;
        }
        rest = after;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = if let [b'+' | b'-', unsigned @ ..] = exponent { unsigned } else { exponent };
        let (exponent, after) = digits(exponent);
        if exponent.is_empty() {
            return None;
        }
        rest = after;
    }
    rest.is_empty().then_some(unsigned.len() == whole.len())
}

/// The decimal digits that `bytes` begins with, and the rest.
fn digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    bytes.split_at(end)
}
