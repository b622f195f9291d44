//! What a node does with its bytes; the small ones that need no file of their own.

use std::{fmt, io, sync::Arc};

use rhea_core::memory::{GuestSlice, transfer};
use serde_json::{Value, json};

use super::{
    node::{Edge, Node},
    throttle::{GroupMember, ThrottleGroup},
};

/// What a node does with its bytes. Ranges lie within its size, but for a file below a format, which grows.
pub trait Layer: fmt::Debug + Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// Fills `data` from `offset` on.
    ///
    /// # Errors
    /// What the host says.
    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// What the host says.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Fills parts of guest RAM from `offset` on.
    ///
    /// # Errors
    /// What the host says.
    fn read_to_guest(&self, offset: u64, into: &[GuestSlice<'_>]) -> io::Result<()> {
        transfer::fill(into, |at, piece| self.read(offset + at, piece))
    }

    /// Writes parts of guest RAM at `offset`.
    ///
    /// # Errors
    /// What the host says.
    fn write_from_guest(&self, offset: u64, from: &[GuestSlice<'_>]) -> io::Result<()> {
        transfer::drain(from, |at, piece| self.write(offset + at, piece))
    }

    /// Makes all that was written survive the end of program and host.
    ///
    /// # Errors
    /// What the host says.
    fn flush(&self) -> io::Result<()>;

    /// A range is not needed any more.
    ///
    /// # Errors
    /// What the host says.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes a range read as zeros; `unmap` if its room may be given back.
    ///
    /// # Errors
    /// What the host says.
    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()>;

    /// Changes the size.
    ///
    /// # Errors
    /// What the host says, or a size that it cannot have.
    fn resize(&self, size: u64) -> io::Result<()>;

    /// Bytes that it takes on the host.
    fn allocated(&self) -> u64;

    /// What is particular to images of its kind.
    fn image(&self) -> ImageDetails {
        ImageDetails::default()
    }
}

/// What is particular to an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDetails {
    /// Bytes of a cluster.
    pub cluster_size: Option<u64>,
    /// The image that it stands on, as it says.
    pub backing: Option<String>,
    /// And where that is.
    pub full_backing: Option<String>,
    /// And its format.
    pub backing_format: Option<String>,
    /// Whether it says that it was not closed.
    pub dirty: Option<bool>,
    /// Details of the format.
    pub specific: Option<Value>,
}

/// Zeros, and nothing that is kept.
#[derive(Debug)]
pub struct Null {
    /// Bytes.
    pub size: u64,
}

impl Layer for Null {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, _: u64, data: &mut [u8]) -> io::Result<()> {
        data.fill(0);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn resize(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocated(&self) -> u64 {
        0
    }
}

/// The bytes of another node, or a part of them.
#[derive(Debug)]
pub struct Raw {
    file: Edge,
    offset: u64,
    /// Bytes, if not all that there are behind `offset`.
    size: Option<u64>,
}

impl Raw {
    /// A part of `file`, which was checked to be one.
    pub fn new(file: Edge, offset: u64, size: Option<u64>) -> Self {
        Self { file, offset, size }
    }

    /// What it is a part of.
    pub fn file(&self) -> &Arc<Node> {
        self.file.node()
    }

    /// Where `length` bytes at `offset` are below, if they are inside: formats above would grow into what follows.
    fn at(&self, offset: u64, length: u64) -> io::Result<u64> {
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        if self.size.is_some_and(|size| end > size) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.offset.checked_add(offset).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// How it is named where it has no file name.
    pub fn description(&self) -> Option<Value> {
        if self.offset == 0 && self.size.is_none() {
            return None;
        }
        let mut value = json!({ "driver": "raw", "offset": self.offset, "file": self.file.node().description() });
        if let (Some(size), Some(members)) = (self.size, value.as_object_mut()) {
            members.insert("size".to_owned(), size.into());
        }
        Some(value)
    }
}

impl Layer for Raw {
    fn size(&self) -> u64 {
        let there = self.file.node().size().saturating_sub(self.offset);
        self.size.map_or(there, |size| size.min(there))
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.node().read(self.at(offset, data.len() as u64)?, data)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.node().write(self.at(offset, data.len() as u64)?, data)
    }

    fn read_to_guest(&self, offset: u64, into: &[GuestSlice<'_>]) -> io::Result<()> {
        self.file.node().read_to_guest(self.at(offset, transfer::length(into))?, into)
    }

    fn write_from_guest(&self, offset: u64, from: &[GuestSlice<'_>]) -> io::Result<()> {
        self.file.node().write_from_guest(self.at(offset, transfer::length(from))?, from)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.node().flush()
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.file.node().discard(self.at(offset, length)?, length)
    }

    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        self.file.node().write_zeroes(self.at(offset, length)?, length, unmap)
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        if self.size.is_some() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "Cannot resize fixed-size raw disks"));
        }
        self.file.node().resize(self.at(size, 0)?)
    }

    fn allocated(&self) -> u64 {
        self.file.node().allocated()
    }

    fn image(&self) -> ImageDetails {
        ImageDetails { dirty: self.file.node().image().dirty, ..ImageDetails::default() }
    }
}

/// The bytes of another node, not faster than the limits of a group. Whoever uses it asks the group before each request, so
/// that nobody waits here.
#[derive(Debug)]
pub struct Throttled {
    bytes: Raw,
    member: GroupMember,
}

impl Throttled {
    /// `file` within the limits of a group.
    pub fn new(file: Edge, member: GroupMember) -> Self {
        Self { bytes: Raw::new(file, 0, None), member }
    }

    /// Its bytes: all of those below.
    pub fn bytes(&self) -> &Raw {
        &self.bytes
    }

    /// The limits.
    pub fn group(&self) -> &Arc<ThrottleGroup> {
        self.member.group()
    }
}
