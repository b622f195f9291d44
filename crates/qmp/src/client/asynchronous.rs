//! A client for `tokio` programs.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::received::{Message, Received};
use super::{ClientError, command_message, enable, encode};
use crate::message::Event;

/// How much is read at a time.
const CHUNK: usize = 16 << 10;

/// A negotiated connection to a monitor.
pub struct AsyncClient<S> {
    stream: S,
    received: Received,
    chunk: Box<[u8]>,
    greeting: Map<String, Value>,
    events: VecDeque<Event>,
    next_id: u64,
}

impl AsyncClient<UnixStream> {
    /// Connects to the unix socket at `path` and negotiates.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        Self::new(UnixStream::connect(path).await?, &[]).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncClient<S> {
    /// Reads the greeting and negotiates `capabilities`, such as `oob`.
    pub async fn new(stream: S, capabilities: &[&str]) -> Result<Self, ClientError> {
        let mut client = Self {
            stream,
            received: Received::default(),
            chunk: vec![0; CHUNK].into_boxed_slice(),
            greeting: Map::new(),
            events: VecDeque::new(),
            next_id: 0,
        };
        let Message::Greeting(greeting) = client.receive().await? else {
            return Err(ClientError::Protocol("no greeting".to_owned()));
        };
        client.greeting = greeting;
        client.execute("qmp_capabilities", enable(capabilities)).await?;
        Ok(client)
    }

    /// What the server said of itself.
    pub fn greeting(&self) -> &Map<String, Value> {
        &self.greeting
    }

    /// Runs `command` and waits for what comes of it. `arguments` is an object, or null for none.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, ClientError> {
        self.run("execute", command, arguments).await
    }

    /// Runs `command` out of band.
    pub async fn execute_out_of_band(&mut self, command: &str, arguments: Value) -> Result<Value, ClientError> {
        self.run("exec-oob", command, arguments).await
    }

    /// Sends `message` as it is.
    pub async fn send(&mut self, message: &Value) -> Result<(), ClientError> {
        self.stream.write_all(&encode(message)).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next message that is not in the queue of events. Nothing is lost if the wait is given up.
    pub async fn receive(&mut self) -> Result<Message, ClientError> {
        loop {
            if let Some(message) = self.received.take() {
                return message;
            }
            match self.stream.read(&mut self.chunk).await? {
                0 => return Err(ClientError::Closed),
                count => self.received.push(&self.chunk[..count]),
            }
        }
    }

    /// The events that came while something else was waited for, earliest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    /// Waits for the event `name`, which may have come already. Other events stay in the queue.
    pub async fn wait_event(&mut self, name: &str, deadline: Instant) -> Result<Event, ClientError> {
        if let Some(known) = self.events.iter().position(|event| event.name == name)
            && let Some(event) = self.events.remove(known)
        {
            return Ok(event);
        }
        loop {
            let next = tokio::time::timeout_at(deadline.into(), self.receive()).await;
            if let Message::Event(event) = next.map_err(|_| ClientError::TimedOut)?? {
                if event.name == name {
                    return Ok(event);
                }
                self.events.push_back(event);
            }
        }
    }

    async fn run(&mut self, verb: &str, command: &str, arguments: Value) -> Result<Value, ClientError> {
        self.next_id += 1;
        let awaited = Value::from(self.next_id);
        self.send(&command_message(verb, command, arguments, self.next_id)).await?;
        loop {
            match self.receive().await? {
                Message::Return { value, id } if id.as_ref() == Some(&awaited) => return Ok(value),
                Message::Error { error, id } if id.as_ref() == Some(&awaited) => return Err(error.into()),
                Message::Event(event) => self.events.push_back(event),
                Message::Error { error, id: None } => {
                    return Err(ClientError::Protocol(format!("our message was not understood: {error}")));
                }
                // The answer to a command that was given up.
                Message::Return { .. } | Message::Error { .. } => {}
                Message::Greeting(_) => return Err(ClientError::Protocol("a second greeting".to_owned())),
            }
        }
    }
}
