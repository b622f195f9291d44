//! A backend's connections for a monitor, which speaks in streams: those of a socket or terminal as they are, and for a
//! shared backend a stream of its own, which begins when whoever types turns to it.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Mutex as AsyncMutex, Notify},
};

use super::{Connection, FrontEnd, Hook, Lease, Port, connections::Connections};

/// Most typed bytes that wait to be read.
const INPUT_LIMIT: usize = 4096;

/// The connections of one backend, for one user.
pub struct Conversations {
    front: Arc<FrontEnd>,
    source: Source,
}

enum Source {
    /// The backend's own.
    Connections(Arc<AsyncMutex<Connections>>),
    /// A stream that is made of the bytes for this user.
    Typed(Arc<Typed>),
}

impl Conversations {
    pub(super) fn new(front: FrontEnd, connections: Option<Arc<AsyncMutex<Connections>>>, shared: bool) -> Self {
        let source = match connections {
            Some(connections) => Source::Connections(connections),
            None => {
                let typed = Arc::new(Typed::default());
                typed.state.lock().open = !shared;
                front.connect(Arc::clone(&typed) as Arc<dyn Port>);
                Source::Typed(typed)
            }
        };
        Self { front: Arc::new(front), source }
    }

    /// The next connection. Those of a server may be side by side; any other ends before the next one comes.
    pub async fn next(&mut self) -> Lease {
        match &self.source {
            Source::Connections(connections) => connections.lock().await.next().await,
            Source::Typed(typed) => {
                typed.opened().await;
                let stream = PortStream { typed: Arc::clone(typed), front: Arc::clone(&self.front) };
                Lease::uncounted(Connection::Port(stream))
            }
        }
    }
}

/// What was typed and not read yet.
#[derive(Default)]
struct Typed {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    input: VecDeque<u8>,
    /// Somebody has turned here.
    open: bool,
    /// The stream exists.
    taken: bool,
    reader: Option<Waker>,
    room: Option<Hook>,
}

impl Typed {
    async fn opened(&self) {
        loop {
            {
                let mut state = self.state.lock();
                if state.open && !state.taken {
                    state.taken = true;
                    return;
                }
            }
            self.changed.notified().await;
        }
    }

    fn open(&self) {
        let mut state = self.state.lock();
        if !state.open {
            state.open = true;
            drop(state);
            self.changed.notify_one();
        }
    }
}

impl Port for Typed {
    fn receive(&self, bytes: &[u8]) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        let mut state = self.state.lock();
        let taken = bytes.len().min(INPUT_LIMIT.saturating_sub(state.input.len()));
        state.input.extend(&bytes[..taken]);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        // After the end of a conversation, typing begins another.
        self.open();
        taken
    }

    fn on_room(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.state.lock().room = Some(Arc::from(wake));
    }

    fn focus(&self, on: bool) {
        if on {
            self.open();
        }
    }
}

/// The stream of one user of a shared backend.
pub struct PortStream {
    typed: Arc<Typed>,
    front: Arc<FrontEnd>,
}

impl AsyncRead for PortStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.typed.state.lock();
        if state.input.is_empty() {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        while buffer.remaining() > 0
            && let Some(byte) = state.input.pop_front()
        {
            buffer.put_slice(&[byte]);
        }
        let room = state.room.clone();
        drop(state);
        if let Some(room) = room {
            room();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.front.poll_write(context, bytes).map(Ok)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for PortStream {
    fn drop(&mut self) {
        let mut state = self.typed.state.lock();
        state.taken = false;
        state.open = false;
        state.input.clear();
        state.reader = None;
        drop(state);
        self.typed.changed.notify_one();
    }
}
