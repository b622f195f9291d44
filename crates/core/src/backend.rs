//! What stands behind devices: disks and sources of random bytes, as devices use them. Backends implement these.

use std::{fmt, io, time::Instant};

use crate::memory::{GuestSlice, transfer};

/// What a disk keeps its bytes in. Calls wait until they are done; several threads may call.
pub trait BlockMedium: fmt::Debug + Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// Whether it refuses to be written.
    fn read_only(&self) -> bool;

    /// Fills `data` from `offset` on.
    ///
    /// # Errors
    /// What the host says, or a range past the end.
    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `offset`. It survives the end of this program only after [`flush`](Self::flush).
    ///
    /// # Errors
    /// What the host says, or a range past the end.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes all that was written before survive the end of the program and of the host.
    ///
    /// # Errors
    /// What the host says.
    fn flush(&self) -> io::Result<()>;

    /// Says that a range is not needed any more; it reads as anything.
    ///
    /// # Errors
    /// What the host says, or a range past the end.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes a range read as zeros; `unmap` if its room may be given back.
    ///
    /// # Errors
    /// What the host says, or a range past the end.
    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()>;

    /// Fills parts of guest RAM from `offset` on.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    fn read_to_guest(&self, offset: u64, into: &[GuestSlice<'_>]) -> io::Result<()> {
        transfer::fill(into, |at, piece| self.read(place(offset, at)?, piece))
    }

    /// Writes parts of guest RAM at `offset`.
    ///
    /// # Errors
    /// As of [`write`](Self::write).
    fn write_from_guest(&self, offset: u64, from: &[GuestSlice<'_>]) -> io::Result<()> {
        transfer::drain(from, |at, piece| self.write(place(offset, at)?, piece))
    }

    /// Asks whether a read, or a write, of so many bytes may begin now; then it is counted, and is to be done. `lane` tells
    /// those apart that ask one after another.
    ///
    /// # Errors
    /// Not yet: the time at which to ask again.
    fn admit(&self, _lane: usize, _write: bool, _bytes: u64) -> Result<(), Instant> {
        Ok(())
    }

    /// The guest asked for a read, or a write, that cannot be.
    fn refused(&self, _write: bool) {}

    /// Says whether writes wait for a flush, for those who ask.
    fn set_write_cache(&self, _on: bool) {}
}

fn place(offset: u64, at: u64) -> io::Result<u64> {
    offset.checked_add(at).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Where random bytes come from.
pub trait RandomSource: fmt::Debug + Send + Sync {
    /// Fills `data`; may wait.
    ///
    /// # Errors
    /// What the host says.
    fn fill(&self, data: &mut [u8]) -> io::Result<()>;
}
