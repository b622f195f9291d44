//! Opening a backend on the host.

use std::{
    io,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rhea_core::files::{self, Access};
use rustix::{
    fs::OFlags,
    net::AddressFamily,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr},
};

use super::{
    Address, OpenError, Options,
    connections::{Name, Retry},
};

/// What was opened: the first connection, if there is one yet, and where more come from.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) first: Option<First>,
    pub(super) listener: Option<Listener>,
    pub(super) retry: Option<Retry>,
    pub(super) name: Name,
    pub(super) kept: Kept,
}

/// What is undone when the backend is closed.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The program's own standard input and output.
    stdio: Option<Stdio>,
    /// The other end of a pseudo-terminal: while it is open, the terminal lives without a user and keeps what is said.
    other_end: Option<OwnedFd>,
    /// A socket's file.
    path: Option<PathBuf>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[derive(Debug)]
pub(super) enum First {
    Unix(UnixStream),
    Tcp(TcpStream),
    File { input: Option<OwnedFd>, output: OwnedFd },
}

#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl First {
    /// A connected socket.
    pub(super) fn of_socket(socket: OwnedFd) -> io::Result<Self> {
        Ok(if is_unix(&socket)? { Self::Unix(socket.into()) } else { Self::Tcp(socket.into()) })
    }
}

fn is_unix(socket: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::net::getsockname(socket)?.address_family() == AddressFamily::UNIX)
}

/// Opens a backend that is neither memory nor shared. Clients connect, unless they try again and again, and servers listen,
/// before this returns; one that waits has its first client.
///
/// # Errors
/// What cannot be opened, with its name and the host's reason.
pub(super) fn open(options: &Options, passed: Option<OwnedFd>) -> Result<Opened, OpenError> {
    let mut opened = Opened {
        first: None,
        listener: None,
        retry: None,
        name: Name::Fixed(options.kind().to_owned()),
        kept: Kept::default(),
    };
    match options {
        Options::Null | Options::Ring { .. } | Options::Mux { .. } => {}
        Options::Stdio { signal } => opened.stdio(*signal)?,
        Options::File { input, output, append } => {
            let open = |path: &Path, access| {
                let file = files::open(path, access);
                file.map(OwnedFd::from).map_err(|source| OpenError::File { path: path.to_owned(), source })
            };
            let output = open(output, if *append { Access::Append } else { Access::Replace })?;
            let input = input.as_deref().map(|path| open(path, Access::Read)).transpose()?;
            opened.first = Some(First::File { input, output });
        }
        Options::Pipe { path } => opened.pipe(path)?,
        Options::Pty => opened.pty().map_err(|error| OpenError::Pty(error.into()))?,
        Options::Socket { address, server, wait, reconnect } => {
            opened.name = Name::of_socket(address, *server);
            let (what, result) = match (*server, reconnect) {
                (true, _) => ("listen on", opened.listen(address, *wait, passed)),
                (false, Some(pause)) => {
                    opened.retry = Some(Retry::new(address.clone(), *pause));
                    return Ok(opened);
                }
                (false, None) => ("connect to", opened.connect(address, passed)),
            };
            result.map_err(|source| OpenError::Socket { what, address: address.clone(), source })?;
        }
    }
    Ok(opened)
}

impl Opened {
    fn stdio(&mut self, signal: bool) -> Result<(), OpenError> {
        let mut stdio = Stdio::take().ok_or(OpenError::StdioTaken)?;
        let open = || -> io::Result<First> {
            let input = io::stdin().as_fd().try_clone_to_owned()?;
            let output = io::stdout().as_fd().try_clone_to_owned()?;
            Ok(First::File { input: Some(input), output })
        };
        self.first = Some(open().map_err(|source| OpenError::File { path: "stdio".into(), source })?);
        stdio.make_raw(signal);
        self.kept.stdio = Some(stdio);
        Ok(())
    }

    fn pipe(&mut self, path: &Path) -> Result<(), OpenError> {
        let with = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let open = |path: &Path| {
            // For both, so that a pipe nobody has open yet neither fails nor ends.
            let file = files::open(path, Access::ReadWrite);
            file.map(OwnedFd::from).map_err(|source| OpenError::File { path: path.to_owned(), source })
        };
        let (input, output) = match (open(&with(".in")), open(&with(".out"))) {
            (Ok(input), Ok(output)) => (input, output),
            _ => {
                let both = open(path)?;
                let other = both.try_clone();
                (other.map_err(|source| OpenError::File { path: path.to_owned(), source })?, both)
            }
        };
        self.first = Some(First::File { input: Some(input), output });
        Ok(())
    }

    fn pty(&mut self) -> rustix::io::Result<()> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
        let mut termios = tcgetattr(&master)?;
        termios.make_raw();
        tcsetattr(&master, OptionalActions::Now, &termios)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        self.kept.other_end = Some(rustix::fs::open(name.as_str(), flags, rustix::fs::Mode::empty())?);
        let input = rustix::io::fcntl_dupfd_cloexec(&master, 0)?;
        self.first = Some(First::File { input: Some(input), output: master });
        self.name = Name::Fixed(format!("pty:{name}"));
        Ok(())
    }

    fn listen(&mut self, address: &Address, wait: bool, passed: Option<OwnedFd>) -> io::Result<()> {
        let listener = match address {
            Address::Unix(path) => {
                // A socket that a program left behind is in the way; any other file is not ours to remove.
                if let Ok(metadata) = std::fs::symlink_metadata(path)
                    && std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type())
                {
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                self.kept.path = Some(path.clone());
                Listener::Unix(listener)
            }
            Address::Tcp { host, port } => {
                let host = if host.is_empty() { "0.0.0.0" } else { host.as_str() };
                Listener::Tcp(TcpListener::bind((host, *port))?)
            }
            Address::Descriptor(name) => {
                let descriptor = descriptor(name, passed)?;
                if is_unix(&descriptor)? { Listener::Unix(descriptor.into()) } else { Listener::Tcp(descriptor.into()) }
            }
        };
        self.name.listens(&listener);
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

    fn connect(&mut self, address: &Address, passed: Option<OwnedFd>) -> io::Result<()> {
        self.first = Some(match address {
            Address::Unix(path) => First::Unix(UnixStream::connect(path)?),
            Address::Tcp { host, port } => First::Tcp(TcpStream::connect((local_if_empty(host), *port))?),
            Address::Descriptor(name) => First::of_socket(descriptor(name, passed)?)?,
        });
        Ok(())
    }
}

/// A client's host: this one if none is named.
pub(super) fn local_if_empty(host: &str) -> &str {
    if host.is_empty() { "localhost" } else { host }
}

/// A descriptor that a client has passed; else one that the program was started with.
fn descriptor(name: &str, passed: Option<OwnedFd>) -> io::Result<OwnedFd> {
    match passed {
        Some(passed) => Ok(passed),
        None => files::inherited(name.parse().map_err(|_| io::Error::from(rustix::io::Errno::BADF))?),
    }
}

static STDIO_TAKEN: AtomicBool = AtomicBool::new(false);

/// Standard input and output, which one backend has at a time. A terminal's settings are put back at the end.
#[derive(Debug)]
struct Stdio {
    saved: Option<Box<Termios>>,
}

impl Stdio {
    fn take() -> Option<Self> {
        (!STDIO_TAKEN.swap(true, Ordering::SeqCst)).then_some(Self { saved: None })
    }

    fn make_raw(&mut self, signal: bool) {
        let Ok(termios) = tcgetattr(io::stdin()) else { return };
        let mut raw = termios.clone();
        raw.make_raw();
        // Output is still cooked, so that messages of ours look right.
        raw.output_modes |= rustix::termios::OutputModes::OPOST;
        if signal {
            raw.local_modes |= rustix::termios::LocalModes::ISIG;
        }
        if tcsetattr(io::stdin(), OptionalActions::Now, &raw).is_ok() {
            self.saved = Some(Box::new(termios));
        }
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // A terminal that went away needs no settings.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, saved);
        }
        // The descriptors are shared with whoever started us.
        for descriptor in [io::stdin().as_fd(), io::stdout().as_fd()] {
            if let Ok(flags) = rustix::fs::fcntl_getfl(descriptor) {
                let _ = rustix::fs::fcntl_setfl(descriptor, flags - OFlags::NONBLOCK);
            }
        }
        STDIO_TAKEN.store(false, Ordering::SeqCst);
    }
}
