//! What stands behind devices on the host: character backends and block nodes.

use std::{fmt, io, sync::Arc};

use rhea_backends::{block::BlockNodes, char::CharDevices};

/// What stands behind devices on the host.
#[derive(Clone)]
pub struct Backends {
    /// Character backends.
    pub chars: Arc<CharDevices>,
    /// Block nodes and drives.
    pub blocks: Arc<BlockNodes>,
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
        Ok(Self { chars: CharDevices::new()?, blocks: BlockNodes::new() })
    }
}
