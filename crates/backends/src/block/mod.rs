//! Disks: nodes with the bytes of files, images and parts of them, which stand on each other and are used by devices.

mod error;
mod file;
mod layer;
mod node;
mod nodes;
mod null;
mod options;
mod qcow2;
mod raw;
mod snapshots;
mod throttle;
mod usage;

pub use error::BlockError;
pub use layer::ImageDetails;
pub use node::Node;
pub use nodes::{BlockNodes, Disk, DriveConfig, DriveLimits};
pub use options::{DetectZeroes, NodeSettings};
pub use qcow2::{NewSnapshot, Snapshot, SnapshotError};
/// Snapshots as they are in the file of an image, whatever that is in.
pub mod snapshot_format {
    pub use super::qcow2::{Fields, ImageFile, Reader, Writer, delete, go_back, read_snapshots};
}
pub use snapshots::SnapshotWriter;
pub use throttle::{GroupMember, LIMIT_NAMES, LimitError, Limits, ThrottleGroup};
pub use usage::{BlockStatistics, BlockUse, Count};
