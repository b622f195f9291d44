//! What stands in a frame of a saved machine: values in CBOR.

use serde::{Serialize, de::DeserializeOwned};

use super::error::StateError;

/// What stands in a frame, in CBOR.
pub(super) fn encode(what: &impl Serialize) -> Result<Vec<u8>, StateError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(what, &mut bytes).map_err(|error| StateError::Form(error.to_string()))?;
    Ok(bytes)
}

/// What stood in a frame. What holds more than its kind of frame can was refused before.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
    let mut rest = bytes;
    let what = ciborium::from_reader(&mut rest).map_err(|error| StateError::Form(error.to_string()))?;
    if rest.is_empty() { Ok(what) } else { Err(StateError::Form("something follows in the same frame".to_owned())) }
}
