//! All character backends of the program, by id, and the thread that serves them.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rhea_core::files::{self, Access};
use rustix::fs::{FileType, fstat};
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    CharDevice, Definition, FrontEnd, Hook, Log, OpenError, Options,
    device::{Body, Stream},
    mux::Mux,
    open::open,
    options::KINDS,
    ring::Ring,
};

/// How long the last user of a backend that is removed has to be on its way out.
const DEPARTURE: Duration = Duration::from_millis(200);

/// What cannot be done with character backends.
#[derive(Debug, thiserror::Error)]
pub enum CharError {
    /// Ids are unique.
    #[error("Chardev with id '{0}' already exists")]
    Exists(String),
    /// No backend of that id.
    #[error("Chardev '{0}' not found")]
    NotFound(String),
    /// No backend of that id; as those who use one say it.
    #[error("Device '{0}' not found")]
    NoDevice(String),
    /// It has a user.
    #[error("Chardev '{0}' is busy")]
    Busy(String),
    /// It has a user, and is wanted by another.
    #[error("Device '{0}' is in use")]
    InUse(String),
    /// It keeps nothing.
    #[error("{0} is not a ringbuf device")]
    NoRing(String),
    /// It could not be opened.
    #[error("Failed to add chardev '{id}': {source}")]
    Open {
        /// Its id.
        id: String,
        /// Why.
        source: OpenError,
    },
    /// The backend to be shared cannot be.
    #[error("Failed to add chardev '{id}': {source}")]
    Share {
        /// The id of what was to share it.
        id: String,
        /// Why.
        source: Box<Self>,
    },
    /// Only sockets are handed over.
    #[error("parameter @fdname must name a socket")]
    NoSocket,
    /// Nobody of that name takes clients.
    #[error("protocol '{0}' is invalid")]
    Protocol(String),
    /// It takes no client, or has one.
    #[error("failed to add client")]
    Refused,
}

/// A backend, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// How it is known on the host.
    pub filename: String,
    /// Whether it has a user.
    pub used: bool,
}

/// Hears of a backend that came (`true`) or went.
pub type Watcher = Box<dyn Fn(&CharDevice, bool) + Send + Sync>;

/// All character backends.
pub struct CharDevices {
    devices: Mutex<Vec<Arc<CharDevice>>>,
    /// Called while the list is locked.
    watcher: OnceLock<Watcher>,
    exit: Arc<Mutex<Option<Hook>>>,
    runtime: Handle,
    /// Ends the thread when it is dropped.
    _end: oneshot::Sender<()>,
}

impl CharDevices {
    /// None yet, and a thread that will serve them.
    ///
    /// # Errors
    /// The host has no more threads or descriptors.
    pub fn new() -> io::Result<Arc<Self>> {
        let (end, ended) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        thread::Builder::new().name("backends".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            if tell.send(Ok(runtime.handle().clone())).is_ok() {
                // Nothing is ever sent: it ends with its sender.
                drop(runtime.block_on(ended));
            }
        })?;
        let runtime = told.recv().map_err(io::Error::other)??;
        Ok(Arc::new(Self {
            devices: Mutex::default(),
            watcher: OnceLock::new(),
            exit: Arc::default(),
            runtime,
            _end: end,
        }))
    }

    /// Names of the kinds of backend.
    pub const fn kinds() -> &'static [&'static str] {
        &KINDS
    }

    /// Has `watcher` hear of all backends, those that are there first. There is one watcher; it must not ask for backends.
    pub fn watch(&self, watcher: Watcher) {
        let devices = self.devices.lock();
        let watcher = self.watcher.get_or_init(|| watcher);
        for device in devices.iter() {
            watcher(device, true);
        }
    }

    fn tell(&self, device: &CharDevice, there: bool) {
        if let Some(watcher) = self.watcher.get() {
            watcher(device, there);
        }
    }

    /// Registers what to do when somebody types the exit key into a shared backend.
    pub fn on_exit(&self, hook: Hook) {
        *self.exit.lock() = Some(hook);
    }

    /// Registers what to do when a backend's input comes to its end, or now if it has.
    ///
    /// # Errors
    /// No such backend.
    pub fn on_end_of_input(&self, id: &str, hook: Hook) -> Result<(), CharError> {
        self.find(id)?.on_end_of_input(hook);
        Ok(())
    }

    /// Opens a backend. `passed` is the socket of one that is said to be a descriptor. Waits for its first client if it is
    /// to do so.
    ///
    /// # Errors
    /// The id is there already, or the host's reason.
    pub fn add(
        &self,
        id: &str,
        definition: &Definition,
        passed: Option<OwnedFd>,
    ) -> Result<Arc<CharDevice>, CharError> {
        self.check_new(id)?;
        if !definition.mux {
            return self.open(id, definition, passed);
        }
        let base = format!("{id}-base");
        self.open(&base, &Definition { mux: false, ..definition.clone() }, passed)?;
        let shared = self.open(id, &Options::Mux { over: base.clone() }.into(), None);
        if shared.is_err() {
            // It was ours only.
            let _ = self.remove(&base);
        }
        shared
    }

    fn open(&self, id: &str, definition: &Definition, passed: Option<OwnedFd>) -> Result<Arc<CharDevice>, CharError> {
        self.check_new(id)?;
        let failed = |source| CharError::Open { id: id.to_owned(), source };
        let options = &definition.options;
        let body = match options {
            Options::Null => Body::Null,
            Options::Ring { size } if !size.is_power_of_two() => return Err(failed(OpenError::RingSize)),
            Options::Ring { size } => Body::Ring(Mutex::new(Ring::new(*size))),
            Options::Mux { over } => {
                let base = self.claim(over);
                let base = base.map_err(|source| CharError::Share { id: id.to_owned(), source: Box::new(source) })?;
                Body::Mux(Mux::new(base, Arc::clone(&self.exit)))
            }
            _ => Body::Stream(Stream::new(open(options, passed).map_err(failed)?)),
        };
        let log = definition.log.as_ref().map(open_log).transpose().map_err(failed)?;
        let device = CharDevice::new(id, options.kind(), body, log);
        let mut devices = self.devices.lock();
        // Another may have come in between.
        if devices.iter().any(|other| other.id() == id) {
            return Err(CharError::Exists(id.to_owned()));
        }
        self.tell(&device, true);
        devices.push(Arc::clone(&device));
        Ok(device)
    }

    fn check_new(&self, id: &str) -> Result<(), CharError> {
        if self.devices.lock().iter().any(|other| other.id() == id) {
            return Err(CharError::Exists(id.to_owned()));
        }
        Ok(())
    }

    /// Closes a backend that has no user.
    ///
    /// # Errors
    /// No such backend, or it has a user.
    pub fn remove(&self, id: &str) -> Result<(), CharError> {
        let mut devices = self.devices.lock();
        let at = devices.iter().position(|device| device.id() == id);
        let at = at.ok_or_else(|| CharError::NotFound(id.to_owned()))?;
        if devices[at].is_used() {
            return Err(CharError::Busy(id.to_owned()));
        }
        let device = devices.remove(at);
        self.tell(&device, false);
        drop(devices);
        device.release();
        let deadline = Instant::now() + DEPARTURE;
        while !device.close() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The backends, in the order in which they came.
    pub fn list(&self) -> Vec<Listed> {
        let devices = self.devices.lock();
        let shown = |device: &Arc<CharDevice>| Listed {
            id: device.id().to_owned(),
            filename: device.filename(),
            used: device.is_used(),
        };
        devices.iter().map(shown).collect()
    }

    /// The backend `id`.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, id: &str) -> Result<Arc<CharDevice>, CharError> {
        let devices = self.devices.lock();
        let found = devices.iter().find(|device| device.id() == id).cloned();
        found.ok_or_else(|| CharError::NotFound(id.to_owned()))
    }

    /// Claims the backend `id` for a user.
    ///
    /// # Errors
    /// There is none, or it has a user and is not shared.
    pub fn claim(&self, id: &str) -> Result<FrontEnd, CharError> {
        // Under the lock, so that it is not removed meanwhile.
        let devices = self.devices.lock();
        let device = devices.iter().find(|device| device.id() == id);
        let device = device.ok_or_else(|| CharError::NotFound(id.to_owned()))?;
        device.claim(&self.runtime).ok_or_else(|| CharError::InUse(id.to_owned()))
    }

    /// Appends to a ring buffer.
    ///
    /// # Errors
    /// There is none of that id.
    pub fn ring_write(&self, id: &str, bytes: &[u8]) -> Result<(), CharError> {
        self.with_ring(id, |ring| ring.push(bytes))
    }

    /// Takes the oldest bytes of a ring buffer.
    ///
    /// # Errors
    /// There is none of that id.
    pub fn ring_read(&self, id: &str, most: usize) -> Result<Vec<u8>, CharError> {
        self.with_ring(id, |ring| ring.take(most))
    }

    /// Takes the oldest bytes of a ring buffer as text; an incomplete character at the end stays.
    ///
    /// # Errors
    /// There is none of that id.
    pub fn ring_read_text(&self, id: &str, most: usize) -> Result<String, CharError> {
        self.with_ring(id, |ring| ring.take_text(most))
    }

    fn with_ring<T>(&self, id: &str, work: impl FnOnce(&mut Ring) -> T) -> Result<T, CharError> {
        let device = self.find(id).map_err(|_| CharError::NoDevice(id.to_owned()))?;
        let ring = device.ring().ok_or_else(|| CharError::NoRing(id.to_owned()))?;
        Ok(work(&mut ring.lock()))
    }

    /// Hands a connected socket over to backend `id`, as if the client had connected to it.
    ///
    /// # Errors
    /// It is no socket, or nobody takes it.
    pub fn hand_over(&self, id: &str, socket: OwnedFd) -> Result<(), CharError> {
        let kind = fstat(&socket).map(|status| FileType::from_raw_mode(status.st_mode));
        if kind != Ok(FileType::Socket) {
            return Err(CharError::NoSocket);
        }
        let device = self.find(id).map_err(|_| CharError::Protocol(id.to_owned()))?;
        if device.hand_over(socket) { Ok(()) } else { Err(CharError::Refused) }
    }

    /// Waits until what was written is out, `limit` at the most.
    pub fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let waits = || self.devices.lock().iter().any(|device| !device.is_flushed());
        while waits() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Gives back what the backends hold of the host: a terminal's settings, sockets' files.
    pub fn release(&self) {
        for device in self.devices.lock().iter() {
            device.release();
        }
    }
}

impl Drop for CharDevices {
    fn drop(&mut self) {
        self.release();
    }
}

fn open_log(log: &Log) -> Result<File, OpenError> {
    let access = if log.append { Access::Append } else { Access::Replace };
    files::open(&log.path, access).map_err(|source| OpenError::File { path: log.path.clone(), source })
}
