//! Where a backend's connections come from, one after another: those at hand, clients that connect, clients handed over, and
//! attempts to connect.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, mpsc},
    time::sleep,
};

use super::{
    Address, Connection,
    connection::FileStream,
    open::{First, Listener, Opened, local_if_empty},
};

/// How long a listener rests after an error such as a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a backend is known on the host.
#[derive(Clone, Debug)]
pub(super) enum Name {
    /// Always so.
    Fixed(String),
    /// A socket: it depends on whether somebody is connected.
    Socket { family: &'static str, at: String, server: bool },
}

impl Name {
    pub(super) fn of_socket(address: &Address, server: bool) -> Self {
        let (family, at) = match address {
            Address::Unix(path) => ("unix", path.display().to_string()),
            Address::Tcp { .. } => ("tcp", address.to_string()),
            Address::Descriptor(name) => ("fd", name.clone()),
        };
        Self::Socket { family, at, server }
    }

    /// What is listened on, as the host says: the port may have been its choice.
    pub(super) fn listens(&mut self, listener: &Listener) {
        let Self::Socket { family, at, .. } = self else { return };
        match listener {
            Listener::Unix(listener) => {
                *family = "unix";
                if let Some(path) = listener.local_addr().ok().as_ref().and_then(|address| address.as_pathname()) {
                    *at = path.display().to_string();
                }
            }
            Listener::Tcp(listener) => {
                *family = "tcp";
                if let Ok(address) = listener.local_addr() {
                    *at = address.to_string();
                }
            }
        }
    }
}

/// Who is connected.
#[derive(Debug)]
pub(super) struct Status {
    name: Name,
    connected: AtomicUsize,
    /// Handed over and not taken yet.
    pending: AtomicUsize,
    /// The two ends of the latest TCP connection.
    ends: Mutex<Option<(String, String)>>,
    left: Notify,
}

impl Status {
    pub(super) fn new(name: Name) -> Arc<Self> {
        Arc::new(Self {
            name,
            connected: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            ends: Mutex::new(None),
            left: Notify::new(),
        })
    }

    /// How the backend is known on the host now.
    pub(super) fn filename(&self) -> String {
        let (family, at, server) = match &self.name {
            Name::Fixed(name) => return name.clone(),
            Name::Socket { family, at, server } => (family, at, if *server { ",server=on" } else { "" }),
        };
        if self.connected.load(Ordering::SeqCst) == 0 {
            return format!("disconnected:{family}:{at}{server}");
        }
        match &*self.ends.lock() {
            Some((ours, theirs)) => format!("{family}:{ours}{server} <-> {theirs}"),
            None => format!("{family}:{at}{server}"),
        }
    }

    pub(super) fn is_socket(&self) -> bool {
        matches!(self.name, Name::Socket { .. })
    }

    /// Whether somebody is connected, or about to be.
    pub(super) fn is_busy(&self) -> bool {
        self.connected.load(Ordering::SeqCst) + self.pending.load(Ordering::SeqCst) > 0
    }

    /// A client was handed over.
    pub(super) fn expect(&self) {
        self.pending.fetch_add(1, Ordering::SeqCst);
    }

    fn lease(self: &Arc<Self>, connection: Connection) -> Lease {
        if let Connection::Tcp(stream) = &connection
            && let (Ok(ours), Ok(theirs)) = (stream.local_addr(), stream.peer_addr())
        {
            *self.ends.lock() = Some((ours.to_string(), theirs.to_string()));
        }
        self.connected.fetch_add(1, Ordering::SeqCst);
        Lease { connection, mark: Mark(Some(Arc::clone(self))) }
    }
}

/// A connection in use.
pub struct Lease {
    /// The connection.
    pub connection: Connection,
    /// To be kept as long as the connection is.
    pub mark: Mark,
}

impl Lease {
    /// A connection that nobody counts.
    pub(super) fn uncounted(connection: Connection) -> Self {
        Self { connection, mark: Mark(None) }
    }
}

/// Counts a connection as long as it exists.
#[derive(Debug)]
pub struct Mark(Option<Arc<Status>>);

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some(status) = self.0.take() {
            status.connected.fetch_sub(1, Ordering::SeqCst);
            status.left.notify_one();
        }
    }
}

/// A client that tries to connect until it is.
#[derive(Debug)]
pub(super) struct Retry {
    address: Address,
    pause: Duration,
    tried: bool,
}

impl Retry {
    pub(super) fn new(address: Address, pause: Duration) -> Self {
        Self { address, pause, tried: false }
    }

    /// A connection, once there is none: tried at once the first time, then at intervals.
    async fn connect(&mut self, status: &Status) -> Connection {
        loop {
            while status.connected.load(Ordering::SeqCst) > 0 {
                status.left.notified().await;
            }
            if self.tried {
                sleep(self.pause).await;
            }
            self.tried = true;
            let connected = match &self.address {
                Address::Unix(path) => UnixStream::connect(path).await.map(Connection::Unix),
                Address::Tcp { host, port } => {
                    let stream = TcpStream::connect((local_if_empty(host), *port)).await;
                    stream.and_then(|stream| stream.set_nodelay(true).map(|()| Connection::Tcp(stream)))
                }
                Address::Descriptor(_) => std::future::pending().await,
            };
            match connected {
                Ok(connection) => return connection,
                Err(error) => tracing::debug!("{}: {error}", self.address),
            }
        }
    }
}

/// The source of a backend's connections.
pub(super) struct Connections {
    status: Arc<Status>,
    first: Option<First>,
    listener: Option<Listener>,
    incoming: Option<Incoming>,
    retry: Option<Retry>,
    handed: mpsc::UnboundedReceiver<OwnedFd>,
    given_back: Option<Lease>,
}

enum Incoming {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Incoming {
    fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Self::Unix(UnixListener::from_std(listener)?)
            }
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Self::Tcp(TcpListener::from_std(listener)?)
            }
        })
    }

    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Connection::Unix(stream)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
        }
    }
}

impl First {
    /// The connection, for use on the runtime this is called on.
    fn connect(self) -> io::Result<Connection> {
        Ok(match self {
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Connection::Unix(UnixStream::from_std(stream)?)
            }
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Connection::Tcp(TcpStream::from_std(stream)?)
            }
            Self::File { input, output } => Connection::File(FileStream::new(input, output)?),
        })
    }
}

async fn accept(incoming: Option<&Incoming>) -> Connection {
    let Some(incoming) = incoming else { return std::future::pending().await };
    loop {
        match incoming.accept().await {
            Ok(connection) => return connection,
            Err(error) => {
                tracing::warn!("accept: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn retry(retry: Option<&mut Retry>, status: &Status) -> Connection {
    match retry {
        Some(retry) => retry.connect(status).await,
        None => std::future::pending().await,
    }
}

impl Connections {
    /// The connections of what was opened, and those handed over.
    pub(super) fn new(opened: &mut Opened, status: Arc<Status>, handed: mpsc::UnboundedReceiver<OwnedFd>) -> Self {
        Self {
            status,
            first: opened.first.take(),
            listener: opened.listener.take(),
            incoming: None,
            retry: opened.retry.take(),
            handed,
            given_back: None,
        }
    }

    /// The next connection. The first call decides on which runtime they work.
    pub(super) async fn next(&mut self) -> Lease {
        if let Some(lease) = self.given_back.take() {
            return lease;
        }
        if let Some(first) = self.first.take() {
            match first.connect() {
                Ok(connection) => return self.status.lease(connection),
                Err(error) => tracing::error!("{}: {error}", self.status.filename()),
            }
        }
        if let Some(listener) = self.listener.take() {
            match Incoming::new(listener) {
                Ok(incoming) => self.incoming = Some(incoming),
                Err(error) => tracing::error!("{}: {error}", self.status.filename()),
            }
        }
        loop {
            tokio::select! {
                connection = accept(self.incoming.as_ref()) => return self.status.lease(connection),
                connection = retry(self.retry.as_mut(), &self.status) => return self.status.lease(connection),
                Some(socket) = self.handed.recv() => {
                    self.status.pending.fetch_sub(1, Ordering::SeqCst);
                    match First::of_socket(socket).and_then(First::connect) {
                        Ok(connection) => return self.status.lease(connection),
                        Err(error) => tracing::warn!("{}: {error}", self.status.filename()),
                    }
                }
            }
        }
    }

    /// Keeps a connection for whoever comes next.
    pub(super) fn give_back(&mut self, lease: Lease) {
        self.given_back = Some(lease);
    }

    /// Closes everything.
    pub(super) fn close(&mut self) {
        self.first = None;
        self.listener = None;
        self.incoming = None;
        self.retry = None;
        self.given_back = None;
        self.handed.close();
    }
}
