//! What cannot be done with block nodes.

use std::{io, path::PathBuf};

use rhea_core::files;

use super::{qcow2::SnapshotError, throttle::LimitError};

/// Why a node was not made, not removed or not given to a device.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// An option that must be there.
    #[error("Parameter '{0}' is missing")]
    Missing(String),
    /// An option that nobody takes.
    #[error("Parameter '{0}' is unexpected")]
    Unexpected(String),
    /// An option of the wrong kind.
    #[error("Invalid parameter type for '{name}', expected: {expected}")]
    Type {
        /// Which.
        name: String,
        /// What it should be.
        expected: &'static str,
    },
    /// An option with a value that there is not.
    #[error("Parameter '{name}' does not accept value '{value}'")]
    Value {
        /// Which.
        name: String,
        /// The value.
        value: String,
    },
    /// A driver that others have.
    #[error("Driver '{0}' is not supported; there are file, host_device, null-aio, null-co, qcow2, raw and throttle")]
    Driver(String),
    /// What the options ask for together, or of this file, cannot be.
    #[error("{0}")]
    Options(String),
    /// The outermost node has no name.
    #[error("'node-name' must be specified for the root node")]
    Nameless,
    /// A name that is none.
    #[error("Invalid node-name: '{0}'")]
    Name(String),
    /// Names are unique.
    #[error("Duplicate nodes with node-name='{0}'")]
    Duplicate(String),
    /// A name that a drive has.
    #[error("node-name={0} is conflicting with a device id")]
    DriveName(String),
    /// Ids of drives are unique.
    #[error("Device with id '{0}' already exists")]
    DuplicateDrive(String),
    /// No node of this name, to be stood on.
    #[error("Cannot find device='{0}' nor node-name='{0}'")]
    NoChild(String),
    /// No node of this name.
    #[error("Failed to find node with node-name='{0}'")]
    NoNode(String),
    /// No drive and no node of this name, for a device.
    #[error("Property 'virtio-blk-device.drive' can't find value '{0}'")]
    NoDrive(String),
    /// No group of limits has this name.
    #[error("Throttle group '{0}' does not exist")]
    NoGroup(String),
    /// Limits that cannot be.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// It has a device.
    #[error("Node {0} is in use")]
    InUse(String),
    /// Another node stands on it.
    #[error("Block device {0} is in use")]
    HasParents(String),
    /// It came with the node above it, and leaves with it.
    #[error("Node {0} is not owned by the monitor")]
    NotOwned(String),
    /// A drive has one device.
    #[error("Drive '{0}' is already in use by another device")]
    DriveInUse(String),
    /// Two want what only one can have.
    #[error(
        "Permission conflict on node '{node}': permissions 'write' are both required by {writer} and unshared by {other}."
    )]
    Conflict {
        /// The node.
        node: String,
        /// Who writes, and how it uses the node.
        writer: String,
        /// Who cannot live with that.
        other: String,
    },
    /// It cannot be written.
    #[error("Block node is read-only")]
    ReadOnly,
    /// Nodes on nodes on nodes.
    #[error("Too many nodes stand on each other")]
    TooDeep,
    /// The host, or what is in the file.
    #[error("Could not open '{}': {}", path.display(), files::reason(source))]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another program writes it.
    #[error("Failed to get {mode} lock: is another process using the image [{}]?", path.display())]
    Locked {
        /// What the lock is for.
        mode: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// Not of the format that it was said to be.
    #[error("Image is not in {0} format")]
    Format(&'static str),
    /// What was written could not be kept.
    #[error("Could not write to '{node}': {}", files::reason(source))]
    Write {
        /// To which node.
        node: String,
        /// Why.
        source: io::Error,
    },
    /// Another program may have it.
    #[error("Node '{0}' is inactive")]
    Inactive(String),
    /// It is nothing that has snapshots.
    #[error("Device '{0}' is writable but does not support snapshots")]
    NoSnapshots(String),
    /// A snapshot was not made, loaded or deleted.
    #[error("Error while {what} snapshot on '{node}': {reason}")]
    Snapshot {
        /// What was tried.
        what: &'static str,
        /// On which node.
        node: String,
        /// Why.
        reason: SnapshotError,
    },
    /// The size cannot be changed.
    #[error("Could not resize: {}", files::reason(.0))]
    Resize(io::Error),
}
