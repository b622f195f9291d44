//! The client's side of QMP: connect, negotiate, give commands, hear events; blocking and asynchronous.

mod asynchronous;
mod blocking;
pub mod line;
mod received;
pub mod schema;

use serde_json::{Map, Value};

use crate::error::Error;
use crate::json::{self, SyntaxError};

pub use asynchronous::AsyncClient;
pub use blocking::{Client, Receiver, Sender, Transport, Untimed};
pub use received::{Message, Received};

/// What a client may meet.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The command failed.
    #[error(transparent)]
    Command(#[from] Error),
    /// The connection failed.
    #[error("connection to the monitor failed: {0}")]
    Io(#[from] std::io::Error),
    /// The server ended the connection.
    #[error("the monitor closed the connection")]
    Closed,
    /// Nothing came in time.
    #[error("the monitor did not answer in time")]
    TimedOut,
    /// The server sent something that is not JSON.
    #[error("the monitor does not speak QMP: {0}")]
    Syntax(#[from] SyntaxError),
    /// The server sent something that QMP does not have.
    #[error("the monitor does not speak QMP: {0}")]
    Protocol(String),
}

impl ClientError {
    /// The command's own error, if that is what this is.
    pub fn command_error(&self) -> Option<&Error> {
        match self {
            Self::Command(error) => Some(error),
            _ => None,
        }
    }
}

/// The message that gives `command`; `arguments` is an object, or null for none.
fn command_message(verb: &str, command: &str, arguments: Value, id: u64) -> Value {
    let mut message = Map::new();
    message.insert(verb.to_owned(), Value::from(command));
    if !arguments.is_null() {
        message.insert("arguments".to_owned(), arguments);
    }
    message.insert("id".to_owned(), Value::from(id));
    Value::Object(message)
}

/// The bytes of a message.
fn encode(message: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    json::append(&mut bytes, message);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The arguments of `qmp_capabilities` that enable `capabilities`.
fn enable(capabilities: &[&str]) -> Value {
    if capabilities.is_empty() { Value::Null } else { serde_json::json!({ "enable": capabilities }) }
}
