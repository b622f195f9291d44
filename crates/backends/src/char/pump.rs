//! Moves bytes between a device and its backend's connections.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Mutex as AsyncMutex, Notify},
};

use super::{Connection, Hook, Port, connections::Connections};

/// Output that waits for its reader at the most. A guest that writes into a terminal nobody reads loses what is past it.
const OUTPUT_LIMIT: usize = 1 << 20;

/// What a device has written and the backend has not taken yet.
#[derive(Default)]
pub(super) struct Output {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    bytes: VecDeque<u8>,
    /// Some were taken and are not out yet.
    writing: bool,
    /// Those who wait for room.
    waiting: Vec<Waker>,
}

impl Output {
    /// Appends `bytes`, as many as there is room for; never waits.
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut queue = self.queue.lock();
        let room = OUTPUT_LIMIT.saturating_sub(queue.bytes.len());
        queue.bytes.extend(&bytes[..bytes.len().min(room)]);
        drop(queue);
        self.changed.notify_one();
    }

    /// Appends as many of `bytes` as there is room for, once there is any, and says how many.
    pub(super) fn poll_push(&self, context: &Context<'_>, bytes: &[u8]) -> Poll<usize> {
        let mut queue = self.queue.lock();
        let count = bytes.len().min(OUTPUT_LIMIT.saturating_sub(queue.bytes.len()));
        if count == 0 && !bytes.is_empty() {
            if !queue.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                queue.waiting.push(context.waker().clone());
            }
            return Poll::Pending;
        }
        queue.bytes.extend(&bytes[..count]);
        drop(queue);
        self.changed.notify_one();
        Poll::Ready(count)
    }

    /// Whether everything is out.
    pub(super) fn is_flushed(&self) -> bool {
        let queue = self.queue.lock();
        queue.bytes.is_empty() && !queue.writing
    }

    /// Waits until something is there, and takes it all. What was taken before is out by then.
    async fn take(&self) -> Vec<u8> {
        loop {
            let taken = self.drain();
            if !taken.is_empty() {
                return taken;
            }
            self.changed.notified().await;
        }
    }

    fn drain(&self) -> Vec<u8> {
        let mut queue = self.queue.lock();
        let taken = std::mem::take(&mut queue.bytes);
        queue.writing = !taken.is_empty();
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        waiting.into_iter().for_each(Waker::wake);
        taken.into()
    }

    async fn drop_all(&self) {
        loop {
            self.take().await;
        }
    }
}

/// The end of a terminal's or file's input, and what is to be done then.
#[derive(Default)]
pub(super) struct EndOfInput {
    state: Mutex<(bool, Option<Hook>)>,
}

impl EndOfInput {
    /// Registers what to do, now if the end is past.
    pub(super) fn register(&self, hook: &Hook) {
        let mut state = self.state.lock();
        state.1 = Some(Arc::clone(hook));
        let reached = state.0;
        drop(state);
        if reached {
            hook();
        }
    }

    fn reach(&self) {
        let mut state = self.state.lock();
        state.0 = true;
        let hook = state.1.clone();
        drop(state);
        if let Some(hook) = hook {
            hook();
        }
    }
}

/// Serves a device by its backend until it is told to stop: one connection at a time. Output while there is none is dropped.
pub(super) async fn pump(
    connections: Arc<AsyncMutex<Connections>>,
    output: Arc<Output>,
    port: Arc<dyn Port>,
    stop: Arc<Notify>,
    end_of_input: Arc<EndOfInput>,
) {
    let mut connections = connections.lock().await;
    let room = Arc::new(Notify::new());
    let waker = Arc::clone(&room);
    port.on_room(Box::new(move || waker.notify_one()));
    loop {
        let mut lease = tokio::select! {
            // A connection at hand comes first: output is not dropped before it.
            biased;
            () = stop.notified() => return,
            lease = connections.next() => lease,
            () = output.drop_all() => return,
        };
        let stopped = tokio::select! {
            () = converse(&mut lease.connection, &output, &*port, &room, &end_of_input) => false,
            () = stop.notified() => true,
        };
        output.queue.lock().writing = false;
        if stopped {
            connections.give_back(lease);
            return;
        }
    }
}

/// Serves one connection until the other side ends it. The end of a file's or terminal's input leaves its output.
async fn converse(
    connection: &mut Connection,
    output: &Output,
    port: &dyn Port,
    room: &Notify,
    end_of_input: &EndOfInput,
) {
    let socket = !matches!(connection, Connection::File(_));
    let (mut reader, mut writer) = tokio::io::split(connection);
    let input = async {
        let mut bytes = [0; 4096];
        loop {
            tokio::select! {
                count = reader.read(&mut bytes) => match count {
                    Ok(0) | Err(_) => break,
                    Ok(count) => deliver(&bytes[..count], port, room).await,
                },
                // A port that keeps input for others looks after it.
                () = room.notified() => {
                    port.receive(&[]);
                }
            }
        }
        if !socket {
            end_of_input.reach();
            std::future::pending::<()>().await;
        }
    };
    let out = async {
        loop {
            let bytes = output.take().await;
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = input => {
            // What was said before the end is still delivered.
            let _ = writer.write_all(&output.drain()).await;
        }
        () = out => {}
    }
}

async fn deliver(mut bytes: &[u8], port: &dyn Port, room: &Notify) {
    while !bytes.is_empty() {
        let taken = port.receive(bytes);
        bytes = &bytes[taken..];
        if taken == 0 {
            room.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_writes_more_than_there_is_room_for_waits_and_loses_nothing() {
        let output = Output::default();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let context = Context::from_waker(&waker);
        let bytes = vec![7; OUTPUT_LIMIT + 10];
        assert_eq!(output.poll_push(&context, &bytes), Poll::Ready(OUTPUT_LIMIT));
        assert_eq!(output.poll_push(&context, &bytes[OUTPUT_LIMIT..]), Poll::Pending);
        assert!(!woken.0.load(Ordering::SeqCst));
        assert_eq!(output.drain().len(), OUTPUT_LIMIT);
        assert!(woken.0.load(Ordering::SeqCst));
        assert_eq!(output.poll_push(&context, &bytes[OUTPUT_LIMIT..]), Poll::Ready(10));
        assert_eq!(output.drain(), [7; 10]);
        assert_eq!(output.poll_push(&context, &[]), Poll::Ready(0));
    }
}
