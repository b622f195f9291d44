//! Why a machine could not be built, or did not do what was asked.

use std::io;

use crate::{
    boot::LoadError, config::ConfigError, devices::DeviceError, held::Job, state::error::StateError,
    topology::PlaceError,
};

/// Why a machine could not be built, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The configuration cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nodes that do not fit together.
    #[error("-numa: {0}")]
    Numa(crate::numa::NumaError),
    /// RAM that cannot be.
    #[error("{0}")]
    Memory(String),
    /// The software does not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Disks that were not given away or taken back.
    #[error(transparent)]
    Disks(rhea_backends::block::BlockError),
    /// A device was not made, or stays.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// What is said of all devices of a type does not fit one.
    #[error(transparent)]
    Global(#[from] Box<crate::globals::GlobalError>),
    /// A device that was asked for with the machine cannot be.
    #[error("-device {driver}: {reason}")]
    Asked {
        /// What it was to be.
        driver: String,
        /// Why.
        reason: Box<Self>,
    },
    /// A character backend cannot be used.
    #[error(transparent)]
    Character(#[from] rhea_backends::char::CharError),
    /// A block node cannot be made or used.
    #[error(transparent)]
    Block(#[from] rhea_backends::block::BlockError),
    /// A block node that was asked for with the machine cannot be.
    #[error("-{option} {name}: {reason}")]
    Node {
        /// How it was asked for.
        option: &'static str,
        /// Its name.
        name: String,
        /// Why.
        reason: rhea_backends::block::BlockError,
    },
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
    /// A place in the order of boot devices that is taken.
    #[error(transparent)]
    BootIndex(#[from] crate::boot_order::BootIndexError),
    /// Tables that tell of the machine cannot be.
    #[error(transparent)]
    Smbios(#[from] crate::smbios::SmbiosError),
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
    /// A place for a processor that is none, or not free.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A number that no processor has.
    #[error("Invalid CPU id: {0}")]
    ProcessorNumber(i64),
    /// A number beyond what the machine has places for.
    #[error("Unable to add CPU: {index}, max allowed: {last}")]
    ProcessorLimit {
        /// The number.
        index: i64,
        /// The last that there is.
        last: i64,
    },
    /// A number that a processor has.
    #[error("Unable to add CPU: {0}, it already exists")]
    ProcessorExists(i64),
    /// Something is under way that needs the machine as it is.
    #[error("{0}")]
    Busy(Job),
    /// A snapshot was not made, loaded or deleted.
    #[error(transparent)]
    Snapshot(#[from] crate::snapshots::error::SnapshotError),
    /// A state was not saved or loaded.
    #[error("{0}")]
    State(StateError),
    /// A file that is to be written cannot be made.
    #[error("Could not create '{}': {reason}", path.display())]
    Create {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// A dump could not be written.
    #[error("dump: {0}")]
    Dump(String),
    /// The board cannot do this.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl From<crate::numa::NumaError> for MachineError {
    fn from(error: crate::numa::NumaError) -> Self {
        // It is told in full: no cause of its own, which would be told again.
        Self::Numa(error)
    }
}
