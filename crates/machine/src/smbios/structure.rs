//! A structure of the tables: numbers, then the strings that they refer to. DSP0134 §6.1.

use super::error::SmbiosError;

/// Bytes of a header: type, length, handle.
pub(super) const HEADER: usize = 4;

/// A structure in the making. Fields are put behind each other, low byte first.
pub(super) struct Structure {
    formatted: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
    /// A string had a zero in it.
    broken: bool,
}

impl Structure {
    pub(super) fn new(kind: u8, handle: u16) -> Self {
        let [low, high] = handle.to_le_bytes();
        Self { formatted: vec![kind, 0, low, high], strings: Vec::new(), count: 0, broken: false }
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.formatted.extend(bytes);
        self
    }

    pub(super) fn byte(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(super) fn word(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn dword(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn qword(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// The number of a string; zero for an empty one, which would end all strings.
    pub(super) fn string(mut self, text: &str) -> Self {
        if text.is_empty() {
            return self.byte(0);
        }
        self = self.and_string(text);
        let number = self.count;
        self.byte(number)
    }

    /// A string that is found by its place among the others, of which there are 255 at the most.
    pub(super) fn and_string(mut self, text: &str) -> Self {
        self.broken |= text.contains('\0');
        self.strings.extend(text.bytes());
        self.strings.push(0);
        self.count = self.count.saturating_add(1);
        self
    }

    /// The structure as it lies in memory: its strings end in two zeros, and so does one without any.
    pub(super) fn finish(self, kind: u8) -> Result<Vec<u8>, SmbiosError> {
        let Self { mut formatted, mut strings, broken, .. } = self;
        if broken {
            return Err(SmbiosError::Zero(kind));
        }
        // None of those that are made here has more than 255.
        formatted[1] = formatted.len() as u8;
        if strings.is_empty() {
            strings.push(0);
        }
        strings.push(0);
        formatted.extend(strings);
        Ok(formatted)
    }
}
