//! A stream of bytes to a stream of JSON values: tokens, limits, and the way back after a fault.
//!
//! Nothing is kept but the message under way: its values so far, and the start of a token that the input cut in two.
//!
//! After a fault one error is reported and what was read is dropped. The rest of that message is passed over in
//! silence where it can be told from the next one: up to its last bracket on the same line, or up to the `{` that
//! begins a line, or, after an out-of-place control byte or 0xFE or 0xFF, up to the next `{`.

use serde_json::Value;

use super::builder::{Bracket, Builder, Outcome};
use super::fault::SyntaxError;
use super::text::{Bare, bare, unescape};

/// How deep brackets may nest.
pub const MAX_NESTING: usize = 1024;
/// How many tokens (brackets, commas, colons, strings, words) a message may have.
pub const MAX_TOKENS: usize = 1 << 20;
/// How long a message may be, in bytes.
pub const MAX_MESSAGE: usize = 64 << 20;

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    /// No token is under way.
    Between,
    /// A string that ends with `quote`.
    Text { quote: u8, after_backslash: bool, escapes: bool },
    /// A keyword or number.
    Bare,
}

/// How the rest of a broken message is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skip {
    /// The rest of a line, up to the bracket that ends the message.
    Brackets { depth: usize, quote: Option<u8>, after_backslash: bool },
    /// The start of a line, with `depth` brackets of the broken message open.
    Line { depth: usize, indented: bool },
    /// A line that may still belong to the broken message, or be a broken one of its own that began with `first`.
    Doubtful { depth: usize, indented: bool, first: u8 },
    /// Up to the next `{`, or the end of the line.
    Junk,
}

impl Skip {
    fn brackets(depth: usize) -> Self {
        if depth == 0 { Self::Junk } else { Self::Brackets { depth, quote: None, after_backslash: false } }
    }
}

/// A fault that ends the message at once.
struct Abort {
    error: SyntaxError,
    skip: Option<Skip>,
}

enum Progress {
    Going,
    NeedsInput,
    Done(Result<Value, SyntaxError>),
}

/// Finds messages in a stream of bytes that may be cut anywhere.
pub struct Decoder {
    scan: Scan,
    skip: Option<Skip>,
    /// The start of a token whose end has not come yet.
    held: Vec<u8>,
    builder: Builder,
    /// Bytes of the message so far.
    size: usize,
    /// Tokens of the message so far.
    tokens: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self { scan: Scan::Between, skip: None, held: Vec::new(), builder: Builder::new(), size: 0, tokens: 0 }
    }

    /// The next message or fault in `input`, which moves on past what was read. `None`: all of `input` is read, and
    /// the message under way needs more.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Result<Value, SyntaxError>> {
        loop {
            if let Some(skip) = self.skip {
                let (skip, error) = pass_over(skip, input);
                self.skip = skip;
                if error.is_some() || skip.is_some() {
                    return error.map(Err);
                }
            }
            match self.step(input) {
                Ok(Progress::Going) => {}
                Ok(Progress::NeedsInput) => return None,
                Ok(Progress::Done(result)) => {
                    self.size = 0;
                    self.tokens = 0;
                    return Some(result);
                }
                Err(Abort { error, skip }) => {
                    self.reset();
                    self.skip = skip;
                    return Some(Err(error));
                }
            }
        }
    }

    fn reset(&mut self) {
        self.scan = Scan::Between;
        // A huge token is not kept in memory for the sake of the next small one.
        self.held = Vec::new();
        self.builder.clear();
        self.size = 0;
        self.tokens = 0;
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Progress, Abort> {
        match self.scan {
            Scan::Between => self.between(input),
            Scan::Text { quote, after_backslash, escapes } => self.text(input, quote, after_backslash, escapes),
            Scan::Bare => self.bare(input),
        }
    }

    fn between(&mut self, input: &mut &[u8]) -> Result<Progress, Abort> {
        let blank = input.iter().position(|byte| !is_space(*byte)).unwrap_or(input.len());
        *input = &input[blank..];
        if self.builder.depth() > 0 {
            self.grow(blank, None)?;
        }
        let Some((&byte, rest)) = input.split_first() else { return Ok(Progress::NeedsInput) };
        let outcome = match byte {
            b'"' | b'\'' => {
                *input = rest;
                self.grow(1, None)?;
                self.scan = Scan::Text { quote: byte, after_backslash: false, escapes: false };
                return Ok(Progress::Going);
            }
            _ if is_bare(byte) => {
                self.scan = Scan::Bare;
                return Ok(Progress::Going);
            }
            b'{' | b'}' | b'[' | b']' | b':' | b',' => {
                *input = rest;
                self.grow(1, None)?;
                let depth = self.builder.depth();
                self.count_token(match byte {
                    b'{' | b'[' => depth + 1,
                    b'}' | b']' => depth.saturating_sub(1),
                    _ => depth,
                })?;
                match byte {
                    b'{' => self.open(Bracket::Object)?,
                    b'[' => self.open(Bracket::Array)?,
                    b'}' => self.builder.close(Bracket::Object),
                    b']' => self.builder.close(Bracket::Array),
                    b':' => self.builder.colon(),
                    _ => self.builder.comma(),
                }
            }
            stray => {
                *input = rest;
                let skip = if is_reset(stray) { Skip::Junk } else { Skip::brackets(self.builder.depth()) };
                return Err(Abort { error: SyntaxError::StrayByte(stray), skip: Some(skip) });
            }
        };
        self.settle(outcome)
    }

    fn open(&mut self, bracket: Bracket) -> Result<Outcome, Abort> {
        let depth = self.builder.depth();
        if depth == MAX_NESTING {
            return Err(Abort { error: SyntaxError::TooDeep, skip: Some(Skip::brackets(depth + 1)) });
        }
        Ok(self.builder.open(bracket))
    }

    fn text(
        &mut self,
        input: &mut &[u8],
        quote: u8,
        mut after_backslash: bool,
        mut escapes: bool,
    ) -> Result<Progress, Abort> {
        let window = self.window(input);
        let mut at = 0;
        let end = loop {
            if !after_backslash {
                at += window[at..].iter().position(|byte| ends_plain_text(*byte)).unwrap_or(window.len() - at);
            }
            let Some(&byte) = window.get(at) else { break None };
            if !(0x20..0xfe).contains(&byte) {
                return Err(self.abort_in_text(input, at, byte));
            }
            at += 1;
            if after_backslash {
                after_backslash = false;
            } else if byte == b'\\' {
                after_backslash = true;
                escapes = true;
            } else if byte == quote {
                break Some(at - 1);
            }
        };
        *input = &input[at..];
        let Some(end) = end else {
            self.held.extend_from_slice(window);
            self.scan = Scan::Text { quote, after_backslash, escapes };
            self.grow(at, Some((quote, after_backslash)))?;
            return Ok(Progress::NeedsInput);
        };
        self.scan = Scan::Between;
        self.grow(at, None)?;
        self.count_token(self.builder.depth())?;
        let held = std::mem::take(&mut self.held);
        let text = match (held.is_empty(), escapes) {
            (true, false) => {
                std::str::from_utf8(&window[..end]).map(str::to_owned).map_err(|_| SyntaxError::InvalidUtf8)
            }
            (true, true) => unescape(&window[..end]),
            (false, _) => {
                let mut whole = held;
                whole.extend_from_slice(&window[..end]);
                if escapes { unescape(&whole) } else { String::from_utf8(whole).map_err(|_| SyntaxError::InvalidUtf8) }
            }
        };
        let outcome = match text {
            Ok(text) => self.builder.text(text),
            Err(error) => self.builder.broken(error),
        };
        self.settle(outcome)
    }

    /// A byte in a string that no string has: the string, and with it the message, ends there.
    fn abort_in_text(&self, input: &mut &[u8], at: usize, byte: u8) -> Abort {
        *input = &input[at + 1..];
        let depth = self.builder.depth();
        let skip = match byte {
            b'\n' | b'\r' if depth == 0 => None,
            b'\n' | b'\r' => Some(Skip::Line { depth, indented: false }),
            b'\t' => Some(Skip::brackets(depth)),
            _ => Some(Skip::Junk),
        };
        Abort { error: SyntaxError::ByteInString(byte), skip }
    }

    fn bare(&mut self, input: &mut &[u8]) -> Result<Progress, Abort> {
        let window = self.window(input);
        let end = window.iter().position(|byte| !is_bare(*byte));
        let length = end.unwrap_or(window.len());
        *input = &input[length..];
        if end.is_none() {
            self.held.extend_from_slice(window);
        }
        self.grow(length, None)?;
        if end.is_none() {
            return Ok(Progress::NeedsInput);
        }
        self.scan = Scan::Between;
        self.count_token(self.builder.depth())?;
        let held = std::mem::take(&mut self.held);
        let whole;
        let word = if held.is_empty() {
            &window[..length]
        } else {
            whole = [&held, &window[..length]].concat();
            &whole[..]
        };
        let outcome = match bare(word) {
            Bare::Value(value) => self.builder.scalar(value),
            Bare::OutOfRange => self.builder.broken(SyntaxError::NumberOutOfRange),
            Bare::Unknown => {
                let skip = Some(Skip::brackets(self.builder.depth()));
                return Err(Abort { error: SyntaxError::bare_word(word), skip });
            }
        };
        self.settle(outcome)
    }

    fn settle(&mut self, outcome: Outcome) -> Result<Progress, Abort> {
        match outcome {
            Outcome::More => Ok(Progress::Going),
            Outcome::Message(value) => Ok(Progress::Done(Ok(value))),
            Outcome::Broken(error) => Ok(Progress::Done(Err(error))),
            Outcome::Misplaced(error) => Err(Abort { error, skip: Some(Skip::brackets(self.builder.depth())) }),
        }
    }

    /// As much of `input` as one message may still take, and one byte more to see that it is too much.
    fn window<'a>(&self, input: &&'a [u8]) -> &'a [u8] {
        let room = MAX_MESSAGE - self.size.min(MAX_MESSAGE) + 1;
        input.get(..room).unwrap_or(input)
    }

    /// Counts bytes of the message; `text` is the quote of the string that they are in, and whether they end in a backslash.
    fn grow(&mut self, bytes: usize, text: Option<(u8, bool)>) -> Result<(), Abort> {
        self.size += bytes;
        if self.size <= MAX_MESSAGE {
            return Ok(());
        }
        let depth = self.builder.depth();
        let skip = match text {
            Some((quote, after_backslash)) => Skip::Brackets { depth, quote: Some(quote), after_backslash },
            None => Skip::brackets(depth),
        };
        Err(Abort { error: SyntaxError::TooLong, skip: Some(skip) })
    }

    /// Counts a token that leaves `depth` brackets open.
    fn count_token(&mut self, depth: usize) -> Result<(), Abort> {
        self.tokens += 1;
        if self.tokens <= MAX_TOKENS {
            return Ok(());
        }
        Err(Abort { error: SyntaxError::TooManyTokens, skip: Some(Skip::brackets(depth)) })
    }
}

/// Moves `input` past what belongs to a broken message. No [`Skip`] left: the next message begins here. An error: what
/// was passed over was another broken message.
fn pass_over(mut skip: Skip, input: &mut &[u8]) -> (Option<Skip>, Option<SyntaxError>) {
    while let Some((&byte, rest)) = input.split_first() {
        skip = match skip {
            Skip::Junk => match byte {
                b'{' => return (None, None),
                b'\n' | b'\r' => {
                    *input = rest;
                    return (None, None);
                }
                _ => {
                    let junk = input.iter().position(|byte| matches!(byte, b'{' | b'\n' | b'\r'));
                    *input = &input[junk.unwrap_or(input.len())..];
                    continue;
                }
            },
            Skip::Line { depth, indented } => match byte {
                b'\n' | b'\r' => Skip::Line { depth, indented: false },
                b' ' | b'\t' => Skip::Line { depth, indented: true },
                _ if is_reset(byte) => Skip::Junk,
                b'[' if indented => {
                    skip = Skip::brackets(depth);
                    continue;
                }
                b'{' | b'[' => return (None, None),
                _ => {
                    skip = Skip::Doubtful { depth, indented, first: byte };
                    continue;
                }
            },
            Skip::Doubtful { depth, indented, first } => match byte {
                b'"' | b'\'' | b'}' | b']' | b',' | b':' => {
                    skip = Skip::brackets(depth);
                    continue;
                }
                b'\n' | b'\r' if indented => Skip::Line { depth, indented: false },
                b'\n' | b'\r' | b'{' | b'[' => return (None, Some(SyntaxError::StrayByte(first))),
                _ if is_reset(byte) => Skip::Junk,
                _ => skip,
            },
            Skip::Brackets { depth, quote, after_backslash } => {
                match skip_in_brackets(byte, depth, quote, after_backslash) {
                    Some(skip) => skip,
                    None => {
                        *input = rest;
                        return (None, None);
                    }
                }
            }
        };
        *input = rest;
    }
    (Some(skip), None)
}

/// One byte of the rest of a broken message; `None` when it was the last.
fn skip_in_brackets(byte: u8, depth: usize, quote: Option<u8>, after_backslash: bool) -> Option<Skip> {
    let inside = |depth, quote, after_backslash| Some(Skip::Brackets { depth, quote, after_backslash });
    match (byte, quote) {
        (b'\n' | b'\r', _) if depth == 0 => None,
        (b'\n' | b'\r', _) => Some(Skip::Line { depth, indented: false }),
        _ if is_reset(byte) => Some(Skip::Junk),
        (_, Some(_)) if after_backslash => inside(depth, quote, false),
        (b'\\', Some(_)) => inside(depth, quote, true),
        (_, Some(end)) if byte == end && depth == 0 => None,
        (_, Some(end)) if byte == end => inside(depth, None, false),
        (_, Some(_)) => inside(depth, quote, false),
        (b'"' | b'\'', None) => inside(depth, Some(byte), false),
        (b'{' | b'[', None) => inside(depth.saturating_add(1), None, false),
        (b'}' | b']', None) if depth <= 1 => None,
        (b'}' | b']', None) => inside(depth - 1, None, false),
        _ => inside(depth, None, false),
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Bytes of numbers and keywords, and of what people write in their place.
fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_')
}

/// Bytes that no message has outside its white space: whoever sends one starts afresh.
fn is_reset(byte: u8) -> bool {
    (byte < 0x20 && !is_space(byte)) || byte >= 0xfe
}

/// Bytes at which a string is no longer just copied.
fn ends_plain_text(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\'' | b'\\') || byte >= 0xfe
}
