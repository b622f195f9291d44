//! A QMP connection as a client sees it: text out, messages in, and nothing known of what they mean.
//!
//! It is written apart from the client in `crates/qmp`, so that a fault there is not mirrored here.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;

/// One connection to a monitor.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    received: Vec<u8>,
}

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The other side has closed the connection.
    #[error("the connection ended")]
    Ended,
    /// The other side stayed silent.
    #[error("no message within {0:?}")]
    Silent(Duration),
    /// What came is no line of JSON that ends in CR LF.
    #[error("not a line of JSON ended by CR LF: {0}")]
    Malformed(String),
    /// The socket failed.
    #[error("the monitor's socket: {0}")]
    Socket(#[from] io::Error),
}

impl Monitor {
    /// Speaks over an open connection.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, received: Vec::new() }
    }

    /// Sends text as it is, with a line feed behind it.
    pub fn send(&mut self, text: &str) -> Result<(), MonitorError> {
        let mut message = text.as_bytes().to_vec();
        message.push(b'\n');
        Ok(self.stream.write_all(&message)?)
    }

    /// Sends text with a descriptor attached to it.
    pub fn send_with(&mut self, text: &str, descriptor: BorrowedFd<'_>) -> Result<(), MonitorError> {
        let message = [text.as_bytes(), b"\n"].concat();
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let sent = sendmsg(&self.stream, &[IoSlice::new(&message)], &mut control, SendFlags::empty())
            .map_err(io::Error::from)?;
        // The rest of a long message goes without.
        Ok(self.stream.write_all(&message[sent..])?)
    }

    /// Waits for the next message.
    pub fn receive(&mut self, patience: Duration) -> Result<Value, MonitorError> {
        let line = self.receive_line(patience)?;
        let malformed = || MonitorError::Malformed(String::from_utf8_lossy(&line).into_owned());
        let text = line.strip_suffix(b"\r\n").ok_or_else(malformed)?;
        serde_json::from_slice(text).map_err(|_| malformed())
    }

    /// Waits until the other side closes the connection, and returns what it sent before that.
    pub fn receive_to_end(&mut self, patience: Duration) -> Result<Vec<Value>, MonitorError> {
        let deadline = Instant::now() + patience;
        let mut messages = Vec::new();
        loop {
            match self.receive(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => messages.push(message),
                Err(MonitorError::Ended) => return Ok(messages),
                Err(error) => return Err(error),
            }
        }
    }

    fn receive_line(&mut self, patience: Duration) -> Result<Vec<u8>, MonitorError> {
        let deadline = Instant::now() + patience;
        let mut searched = 0;
        loop {
            if let Some(end) = self.received[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(searched + end + 1);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            searched = self.received.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(MonitorError::Silent(patience));
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) if self.received.is_empty() => return Err(MonitorError::Ended),
                Ok(0) => return Err(MonitorError::Malformed(String::from_utf8_lossy(&self.received).into_owned())),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(MonitorError::Ended),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(MonitorError::Silent(patience));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pair() -> (Monitor, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Monitor::new(ours), theirs)
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let (mut monitor, mut server) = pair();
        server.write_all(b"{\"a\": 1}\r\n{\"b\"").unwrap();
        assert_eq!(monitor.receive(Duration::from_secs(5)).unwrap(), json!({"a": 1}));
        server.write_all(b": 2}\r").unwrap();
        server.write_all(b"\n").unwrap();
        assert_eq!(monitor.receive(Duration::from_secs(5)).unwrap(), json!({"b": 2}));
    }

    #[test]
    fn a_message_without_carriage_return_is_malformed() {
        let (mut monitor, mut server) = pair();
        server.write_all(b"{}\n").unwrap();
        assert!(matches!(monitor.receive(Duration::from_secs(5)), Err(MonitorError::Malformed(_))));
    }

    #[test]
    fn silence_and_the_end_are_told_apart() {
        let (mut monitor, server) = pair();
        assert!(matches!(monitor.receive(Duration::from_millis(10)), Err(MonitorError::Silent(_))));
        drop(server);
        assert!(matches!(monitor.receive(Duration::from_secs(5)), Err(MonitorError::Ended)));
    }

    #[test]
    fn half_a_message_at_the_end_is_malformed() {
        let (mut monitor, mut server) = pair();
        server.write_all(b"{\"a\"").unwrap();
        drop(server);
        assert!(matches!(monitor.receive_to_end(Duration::from_secs(5)), Err(MonitorError::Malformed(_))));
    }
}
