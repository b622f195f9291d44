//! A file, or a block device, of the host.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek as _, SeekFrom},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rhea_core::{
    files::{self, Access},
    memory::{GuestSlice, transfer},
};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};
use serde_json::json;

use super::{
    BlockError,
    layer::{ImageDetails, Layer},
    options::NodeSettings,
};

/// What addresses and lengths are multiples of where the host's cache is left out.
const DIRECT_ALIGNMENT: usize = 4096;
/// Zeros that are written at once where the host knows no better way.
const ZEROS: usize = 64 << 10;

/// An open file. Its lock ends with it.
#[derive(Debug)]
pub struct HostFile {
    path: PathBuf,
    file: File,
    /// How others are kept from it while it is in use.
    lock: Lock,
    /// The same file past the host's cache.
    direct: Option<File>,
    size: AtomicU64,
    /// Whether what was written may wait in the host's cache.
    no_flush: bool,
}

/// How other programs are kept from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    /// Not at all.
    None,
    /// Others may read it.
    Shared,
    /// Nobody else has it.
    Exclusive,
}

impl Lock {
    fn take(self, file: &File, path: &Path) -> Result<(), BlockError> {
        let (operation, mode) = match self {
            Self::None => return Ok(()),
            Self::Shared => (FlockOperation::NonBlockingLockShared, "shared \"write\""),
            Self::Exclusive => (FlockOperation::NonBlockingLockExclusive, "\"write\""),
        };
        flock(file, operation).map_err(|reason| match reason {
            rustix::io::Errno::WOULDBLOCK => BlockError::Locked { mode, path: path.to_owned() },
            source => BlockError::File { path: path.to_owned(), source: source.into() },
        })
    }
}

impl HostFile {
    /// Opens a file; says, too, whether it can only be read. One that is not `active` may be another program's still: its
    /// lock is taken by [`activate`](Layer::activate).
    ///
    /// # Errors
    /// The file cannot be opened, or another has it.
    pub fn open(path: &Path, locking: bool, settings: &NodeSettings, active: bool) -> Result<(Self, bool), BlockError> {
        let error = |source| BlockError::File { path: path.to_owned(), source };
        let (file, read_only) = if settings.read_only {
            (files::open(path, Access::Read).map_err(error)?, true)
        } else {
            match files::open(path, Access::ReadWrite) {
                Err(reason) if settings.auto_read_only && is_denied(&reason) => {
                    (files::open(path, Access::Read).map_err(error)?, true)
                }
                opened => (opened.map_err(error)?, false),
            }
        };
        let lock = match (locking, read_only) {
            (false, _) => Lock::None,
            (true, true) => Lock::Shared,
            (true, false) => Lock::Exclusive,
        };
        if active {
            lock.take(&file, path)?;
        }
        let size = measure(&file).map_err(error)?;
        let direct = settings.direct.then(|| open_direct(&file, read_only)).transpose().map_err(|source| {
            BlockError::Options(format!(
                "Could not open '{}': the host's cache cannot be left out ({})",
                path.display(),
                files::reason(&source)
            ))
        })?;
        Ok((
            Self { path: path.to_owned(), file, lock, direct, size: AtomicU64::new(size), no_flush: settings.no_flush },
            read_only,
        ))
    }

    /// The file past the cache, if a request is such that it takes it.
    fn direct(&self, offset: u64, length: usize) -> Option<&File> {
        let fits = offset.is_multiple_of(DIRECT_ALIGNMENT as u64) && length.is_multiple_of(DIRECT_ALIGNMENT);
        self.direct.as_ref().filter(|_| fits)
    }

    fn zero_by_hand(&self, mut offset: u64, length: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS];
        let mut left = length;
        while left > 0 {
            let part = left.min(ZEROS as u64);
            self.write(offset, zeros.get(..part as usize).unwrap_or(&[]))?;
            offset += part;
            left -= part;
        }
        Ok(())
    }

    fn grown_to(&self, end: u64) {
        self.size.fetch_max(end, Ordering::AcqRel);
    }
}

/// Its size: a block device tells it by its end only.
fn measure(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

fn is_denied(reason: &io::Error) -> bool {
    matches!(reason.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// A way of its own to an open file, as two that share one share its flags.
fn open_direct(file: &File, read_only: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(!read_only).custom_flags(OFlags::DIRECT.bits() as i32);
    options.open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Memory of which a part begins where direct requests begin.
fn aligned(length: usize) -> (Vec<u8>, usize) {
    let memory = vec![0; length + DIRECT_ALIGNMENT];
    let start = memory.as_ptr().align_offset(DIRECT_ALIGNMENT).min(DIRECT_ALIGNMENT);
    (memory, start)
}

/// Fills `data`; what is behind the end of the file is zeros.
fn read_all(file: &File, mut offset: u64, mut data: &mut [u8]) -> io::Result<()> {
    while !data.is_empty() {
        match file.read_at(data, offset) {
            Ok(0) => {
                data.fill(0);
                return Ok(());
            }
            Ok(count) => {
                data = data.get_mut(count..).unwrap_or(&mut []);
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Layer for HostFile {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let Some(direct) = self.direct(offset, data.len()) else { return read_all(&self.file, offset, data) };
        let (mut memory, start) = aligned(data.len());
        let part = memory.get_mut(start..start + data.len()).ok_or(io::ErrorKind::InvalidInput)?;
        read_all(direct, offset, part)?;
        data.copy_from_slice(part);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.direct(offset, data.len()) {
            None => self.file.write_all_at(data, offset)?,
            Some(direct) => {
                let (mut memory, start) = aligned(data.len());
                let part = memory.get_mut(start..start + data.len()).ok_or(io::ErrorKind::InvalidInput)?;
                part.copy_from_slice(data);
                direct.write_all_at(part, offset)?;
            }
        }
        self.grown_to(offset + data.len() as u64);
        Ok(())
    }

    fn read_to_guest(&self, offset: u64, into: &[GuestSlice<'_>]) -> io::Result<()> {
        if self.direct.is_none() {
            return transfer::read_at(&self.file, offset, into);
        }
        transfer::fill(into, |at, piece| self.read(offset + at, piece))
    }

    fn write_from_guest(&self, offset: u64, from: &[GuestSlice<'_>]) -> io::Result<()> {
        if self.direct.is_some() {
            return transfer::drain(from, |at, piece| self.write(offset + at, piece));
        }
        transfer::write_at(&self.file, offset, from)?;
        self.grown_to(offset + transfer::length(from));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if self.no_flush { Ok(()) } else { self.file.sync_data() }
    }

    fn filename(&self) -> Option<String> {
        Some(self.path.display().to_string())
    }

    fn inactivate(&self) -> io::Result<()> {
        match self.lock {
            Lock::None => Ok(()),
            Lock::Shared | Lock::Exclusive => Ok(flock(&self.file, FlockOperation::Unlock)?),
        }
    }

    fn activate(&self) -> Result<(), BlockError> {
        self.lock.take(&self.file, &self.path)?;
        let size = measure(&self.file).map_err(|source| BlockError::File { path: self.path.clone(), source })?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        let length = length.min(self.size().saturating_sub(offset));
        if length == 0 {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length) {
            // It is advice: a file system that cannot follow it is no failure.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        let how = if unmap && end <= self.size() {
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE
        } else {
            FallocateFlags::ZERO_RANGE
        };
        match fallocate(&self.file, how, offset, length) {
            Ok(()) => self.grown_to(end),
            Err(rustix::io::Errno::OPNOTSUPP) => self.zero_by_hand(offset, length)?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        if !self.file.metadata()?.is_file() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.file.set_len(size)?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    fn allocated(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.blocks().saturating_mul(512))
    }

    fn image(&self) -> ImageDetails {
        let specific = json!({ "type": "file", "data": {} });
        ImageDetails { dirty: Some(false), specific: Some(specific), ..ImageDetails::default() }
    }
}
