//! How memory is shown: the `/8xg` of `x`, `xp`, `print`, `i` and `o`.

use crate::LineError;

/// In what notation values are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letter {
    /// Hexadecimal.
    Hexadecimal,
    /// Decimal, with a sign.
    Signed,
    /// Decimal, without one.
    Unsigned,
    /// Octal.
    Octal,
    /// As characters.
    Character,
    /// As instructions.
    Instruction,
}

/// A format: a count, a letter of `x d u o c i` and a size of `b h w g`, each of which may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// How many.
    pub count: u64,
    /// In what notation.
    pub letter: Letter,
    /// Bytes of one, if said.
    pub size: Option<u8>,
}

impl Default for Format {
    fn default() -> Self {
        Self { count: 1, letter: Letter::Hexadecimal, size: None }
    }
}

impl Format {
    /// Reads what stands behind the `/`.
    ///
    /// # Errors
    /// A letter that formats have not, or a count beyond 64 bits.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (count, letters) = text.split_at(digits);
        let mut format = Self::default();
        if !count.is_empty() {
            format.count = count.parse().map_err(|_| LineError::TooLarge)?;
        }
        for letter in letters.chars() {
            match letter {
                'x' => format.letter = Letter::Hexadecimal,
                'd' => format.letter = Letter::Signed,
                'u' => format.letter = Letter::Unsigned,
                'o' => format.letter = Letter::Octal,
                'c' => format.letter = Letter::Character,
                'i' => format.letter = Letter::Instruction,
                'b' => format.size = Some(1),
                'h' => format.size = Some(2),
                'w' => format.size = Some(4),
                'g' => format.size = Some(8),
                other => return Err(LineError::Format(other)),
            }
        }
        Ok(format)
    }

    /// `value` of `size` bytes in the format's notation, filled up to the width of the widest.
    pub fn show(self, value: u64, size: u8) -> String {
        let bits = 8 * u32::from(size.clamp(1, 8));
        let value = value & u64::MAX >> (64 - bits);
        let decimal = match size {
            0..=1 => 3,
            2 => 5,
            3..=4 => 10,
            _ => 20,
        };
        match self.letter {
            Letter::Hexadecimal | Letter::Instruction => format!("0x{value:0width$x}", width = bits as usize / 4),
            Letter::Signed => format!("{:decimal$}", (value << (64 - bits)) as i64 >> (64 - bits)),
            Letter::Unsigned => format!("{value:decimal$}"),
            Letter::Octal => {
                let digits = if value == 0 { "0".to_owned() } else { format!("0{value:o}") };
                format!("{digits:>width$}", width = (bits as usize).div_ceil(3))
            }
            Letter::Character => character(value as u8),
        }
    }
}

/// A character in quotes, as C writes it.
fn character(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        0x20..0x7f => format!("'{}'", char::from(byte)),
        _ => format!("'\\x{byte:02x}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_count_letter_and_size_in_any_measure() {
        let format = |count, letter, size| Ok(Format { count, letter, size });
        assert_eq!(Format::parse("4xb"), format(4, Letter::Hexadecimal, Some(1)));
        assert_eq!(Format::parse(""), Ok(Format::default()));
        assert_eq!(Format::parse("2gd"), format(2, Letter::Signed, Some(8)));
        assert_eq!(Format::parse("8c"), format(8, Letter::Character, None));
        assert_eq!(Format::parse("z"), Err(LineError::Format('z')));
        assert_eq!(Format::parse("4xé"), Err(LineError::Format('é')));
        assert_eq!(Format::parse("99999999999999999999x"), Err(LineError::TooLarge));
    }

    #[test]
    fn values_are_shown_in_columns() {
        for (format, value, size, shown) in [
            ("x", 0x1234, 4, "0x00001234"),
            ("x", u64::MAX, 1, "0xff"),
            ("d", 0xfffe, 2, "   -2"),
            ("u", 48, 1, " 48"),
            ("o", 8, 2, "   010"),
            ("c", 0x41, 1, "'A'"),
            ("c", 10, 1, "'\\n'"),
            ("c", 0, 1, "'\\x00'"),
        ] {
            assert_eq!(Format::parse(format).unwrap().show(value, size), shown);
        }
    }
}
