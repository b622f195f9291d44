//! A client that waits: for tests, tools and threads.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Map, Value};

use super::received::{Message, Received};
use super::{ClientError, command_message, enable, encode};
use crate::message::Event;

/// How much is read at a time.
const CHUNK: usize = 16 << 10;

/// A stream of bytes whose reads may be limited in time.
pub trait Transport: Read + Write {
    /// Has reads fail with [`io::ErrorKind::WouldBlock`] or [`io::ErrorKind::TimedOut`] after `limit`, which is never zero.
    fn limit_reads(&mut self, limit: Option<Duration>) -> io::Result<()>;
}

impl Transport for UnixStream {
    fn limit_reads(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(limit)
    }
}

impl Transport for TcpStream {
    fn limit_reads(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(limit)
    }
}

/// A stream whose reads cannot be limited: deadlines are looked at between messages only.
#[derive(Debug)]
pub struct Untimed<S>(pub S);

impl<S: Read> Read for Untimed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<S: Write> Write for Untimed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<S: Read + Write> Transport for Untimed<S> {
    fn limit_reads(&mut self, _limit: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
}

/// The receiving side of a connection.
pub struct Receiver<S> {
    stream: S,
    received: Received,
    chunk: Box<[u8]>,
    limited: bool,
}

impl<S: Transport> Receiver<S> {
    fn new(stream: S) -> Self {
        Self { stream, received: Received::default(), chunk: vec![0; CHUNK].into_boxed_slice(), limited: false }
    }

    /// The next message, whatever it is, waiting until `deadline` or, without one, for ever.
    pub fn receive(&mut self, deadline: Option<Instant>) -> Result<Message, ClientError> {
        loop {
            if let Some(message) = self.received.take() {
                return message;
            }
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ClientError::TimedOut);
                }
                self.stream.limit_reads(Some(left))?;
                self.limited = true;
            } else if self.limited {
                self.stream.limit_reads(None)?;
                self.limited = false;
            }
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => self.received.push(&self.chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if deadline.is_some()
                        && matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The sending side of a connection.
pub struct Sender<S> {
    stream: S,
}

impl<S: Write> Sender<S> {
    /// Sends `message` as it is.
    pub fn send(&mut self, message: &Value) -> Result<(), ClientError> {
        self.stream.write_all(&encode(message))?;
        Ok(self.stream.flush()?)
    }
}

/// A negotiated connection to a monitor.
pub struct Client<S> {
    receiver: Receiver<S>,
    greeting: Map<String, Value>,
    events: VecDeque<Event>,
    next_id: u64,
}

impl Client<UnixStream> {
    /// Connects to the unix socket at `path` and negotiates.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        Self::new(UnixStream::connect(path)?)
    }

    /// Runs `command` with descriptors attached to its message.
    pub fn execute_with_descriptors(
        &mut self,
        command: &str,
        arguments: Value,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Value, ClientError> {
        let id = self.take_id();
        let bytes = encode(&command_message("execute", command, arguments, id));
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len()))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        let stream = &mut self.receiver.stream;
        let sent = sendmsg(stream.as_fd(), &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
            .map_err(io::Error::from)?;
        stream.write_all(bytes.get(sent..).unwrap_or_default())?;
        self.answer(id, None)
    }
}

impl Client<TcpStream> {
    /// Connects to a TCP port and negotiates.
    pub fn connect_tcp(address: impl ToSocketAddrs) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Self::new(stream)
    }
}

impl<S: Transport> Client<S> {
    /// Reads the greeting and negotiates, with no capabilities.
    pub fn new(stream: S) -> Result<Self, ClientError> {
        Self::with_capabilities(stream, &[])
    }

    /// Reads the greeting and negotiates `capabilities`, such as `oob`.
    pub fn with_capabilities(stream: S, capabilities: &[&str]) -> Result<Self, ClientError> {
        let mut receiver = Receiver::new(stream);
        let Message::Greeting(greeting) = receiver.receive(None)? else {
            return Err(ClientError::Protocol("no greeting".to_owned()));
        };
        let mut client = Self { receiver, greeting, events: VecDeque::new(), next_id: 0 };
        client.execute("qmp_capabilities", enable(capabilities))?;
        Ok(client)
    }

    /// What the server said of itself.
    pub fn greeting(&self) -> &Map<String, Value> {
        &self.greeting
    }

    /// Runs `command` and waits for what comes of it. `arguments` is an object, or null for none.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, ClientError> {
        let id = self.start("execute", command, arguments)?;
        self.answer(id, None)
    }

    /// As [`Self::execute`], until `deadline`. The answer to a command given up is passed over when it comes.
    pub fn execute_until(&mut self, command: &str, arguments: Value, deadline: Instant) -> Result<Value, ClientError> {
        let id = self.start("execute", command, arguments)?;
        self.answer(id, Some(deadline))
    }

    /// Runs `command` out of band.
    pub fn execute_out_of_band(&mut self, command: &str, arguments: Value) -> Result<Value, ClientError> {
        let id = self.start("exec-oob", command, arguments)?;
        self.answer(id, None)
    }

    /// Sends `message` as it is.
    pub fn send(&mut self, message: &Value) -> Result<(), ClientError> {
        self.receiver.stream.write_all(&encode(message))?;
        Ok(self.receiver.stream.flush()?)
    }

    /// The next message that is not in the queue of events.
    pub fn receive(&mut self, deadline: Option<Instant>) -> Result<Message, ClientError> {
        self.receiver.receive(deadline)
    }

    /// The events that came while something else was waited for, earliest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    /// Waits for the event `name`, which may have come already. Other events stay in the queue.
    pub fn wait_event(&mut self, name: &str, deadline: Instant) -> Result<Event, ClientError> {
        if let Some(known) = self.events.iter().position(|event| event.name == name)
            && let Some(event) = self.events.remove(known)
        {
            return Ok(event);
        }
        loop {
            if let Message::Event(event) = self.receiver.receive(Some(deadline))? {
                if event.name == name {
                    return Ok(event);
                }
                self.events.push_back(event);
            }
        }
    }

    /// Waits for the server to end the connection; events that come before stay in the queue.
    pub fn wait_closed(&mut self, deadline: Instant) -> Result<(), ClientError> {
        loop {
            match self.receiver.receive(Some(deadline)) {
                Ok(Message::Event(event)) => self.events.push_back(event),
                Ok(_) => {}
                Err(ClientError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Two halves for two threads; `duplicate` makes the second handle, as `UnixStream::try_clone` does. Events in
    /// the queue are lost: take them before.
    pub fn split(self, duplicate: impl FnOnce(&S) -> io::Result<S>) -> Result<(Sender<S>, Receiver<S>), ClientError> {
        let stream = duplicate(&self.receiver.stream)?;
        Ok((Sender { stream }, self.receiver))
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn start(&mut self, verb: &str, command: &str, arguments: Value) -> Result<u64, ClientError> {
        let id = self.take_id();
        self.send(&command_message(verb, command, arguments, id))?;
        Ok(id)
    }

    fn answer(&mut self, awaited: u64, deadline: Option<Instant>) -> Result<Value, ClientError> {
        loop {
            match self.receiver.receive(deadline)? {
                Message::Return { value, id } if id == Some(Value::from(awaited)) => return Ok(value),
                Message::Error { error, id } if id == Some(Value::from(awaited)) => return Err(error.into()),
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
