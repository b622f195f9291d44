//! A character backend under its id, and the ends that its users hold.

use std::{
    fs::File,
    io::Write,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Mutex as AsyncMutex, Notify, mpsc},
};

use super::{
    Conversations, Hook,
    connections::{Connections, Status},
    mux::Mux,
    open::{Kept, Opened},
    pump::{EndOfInput, Output, pump},
    ring::Ring,
};

/// A device's end: what takes the bytes that come in.
pub trait Port: Send + Sync {
    /// Takes bytes, as many as there is room for, and says how many that were. Called by one task at a time, and with none
    /// when there is room again.
    fn receive(&self, bytes: &[u8]) -> usize;

    /// Registers whom to tell when there is room again.
    fn on_room(&self, wake: Box<dyn Fn() + Send + Sync>);

    /// The line is broken: all zeros for longer than a character takes. Who knows no lines lets it pass.
    fn receive_break(&self) {}

    /// Whoever types has turned to this one of several users, or away from it.
    fn focus(&self, _on: bool) {}
}

/// A character backend.
pub struct CharDevice {
    id: String,
    kind: &'static str,
    body: Body,
    in_use: AtomicBool,
    /// The user's, once it is connected.
    port: Mutex<Option<Arc<dyn Port>>>,
    log: Option<Mutex<File>>,
    end_of_input: Arc<EndOfInput>,
}

/// What becomes of bytes.
pub(super) enum Body {
    /// They are gone.
    Null,
    /// They stay in memory.
    Ring(Mutex<Ring>),
    /// They are those of another backend, which several users share.
    Mux(Mux),
    /// They go over connections.
    Stream(Stream),
}

/// A backend that has connections.
pub(super) struct Stream {
    status: Arc<Status>,
    output: Arc<Output>,
    connections: Arc<AsyncMutex<Connections>>,
    hand: mpsc::UnboundedSender<OwnedFd>,
    /// Whether its user takes several connections side by side.
    many: AtomicBool,
    /// Undone when the backend is closed.
    kept: Mutex<Option<Kept>>,
}

impl Stream {
    pub(super) fn new(mut opened: Opened) -> Self {
        let status = Status::new(opened.name.clone());
        let (hand, handed) = mpsc::unbounded_channel();
        let connections = Connections::new(&mut opened, Arc::clone(&status), handed);
        Self {
            status,
            output: Arc::default(),
            connections: Arc::new(AsyncMutex::new(connections)),
            hand,
            many: AtomicBool::new(false),
            kept: Mutex::new(Some(opened.kept)),
        }
    }
}

impl CharDevice {
    pub(super) fn new(id: &str, kind: &'static str, body: Body, log: Option<File>) -> Arc<Self> {
        Arc::new(Self {
            id: id.to_owned(),
            kind,
            body,
            in_use: AtomicBool::new(false),
            port: Mutex::new(None),
            log: log.map(Mutex::new),
            end_of_input: Arc::default(),
        })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What kind of backend it is, such as `socket`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// How it is known on the host, such as `pty:/dev/pts/3`.
    pub fn filename(&self) -> String {
        match &self.body {
            Body::Stream(stream) => stream.status.filename(),
            _ => self.kind.to_owned(),
        }
    }

    /// Name of the pseudo-terminal, if it is one.
    pub fn pty(&self) -> Option<String> {
        match &self.body {
            Body::Mux(mux) => mux.base().pty(),
            _ => self.filename().strip_prefix("pty:").map(str::to_owned),
        }
    }

    /// Whether it has a user.
    pub fn is_used(&self) -> bool {
        match &self.body {
            Body::Mux(mux) => mux.seats().are_taken(),
            _ => self.in_use.load(Ordering::SeqCst),
        }
    }

    /// Its memory, if it is a ring buffer.
    pub(super) fn ring(&self) -> Option<&Mutex<Ring>> {
        match &self.body {
            Body::Ring(ring) => Some(ring),
            _ => None,
        }
    }

    /// Claims an end for one user; `None` if it has one already and is not shared.
    pub(super) fn claim(self: &Arc<Self>, runtime: &Handle) -> Option<FrontEnd> {
        let seat = match &self.body {
            Body::Mux(mux) => Some(mux.seats().claim()?),
            _ => {
                if self.in_use.swap(true, Ordering::SeqCst) {
                    return None;
                }
                None
            }
        };
        Some(FrontEnd { device: Arc::clone(self), seat, runtime: runtime.clone(), stop: Mutex::new(None) })
    }

    /// Sends bytes out; never waits.
    pub(super) fn write(&self, bytes: &[u8]) {
        self.log(bytes);
        match &self.body {
            Body::Null => {}
            Body::Ring(ring) => ring.lock().push(bytes),
            Body::Mux(mux) => mux.write(bytes),
            Body::Stream(stream) => stream.output.push(bytes),
        }
    }

    /// Sends bytes out, as many as there is room for once there is any, and says how many.
    pub(super) fn poll_write(&self, context: &Context<'_>, bytes: &[u8]) -> Poll<usize> {
        let count = match &self.body {
            Body::Mux(mux) => ready!(mux.base().poll_write(context, bytes)),
            Body::Stream(stream) => ready!(stream.output.poll_push(context, bytes)),
            Body::Null => bytes.len(),
            Body::Ring(ring) => {
                ring.lock().push(bytes);
                bytes.len()
            }
        };
        self.log(&bytes[..count.min(bytes.len())]);
        Poll::Ready(count)
    }

    fn log(&self, bytes: &[u8]) {
        if let Some(log) = &self.log
            && let Err(error) = log.lock().write_all(bytes)
        {
            tracing::warn!("the log of '{}': {error}", self.id);
        }
    }

    /// Has the user see a break.
    pub fn send_break(&self) {
        let port = self.port.lock().clone();
        match &self.body {
            Body::Mux(mux) => mux.seats().receive_break(),
            _ => {
                if let Some(port) = port {
                    port.receive_break();
                }
            }
        }
    }

    /// Registers what to do when input comes to its end.
    pub(super) fn on_end_of_input(&self, hook: Hook) {
        match &self.body {
            Body::Mux(mux) => mux.base().on_end_of_input(hook),
            _ => self.end_of_input.register(&hook),
        }
    }

    /// Hands a connected socket over; false if it takes none, or has one.
    pub(super) fn hand_over(&self, socket: OwnedFd) -> bool {
        match &self.body {
            Body::Mux(mux) => mux.base().hand_over(socket),
            Body::Stream(stream) if stream.status.is_socket() => {
                if stream.status.is_busy() && !stream.many.load(Ordering::SeqCst) {
                    return false;
                }
                stream.status.expect();
                stream.hand.send(socket).is_ok()
            }
            _ => false,
        }
    }

    /// Whether all that was written is out, or has nobody to go to.
    pub(super) fn is_flushed(&self) -> bool {
        match &self.body {
            Body::Stream(stream) => stream.output.is_flushed(),
            _ => true,
        }
    }

    /// Gives back what the backend holds of the host besides its connections: a terminal's settings, a socket's file.
    pub(super) fn release(&self) {
        if let Body::Stream(stream) = &self.body {
            drop(stream.kept.lock().take());
        }
    }

    /// Closes the connections of a backend that has no user; false while its last user is still on the way out.
    pub(super) fn close(&self) -> bool {
        match &self.body {
            Body::Stream(stream) => match stream.connections.try_lock() {
                Ok(mut connections) => {
                    connections.close();
                    true
                }
                Err(_) => false,
            },
            _ => true,
        }
    }
}

/// A user's end of a backend. The backend is free again when it is dropped.
pub struct FrontEnd {
    device: Arc<CharDevice>,
    /// Its place among those who share the backend.
    seat: Option<usize>,
    runtime: Handle,
    /// Ends the task that serves the user.
    stop: Mutex<Option<Arc<Notify>>>,
}

impl FrontEnd {
    /// The backend.
    pub fn device(&self) -> &Arc<CharDevice> {
        &self.device
    }

    /// Sends bytes out, as many as there is room for; never waits.
    pub fn write(&self, bytes: &[u8]) {
        self.device.write(bytes);
    }

    /// Sends bytes out, as many as there is room for once there is any, and says how many.
    pub(super) fn poll_write(&self, context: &Context<'_>, bytes: &[u8]) -> Poll<usize> {
        self.device.poll_write(context, bytes)
    }

    /// Connects the user: from now on `port` gets what comes in.
    pub fn connect(&self, port: Arc<dyn Port>) {
        match (&self.device.body, self.seat) {
            (Body::Mux(mux), Some(seat)) => mux.seats().connect(seat, &port),
            (Body::Stream(stream), _) => {
                *self.device.port.lock() = Some(Arc::clone(&port));
                let stop = Arc::new(Notify::new());
                if let Some(earlier) = self.stop.lock().replace(Arc::clone(&stop)) {
                    earlier.notify_one();
                }
                let (connections, output) = (Arc::clone(&stream.connections), Arc::clone(&stream.output));
                let end_of_input = Arc::clone(&self.device.end_of_input);
                self.runtime.spawn(pump(connections, output, port, stop, end_of_input));
            }
            _ => *self.device.port.lock() = Some(port),
        }
    }

    /// The backend's connections, for a user that speaks in streams.
    pub fn conversations(self) -> Conversations {
        let connections = match &self.device.body {
            Body::Stream(stream) => {
                stream.many.store(true, Ordering::SeqCst);
                Some(Arc::clone(&stream.connections))
            }
            _ => None,
        };
        let shared = self.seat.is_some();
        Conversations::new(self, connections, shared)
    }
}

impl Drop for FrontEnd {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.get_mut().take() {
            stop.notify_one();
        }
        match (&self.device.body, self.seat) {
            (Body::Mux(mux), Some(seat)) => mux.seats().leave(seat),
            _ => {
                *self.device.port.lock() = None;
                self.device.in_use.store(false, Ordering::SeqCst);
            }
        }
    }
}
