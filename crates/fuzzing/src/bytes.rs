//! Values out of a fuzzer's bytes: when they run out, zeros.

use rhea_core::Width;

/// The bytes that are left.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// All of `data`.
    pub const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Whether none is left.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next two bytes.
    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number below `limit`, zero if that is zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        let number =
            if limit <= 256 { self.byte().into() } else { u64::from(self.word()) << 8 | u64::from(self.byte()) };
        number.checked_rem(limit).unwrap_or(0)
    }

    /// One of `choices`, which are not none.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A width of access.
    pub fn width(&mut self) -> Width {
        self.pick(&[Width::Byte, Width::Byte, Width::Byte, Width::Word, Width::Dword, Width::Dword, Width::Qword])
    }

    /// A value as those that go wrong: small, a bit, a byte anywhere, all ones, any.
    pub fn value(&mut self) -> u64 {
        match self.byte() % 8 {
            0..=2 => self.byte().into(),
            3 => 1 << (self.byte() % 64),
            4 => u64::from(self.byte()) << (self.byte() % 64),
            5 => !u64::from(self.byte()),
            6 => self.word().into(),
            _ => (0..4).fold(0, |value, _| value << 16 | u64::from(self.word())),
        }
    }

    /// Up to `most` bytes.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()).min(most).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// The rest.
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }
}
