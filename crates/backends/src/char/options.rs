//! What a character backend is to be.

use std::{fmt, io, path::PathBuf, time::Duration};

use rhea_core::files;

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A unix socket at a path.
    Unix(PathBuf),
    /// TCP.
    Tcp {
        /// Host name or address; empty for all.
        host: String,
        /// Port.
        port: u16,
    },
    /// A descriptor by the number it was inherited with, or the name it was passed by: a listening socket for a server, a
    /// connected one else.
    Descriptor(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Descriptor(name) => write!(f, "fd {name}"),
        }
    }
}

/// Kinds of backend with what each needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Options {
    /// Takes everything, gives nothing.
    Null,
    /// The program's own standard input and output. A terminal is put into raw mode.
    Stdio {
        /// Whether the terminal's interrupt key still ends the program.
        signal: bool,
    },
    /// A file that output is written to.
    File {
        /// Where input comes from, if it does.
        input: Option<PathBuf>,
        /// Where output goes.
        output: PathBuf,
        /// Whether to write behind what is there.
        append: bool,
    },
    /// A named pipe; or two, with `.in` and `.out` behind the name.
    Pipe {
        /// The name.
        path: PathBuf,
    },
    /// A new pseudo-terminal.
    Pty,
    /// A socket.
    Socket {
        /// Where.
        address: Address,
        /// Whether to listen.
        server: bool,
        /// Whether a server waits for its first client before it counts as open.
        wait: bool,
        /// After how long a client that has no connection tries again, if it does.
        reconnect: Option<Duration>,
    },
    /// The latest output, in memory.
    Ring {
        /// Bytes it holds: a power of two.
        size: usize,
    },
    /// Another backend, shared.
    Mux {
        /// Its id.
        over: String,
    },
}

/// Names of the kinds there are.
pub const KINDS: [&str; 9] = ["file", "memory", "mux", "null", "pipe", "pty", "ringbuf", "socket", "stdio"];

impl Options {
    /// The kind's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Stdio { .. } => "stdio",
            Self::File { .. } => "file",
            Self::Pipe { .. } => "pipe",
            Self::Pty => "pty",
            Self::Socket { .. } => "socket",
            Self::Ring { .. } => "ringbuf",
            Self::Mux { .. } => "mux",
        }
    }
}

/// A copy of all output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its file.
    pub path: PathBuf,
    /// Whether to write behind what is there.
    pub append: bool,
}

/// Everything that is said of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What it is.
    pub options: Options,
    /// Where a copy of its output goes.
    pub log: Option<Log>,
    /// Whether several users share it.
    pub mux: bool,
}

impl From<Options> for Definition {
    fn from(options: Options) -> Self {
        Self { options, log: None, mux: false }
    }
}

/// A backend that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file.
    #[error("Could not open '{}': {}", path.display(), files::reason(source))]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket.
    #[error("Failed to {what} '{address}': {}", files::reason(source))]
    Socket {
        /// `listen on` or `connect to`.
        what: &'static str,
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// A terminal.
    #[error("could not open a pseudo-terminal: {}", files::reason(.0))]
    Pty(io::Error),
    /// Standard input and output serve one backend only.
    #[error("cannot use stdio by multiple character devices")]
    StdioTaken,
    /// A ring is indexed by a mask.
    #[error("size of ringbuf chardev must be power of two")]
    RingSize,
}
