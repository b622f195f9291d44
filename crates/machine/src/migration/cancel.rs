//! Calling work off that may wait for the host: whoever waits for a descriptor waits for this one too.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{Errno, write},
};

/// What one thread calls off and another waits with.
#[derive(Debug)]
pub struct Cancel {
    event: OwnedFd,
}

/// What a wait that was called off ends with.
pub(super) fn called_off() -> io::Error {
    io::Error::other("the migration was cancelled")
}

impl Cancel {
    /// Work that goes on.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn new() -> io::Result<Arc<Self>> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { event }))
    }

    /// Calls it off, for good.
    pub fn cancel(&self) {
        // It fails if it was called off more often than a counter counts.
        let _ = write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Whether it was called off.
    pub fn is_cancelled(&self) -> bool {
        let mut own = [PollFd::new(&self.event, PollFlags::IN)];
        matches!(poll(&mut own, Some(&Timespec::default())), Ok(1))
    }

    /// Waits until `descriptor` is as `flags` say.
    ///
    /// # Errors
    /// It was called off.
    pub(super) fn wait_for(&self, descriptor: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
        loop {
            let mut both = [PollFd::new(&self.event, PollFlags::IN), PollFd::from_borrowed_fd(descriptor, flags)];
            match poll(&mut both, None) {
                Ok(_) if !both[0].revents().is_empty() => return Err(called_off()),
                Ok(_) if !both[1].revents().is_empty() => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for `time`.
    ///
    /// # Errors
    /// It was called off.
    pub(super) fn pause(&self, time: Duration) -> io::Result<()> {
        let mut own = [PollFd::new(&self.event, PollFlags::IN)];
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        match poll(&mut own, Some(&time)) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            Ok(_) => Err(called_off()),
            Err(error) => Err(error.into()),
        }
    }
}
