//! What a node does with its bytes.

use std::{any::Any, fmt, io, sync::Arc};

use rhea_core::memory::{GuestSlice, transfer};
use serde_json::{Map, Value};

use super::{error::BlockError, throttle::ThrottleGroup};

/// What a node does with its bytes. Ranges lie within its size, but for a file below a format, which grows.
pub trait Layer: Any + fmt::Debug + Send + Sync {
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

    /// The file on the host that it is in, if one name says it all.
    fn filename(&self) -> Option<String> {
        None
    }

    /// What it is, besides its driver; nothing if its file says it all.
    fn description(&self) -> Option<Map<String, Value>> {
        None
    }

    /// Whether it has its bytes from the node below as they are, so that whoever uses it uses that.
    fn passes_on(&self) -> bool {
        false
    }

    /// The limits within which it is used, if it is there for these.
    fn group(&self) -> Option<&Arc<ThrottleGroup>> {
        None
    }

    /// Lets other programs have it; what was held back is written.
    ///
    /// # Errors
    /// What the host says.
    fn inactivate(&self) -> io::Result<()> {
        Ok(())
    }

    /// Takes it back, as other programs left it.
    ///
    /// # Errors
    /// Another has it, or left it such that it cannot be used.
    fn activate(&self) -> Result<(), BlockError> {
        Ok(())
    }

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
