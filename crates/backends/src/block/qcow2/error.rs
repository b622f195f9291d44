//! Why an image's snapshots cannot be read or changed.

use std::io;

/// Why an image's snapshots cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The host.
    #[error("{}", rhea_core::files::reason(.0))]
    Io(#[from] io::Error),
    /// What is in the image cannot be.
    #[error("the image is damaged: {0}")]
    Damaged(&'static str),
    /// Features that are not handled.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A count does not fit.
    #[error("the image counts references in {0} bits, which is too little for another snapshot")]
    TooOften(u32),
    /// There is no room.
    #[error("the image has no room for that")]
    Full,
    /// No such snapshot.
    #[error("there is no such snapshot")]
    NoSnapshot,
}
