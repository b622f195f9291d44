//! Why a snapshot was not made, loaded or deleted.

use crate::state::error::StateError;

/// The longest name of a snapshot that other programs take, too.
pub(super) const LONGEST_NAME: usize = 255;

/// Why a snapshot was not made, loaded or deleted.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// None of these names a snapshot.
    #[error("The name of a snapshot has 1 to {LONGEST_NAME} bytes")]
    Name,
    /// A list of disks with none in it.
    #[error("At least one device is required for snapshot")]
    NoDevices,
    /// No node of this name.
    #[error("No block device node '{0}'")]
    NoNode(String),
    /// A disk that has no snapshots.
    #[error("Device '{0}' is writable but does not support snapshots")]
    Unsupported(String),
    /// A disk that must not be written.
    #[error("Device '{0}' is read-only and does not take snapshots")]
    ReadOnly(String),
    /// The disk for the machine's state is none of those that were named.
    #[error("vmstate block device '{0}' does not exist")]
    NoStateNode(String),
    /// No disk can hold the machine's state.
    #[error("no block device can store vmstate for snapshot")]
    NoStateDisk,
    /// There is one of this name.
    #[error("Snapshot '{0}' already exists in one or more devices")]
    Exists(String),
    /// There is none of this name.
    #[error("Snapshot '{0}' does not exist in one or more devices")]
    Missing(String),
    /// There is no state of the machine in it.
    #[error("This is a disk-only snapshot. Revert to it offline using qemu-img")]
    DiskOnly,
    /// The machine's state is not one, or not of this machine.
    #[error("Error while loading VM state: {0}")]
    State(StateError),
    /// The machine's state cannot be saved.
    #[error("Error while saving VM state: {0}")]
    NotSaved(StateError),
    /// Somebody did not want it any more.
    #[error("the job was cancelled")]
    Cancelled,
    /// It went wrong half-way.
    #[error("The machine is neither what it was nor what it was to be, and must be reset: {0}")]
    Broken(String),
}
