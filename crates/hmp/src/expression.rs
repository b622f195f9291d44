//! Integer expressions as people type them where a number is wanted: `$rip + 2 * (0x10 - 'a')`.
//!
//! Values are 64 bits wide and wrap. From weakest to strongest: `+ -`, then `& | ^`, then `* / %`, then a sign or `~`
//! before a value: in this the monitor differs from C. Numbers are written as in C: 0x for hexadecimal, 0 for octal.

use crate::LineError;

/// How deep brackets and signs may stand inside of each other.
const DEEPEST: u32 = 64;

/// The value of the expression that `text` begins with, and what follows it. `register` knows the registers, whose names
/// come without their `$`.
///
/// # Errors
/// There is no expression, or it has no value.
pub fn evaluate<'a>(text: &'a str, register: &mut dyn FnMut(&str) -> Option<u64>) -> Result<(u64, &'a str), LineError> {
    let mut reader = Reader { rest: text.trim_start(), register, depth: 0 };
    let value = reader.sum()?;
    Ok((value, reader.rest))
}

struct Reader<'a, 'r> {
    rest: &'a str,
    register: &'r mut dyn FnMut(&str) -> Option<u64>,
    depth: u32,
}

impl<'a> Reader<'a, '_> {
    /// Takes the next character if it is one of `wanted`.
    fn take(&mut self, wanted: &[char]) -> Option<char> {
        let first = self.rest.chars().next().filter(|first| wanted.contains(first))?;
        self.skip(first.len_utf8());
        Some(first)
    }

    /// Moves on past `bytes` and the space behind them.
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default().trim_start();
    }

    fn sum(&mut self) -> Result<u64, LineError> {
        let mut value = self.bits()?;
        while let Some(operator) = self.take(&['+', '-']) {
            let right = self.bits()?;
            value = if operator == '+' { value.wrapping_add(right) } else { value.wrapping_sub(right) };
        }
        Ok(value)
    }

    fn bits(&mut self) -> Result<u64, LineError> {
        let mut value = self.product()?;
        while let Some(operator) = self.take(&['&', '|', '^']) {
            let right = self.product()?;
            value = match operator {
                '&' => value & right,
                '|' => value | right,
                _ => value ^ right,
            };
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<u64, LineError> {
        let mut value = self.unary()?;
        while !self.is_path()
            && let Some(operator) = self.take(&['*', '/', '%'])
        {
            let right = self.unary()?;
            // Division knows signs, which the other operators need not.
            let (left, divisor) = (value as i64, right as i64);
            value = match operator {
                '*' => value.wrapping_mul(right),
                _ if divisor == 0 => return Err(LineError::Division),
                '/' => left.wrapping_div(divisor) as u64,
                _ => left.wrapping_rem(divisor) as u64,
            };
        }
        Ok(value)
    }

    /// Whether a file's name follows: no value begins with a letter, so that `/` is no division there.
    fn is_path(&self) -> bool {
        let name = self.rest.strip_prefix('/').and_then(|name| name.chars().next());
        name.is_some_and(|first| first.is_alphabetic() || matches!(first, '_' | '.'))
    }

    fn unary(&mut self) -> Result<u64, LineError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(LineError::Depth);
        }
        let value = match self.take(&['+', '-', '~', '(']) {
            Some('+') => self.unary()?,
            Some('-') => self.unary()?.wrapping_neg(),
            Some('~') => !self.unary()?,
            Some(_) => {
                let value = self.sum()?;
                self.take(&[')']).ok_or(LineError::Bracket)?;
                value
            }
            None => self.value()?,
        };
        self.depth -= 1;
        Ok(value)
    }

    fn value(&mut self) -> Result<u64, LineError> {
        let text = self.rest;
        match text.chars().next() {
            None => Err(LineError::End),
            Some('\'') => {
                let mut characters = text.chars().skip(1);
                let character = characters.next().ok_or(LineError::Quote)?;
                if characters.next() != Some('\'') {
                    return Err(LineError::Quote);
                }
                self.skip(2 + character.len_utf8());
                Ok(u64::from(u32::from(character)))
            }
            Some('$') => {
                let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
                let end = text[1..].find(|c| !is_name(c)).map_or(text.len(), |end| end + 1);
                let value = (self.register)(&text[1..end]).ok_or(LineError::Register)?;
                self.skip(end);
                Ok(value)
            }
            Some('0'..='9') => {
                let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
                let value = number(&text[..end])?;
                self.skip(end);
                Ok(value)
            }
            Some(other) => Err(LineError::Character(other)),
        }
    }
}

fn number(word: &str) -> Result<u64, LineError> {
    let (digits, radix) = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if word.len() > 1 && word.starts_with('0') => (&word[1..], 8),
        None => (word, 10),
    };
    if let Some(wrong) = digits.chars().find(|digit| !digit.is_digit(radix)) {
        return Err(LineError::Character(wrong));
    }
    if digits.is_empty() {
        return Err(LineError::End);
    }
    u64::from_str_radix(digits, radix).map_err(|_| LineError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Result<u64, LineError> {
        let (value, rest) = evaluate(text, &mut |name| (name == "rip").then_some(0x1000))?;
        assert_eq!(rest, "", "{text}");
        Ok(value)
    }

    #[test]
    fn operators_bind_as_in_the_monitor() {
        for (text, expected) in [
            ("1+2*3", 7),
            (" ( 1 + 2 ) * 3 ", 9),
            ("1 + 6 & 3", 3),
            ("$rip+0x10", 0x1010),
            ("010", 8),
            ("'A'", 65),
            ("-1", u64::MAX),
            ("~0", u64::MAX),
            ("-8/2", -4_i64 as u64),
            ("7%4", 3),
            ("0xffffffffffffffff", u64::MAX),
            ("0x8000000000000000/-1", 1 << 63),
        ] {
            assert_eq!(value(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_has_no_value_says_why() {
        for (text, error) in [
            ("", LineError::End),
            ("1+", LineError::End),
            ("0x", LineError::End),
            ("1/0", LineError::Division),
            ("1%(2-2)", LineError::Division),
            ("(1", LineError::Bracket),
            ("$rop", LineError::Register),
            ("'ab'", LineError::Quote),
            ("'", LineError::Quote),
            ("09", LineError::Character('9')),
            ("é", LineError::Character('é')),
            ("18446744073709551616", LineError::TooLarge),
        ] {
            assert_eq!(value(text), Err(error), "{text}");
        }
        let deep = "(".repeat(100_000);
        assert_eq!(value(&deep), Err(LineError::Depth));
        assert_eq!(value(&"-".repeat(100_000)), Err(LineError::Depth));
    }

    #[test]
    fn an_expression_ends_where_no_operator_follows() {
        assert_eq!(evaluate("1 + 2 0x20", &mut |_| None), Ok((3, "0x20")));
        assert_eq!(evaluate("6 /2 /tmp/x", &mut |_| None), Ok((3, "/tmp/x")));
    }

    proptest! {
        #[test]
        fn any_text_has_a_value_or_a_reason(text in "[-+*/%&|^~()$' 0-9a-fx]{0,40}") {
            if let Ok((_, rest)) = evaluate(&text, &mut |_| Some(7)) {
                prop_assert!(text.ends_with(rest));
            }
        }

        #[test]
        fn sums_are_as_in_arithmetic(left in any::<i64>(), right in any::<u64>()) {
            prop_assert_eq!(value(&format!("{left} + {right:#x}")), Ok((left as u64).wrapping_add(right)));
        }
    }
}
