//! Descriptors that the program was started with, known by their numbers only.
//!
//! This module passes descriptors, so it may be unsafe: which numbers are nobody's yet is written down once, before the
//! program opens anything, and each is given away once.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use parking_lot::Mutex;
use rustix::{
    io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd},
    stdio,
};

/// Numbers that were inherited and that nobody has yet; nothing before they were written down.
static INHERITED: Mutex<Option<BTreeSet<RawFd>>> = Mutex::new(None);

/// Writes down which descriptors the program was started with. To be called first of all: what is opened later is not
/// inherited. Without it the first to ask for one has it called.
pub fn record_inherited() {
    INHERITED.lock().get_or_insert_with(open_ones);
}

/// Open descriptors, without the standard three, that another program would be started with. What is opened here never is.
fn open_ones() -> BTreeSet<RawFd> {
    let names = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    let is_inherited = |number: &RawFd| {
        // SAFETY: the descriptor was open a moment ago, and is only looked at; one that is closed meanwhile is an error.
        let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(*number) });
        flags.is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC))
    };
    numbers.filter(|number| *number > stdio::raw_stderr()).filter(is_inherited).collect()
}

/// Takes over descriptor `number`, which the command line or a manager gives to one user.
///
/// # Errors
/// The program was not started with it, or somebody has it already.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    if !INHERITED.lock().get_or_insert_with(open_ones).remove(&number) {
        return Err(Errno::BADF.into());
    }
    // SAFETY: the number was open when the program began and is in nobody's hands: only this function gives it away, and
    // it was struck from the list just now.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn only_what_was_inherited_is_taken_and_only_once() {
        let (theirs, ours) = io::pipe().unwrap();
        fcntl_setfd(&theirs, FdFlags::empty()).unwrap();
        let number = theirs.into_raw_fd();
        let known = open_ones();
        assert!(known.contains(&number) && !known.contains(&ours.as_raw_fd()) && !known.contains(&1), "{known:?}");
        *INHERITED.lock() = Some([number].into());
        record_inherited();
        assert!(inherited(1).is_err());
        assert!(inherited(ours.as_raw_fd()).is_err(), "opened here");
        let taken = inherited(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(inherited(number).is_err(), "somebody has it");
        fcntl_setfd(&ours, FdFlags::empty()).unwrap();
        assert!(inherited(ours.as_raw_fd()).is_err(), "it was not there at the beginning");
    }
}
