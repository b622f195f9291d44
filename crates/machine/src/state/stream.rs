//! The form of a saved machine: a header, frames of one kind each, and a last frame that counts them.
//!
//! All numbers are little-endian. The header is a signature of eight bytes and the number of the format. A frame is its
//! kind, the length of what it holds, that, and a CRC-32C (RFC 3720 § 12.1) of it all. Nothing is read past the last
//! frame, so that something else may follow.

use std::io::{self, Read, Write};

/// What a saved machine begins with: like that of other binary formats, it shows when it was taken for text.
pub const SIGNATURE: [u8; 8] = *b"\x89Rhea\r\n\x1a";
/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// Bytes of a header.
const HEADER: usize = 12;
/// Bytes of a frame before what it holds.
const HEAD: usize = 8;
/// Bytes of a frame behind what it holds.
const TAIL: usize = 4;

/// The most that a frame of pages holds: a mebibyte of them, and what says which they are.
pub const MOST_OF_PAGES: usize = (1 << 20) + (1 << 16);
/// The most that any other frame holds.
pub const MOST_OF_OTHERS: usize = 1 << 20;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What machine it is.
    Machine,
    /// Pages of its memory.
    Pages,
    /// The state of one of its parts.
    Part,
    /// The end, with the number of frames before it.
    End,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Machine, Self::Pages, Self::Part, Self::End];

    const fn number(self) -> u32 {
        match self {
            Self::Machine => 1,
            Self::Pages => 2,
            Self::Part => 3,
            Self::End => 4,
        }
    }

    const fn limit(self) -> usize {
        match self {
            Self::Pages => MOST_OF_PAGES,
            Self::Machine | Self::Part => MOST_OF_OTHERS,
            Self::End => 8,
        }
    }
}

/// Why a saved machine was not read or written. Positions are counted from the beginning of its header.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Something else.
    #[error("this is not the state of a machine: it does not begin as one")]
    Foreign,
    /// A format of another time.
    #[error("the state has format {0}, and only format {FORMAT} is known")]
    Format(u32),
    /// It ends too early.
    #[error("the state is cut off at byte {0}")]
    Cut(u64),
    /// Its bytes are not those that were written.
    #[error("the state is damaged: the frame at byte {0} has another checksum than it says")]
    Damaged(u64),
    /// A kind of frame that there is not.
    #[error("the state is damaged: the frame at byte {at} is of kind {kind}, which there is not")]
    UnknownKind {
        /// Where.
        at: u64,
        /// Which.
        kind: u32,
    },
    /// More than a frame of its kind holds.
    #[error("a frame of {length} bytes at byte {at} of the state: its kind holds {limit} at the most")]
    TooLong {
        /// Where.
        at: u64,
        /// How long it says it is.
        length: u64,
        /// How long it may be.
        limit: u64,
    },
    /// The last frame counts others than came.
    #[error("the state is incomplete: it has {came} frames and speaks of {told}")]
    Count {
        /// Frames before the last.
        came: u64,
        /// What it says.
        told: u64,
    },
    /// The host could not read or write.
    #[error("{}", rhea_core::files::reason(.0))]
    Host(#[from] io::Error),
}

/// Writes a saved machine.
pub struct StateWriter<W> {
    out: W,
    frames: u64,
    bytes: u64,
}

impl<W: Write> StateWriter<W> {
    /// Begins with the header.
    ///
    /// # Errors
    /// What the host says.
    pub fn new(mut out: W) -> Result<Self, StreamError> {
        out.write_all(&SIGNATURE)?;
        out.write_all(&FORMAT.to_le_bytes())?;
        Ok(Self { out, frames: 0, bytes: HEADER as u64 })
    }

    /// Writes a frame that holds `payload`.
    ///
    /// # Errors
    /// More than a frame of its kind holds, or what the host says.
    pub fn frame(&mut self, kind: Kind, payload: &[u8]) -> Result<(), StreamError> {
        let (length, limit) = (payload.len() as u64, kind.limit() as u64);
        if length > limit {
            return Err(StreamError::TooLong { at: self.bytes, length, limit });
        }
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&kind.number().to_le_bytes());
        head[4..].copy_from_slice(&(length as u32).to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&head), payload);
        self.out.write_all(&head)?;
        self.out.write_all(payload)?;
        self.out.write_all(&sum.to_le_bytes())?;
        self.frames += 1;
        self.bytes += (HEAD + TAIL) as u64 + length;
        Ok(())
    }

    /// Bytes written so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is written to, to have it flushed.
    pub const fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Ends with the frame that counts the others, and gives back what was written to, flushed.
    ///
    /// # Errors
    /// What the host says.
    pub fn finish(mut self) -> Result<W, StreamError> {
        self.frame(Kind::End, &self.frames.to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads a saved machine.
pub struct StateReader<R> {
    input: R,
    payload: Vec<u8>,
    frames: u64,
    bytes: u64,
    ended: bool,
}

impl<R: Read> StateReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Something else than a saved machine, or one of another format.
    pub fn new(mut input: R) -> Result<Self, StreamError> {
        let mut header = [0; HEADER];
        let (signature, format) = header.split_at_mut(SIGNATURE.len());
        fill(&mut input, signature, 0)?;
        if signature != SIGNATURE {
            return Err(StreamError::Foreign);
        }
        fill(&mut input, format, SIGNATURE.len() as u64)?;
        match number(format) {
            FORMAT => Ok(Self { input, payload: Vec::new(), frames: 0, bytes: HEADER as u64, ended: false }),
            other => Err(StreamError::Format(other)),
        }
    }

    /// The next frame's kind and what it holds; nothing after the last, which is checked and not given.
    ///
    /// # Errors
    /// The saved machine ends too early or is damaged.
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend what it gives")]
    pub fn next(&mut self) -> Result<Option<(Kind, &[u8])>, StreamError> {
        if self.ended {
            return Ok(None);
        }
        let at = self.bytes;
        let mut head = [0; HEAD];
        fill(&mut self.input, &mut head, at)?;
        let (kind, length) = (number(&head[..4]), number(&head[4..]) as usize);
        let known = Kind::ALL.into_iter().find(|known| known.number() == kind);
        let kind = known.ok_or(StreamError::UnknownKind { at, kind })?;
        if length > kind.limit() {
            return Err(StreamError::TooLong { at, length: length as u64, limit: kind.limit() as u64 });
        }
        self.payload.resize(length, 0);
        fill(&mut self.input, &mut self.payload, at + HEAD as u64)?;
        let mut sum = [0; TAIL];
        fill(&mut self.input, &mut sum, at + (HEAD + length) as u64)?;
        if number(&sum) != crc32c::crc32c_append(crc32c::crc32c(&head), &self.payload) {
            return Err(StreamError::Damaged(at));
        }
        self.bytes += (HEAD + length + TAIL) as u64;
        if kind != Kind::End {
            self.frames += 1;
            return Ok(Some((kind, &self.payload)));
        }
        self.ended = true;
        let told = self.payload.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        if told == self.frames { Ok(None) } else { Err(StreamError::Count { came: self.frames, told }) }
    }

    /// Bytes read so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A number of four bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Fills `buffer`, which begins at byte `at`.
fn fill(input: &mut impl Read, buffer: &mut [u8], at: u64) -> Result<(), StreamError> {
    let mut done = 0;
    while done < buffer.len() {
        match input.read(&mut buffer[done..]) {
            Ok(0) => return Err(StreamError::Cut(at + done as u64)),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(frames: &[(Kind, Vec<u8>)]) -> Vec<u8> {
        let mut writer = StateWriter::new(Vec::new()).unwrap();
        for (kind, payload) in frames {
            writer.frame(*kind, payload).unwrap();
        }
        let bytes = writer.bytes();
        let out = writer.finish().unwrap();
        assert_eq!(out.len() as u64, bytes + 20);
        out
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Kind, Vec<u8>)>, StreamError> {
        let mut reader = StateReader::new(bytes)?;
        let mut frames = Vec::new();
        while let Some((kind, payload)) = reader.next()? {
            frames.push((kind, payload.to_vec()));
        }
        assert!(reader.next()?.is_none());
        Ok(frames)
    }

    #[test]
    fn nothing_behind_the_last_frame_is_read() {
        let mut bytes = written(&[(Kind::Part, vec![7; 10])]);
        let length = bytes.len();
        bytes.extend([1, 2, 3]);
        let mut rest = &bytes[..];
        let mut reader = StateReader::new(&mut rest).unwrap();
        while reader.next().unwrap().is_some() {}
        assert_eq!(reader.bytes(), length as u64);
        assert_eq!(rest, [1, 2, 3]);
    }

    #[test]
    fn what_is_no_state_of_this_format_is_told_apart() {
        assert!(matches!(read(b"QEVM\0\0\0\x03 and more"), Err(StreamError::Foreign)));
        assert!(matches!(read(b""), Err(StreamError::Cut(0))));
        let mut bytes = written(&[]);
        bytes[8] = 9;
        assert!(matches!(read(&bytes), Err(StreamError::Format(9))));
    }

    #[test]
    fn lengths_are_checked_before_anything_is_read() {
        let mut bytes = written(&[(Kind::Machine, vec![1])]);
        bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read(&bytes), Err(StreamError::TooLong { at: 12, .. })));
        let mut writer = StateWriter::new(Vec::new()).unwrap();
        assert!(writer.frame(Kind::Part, &vec![0; MOST_OF_OTHERS + 1]).is_err());
        bytes[12] = 77;
        assert!(matches!(read(&bytes), Err(StreamError::UnknownKind { at: 12, kind: 77 })));
    }

    #[test]
    fn a_frame_that_is_missing_is_noticed() {
        let mut bytes = written(&[(Kind::Part, vec![1]), (Kind::Part, vec![2])]);
        bytes.drain(12..25);
        assert!(matches!(read(&bytes), Err(StreamError::Count { came: 1, told: 2 })));
    }

    fn frames() -> impl Strategy<Value = Vec<(Kind, Vec<u8>)>> {
        let kind = prop_oneof![Just(Kind::Machine), Just(Kind::Pages), Just(Kind::Part)];
        prop::collection::vec((kind, prop::collection::vec(any::<u8>(), 0..100)), 0..8)
    }

    proptest! {
        #[test]
        fn frames_come_back(frames in frames()) {
            prop_assert_eq!(read(&written(&frames)).unwrap(), frames);
        }

        #[test]
        fn every_cut_and_every_changed_bit_is_noticed(frames in frames(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let bytes = written(&frames);
            let at = at.index(bytes.len());
            prop_assert!(read(&bytes[..at]).is_err());
            let mut changed = bytes;
            changed[at] ^= 1_u8 << bit;
            prop_assert!(read(&changed).is_err());
        }
    }
}
