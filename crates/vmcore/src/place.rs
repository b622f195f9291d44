//! Where a kdump-compressed file goes: pieces at offsets, into a file that can be positioned, or as records on a stream.
//!
//! Source: makedumpfile's flattened format: a header block, then records of offset, size and bytes, all big-endian.

use std::io::{self, Seek, SeekFrom, Write};

/// Takes a dump in pieces, each at its offset.
pub trait Place {
    /// Takes `bytes` for `offset`.
    ///
    /// # Errors
    ///
    /// As the destination has it.
    fn place(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Everything was written.
    ///
    /// # Errors
    ///
    /// As the destination has it.
    fn finish(&mut self) -> io::Result<()>;
}

/// The file itself.
pub struct Raw<W> {
    out: W,
    /// Where the file stands, so that what follows on costs no seek.
    at: u64,
}

impl<W: Write + Seek> Raw<W> {
    /// Offsets count from the start of `out`.
    pub const fn new(out: W) -> Self {
        Self { out, at: u64::MAX }
    }

    /// Gives back what was written to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write + Seek> Place for Raw<W> {
    fn place(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.at != offset {
            self.out.seek(SeekFrom::Start(offset))?;
        }
        // Unknown while a write may have gone halfway.
        self.at = u64::MAX;
        self.out.write_all(bytes)?;
        self.at = offset.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A stream that `makedumpfile -R` turns into the file.
pub struct Flattened<W> {
    out: W,
}

/// Size of the stream's header block.
const HEADER: usize = 4096;
/// Name of the format; a 16-byte field.
const SIGNATURE: &[u8; 16] = b"makedumpfile\0\0\0\0";
/// Type and version of the stream.
const KIND: i64 = 1;
const VERSION: i64 = 1;
/// Offset and size of the record that ends the stream.
const END: i64 = -1;

impl<W: Write> Flattened<W> {
    /// Begins the stream.
    ///
    /// # Errors
    ///
    /// As the destination has it.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(SIGNATURE);
        header.extend_from_slice(&KIND.to_be_bytes());
        header.extend_from_slice(&VERSION.to_be_bytes());
        header.resize(HEADER, 0);
        out.write_all(&header)?;
        Ok(Self { out })
    }

    /// Gives back what was written to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn record(&mut self, offset: i64, size: i64) -> io::Result<()> {
        let mut record = [0; 16];
        record[..8].copy_from_slice(&offset.to_be_bytes());
        record[8..].copy_from_slice(&size.to_be_bytes());
        self.out.write_all(&record)
    }
}

impl<W: Write> Place for Flattened<W> {
    fn place(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let offset = i64::try_from(offset).map_err(too_large)?;
        let size = i64::try_from(bytes.len()).map_err(too_large)?;
        self.record(offset, size)?;
        self.out.write_all(bytes)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.record(END, END)?;
        self.out.flush()
    }
}
