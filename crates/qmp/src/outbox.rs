//! What waits to be sent to one client, filled from any thread and emptied by the client's session.

use std::task::Waker;

use parking_lot::Mutex;
use serde_json::Value;

use crate::{after::AfterAnswer, error::Error};

/// Most bytes of events that wait for one client; one that lets more pile up is cut off.
pub(crate) const MOST_EVENTS: usize = 4 << 20;

/// A command that ran on a thread of its own, and what came of it.
pub(crate) struct Finished {
    pub(crate) result: Result<Value, Error>,
    pub(crate) id: Option<Value>,
    pub(crate) out_of_band: bool,
    /// Dropped once the answer is queued.
    pub(crate) after: Option<AfterAnswer>,
}

#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    /// How many of `bytes` are events.
    events: usize,
    finished: Vec<Finished>,
    wants_events: bool,
    overflowed: bool,
    closing: bool,
    waker: Option<Waker>,
}

impl Contents {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What [`Outbox::watch`] found.
pub(crate) struct Found {
    /// Commands that finished since.
    pub(crate) finished: Vec<Finished>,
    /// The client let too many events pile up.
    pub(crate) overflowed: bool,
    /// The session is to end once everything is written.
    pub(crate) closing: bool,
}

/// The queue of one session.
#[derive(Default)]
pub(crate) struct Outbox {
    contents: Mutex<Contents>,
}

impl Outbox {
    /// Queues an event, if the session wants any.
    pub(crate) fn push_event(&self, message: &[u8]) {
        let mut contents = self.contents.lock();
        if !contents.wants_events || contents.overflowed {
            return;
        }
        if contents.events + message.len() > MOST_EVENTS {
            contents.overflowed = true;
            contents.bytes = Vec::new();
        } else {
            contents.bytes.extend_from_slice(message);
            contents.events += message.len();
        }
        contents.wake();
    }

    /// Hands over what came of a command that ran elsewhere.
    pub(crate) fn finish(&self, finished: Finished) {
        let mut contents = self.contents.lock();
        contents.finished.push(finished);
        contents.wake();
    }

    /// Asks the session to end.
    pub(crate) fn close(&self) {
        let mut contents = self.contents.lock();
        contents.closing = true;
        contents.wake();
    }

    /// Queues what the session itself sends. `wants_events`: whether events may follow it.
    pub(crate) fn append(&self, wants_events: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let mut contents = self.contents.lock();
        write(&mut contents.bytes);
        contents.wants_events = wants_events;
    }

    /// Takes what has come from elsewhere, and has `waker` called when more comes.
    pub(crate) fn watch(&self, waker: &Waker) -> Found {
        let mut contents = self.contents.lock();
        match &mut contents.waker {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
        Found {
            finished: std::mem::take(&mut contents.finished),
            overflowed: contents.overflowed,
            closing: contents.closing,
        }
    }

    /// Whether the session is to end.
    pub(crate) fn closing(&self) -> bool {
        self.contents.lock().closing
    }

    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.contents.lock().bytes.len()
    }

    /// Swaps everything that waits into `empty`, which must be empty.
    pub(crate) fn take(&self, empty: &mut Vec<u8>) {
        let mut contents = self.contents.lock();
        std::mem::swap(&mut contents.bytes, empty);
        contents.events = 0;
    }
}
