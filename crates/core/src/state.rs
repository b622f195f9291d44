//! Saved state: how a chip becomes data and comes back.
//!
//! A chip's state is one versioned serde structure in its own module, built and read by exhaustive destructuring, so
//! that a new field does not compile until save and load know it. In a saved machine it stands in CBOR (RFC 8949), which
//! says by itself what it holds.

pub use ciborium::Value;
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

/// A state that cannot be saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state of '{part}': {reason}")]
pub struct SaveError {
    /// What it belongs to.
    pub part: &'static str,
    /// Why not.
    pub reason: String,
}

/// A chip whose whole state is data.
pub trait SaveState: Sized {
    /// The saved form; a change of shape is a new version beside the old one.
    type State: Serialize + DeserializeOwned;

    /// The number of that shape.
    const VERSION: u32 = 1;

    /// The state now.
    fn save(&self) -> Self::State;

    /// A chip in that state.
    ///
    /// # Errors
    /// A value that the chip cannot have is refused; nothing panics on a bad file.
    fn load(state: Self::State) -> Result<Self, LoadError>;
}

/// An adapter whose chip can be saved and put back.
pub trait Saveable {
    /// The chip inside.
    type Chip: SaveState;

    /// What the device is, in a saved machine.
    const KIND: &'static str;

    /// The chip's state now.
    fn save(&self) -> <Self::Chip as SaveState>::State;

    /// Puts a saved state back and drives the outputs accordingly.
    ///
    /// # Errors
    /// A state that the chip cannot have is refused, and nothing changes.
    fn restore(&self, state: <Self::Chip as SaveState>::State) -> Result<(), LoadError>;
}

/// A part of a machine that can be saved, whatever its state looks like. It stands still meanwhile.
pub trait Stateful: Send + Sync {
    /// What it is.
    fn kind(&self) -> &'static str;

    /// The number of the shape of its state.
    fn version(&self) -> u32;

    /// Its state now.
    ///
    /// # Errors
    /// It cannot be saved.
    fn save_value(&self) -> Result<Value, SaveError>;

    /// Puts a state of the same kind and version back, and drives the outputs accordingly.
    ///
    /// # Errors
    /// A state that the part cannot have. What it has then is to be replaced by another.
    fn load_value(&self, state: &Value) -> Result<(), LoadError>;
}

impl<T: Saveable + Send + Sync> Stateful for T {
    fn kind(&self) -> &'static str {
        T::KIND
    }

    fn version(&self) -> u32 {
        T::Chip::VERSION
    }

    fn save_value(&self) -> Result<Value, SaveError> {
        to_value(T::KIND, &self.save())
    }

    fn load_value(&self, state: &Value) -> Result<(), LoadError> {
        self.restore(from_value(T::KIND, state)?)
    }
}

/// The state of `part` as it stands in a saved machine.
///
/// # Errors
/// It has no such form.
pub fn to_value(part: &'static str, state: &impl Serialize) -> Result<Value, SaveError> {
    Value::serialized(state).map_err(|error| SaveError { part, reason: error.to_string() })
}

/// The state of `part` from what stands in a saved machine.
///
/// # Errors
/// It is of another form.
pub fn from_value<T: DeserializeOwned>(part: &'static str, state: &Value) -> Result<T, LoadError> {
    state.deserialized().map_err(|error| LoadError::invalid(part, format!("of another form: {error}")))
}
