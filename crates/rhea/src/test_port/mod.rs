//! The test port: a text protocol by which a test reads and writes ports and memory, moves the clock and hears of
//! interrupt lines, with no guest code in between.
//!
//! It has a thread of its own. What a request causes is done when its reply goes out, and the interrupt lines that changed
//! meanwhile are told ahead of it.

mod answer;
mod log;
mod outbox;
mod request;

use std::{io, path::Path, sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use rhea_backends::char::{Connection, FrontEnd, Lease};
use rhea_machine::{Machine, TestAccess};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Mutex,
};

use answer::Port;
use log::Log;
use outbox::Outbox;
use request::MAX_LINE;

/// Replies are collected up to here before they are sent.
const FLUSH: usize = 64 * 1024;

/// The test port, as whoever ends the program holds it.
pub struct TestPort {
    /// Held from a request to its reply.
    busy: Arc<Mutex<()>>,
}

impl TestPort {
    /// Waits until the request under way, which may be the one that ended the machine, has its reply; at most `limit`.
    pub fn finish(&self, limit: Duration) {
        // Without a runtime there is nothing to wait with, and the program ends all the same.
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() {
            let reply = async { drop(tokio::time::timeout(limit, self.busy.lock()).await) };
            runtime.block_on(reply);
        }
    }
}

/// Serves the clients of `front` until the program ends.
///
/// # Errors
/// The log cannot be written, or the host has no more threads.
pub fn start(front: FrontEnd, log: Option<&Path>, machine: &Arc<Machine>) -> anyhow::Result<TestPort> {
    let mut log = Log::open(log)?;
    let access = TestAccess::new(machine);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let busy = Arc::new(Mutex::new(()));
    let port = TestPort { busy: Arc::clone(&busy) };
    let serve = async move {
        let mut conversations = front.conversations();
        loop {
            let Lease { connection, mark } = conversations.next().await;
            converse(connection, &access, &busy, &mut log).await;
            drop(mark);
        }
    };
    thread::Builder::new()
        .name("test port".to_owned())
        .spawn(move || runtime.block_on(serve))
        .context("could not start the thread of the test port")?;
    Ok(port)
}

/// One client, from its first request to its last.
async fn converse(connection: Connection, access: &TestAccess, busy: &Mutex<()>, log: &mut Log) {
    let outbox = Outbox::new();
    let mut port = Port::new(access.clone(), Arc::clone(&outbox));
    let (mut reader, mut writer) = tokio::io::split(connection);
    let mut lines = Lines::default();
    let mut bytes = vec![0; FLUSH];
    log.opened();
    loop {
        let count = tokio::select! {
            result = reader.read(&mut bytes) => match result {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            },
            () = outbox.changed() => 0,
        };
        let _busy = busy.lock().await;
        lines.add(&bytes[..count]);
        let mut sent = Ok(());
        while let Some(line) = lines.next() {
            let line = String::from_utf8_lossy(&line);
            log.received(&line);
            outbox.push(&port.answer(&line));
            if outbox.length() > FLUSH {
                sent = flush(&outbox, &mut writer, log).await;
            }
            if sent.is_err() {
                break;
            }
        }
        if sent.is_err() || flush(&outbox, &mut writer, log).await.is_err() {
            break;
        }
    }
    log.closed();
}

async fn flush(outbox: &Outbox, writer: &mut (impl AsyncWrite + Unpin), log: &mut Log) -> io::Result<()> {
    let text = outbox.take()?;
    log.sent(&text);
    writer.write_all(text.as_bytes()).await
}

/// Cuts what comes into lines. A line that is too long comes as its beginning only, which is no good request.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Where in `bytes` the next line begins, and how far there was no end of it.
    start: usize,
    searched: usize,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n').map(|at| self.searched + at);
        let Some(end) = end else {
            // Cut short, it still is too long, and the end of the line will answer it.
            self.bytes.truncate(self.start + MAX_LINE + 1);
            self.searched = self.bytes.len();
            return None;
        };
        let mut line = self.bytes[self.start..end].to_vec();
        self.start = end + 1;
        self.searched = self.start;
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for piece in pieces {
            lines.add(piece);
            out.extend(std::iter::from_fn(|| lines.next()));
            assert!(lines.bytes.len() <= MAX_LINE + 1 + piece.len());
        }
        out
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let expected = [b"inb 0x70".to_vec(), Vec::new(), b"outb 1 2".to_vec()];
        assert_eq!(cut(&[b"inb 0x70\n\noutb 1 2\r\nrest"]), expected);
        assert_eq!(cut(&[b"in", b"b 0x70", b"\n\n", b"outb 1 2", b"\n", b"re"]), expected);
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let piece = vec![b'x'; MAX_LINE / 4];
        let mut pieces = vec![piece.as_slice(); 20];
        pieces.push(b"\ninb 1\n");
        let lines = cut(&pieces);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].len() > MAX_LINE);
        assert_eq!(lines[1], b"inb 1");
    }
}
