//! Saved state: how a chip becomes data and comes back.
//!
//! A chip's state is one versioned serde structure in its own module, built and read by exhaustive destructuring, so
//! that a new field does not compile until save and load know it.

use serde::{Serialize, de::DeserializeOwned};

/// Why a saved state was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A value that no device of this kind can have reached.
    #[error("saved state of '{part}': {reason}")]
    Invalid {
        /// What the value belongs to.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl LoadError {
    /// A refusal of `part`'s state because of `reason`.
    pub fn invalid(part: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { part, reason: reason.into() }
    }
}

/// A chip whose whole state is data.
pub trait SaveState: Sized {
    /// The saved form; a change of shape is a new version beside the old one.
    type State: Serialize + DeserializeOwned;

    /// The state now.
    fn save(&self) -> Self::State;

    /// A chip in that state.
    ///
    /// # Errors
    /// A value that the chip cannot have is refused; nothing panics on a bad file.
    fn load(state: Self::State) -> Result<Self, LoadError>;
}
