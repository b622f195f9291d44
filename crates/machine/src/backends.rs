//! What stands behind devices on the host: character backends and disks.

use std::{fmt, io, sync::Arc};

use rhea_backends::char::CharDevices;
use rhea_core::BlockMedium;

use crate::devices::DeviceError;

/// What stands behind devices on the host.
#[derive(Clone)]
pub struct Backends {
    /// Character backends.
    pub chars: Arc<CharDevices>,
    /// Disks.
    pub disks: Arc<dyn Disks>,
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backends")
    }
}

impl Backends {
    /// None yet.
    ///
    /// # Errors
    /// The host has no more threads or descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { chars: CharDevices::new()?, disks: Arc::new(NoDisks) })
    }
}

/// A disk that a device has for itself.
pub struct Disk {
    /// Where its bytes are.
    pub medium: Arc<dyn BlockMedium>,
    /// Whether room that the guest gives back goes to the host.
    pub unmap: bool,
    /// What it says it is, if the device does not say.
    pub serial: Option<String>,
}

/// Where devices get their disks.
pub trait Disks: Send + Sync {
    /// The disk `name` for a device called `device`. It is free again when nobody holds its medium any more.
    ///
    /// # Errors
    /// There is none, it has a user, or it cannot be opened.
    fn claim(&self, name: &str, device: &str) -> Result<Disk, DeviceError>;
}

struct NoDisks;

impl Disks for NoDisks {
    fn claim(&self, name: &str, _: &str) -> Result<Disk, DeviceError> {
        Err(DeviceError::no_disk(name))
    }
}
