//! The QMP protocol: framing, sessions, negotiation, errors, events and descriptor passing, for servers and clients.
//! It knows no command.

pub mod arguments;
pub mod error;

pub use error::{Error, ErrorClass};
