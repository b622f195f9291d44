//! One conversation of a backend: a stream of bytes both ways.
//!
//! This module passes descriptors, so it may be unsafe: the event loop wants a promise about each that it watches.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{fs::OFlags, io::Errno};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::{TcpStream, UnixStream},
};

use super::PortStream;

/// A stream of bytes both ways.
pub enum Connection {
    /// A unix socket, which can pass descriptors.
    Unix(UnixStream),
    /// TCP.
    Tcp(TcpStream),
    /// A terminal, a pipe or a file.
    File(FileStream),
    /// What one user of a shared backend sees of it.
    Port(PortStream),
}

/// Input and output descriptors that are no sockets.
pub struct FileStream {
    input: Option<Source>,
    output: Source,
}

/// A descriptor as the runtime can wait for it: regular files are always ready.
enum Source {
    Polled(AsyncFd<OwnedFd>),
    Ready(OwnedFd),
}

impl Source {
    fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&descriptor)?;
        rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
        // The event queue refuses what is always ready.
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&descriptor)?.st_mode);
        Ok(if kind == rustix::fs::FileType::RegularFile {
            Self::Ready(descriptor)
        } else {
            // SAFETY: the descriptor is owned by the stream for as long as it is watched, and never replaced.
            match unsafe { AsyncFd::register(descriptor) } {
                Ok(polled) => Self::Polled(polled),
                // Devices such as /dev/null are always ready too.
                Err(error) => Self::Ready(error.into_parts().0),
            }
        })
    }
}

impl FileStream {
    /// A stream that reads from `input`, if there is one, and writes to `output`.
    ///
    /// # Errors
    /// A descriptor that cannot be waited for.
    pub fn new(input: Option<OwnedFd>, output: OwnedFd) -> io::Result<Self> {
        Ok(Self { input: input.map(Source::new).transpose()?, output: Source::new(output)? })
    }
}

/// An end of file as terminals say it: a pseudo-terminal that nobody has open fails with EIO.
fn end_of_file(error: Errno) -> bool {
    error == Errno::IO
}

impl AsyncRead for FileStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(input) = &self.input else { return Poll::Pending };
        let mut bytes = [0; 4096];
        let most = bytes.len().min(buffer.remaining());
        loop {
            let (result, guard) = match input {
                Source::Polled(polled) => {
                    let guard = ready!(polled.poll_read_ready(context))?;
                    (rustix::io::read(polled.get_ref(), &mut bytes[..most]), Some(guard))
                }
                Source::Ready(descriptor) => (rustix::io::read(descriptor, &mut bytes[..most]), None),
            };
            return Poll::Ready(match (result, guard) {
                (Ok(count), _) => {
                    buffer.put_slice(&bytes[..count]);
                    Ok(())
                }
                (Err(Errno::AGAIN), Some(mut guard)) => {
                    guard.clear_ready();
                    continue;
                }
                (Err(Errno::INTR), _) => continue,
                (Err(error), _) if end_of_file(error) => Ok(()),
                (Err(error), _) => Err(error.into()),
            });
        }
    }
}

impl AsyncWrite for FileStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let (result, guard) = match &self.output {
                Source::Polled(polled) => {
                    let guard = ready!(polled.poll_write_ready(context))?;
                    (rustix::io::write(polled.get_ref(), data), Some(guard))
                }
                Source::Ready(descriptor) => (rustix::io::write(descriptor, data), None),
            };
            return Poll::Ready(match (result, guard) {
                (Ok(count), _) => Ok(count),
                (Err(Errno::AGAIN), Some(mut guard)) => {
                    guard.clear_ready();
                    continue;
                }
                (Err(Errno::INTR), _) => continue,
                (Err(error), _) => Err(error.into()),
            });
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Connection::Unix($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Connection::Tcp($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Connection::File($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Connection::Port($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(context, data))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(context))
    }
}
