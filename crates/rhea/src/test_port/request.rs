//! A request to the test port: what a line means.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rhea_core::{Instant, Width};
use rhea_machine::taps::Side;

/// Bytes that one request may read or write.
pub(super) const MAX_DATA: usize = 16 << 20;
/// The longest line: two digits a byte, and the words before.
pub(super) const MAX_LINE: usize = 2 * MAX_DATA + 256;

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `0x` and two hexadecimal digits each.
    Hexadecimal,
    /// Base64.
    Base64,
}

impl Form {
    /// `bytes` in this form.
    pub(super) fn encode(self, bytes: &[u8]) -> String {
        const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        match self {
            Self::Base64 => BASE64.encode(bytes),
            Self::Hexadecimal => {
                let digits = bytes.iter().flat_map(|&byte| [byte >> 4, byte & 0xf]);
                "0x".chars().chain(digits.map(|digit| DIGITS[usize::from(digit)])).collect()
            }
        }
    }

    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Base64 => BASE64.decode(text).ok(),
            Self::Hexadecimal => {
                let digit = |byte: u8| Some(char::from(byte).to_digit(16)? as u8);
                let digits = text.strip_prefix("0x")?.as_bytes();
                // Data may end in the middle of a byte, the digit missing being zero.
                digits
                    .chunks(2)
                    .map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1).unwrap_or(&b'0'))?))
                    .collect()
            }
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Endianness,
    PortRead {
        port: u16,
        width: Width,
    },
    PortWrite {
        port: u16,
        width: Width,
        value: u32,
    },
    Load {
        address: u64,
        width: Width,
    },
    Store {
        address: u64,
        width: Width,
        value: u64,
    },
    Read {
        address: u64,
        length: usize,
        form: Form,
    },
    Write {
        address: u64,
        data: Vec<u8>,
    },
    Fill {
        address: u64,
        length: usize,
        byte: u8,
    },
    /// Without a duration: to the next timer.
    Step {
        nanoseconds: Option<u64>,
    },
    SetClock {
        to: Instant,
    },
    Intercept {
        side: Side,
        path: String,
    },
    SetInput {
        path: String,
        pin: u64,
        level: bool,
    },
}

/// Why a line is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("Unknown command '{0}'")]
    Unknown(String),
    #[error("'{0}' takes {1}")]
    Words(String, &'static str),
    #[error("'{0}' is no number")]
    Number(String),
    #[error("{0:#x} is too large for {1}")]
    Large(u64, &'static str),
    #[error("the data is neither well-formed nor complete")]
    Data,
    #[error("one request may be about {MAX_DATA} bytes at the most")]
    Length,
    #[error("there is no kind of line '{0}' here")]
    Name(String),
}

/// The word of a width at the end of a command.
fn width(letter: &str) -> Option<Width> {
    match letter {
        "b" => Some(Width::Byte),
        "w" => Some(Width::Word),
        "l" => Some(Width::Dword),
        "q" => Some(Width::Qword),
        _ => None,
    }
}

/// A number in C's notation, with as many bits as there are; a minus takes the complement.
fn number(text: &str) -> Result<u64, Fault> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(rest) => (rest, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    // A second sign is none of C's.
    let value = (!digits.starts_with('+')).then(|| u64::from_str_radix(digits, radix).ok()).flatten();
    let value = value.ok_or_else(|| Fault::Number(text.chars().take(40).collect()))?;
    Ok(if text.starts_with('-') { value.wrapping_neg() } else { value })
}

fn length(text: &str) -> Result<usize, Fault> {
    usize::try_from(number(text)?).ok().filter(|&length| length <= MAX_DATA).ok_or(Fault::Length)
}

fn port(text: &str) -> Result<u16, Fault> {
    let value = number(text)?;
    u16::try_from(value).map_err(|_| Fault::Large(value, "a port"))
}

/// Time is counted in signed numbers by those who ask.
fn nanoseconds(text: &str) -> Result<u64, Fault> {
    let value = number(text)?;
    if i64::try_from(value).is_ok() { Ok(value) } else { Err(Fault::Large(value, "a time")) }
}

impl Request {
    /// Reads a line.
    pub(super) fn parse(line: &str) -> Result<Self, Fault> {
        if line.len() > MAX_LINE {
            return Err(Fault::Length);
        }
        let mut words = line.split(' ');
        let command = words.next().unwrap_or_default();
        // The longest request has five words.
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).take(6).collect();
        let unknown = || Fault::Unknown(command.chars().take(40).collect());
        let takes = |what| Err(Fault::Words(command.to_owned(), what));
        match (command, words.as_slice()) {
            ("endianness", []) => Ok(Self::Endianness),
            ("read" | "b64read", &[address, size]) => {
                let form = if command == "read" { Form::Hexadecimal } else { Form::Base64 };
                Ok(Self::Read { address: number(address)?, length: length(size)?, form })
            }
            ("read" | "b64read", _) => takes("ADDRESS SIZE"),
            ("write" | "b64write", &[address, size, data]) => {
                let form = if command == "write" { Form::Hexadecimal } else { Form::Base64 };
                let (address, length) = (number(address)?, length(size)?);
                let mut data = form.decode(data).ok_or(Fault::Data)?;
                data.resize(length, 0);
                Ok(Self::Write { address, data })
            }
            ("write" | "b64write", _) => takes("ADDRESS SIZE DATA"),
            ("memset", &[address, size, byte]) => {
                Ok(Self::Fill { address: number(address)?, length: length(size)?, byte: number(byte)? as u8 })
            }
            ("memset", _) => takes("ADDRESS SIZE BYTE"),
            ("clock_step", []) => Ok(Self::Step { nanoseconds: None }),
            ("clock_step", &[time]) => Ok(Self::Step { nanoseconds: Some(nanoseconds(time)?) }),
            ("clock_set", &[time]) => Ok(Self::SetClock { to: Instant::from_nanos(nanoseconds(time)?) }),
            ("clock_step" | "clock_set", _) => takes("NANOSECONDS"),
            ("irq_intercept_in", &[path]) => Ok(Self::Intercept { side: Side::In, path: path.to_owned() }),
            ("irq_intercept_out", &[path]) => Ok(Self::Intercept { side: Side::Out, path: path.to_owned() }),
            // No part here has lines of several kinds.
            ("irq_intercept_out", &[_, name]) => Err(Fault::Name(name.to_owned())),
            ("irq_intercept_in" | "irq_intercept_out", _) => takes("PATH"),
            ("set_irq_in", &[path, name, pin, level]) => {
                if name != "unnamed-gpio-in" {
                    return Err(Fault::Name(name.to_owned()));
                }
                Ok(Self::SetInput { path: path.to_owned(), pin: number(pin)?, level: number(level)? != 0 })
            }
            ("set_irq_in", _) => takes("PATH NAME NUMBER LEVEL"),
            _ => Self::parse_access(command, &words, unknown),
        }
    }

    /// Commands that end in the letter of a width.
    fn parse_access(command: &str, words: &[&str], unknown: impl Fn() -> Fault) -> Result<Self, Fault> {
        let at = command.len().checked_sub(1).filter(|&at| command.is_char_boundary(at)).ok_or_else(&unknown)?;
        let (kind, letter) = command.split_at(at);
        let width = width(letter).ok_or_else(&unknown)?;
        if matches!(kind, "in" | "out") && width == Width::Qword {
            return Err(unknown());
        }
        match (kind, words) {
            ("in", &[at]) => Ok(Self::PortRead { port: port(at)?, width }),
            ("out", &[at, value]) => Ok(Self::PortWrite { port: port(at)?, width, value: number(value)? as u32 }),
            ("read", &[address]) => Ok(Self::Load { address: number(address)?, width }),
            ("write", &[address, value]) => Ok(Self::Store { address: number(address)?, width, value: number(value)? }),
            ("in", _) => Err(Fault::Words(command.to_owned(), "PORT")),
            ("out", _) => Err(Fault::Words(command.to_owned(), "PORT VALUE")),
            ("read", _) => Err(Fault::Words(command.to_owned(), "ADDRESS")),
            ("write", _) => Err(Fault::Words(command.to_owned(), "ADDRESS VALUE")),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Request {
        Request::parse(line).unwrap()
    }

    #[test]
    fn numbers_are_written_as_in_c() {
        for (text, value) in [("0", 0), ("017", 15), ("0x1F", 31), ("42", 42), ("-1", u64::MAX), ("+7", 7)] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        for text in ["", "-", "0x", "08", "1g", "++1", "0x+1", "18446744073709551616"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn widths_are_the_last_letter() {
        assert_eq!(parse("inw 0x70"), Request::PortRead { port: 0x70, width: Width::Word });
        let value = 0x1234_5678;
        assert_eq!(parse("outl 0xcf8 0x12345678"), Request::PortWrite { port: 0xcf8, width: Width::Dword, value });
        assert_eq!(parse("readq 8"), Request::Load { address: 8, width: Width::Qword });
        assert_eq!(parse("writeb 010 -1"), Request::Store { address: 8, width: Width::Byte, value: u64::MAX });
    }

    #[test]
    fn short_data_is_padded_and_long_data_cut() {
        let data = |line| match parse(line) {
            Request::Write { data, .. } => data,
            other => panic!("{other:?}"),
        };
        assert_eq!(data("write 0x0 4 0xabc"), [0xab, 0xc0, 0, 0]);
        assert_eq!(data("write 0x0 1 0x1122"), [0x11]);
        assert_eq!(data("b64write 0x0 3 /w=="), [0xff, 0, 0]);
        assert_eq!(Request::parse("write 0 4 0xzz"), Err(Fault::Data));
        assert_eq!(Request::parse("b64write 0 4 ***"), Err(Fault::Data));
    }

    #[test]
    fn what_is_no_request_is_named() {
        for line in ["", "inq 0x70", "outq 1 2", "readx 1", "frobnicate", "é"] {
            assert!(matches!(Request::parse(line), Err(Fault::Unknown(_))), "{line}");
        }
        assert!(matches!(Request::parse("outb 1"), Err(Fault::Words(..))));
        assert!(matches!(Request::parse("inb 65536"), Err(Fault::Large(..))));
        assert!(matches!(Request::parse("clock_step -1"), Err(Fault::Large(..))));
        assert_eq!(Request::parse("memset 0 16777217 0"), Err(Fault::Length));
        assert_eq!(Request::parse("read 0 0xffffffffffffffff"), Err(Fault::Length));
        assert!(matches!(Request::parse("set_irq_in ioapic irq 1 1"), Err(Fault::Name(_))));
    }

    proptest! {
        #[test]
        fn bytes_come_back_from_either_form(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for form in [Form::Hexadecimal, Form::Base64] {
                prop_assert_eq!(form.decode(&form.encode(&bytes)), Some(bytes.clone()));
            }
        }

        #[test]
        fn no_line_is_too_strange(line in "\\PC{0,60}", command in "(in|out|read|write|b64|clock_|irq_){1,2}[bwlq]?",
            words in proptest::collection::vec("[-+0-9a-fx]{0,20}", 0..6)) {
            let _ = Request::parse(&line);
            let _ = Request::parse(&format!("{command} {}", words.join(" ")));
        }
    }
}
