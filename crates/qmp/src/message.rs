//! The messages that a server sends, each one line: greeting, result, error, event.

use serde_json::Value;

use crate::error::Error;
use crate::json;

/// What every message ends in.
const END: &[u8] = b"\r\n";

/// Appends the greeting; `version` is the object that `query-version` answers with.
pub fn append_greeting(out: &mut Vec<u8>, version: &Value) {
    out.extend_from_slice(b"{\"QMP\": {\"version\": ");
    json::append(out, version);
    out.extend_from_slice(b", \"capabilities\": [\"oob\"]}}");
    out.extend_from_slice(END);
}

/// Appends the answer to a command: its result, or its error.
pub fn append_answer(out: &mut Vec<u8>, result: &Result<Value, Error>, id: Option<&Value>) {
    match result {
        Ok(value) => {
            out.extend_from_slice(b"{\"return\": ");
            json::append(out, value);
            if let Some(id) = id {
                out.extend_from_slice(b", \"id\": ");
                json::append(out, id);
            }
        }
        Err(error) => {
            out.push(b'{');
            if let Some(id) = id {
                out.extend_from_slice(b"\"id\": ");
                json::append(out, id);
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(b"\"error\": ");
            json::append(out, error);
        }
    }
    out.push(b'}');
    out.extend_from_slice(END);
}

/// Appends an event.
pub fn append_event(out: &mut Vec<u8>, event: &Event) {
    let Event { name, data, seconds, microseconds } = event;
    out.extend_from_slice(b"{\"timestamp\": {\"seconds\": ");
    json::append(out, seconds);
    out.extend_from_slice(b", \"microseconds\": ");
    json::append(out, microseconds);
    out.extend_from_slice(b"}, \"event\": ");
    json::append(out, name);
    if let Some(data) = data {
        out.extend_from_slice(b", \"data\": ");
        json::append(out, data);
    }
    out.push(b'}');
    out.extend_from_slice(END);
}

/// Something that happened, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What happened, such as `STOP`.
    pub name: String,
    /// The particulars, for events that have any.
    pub data: Option<Value>,
    /// When, in whole seconds since 1970; -1 if the clock cannot say.
    pub seconds: i64,
    /// The microseconds after that second; -1 if the clock cannot say.
    pub microseconds: i64,
}
