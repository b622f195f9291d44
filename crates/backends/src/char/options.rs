//! What a character backend is to be.

use std::{fmt, io, path::PathBuf};

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
    /// A descriptor that was inherited: a listening socket for a server, a connected one else.
    Descriptor(i32),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Descriptor(fd) => write!(f, "fd:{fd}"),
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
        /// Its path.
        path: PathBuf,
        /// Whether to write behind what is there.
        append: bool,
    },
    /// A new pseudo-terminal.
    Pty,
    /// A socket.
    Socket {
        /// Where.
        address: Address,
        /// Whether to listen.
        server: bool,
        /// Whether a server waits for its first client before the machine starts.
        wait: bool,
    },
}

impl Options {
    /// The kind's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Stdio { .. } => "stdio",
            Self::File { .. } => "file",
            Self::Pty => "pty",
            Self::Socket { .. } => "socket",
        }
    }
}

/// A backend that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file.
    #[error("Could not open '{}': {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket.
    #[error("could not {what} {address}: {source}")]
    Socket {
        /// `listen on` or `connect to`.
        what: &'static str,
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// A terminal.
    #[error("could not open a pseudo-terminal: {0}")]
    Pty(io::Error),
    /// Standard input and output serve one backend only.
    #[error("cannot use stdio by multiple character devices")]
    StdioTaken,
}
