//! What a server sends, told apart.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::ClientError;
use crate::error::{Error, ErrorClass};
use crate::json::Decoder;
use crate::message::Event;

/// One message of a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The first message: the object under `QMP`.
    Greeting(Map<String, Value>),
    /// A command's result.
    Return {
        /// The result.
        value: Value,
        /// The command's `id`.
        id: Option<Value>,
    },
    /// A command's error.
    Error {
        /// What went wrong.
        error: Error,
        /// The command's `id`, where the server could read it.
        id: Option<Value>,
    },
    /// Something happened.
    Event(Event),
}

impl TryFrom<Value> for Message {
    type Error = ClientError;

    fn try_from(message: Value) -> Result<Self, ClientError> {
        let Value::Object(mut members) = message else {
            return Err(ClientError::Protocol("a message that is no object".to_owned()));
        };
        let id = members.shift_remove("id");
        if let Some(value) = members.shift_remove("return") {
            return Ok(Self::Return { value, id });
        }
        if let Some(error) = members.get("error") {
            return Ok(Self::Error { error: read_error(error), id });
        }
        if let Some(Value::String(name)) = members.shift_remove("event") {
            let stamp = |part: &str| members.get("timestamp")?.get(part)?.as_i64();
            let (seconds, microseconds) = (stamp("seconds").unwrap_or(-1), stamp("microseconds").unwrap_or(-1));
            let data = members.shift_remove("data");
            return Ok(Self::Event(Event { name, data, seconds, microseconds }));
        }
        if let Some(Value::Object(greeting)) = members.shift_remove("QMP") {
            return Ok(Self::Greeting(greeting));
        }
        Err(ClientError::Protocol("a message that is neither answer nor event".to_owned()))
    }
}

/// An error object; a class that we do not know is as good as the generic one.
fn read_error(error: &Value) -> Error {
    let class = error.get("class").and_then(|class| serde_json::from_value(class.clone()).ok());
    let desc = error.get("desc").and_then(Value::as_str).unwrap_or_default();
    Error::new(class.unwrap_or(ErrorClass::GenericError), desc)
}

/// Bytes from a server to messages, wherever the bytes are cut.
#[derive(Default)]
pub struct Received {
    decoder: Decoder,
    messages: VecDeque<Result<Message, ClientError>>,
}

impl Received {
    /// Takes bytes as they came.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while let Some(message) = self.decoder.next(&mut bytes) {
            self.messages.push_back(message.map_err(ClientError::from).and_then(Message::try_from));
        }
    }

    /// The next whole message.
    pub fn take(&mut self) -> Option<Result<Message, ClientError>> {
        self.messages.pop_front()
    }
}
