//! QMP monitors: listeners, sessions, and the commands that they run, all on one thread.
//!
//! Everything here runs on one current-thread `tokio` runtime inside a `LocalSet`, so a command costs one wake-up and no
//! hand-over. Commands that take long say so and run on a thread of their own.

mod conversation;
mod descriptors;
mod handle;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle, spawn_local};

use crate::after::AfterAnswer;
use crate::error::Error;
use crate::events::EventSender;
use conversation::Conversation;
use descriptors::{DescriptorStream, Descriptors};

pub use handle::SessionHandle;

/// Most clients at a time on all monitors together; more are turned away.
pub const MOST_SESSIONS: usize = 256;

/// How long a listener rests after an error such as a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a command comes to.
pub enum Execution {
    /// The result, at hand. Events emitted meanwhile precede it.
    Done(Result<Value, Error>),
    /// The result, and what to do once it is queued: events emitted there follow it.
    DoneThen(Result<Value, Error>, AfterAnswer),
    /// Work that takes long and runs on a thread of its own. Other sessions go on, and so do this session's
    /// out-of-band commands; its other commands wait.
    Later(Job),
    /// The same, and what to do once the answer is queued, or the session has gone.
    LaterThen(Job, AfterAnswer),
}

/// Work for a thread of its own.
pub type Job = Box<dyn FnOnce() -> Result<Value, Error> + Send>;

/// Who knows the commands.
pub trait Dispatcher {
    /// What the greeting says of the version: `{"qemu": {"major", "minor", "micro"}, "package"}`.
    fn version(&self) -> Value;

    /// Whether `command` may run out of band; `None` if there is no such command.
    fn allows_oob(&self, command: &str) -> Option<bool>;

    /// Runs `command`, which [`Self::allows_oob`] knows, on the monitor thread. A panic answers the command with an error.
    fn execute(&self, session: &SessionHandle, command: &str, arguments: Map<String, Value>) -> Execution;
}

/// All QMP monitors of the process.
#[derive(Clone)]
pub struct Server {
    inner: Rc<Inner>,
}

struct Inner {
    dispatcher: Rc<dyn Dispatcher>,
    events: EventSender,
    next_number: Cell<u64>,
    sessions: RefCell<HashMap<u64, AbortHandle>>,
    session_ended: Notify,
    listeners: RefCell<Vec<AbortHandle>>,
    timer: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// Takes a session off the list, however it ends.
struct Registration {
    inner: Rc<Inner>,
    number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.inner.sessions.borrow_mut().remove(&self.number);
        self.inner.session_ended.notify_one();
    }
}

impl Server {
    /// A server whose sessions run the commands of `dispatcher` and get the events of `events`.
    ///
    /// # Panics
    /// Outside a `tokio` `LocalSet`.
    pub fn new(dispatcher: Rc<dyn Dispatcher>, events: EventSender) -> Self {
        let timer = spawn_local(events.clone().run_timer()).abort_handle();
        Self {
            inner: Rc::new(Inner {
                dispatcher,
                events,
                next_number: Cell::new(1),
                sessions: RefCell::default(),
                session_ended: Notify::new(),
                listeners: RefCell::default(),
                timer,
            }),
        }
    }

    /// Where to emit events.
    pub fn events(&self) -> EventSender {
        self.inner.events.clone()
    }

    /// Serves one client over any stream. The task ends with the session.
    pub fn serve_stream<S>(&self, stream: S) -> JoinHandle<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        self.serve(stream, Descriptors::default())
    }

    /// Serves one client over a unix socket, with descriptor passing. The task ends with the session.
    pub fn serve_unix_stream(&self, stream: UnixStream) -> JoinHandle<()> {
        let descriptors = Descriptors::default();
        self.serve(DescriptorStream::new(stream, descriptors.clone()), descriptors)
    }

    /// Serves one client over TCP. The task ends with the session.
    pub fn serve_tcp_stream(&self, stream: TcpStream) -> JoinHandle<()> {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::warn!(%error, "answers over TCP may be delayed");
        }
        self.serve_stream(stream)
    }

    /// Serves all clients that come to a unix socket, until the task is aborted or the server shut down.
    pub fn serve_unix_listener(&self, listener: UnixListener) -> JoinHandle<()> {
        let server = self.clone();
        self.listen(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(server.serve_unix_stream(stream)),
                    Err(error) => rest_after(&error).await,
                }
            }
        })
    }

    /// Serves all clients that come to a TCP port, until the task is aborted or the server shut down.
    pub fn serve_tcp_listener(&self, listener: TcpListener) -> JoinHandle<()> {
        let server = self.clone();
        self.listen(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(server.serve_tcp_stream(stream)),
                    Err(error) => rest_after(&error).await,
                }
            }
        })
    }

    /// How many clients are connected.
    pub fn sessions(&self) -> usize {
        self.inner.sessions.borrow().len()
    }

    /// Ends listeners and sessions: held-back events go out, what is queued is written, and every client sees the end
    /// of the stream. A client that does not read in time loses the rest at the end of `limit`.
    pub async fn shutdown(&self, limit: Duration) {
        for listener in self.inner.listeners.borrow_mut().drain(..) {
            listener.abort();
        }
        self.inner.events.close();
        let all_ended = async {
            while self.sessions() > 0 {
                self.inner.session_ended.notified().await;
            }
        };
        if tokio::time::timeout(limit, all_ended).await.is_err() {
            tracing::warn!(sessions = self.sessions(), "clients did not read their last messages");
            for session in self.inner.sessions.borrow().values() {
                session.abort();
            }
        }
        self.inner.timer.abort();
    }

    fn listen(&self, accept: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
        let task = spawn_local(accept);
        let mut listeners = self.inner.listeners.borrow_mut();
        listeners.retain(|listener| !listener.is_finished());
        listeners.push(task.abort_handle());
        task
    }

    fn serve<S>(&self, stream: S, descriptors: Descriptors) -> JoinHandle<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        if self.sessions() >= MOST_SESSIONS {
            tracing::warn!("a client was turned away: {MOST_SESSIONS} are connected");
            return spawn_local(async {});
        }
        let number = self.inner.next_number.get();
        self.inner.next_number.set(number + 1);
        let inner = self.inner.clone();
        // The greeting and the place in the event hub exist before anybody can look for them.
        let handle = SessionHandle::new(number, descriptors);
        let conversation = Conversation::new(stream, inner.dispatcher.clone(), &inner.events, handle);
        let registration = Registration { inner, number };
        let task = spawn_local(async move {
            let _registration = registration;
            tracing::debug!(session = number, "client connected");
            conversation.run().await;
            tracing::debug!(session = number, "client gone");
        });
        self.inner.sessions.borrow_mut().insert(number, task.abort_handle());
        task
    }
}

async fn rest_after(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept a client");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
