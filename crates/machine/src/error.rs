//! Why a machine could not be built, or did not do what was asked.

use std::io;

use crate::{boot::LoadError, config::ConfigError};

/// Why a machine could not be built, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The configuration cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The software does not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The PCI bus has no free slot.
    #[error("no slot of the PCI bus is free")]
    NoSlot,
    /// No object that could stand behind a device: the property that names it, and the name.
    #[error("Parameter '{0}': there is no such object '{1}'")]
    NoBackend(&'static str, String),
    /// No bridge of this name.
    #[error("Bus '{0}' not found")]
    NoBus(String),
    /// An id that another device has.
    #[error("Duplicate device ID '{0}'")]
    DuplicateId(String),
    /// No device of this id.
    #[error("Device '{0}' not found")]
    NoDevice(String),
    /// A second balloon.
    #[error("Only one balloon device is supported")]
    SecondBalloon,
    /// A place on the PCI bus that is not free.
    #[error(transparent)]
    Pci(#[from] rhea_devices::chipset::pci::AddError),
    /// An object that was asked for cannot be.
    #[error("-object {id}: {reason}")]
    Object {
        /// Which.
        id: String,
        /// Why.
        reason: crate::objects::ObjectError,
    },
    /// The tree of objects has no room for something.
    #[error(transparent)]
    Tree(#[from] rhea_core::object::TreeError),
    /// The host refused something.
    #[error("{what}: {reason}")]
    Host {
        /// What was wanted.
        what: String,
        /// What the host said.
        reason: io::Error,
    },
    /// A file cannot be opened.
    #[error("Could not open '{}': {reason}", path.display())]
    Open {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// Memory that is not there.
    #[error("Invalid addr 0x{address:016x}/size {size} specified")]
    Range {
        /// First address.
        address: u64,
        /// Bytes from there.
        size: u64,
    },
    /// The guest ended; only a reset brings it back.
    #[error("Resetting the Virtual Machine is required")]
    ResetRequired,
    /// `system_wakeup` of a guest that does not sleep.
    #[error("Unable to wake up: guest is not in suspended state")]
    NotSuspended,
    /// The board cannot do this.
    #[error("{0}")]
    Unsupported(&'static str),
}
