//! Why a machine was not saved or loaded.

use rhea_core::{LoadError, SaveError};

use super::stream::StreamError;

/// Why a machine was not saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// What it is written to or read from.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A frame that holds something else than its kind says.
    #[error("the state has a frame of another form: {0}")]
    Form(String),
    /// Frames that do not follow each other so.
    #[error("the state is of no use here: {0}")]
    Order(&'static str),
    /// It is the state of another machine.
    #[error("the state does not fit this machine: {0}")]
    OtherMachine(String),
    /// A part that this machine does not have.
    #[error("the state has '{kind}' at '{place}', and this machine nothing: see -device")]
    Surplus {
        /// Where.
        place: String,
        /// What.
        kind: String,
    },
    /// A part that the state does not have.
    #[error("this machine has '{kind}' at '{place}', and the state nothing: see -device")]
    Missing {
        /// Where.
        place: String,
        /// What.
        kind: &'static str,
    },
    /// Another part in the same place.
    #[error("the state has '{there}' at '{place}', and this machine '{here}': see -device")]
    OtherKind {
        /// Where.
        place: String,
        /// In the state.
        there: String,
        /// In the machine.
        here: &'static str,
    },
    /// The same part twice.
    #[error("the state has '{0}' twice")]
    Twice(String),
    /// A shape of another time.
    #[error("the state of '{place}' has version {found}, and only {known} is known")]
    Version {
        /// Where.
        place: String,
        /// In the state.
        found: u32,
        /// In this program.
        known: u32,
    },
    /// A state that a part does not take.
    #[error("'{place}': {reason}")]
    Refused {
        /// Where.
        place: String,
        /// Why.
        reason: LoadError,
    },
    /// A state that a part does not give.
    #[error("'{place}': {reason}")]
    NotSaved {
        /// Where.
        place: String,
        /// Why.
        reason: SaveError,
    },
    /// The machine is not held for this.
    #[error("the machine does not stand still")]
    NotStanding,
    /// The disks are not given away.
    #[error("{0}")]
    Disks(String),
    /// The machine ends.
    #[error("the machine is ending")]
    CalledOff,
}

impl From<std::io::Error> for StateError {
    fn from(error: std::io::Error) -> Self {
        StreamError::from(error).into()
    }
}
