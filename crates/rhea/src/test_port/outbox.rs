//! What waits to be sent to the test: replies, and changes of interrupt lines from whatever thread makes them.

use std::{io, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::request::MAX_LINE;

/// More than this cannot wait: a long reply, and the changes of lines of one long step of the clock.
const LIMIT: usize = 2 * MAX_LINE;

#[derive(Default)]
struct Waiting {
    text: String,
    overflowed: bool,
}

/// One queue for all, so that the order in which things happened is the order in which they are told.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

impl Outbox {
    /// An empty one.
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Appends a line. One that finds no room ends the conversation: a test must not miss it silently.
    pub(super) fn push(&self, line: &str) {
        let mut waiting = self.waiting.lock();
        if waiting.text.len() + line.len() >= LIMIT {
            waiting.overflowed = true;
            return;
        }
        waiting.text.push_str(line);
        waiting.text.push('\n');
        drop(waiting);
        self.changed.notify_one();
    }

    /// Waits until something was appended.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Bytes that wait.
    pub(super) fn length(&self) -> usize {
        self.waiting.lock().text.len()
    }

    /// Takes what waits.
    ///
    /// # Errors
    /// Something found no room.
    pub(super) fn take(&self) -> io::Result<String> {
        let mut waiting = self.waiting.lock();
        if waiting.overflowed {
            tracing::warn!("test port: more changes of interrupt lines than can be told");
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(std::mem::take(&mut waiting.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_order_and_none_is_lost_silently() {
        let outbox = Outbox::new();
        outbox.push("IRQ raise 8");
        outbox.push("OK");
        assert_eq!(outbox.take().unwrap(), "IRQ raise 8\nOK\n");
        assert_eq!(outbox.length(), 0);
        let long = "x".repeat(LIMIT / 3);
        for _ in 0..3 {
            outbox.push(&long);
        }
        assert!(outbox.take().is_err());
    }
}
