//! The error that a QMP command answers with: a class that clients branch on, and a text for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Error classes that clients tell apart; everything else is [`ErrorClass::GenericError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorClass {
    /// Any failure with no class of its own.
    GenericError,
    /// The command does not exist, or may not be given now.
    CommandNotFound,
    /// The command needs a device that this machine does not have.
    DeviceNotActive,
    /// No device, object or type of that name.
    DeviceNotFound,
    /// KVM lacks a capability that the command needs.
    KVMMissingCap,
}

/// A failed command: its class and a text that names the thing and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{desc}")]
pub struct Error {
    /// What kind of failure this is.
    pub class: ErrorClass,
    /// The text for people.
    pub desc: String,
}

impl Error {
    /// An error of `class` with the text `desc`.
    pub fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        Self { class, desc: desc.into() }
    }

    /// A [`ErrorClass::GenericError`] with the text of `desc`.
    pub fn generic(desc: impl fmt::Display) -> Self {
        Self::new(ErrorClass::GenericError, desc.to_string())
    }

    /// The answer to a command that does not exist.
    pub fn command_not_found(command: &str) -> Self {
        Self::new(ErrorClass::CommandNotFound, format!("The command {command} has not been found"))
    }

    /// The answer to a name, path or type that does not exist.
    pub fn device_not_found(name: &str) -> Self {
        Self::new(ErrorClass::DeviceNotFound, format!("Device '{name}' not found"))
    }
}
