//! The bytes of another node as they are, or a part of them.

use std::{io, sync::Arc};

use rhea_core::memory::{GuestSlice, transfer};
use serde_json::{Map, Value};

use super::{
    layer::{ImageDetails, Layer},
    node::Edge,
    throttle::{GroupMember, ThrottleGroup},
};

/// The bytes of another node, or a part of them; perhaps not faster than the limits of a group. Whoever uses it asks the group
/// before each request, so that nobody waits here.
#[derive(Debug)]
pub struct Raw {
    file: Edge,
    offset: u64,
    /// Bytes, if not all that there are behind `offset`.
    size: Option<u64>,
    limits: Option<GroupMember>,
}

impl Raw {
    /// A part of `file`, which was checked to be one.
    pub fn new(file: Edge, offset: u64, size: Option<u64>) -> Self {
        Self { file, offset, size, limits: None }
    }

    /// All of `file` within the limits of a group.
    pub fn within(file: Edge, limits: GroupMember) -> Self {
        Self { file, offset: 0, size: None, limits: Some(limits) }
    }

    /// Where `length` bytes at `offset` are below, if they are inside: formats above would grow into what follows.
    fn at(&self, offset: u64, length: u64) -> io::Result<u64> {
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        if self.size.is_some_and(|size| end > size) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.offset.checked_add(offset).ok_or_else(|| io::ErrorKind::InvalidInput.into())
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

    fn filename(&self) -> Option<String> {
        let whole = self.offset == 0 && self.size.is_none() && self.limits.is_none();
        whole.then(|| self.file.node().filename())
    }

    fn description(&self) -> Option<Map<String, Value>> {
        let mut members = Map::new();
        if let Some(group) = self.group() {
            members.insert("throttle-group".to_owned(), group.name().into());
        } else if self.offset != 0 || self.size.is_some() {
            members.insert("offset".to_owned(), self.offset.into());
        }
        members.insert("file".to_owned(), self.file.node().description());
        if let Some(size) = self.size {
            members.insert("size".to_owned(), size.into());
        }
        Some(members)
    }

    fn passes_on(&self) -> bool {
        true
    }

    fn group(&self) -> Option<&Arc<ThrottleGroup>> {
        self.limits.as_ref().map(GroupMember::group)
    }

    fn image(&self) -> ImageDetails {
        ImageDetails { dirty: self.file.node().image().dirty, ..ImageDetails::default() }
    }
}
