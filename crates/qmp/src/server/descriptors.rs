//! File descriptors that come along with a client's messages over a unix socket (SCM_RIGHTS).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// Most descriptors taken from one packet; the kernel closes the rest.
const MOST_IN_A_PACKET: usize = 16;
/// Most descriptors that wait for a command to take them.
const MOST_WAITING: usize = 64;

#[derive(Default)]
struct Waiting {
    queue: RefCell<VecDeque<OwnedFd>>,
    keep: Cell<bool>,
}

/// Descriptors that came with messages and wait for the command that takes them.
#[derive(Clone, Default)]
pub(super) struct Descriptors {
    waiting: Rc<Waiting>,
}

impl Descriptors {
    /// The earliest one.
    pub(super) fn take(&self) -> Option<OwnedFd> {
        self.waiting.queue.borrow_mut().pop_front()
    }

    /// Says whether commands that may still take the earlier ones are waiting. If not, those that nobody took are
    /// closed when new ones come.
    pub(super) fn keep_earlier(&self, keep: bool) {
        self.waiting.keep.set(keep);
    }

    fn receive(&self, descriptors: Vec<OwnedFd>) {
        if descriptors.is_empty() {
            return;
        }
        let mut queue = self.waiting.queue.borrow_mut();
        if !self.waiting.keep.get() {
            queue.clear();
        }
        queue.extend(descriptors);
        let excess = queue.len().saturating_sub(MOST_WAITING);
        queue.drain(..excess);
    }
}

/// A unix socket that puts the descriptors it receives aside.
pub(super) struct DescriptorStream {
    stream: UnixStream,
    descriptors: Descriptors,
}

impl DescriptorStream {
    pub(super) fn new(stream: UnixStream, descriptors: Descriptors) -> Self {
        Self { stream, descriptors }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_IN_A_PACKET))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(buffer)];
        let received = recvmsg(self.stream.as_fd(), &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        self.descriptors.receive(descriptors);
        Ok(received.bytes)
    }
}

impl AsyncRead for DescriptorStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let unfilled = buffer.initialize_unfilled();
            match self.stream.try_io(Interest::READABLE, || self.receive(unfilled)) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for DescriptorStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
