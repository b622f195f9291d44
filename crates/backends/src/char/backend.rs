//! Opening a backend.
//!
//! This module passes descriptors, so it may be unsafe: an inherited descriptor is known by its number only.
#![allow(unsafe_code)]

use std::{
    fs::OpenOptions,
    io,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::OFlags,
    net::AddressFamily,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr},
};

use super::{Address, Connection, Incoming, OpenError, Options, connection::FileStream};

/// An open backend: its first connection, if it has one yet, and where more come from.
#[derive(Debug)]
pub struct Backend {
    options: Options,
    first: Option<First>,
    listener: Option<Listener>,
    /// What to tell people: the name of a pseudo-terminal.
    filename: String,
    terminal: Option<SavedTerminal>,
    /// The other end of a pseudo-terminal: while it is open, the terminal lives without a user and keeps what is said.
    other_end: Option<OwnedFd>,
    /// A socket's file, removed at the end.
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum First {
    Unix(UnixStream),
    Tcp(TcpStream),
    File { input: Option<OwnedFd>, output: OwnedFd },
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

static STDIO_TAKEN: AtomicBool = AtomicBool::new(false);

impl Backend {
    /// Opens a backend. Clients connect, and servers listen, before this returns; one that waits has its first client.
    ///
    /// # Errors
    /// What cannot be opened, with its name and the host's reason.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let mut backend = Self {
            options: options.clone(),
            first: None,
            listener: None,
            filename: options.kind().to_owned(),
            terminal: None,
            other_end: None,
            path: None,
        };
        match options {
            Options::Null => {}
            Options::Stdio { signal } => backend.open_stdio(*signal)?,
            Options::File { path, append } => {
                let file = OpenOptions::new().write(true).create(true).append(*append).truncate(!append).open(path);
                let file = file.map_err(|source| OpenError::File { path: path.clone(), source })?;
                backend.first = Some(First::File { input: None, output: file.into() });
                backend.filename = "file".to_owned();
            }
            Options::Pty => backend.open_pty().map_err(|error| OpenError::Pty(error.into()))?,
            Options::Socket { address, server, wait } => {
                backend.filename = address.to_string();
                let (what, result) = if *server {
                    ("listen on", backend.listen(address, *wait))
                } else {
                    ("connect to", backend.connect(address))
                };
                result.map_err(|source| OpenError::Socket { what, address: address.clone(), source })?;
            }
        }
        Ok(backend)
    }

    /// What the backend was made from.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How the backend is known on the host, such as `pty:/dev/pts/3`.
    pub fn filename(&self) -> &str {
        &self.filename
    }

    fn open_stdio(&mut self, signal: bool) -> Result<(), OpenError> {
        if STDIO_TAKEN.swap(true, Ordering::SeqCst) {
            return Err(OpenError::StdioTaken);
        }
        let open = || -> io::Result<First> {
            let input = io::stdin().as_fd().try_clone_to_owned()?;
            let output = io::stdout().as_fd().try_clone_to_owned()?;
            Ok(First::File { input: Some(input), output })
        };
        self.first = Some(open().map_err(|source| OpenError::File { path: "stdio".into(), source })?);
        if let Ok(termios) = tcgetattr(io::stdin()) {
            let mut raw = termios.clone();
            raw.make_raw();
            // Output is still cooked, so that messages of ours look right.
            raw.output_modes |= rustix::termios::OutputModes::OPOST;
            if signal {
                raw.local_modes |= rustix::termios::LocalModes::ISIG;
            }
            if tcsetattr(io::stdin(), OptionalActions::Now, &raw).is_ok() {
                self.terminal = Some(SavedTerminal(Box::new(termios)));
            }
        }
        Ok(())
    }

    fn open_pty(&mut self) -> rustix::io::Result<()> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
        let mut termios = tcgetattr(&master)?;
        termios.make_raw();
        tcsetattr(&master, OptionalActions::Now, &termios)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        self.other_end = Some(rustix::fs::open(name.as_str(), flags, rustix::fs::Mode::empty())?);
        let input = rustix::io::dup(&master)?;
        self.first = Some(First::File { input: Some(input), output: master });
        self.filename = format!("pty:{name}");
        Ok(())
    }

    fn listen(&mut self, address: &Address, wait: bool) -> io::Result<()> {
        let listener = match address {
            Address::Unix(path) => {
                // A socket that a program left behind is in the way; any other file is not ours to remove.
                if let Ok(metadata) = std::fs::symlink_metadata(path)
                    && std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type())
                {
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                self.path = Some(path.clone());
                Listener::Unix(listener)
            }
            Address::Tcp { host, port } => {
                let host = if host.is_empty() { "0.0.0.0" } else { host.as_str() };
                Listener::Tcp(TcpListener::bind((host, *port))?)
            }
            Address::Descriptor(number) => {
                let descriptor = inherited(*number)?;
                if rustix::net::getsockname(&descriptor)?.address_family() == AddressFamily::UNIX {
                    Listener::Unix(descriptor.into())
                } else {
                    Listener::Tcp(descriptor.into())
                }
            }
        };
        if wait {
            eprintln!("rhea: waiting for a connection on {address}");
            self.first = Some(match &listener {
                Listener::Unix(listener) => First::Unix(listener.accept()?.0),
                Listener::Tcp(listener) => First::Tcp(listener.accept()?.0),
            });
        }
        self.listener = Some(listener);
        Ok(())
    }

    fn connect(&mut self, address: &Address) -> io::Result<()> {
        self.first = Some(match address {
            Address::Unix(path) => First::Unix(UnixStream::connect(path)?),
            Address::Tcp { host, port } => {
                let host = if host.is_empty() { "localhost" } else { host.as_str() };
                First::Tcp(TcpStream::connect((host, *port))?)
            }
            Address::Descriptor(number) => {
                let descriptor = inherited(*number)?;
                if rustix::net::getsockname(&descriptor)?.address_family() == AddressFamily::UNIX {
                    First::Unix(descriptor.into())
                } else {
                    First::Tcp(descriptor.into())
                }
            }
        });
        Ok(())
    }

    /// The backend's connections, for use on the runtime this is called on.
    ///
    /// # Errors
    /// A descriptor that the runtime cannot wait for.
    pub fn connections(&mut self) -> io::Result<(Option<Connection>, Option<Incoming>)> {
        let first = match self.first.take() {
            None => None,
            Some(First::Unix(stream)) => {
                stream.set_nonblocking(true)?;
                Some(Connection::Unix(tokio::net::UnixStream::from_std(stream)?))
            }
            Some(First::Tcp(stream)) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Some(Connection::Tcp(tokio::net::TcpStream::from_std(stream)?))
            }
            Some(First::File { input, output }) => Some(Connection::File(FileStream::new(input, output)?)),
        };
        let incoming = match self.listener.take() {
            None => None,
            Some(Listener::Unix(listener)) => {
                listener.set_nonblocking(true)?;
                Some(Incoming::Unix(tokio::net::UnixListener::from_std(listener)?))
            }
            Some(Listener::Tcp(listener)) => {
                listener.set_nonblocking(true)?;
                Some(Incoming::Tcp(tokio::net::TcpListener::from_std(listener)?))
            }
        };
        Ok((first, incoming))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A terminal's settings, put back at the end.
#[derive(Debug)]
struct SavedTerminal(Box<Termios>);

impl Drop for SavedTerminal {
    fn drop(&mut self) {
        // A terminal that went away needs no settings.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
        // The descriptors are shared with whoever started us.
        for descriptor in [io::stdin().as_fd(), io::stdout().as_fd()] {
            if let Ok(flags) = rustix::fs::fcntl_getfl(descriptor) {
                let _ = rustix::fs::fcntl_setfl(descriptor, flags - OFlags::NONBLOCK);
            }
        }
    }
}

/// Takes over a descriptor that the program was started with.
fn inherited(number: i32) -> io::Result<OwnedFd> {
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, "no descriptor of that number was inherited");
    if number <= 2 || !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists() {
        return Err(bad());
    }
    // SAFETY: the descriptor is open, and its number was given to us on the command line for this one use; it is none
    // that the standard library uses.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
    Ok(descriptor)
}
